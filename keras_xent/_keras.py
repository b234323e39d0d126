"""The one door to what Keras keeps private.

Nothing else in this package imports `keras.src` or touches an attribute of a
Keras object that begins with an underscore. Each entry says what it is for and
since which Keras it holds; tests/test_keras.py has a test of each.
"""

import contextlib
import sys

import keras
from keras.src.backend import get_keras_mask as get_mask
from keras.src.backend import set_keras_mask as set_mask
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.backend.common.tensor_attributes import (
    get_tensor_attr,
    set_tensor_attr,
)
from keras.src.backend.common.variables import AutocastScope
from keras.src.losses.loss import reduce_weighted_values
from keras.src.trainers.compile_utils import MetricsList

__all__ = [
    "MetricGroup",
    "announce",
    "full_precision",
    "get_mask",
    "get_tensor_attr",
    "in_symbolic_scope",
    "records_backward_pass",
    "reduce_weighted_values",
    "set_direction",
    "set_directions",
    "set_mask",
    "set_tensor_attr",
    "unannounce",
    "without_autocast",
]

BACKEND = keras.backend.backend()


def without_autocast():
    """A scope in which a layer reads its variables in their own dtype."""
    return AutocastScope(None)


@contextlib.contextmanager
def full_precision():
    """A scope that `torch.autocast` does not reach; nothing on other backends.

    The rule of the whole package: what it computes, it computes in the dtype
    of what it is given, float32 at least. Keras has no word for PyTorch's
    autocast, so PyTorch is asked, which Keras has imported by now.
    """
    if BACKEND != "torch":
        yield
        return
    torch = sys.modules["torch"]
    with contextlib.ExitStack() as stack:
        for device in ("cuda", "cpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def records_backward_pass():
    """Whether a backward pass is to be differentiated, `create_graph=True`.

    False on other backends: it is asked inside of a gradient, where PyTorch
    alone changes tensors in place.
    """
    return BACKEND == "torch" and sys.modules["torch"].is_grad_enabled()


# Which way is better -------------------------------------------------------
#
# `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` in `mode="auto"`
# take the metric whose name is the one that they monitor, without "val_", and
# read its `_direction`, "up" or "down". There is no public word for it in
# Keras 3.15; without it they ask the user for a mode.


def set_direction(metric, direction):
    """Tells such callbacks whether "up" or "down" is better."""
    metric._direction = direction


def set_directions(metric, directions):
    """Tells it for each key of a metric whose result is a dict.

    Args:
        metric: A `keras.metrics.Metric`.
        directions: "up" or "down" for each key, as it is written into logs.
    """
    metric.name = _Names(metric.name, directions)
    metric._direction = _LastAsked(metric.name)


class _Names(str):
    """A name that is equal to each of several keys, and remembers to which.

    Keras compares the name that it looks for with that of the metric, and then
    asks the metric for its direction.
    """

    def __new__(cls, name, directions):
        self = super().__new__(cls, name)
        self.directions, self.asked = directions, None
        return self

    def __eq__(self, other):
        if other in self.directions:
            self.asked = other
            return True
        return str.__eq__(self, other)

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__

    def __reduce__(self):
        return str, (str(self),)


class _LastAsked:
    """The direction of the key that a name was last found equal to."""

    def __init__(self, names):
        self.names = names

    def __eq__(self, other):
        return self.names.directions.get(self.names.asked) == other

    __hash__ = None


class MetricGroup(MetricsList):
    """Metrics of a layer, where such callbacks find their directions.

    They look into lists of this class alone, not at what layers track.
    """

    def result(self):
        return {metric.name: metric.result() for metric in self.metrics}


class _Notice(MetricsList):
    """The name and the direction of a log that no metric writes."""

    def result(self):
        return {}


def announce(model, name, direction):
    """Tells such callbacks about a log that a callback of ours writes.

    Returns:
        What `unannounce` takes.
    """
    metric = keras.metrics.Metric(name=name)
    set_direction(metric, direction)
    notice = _Notice([metric])
    # Not as an attribute: a model that is built takes no more of them.
    model._metrics.append(notice)
    return notice


def unannounce(model, notice):
    """Takes back what was announced."""
    if notice in model._metrics:
        model._metrics.remove(notice)
