"""Metrics: thin `keras.metrics.Metric` classes over a few kinds of state."""

from keras_xent.metrics.correlation import SpearmanCorrelation
from keras_xent.metrics.match_accuracy import MatchAccuracy
from keras_xent.metrics.score_histogram import ScoreHistogram

__all__ = ["MatchAccuracy", "ScoreHistogram", "SpearmanCorrelation"]
