"""One-way Kullback-Leibler and Jensen-Shannon divergence of two rows.

Both are sums of p · log(p / q) + q − p, an entry each, which are never
negative: where p and q are nearly equal nothing cancels but what log-softmax
has rounded already.
"""

import math

import numpy as np
from keras import ops

from keras_xent.ops import checks
from keras_xent.ops.public import public_op
from keras_xent.ops.temperature import check_temperature


@public_op
def kl_divergence(p, q, temperature=1.0, axis=-1):
    """Kullback-Leibler divergence of q from p, both from logits.

    ```
    d = T² · KL(p‖q) = T² · Σ_k p_k · log(p_k / q_k)
    with p = softmax(p logits / T), q = softmax(q logits / T)
    ```

    For distillation p is the teacher and q the student. The gradient by the
    logits of q is T · (q − p). Without the factor T² it would shrink as 1 / T²
    where T is large, and the weight of this loss beside another would have to
    be found anew for each T (Hinton et al.). Divide by T² for nats.

    Args:
        p: Float tensor of logits.
        q: Float tensor of logits, of the same shape.
        temperature: T > 0. Above 1 it brings out how the teacher ranks the
            classes that it holds for wrong.
        axis: The axis of the classes.

    Returns:
        The divergence, in nats at T = 1: the shape of `p` without `axis`,
        float32, or float64 for float64 inputs. A class masked out by a logit
        of −inf costs nothing in p, or in both; in q alone it gives inf. A row
        with no finite logit or with NaN gives NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the inputs are
            not floating point, the logits have one class only, or the
            temperature is not a positive number.

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
    check_temperature(temperature)
    log_p, log_q, axis = _log_softmax_pair(p, q, temperature, axis)
    terms = _terms(ops.exp(log_p), ops.exp(log_q), _gap(log_p, log_q))
    return temperature**2 * ops.sum(terms, axis=axis)


@public_op
def jensen_shannon(p, q, axis=-1):
    """Jensen-Shannon divergence of two distributions, from logits.

    ```
    d(p, q) = ½ KL(p‖m) + ½ KL(q‖m),   m = (p + q) / 2
    ```

    with p and q the softmax of the logits. It is symmetric, 0 for equal rows
    only, and at most log 2 = 0.6931 nats, for rows that share no class: masked
    and confident logits give no infinity. Its square root is a metric.

    Args:
        p: Float tensor of logits.
        q: Float tensor of logits, of the same shape.
        axis: The axis of the classes.

    Returns:
        The divergence in nats: the shape of `p` without `axis`, float32, or
        float64 for float64 inputs. A row with no finite logit or with NaN
        gives NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the inputs are
            not floating point, or the logits have one class only.

    References:
        [Lin, 1991](https://doi.org/10.1109/18.61115);
        [Endres and Schindelin, 2003](https://doi.org/10.1109/TIT.2003.813506).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> p = np.array([[0.0, 1.0], [0.0, -np.inf]], "float32")
    >>> q = np.array([[1.0, 0.0], [-np.inf, 0.0]], "float32")
    >>> print([f"{float(d):.4f}" for d in ops.jensen_shannon(p, q)])
    ['0.1109', '0.6931']
    """
    log_p, log_q, axis = _log_softmax_pair(p, q, 1.0, axis)
    gap = _gap(log_p, log_q)
    larger = gap > 0
    size = ops.where(larger, gap, -gap)
    p, q = ops.exp(log_p), ops.exp(log_q)
    mean = (p + q) / 2
    # How far the larger of the two lies above m, and the smaller below: in
    # logarithms, and exact where they are nearly equal.
    lone = size == np.inf
    above = -ops.log1p(ops.expm1(ops.where(lone, -1, -size)) / 2)
    above = ops.where(lone, math.log(2), above)
    below = above - size
    of_p = _terms(p, mean, ops.where(larger, above, below))
    of_q = _terms(q, mean, ops.where(larger, below, above))
    return ops.sum(of_p + of_q, axis=axis) / 2


def _log_softmax_pair(p, q, temperature, axis):
    p, q = checks.logits(p, "p"), checks.logits(q, "q")
    p, q = checks.one_dtype(p, q)
    checks.same_shape("p", p.shape, "q", q.shape)
    axis = checks.axis(axis, len(p.shape))
    checks.entries(p.shape, axis)
    log_p, log_q = (ops.log_softmax(x / temperature, axis=axis) for x in (p, q))
    return checks.sizes_agree(log_p, p, q), log_q, axis


def _gap(log_p, log_q):
    """log p − log q, 0 where both are 0."""
    absent = (log_p == -np.inf) & (log_q == -np.inf)
    log_p, log_q = (ops.where(absent, 0, x) for x in (log_p, log_q))
    return log_p - log_q


def _terms(p, q, gap):
    """p · log(p / q) + q − p of each entry, from gap = log(p / q).

    p alone: infinite. q alone: q.
    """
    alone, missing = gap == np.inf, gap == -np.inf
    safe = ops.where(alone | missing, 0, gap)
    # Each side where its exponential cannot overflow. Not by `abs`, which has
    # another gradient at 0.
    down = ops.expm1(ops.where(safe > 0, -safe, safe))
    excess = ops.where(safe > 0, p * down, -q * down)
    terms = p * safe + excess
    terms = ops.where(missing, q, terms)
    return ops.where(alone, np.inf, terms)
