"""Maximum and minimum that are defined for an empty batch as well."""

import keras
import numpy as np
from keras import ops

from keras_xent.ops.select import where

BACKEND = keras.backend.backend()


def largest(x, start, axis=None, keepdims=False):
    """The maximum of `start` and the entries along an axis.

    `ops.max(x, initial=start)`, wherever `x` is: on PyTorch Keras makes a
    tensor of `initial` on the CPU, which fails beside one on a GPU, and returns
    a single number for a batch without rows.
    """
    if BACKEND != "torch":
        return ops.max(x, axis=axis, keepdims=keepdims, initial=start)
    if 0 in x.shape:
        return ops.sum(x, axis=axis, keepdims=keepdims) + start
    top = ops.max(x, axis=axis, keepdims=keepdims)
    if start == -np.inf:
        return top
    # `maximum` would make float32 of float64.
    return where(top <= start, start, top)


def smallest(x, start, axis=None, keepdims=False):
    """The minimum of `start` and the entries along an axis; as `largest`."""
    if BACKEND != "torch":
        return ops.min(x, axis=axis, keepdims=keepdims, initial=start)
    if 0 in x.shape:
        return ops.sum(x, axis=axis, keepdims=keepdims) + start
    low = ops.min(x, axis=axis, keepdims=keepdims)
    if start == np.inf:
        return low
    return where(low >= start, start, low)
