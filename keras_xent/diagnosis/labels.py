"""Checks of labels and weights against what the loss expects."""

import numpy as np

from keras_xent.diagnosis import cures, data, ends, shapes
from keras_xent.diagnosis.activations import final_activation
from keras_xent.diagnosis.evidence import NAMED, host
from keras_xent.diagnosis.identities import not_ids
from keras_xent.diagnosis.out_of_range import out_of_range, void_values
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.diagnosis.steps import left_on
from keras_xent.losses.base import RowLoss
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    IDENTITIES,
    LOGITS,
    MATCHES,
    NUMBERS,
    UNKNOWN,
    YES_NO,
)

# Every whole number up to here is exact in this type (IEEE 754: the digits of
# the significand, 8, 11 and 24 bits).
_EXACT = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24}

# Of labels with one class each, more rows without any are no oversight.
_NONE = 0.05


# Which rows have labels that are numbers, as code.
_ONLY_NUMBERS = "good = np.isfinite(np.reshape(y, (len(y), -1))).all(axis=1)"


def findings(evidence):
    for output in evidence.outputs:
        if output.expects.is_softmax and output.classes == 1:
            continue  # `single-class`: it explains what is wrong with labels.
        every = output.counted(output.labels, whole=True)
        some = output.counted(output.y_true)
        if not all(output.known(y).any() for y in (every, some)):
            yield _all_masked(output)
            continue
        check = {
            CLASS_IDS: _class_ids,
            DISTRIBUTION: _distribution,
            YES_NO: _yes_no,
            MATCHES: _matches,
            NUMBERS: shapes.side_by_side,
            IDENTITIES: not_ids,
        }.get(output.expects.labels, shapes.by_value)
        checks = (left_on, check, _softmax_of_several)
        found = next((f for each in checks for f in each(output)), None)
        if found:
            yield found


def not_numbers(x, y, sample_weight):
    """Findings on labels that no tensor can hold, before there are any."""
    for name, leaf in data.named(y, "y"):
        each = host(leaf)
        if each.dtype.kind in "USOMmc":
            boxed = each.dtype.kind in "USO" and data.numbers_in(each)
            holes = each.dtype.kind == "O" and data.numbers_with_holes(each)
            cause, cure = _of_objects(boxed, holes)
            yield Finding(
                "label-format",
                ERROR,
                "labels" if name == "y" else f"labels {name}",
                "The labels are not numbers.",
                {"dtype": str(each.dtype), "first label": each.flat[0]},
                cause,
                data.cure_of_labels(cure, name, x, y, sample_weight),
            )


def _of_objects(boxed, holes):
    """The cause and the cure."""
    cause = "Numbers lie in an array of Python objects or of text, as a column "
    cause += "of a table does that once held something else."
    if boxed:
        return cause, "y = y.astype('float32')"
    if holes:
        return "Numbers, and None where one is missing.", (
            "y = y.astype('float32')  # None becomes NaN\n"
            f"{_ONLY_NUMBERS}\n{data.GOOD_ROWS}"
        )
    return (
        "Names of classes were passed as they are.",
        "names, y = np.unique(y, return_inverse=True)  # 0, 1, 2",
    )


def _all_masked(output):
    return output.error(
        "all-masked",
        "No row counts: sample weights, masks or ignore_class remove "
        "everything. The loss is 0 or NaN, and nothing is learned.",
        {
            "rows": len(output.y_true),
            "rows left by the weights": _left(output.weight, output.y_true),
            "entries left by the mask": _left(output.mask, output.y_true),
            "ignored classes": list(output.expects.ignored),
        },
        "sample_weight is 0 everywhere, mask_zero / Masking takes every entry "
        "for padding, or every label is one that ignore_class leaves out.",
        _cure_of_masked(output),
    )


def _cure_of_masked(output):
    if output.weight is not None and not np.any(output.weight):
        return "sample_weight = None  # or weights of which some are not 0"
    if output.mask is not None and not np.any(output.mask):
        return "# a mask value that only padding has; for mask_zero it is 0"
    return cures.changed_loss(output, ignore_class=None)


def _left(weight, rows):
    return len(rows) if weight is None else int(np.count_nonzero(weight))


def _class_ids(output):
    """Class ids: one whole number in [0, classes) for each row of scores."""
    labels, n = output.labels, output.classes
    axis = output.expects.axis
    rows = np.delete(output.y_pred.shape, axis if output.y_pred.ndim else ())
    fits = labels.ndim == len(rows) or (
        labels.ndim == len(rows) + 1 and labels.shape[axis] == 1
    )
    if not fits:
        yield _one_hot_for_ids(output)
        return
    counted = output.counted(labels, whole=True).reshape(-1)
    if np.isnan(counted).any():
        yield output.error(
            "label-format",
            "The loss takes class ids, whole numbers, but labels are NaN.",
            {"labels": counted.size, "NaN": int(np.isnan(counted).sum())},
            "Labels are missing.",
            f"{_ONLY_NUMBERS}\n{data.GOOD_ROWS}",
        )
        return
    if not np.all(counted == np.floor(counted)):
        yield output.error(
            "label-format",
            "The loss takes class ids, but the labels are not whole numbers.",
            {"a label": float(counted[counted != np.floor(counted)][0])},
            "These are probabilities or measurements, not numbers of classes.",
            "# measurements, one number for a row:\n"
            + cures.as_regression(output),
        )
        return
    # First, because what was rounded up may lie outside.
    yield from _precision(output, counted)
    wrong = (counted < 0) | (counted >= n)
    wrong &= ~np.isin(counted, output.expects.ignored)
    if wrong.any():
        yield out_of_range(output, counted, wrong)


def _one_hot_for_ids(output):
    labels, n = output.labels, output.classes
    one_hot = labels.shape[-1] == n
    return output.error(
        "label-format",
        "The loss takes class ids, one whole number per row, but the labels "
        + (
            "are one-hot rows, one column per class."
            if one_hot
            else "have another shape."
        ),
        {"shape of the labels": labels.shape, "classes": n},
        "to_categorical or one_hot was applied to labels of a sparse loss."
        if one_hot
        else "Labels and outputs come from different tasks.",
        "y = np.argmax(y, axis=-1)\n"
        "# or keep y, and take another loss:\n"
        + ends.as_comment(cures.loss_of(DISTRIBUTION, output))
        if one_hot
        else f"assert y.shape == {output.y_pred.shape[:-1]}",
    )


def _precision(output, labels):
    """Whether a float type on the way to the loss can hold the labels."""
    types = {output.label_dtype: "the labels are of this type"}
    if not isinstance(output.loss, RowLoss):
        types[output.loss.dtype] = "Keras casts labels to the loss's dtype"
    for dtype, why in types.items():
        limit = _EXACT.get(dtype)
        if limit is None or output.classes - 1 <= limit:
            continue
        yield output.error(
            "label-precision",
            f"{dtype} holds whole numbers exactly only up to {limit}: class "
            f"{limit + 1} is trained as class {limit}.",
            {
                "classes": output.classes,
                "dtype": dtype,
                "labels above": int(np.sum(labels > limit)),
            },
            f"{why[0].upper()}{why[1:]}.",
            "y = keras.ops.cast(y, 'int32')  # before it becomes a float\n"
            "# a loss that leaves labels integers in every precision:\n"
            + cures.from_logits(output),
        )
        return


def _distribution(output):
    if output.labels.shape[1:] != output.y_pred.shape[1:]:
        yield _not_one_hot(output)
        return
    labels = output.label_rows.astype("float64")
    sums = labels.sum(axis=-1)
    off = (np.abs(sums - 1) > cures.SUM_ERROR) | (labels < 0).any(axis=-1)
    if not off.any():
        return
    several = np.isin(labels, (0, 1)).all() and sums.max() > 1
    empty = np.all(labels[off] == 0)
    yield Finding(
        "targets-not-distribution",
        WARNING if empty else ERROR,
        output.where,
        "The loss takes a distribution over the classes in each row, numbers "
        "from 0 that sum to 1, but rows of the targets sum to something else.",
        {
            "rows": len(sums),
            "rows that are no distribution": int(off.sum()),
            "sums from": float(sums.min()),
            "to": float(sums.max()),
            "smallest entry": float(labels.min()),
        },
        "Rows of zeros: no class was marked."
        if empty
        else "Several classes may be true at once (multi-label)."
        if several
        else "Logits, scores of any size, were passed, as of a teacher."
        if labels.min() < 0
        else "Counts, percentages or scores were passed as they are.",
        "sample_weight = (y.sum(axis=-1) > 0).astype('float32')"
        if empty
        else cures.loss_of(YES_NO, output) + "  # yes/no each"
        if several
        else (
            "y = np.exp(y - y.max(axis=-1, keepdims=True))\n"
            if labels.min() < 0
            else ""
        )
        + "y = y / y.sum(axis=-1, keepdims=True)",
    )


def _not_one_hot(output):
    labels, n = output.labels, output.classes
    rows = output.y_pred.ndim - 1
    ids = labels.ndim == rows or labels.shape[rows:] == (1,)
    return output.error(
        "label-format",
        "The loss takes one-hot rows, one column per class, but the labels "
        + ("are class ids." if ids else "have another shape."),
        {"shape of the labels": labels.shape, "classes": n},
        "A loss for one-hot labels was given the labels of a sparse loss."
        if ids
        else "The last layer has another number of units than there are "
        "classes.",
        cures.loss_of(CLASS_IDS, output)
        + f"  # from ids\n# or: y = keras.utils.to_categorical(y, {n})"
        if ids
        else ends.with_units(output, labels.shape[-1]),
    )


def _yes_no(output):
    if found := next(shapes.side_by_side(output), None):
        yield found
        return
    labels = output.counted(output.labels, whole=True).astype("float64")
    labels = labels[output.known(labels)]
    low, high = float(labels.min()), float(labels.max())
    if not np.any((labels < 0) | (labels > 1)):
        return  # NaN makes the loss NaN: `nonfinite-gradient`.
    cause, cure = _outside_of_yes_no(output, labels)
    yield output.error(
        "targets-not-distribution",
        "The loss takes yes (1), no (0) or a probability between, but labels "
        "lie outside [0, 1]: the loss then has no lower bound, and goes to "
        "minus infinity.",
        {"smallest label": low, "largest label": high},
        cause,
        cure,
    )


def _outside_of_yes_no(output, labels):
    """The cause and the cure of labels beyond 0 and 1."""
    values = set(np.unique(labels).tolist())
    low, high = min(values), max(values)
    whole = np.all(labels == np.round(labels))
    void = void_values(values - {0, 1}) if len(values) < NAMED else []
    if values <= {-1, 1}:
        return "The labels are -1 and 1.", "y = (y + 1) / 2"
    if values <= {1, 2}:
        return "The labels are 1 and 2.", "y = y - 1"
    if low >= 0 and high == 255 and 1 not in values:
        return "Pixels of 8 bits were not scaled.", "y = y / 255"
    if void and values == {0, 1, *void}:
        return "A number marks what is not known, and the loss does not.", (
            cures.leaving_out(output, [int(value) for value in void])
        )
    if low >= 0 and high == 255:
        return "Pixels of 8 bits were not scaled.", "y = y / 255"
    if whole and low >= 0:
        cause = "These are class ids: there are more than two classes."
        return cause, cures.as_classes(output, int(high) + 1)
    cause = "These are measurements, not yes or no."
    return cause, ends.linear(output) + cures.loss_line(output, "'mse'")


def _softmax_of_several(output):
    """A softmax where several classes of a row are true, or none."""
    labels, n = output.labels, output.y_pred.shape[-1]
    if output.expects.labels not in (YES_NO, NUMBERS, UNKNOWN) or n < 2:
        return
    if labels.shape[1:] != output.y_pred.shape[1:]:
        return
    if output.expects.outputs == LOGITS:
        return  # `probabilities-as-logits`, whose cure mends both.
    rows = output.label_rows
    sums = rows[np.isin(rows, (0, 1)).all(axis=-1)].sum(axis=-1)
    several, none = np.sum(sums > 1), np.sum(sums == 0)
    if len(sums) < len(rows) or (not several and none < _NONE * len(rows)):
        return
    if final_activation(output) != "softmax":
        return
    yield output.error(
        "targets-not-distribution",
        "The last activation is a softmax, which shares a probability of 1 "
        "among the classes of a row, but in rows of the labels several are "
        "true, or none: the outputs can never be right.",
        {
            "rows": len(sums),
            "rows with several": int(several),
            "rows with none": int(none),
        },
        "Several classes may be true at once (multi-label), each a question "
        "of its own: a sigmoid for each.",
        ends.with_activation(output, "sigmoid")
        + cures.loss_line(output, "keras.losses.BinaryCrossentropy()"),
    )


def _matches(output):
    if found := next(shapes.side_by_side(output), None):
        yield found
        return
    labels = output.counted(output.labels, whole=True)
    if not np.isin(labels, (0, 1)).all():
        signs = np.isin(labels, (-1, 1)).all()
        yield output.error(
            "label-format",
            "The loss takes match flags, 1 for a pair that is alike and 0 for "
            "one that is not, but labels are neither.",
            {"labels": [float(v) for v in np.unique(labels)[:NAMED]]},
            "Flags of -1 and 1 were passed."
            if signs
            else "Class ids were passed.",
            "y = (y + 1) // 2"
            if signs
            else "# of the class ids of both:\n# y = first_id == second_id",
        )
