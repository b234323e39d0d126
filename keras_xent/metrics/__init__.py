"""Metrics: thin `keras.metrics.Metric` classes over a few kinds of state."""

from keras_xent.metrics.brier import BrierScore
from keras_xent.metrics.calibration import ExpectedCalibrationError
from keras_xent.metrics.likelihood import CrossentropyRate, Perplexity
from keras_xent.metrics.match_accuracy import MatchAccuracy
from keras_xent.metrics.reliability_diagram import ReliabilityDiagram
from keras_xent.metrics.score_histogram import ScoreHistogram

__all__ = [
    "BrierScore",
    "CrossentropyRate",
    "ExpectedCalibrationError",
    "MatchAccuracy",
    "Perplexity",
    "ReliabilityDiagram",
    "ScoreHistogram",
]
