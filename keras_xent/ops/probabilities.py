"""Probabilities from logits, or checked where they come as such."""

import numpy as np
from keras import ops

from keras_xent.ops import checks, extrema
from keras_xent.ops.crossentropy import SUM_TOLERANCE
from keras_xent.ops.select import where

CURE = "If these are logits, pass from_logits=True."


def class_probabilities(x, from_logits, axis, name="logits"):
    """Distributions along an axis.

    Args:
        x: Float tensor of logits, or of probabilities.
        from_logits: Whether they are logits.
        axis: The axis of the classes, counted from the front.
        name: What messages call `x`.

    Returns:
        The probabilities, float32 at least. What is no distribution (a number
        outside [0, 1], a sum further from 1 than low precision explains) is
        NaN in all of its classes.

    Raises:
        ValueError: If `x` is not floating point, or probabilities in host
            memory are no distributions.
    """
    if from_logits:
        return ops.softmax(checks.logits(x, name), axis=axis)
    check_distributions(name, x, axis)
    p = checks.logits(x, name)
    return where(is_distribution(p, axis, keepdims=True), p, np.nan)


def is_distribution(p, axis, keepdims=False):
    """Whether numbers along an axis are probabilities of one distribution."""
    total = ops.sum(p, axis=axis, keepdims=keepdims)
    lowest = extrema.smallest(p, np.inf, axis=axis, keepdims=keepdims)
    return (lowest >= 0) & (ops.abs(total - 1) <= SUM_TOLERANCE)


def yes_probability(x, from_logits, name="logits"):
    """The probability of yes, from log-odds or checked; NaN outside [0, 1]."""
    if from_logits:
        return ops.sigmoid(checks.logits(x, name))
    check_distributions(name, x, None)
    p = checks.logits(x, name)
    return where((p >= 0) & (p <= 1), p, np.nan)


def check_distributions(name, x, axis):
    """Raises on values in host memory that are no probabilities.

    Along `axis` they must sum to 1; None asks each number alone.
    """
    checks.zero_to_one(name, x, CURE)
    values = checks.host_array(x)
    if values is None or axis is None or not values.size:
        return
    sums = values.sum(axis=axis, dtype="float64")
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if np.any(wrong):
        raise ValueError(
            f"`{name}` must be distributions: the probabilities of an example "
            "sum to 1. Received an example whose sum is "
            f"{sums[wrong].flat[0]}. {CURE}"
        )
