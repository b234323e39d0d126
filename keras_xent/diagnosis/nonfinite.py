"""Where NaN and infinite values begin: in the data, or in the loss."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_xent.diagnosis import cures, data, ends, probe
from keras_xent.diagnosis.evidence import NAMED, bad_rows, host


def in_data(evidence, numbers):
    """`(where, cause, cure)` if the data are not finite; adds to the numbers.

    Args:
        evidence: The evidence.
        numbers: A dictionary, for the finding.
    """
    bad = {
        name: rows
        for name, leaf in data.arrays(*evidence.everything)
        if (rows := data.not_finite(leaf))
    }
    if not bad:
        return None
    rows = sorted(set().union(*bad.values()))
    numbers["rows"] = rows[:NAMED]
    if len(rows) > NAMED:
        numbers["such rows"] = len(rows)
    names = " and ".join(bad)
    return (
        f"the data, {names}",
        f"{names} itself holds NaN or infinite values."
        if len(bad) == 1
        else f"{names} hold NaN or infinite values.",
        data.without_bad_rows(list(bad), *evidence.everything),
    )


def in_loss(evidence, numbers):
    """The same of a loss that is not finite at outputs that are."""
    for output in _finite_outputs(evidence):
        rows = _bad_rows(output)
        if rows is None:
            continue
        if rows:
            numbers["rows"] = evidence.of_data(rows[:NAMED])
        return (
            f"the loss of {output.where}",
            "All layers give finite numbers; the loss makes NaN or infinity "
            f"of them: {_reason(output, numbers)}.",
            _other_loss(evidence, output),
        )
    return None


def in_slope_of_loss(evidence, numbers):
    """The same of a finite loss, whose gradient by the outputs is not."""
    for output in _finite_outputs(evidence):
        gradient = gradient_by_outputs(output)
        rows = [] if gradient is None else bad_rows(gradient)
        if rows:
            numbers["rows"] = evidence.of_data(rows[:NAMED])
            return (
                f"the loss of {output.where}",
                "The loss is finite, its derivative is not: a root or a norm "
                "at 0, a power below 1 of 0, or a where() whose other branch, "
                "a log of 0, is infinite.",
                _other_loss(evidence, output),
            )
    return None


def _finite_outputs(evidence):
    return [
        output
        for output in evidence.outputs
        if output.head is None and np.isfinite(output.y_pred).all()
    ]


def gradient_by_outputs(output):
    """d loss / d outputs, NumPy; None where it cannot be had."""

    def loss(values):
        y_true = ops.convert_to_tensor(output.y_true)
        y_pred = output.as_returned(values[0])
        return ops.sum(output.loss(y_true, y_pred, output.weight))

    (gradient,) = probe.gradients(loss, [output.y_pred.astype("float32")])
    return None if gradient is None else host(gradient)


def of_exponential(evidence, seen):
    """`(cause, cure)` of a layer that is an exp; None of others."""
    if seen.activation != "exponential" and not seen.name.startswith("exp"):
        return None
    cure = data.scaled(evidence.x)
    layer = ends.found(evidence.model, seen.name)[0]
    if not cure and layer is not None:
        cure = f"{layer}.activation = keras.activations.softplus\n"
        cure += "loss = model.loss  # compile it again"
    return (
        "exp(x) overflows float32 above x = 88, float16 above 11: the inputs "
        "are not scaled, or the layers before it have grown too large.",
        cure or "# for exp(x): keras.ops.exp(keras.ops.minimum(x, 10.0))",
    )


def _bad_rows(output):
    """The rows whose loss is not finite; None if it is finite everywhere."""
    values = output.compute(output.y_pred)
    if values.ndim:
        return bad_rows(values) or None
    if np.isfinite(values):
        return None
    # One number for all rows: each of them is asked alone.
    return [
        row
        for row in range(len(output.y_pred))
        if not np.isfinite(_alone(output, row))
    ]


def _alone(output, row):
    """The loss of one row; 0 where the loss does not take one."""
    one = {
        name: None if value is None else value[row : row + 1]
        for name in ("y_true", "y_pred", "weight", "mask")
        for value in [getattr(output, name)]
    }
    try:
        return dataclasses.replace(output, **one).compute(one["y_pred"]).mean()
    except Exception:
        return 0.0


def _reason(output, numbers):
    low, high = float(output.y_pred.min()), float(output.y_pred.max())
    numbers |= {"outputs from": low, "to": high}
    zeros = bool(np.any(output.counted(output.y_true) == 0))
    if low <= 0:
        reason = "log(p) of an output p that is 0 or less, say"
    elif high >= 1:
        reason = "log(1 - p) of an output p that is 1, the log of 0, say"
    else:
        return "a division by 0, or a root or log of 0 or less"
    if low < 0 and zeros:
        reason += ", or a division by a label of 0"
    return reason


def _other_loss(evidence, output):
    """Code for a loss that stays finite, and an end of the model for it."""
    code = data.scaled(evidence.x)
    if getattr(output.loss, "fn", None) is keras.losses.poisson:
        end = ends.with_activation(output, "softplus")
        return code + end + cures.loss_line(output, "'poisson'")
    return code + cures.from_logits(output)
