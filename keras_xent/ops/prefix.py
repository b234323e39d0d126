"""Sums over the first k of many numbers, and what is made of them.

All take `[n]`, n known, some `[..., n]`, and `xp`: `keras.ops` for float32
tensors, or `numpy` for float64 arrays.
"""

import keras
import numpy as np
from keras import ops

from keras_xent import _keras

BACKEND = keras.backend.backend()

# On a CPU TensorFlow's cumsum adds one number after the other: 65,000 tenths
# are then right to 6e-4. JAX's and PyTorch's round as little as rows do.
_CUMSUM_ROUNDS = BACKEND == "tensorflow"

# Sums add so many numbers at a time: rounds as little as pairwise summation
# nearly does, in a quarter of its steps.
_SUMMED_AT_ONCE = 16

# Neighbors that are one number where only some of many are read.
BLOCK = 32

# Neighbors that become one in each pass of a compiled function. On JAX two are
# best ([2, 65281]: sums in 0.03 ms beyond reading them and 0.16 by rows of 16,
# pairs in 0.15 and 0.3 with 32 at once), on TensorFlow many are (MatchAUC, step
# by step in a graph: 4.5 and 6.5 ms). Operation by operation both are slow.
_FOLDED_AT_ONCE = 2 if BACKEND == "jax" else 32


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
    x = _rows(ops.pad(x, [(1, 0)]))
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


def _rows(x, length=_SUMMED_AT_ONCE, xp=ops):
    """The last axis as rows of a length, the last filled with zeros."""
    missing = -x.shape[-1] % length
    if missing:
        x = xp.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, missing)])
    return xp.reshape(x, (*x.shape[:-1], -1, length))


def total(x, xp=ops):
    """The sum of all along the last axis, with the error of few additions."""
    if xp is np or BACKEND == "torch":  # They add up in pairs themselves.
        return xp.sum(x, axis=-1)
    if _folds_in_two(x, xp):
        while x.shape[-1] > 1:
            x = row_sums(_rows(x, 2))
        return x[..., 0]
    while x.shape[-1] > _SUMMED_AT_ONCE:
        x = ops.sum(_rows(x), axis=-1)
    return ops.sum(x, axis=-1)


def in_blocks(x, xp=ops):
    """The last axis as rows of `BLOCK` numbers, the last filled with zeros."""
    return _rows(x, BLOCK, xp)


def row_sums(x, xp=ops):
    """Sums over the last axis, whose length is a power of two."""
    if not _folds_in_two(x, xp):
        return xp.sum(x, axis=-1)
    while x.shape[-1] > 1:
        x = x[..., 0::2] + x[..., 1::2]
    return x[..., 0]


def _folds_in_two(x, xp):
    return _FOLDED_AT_ONCE == 2 and is_compiled(x, xp)


def is_compiled(x, xp):
    """Whether what is done with the numbers becomes a compiled function."""
    return xp is not np and _keras.is_traced(x)


def pairs_in_order(first, second, xp=ops):
    """Σ_{i<j} first_i second_j + Σ_i first_i second_i / 2."""
    if not is_compiled(first, xp):
        half = 0.5 * total(first * second, xp)
        return half + total(prefix_sums(first, xp)[:-1] * second, xp)
    pairs = 0.5 * first * second
    while pairs.shape[0] > 1:
        first, second, pairs = (
            _rows(x, _FOLDED_AT_ONCE) for x in (first, second, pairs)
        )
        before, within = first[:, 0], row_sums(pairs)
        for i in range(1, _FOLDED_AT_ONCE):
            within = within + before * second[:, i]
            before = before + first[:, i]
        first, second, pairs = before, row_sums(second), within
    return pairs[0]


def largest_prefix_sum(x, ends, xp=ops):
    """The largest sum of the first k numbers, k from the one end to the other.

    Args:
        ends: The smallest and the largest k, both included.
    """
    first, last = ends
    if not is_compiled(x, xp):
        return xp.max(prefix_sums(x, xp)[first : last + 1])
    start = ops.sum(x[:first])
    if first == last:
        return start
    sums = x[first:last]
    largest = ops.maximum(sums, 0.0)  # Of none of these numbers, or more.
    while sums.shape[0] > 1:
        sums, largest = (_rows(x, _FOLDED_AT_ONCE) for x in (sums, largest))
        before, most = sums[:, 0], largest[:, 0]
        for i in range(1, _FOLDED_AT_ONCE):
            most = ops.maximum(most, before + largest[:, i])
            before = before + sums[:, i]
        sums, largest = before, most
    return start + largest[0]
