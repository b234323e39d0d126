"""Checks whether a metric can be right for the output that it is given."""

import keras
import numpy as np

from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.diagnosis.report import LOGITS as LOGITS_IN_WORDS
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTANCES,
    DISTRIBUTION,
    EMBEDDINGS,
    FEATURES,
    LOGITS,
    NUMBERS,
    PROBABILITIES,
    UNKNOWN,
    YES_NO,
)

CODES = ("metric-mismatch",)

_M = keras.metrics

# They compare outputs with thresholds in [0, 1].
_THRESHOLDS = (
    _M.AUC,
    _M.BinaryAccuracy,
    _M.BinaryIoU,
    _M.F1Score,
    _M.FalseNegatives,
    _M.FalsePositives,
    _M.FBetaScore,
    _M.Precision,
    _M.PrecisionAtRecall,
    _M.Recall,
    _M.RecallAtPrecision,
    _M.SensitivityAtSpecificity,
    _M.SpecificityAtSensitivity,
    _M.TrueNegatives,
    _M.TruePositives,
)

# They ask for the largest of several scores.
_ARGMAX = {
    _M.CategoricalAccuracy: DISTRIBUTION,
    _M.TopKCategoricalAccuracy: DISTRIBUTION,
    _M.SparseCategoricalAccuracy: CLASS_IDS,
    _M.SparseTopKCategoricalAccuracy: CLASS_IDS,
}

_CROSSENTROPIES = (
    _M.BinaryCrossentropy,
    _M.CategoricalCrossentropy,
    _M.SparseCategoricalCrossentropy,
)

# What an output is called in a sentence.
_IN_WORDS = {
    DISTANCES: "distances (small means alike)",
    EMBEDDINGS: "embeddings, which are compared with each other",
    FEATURES: "features in training: the {head} keeps the classes",
    LOGITS: LOGITS_IN_WORDS,
    NUMBERS: "numbers of any size",
    PROBABILITIES: "probabilities",
    UNKNOWN: "numbers outside [0, 1]",
}


def findings(evidence):
    for output, metric in evidence.metrics:
        found = next(_mismatch(output, metric), None)
        if found:
            yield found


def _mismatch(output, metric):
    kind = type(metric)
    if kind in _CROSSENTROPIES:
        yield from _crossentropy(output, metric)
    elif kind is _M.Accuracy:
        yield from _exact(output, metric)
    elif kind in _THRESHOLDS:
        yield from _thresholds(output, metric)
    elif kind in _ARGMAX:
        yield from _argmax(output, metric)


def _finding(output, metric, summary, cause, cure, severity=ERROR):
    scores = output.y_pred
    return Finding(
        "metric-mismatch",
        severity,
        f"metric {metric.name!r} of {output.where}",
        summary,
        {
            "metric": type(metric).__name__,
            "outputs from": float(scores.min()),
            "to": float(scores.max()),
        },
        cause,
        cure,
    )


def _called(output):
    """What the output is called in a sentence."""
    head = type(output.head).__name__
    return _IN_WORDS[output.expects.outputs].format(head=head)


def _thresholds(output, metric):
    kind = output.expects.outputs
    scores = output.counted(output.y_pred)
    outside = bool(np.any((scores < 0) | (scores > 1)))
    if kind in (LOGITS, UNKNOWN, NUMBERS) and _suits_logits(output, metric):
        return
    wrong = kind in (DISTANCES, EMBEDDINGS, FEATURES, LOGITS)
    if wrong or outside:
        called = _called(output)
        yield _finding(
            output,
            metric,
            f"{type(metric).__name__} compares the output with thresholds in "
            f"[0, 1], but the outputs are {called}. Its value says nothing, "
            "and may stand at 0.5 for ever.",
            "'accuracy' and the like were written for probabilities."
            if kind != NUMBERS
            else "A regression has no accuracy.",
            _cure(output, metric),
        )
        return
    several = output.expects.is_softmax and (output.classes or 0) > 2
    if several and isinstance(metric, _M.BinaryAccuracy):
        yield _finding(
            output,
            metric,
            "BinaryAccuracy counts every class of a row by itself: of "
            f"{output.classes} classes, saying no to all is right in "
            f"{1 - 1 / output.classes:.0%}.",
            "The accuracy of yes/no answers was taken for that of classes.",
            f"metrics=[keras.metrics.{_argmax_name(output)}()]",
            WARNING,
        )


def _suits_logits(output, metric):
    """Whether its thresholds are meant for logits, or it has none."""
    if isinstance(metric, _M.AUC) and metric.get_config()["from_logits"]:
        return True
    if isinstance(metric, _M.FBetaScore) and metric.threshold is None:
        return output.classes > 1  # It takes the largest of a row.
    # `BinaryAccuracy` has one, the others a list.
    thresholds = getattr(
        metric, "threshold", getattr(metric, "thresholds", None)
    )
    # With `top_k` it is lower than every score.
    return thresholds is not None and np.all(np.asarray(thresholds) <= 0)


def _cure(output, metric):
    kind = output.expects.outputs
    if kind == DISTANCES:
        return (
            "# At a tuned threshold; small distances mean alike.\n"
            "metrics=[keras_xent.metrics.MatchAccuracy(similarity=False),\n"
            "         keras_xent.metrics.MatchAUC(similarity=False)]"
        )
    if kind == EMBEDDINGS:
        distance = getattr(output.loss, "distance", None)
        distance = distance if isinstance(distance, str) else "cosine"
        return (
            "metrics=[keras_xent.metrics.MatchAccuracy(\n"
            f"    distance={distance!r})]"
        )
    if kind == FEATURES:
        head = f"keras_xent.layers.{type(output.head).__name__}"
        return f"{head}({output.classes}, metrics=['accuracy'])"
    if kind == NUMBERS:
        return "metrics=[keras.metrics.MeanAbsoluteError()]"
    if output.expects.is_softmax:
        return f"metrics=[keras.metrics.{_argmax_name(output)}()]"
    if isinstance(metric, _M.AUC):
        return "metrics=[keras.metrics.AUC(from_logits=True)]"
    if isinstance(metric, _M.BinaryAccuracy):
        return (
            "metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)]\n"
            "# yes where the score is over 0: sigmoid(0) is 0.5"
        )
    return (
        "keras.layers.Dense(1, activation='sigmoid')  # probabilities, and\n"
        "loss = keras.losses.BinaryCrossentropy()  # a loss of them"
    )


def _argmax_name(output):
    sparse = "Sparse" if output.expects.labels == CLASS_IDS else ""
    return f"{sparse}CategoricalAccuracy"


def _argmax(output, metric):
    kind, n = output.expects.outputs, output.classes
    wanted = _ARGMAX[type(metric)]
    if kind in (DISTANCES, EMBEDDINGS, FEATURES):
        yield _finding(
            output,
            metric,
            f"{type(metric).__name__} takes the largest entry for the class, "
            f"but the outputs are {_called(output)}.",
            "The metric of a classifier was given to another kind of model.",
            _cure(output, metric),
        )
        return
    if output.expects.is_softmax and output.expects.labels != wanted:
        yield _finding(
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
            f"metrics=[keras.metrics.{_argmax_name(output)}()]",
        )
        return
    if output.expects.labels == YES_NO and n == 1:
        yield _finding(
            output,
            metric,
            f"{type(metric).__name__} takes the largest entry of a row, and "
            "there is one entry: it is always right, or always wrong.",
            "A yes/no answer of one unit was given the metric of classes.",
            "metrics=[keras.metrics.BinaryAccuracy()]  # of probabilities",
        )
        return
    k = getattr(metric, "k", None) or metric.get_config().get("k")
    if k is not None and n is not None and n <= k:
        yield _finding(
            output,
            metric,
            f"The right class is always among the {k} best of {n}: this "
            "metric is always 1.",
            "k is 5 by default.",
            f"metrics=[keras.metrics.{type(metric).__name__}(k=1)]",
            WARNING,
        )


def _crossentropy(output, metric):
    kind = output.expects.outputs
    from_logits = metric.get_config().get("from_logits", False)
    given = {LOGITS: True, PROBABILITIES: False}.get(kind, from_logits)
    if given != from_logits:
        yield _finding(
            output,
            metric,
            f"{type(metric).__name__} takes "
            f"{'logits' if from_logits else 'probabilities'}, but the outputs "
            f"are {'logits' if given else 'probabilities'}; logits are scores "
            "of any size, before softmax or sigmoid.",
            "from_logits is False by default, in metrics too.",
            f"keras.metrics.{type(metric).__name__}(from_logits={given})",
        )


def _exact(output, metric):
    scores = output.counted(output.y_pred)
    if not scores.size or np.all(scores == np.round(scores)):
        return
    yield _finding(
        output,
        metric,
        "keras.metrics.Accuracy asks whether outputs equal labels exactly, "
        "which real numbers never do: it stays at 0.",
        "metrics=['accuracy'] chooses the right kind by the shapes; the class "
        "Accuracy does not.",
        "metrics=['accuracy']",
    )
