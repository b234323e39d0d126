"""What the last activation of an output is, and which numbers it can give."""

import numpy as np
from keras import ops

from keras_xent.diagnosis.evidence import host

# What makes probabilities of logits.
NORMALIZING = ("softmax", "sigmoid")

# Looked for where no layer is to be seen, the strictest first.
_BY_VALUE = (*NORMALIZING, "tanh", "relu")

# The least and the largest number that each can give.
_INF = float("inf")
_RANGES = {
    "softmax": (0.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, _INF),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, _INF),
    "exponential": (0.0, _INF),
    "elu": (-1.0, _INF),
    "selu": (-1.76, _INF),
    "gelu": (-0.17, _INF),
    "silu": (-0.28, _INF),
    "mish": (-0.31, _INF),
    "log_softmax": (-_INF, 0.0),
    "log_sigmoid": (-_INF, 0.0),
}


def final_activation(output):
    """The name of the last activation, by the layer or by the values."""
    # A last layer that only casts to float32 hands on what another has done.
    for seen in output.before:
        if seen.activation in NORMALIZING and np.array_equal(
            seen.values, output.y_pred
        ):
            return seen.activation
    activation = output.last.activation if output.last is not None else None
    if activation not in (None, "linear"):
        return activation
    # `ops.softmax` in a model's own `call` leaves no layer to look at.
    for name in _BY_VALUE:
        if any(follows(output, name, seen) for seen in output.before):
            return name
    return activation


def follows(output, name, seen):
    """Whether the output is the activation of what a layer has returned."""
    if name == "softmax" and output.y_pred.shape[-1:] == (1,):
        return False
    function = getattr(ops, name)
    applied = host(function(ops.convert_to_tensor(seen.values)))
    # float16 activations in float32 outputs, and nothing by chance.
    return np.allclose(applied, output.y_pred, rtol=0.01, atol=1e-3) and (
        not np.allclose(seen.values, output.y_pred, rtol=0.01, atol=1e-3)
    )


def seen_before(output):
    """What returned the scores to which softmax or sigmoid was applied.

    The last layer where the model ends in neither; None where it is not seen.
    """
    activation = final_activation(output)
    if activation not in NORMALIZING:
        return output.last
    seen = [each for each in output.before if follows(output, activation, each)]
    return seen[-1] if seen else None


def reach(name, values):
    """The least and the largest number that an activation can give.

    All numbers where it is not known, and where the values contradict: the
    name may be that of a layer whose output has been through more.
    """
    low, high = _RANGES.get(name, (-_INF, _INF))
    values = values[np.isfinite(values)]
    if values.size and (values.min() < low or values.max() > high):
        return -_INF, _INF
    return low, high
