"""Callbacks: what watches a fit."""

from keras_xent.callbacks.evaluate_retrieval import EvaluateRetrieval
from keras_xent.callbacks.margin_schedule import MarginSchedule
from keras_xent.callbacks.temperature_scaling import TemperatureScaling
from keras_xent.callbacks.tune_threshold import TuneThreshold
from keras_xent.diagnosis.callback import Diagnose  # stands above this folder

__all__ = [
    "Diagnose",
    "EvaluateRetrieval",
    "MarginSchedule",
    "TemperatureScaling",
    "TuneThreshold",
]
