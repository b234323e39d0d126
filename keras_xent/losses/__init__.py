"""Losses: thin `keras.losses.Loss` classes over `keras_xent.ops`."""

from keras_xent.losses.contrastive import (
    InfoNCE,
    SigmoidContrastive,
    SupervisedContrastive,
)
from keras_xent.losses.correlation import PearsonLoss, SpearmanLoss
from keras_xent.losses.crossentropy import (
    SigmoidCrossentropy,
    SoftmaxCrossentropy,
    SparseSoftmaxCrossentropy,
)
from keras_xent.losses.divergence import JensenShannonDivergence, KLDivergence
from keras_xent.losses.hinge import PairHinge, SoftplusHinge, SymmetricKLHinge
from keras_xent.losses.linear import LinearCrossentropy
from keras_xent.losses.multi_similarity import MultiSimilarity
from keras_xent.losses.prototypical import PrototypicalCrossentropy
from keras_xent.losses.sampled import (
    NoiseContrastiveEstimation,
    SampledSoftmaxCrossentropy,
)
from keras_xent.losses.triplet import TripletHinge

__all__ = [
    "InfoNCE",
    "JensenShannonDivergence",
    "KLDivergence",
    "LinearCrossentropy",
    "MultiSimilarity",
    "NoiseContrastiveEstimation",
    "PairHinge",
    "PearsonLoss",
    "PrototypicalCrossentropy",
    "SampledSoftmaxCrossentropy",
    "SigmoidContrastive",
    "SigmoidCrossentropy",
    "SoftmaxCrossentropy",
    "SoftplusHinge",
    "SparseSoftmaxCrossentropy",
    "SpearmanLoss",
    "SupervisedContrastive",
    "SymmetricKLHinge",
    "TripletHinge",
]
