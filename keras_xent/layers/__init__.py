"""Layers: what neither a loss nor a metric can be."""

from keras_xent.layers.match_decision import MatchDecision
from keras_xent.layers.symmetric_kl_distance import SymmetricKLDistance

__all__ = ["MatchDecision", "SymmetricKLDistance"]
