"""Entropy of distributions, in the unit that is asked for."""

import math
import typing

from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
from keras_xent.ops.probabilities import class_probabilities
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

NATS_PER = {"nats": 1.0, "bits": math.log(2)}


@public_op
def entropy(
    x: TensorLike,
    *,
    from_logits: bool = True,
    unit: typing.Literal["nats", "bits"] = "nats",
    axis: int = -1,
) -> Tensor:
    """Entropy of distributions over classes.

    ```
    H(p) = −Σ_k p_k log p_k,   p = softmax(logits),   0 · log 0 = 0
    ```

    It lies between 0, when one class is certain, and the entropy of an even
    choice among n classes: log n nats, log₂ n bits. So a fair coin has entropy
    1 in bits and 0.6931 in nats. 1 bit = log 2 nats = 0.6931 nats.

    Args:
        x: Float tensor of logits; with `from_logits=False`, of probabilities
            that sum to 1.
        from_logits: Whether x holds logits. A class whose logit is −inf is
            absent.
        unit: "nats" (natural logarithm) or "bits" (logarithm to base 2).
        axis: The axis of the classes.

    Returns:
        The entropy: the shape of `x` without `axis`, float32, or float64 for
        float64 inputs. NaN for rows that are no distributions: no finite
        logit, or probabilities that are negative or do not sum to 1. The
        gradient at a probability of exactly 0, where that of the formula is
        infinite, is 0.

    Raises:
        ValueError: if `x` is not floating point, the unit is unknown, the
            logits have one class only, or probabilities in host memory are no
            distributions.

    References:
        [Shannon, 1948](https://doi.org/10.1002/j.1538-7305.1948.tb01338.x).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> coin = np.array([3.0, 3.0], "float32")
    >>> print(f"{float(ops.entropy(coin)):.4f}")
    0.6931
    >>> print(f"{float(ops.entropy(coin, unit='bits')):.4f}")
    1.0000
    """
    checks.choice("unit", unit, NATS_PER)
    rank = len(checks.array("x", x).shape)
    axis = checks.axis(axis, rank)
    if from_logits:
        logits = checks.logits(x)
        checks.classes(logits.shape, axis)
        log_p = ops.log_softmax(logits, axis=axis)
        p = ops.exp(log_p)
    else:
        p = class_probabilities(x, False, axis, "x")
        log_p = ops.log(where(p == 0, 1, p))
    # 0 · ∞ is 0, in the gradient as well.
    terms = p * where(p == 0, 0, log_p)
    return -ops.sum(terms, axis=axis) / NATS_PER[unit]
