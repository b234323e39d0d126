"""Choices between a tensor and a number."""

import keras
from keras import ops

BACKEND = keras.backend.backend()


def where(condition, x, y):
    """`ops.where`, and a number for x or y is made where the other one is.

    On PyTorch Keras makes it on the host: with a GPU the program waits until it
    is copied, in the midst of a step.
    """
    if _is_number(x):
        x = constant(x, y)
    elif _is_number(y):
        y = constant(y, x)
    return ops.where(condition, x, y)


def constant(number, like):
    """A number, as a tensor without axes beside a tensor of PyTorch's."""
    if BACKEND == "torch" and ops.is_tensor(like) and _holds(like, number):
        return like.new_full((), number)
    return number


def _holds(like, number):
    """Whether the two have one dtype, that of the tensor, on all backends."""
    dtype = keras.backend.standardize_dtype(like.dtype)
    return "float" in dtype or ("int" in dtype and isinstance(number, int))


def _is_number(x):
    return isinstance(x, (int, float))
