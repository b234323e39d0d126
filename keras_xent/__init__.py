"""Cross-entropy from logits, at any size, on any Keras backend.

And the metrics that turn the scores into decisions.
"""

from keras_xent import callbacks, data, layers, losses, metrics, ops
from keras_xent.diagnosis import diagnose

__version__ = "0.1.0"

__all__ = [
    "callbacks",
    "data",
    "diagnose",
    "layers",
    "losses",
    "metrics",
    "ops",
]
