"""Sums of what has the same id."""

import keras
from keras import ops

from keras_xent.ops.select import where

BACKEND = keras.backend.backend()


def segment_sum(values, ids, count):
    """Σ of the `values` of each id from 0 to count − 1; others are left out.

    As `keras.ops.segment_sum`, which on PyTorch waits for the GPU, goes through
    float32, and takes the maximum of the ids where the count is 0, as of Keras
    3.15 (no upstream issue found).
    """
    ids = where((ids >= 0) & (ids < count), ids, count)
    sums = _zeros((count + 1, *values.shape[1:]), values)
    return ops.scatter_update(sums, ids[:, None], values, reduction="add")[
        :count
    ]


def _zeros(shape, like):
    """Of the dtype of a tensor; mapped with it by `torch.func.vmap`."""
    if BACKEND == "torch":
        return ops.convert_to_tensor(like).new_zeros(shape)
    return ops.zeros(shape, like.dtype)
