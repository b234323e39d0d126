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

__all__ = [
    "full_precision",
    "get_mask",
    "get_tensor_attr",
    "in_symbolic_scope",
    "reduce_weighted_values",
    "set_mask",
    "set_tensor_attr",
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
