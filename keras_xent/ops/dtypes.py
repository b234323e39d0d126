"""Dtypes by their names, which are the same on all backends."""

import functools

import keras
from keras import ops

# Kept for each dtype: Keras's takes 1.5 µs, and a loss of a few rows asks for
# it 15 times.
_name = functools.cache(keras.backend.standardize_dtype)


def dtype_of(x):
    """The name of the dtype of a tensor or an array."""
    return _name(x.dtype)


def cast(x, dtype):
    """A tensor in a dtype, `x` itself if that is its own.

    Keras's takes 6 µs on PyTorch to find out.
    """
    return x if dtype_of(x) == dtype else ops.cast(x, dtype)


def sums_dtype(dtype):
    """What sums of a dtype are made in: float64 of float64, else float32."""
    return "float64" if _name(dtype) == "float64" else "float32"
