"""The one door to what Keras keeps private.

Nothing else in this package imports `keras.src` or touches an attribute of a
Keras object that begins with an underscore. Each entry says what it is for and
since which Keras it holds; tests/test_keras.py has a test of each.
"""

import contextlib
import re
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
    "moveaxis",
    "own_gradient",
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


def moveaxis(x, source, destination):
    """`ops.moveaxis`, which `torch.vmap` knows of tuples only."""
    return keras.ops.moveaxis(x, (source,), (destination,))


def own_gradient(function):
    """`ops.custom_gradient`, out of reach of `torch.autocast`.

    Two kinds of transform refuse gradients that are not the framework's own:
    those of `torch.func`, and forward mode on JAX. For them it is `function`
    differentiated as it is written, with all that this keeps in memory.
    """

    def forward(*arguments):
        value, gradient = function(*arguments)

        def backward(*arguments, upstream=None):
            # It may run where `torch.autocast` is on again.
            with full_precision():
                return gradient(*arguments, upstream=upstream)

        return value, backward

    def call(*arguments):
        try:
            return keras.ops.custom_gradient(forward)(*arguments)
        except (RuntimeError, TypeError) as error:
            if not re.search("functorch|custom_vjp", str(error)):
                raise
            return function(*arguments)[0]

    return call
