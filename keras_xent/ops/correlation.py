"""Correlation of lists, by their numbers or their ranks, and as a loss."""

import typing

import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, extrema
from keras_xent.ops.dtypes import dtype_of
from keras_xent.ops.moments import deviations, or_one
from keras_xent.ops.public import public_op
from keras_xent.ops.rank import (
    average_rank,
    check_temperature,
    entry_weights,
    exact,
    soft,
    tidy,
)
from keras_xent.ops.select import where


@public_op
def pearson_correlation(
    a: TensorLike,
    b: TensorLike,
    *,
    axis: int = -1,
    sample_weight: TensorLike | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """Linear correlation of two lists.

    ```
    ρ = Σ w (a − ā) (b − b̄) / sqrt(Σ w (a − ā)² · Σ w (b − b̄)²)
    ```

    with the means ā and b̄ weighted by w too.

    Args:
        a: Tensor of numbers `(..., n, ...)`, n entries along `axis`.
        b: The same.
        axis: The axis of the entries. The others are batch axes: one
            correlation for each list.
        sample_weight: w ≥ 0, a tensor of the shape of `a`. `None` is 1. No
            gradient goes through it.
        mask: Booleans of the shape of `a`; False is as good as a weight of 0.

    Returns:
        ρ in [−1, 1] up to rounding: the shape of `a` without `axis`, float32,
        or float64 if a list is. Where a list has no two different entries, or
        holds a NaN or an infinity, or a weight is negative or not finite, it is
        NaN and its gradient 0. An entry of weight 0 takes no part, whatever it
        holds.

    Raises:
        ValueError: if shapes differ (nothing is broadcast), or `axis` is out of
            range.

    References:
        Pearson, 1895, [doi:10.1098/rspl.1895.0041](
        https://doi.org/10.1098/rspl.1895.0041).

    Example:

    >>> from keras_xent import ops
    >>> print(f"{float(ops.pearson_correlation([1, 2, 3], [1, 2, 9])):.4f}")
    0.9177
    """
    a, b, weight, good = _lists(a, b, axis, sample_weight, mask)
    a, b, vary = _scaled(_vectors(a, b, weight))
    return where(good & vary, ops.sum(a * b, axis=-1), np.nan)


@public_op
def spearman_correlation(
    a: TensorLike,
    b: TensorLike,
    *,
    axis: int = -1,
    sample_weight: TensorLike | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """Rank correlation of two lists: the linear correlation of their ranks.

    ```
    ρ = pearson_correlation(average_rank(a), average_rank(b))
    ```

    It has no gradient; `spearman_loss` has.

    Args:
        a: Tensor of numbers `(..., n, ...)`, n entries along `axis`. Integers
            are compared as integers.
        b: The same.
        axis: The axis of the entries.
        sample_weight: w ≥ 0, a tensor of the shape of `a`. `None` is 1. It
            weighs the ranks and their correlation: an entry of weight 2 is as
            good as the entry twice.
        mask: Booleans of the shape of `a`; False is as good as a weight of 0.

    Returns:
        As `pearson_correlation`, but infinities have ranks like other entries.

    Raises:
        ValueError: as `pearson_correlation`.

    References:
        Spearman, 1904, [doi:10.2307/1412159](
        https://doi.org/10.2307/1412159).

    Example:

    >>> from keras_xent import ops
    >>> print(f"{float(ops.spearman_correlation([1, 2, 3], [1, 2, 9])):.4f}")
    1.0000
    """
    keep: dict[str, typing.Any] = {
        "axis": axis,
        "sample_weight": sample_weight,
        "mask": mask,
    }
    return pearson_correlation(
        average_rank(a, **keep), average_rank(b, **keep), **keep
    )


@public_op
def pearson_loss(
    targets: TensorLike,
    scores: TensorLike,
    *,
    axis: int = -1,
    sample_weight: TensorLike | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """1 − linear correlation of scores with targets.

    ```
    loss = 1 − ρ = ½ Σ (u_i − v_i)²
    ```

    with u and v the lists √w · (x − x̄), scaled to length 1. The right-hand side
    is what is computed: it never is negative and keeps its digits near ρ = 1.

    Args:
        targets: Tensor of numbers `(..., n, ...)`.
        scores: Float tensor of the same shape.
        axis: The axis of the entries.
        sample_weight: w ≥ 0, a tensor of the same shape. `None` is 1. No
            gradient goes through it.
        mask: Booleans of the same shape; False is as good as a weight of 0.

    Returns:
        The loss of each list, in [0, 2]: the shape of `scores` without `axis`,
        float32, or float64 for float64 scores. Where the correlation is
        undefined, because there are no two different targets or scores, the
        loss is 1, that of no correlation, and the gradient 0. NaN as in
        `pearson_correlation`.

    Raises:
        ValueError: if `scores` are not floating point, shapes differ (nothing
            is broadcast), or `axis` is out of range.

    References:
        As `pearson_correlation`.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> scores = np.array([1, 2, 9], "float32")
    >>> print(f"{float(ops.pearson_loss([1, 2, 3], scores)):.4f}")
    0.0823
    """
    targets, scores = _checked(targets, scores)
    a, b = ops.cast(targets, scores.dtype), scores
    a, b, weight, good = _lists(a, b, axis, sample_weight, mask)
    return where(good, _distance(_vectors(a, b, weight)), np.nan)


@public_op
def spearman_loss(
    targets: TensorLike,
    scores: TensorLike,
    *,
    temperature: float | None = None,
    axis: int = -1,
    sample_weight: TensorLike | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """1 − rank correlation, with soft ranks of the scores.

    ```
    loss = 1 − ρ(average_rank(targets), soft_rank(scores, τ))
    ```

    ρ is the linear correlation. As τ → 0 it becomes 1 − Spearman's ρ. At a
    usual τ it is a little above 0 even for scores in perfect order, unless they
    are evenly spread: what remains pulls them apart.

    Args:
        targets: Tensor of numbers `(..., n, ...)`. Only their order counts;
            integers are compared as integers.
        scores: Float tensor of the same shape.
        temperature: τ > 0, in the unit of the scores. `None` is 0.3 × their
            standard deviation, list by list: then the scale of the scores does
            not matter.
        axis: The axis of the entries.
        sample_weight: w ≥ 0, a tensor of the same shape. `None` is 1. It
            weighs the ranks and their correlation: an entry of weight 2 is as
            good as the entry twice. No gradient goes through it.
        mask: Booleans of the same shape; False is as good as a weight of 0.

    Returns:
        As `pearson_loss`, but infinities have ranks like other entries.

    Raises:
        ValueError: as `pearson_loss`, and if `temperature` is out of range.

    References:
        As `spearman_correlation` and `soft_rank`.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> scores = np.array([1, 2, 9], "float32")
    >>> print(f"{float(ops.spearman_loss([1, 2, 3], scores)):.4f}")
    0.0171
    """
    targets, scores = _checked(targets, scores)
    check_temperature(temperature)
    axis = checks.axis(axis, len(scores.shape), "scores")
    weight = entry_weights(scores, sample_weight, mask, scores.dtype)
    good, weight, targets, scores = tidy(
        *(
            _keras.moveaxis(x, axis, -1)
            for x in (weight, ops.stop_gradient(targets), scores)
        )
    )
    each_list = {"axis": -1, "keepdims": True}
    # Ranks of scaled weights are other ranks, and have the same correlation.
    weight = weight / or_one(extrema.largest(weight, 0, **each_list))
    targets = exact(targets, weight)
    ranks = ops.stack([targets, soft(scores, weight, temperature)])
    # Both have this mean.
    mean = 0.5 + 0.5 * ops.sum(weight, **each_list)
    varies = _varies(ops.stack([targets, scores]), weight)
    loss = where(varies, _distance(ops.sqrt(weight) * (ranks - mean)), 1)
    return where(ops.squeeze(good, axis=-1), loss, np.nan)


def _checked(targets, scores):
    scores = checks.floats(scores, "scores")
    checks.int32_range(targets, "Integers to rank")
    targets = checks.tensor("targets", targets)
    checks.same_shape("targets", targets.shape, "scores", scores.shape)
    return targets, scores


def _lists(a, b, axis, weight, mask):
    """Two lists and weights along the last axis, and which lists are good."""
    a, b = checks.tensor("a", a), checks.tensor("b", b)
    checks.same_shape("a", a.shape, "b", b.shape)
    axis = checks.axis(axis, len(a.shape), "lists")
    types = {dtype_of(x) for x in (a, b)}
    dtype = "float64" if "float64" in types else "float32"
    weight = entry_weights(a, weight, mask, dtype)
    a, b, weight = (
        _keras.moveaxis(ops.cast(x, dtype), axis, -1) for x in (a, b, weight)
    )
    right = (weight >= 0) & (weight < np.inf)
    right = right & ops.isfinite(a) & ops.isfinite(b)
    right = right | (weight == 0)
    good = ops.all(right, axis=-1, keepdims=True)
    # Blanked out, not multiplied by 0: no NaN gets into a gradient.
    keep = good & (weight != 0)
    a, b = (ops.where(keep, x, ops.zeros_like(x)) for x in (a, b))
    return a, b, where(keep, weight, 0), ops.squeeze(good, axis=-1)


def _varies(lists, weight):
    """Whether each of the lists has two different entries that count.

    Of their deviations, rounding may leave something where there is nothing.
    """
    counts = weight > 0
    highest = where(counts, lists, -np.inf)
    highest = extrema.largest(highest, -np.inf, axis=-1, keepdims=True)
    return ops.all(ops.any(counts & (lists < highest), axis=-1), axis=0)


def _vectors(a, b, weight):
    """√w · (x − x̄) of both lists, in units of their own."""
    deviation, share, _ = deviations(ops.stack([a, b]), weight)
    return ops.sqrt(share) * deviation


def _scaled(vectors):
    """Two vectors, scaled to length 1, and whether both have a length."""
    square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    a, b = ops.unstack(vectors / ops.sqrt(or_one(square)), 2)
    return a, b, ops.all(ops.squeeze(square, axis=-1) > 0, axis=0)


def _distance(vectors):
    """1 − the cosine of two vectors, 1 if one of them has no length."""
    a, b, vary = _scaled(vectors)
    return where(vary, 0.5 * ops.sum(ops.square(a - b), axis=-1), 1)
