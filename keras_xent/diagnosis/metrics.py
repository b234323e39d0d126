"""Checks whether a metric can be right for the output that it is given."""

import keras
import numpy as np

from keras_xent.diagnosis import cures
from keras_xent.diagnosis.activations import final_activation
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

# More whole numbers, or so few rows of each, may be counts.
_CLASSES = 1000
_PER_CLASS = 4

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
    yield from _counts_left_out(output, metric)
    if kind in _THRESHOLDS or kind in _ARGMAX:
        yield from _of_classes_as_numbers(output, metric)
        yield from _of_distances(output, metric)
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


def _counts_left_out(output, metric):
    """Whether it counts labels that the loss leaves out."""
    kind = type(metric)
    if kind not in _ARGMAX and kind not in _THRESHOLDS:
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
    yield _finding(
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


def _of_classes_as_numbers(output, metric):
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
        linear = final_activation(output) in (None, "linear")
        cure = "" if linear else cures.with_activation(output, "linear")
        loss = "keras_xent.losses.SigmoidCrossentropy()"
        cure += (
            cures.loss_line(output, loss)
            + "\n"
            + cures.metrics_line(
                output, "keras.metrics.BinaryAccuracy(threshold=0.0)"
            )
        )
    else:
        cure = cures.as_classes(output, len(values)) + "\n"
        cure += cures.metrics_line(output, "'accuracy'")
    yield _finding(
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


def _of_distances(output, metric):
    """One score of a loss that nobody knows: where would its threshold lie?"""
    labels, scores = output.y_true, output.y_pred
    if output.expects.outputs != UNKNOWN or scores.shape[1:] not in ((), (1,)):
        return
    if not np.array_equal(np.unique(labels), [0, 1]):
        return
    falls = _falls_with_the_score(output)
    outside = np.any((scores < 0) | (scores > 1))
    if falls is None or (not falls and not outside):
        return
    if not falls and _suits_logits(output, metric) and scores.min() < 0:
        return
    if not falls and _is_even(output) and isinstance(metric, _M.BinaryAccuracy):
        return  # Logits: `_thresholds` has the cure.
    if falls:
        summary = "the loss takes small outputs for a 1, as distances are"
    else:
        summary = "the outputs are scores of another range"
    name = type(metric).__name__
    yield _finding(
        output,
        metric,
        f"{name} takes outputs over a threshold in [0, 1] for a 1, but "
        f"{summary}. Its value says nothing, and may stand at 0.5 for ever.",
        "'accuracy' and the like were written for probabilities. The threshold "
        "of a distance or of another score is taken from the data.",
        _tuned(output, not falls),
    )


def _tuned(output, similarity):
    metrics = f"keras_xent.metrics.MatchAccuracy(similarity={similarity})"
    return (
        f"# At a tuned threshold, {'large' if similarity else 'small'} is a 1. "
        "For one that predict can use:\n# keras_xent.callbacks.TuneThreshold\n"
    ) + cures.metrics_line(output, metrics)


def _falls_with_the_score(output):
    """Whether the loss of a label of 1 is the less the smaller the score.

    None where it does not change, or where the loss does not tell.
    """
    scores = output.y_pred.astype("float32")
    least, most = np.nanmin(scores), np.nanmax(scores)
    if not np.isfinite([least, most]).all() or least == most:
        return None
    small, large = (_loss_at(output, value, 1) for value in (least, most))
    return None if small is None or small == large else small < large


def _is_even(output):
    """Whether a score of 0 is as good for a 1 as for a 0, as of logits."""
    yes, no = (_loss_at(output, 0.0, label) for label in (1, 0))
    return yes is not None and bool(np.isclose(yes, no))


def _loss_at(output, score, label):
    """The loss where all scores and all labels are the same."""
    scores = np.full_like(output.y_pred, score)
    labels = np.full_like(output.y_true, label)
    try:
        return float(np.mean(output.compute(scores, labels)))
    except Exception:
        return None  # Somebody else's loss: `fit` says what it raises.


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
    if _several_at_once(output):
        yield _of_several(output, metric)
        return
    if output.expects.labels == YES_NO and n == 1:
        yield _finding(
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
        yield _finding(
            output,
            metric,
            f"The right class is always among the {k} best of {n}: this "
            "metric is always 1.",
            "k is 5 by default.",
            f"metrics=[keras.metrics.{type(metric).__name__}(k=1)]",
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
    return _finding(
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
