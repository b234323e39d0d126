"""Callbacks: what watches a fit."""

from keras_xent.callbacks.tune_threshold import TuneThreshold

__all__ = ["TuneThreshold"]
