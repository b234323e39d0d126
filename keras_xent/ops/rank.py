"""Ranks of the entries of a list: exact ones, and ones with a gradient.

With the entries in order, x_1 ≤ x_2 ≤ …, the sum that a Laplace kernel gives
entry i from those before it is

    S_i = exp(−(x_i − x_{i−1}) / τ) · S_{i−1} + w_i

and another one runs backwards. The factors lie in [0, 1]: nothing overflows.
The recurrence is solved by ⌈log₂ n⌉ steps of shift, multiply and add, so that
time is O(n log n) and memory O(n). The gradient is the same pair of
recurrences, with the gradients of the ranks for weights.

Exact ranks need no recurrence: the entries that are equal lie between two sums
of the weights so far, and halfway between these is their rank.
"""

import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
from keras_xent.ops.dtypes import dtype_of, sums_dtype
from keras_xent.ops.moments import deviations, or_one
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

# The default temperature in standard deviations. Of 1000 normal scores, about a
# quarter then lies within one temperature of a score in the middle: wide enough
# for a gradient from many neighbors, narrow enough to tell ranks.
TEMPERATURE_IN_DEVIATIONS = 0.3


@public_op
def soft_rank(
    x: TensorLike,
    *,
    temperature: float | None = None,
    axis: int = -1,
    sample_weight: TensorLike | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """Ranks that change smoothly with the entries, and have a gradient.

    ```
    r_i  = ½ + Σ_j w_j F((x_i − x_j) / τ)
    F(z) = ½ exp(z) for z ≤ 0,  1 − ½ exp(−z) for z > 0
    ```

    F is the distribution function of the Laplace distribution and F(0) = ½, so
    that without weights, ranks run from 1 to n. As τ → 0 they become those of
    `average_rank`, with equal entries at their average rank; as τ → ∞ they all
    become (n + 1) / 2. The sum of all ranks, weighted by w, is the same at
    every temperature. An entry of weight 2 is as good as the entry twice.

    Args:
        x: Float tensor `(..., n, ...)`, n entries along `axis`.
        temperature: τ > 0, in the unit of x: how far entries see each other.
            `None` is 0.3 × the standard deviation of the finite entries of each
            list, weighted by w, as a constant: no gradient goes through it.
        axis: The axis of the entries. The others are batch axes: each list has
            ranks of its own.
        sample_weight: w ≥ 0, a tensor of the shape of `x`. `None` is 1. No
            gradient goes through it.
        mask: Booleans of the shape of `x`; False is as good as a weight of 0.

    Returns:
        The ranks, a tensor of the shape of `x`, float32, or float64 for float64
        entries, exact to a few units in the last place of n. An entry of weight
        0 takes no part, whatever it holds: its rank is 0, and so is its
        gradient. Infinite entries have the first and the last ranks, equal ones
        the average, and no gradient. A NaN that counts, or a weight that is
        negative or not finite, makes all ranks of its list NaN, and their
        gradient 0.

    Raises:
        ValueError: if `x` is not floating point, shapes differ (nothing is
            broadcast), or `axis` or `temperature` are out of range.

    References:
        [Qin, Liu and Li, 2010](https://doi.org/10.1007/s10791-009-9124-x) for
        ranks as sums over pairs of a smooth step, there a logistic one, which
        takes O(n²).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> x = np.array([0.0, 3.0, 1.0, 3.0], "float32")
    >>> for temperature in (0.01, 1.0, 9.0):
    ...     ranks = ops.soft_rank(x, temperature=temperature)
    ...     print([f"{float(rank):.2f}" for rank in ranks])
    ['1.00', '3.50', '2.00', '3.50']
    ['1.23', '3.41', '1.95', '3.41']
    ['2.16', '2.74', '2.35', '2.74']
    """
    x = checks.floats(x, "x")
    axis = checks.axis(axis, len(x.shape), "x")
    check_temperature(temperature)
    weight = entry_weights(x, sample_weight, mask, x.dtype)
    x, weight = (_keras.moveaxis(each, axis, -1) for each in (x, weight))
    good, weight, x = tidy(weight, x)
    ranks = where(weight > 0, soft(x, weight, temperature), 0)
    return _keras.moveaxis(where(good, ranks, np.nan), -1, axis)


@public_op
def average_rank(
    x: TensorLike,
    *,
    axis: int = -1,
    sample_weight: TensorLike | None = None,
    mask: TensorLike | None = None,
) -> Tensor:
    """Ranks from 1, equal entries at the average of their places.

    ```
    r_i = ½ + Σ_j w_j ([x_j < x_i] + ½ [x_j = x_i])
    ```

    Args:
        x: Tensor of numbers `(..., n, ...)`, of any real dtype. Integers are
            compared as integers.
        axis: The axis of the entries. The others are batch axes.
        sample_weight: w ≥ 0, a tensor of the shape of `x`. `None` is 1.
        mask: Booleans of the shape of `x`; False is as good as a weight of 0.

    Returns:
        The ranks, of the shape of `x`, float32, or float64 for float64 entries:
        exact to n = 2²³ in float32 without weights. No gradient. Weights of 0,
        infinities and NaN as in `soft_rank`.

    Raises:
        ValueError: if shapes differ (nothing is broadcast), `axis` is out of
            range, or integers in host memory do not fit into int32.

    Example:

    >>> from keras_xent import ops
    >>> ranks = ops.average_rank([10, 40, 20, 40])
    >>> [float(rank) for rank in ranks]
    [1.0, 3.5, 2.0, 3.5]
    """
    checks.int32_range(x, "Integers to rank")
    x = ops.stop_gradient(checks.tensor("x", x))
    axis = checks.axis(axis, len(x.shape), "x")
    dtype = dtype_of(x)
    if dtype in ("bool", "float16", "bfloat16"):
        x = ops.cast(x, "int32" if dtype == "bool" else "float32")
    dtype = sums_dtype(dtype)
    weight = entry_weights(x, sample_weight, mask, dtype)
    x, weight = (_keras.moveaxis(each, axis, -1) for each in (x, weight))
    good, weight, x = tidy(weight, x)
    ranks = where(weight > 0, exact(x, weight), 0)
    return _keras.moveaxis(where(good, ranks, np.nan), -1, axis)


def check_temperature(temperature):
    """Raises unless the temperature is None or a positive number."""
    if temperature is None:
        return
    checks.number("temperature", temperature, 0)
    if temperature == 0:
        raise ValueError(
            "`temperature` must be above 0: at 0 ranks have no gradient. For "
            "exact ranks use `average_rank`."
        )


def entry_weights(x, weight, mask, dtype):
    """The weight of every entry of `x`, without gradient; 0 where masked."""
    if weight is None:
        weight = ops.ones_like(x, dtype=dtype)
    else:
        weight = ops.stop_gradient(checks.tensor("sample_weight", weight))
        checks.same_shape("sample_weight", weight.shape, "x", x.shape)
        weight = ops.cast(weight, dtype)
    if mask is not None:
        mask = checks.tensor("mask", mask)
        checks.same_shape("mask", mask.shape, "x", x.shape)
        weight = where(ops.cast(mask, "bool"), weight, 0)
    return weight


def tidy(weight, *lists):
    """The good lists, and weights and lists without what cannot be ranked.

    Entries of weight 0 become 0: sorted in anywhere, they add nothing. So does
    all of a list that has no ranks.
    """
    counts = weight > 0
    right = counts & (weight < np.inf)
    for x in lists:
        right = right & (x == x)
    right = right | (weight == 0)
    good = ops.all(right, axis=-1, keepdims=True)
    counts = counts & good
    return good, *(where(counts, x, 0) for x in (weight, *lists))


def soft(x, weight, temperature):
    """Soft ranks along the last axis, of what is tidy."""
    if temperature is None:
        temperature = _usual_temperature(ops.stop_gradient(x), weight)
    else:
        # A list may have no first entry.
        one = ops.ones_like(ops.any(weight > 0, axis=-1, keepdims=True))
        temperature = temperature * ops.cast(one, x.dtype)
    return _keras.own_gradient(_soft_ranks)(x, weight, temperature)


def exact(x, weight):
    """Average ranks along the last axis, of what is tidy, and no gradient."""
    order = ops.argsort(x, axis=-1)
    x, weight = _take(x, order), _take(weight, order)
    # Equal entries are a group, from 1. What comes before it is written to its
    # place by its first entry; the others write to place 0.
    first = ops.cast(x[..., 1:] != x[..., :-1], order.dtype)
    first = _joined(ops.ones_like(order[..., :1]), first)
    group = ops.cumsum(first, axis=-1)
    zero = ops.zeros_like(ops.sum(weight, axis=-1, keepdims=True))
    sums = _joined(zero, ops.cumsum(weight, axis=-1))
    # Before what would follow the last group comes all of them.
    before = _joined(zero, ops.zeros_like(sums)) + sums[..., -1:]
    before = _put(sums[..., :-1], group * first, before)
    ranks = 0.5 + 0.5 * (before[..., :-1] + before[..., 1:])
    return _put(_take(ranks, group), order, ops.zeros_like(weight))


def _usual_temperature(x, weight):
    """0.3 standard deviations of the finite entries, 1 if all are equal."""
    deviation, share, unit = deviations(x, weight)
    total = or_one(ops.sum(share, axis=-1, keepdims=True))
    square = ops.sum(share * ops.square(deviation), axis=-1, keepdims=True)
    # The unit is half the range.
    return or_one(
        TEMPERATURE_IN_DEVIATIONS * 2 * unit * ops.sqrt(square / total)
    )


def _soft_ranks(x, weight, temperature):
    """Ranks along the last axis and their gradient, for `custom_gradient`."""
    given = x, weight, temperature
    order = ops.argsort(x, axis=-1)
    x, weight = _take(x, order), _take(weight, order)
    before, after = x[..., :-1], x[..., 1:]
    gap = before - after
    # Two infinities are 0 apart, not NaN. Not all that are equal: derivatives
    # of this as it is written go through them.
    gap = where(gap == gap, gap, 0)
    # A first factor of 0: what a shift carries round the end adds nothing.
    factors = _both_ways(ops.exp(gap / temperature))
    factors = _joined(ops.zeros_like(_both_ways(x[..., :1])), factors)
    before, after = _kernel_sums(factors, weight)
    smaller = ops.cumsum(weight, axis=-1) - 0.5 * weight
    ranks = 0.5 + smaller + 0.5 * (after - before)
    sums = before + after

    def grad(*arguments, upstream=None):
        if upstream is None:
            (upstream,) = arguments
        if _keras.records_backward_pass():
            return _keras.gradients(
                lambda *given: _soft_ranks(*given)[0], given, upstream
            )
        # With f = F′: dr_i/dx_i = Σ_j w_j f_ij / τ, dr_i/dx_k = −w_k f_ik / τ.
        # The entry itself is in both sums and cancels.
        upstream = _take(upstream, order)
        before, after = _kernel_sums(factors, upstream)
        gradient = upstream * sums - weight * (before + after)
        gradient = gradient / (2 * temperature)
        gradient = where(ops.isfinite(x), gradient, 0)
        return _put(gradient, order, ops.zeros_like(x)), None, None

    return _put(ranks, order, ops.zeros_like(x)), grad


def _both_ways(x):
    return ops.stack([x, ops.flip(x, axis=-1)])


def _kernel_sums(factors, amount):
    """S_i = a_i + f_i S_{i−1} over what is before each entry, and after it.

    Args:
        factors: `(2, ..., n)`, f between each entry and the last one, forwards
            and backwards.
        amount: `(..., n)`, a.
    """

    sums = _both_ways(amount)
    # Not −1: TensorFlow's `tape.jacobian` and `vectorized_map` take that for
    # the axis of what they map (2.21, `_convert_roll`).
    last = len(sums.shape) - 1

    def step(shift, product, sums):
        """Sums over `shift` entries become sums over twice as many."""
        product = product * ops.roll(product, shift // 2, axis=last)
        sums = sums + product * ops.roll(sums, shift, axis=last)
        return 2 * shift, product, sums

    state = (2, factors, sums + factors * ops.roll(sums, 1, axis=last))
    size = amount.shape[-1]
    if size is None:
        size = ops.shape(amount)[-1]
        state = ops.while_loop(lambda shift, *_: shift < size, step, state)
    else:
        while state[0] < size:
            state = step(*state)
    before, after = state[2][0], state[2][1]
    return before, ops.flip(after, axis=-1)


def _joined(first, rest):
    # `ops.pad` takes ten times as long on PyTorch.
    return ops.concatenate([first, rest], axis=-1)


def _take(x, places):
    """The entries at those places of each list."""
    if len(x.shape) == 1:
        return ops.take(x, places)
    return ops.take_along_axis(x, places, axis=-1)


def _put(x, places, into):
    """`into`, with the entries at those places of each list."""
    if len(x.shape) == 1:
        return ops.scatter_update(into, places[:, None], x)
    one = ops.ones_like(places[..., :1])
    row = ops.reshape(ops.cumsum(ops.reshape(one, (-1,))), ops.shape(one)) - 1
    places = places + row * ops.cast(ops.shape(into)[-1], places.dtype)
    x, places, flat = (ops.reshape(each, (-1,)) for each in (x, places, into))
    return ops.reshape(_put(x, places, flat), ops.shape(into))
