"""The convex hull of a ROC: what the best calibration of the scores gives.

Merging bins between two corners of the hull, and calling every pair there a
match with one probability, is what isotonic regression does (pool adjacent
violators).
"""

import math

import numpy as np
from keras import ops

from keras_xent.ops.prefix import prefix_sums
from keras_xent.ops.roc import crossing_of_segment
from keras_xent.ops.segments import segment_sum

# The equal error rate of the hull: steps on some points, then on all. Each step
# takes the corner that is farthest out, so few lead there: fewer than these on
# the curves of the tests.
_COARSE_STEPS, _STEPS = 10, 6

# Slopes at which the hull is touched, as log-likelihood ratios. Beyond 12 a
# pair costs less than 1e-5 bits. Between two corners that are 1/16 apart at
# most 5e-5 bits are lost.
_LARGEST_LLR, _LLR_STEP = 12.0, 0.0625

# A curve of more points is looked at in so many, see `_some_points`.
_SOME = 4096


def corners(curve):
    """The corners of the lower left convex hull of the two error rates.

    Args:
        curve: `Curve` of NumPy arrays.

    Returns:
        Indices of points, rising, from 0 to the last.

    References:
        Andrew's monotone chain.
    """
    x, y = curve.false_match, curve.false_non_match
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

        ROCCH-EER = max_a min_k  a false_non_match[k] + (1 - a) false_match[k]

    Args:
        curve: `Curve`. NumPy: by all corners. Tensors: the two corners on both
            sides of the diagonal are closed in upon step by step.

    Returns:
        Scalar in [0, 1/2].

    References:
        Brümmer and de Villiers, "The BOSARIS Toolkit: theory, algorithms and
        code for surviving the new DCF", 2013.
    """
    x, y = curve.false_match, curve.false_non_match
    if curve.xp is np:
        hull = corners(curve)
        after = int(np.argmax(y[hull] <= x[hull]))
        start, end = hull[max(after - 1, 0)], hull[after]
        return crossing_of_segment((x[start], y[start]), (x[end], y[end]))
    some = _some_points(curve)
    coarse = ops.take(x, some), ops.take(y, some)
    start, end = (x[0], y[0]), (x[-1], y[-1])
    for some_x, some_y in [coarse] * _COARSE_STEPS + [(x, y)] * _STEPS:
        # The point farthest below the line from start to end.
        height = (start[1] - end[1]) * some_x + (end[0] - start[0]) * some_y
        lowest = ops.argmin(height)
        new = (ops.take(some_x, lowest), ops.take(some_y, lowest))
        above = new[1] > new[0]
        start, end = _where(above, new, start), _where(above, end, new)
    return crossing_of_segment(start, end)


def _where(condition, one, other):
    return tuple(
        ops.where(condition, a, b) for a, b in zip(one, other, strict=True)
    )


def min_cllr(curve):
    """Cllr after the best calibration, in bits.

    With shares dm and dn of the matches and of the non-matches between two
    corners of the hull, whose log-likelihood ratio then is log(dm / dn),

        MinCllr = Σ ((dm + dn) log2(dm + dn) - dm log2 dm - dn log2 dn) / 2

    Args:
        curve: `Curve`. NumPy: by all corners. Tensors: by the corners that
            lines of 385 slopes touch, which comes out up to 5e-5 larger.

    Returns:
        Scalar in [0, 1].

    References:
        Brümmer and du Preez, "Application-independent evaluation of speaker
        detection", Computer Speech and Language 2006.
    """
    xp = curve.xp
    touched = corners(curve) if xp is np else _touched(curve)
    x, y = (
        xp.take(rate, touched)
        for rate in (curve.false_match, curve.false_non_match)
    )
    dn, dm = x[1:] - x[:-1], y[:-1] - y[1:]

    def entropy(share):
        some = share > 0
        return xp.where(some, share * xp.log(xp.where(some, share, 1.0)), 0.0)

    total = xp.sum(entropy(dm + dn) - entropy(dm) - entropy(dn))
    return total / (2.0 * math.log(2.0))


def _touched(curve):
    """Where lines of many slopes touch the curve: indices, rising."""
    some = _some_points(curve)
    x, y = (
        ops.take(rate, some)
        for rate in (curve.false_match, curve.false_non_match)
    )
    llr = np.arange(_LARGEST_LLR, -_LARGEST_LLR - _LLR_STEP, -_LLR_STEP)
    # A false non-match weighs 1 / (1 + e^t), a false match e^t / (1 + e^t): the
    # larger the threshold t on the log-likelihood ratio, the fewer are called
    # matches.
    non_match_weight, match_weight = (
        ops.convert_to_tensor(
            1.0 / (1.0 + np.exp(sign * llr[:, None])), x.dtype
        )
        for sign in (1.0, -1.0)
    )
    best = ops.argmin(non_match_weight * y + match_weight * x, axis=1)
    ends = ops.convert_to_tensor([0, curve.match.shape[0]], "int32")
    # Rounding may break the order, and no segment must be gone over twice.
    return ops.sort(ops.concatenate([ends, ops.take(some, best)]))


def _some_points(curve):
    """Indices of some 4096 points, rising, that tell how the curve runs.

    At even steps of false matches, of true matches and of bins that are not
    empty, each with a third of the say. So no light bin is lost while few are
    filled, and no heavy one ever.
    """
    bins = curve.match.shape[0]
    if bins < _SOME:
        return ops.arange(bins + 1, dtype="int32")
    filled = ops.cast(curve.match + curve.non_match > 0, curve.match.dtype)
    filled = prefix_sums(filled)
    place = curve.false_match + curve.true_match + filled / filled[-1]
    place = ops.cast(ops.floor(place * (_SOME / 3.0)), "int32")
    # NaN, where there is no curve, must not become an index.
    place = ops.clip(place, 0, _SOME)
    count = segment_sum(ops.ones_like(place), place, _SOME + 1)
    return ops.clip(ops.cumsum(count) - 1, 0, bins)
