"""Triplets: a row, one that belongs to it, and one that does not."""

import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Distance, Tensor, TensorLike
from keras_xent.ops import checks, extrema, identities
from keras_xent.ops.distance import distances_of
from keras_xent.ops.hinge import SMALLEST_SOFTNESS, check_hinge, hinge
from keras_xent.ops.partners import (
    partners_and_others,
    present,
    without_meaning,
)
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

MININGS = ("hard", "semi_hard", "all")


@public_op
def triplet_hinge(
    labels: TensorLike,
    embeddings: TensorLike,
    margin: float,
    *,
    distance: Distance = "euclidean",
    softness: float = 0.0,
    mining: str = "hard",
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
) -> Tensor:
    """How much nearer than by a margin others are than the rows of one's class.

    With d_ip the distance of row i from a partner, another row of its class,
    and d_io that from a row of another class,

    ```
    h_ipo = s · softplus((d_ip − d_io + m) / s)

    "hard"       h of the farthest partner p and the nearest other o
    "semi_hard"  the mean over partners p of h with the nearest other that is
                 farther than p, or with the farthest other if none is
    "all"        the mean over all partners p and others o of h
    ```

    s → 0 is the hard hinge max(0, d_ip − d_io + m). A row without a partner or
    without an other has no triplet and a loss of 0.

    TensorFlow Addons has `TripletHardLoss` for "hard" (its `soft=True` is s = 1
    and m = 0) and `TripletSemiHardLoss` for "semi_hard", which it averages over
    all pairs of a row and a partner, so that a class of many rows has more say;
    the mean over rows weighted by their number of partners is the same.
    pytorch-metric-learning's `TripletMarginLoss` is "all", averaged over the
    triplets that cost something only.

    Args:
        labels: Class ids `(n,)`.
        embeddings: Float tensor `(n, d)`.
        margin: m, by how much an other should be farther than a partner.
        distance: `"euclidean"`, `"squared_euclidean"`, `"cosine"`,
            `"symmetric_kl"` (embeddings are logits), or a callable from
            embeddings `[n, d]` to distances `[n, n]`.
        softness: s ≥ 0, the width of the bend; 0 is the hard hinge.
        mining: Which triplets count: `"hard"`, `"semi_hard"` or `"all"`. All
            take n² memory. "all" takes n² log n time with the hard hinge, by
            sorting, and n³ with a soft one; the others n² and n² log n.
        sample_weight: `(n,)`. A row of weight 0 is as good as absent: no row's
            partner or other. Else weights change nothing here: a loss weighs
            the rows by them. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.
            A `distance` that is a callable makes all pairs.

    Returns:
        One value per row `(n,)`, in the unit of the distance, float32, or
        float64 for float64 embeddings. A row with a label or a distance that is
        NaN gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the embeddings are not floating
            point, the distance or the mining is not known, or `margin` or
            `softness` are out of range.

    References:
        [Schroff, Kalenichenko and Philbin, 2015](
        https://arxiv.org/abs/1503.03832), semi-hard, with squared Euclidean
        distances of unit vectors; [Hermans, Beyer and Leibe, 2017](
        https://arxiv.org/abs/1703.07737), hard and all, with a soft hinge.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], "float32")
    >>> labels = np.array([7, 7, 8, 8])
    >>> rows = ops.triplet_hinge(labels, embeddings, margin=1.0)
    >>> [float(value) for value in rows]
    [0.5, 1.5, 8.0, 0.5]
    """
    check_hinge(margin, softness)
    check_mining(mining)
    embeddings = identities.embeddings(embeddings)
    labels = identities.ids(labels, embeddings)
    rows = checks.row_range(rows, embeddings.shape[0])
    weight, embeddings = present(sample_weight, labels, embeddings)
    partner, other = partners_and_others(labels, weight, rows)
    d = distances_of(embeddings, distance, rows)
    met = partner | other
    unknown = ops.any(met & (d != d), axis=1)
    # A distance from itself may be anything, and must not turn up in a sum.
    d = where(met, d, 0.0)
    if mining == "hard":
        losses = _hard(d, partner, other, margin, softness)
    elif mining == "semi_hard":
        losses = _semi_hard(d, partner, other, margin, softness)
    elif softness < SMALLEST_SOFTNESS:
        losses = _all_by_sorting(d, partner, other, margin)
    else:
        losses = _all_by_column(d, partner, other, margin, softness)
    known = ~unknown & ~without_meaning(labels, weight, rows)
    losses = where(known, losses, np.nan)
    return checks.sizes_agree(losses, labels, embeddings[:, 0])


def check_mining(mining):
    """Raises on a way of mining that there is not."""
    checks.choice("mining", mining, MININGS)


def _hard(distance, partner, other, margin, softness):
    defined = ops.any(partner, axis=1) & ops.any(other, axis=1)
    farthest = extrema.largest(
        where(partner, distance, -np.inf), -np.inf, axis=1
    )
    nearest = extrema.smallest(where(other, distance, np.inf), np.inf, axis=1)
    # The inner `where`: no infinity minus infinity.
    gap = where(defined, farthest, 0.0) - where(defined, nearest, 0.0)
    return where(defined, hinge(gap + margin, softness), 0.0)


def _semi_hard(distance, partner, other, margin, softness):
    dtype = distance.dtype
    triplets = partner & ops.any(other, axis=1, keepdims=True)
    triplets_of_row = _count(triplets, dtype)
    # Others before partners: the sort is stable, so at the same distance others
    # come first, and what comes after a partner is farther.
    by_other = where(other, distance, np.inf)
    by_partner = where(partner, distance, np.inf)
    both = ops.concatenate([by_other, by_partner], axis=1)
    order = ops.argsort(ops.stop_gradient(both), axis=1)

    def sort(of_others, of_partners):
        x = ops.concatenate([of_others, of_partners], axis=1)
        return ops.take_along_axis(x, order, axis=1)

    # How many others are not farther than each, so which is the next one.
    one_of_others = ops.cast(other, "int32")
    next_one = ops.cumsum(sort(one_of_others, 0 * one_of_others), axis=1)
    last = ops.sum(one_of_others, axis=1, keepdims=True) - 1
    next_one = where(next_one > last, last, next_one)
    next_one = where(next_one < 0, 0, next_one)
    others = ops.argsort(ops.stop_gradient(by_other), axis=1)
    chosen = ops.take_along_axis(others, next_one, axis=1)
    gap = sort(distance, distance) - ops.take_along_axis(
        distance, chosen, axis=1
    )
    cost = hinge(gap + margin, softness)
    cost = where(sort(other & ~other, triplets), cost, 0.0)
    some = triplets_of_row > 0
    return ops.sum(cost, axis=1) / where(some, triplets_of_row, 1.0)


def _all_by_sorting(distance, partner, other, margin):
    """Mean of max(0, d_ip + m − d_io), without a loop over the triplets.

    On the line of a row, with its partners moved by the margin, what lies
    between two neighboring points is part of the cost of every partner that is
    behind it and every other that is before it. All terms are positive.
    """
    dtype = distance.dtype
    places = where(partner, distance + margin, distance)
    order = ops.argsort(ops.stop_gradient(places), axis=1)
    places = ops.take_along_axis(places, order, axis=1)
    shares = []
    for kind in (partner, other):
        count = _count(kind, dtype)[:, None]
        kind = ops.cast(ops.take_along_axis(kind, order, axis=1), dtype)
        shares.append((kind / where(count > 0, count, 1.0), count > 0))
    (partners, some), (others, any_other) = shares
    before = ops.cumsum(others, axis=1)[:, :-1]
    behind = ops.flip(ops.cumsum(ops.flip(partners, axis=1), axis=1), axis=1)
    steps = places[:, 1:] - places[:, :-1]
    rows = ops.sum(steps * before * behind[:, 1:], axis=1)
    return where((some & any_other)[:, 0], rows, 0.0)


def _all_by_column(distance, partner, other, margin, softness):
    """Mean of the soft hinge over all triplets, one other after the other."""
    dtype = distance.dtype
    triplets = _count(partner, dtype) * _count(other, dtype)
    triplets = where(triplets > 0, triplets, 1.0)
    share = ops.cast(partner, dtype) / triplets[:, None]
    others = ops.cast(other, dtype)
    columns = ops.shape(distance)[1]
    index = ops.arange(columns, dtype="int32")

    def column(x, j):
        """Entry j of each row, `(n, 1)`."""
        here = ops.cast(index == j, x.dtype)
        return ops.sum(x * here, axis=1, keepdims=True)

    def losses(distance):
        def gap(j):
            return distance - column(distance, j) + margin

        def add(j, total):
            cost = hinge(gap(j), softness) * share
            return total + ops.sum(cost, axis=1) * column(others, j)[:, 0]

        def add_slopes(j, total):
            slope = ops.sigmoid(gap(j) / softness) * share * column(others, j)
            here = ops.cast(index == j, dtype)
            back = ops.sum(slope, axis=1, keepdims=True) * here
            return total + slope - back

        def gradient(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            slopes = ops.fori_loop(
                0, columns, add_slopes, ops.zeros_like(distance)
            )
            return upstream[:, None] * slopes

        start = ops.zeros_like(ops.diagonal(distance))
        return ops.fori_loop(0, columns, add, start), gradient

    return _keras.own_gradient(losses)(distance)


def _count(kind, dtype):
    return ops.sum(ops.cast(kind, dtype), axis=1)
