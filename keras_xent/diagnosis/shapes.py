"""Labels in a shape that the loss cannot compare with the outputs."""

import keras
import numpy as np

from keras_xent.diagnosis import cures
from keras_xent.diagnosis.labels import side_by_side
from keras_xent.diagnosis.nonfinite import kind_of_labels
from keras_xent.diagnosis.report import ERROR, Finding
from keras_xent.losses.kinds import CLASS_IDS, MATCHES, NUMBERS, UNKNOWN, YES_NO

CODES = ()  # `label-format` is listed with the labels.

_ONE_FOR_ONE = (NUMBERS, YES_NO, MATCHES)


def findings(evidence):
    """Of losses that are known to compare one for one."""
    for output in evidence.outputs:
        if output.expects.labels not in _ONE_FOR_ONE or _go_together(output):
            continue
        # What can be broadcast is a finding of the labels.
        if not any(side_by_side(output)):
            yield _misshapen(evidence, output)


def of_error(evidence):
    """Of losses that nobody knows, one of which has raised."""
    for output in evidence.outputs:
        if output.expects.labels != UNKNOWN or _go_together(output):
            continue
        if not _works(output, output.y_true) and _works(
            output, np.zeros_like(output.y_pred)
        ):
            yield _misshapen(evidence, output)
            return


def _works(output, y_true):
    try:
        output.compute(output.y_pred, y_true)
    except Exception:
        return False
    return True


def _go_together(output):
    """Whether one can be subtracted from the other, as Keras does it."""
    labels, scores = output.labels.shape[1:], output.y_pred.shape[1:]
    if labels == (*scores, 1) or scores == (*labels, 1):
        return True
    rows = len(output.y_pred)
    try:
        np.broadcast_shapes((rows, *labels), (rows, *scores))
    except ValueError:
        return False
    # One number beside a row of scores is `shape-broadcast`.
    return True


def _misshapen(evidence, output):
    cause, cure = _cure(evidence, output)
    return Finding(
        "label-format",
        ERROR,
        output.where,
        "Labels and outputs have shapes that the loss cannot compare: it "
        "takes one label for each number of the output, and raises.",
        {
            "shape of the labels": output.labels.shape,
            "shape of the outputs": output.y_pred.shape,
        },
        cause,
        cure,
    )


def _cure(evidence, output):
    labels, scores = output.labels, output.y_pred.shape
    kind = kind_of_labels(output, UNKNOWN)
    if kind == CLASS_IDS and _are_classes(labels):
        return (
            "Class ids were given to a loss that compares numbers one for one.",
            cures.loss_of(CLASS_IDS, output),
        )
    units = labels.shape[-1] if labels.ndim > 1 else 1
    cause = "The last layer has not one unit for each number to be predicted."
    if labels.shape[1:-1] != scores[1:-1] and labels.ndim > 2:
        return cause, f"assert y.shape[1:] == {scores[1:]}"
    last = evidence.model.layers[-1]
    is_end = (
        len(evidence.outputs) == 1
        and isinstance(last, keras.layers.Dense)
        and getattr(evidence.model, "inputs", None)
        and labels.ndim <= len(scores)
    )
    if not is_end:
        return cause, f"keras.layers.Dense({units})"
    return cause, (
        f"outputs = keras.layers.Dense({units})(model.layers[-1].input)\n"
        "model = keras.Model(model.inputs, outputs)\n"
        "# then compile it as before"
    )


def _are_classes(labels):
    return labels.dtype.kind in "iub" or len(np.unique(labels)) < len(labels)
