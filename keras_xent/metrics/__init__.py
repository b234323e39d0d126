"""Metrics: thin `keras.metrics.Metric` classes over a few kinds of state."""

from keras_xent.metrics.all_reduce import all_reduce
from keras_xent.metrics.brier import BrierScore
from keras_xent.metrics.calibration import ExpectedCalibrationError
from keras_xent.metrics.cllr import Cllr, DPrime, MinCllr
from keras_xent.metrics.clustering import cluster_misclassification_rate
from keras_xent.metrics.correlation import SpearmanCorrelation
from keras_xent.metrics.detection_cost import DetectionCost, MinDetectionCost
from keras_xent.metrics.equal_error_rate import EqualErrorRate
from keras_xent.metrics.likelihood import CrossentropyRate, Perplexity
from keras_xent.metrics.match_accuracy import MatchAccuracy
from keras_xent.metrics.ranking import (
    AveragePrecision,
    MatchAUC,
    TrueMatchRateAt,
)
from keras_xent.metrics.reliability_diagram import ReliabilityDiagram
from keras_xent.metrics.retrieval import retrieval
from keras_xent.metrics.score_histogram import ScoreHistogram
from keras_xent.metrics.verification import VerificationMetrics

__all__ = [
    "AveragePrecision",
    "BrierScore",
    "Cllr",
    "CrossentropyRate",
    "DPrime",
    "DetectionCost",
    "EqualErrorRate",
    "ExpectedCalibrationError",
    "MatchAUC",
    "MatchAccuracy",
    "MinCllr",
    "MinDetectionCost",
    "Perplexity",
    "ReliabilityDiagram",
    "ScoreHistogram",
    "SpearmanCorrelation",
    "TrueMatchRateAt",
    "VerificationMetrics",
    "all_reduce",
    "cluster_misclassification_rate",
    "retrieval",
]
