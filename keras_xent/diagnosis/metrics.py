"""Checks whether a metric can be right for the output that it is given."""

import dataclasses

import keras
import numpy as np

from keras_xent.diagnosis import cures
from keras_xent.diagnosis.metrics_of_classes import (
    ARGMAX,
    argmax,
    of_classes_as_numbers,
)
from keras_xent.diagnosis.metrics_of_scores import (
    THRESHOLDS,
    of_class_ids,
    of_distances,
    thresholds,
)
from keras_xent.diagnosis.mismatch import mismatch
from keras_xent.diagnosis.report import WARNING
from keras_xent.losses.kinds import (
    LOGITS,
    PROBABILITIES,
)

_M = keras.metrics

_CROSSENTROPIES = (
    _M.BinaryCrossentropy,
    _M.CategoricalCrossentropy,
    _M.SparseCategoricalCrossentropy,
)


def findings(evidence):
    said = set()
    for output, metric in evidence.metrics:
        found = next(_mismatch(output, metric), None)
        if found and found.cure in said:  # Done once, it mends both.
            yield dataclasses.replace(found, cure="# as above")
        elif found:
            said.add(found.cure)
            yield found


def _mismatch(output, metric):
    kind = type(metric)
    yield from _counts_left_out(output, metric)
    if kind in THRESHOLDS or kind in ARGMAX:
        yield from of_classes_as_numbers(output, metric)
        yield from of_distances(output, metric)
        yield from of_class_ids(output, metric)
    if kind in _CROSSENTROPIES:
        yield from _crossentropy(output, metric)
    elif kind is _M.Accuracy:
        yield from _exact(output, metric)
    elif kind in THRESHOLDS:
        yield from thresholds(output, metric)
    elif kind in ARGMAX:
        yield from argmax(output, metric)


def _counts_left_out(output, metric):
    """Whether it counts labels that the loss leaves out."""
    kind = type(metric)
    if kind not in ARGMAX and kind not in THRESHOLDS:
        return
    labels = output.counted(output.labels, whole=True)
    left_out = np.mean(~output.known(labels)) if labels.size else 0.0
    if not left_out:
        return
    ignored = list(output.expects.ignored)
    value = (
        f"y != {ignored[0]}"
        if len(ignored) == 1
        else (f"~np.isin(y, {ignored})")
    )
    yield mismatch(
        output,
        metric,
        f"{left_out:.0%} of the labels are {ignored}, which the loss leaves "
        f"out; {kind.__name__} counts each of them as a wrong answer.",
        "Keras's metrics of classes have no ignore_class; they see weights, "
        "and only as weighted_metrics.",
        f"sample_weight = ({value}).astype('float32')  # for fit, evaluate\n"
        "model.compile(model.optimizer, model.loss,\n"
        f"              weighted_metrics=[{metric.name!r}])",
        WARNING,
    )


def _crossentropy(output, metric):
    kind = output.expects.outputs
    from_logits = metric.get_config().get("from_logits", False)
    given = {LOGITS: True, PROBABILITIES: False}.get(kind, from_logits)
    if given != from_logits:
        yield mismatch(
            output,
            metric,
            f"{type(metric).__name__} takes "
            f"{'logits' if from_logits else 'probabilities'}, but the outputs "
            f"are {'logits' if given else 'probabilities'}; logits are scores "
            "of any size, before softmax or sigmoid.",
            "from_logits is False by default, in metrics too.",
            cures.metrics_line(
                output,
                cures.again(metric, type(metric), from_logits=given),
            ),
        )


def _exact(output, metric):
    scores = output.counted(output.y_pred)
    if not scores.size or np.all(scores == np.round(scores)):
        return
    yield mismatch(
        output,
        metric,
        "keras.metrics.Accuracy asks whether outputs equal labels exactly, "
        "which real numbers never do: it stays at 0.",
        "metrics=['accuracy'] chooses the right kind by the shapes; the class "
        "Accuracy does not.",
        cures.metrics_line(output, "'accuracy'"),
    )
