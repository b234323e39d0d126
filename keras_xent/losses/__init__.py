"""Losses: thin `keras.losses.Loss` classes over `keras_xent.ops`."""

from keras_xent.losses.correlation import PearsonLoss, SpearmanLoss
from keras_xent.losses.crossentropy import (
    SigmoidCrossentropy,
    SoftmaxCrossentropy,
    SparseSoftmaxCrossentropy,
)
from keras_xent.losses.divergence import JensenShannonDivergence, KLDivergence
from keras_xent.losses.hinge import SoftplusHinge, SymmetricKLHinge
from keras_xent.losses.linear import LinearCrossentropy
from keras_xent.losses.sampled import (
    NoiseContrastiveEstimation,
    SampledSoftmaxCrossentropy,
)

__all__ = [
    "JensenShannonDivergence",
    "KLDivergence",
    "LinearCrossentropy",
    "NoiseContrastiveEstimation",
    "PearsonLoss",
    "SampledSoftmaxCrossentropy",
    "SigmoidCrossentropy",
    "SoftmaxCrossentropy",
    "SoftplusHinge",
    "SparseSoftmaxCrossentropy",
    "SpearmanLoss",
    "SymmetricKLHinge",
]
