"""Layers: what neither a loss nor a metric can be."""

from keras_xent.layers.cosine_head import CosineHead
from keras_xent.layers.linear_head import LinearHead
from keras_xent.layers.match_decision import MatchDecision
from keras_xent.layers.similarity_head import SimilarityHead
from keras_xent.layers.symmetric_kl_distance import SymmetricKLDistance
from keras_xent.layers.temperature import Temperature

__all__ = [
    "CosineHead",
    "LinearHead",
    "MatchDecision",
    "SimilarityHead",
    "SymmetricKLDistance",
    "Temperature",
]
