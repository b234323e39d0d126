"""Weighted deviations from the mean that hold at any magnitude."""

import numpy as np
from keras import ops

from keras_xent.ops import extrema
from keras_xent.ops.select import where


def deviations(x, weight):
    """Deviations of each list from its weighted mean, in its own units.

    The unit is half the range of the list, which keeps the squares within
    float32 and the differences exact beside a large mean.

    Args:
        x: Float tensor `(..., n)`.
        weight: The same, not negative. Entries of weight 0 and infinite ones
            take no part.

    Returns:
        The deviations `(..., n)`, 0 for what takes no part and all 0 in a list
        of equal entries; the weights `(..., n)` as shares of the largest; the
        unit `(..., 1)`, 0 where all entries are equal. A gradient goes through
        the deviations only.
    """
    counts = (weight > 0) & ops.isfinite(x)
    share = where(counts, weight, 0)
    each_list = {"axis": -1, "keepdims": True}
    share = share / or_one(extrema.largest(share, 0, **each_list))
    # Halves, because the range itself may lie beyond the largest float.
    half = 0.5 * x
    low = where(counts, ops.stop_gradient(half), np.inf)
    low = extrema.smallest(low, np.inf, **each_list)
    inside = where(counts, half - low, 0)
    unit = extrema.largest(ops.stop_gradient(inside), 0, **each_list)
    counts = counts & (unit > 0)
    inside = inside / or_one(unit)
    total = or_one(ops.sum(share, axis=-1, keepdims=True))
    mean = ops.sum(share * inside, axis=-1, keepdims=True) / total
    return where(counts, inside - mean, 0), share, unit


def or_one(x):
    """`x` where it is positive, else 1: what can be divided by."""
    return where(x > 0, x, 1)
