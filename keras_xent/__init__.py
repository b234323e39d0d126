"""Cross-entropy from logits, at any size, on any Keras backend.

And the metrics that turn the scores into decisions.
"""

import importlib
import typing

from keras_xent import data, layers, losses, metrics, ops

if typing.TYPE_CHECKING:
    from keras_xent import callbacks
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


def __getattr__(name: str) -> typing.Any:
    # What watches a training is a third of an import, and saved models, which
    # need all the rest, hold none of it.
    if name in ("callbacks", "diagnosis"):
        return importlib.import_module(f"keras_xent.{name}")
    if name == "diagnose":
        return importlib.import_module("keras_xent.diagnosis").diagnose
    raise AttributeError(f"module 'keras_xent' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
