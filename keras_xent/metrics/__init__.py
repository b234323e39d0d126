"""Metrics: thin `keras.metrics.Metric` classes over a few kinds of state."""

from keras_xent.metrics.likelihood import CrossentropyRate, Perplexity
from keras_xent.metrics.match_accuracy import MatchAccuracy
from keras_xent.metrics.score_histogram import ScoreHistogram

__all__ = [
    "CrossentropyRate",
    "MatchAccuracy",
    "Perplexity",
    "ScoreHistogram",
]
