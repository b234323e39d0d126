"""Metrics that take the largest of several scores for the answer."""

import keras
import numpy as np

from keras_xent.diagnosis import cures, ends
from keras_xent.diagnosis.activations import final_activation
from keras_xent.diagnosis.mismatch import argmax_of, called, cure, mismatch
from keras_xent.diagnosis.report import WARNING
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTANCES,
    DISTRIBUTION,
    EMBEDDINGS,
    FEATURES,
    LOGITS,
    NUMBERS,
    UNKNOWN,
    YES_NO,
)

_M = keras.metrics

# More whole numbers, or so few rows of each, may be counts.
_CLASSES = 1000
_PER_CLASS = 4

# They ask for the largest of several scores.
ARGMAX = {
    _M.CategoricalAccuracy: DISTRIBUTION,
    _M.TopKCategoricalAccuracy: DISTRIBUTION,
    _M.SparseCategoricalAccuracy: CLASS_IDS,
    _M.SparseTopKCategoricalAccuracy: CLASS_IDS,
}


def argmax(output, metric):
    kind, n = output.expects.outputs, output.classes
    wanted = ARGMAX[type(metric)]
    if kind in (DISTANCES, EMBEDDINGS, FEATURES):
        yield mismatch(
            output,
            metric,
            f"{type(metric).__name__} takes the largest entry for the class, "
            f"but the outputs are {called(output)}.",
            "The metric of a classifier was given to another kind of model.",
            cure(output, metric),
        )
        return
    if output.expects.is_softmax and output.expects.labels != wanted:
        yield mismatch(
            output,
            metric,
            f"{type(metric).__name__} takes "
            + (
                "class ids, but the labels are one-hot rows."
                if wanted == CLASS_IDS
                else "one-hot rows, but the labels are class ids: it compares "
                "them with the place of the largest of one."
            ),
            "The loss was exchanged, and the metric was not.",
            cures.metrics_line(output, argmax_of(output)),
        )
        return
    if _several_at_once(output):
        yield _of_several(output, metric)
        return
    if output.expects.labels == YES_NO and n == 1:
        yield mismatch(
            output,
            metric,
            f"{type(metric).__name__} takes the largest entry of a row, and "
            "there is one entry: it is always right, or always wrong.",
            "A yes/no answer of one unit was given the metric of classes.",
            _cure_of_one(output),
        )
        return
    k = getattr(metric, "k", None) or metric.get_config().get("k")
    if k is not None and n is not None and n <= k:
        yield mismatch(
            output,
            metric,
            f"The right class is always among the {k} best of {n}: this "
            "metric is always 1.",
            "k is 5 by default.",
            cures.metrics_line(output, cures.again(metric, type(metric), k=1)),
            WARNING,
        )


def _cure_of_one(output):
    logits = output.expects.outputs == LOGITS
    threshold = 0.0 if logits else 0.5
    return cures.metrics_line(
        output, f"keras.metrics.BinaryAccuracy(threshold={threshold})"
    )


def _several_at_once(output):
    """Whether rows of labels are answers that do not exclude each other."""
    labels, scores = output.labels, output.y_pred
    if output.expects.labels not in (YES_NO, NUMBERS, UNKNOWN):
        return False
    if scores.ndim < 2 or labels.shape[1:] != scores.shape[1:]:
        return False
    rows = output.label_rows
    if rows.shape[-1] == 1:
        return False
    flags = bool(np.isin(rows, (0, 1)).all())
    if output.expects.labels == UNKNOWN and not flags:
        return False
    return not flags or not np.all(rows.sum(axis=-1) == 1)


def _of_several(output, metric):
    rows = output.label_rows
    flags = bool(np.isin(rows, (0, 1)).all())
    scores = output.counted(output.y_pred)
    logits = output.expects.outputs == LOGITS or bool(
        np.any((scores < 0) | (scores > 1))
    )
    code = f"keras.metrics.BinaryAccuracy(threshold={0.0 if logits else 0.5})"
    if not flags:
        code = "keras.metrics.MeanAbsoluteError()"
    return mismatch(
        output,
        metric,
        f"{type(metric).__name__} asks whether the largest output of a row is "
        "the largest label, but "
        + (
            "in rows of the labels several answers are yes, or none."
            if flags
            else "the labels are no classes that exclude each other."
        ),
        "metrics=['accuracy'] chooses by the shapes: several columns mean "
        "classes of which one is right."
        if flags
        else "A regression has no accuracy.",
        cures.metrics_line(output, code),
    )


def of_classes_as_numbers(output, metric):
    """An accuracy, asked of numbers: the labels are classes."""
    labels = output.counted(output.labels, whole=True)
    one = output.y_pred.shape[1:] in ((), (1,))
    if output.expects.outputs != NUMBERS or not one:
        return
    values = np.unique(labels)
    if len(values) < 2 or not np.array_equal(values, np.arange(len(values))):
        return
    if len(values) > _CLASSES or len(values) * _PER_CLASS > labels.size:
        return
    if len(values) == 2:
        if final_activation(output) == "sigmoid":
            return  # A classifier all the same.
        loss = "keras_xent.losses.SigmoidCrossentropy()"
        cure = (
            ends.linear(output)
            + cures.loss_line(output, loss)
            + "\n"
            + cures.metrics_line(
                output, "keras.metrics.BinaryAccuracy(threshold=0.0)"
            )
        )
    else:
        cure = cures.as_classes(output, len(values)) + "\n"
        cure += cures.metrics_line(output, "'accuracy'")
    yield mismatch(
        output,
        metric,
        f"{type(metric).__name__} is asked of a regression. The labels are the "
        f"whole numbers 0 to {len(values) - 1}, as class ids are: for a "
        "regression class 2 lies between 1 and 3, and its outputs are no "
        "classes.",
        "Classes were trained as numbers: one unit and the loss of a "
        "regression, where there should be a unit for each class (or one for "
        "yes and no) and a cross-entropy.",
        cure,
    )
