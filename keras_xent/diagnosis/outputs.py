"""Checks whether outputs are what the loss expects: logits, probabilities."""

import numpy as np
from keras import tree

from keras_xent.diagnosis import cures, ends, reach
from keras_xent.diagnosis.activations import (
    NORMALIZING,
    final_activation,
    follows,
    seen_before,
)
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.diagnosis.report import LOGITS as LOGITS_IN_WORDS
from keras_xent.losses.divergence import DivergenceLoss
from keras_xent.losses.kinds import (
    DISTRIBUTION,
    EMBEDDINGS,
    LOGITS,
    PROBABILITIES,
    YES_NO,
)

# Sums of bfloat16 probabilities (8 bits) stay within this of 1.
_SUM_ERROR = 0.02

# Rows by chance within the error of 1: one in 25 or so. So many never are.
_ROWS = 4


def findings(evidence):
    for output in evidence.outputs:
        checks = (_wrong, reach.logits, reach.targets)
        found = next((f for check in checks for f in check(output)), None)
        if found:
            yield found
        if isinstance(output.loss, DivergenceLoss):
            yield from _teacher(output)


def _teacher(output):
    """A teacher's probabilities, where the loss makes them of logits."""
    rows = output.label_rows
    if len(rows) < _ROWS or rows.shape[-1] < 2 or not np.all(rows >= 0):
        return
    sums = rows.sum(axis=-1)
    if np.any(np.abs(sums - 1) > _SUM_ERROR):
        return
    yield Finding(
        "probabilities-as-logits",
        ERROR,
        f"the labels of {output.where}",
        f"The teacher's answers are probabilities, and the loss expects "
        f"{LOGITS_IN_WORDS} of both sides: it applies softmax to them again, "
        "which makes every class nearly as likely as the others.",
        {
            "smallest label": float(rows.min()),
            "largest label": float(rows.max()),
            "smallest sum of a row": float(sums.min()),
            "largest sum of a row": float(sums.max()),
        },
        "The teacher ends in a softmax, or the labels are one-hot rows. "
        "keras.losses.KLDivergence takes probabilities, this loss does not.",
        "# the softmax of log(p) is p again:\n"
        "y = np.log(np.maximum(np.asarray(y), 1e-7))",
    )


def _wrong(output):
    expects, n = output.expects, output.classes
    activation = final_activation(output)
    if (
        n == 1
        and (expects.is_softmax or activation == "softmax")
        and not _is_of_rows(output)
    ):
        yield _single_class(output, activation)
        return
    if not len(_rows(output)):
        return  # Not one row is finite.
    distance = getattr(output.loss, "distance", None)
    softmax_follows = (
        expects.outputs == EMBEDDINGS and distance == "symmetric_kl"
    )
    if expects.outputs == LOGITS or softmax_follows:
        if activation in NORMALIZING or (
            expects.outputs == LOGITS
            and expects.labels != YES_NO
            and _are_distributions(output)
        ):
            # Of a function without a name the values have told it.
            known = activation in NORMALIZING
            yield _twice(output, activation if known else "softmax")
    elif expects.outputs == PROBABILITIES:
        inner = _activation_before(output, activation)
        if activation in NORMALIZING and inner == activation:
            yield _twice(output, activation)
        else:
            yield from _not_probabilities(output, activation)


def _is_of_rows(output):
    """Whether there is a class for each row: one, because there is one row."""
    try:
        end = tree.flatten(output.model.outputs)[output.index]
    except AttributeError:
        return False  # Not known of a model with a `call` of its own.
    return end.shape[output.expects.axis] is None


def _activation_before(output, activation):
    """The activation of the layer before the last softmax or sigmoid."""
    if activation not in NORMALIZING:
        return None
    for seen in output.before:
        if seen.activation == activation and follows(output, activation, seen):
            return activation
    return None


def _are_distributions(output):
    rows = _rows(output)
    return (
        len(rows) >= _ROWS
        and bool(np.all(rows >= 0))
        and bool(np.all(np.abs(rows.sum(axis=-1) - 1) < _SUM_ERROR))
    )


def _rows(output):
    """The outputs that count and are finite, `(rows, classes)`."""
    scores = output.score_rows
    return scores[np.isfinite(scores).all(axis=-1)]


def _numbers(output):
    rows = _rows(output).astype("float64")
    return {
        "smallest output": float(rows.min()),
        "largest output": float(rows.max()),
        "smallest sum of a row": float(rows.sum(axis=-1).min()),
        "largest sum of a row": float(rows.sum(axis=-1).max()),
    }


def _single_class(output, activation):
    return output.error(
        "single-class",
        "The softmax runs over one class. It is always 1, whatever the "
        "weights: the loss is always 0, or never changes.",
        {"classes": 1, "activation": activation or "none"},
        "A yes/no answer of one unit was given the loss or the activation of "
        "several classes.",
        _cure_of_one(output),
    )


def _cure_of_one(output):
    """By the labels: numbers of any size, classes, or yes and no."""
    labels = output.counted(output.labels, whole=True).astype("float64")
    values = np.unique(labels)
    if np.any(values != np.round(values)) and (values[0] < 0 or values[-1] > 1):
        return cures.as_regression(output)
    if np.array_equal(values, np.arange(len(values))) and len(values) > 2:
        return cures.as_classes(output, len(values))
    return (
        "# no activation: a logit, a score of any size, before the sigmoid\n"
        + ends.linear(output)
        + cures.loss_line(output, "keras_xent.losses.SigmoidCrossentropy()")
    )


def _twice(output, activation):
    expects = output.expects
    one = "sigmoid" if expects.labels == YES_NO else "softmax"
    if expects.outputs == PROBABILITIES:
        where = "The model applies it to what has been through it before"
        cure = ends.with_activation(output, "linear", seen_before(output))
        cure += f"# one {one}, in the last layer only; then compile again"
    else:
        where = f"The loss expects {LOGITS_IN_WORDS} and applies it again"
        cure = ends.with_activation(output, "linear") + "# then compile again"
    if one == "softmax":
        n = output.classes
        bound = float(np.log(1 + (n - 1) / np.e))
        effect = (
            f" Probabilities differ by 1 at most, so with {n} classes the loss "
            f"never falls below {bound:.4g}."
        )
    else:
        effect = " No answer can be surer than sigmoid(0) = 0.5 to "
        effect += "sigmoid(1) = 0.73."
    return output.error(
        "probabilities-as-logits",
        f"{activation.capitalize()} is applied twice. {where}.{effect}",
        {"last activation": activation, **_numbers(output)},
        f"The last layer has activation='{activation}', and the loss "
        "from_logits=True or a loss of keras_xent, which always takes logits."
        if expects.outputs != PROBABILITIES
        else f"A {activation} layer follows one with activation="
        f"'{activation}'.",
        cure,
    )


def _not_probabilities(output, activation):
    rows = _rows(output)
    outside = np.mean((rows < 0) | (rows > 1 + _SUM_ERROR))
    yes_no = output.expects.labels == YES_NO
    one = "sigmoid" if yes_no else "softmax"
    linear = activation == "linear" and not _are_distributions(output)
    seen = {
        "last activation": activation or "none",
        **_numbers(output),
        "share outside [0, 1]": float(outside),
    }
    if not yes_no and activation != "softmax" and _through_softmax(output):
        yield _other_sums(output, activation, seen)
        return
    if not outside and not linear:
        sums = np.abs(rows.sum(axis=-1) - 1)
        if not yes_no and not np.all(sums < _SUM_ERROR):
            yield _other_sums(output, activation, seen)
        return
    name = "Binary" if yes_no else "Categorical"
    if output.expects.labels not in (YES_NO, DISTRIBUTION):
        name = "SparseCategorical"
    cure = f"keras.losses.{name}Crossentropy(from_logits=True)"
    bare = activation in (None, "linear", "log_softmax")
    yield output.error(
        "logits-as-probabilities",
        "The loss expects probabilities, but the outputs are "
        f"{LOGITS_IN_WORDS}. Keras clips them to [0, 1], where they have no "
        "gradient.",
        seen,
        f"The last layer has no {one}, and the loss was not told: from_logits "
        "is False by default."
        if bare
        else f"The last layer has the activation {activation}, which is for "
        f"hidden layers, in place of a {one}.",
        cures.loss_line(output, cure)
        + f"\n# or: keras.layers.Dense({output.classes}, activation='{one}')"
        if bare
        else ends.with_activation(output, one) + "# then compile again",
    )


def _other_sums(output, activation, seen):
    """Outputs in [0, 1] that do not sum to 1 over the classes."""
    axis, severity = _axis_of_softmax(output), ERROR
    cure = "# then compile again"
    if axis is not None:
        along = "the rows of the batch" if axis == 0 else f"axis {axis}"
        cause = f"The softmax runs over {along}, not over the classes, which "
        cause += f"are along axis {output.expects.axis}."
        cure = ends.with_axis(output, output.expects.axis) + cure
    elif _through_softmax(output):
        cause = "Something lies between the softmax and the loss that changes "
        cause += "probabilities, such as Dropout: it belongs before the layer "
        cause += "that has the softmax."
        cure = ends.ending_in_softmax(output) + cure
    else:
        severity = WARNING
        cause = "The classes were given a sigmoid each, as if several could "
        cause += "be true."
        cure = ends.with_activation(output, "softmax") + cure
    return Finding(
        "logits-as-probabilities",
        severity,
        output.where,
        "The loss expects probabilities that sum to 1 over the classes, but "
        "rows of the output sum to something else. Keras divides them by their "
        "sum without a word.",
        seen,
        cause,
        cure,
    )


def _axis_of_softmax(output):
    """The axis over which outputs sum to 1, other than that of the classes."""
    scores, classes = output.y_pred, output.expects.axis % output.y_pred.ndim
    for axis in range(scores.ndim):
        sums = scores.sum(axis=axis)
        if axis != classes and np.all(np.abs(sums - 1) < _SUM_ERROR):
            return axis
    return None


def _through_softmax(output):
    """Whether a softmax comes before what was returned."""
    return any(seen.activation == "softmax" for seen in output.before)
