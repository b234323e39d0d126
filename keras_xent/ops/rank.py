"""Ranks of the entries of a list: exact ones, and ones with a gradient.

Both come from one recurrence. With the entries in order, x_1 ≤ x_2 ≤ …, the sum
that a Laplace kernel gives entry i from those before it is

    S_i = exp(−(x_i − x_{i−1}) / τ) · S_{i−1} + w_i

and another one runs backwards. The factors lie in [0, 1]: nothing overflows. A
factor of 1 between equal entries and 0 between others is the limit τ → 0, and
gives exact average ranks. The recurrence is solved by ⌈log₂ n⌉ steps of shift,
multiply and add, so that time is O(n log n) and memory O(n). The gradient is
the same pair of recurrences, with the gradients of the ranks for weights.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
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
        gradient 0. There is no second derivative.

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
    x, weight, good = _tidy(x, weight)
    if temperature is None:
        temperature = _usual_temperature(ops.stop_gradient(x), weight)
    temperature = temperature * ops.ones_like(good, dtype=x.dtype)
    ranks = _keras.own_gradient(_soft_ranks)(x, weight, temperature)
    ranks = where(weight > 0, ranks, 0)
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
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    axis = checks.axis(axis, len(x.shape), "x")
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype in ("bool", "float16", "bfloat16"):
        x = ops.cast(x, "int32" if dtype == "bool" else "float32")
    dtype = checks.sums_dtype(dtype)
    weight = entry_weights(x, sample_weight, mask, dtype)
    x, weight = (_keras.moveaxis(each, axis, -1) for each in (x, weight))
    x, weight, good = _tidy(x, weight)
    order, place = _order(x)
    x, ordered = _take(x, order), _take(weight, order)
    equal = ops.cast(x[..., 1:] == x[..., :-1], dtype)
    ranks = _take(_ranks(ordered, _kernel_sums(equal, ordered)), place)
    ranks = where(weight > 0, ranks, 0)
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
        weight = ops.stop_gradient(ops.convert_to_tensor(weight))
        checks.same_shape("sample_weight", weight.shape, "x", x.shape)
        weight = ops.cast(weight, dtype)
    if mask is not None:
        mask = ops.convert_to_tensor(mask)
        checks.same_shape("mask", mask.shape, "x", x.shape)
        weight = where(ops.cast(mask, "bool"), weight, 0)
    return weight


def _tidy(x, weight):
    """Entries and weights without what cannot be ranked, and the good lists.

    Entries of weight 0 become 0: sorted in anywhere, they add nothing. So does
    all of a list that has no ranks.
    """
    zero = ops.zeros_like(x)
    x = ops.where(weight == 0, zero, x)
    right = (weight >= 0) & (weight < np.inf) & (x == x)
    good = ops.all(right, axis=-1, keepdims=True)
    return ops.where(good, x, zero), where(good, weight, 0), good


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
    order, place = _order(x)
    x, weight = _take(x, order), _take(weight, order)
    # Two infinities are 0 apart, not NaN.
    equal = x[..., 1:] == x[..., :-1]
    gap = where(equal, 0, x[..., 1:] - x[..., :-1])
    factor = ops.exp(-gap / temperature)
    sums = _kernel_sums(factor, weight)

    def grad(*arguments, upstream=None):
        if upstream is None:
            (upstream,) = arguments
        # With f = F′: dr_i/dx_i = Σ_j w_j f_ij / τ, dr_i/dx_k = −w_k f_ik / τ.
        # The entry itself is in both sums and cancels.
        upstream = _take(upstream, order)
        before, after = _kernel_sums(factor, upstream)
        gradient = upstream * (sums[0] + sums[1]) - weight * (before + after)
        gradient = gradient / (2 * temperature)
        gradient = where(ops.isfinite(x), gradient, 0)
        return _take(gradient, place), None, None

    return _take(_ranks(weight, sums), place), grad


def _ranks(weight, sums):
    """½ + Σ_j w_j F from the kernel sums, which hold the entry itself."""
    before, after = sums
    smaller = ops.cumsum(weight, axis=-1) - 0.5 * weight
    return 0.5 + smaller + 0.5 * (after - before)


def _kernel_sums(factor, amount):
    """S_i = a_i + f_i S_{i−1} over what is before each entry, and after it.

    Args:
        factor: `(..., n − 1)`, f between each entry and the next.
        amount: `(..., n)`, a.
    """
    both = ops.stack([factor, ops.flip(factor, axis=-1)])
    # A first factor of 0: what a shift carries round the end adds nothing.
    edge = [(0, 0)] * (len(both.shape) - 1)
    product = ops.pad(both, [*edge, (1, 0)])
    sums = ops.stack([amount, ops.flip(amount, axis=-1)])

    def step(shift, product, sums):
        """Sums over `shift` entries become sums over twice as many."""
        sums = sums + product * ops.roll(sums, shift, axis=-1)
        return 2 * shift, product * ops.roll(product, shift, axis=-1), sums

    state = (1, product, sums)
    size = amount.shape[-1]
    if size is None:
        size = ops.shape(amount)[-1]
        state = ops.while_loop(lambda shift, *_: shift < size, step, state)
    else:
        while state[0] < size:
            state = step(*state)
    before, after = state[2][0], state[2][1]
    return before, ops.flip(after, axis=-1)


def _order(x):
    """The places to take sorted entries from, and to put them back."""
    order = ops.argsort(x, axis=-1)
    # Written where they belong: a second sort would take most of the time.
    shape = ops.shape(x)
    # `ops.size` is a tensor on PyTorch, and on the device.
    size = ops.size(x) if None in x.shape else math.prod(shape)
    start = ops.arange(size, dtype=order.dtype)
    count = ops.cast(shape[-1], order.dtype)
    row = start - start % count
    flat = ops.reshape(order, (-1,))
    place = ops.scatter_update(
        ops.zeros_like(flat), (flat + row)[:, None], start - row
    )
    return order, ops.reshape(place, shape)


def _take(x, places):
    return ops.take_along_axis(x, places, axis=-1)
