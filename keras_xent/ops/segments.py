"""Sums of what has the same id."""

import keras
from keras import ops

from keras_xent.ops.select import where

BACKEND = keras.backend.backend()


def segment_sum(values, ids, count):
    """Σ of the `values` of each id from 0 to count − 1; others are left out.

    As `keras.ops.segment_sum`, which on PyTorch waits for the GPU, goes through
    float32, and takes the maximum of the ids where the count is 0, as of Keras
    3.15 (no upstream issue found). TensorFlow leaves out negative ids alone,
    JAX all that are none.
    """
    if BACKEND == "tensorflow":
        ids = where(ids < count, ids, -1)
    if BACKEND != "torch":
        return ops.segment_sum(values, ids, count)
    ids = where((ids >= 0) & (ids < count), ids, count)
    # Mapped with the values by `torch.func.vmap`.
    sums = ops.convert_to_tensor(values).new_zeros(
        (count + 1, *values.shape[1:])
    )
    return ops.scatter_update(sums, ids[:, None], values, reduction="add")[
        :count
    ]
