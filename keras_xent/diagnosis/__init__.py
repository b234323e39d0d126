"""Diagnosis: what is wrong with a model, its loss or its labels."""

from keras_xent.diagnosis.examine import diagnose
from keras_xent.diagnosis.report import Finding, Report

__all__ = ["Finding", "Report", "diagnose"]
