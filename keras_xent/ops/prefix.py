"""Sums over the first k of many numbers, and what is made of them.

All take `[n]`, n known, and `xp`: `keras.ops` for float32 tensors, or `numpy`
for float64 arrays.
"""

import keras
import numpy as np
from keras import ops

from keras_xent import _keras

# On a CPU TensorFlow's cumsum adds one number after the other: 65,000 tenths
# are then right to 6e-4. JAX's and PyTorch's round as little as rows do.
_CUMSUM_ROUNDS = keras.backend.backend() == "tensorflow"

# Sums add so many numbers at a time: rounds as little as pairwise summation
# nearly does, in a quarter of its steps.
_SUMMED_AT_ONCE = 16

# Numbers of a block. XLA makes one pass of a step for each of them, which takes
# half of the time of a prefix sum of all ([65281]: 0.22 and 0.52 ms on JAX, 0.5
# and 1.7 on TensorFlow). Operation by operation such steps are slow.
BLOCK = 32


def prefix_sums(x, xp=ops):
    """0, x_0, x_0 + x_1, ..., each with the error of 60 additions or fewer.

    Returns:
        `[n + 1]`, of the dtype of `x`.
    """
    if xp is np:
        return np.concatenate([[0.0], np.cumsum(x)])
    if not _CUMSUM_ROUNDS:
        return ops.cumsum(ops.pad(x, [(1, 0)]))
    n = x.shape[0]
    x = _rows(x, before=1)
    upto = ops.cumsum(x, axis=1)
    sums = upto + _sums_before(upto[:, -1])[:, None]
    return ops.reshape(sums, (-1,))[: n + 1]


def _sums_before(x):
    """Σ_{j<i} x_j for each i of `[n]`."""
    n = x.shape[0]
    if n <= _SUMMED_AT_ONCE:
        return _sums_before_in_rows(x[None, :])[0]
    x = _rows(x)
    sums = _sums_before_in_rows(x) + _sums_before(ops.sum(x, axis=1))[:, None]
    return ops.reshape(sums, (-1,))[:n]


def _sums_before_in_rows(x):
    # Not a product of matrices, which would be rounded to less than float32 on
    # some devices and by `torch.autocast`.
    before = np.tri(x.shape[1], k=-1, dtype="float32")
    before = ops.convert_to_tensor(before, x.dtype)
    return ops.sum(x[:, None, :] * before, axis=2)


def _rows(x, before=0):
    """`x` as rows to sum at once, with zeros before, and to fill the last."""
    missing = -(x.shape[0] + before) % _SUMMED_AT_ONCE
    if before + missing:
        x = ops.pad(x, [(before, missing)])
    return ops.reshape(x, (-1, _SUMMED_AT_ONCE))


def total(x, xp=ops):
    """The sum of all, with the error of as few additions."""
    while xp is not np and x.shape[0] > _SUMMED_AT_ONCE:
        x = xp.sum(_rows(x), axis=1)
    return xp.sum(x)


def in_blocks(x, xp=ops):
    """`x` as rows of `BLOCK` numbers, the last filled with zeros."""
    x = xp.pad(x, [(0, -x.shape[0] % BLOCK)])
    return xp.reshape(x, (-1, BLOCK))


def pairs_in_order(first, second, xp=ops):
    """Σ_{i<j} first_i second_j + Σ_i first_i second_i / 2."""
    half = 0.5 * total(first * second, xp)
    if xp is np or not _keras.is_traced(first):
        return half + total(prefix_sums(first, xp)[:-1] * second, xp)
    pairs = half
    while first.shape[0] > 1:
        first, second = in_blocks(first), in_blocks(second)
        before, within = first[:, 0], 0.0
        for i in range(1, BLOCK):
            within = within + before * second[:, i]
            before = before + first[:, i]
        pairs = pairs + total(within)
        first, second = before, ops.sum(second, axis=1)
    return pairs


def largest_prefix_sum(x, ends, xp=ops):
    """The largest sum of the first k numbers, k from the one end to the other.

    Args:
        ends: The smallest and the largest k, both included.
    """
    first, last = ends
    if xp is np or not _keras.is_traced(x):
        return xp.max(prefix_sums(x, xp)[first : last + 1])
    start = ops.sum(x[:first])
    if first == last:
        return start
    sums = largest = x[first:last]
    while sums.shape[0] > 1:
        # What is not there leads to no sum that is larger.
        missing = -sums.shape[0] % BLOCK
        sums = in_blocks(sums)
        largest = ops.pad(largest, [(0, missing)], constant_values=-np.inf)
        largest = in_blocks(largest)
        before, most = sums[:, 0], largest[:, 0]
        for i in range(1, BLOCK):
            most = ops.maximum(most, before + largest[:, i])
            before = before + sums[:, i]
        sums, largest = before, most
    return start + ops.maximum(largest[0], 0.0)
