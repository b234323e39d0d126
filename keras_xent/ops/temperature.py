"""The temperature that makes a classifier's confidence come true."""

import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, crossentropy, extrema, probabilities
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

# Bounds of log β, β = 1 / T in units of the largest spread of logits in a row:
# e^87 is below the largest float32, and e^−60 is no difference at all.
LOWEST, HIGHEST = -60.0, 87.0

# Where a step changes T by less than this share of it, the next would change
# it by the square (Newton's method).
TOLERANCE = 1e-5

# Halving alone goes from the bounds to the tolerance in 24 steps, and every
# second step halves at least.
MOST_STEPS = 60


@public_op
def fit_temperature(
    targets: TensorLike,
    logits: TensorLike,
    *,
    sample_weight: TensorLike | None = None,
    axis: int = -1,
) -> Tensor:
    """The temperature T > 0 at which softmax(logits / T) is most likely.

    ```
    T = argmin_T Σ_i w_i (−log softmax(x_i / T)[y_i])
    ```

    Temperature scaling: the one-parameter calibration of a trained classifier
    on data it was not trained on. It changes no decision, since the largest
    logit stays the largest. T > 1 says that the model was too sure of itself.

    The cross-entropy is convex in β = 1 / T. Its derivative,
    Σ_i w_i (Σ_k p_ik x_ik − x_iy), is brought to 0 by Newton's method on log β
    within bounds that are halved where it would leave them. Logits of any size
    will do.

    Two kinds of data have no best temperature, and the answer says which limit
    is approached:

    - 0, where the target of every row is its largest logit: more confidence
      is always better. Take data on which the model errs.
    - inf, where an even guess is better than the logits at any temperature:
      on average they say nothing about the targets, or the opposite.

    Args:
        targets: Class ids of the shape of `logits` without `axis`, or with 1
            there; or distributions of the shape of `logits`. Beside one logit
            per row, yes (1), no (0) or a share of it.
        logits: Float tensor `(..., classes, ...)`; or one logit per row, `(n,)`
            or with size 1 along `axis`, where the answer is yes or no. −inf
            masks a class out.
        sample_weight: None, or one non-negative number per row. A row of
            weight 0 may hold anything.
        axis: The axis of the classes.

    Returns:
        T, a scalar without gradient, float32, or float64 for float64 logits.
        Right to a relative 1e-4 in float32. NaN if no row counts, if all logits
        of each row are equal (every temperature does as well), or if a target,
        logit or weight is impossible.

    Raises:
        ValueError: if shapes do not fit, the logits are not floating point, or
            targets in host memory are none.

    References:
        [Guo, Pleiss, Sun and Weinberger, 2017](
        https://arxiv.org/abs/1706.04599).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> logits = np.array([[8.0, 0.0]] * 4, "float32")
    >>> temperature = ops.fit_temperature([0, 0, 0, 1], logits)
    >>> print(f"{float(temperature):.3f}")  # 8 / log 3
    7.282
    >>> float(ops.fit_temperature([0, 0, 0, 0], logits))
    0.0
    """
    below, target, weight = _rows(targets, logits, sample_weight, axis)
    present = below > -np.inf
    spread = extrema.largest(where(present, -below, 0), 0)
    unit = where(spread > 0, spread, 1)
    below = where(present, below, 0) / unit
    target = target / unit

    def slopes(beta):
        """First and second derivative by β."""
        e = where(present, ops.exp(beta * below), 0)
        p = e / ops.sum(e, axis=1, keepdims=True)
        mean = ops.sum(p * below, axis=1, keepdims=True)
        variance = ops.sum(p * ops.square(below - mean), axis=1)
        first = ops.sum(weight * (mean[:, 0] - target))
        return first, ops.sum(weight * variance)

    def improve(x, low, high, last):
        beta = ops.exp(x)
        first, second = slopes(beta)
        low = ops.where(first < 0, x, low)
        high = ops.where(first < 0, high, x)
        second = second * beta
        newton = x - first / where(second > 0, second, 1)
        good = (second > 0) & (newton > low) & (newton < high)
        good = good & (2 * ops.abs(first) <= ops.abs(last * second))
        new = ops.where(good, newton, (low + high) / 2)
        return new, low, high, new - x

    def moving(x, low, high, last):
        return ops.abs(last) > TOLERANCE

    start = [
        ops.convert_to_tensor(number, dtype=below.dtype)
        for number in (0.0, LOWEST, HIGHEST, HIGHEST - LOWEST)
    ]
    x = ops.while_loop(
        moving, improve, tuple(start), maximum_iterations=MOST_STEPS
    )[0]
    temperature = unit * ops.exp(-x)
    # The slope at β = 0 and, turned round, the one that β → ∞ approaches.
    even, _ = slopes(ops.zeros_like(x))
    # Tensors: beside a scalar a number of Python's has the dtype of `floatx`.
    infinite, zero, unknown = (
        end * ops.ones_like(x) for end in (np.inf, 0.0, np.nan)
    )
    temperature = ops.where(even >= 0, infinite, temperature)
    all_right = ops.sum(weight * target) >= 0
    temperature = ops.where(all_right, zero, temperature)
    known = (spread > 0) & (ops.sum(weight) > 0)
    return ops.where(known, temperature, unknown)


def check_temperature(value):
    """Raises unless `value` can divide logits."""
    checks.number("temperature", value, 0)
    if not np.float32(value) > 0:
        raise ValueError(
            "`temperature` must be above 0: it divides the logits. Received: "
            f"temperature={value!r}"
        )


def _rows(targets, logits, sample_weight, axis):
    """How far logits and targets lie below the row's largest, and weights.

    Returns:
        `[n, k]`, `[n]` and `[n]`; all 0 in rows that weigh 0, and a weight of
        NaN in rows that are impossible.
    """
    logits = ops.stop_gradient(checks.logits(logits))
    last = len(logits.shape) - 1
    axis = checks.axis(axis, last + 1)
    if last == 0 or logits.shape[axis] == 1:
        targets, logits = _two_classes(targets, logits, axis)
        axis, last = 1, 1
    checks.classes(logits.shape, axis)
    # NaN wherever the largest is not finite.
    below = logits - extrema.largest(logits, -np.inf, axis=axis, keepdims=True)
    target = _target(targets, below, axis, sample_weight is None)
    defined = ops.logical_not(ops.any(ops.isnan(below), axis=axis))
    possible = defined & ops.isfinite(target)
    weight = ops.ones_like(target)
    if sample_weight is not None:
        given = checks.tensor("sample_weight", sample_weight)
        if len(given.shape) == last + 1 and given.shape[-1] == 1:
            given = ops.squeeze(given, -1)
        checks.same_shape("sample_weight", given.shape, "rows", target.shape)
        weight = ops.cast(given, target.dtype)
    possible = possible & (weight > 0) & (weight < np.inf)
    weight = ops.where(
        possible, weight, where(weight == 0, ops.zeros_like(weight), np.nan)
    )
    target = where(possible, target, 0)
    below = where(ops.expand_dims(possible, axis), below, 0)
    count = below.shape[axis]
    if axis != last:
        below = _keras.moveaxis(below, axis, -1)
    flat = ops.reshape(below, (-1, count))
    return flat, ops.reshape(target, (-1,)), ops.reshape(weight, (-1,))


def _two_classes(targets, logits, axis):
    """Yes/no rows as two classes: logits 0 and x, targets 1 − t and t."""
    checks.zero_to_one("targets", targets, "Give one logit per class for ids.")
    targets = ops.cast(checks.tensor("targets", targets), logits.dtype)
    if len(logits.shape) > 1:
        logits = ops.squeeze(logits, axis)
    one_more = len(targets.shape) == len(logits.shape) + 1
    if one_more and targets.shape[axis] == 1:
        targets = ops.squeeze(targets, axis)
    checks.same_shape("targets", targets.shape, "logits", logits.shape)
    yes, x = ops.reshape(targets, (-1,)), ops.reshape(logits, (-1,))
    yes = where((yes >= 0) & (yes <= 1), yes, np.nan)
    return (
        ops.stack([1 - yes, yes], axis=1),
        ops.stack([ops.zeros_like(x), x], axis=1),
    )


def _target(targets, below, axis, on_host):
    """Σ_k t_k (x_k − max x): NaN for a target that is none."""
    targets = checks.array("targets", targets)
    count = below.shape[axis]
    dense = len(targets.shape) == len(below.shape) and targets.shape[axis] != 1
    if dense:
        targets = crossentropy.distribution(targets, below, axis)
        good = probabilities.is_distribution(targets, axis)
        terms = targets * where(targets == 0, 0, below)
        return where(good, ops.sum(terms, axis=axis), np.nan)
    if on_host:
        checks.label_range(targets, count)
    else:
        checks.int32_range(targets)
    labels = crossentropy.integer_labels(targets, below.shape, axis)
    there = (labels >= 0) & (labels < count)
    index = ops.expand_dims(where(there, labels, 0), axis)
    target = ops.squeeze(ops.take_along_axis(below, index, axis=axis), axis)
    return where(there, target, np.nan)
