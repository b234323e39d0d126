"""Divergences of two rows: Kullback-Leibler, its sum both ways, Jensen-Shannon.

All take the same arguments: `a` and `b` are logits, p and q the distributions
that they stand for. All are sums of p · log(p / q) + q − p, an entry each,
which are never negative: where p and q are nearly equal nothing cancels but
what log-softmax has rounded already.
"""

import typing

import numpy as np
from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent._warnings import warn
from keras_xent.ops import checks
from keras_xent.ops.crossentropy import SUM_TOLERANCE
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where
from keras_xent.ops.temperature import check_temperature

# Where activations, not logits, are compared, an entry may be 0, and log 0 is
# −∞. Entries below this are taken as this inside the logarithm. It is far below
# every activation that matters, and its inverse times any activation is finite
# in float32, so that the gradient still pulls an entry of 0 upwards.
SMALLEST_IN_LOG = 2.0**-64


@public_op
def kl_divergence(
    a: TensorLike,
    b: TensorLike,
    *,
    from_logits: bool = True,
    temperature: float = 1.0,
    axis: int = -1,
) -> Tensor:
    """Kullback-Leibler divergence of one distribution from another.

    ```
    d = T² · KL(p‖q) = T² · Σ_k p_k · log(p_k / q_k)
    with p = softmax(a / T), q = softmax(b / T)
    ```

    For distillation a holds the logits of the teacher and b those of the
    student. The gradient by b is T · (q − p). Without the factor T² it would
    shrink as 1 / T² where T is large, and the weight of this loss beside
    another would have to be found anew for each T (Hinton et al.). Divide by T²
    for nats.

    With `from_logits=False`, p = a and q = b are activations that are not
    negative and need not sum to 1, and the divergence is the generalized one,
    Σ_k p_k · log(p_k / q_k) − p_k + q_k. An activation below 2^−64 counts as
    2^−64 inside the logarithm.

    Args:
        a: Float tensor of logits (or activations).
        b: Float tensor of the same shape.
        from_logits: Whether a and b are logits.
        temperature: T > 0, for logits. Above 1 it brings out how the teacher
            ranks the classes that it holds for wrong.
        axis: The axis of the classes.

    Returns:
        The divergence, in nats at T = 1: the shape of `a` without `axis`,
        float32, or float64 for float64 inputs. A class masked out by a logit
        of −inf costs nothing in a, or in both; in b alone it gives inf. A row
        with no finite logit, with NaN or with a negative activation gives NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the inputs are
            not floating point, the logits have one class only, the temperature
            is not a positive number, or activations in host memory are
            negative.

    Warns:
        UserWarning: if what lies in host memory looks like probabilities and
            is said to be logits.

    References:
        [Kullback and Leibler, 1951](https://doi.org/10.1214/aoms/1177729694);
        [Hinton, Vinyals and Dean, 2015](https://arxiv.org/abs/1503.02531).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> teacher = np.array([[0.0, 1.0], [3.0, 0.0]], "float32")
    >>> student = np.array([[3.0, 0.0], [3.0, 0.0]], "float32")
    >>> print([f"{float(d):.4f}" for d in ops.kl_divergence(teacher, student)])
    ['1.6596', '0.0000']
    """
    pair = _pair(a, b, from_logits, temperature, axis)
    terms = _terms(pair.p, pair.q, pair.gap)
    return temperature**2 * ops.sum(terms, axis=pair.axis)


@public_op
def symmetric_kl(
    a: TensorLike,
    b: TensorLike,
    *,
    from_logits: bool = True,
    temperature: float = 1.0,
    axis: int = -1,
) -> Tensor:
    """Symmetric Kullback-Leibler divergence of two distributions.

    ```
    d = T² · (KL(p‖q) + KL(q‖p)) = T² · Σ_k (p_k − q_k) · log(p_k / q_k)
    with p = softmax(a / T), q = softmax(b / T)
    ```

    From logits, the softmax is taken inside and the logarithms come from the
    logits: nothing is clipped, and d is exact for logits of any size. It is
    computed as Σ max(p, q) · (1 − e^−|δ|) · |δ| with δ = log p − log q, which
    is never negative and exactly 0 for equal rows.

    With `from_logits=False`, p = a and q = b are activations that are not
    negative and need not sum to 1 (the generalized form, which has the same
    formula). An activation below 2^−64 counts as 2^−64 inside the logarithm.

    Args:
        a: Float tensor of logits (or activations).
        b: Float tensor of the same shape.
        from_logits: Whether a and b are logits.
        temperature: T > 0, for logits.
        axis: The axis of the entries.

    Returns:
        The divergence, in nats at T = 1: the shape of `a` without `axis`,
        float32, or float64 for float64 inputs. An entry masked out by a logit
        of −inf in one row only gives inf; in both it costs nothing. A negative
        activation gives NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the inputs are
            not floating point, the logits have one entry only, the temperature
            is not a positive number, or activations in host memory are
            negative.

    Warns:
        UserWarning: if what lies in host memory looks like probabilities and
            is said to be logits.

    References:
        [Kullback and Leibler, 1951](https://doi.org/10.1214/aoms/1177729694).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> a = np.array([[0.0, 1.0], [5.0, 5.0]], "float32")
    >>> b = np.array([[1.0, 0.0], [3.0, 3.0]], "float32")
    >>> print([f"{float(d):.4f}" for d in ops.symmetric_kl(a, b)])
    ['0.9242', '0.0000']
    """
    pair = _pair(a, b, from_logits, temperature, axis)
    if not from_logits:
        return ops.sum((pair.p - pair.q) * pair.gap, axis=pair.axis)
    size = ops.abs(pair.gap)
    larger = ops.where(pair.gap < 0, pair.q, pair.p)
    # An entry that one row has not at all, also where the other underflows.
    apart = size == np.inf
    size = where(apart, 1, size)
    terms = where(apart, np.inf, larger * -ops.expm1(-size) * size)
    return temperature**2 * ops.sum(terms, axis=pair.axis)


@public_op
def jensen_shannon(
    a: TensorLike,
    b: TensorLike,
    *,
    beta: float = 0.5,
    from_logits: bool = True,
    temperature: float = 1.0,
    axis: int = -1,
) -> Tensor:
    """Jensen-Shannon divergence of two distributions, also the generalized.

    ```
    d = T² · (β KL(p‖m) + (1 − β) KL(q‖m)),   m = β p + (1 − β) q
    with p = softmax(a / T), q = softmax(b / T)
    ```

    At β = ½ it is symmetric, 0 for equal rows only, and at most log 2 = 0.6931
    nats (at T = 1), for rows that share no class: masked and confident logits
    give no infinity. Its square root is a metric.

    Other β lean to one side. The formula itself vanishes as β nears 0 or 1;
    divided by β it nears KL(p‖q) there, and by 1 − β KL(q‖p). So at β = 0 this
    is the forward divergence KL(p‖q), which covers all that the teacher p
    holds for possible, and at β = 1 the reverse one KL(q‖p), which settles on
    what it likes best: without the factor, as in the libraries that distill
    language models (TRL's GKD, Liger).

    With `from_logits=False`, p = a and q = b are activations that are not
    negative and need not sum to 1, and the divergences the generalized ones
    (see `kl_divergence`).

    Args:
        a: Float tensor of logits (or activations), for distillation of the
            teacher.
        b: Float tensor of the same shape.
        beta: β in [0, 1], the share of p in the mean m.
        from_logits: Whether a and b are logits.
        temperature: T > 0, for logits.
        axis: The axis of the classes.

    Returns:
        The divergence, in nats at T = 1: the shape of `a` without `axis`,
        float32, or float64 for float64 inputs. A row with no finite logit,
        with NaN or with a negative activation gives NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the inputs are
            not floating point, the logits have one class only, `beta` or
            `temperature` is out of range, or activations in host memory are
            negative.

    Warns:
        UserWarning: if what lies in host memory looks like probabilities and
            is said to be logits.

    References:
        [Lin, 1991](https://doi.org/10.1109/18.61115);
        [Endres and Schindelin, 2003](https://doi.org/10.1109/TIT.2003.813506);
        [Agarwal et al., 2024](https://arxiv.org/abs/2306.13649), β.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> a = np.array([[0.0, 1.0], [0.0, -np.inf]], "float32")
    >>> b = np.array([[1.0, 0.0], [-np.inf, 0.0]], "float32")
    >>> print([f"{float(d):.4f}" for d in ops.jensen_shannon(a, b)])
    ['0.1109', '0.6931']
    """
    check_beta(beta)
    pair = _pair(a, b, from_logits, temperature, axis)
    p, q, gap = pair.p, pair.q, pair.gap
    if beta == 0:
        terms = _terms(p, q, gap)
    elif beta == 1:
        terms = _terms(q, p, -gap)
    else:
        terms = _mixed_terms(p, q, gap, beta)
    return temperature**2 * ops.sum(terms, axis=pair.axis)


def check_beta(beta):
    """Raises unless β is a share."""
    checks.number("beta", beta, 0, 1)


def _mixed_terms(p, q, gap, beta):
    """Each entry of β KL(p‖m) + (1 − β) KL(q‖m), generalized."""
    larger = gap > 0
    size = ops.where(larger, gap, -gap)
    # Tensors: beside another number PyTorch rounds a number to float32. Not by
    # `full_like`, which reads device memory there.
    one = ops.ones_like(gap)
    of_p, of_q = beta * one, (1 - beta) * one
    share = ops.where(larger, of_p, of_q)
    rest = ops.where(larger, of_q, of_p)
    # How far the larger of the two lies above m, and the smaller below, in
    # logarithms. m is share + rest · e^−size times the larger; near 1 that is
    # said without it, so that nothing cancels.
    near = size < 1
    near_one = ops.log1p(rest * ops.expm1(where(near, -size, -1)))
    far = ops.log(share + rest * ops.exp(-size))
    above = -ops.where(near, near_one, far)
    below = above - size
    mean = beta * p + (1 - beta) * q
    of_p = _terms(p, mean, ops.where(larger, above, below))
    of_q = _terms(q, mean, ops.where(larger, below, above))
    return beta * of_p + (1 - beta) * of_q


class _Pair(typing.NamedTuple):
    """Two distributions, log p − log q, and the axis of their entries."""

    p: typing.Any
    q: typing.Any
    gap: typing.Any
    axis: int


def _pair(a, b, from_logits, temperature, axis):
    check_temperature(temperature)
    if not from_logits and temperature != 1:
        raise ValueError(
            "`temperature` divides logits, and activations have none. Received "
            f"temperature={temperature!r} with from_logits=False: pass the "
            "logits."
        )
    a, b = checks.one_dtype(
        given("a", a, from_logits, axis), given("b", b, from_logits, axis)
    )
    checks.same_shape("a", a.shape, "b", b.shape)
    axis = checks.axis(axis, len(a.shape))
    if not from_logits:
        gap = checks.sizes_agree(log_of_activations(a), a, b)
        return _Pair(a, b, gap - log_of_activations(b), axis)
    checks.entries(a.shape, axis)
    log_p, log_q = (ops.log_softmax(x / temperature, axis=axis) for x in (a, b))
    p, q = ops.exp(log_p), ops.exp(log_q)
    log_p = checks.sizes_agree(log_p, a, b)
    absent = (log_p == -np.inf) & (log_q == -np.inf)
    log_p, log_q = (where(absent, 0, x) for x in (log_p, log_q))
    return _Pair(p, q, log_p - log_q, axis)


def given(name, x, from_logits, axis=-1):
    """Logits or activations as a float tensor, checked where they can be seen.

    Args:
        name: What messages call `x`.
        x: Logits, or activations that are not negative.
        from_logits: Which of the two.
        axis: The axis of the entries.

    Returns:
        A tensor of float32 at least. Negative activations are NaN.
    """
    values = checks.host_array(x)
    if from_logits:
        if values is not None and _look_like_probabilities(values, axis):
            warn(
                f"`{name}` looks like probabilities: no entry is negative and "
                "each row sums to 1. With from_logits=True a softmax is taken "
                "of it. Pass the logits, or from_logits=False."
            )
        return checks.logits(x, name)
    if values is not None and np.any(values < 0):
        raise ValueError(
            f"`{name}` must not be negative where from_logits=False: it holds "
            f"activations such as those of relu, softplus or softmax. Received "
            f"{values[values < 0].flat[0]}. If these are logits, pass "
            f"from_logits=True."
        )
    x = checks.logits(x, name)
    return where(x >= 0, x, np.nan)


def _look_like_probabilities(values, axis):
    """Whether all rows are distributions, and not all of them one-hot."""
    if values.dtype.kind != "f" or not values.size or not values.ndim:
        return False
    if not isinstance(axis, int) or not -values.ndim <= axis < values.ndim:
        return False
    if values.shape[axis] < 2:
        return False
    # Rows of 0 and 1 are as well the logits that one makes up.
    if not np.all(values >= 0) or not np.any((values > 0) & (values < 1)):
        return False
    sums = values.sum(axis=axis, dtype="float64")
    return bool(np.all(np.abs(sums - 1) <= SUM_TOLERANCE))


def log_of_activations(x):
    """log x, where entries below SMALLEST_IN_LOG still get its gradient."""
    lifted = where(x < SMALLEST_IN_LOG, SMALLEST_IN_LOG - x, 0)
    lifted = ops.stop_gradient(lifted)
    return ops.log(x + lifted)


def _terms(p, q, gap):
    """p · log(p / q) + q − p of each entry, from gap = log(p / q).

    p alone: infinite. q alone: q.
    """
    alone, missing = gap == np.inf, gap == -np.inf
    safe = where(alone | missing, 0, gap)
    # Each side where its exponential cannot overflow. Not by `abs`, which has
    # another gradient at 0.
    down = ops.expm1(ops.where(safe > 0, -safe, safe))
    excess = ops.where(safe > 0, p * down, -q * down)
    terms = p * safe + excess
    terms = ops.where(missing, q, terms)
    return where(alone, np.inf, terms)
