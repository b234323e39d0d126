"""Correlation of lists, by their numbers or their ranks, and as a loss."""

import typing

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
from keras_xent.ops.moments import deviations, or_one
from keras_xent.ops.public import public_op
from keras_xent.ops.rank import average_rank, entry_weights, soft_rank
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
    a, a_varies = _unit(a, weight)
    b, b_varies = _unit(b, weight)
    return where(good & a_varies & b_varies, ops.sum(a * b, axis=-1), np.nan)


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
    return _loss(targets, scores, axis, sample_weight, mask)


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
    keep: dict[str, typing.Any] = {
        "axis": axis,
        "sample_weight": sample_weight,
        "mask": mask,
    }
    ranks = soft_rank(scores, temperature=temperature, **keep)
    targets = average_rank(targets, **keep)
    return _loss(targets, ranks, axis, sample_weight, mask)


def _checked(targets, scores):
    scores = checks.floats(scores, "scores")
    checks.int32_range(targets, "Integers to rank")
    targets = ops.convert_to_tensor(targets)
    checks.same_shape("targets", targets.shape, "scores", scores.shape)
    return targets, scores


def _loss(targets, scores, axis, weight, mask):
    """1 − ρ in the dtype of the scores."""
    a, b = ops.cast(targets, scores.dtype), scores
    a, b, weight, good = _lists(a, b, axis, weight, mask)
    a, a_varies = _unit(a, weight)
    b, b_varies = _unit(b, weight)
    loss = 0.5 * ops.sum(ops.square(a - b), axis=-1)
    loss = where(a_varies & b_varies, loss, 1)
    return where(good, loss, np.nan)


def _lists(a, b, axis, weight, mask):
    """Two lists and weights along the last axis, and which lists are good."""
    a, b = ops.convert_to_tensor(a), ops.convert_to_tensor(b)
    checks.same_shape("a", a.shape, "b", b.shape)
    axis = checks.axis(axis, len(a.shape), "lists")
    types = {keras.backend.standardize_dtype(x.dtype) for x in (a, b)}
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


def _unit(x, weight):
    """√w · (x − x̄), scaled to length 1, and whether there is a length."""
    deviation, share, _ = deviations(x, weight)
    vector = ops.sqrt(share) * deviation
    square = ops.sum(ops.square(vector), axis=-1, keepdims=True)
    varies = square > 0
    unit = vector / ops.sqrt(or_one(square))
    return where(varies, unit, 0), ops.squeeze(varies, axis=-1)
