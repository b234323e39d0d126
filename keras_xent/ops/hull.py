"""The convex hull of a ROC: what the best calibration of the scores gives.

Merging bins between two corners of the hull, and calling every pair there a
match with one probability, is what isotonic regression does (pool adjacent
violators).
"""

import math

import numpy as np
from keras import ops

from keras_xent.ops.roc import crossing_of_segment

# The equal error rate of the hull: each step halves the distance at least as
# Newton's method does; after 16 nothing moves, in every data set tried.
_EQUAL_ERROR_STEPS = 16

# Slopes at which the hull is touched, as log-likelihood ratios. Beyond 12 a
# pair costs less than 1e-5 bits. Between two corners that are 1/16 apart at
# most 5e-5 bits are lost.
_LARGEST_LLR, _LLR_STEP = 12.0, 0.0625

# Points looked at first, and then all points near the best of them.
_STRIDE = 32


def corners(curve):
    """The corners of the lower left convex hull of (false_match, miss).

    Args:
        curve: `Curve` of NumPy arrays.

    Returns:
        Indices of points, rising, from 0 to the last.

    Source: Andrew's monotone chain.
    """
    x, y = curve.false_match, curve.miss
    moved = np.flatnonzero((np.diff(x) != 0) | (np.diff(y) != 0))
    hull = []
    # Python's numbers: an order of magnitude faster than NumPy's, one by one.
    candidates = [0, *(moved + 1).tolist()]
    points = np.stack([x, y], axis=1)[candidates].tolist()
    for index, (a, b) in enumerate(points):
        while len(hull) > 1:
            (p, q), (r, s) = points[hull[-2]], points[hull[-1]]
            if (r - p) * (b - q) - (s - q) * (a - p) > 0:
                break
            hull.pop()
        hull.append(index)
    return np.asarray(candidates)[hull]


def equal_error_rate(curve):
    """The equal error rate of the convex hull.

        ROCCH-EER = max_a min_k  a miss[k] + (1 - a) false_match[k]

    Args:
        curve: `Curve`. NumPy: by all corners. Tensors: the two corners on both
            sides of the diagonal are closed in upon step by step.

    Returns:
        Scalar in [0, 1/2].

    Source: Brümmer and de Villiers, "The BOSARIS Toolkit: theory, algorithms
    and code for surviving the new DCF", 2013.
    """
    x, y = curve.false_match, curve.miss
    if curve.xp is np:
        hull = corners(curve)
        after = int(np.argmax(y[hull] <= x[hull]))
        start, end = hull[max(after - 1, 0)], hull[after]
        return crossing_of_segment((x[start], y[start]), (x[end], y[end]))
    start, end = (x[0], y[0]), (x[-1], y[-1])
    for _ in range(_EQUAL_ERROR_STEPS):
        # The point farthest below the line from start to end.
        height = (start[1] - end[1]) * x + (end[0] - start[0]) * y
        lowest = ops.argmin(height)
        new = (ops.take(x, lowest), ops.take(y, lowest))
        above = new[1] > new[0]
        start, end = (
            _where(above, new, start),
            _where(above, end, new),
        )
    return crossing_of_segment(start, end)


def _where(condition, one, other):
    return tuple(
        ops.where(condition, a, b) for a, b in zip(one, other, strict=True)
    )


def least_cost(curve):
    """Cllr after the best calibration, in bits.

    With shares dm and dn of the matches and of the non-matches between two
    corners of the hull, whose log-likelihood ratio then is log(dm / dn),

        CllrMin = Σ ((dm + dn) log2(dm + dn) - dm log2 dm - dn log2 dn) / 2

    Args:
        curve: `Curve`. NumPy: by all corners. Tensors: by the corners that
            lines of 385 slopes touch, which comes out up to 5e-5 larger.

    Returns:
        Scalar in [0, 1].

    Source: Brümmer and du Preez, "Application-independent evaluation of speaker
    detection", Computer Speech and Language 2006.
    """
    xp = curve.xp
    touched = corners(curve) if xp is np else _touched(curve)
    x, y = xp.take(curve.false_match, touched), xp.take(curve.miss, touched)
    dn, dm = x[1:] - x[:-1], y[:-1] - y[1:]

    def entropy(share):
        some = share > 0
        return xp.where(some, share * xp.log(xp.where(some, share, 1.0)), 0.0)

    total = xp.sum(entropy(dm + dn) - entropy(dm) - entropy(dn))
    return total / (2.0 * math.log(2.0))


def _touched(curve):
    """Where lines of many slopes touch the curve: indices, from 0 to the last.

    Every 32nd point first, then all those near the best.
    """
    x, y = curve.false_match, curve.miss
    last = x.shape[0] - 1
    llr = np.arange(_LARGEST_LLR, -_LARGEST_LLR - _LLR_STEP, -_LLR_STEP)
    # miss weighs 1 / (1 + e^t), false_match e^t / (1 + e^t): the larger the
    # threshold t on the log-likelihood ratio, the fewer are called matches.
    miss_weight, false_weight = (
        ops.convert_to_tensor(
            1.0 / (1.0 + np.exp(sign * llr[:, None])), x.dtype
        )
        for sign in (1.0, -1.0)
    )
    coarse = np.unique([*range(0, last, _STRIDE), last]).astype("int32")

    def cost(points):
        misses, false_matches = ops.take(y, points), ops.take(x, points)
        return misses * miss_weight + false_matches * false_weight

    near = ops.cast(ops.argmin(cost(coarse), axis=1), "int32")[:, None]
    offset = np.arange(-_STRIDE + 1, _STRIDE, dtype="int32")
    near = ops.clip(near * _STRIDE + ops.convert_to_tensor(offset), 0, last)
    best = ops.argmin(cost(near), axis=1)
    best = ops.cast(best, "int32")[:, None]
    best = ops.take_along_axis(near, best, axis=1)[:, 0]
    ends = ops.convert_to_tensor(np.array([0, last], "int32"))
    # Rounding may break the order, and no segment must be gone over twice.
    return ops.sort(ops.concatenate([ends, best]))
