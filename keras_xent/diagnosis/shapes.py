"""Labels in a shape that the loss cannot compare with the outputs."""

import numpy as np

from keras_xent.diagnosis import cures, ends, steps
from keras_xent.diagnosis.cures import kind_of_labels
from keras_xent.diagnosis.evidence import host
from keras_xent.losses.kinds import CLASS_IDS, MATCHES, NUMBERS, UNKNOWN, YES_NO

_ONE_FOR_ONE = (NUMBERS, YES_NO, MATCHES)


def findings(evidence):
    """Of losses that are known to compare one for one."""
    for output in evidence.outputs:
        if output.expects.labels not in _ONE_FOR_ONE or _go_together(output):
            continue
        # What can be broadcast, and one label for many, are findings of the
        # labels.
        if not any(side_by_side(output)) and not any(steps.left_on(output)):
            yield _misshapen(output)


def of_error(evidence):
    """Of losses that nobody knows, one of which has raised."""
    for output in evidence.outputs:
        if output.expects.labels != UNKNOWN or _go_together(output):
            continue
        if not _works(output, output.y_true) and _works(
            output, np.zeros_like(output.y_pred)
        ):
            yield _misshapen(output)
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


def _misshapen(output):
    cause, cure = _cure(output)
    return output.error(
        "label-format",
        "Labels and outputs have shapes that the loss cannot compare: it "
        "takes one label for each number of the output, and raises.",
        {
            "shape of the labels": output.labels.shape,
            "shape of the outputs": output.y_pred.shape,
        },
        cause,
        cure,
    )


def _cure(output):
    """The cause and the cure of labels that do not stand beside outputs."""
    labels, scores = output.labels, output.y_pred.shape
    if kind_of_labels(output, UNKNOWN) == CLASS_IDS and _are_classes(labels):
        return (
            "Class ids were given to a loss that compares numbers one for one.",
            cures.loss_of(CLASS_IDS, output),
        )
    cause = "The last layer has not one unit for each number to be predicted."
    if labels.shape[1:-1] != scores[1:-1] and labels.ndim > 2:
        return cause, f"# y.shape[1:] is to be {scores[1:]}"
    units = labels.shape[-1] if labels.ndim > 1 else 1
    return cause, ends.with_units(output, units)


def _are_classes(labels):
    return labels.dtype.kind in "iub" or len(np.unique(labels)) < len(labels)


def side_by_side(output):
    """Whether labels and outputs stand side by side, one for one."""
    labels = (len(output.y_true), *output.labels.shape[1:])
    scores = output.y_pred.shape
    ranked = _same_rank(labels, scores)
    if ranked[0] == ranked[1]:
        return
    try:
        together = np.broadcast_shapes(*ranked)
    except ValueError:
        ids = labels == scores[:-1] or labels == (*scores[:-1], 1)
        if not ids or output.expects.labels != YES_NO:
            return  # The loss raises, in its own words.
        together = "none"
    yield output.error(
        "shape-broadcast",
        "Labels and outputs do not stand side by side, one for one, so that "
        "numbers are compared that have nothing to do with each other.",
        {
            "shape of the labels": labels,
            "shape of the outputs": scores,
            "shape when compared": together,
        },
        *_cure(output),
    )


def _same_rank(labels, scores):
    """As Keras brings them to one rank: a last axis of 1 comes or goes."""
    short, long = sorted((labels, scores), key=len)
    if len(long) == len(short) + 1 and long[-1] == 1:
        if len(short) == 1:
            return (*short, 1), long
        return short, long[:-1]
    return labels, scores


def by_value(output):
    """A loss that nobody knows: does the shape of the labels matter to it?"""
    labels, scores = output.y_true, output.y_pred
    if len(labels) < 2:
        return
    if labels.shape == scores.shape or labels.size != scores.size:
        return
    try:
        given = host(output.compute(scores)).mean()
        reshaped = output.compute(scores, labels.reshape(scores.shape)).mean()
    except Exception:
        return  # Somebody else's loss: what it raises, it raises in `fit` too.
    # NaN differs from NaN, and another finding says where it comes from.
    if not np.isfinite([given, reshaped]).all():
        return
    if np.isclose(given, reshaped, rtol=1e-3):
        return
    yield output.error(
        "shape-broadcast",
        f"The labels have shape {labels.shape} and the outputs "
        f"{scores.shape}: subtracted from each other they become "
        f"{np.broadcast_shapes(labels.shape, scores.shape)}, every label "
        "against every output.",
        {
            "loss": float(given),
            "loss with labels in the shape of the outputs": float(reshaped),
        },
        "A loss of your own does not bring labels and outputs into one shape, "
        "as Keras's functions do.",
        f"y = y.reshape({(-1, *scores.shape[1:])})",
    )
