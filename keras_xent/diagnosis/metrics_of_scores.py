"""Metrics that compare outputs with thresholds: which range are these of?"""

import keras
import numpy as np

from keras_xent.diagnosis import cures
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
    PROBABILITIES,
    UNKNOWN,
)

_M = keras.metrics

# They compare outputs with thresholds in [0, 1].
THRESHOLDS = (
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

_RAISE = tuple(each for each in THRESHOLDS if each is not _M.BinaryAccuracy)


def thresholds(output, metric):
    kind = output.expects.outputs
    scores = output.counted(output.y_pred)
    outside = bool(np.any((scores < 0) | (scores > 1)))
    if kind in (LOGITS, UNKNOWN, NUMBERS) and _suits_logits(output, metric):
        return
    wrong = kind in (DISTANCES, EMBEDDINGS, FEATURES, LOGITS)
    if wrong or outside:
        name = called(output)
        yield mismatch(
            output,
            metric,
            f"{type(metric).__name__} compares the output with thresholds in "
            f"[0, 1], but the outputs are {name}. Its value says nothing, "
            "and may stand at 0.5 for ever.",
            "'accuracy' and the like were written for probabilities."
            if kind != NUMBERS
            else "A regression has no accuracy.",
            cure(output, metric),
        )
        return
    several = output.expects.is_softmax and (output.classes or 0) > 2
    if several and isinstance(metric, _M.BinaryAccuracy):
        yield mismatch(
            output,
            metric,
            "BinaryAccuracy counts every class of a row by itself: of "
            f"{output.classes} classes, saying no to all is right in "
            f"{1 - 1 / output.classes:.0%}.",
            "The accuracy of yes/no answers was taken for that of classes.",
            cures.metrics_line(output, argmax_of(output)),
            WARNING,
        )


def of_class_ids(output, metric):
    """Class ids, where each class of a row is a question of yes or no."""
    kind = output.expects
    if kind.labels != CLASS_IDS or kind.outputs not in (LOGITS, PROBABILITIES):
        return
    # `BinaryAccuracy` compares them without a word: `thresholds`.
    if output.classes < 2 or type(metric) not in _RAISE:
        return
    name = type(metric).__name__
    kept = cures.again(metric, type(metric))
    if kind.outputs == LOGITS:
        kept = "keras.metrics.F1Score(average='macro')"
    yield mismatch(
        output,
        metric,
        f"{name} takes a yes or no for each of the {output.classes} classes, "
        "but the labels are class ids, one number for a row: fit raises, for "
        "their shapes do not fit.",
        f"{name} is a metric of yes/no answers; of classes it takes one-hot "
        "rows.",
        f"y = keras.utils.to_categorical(y, {output.classes})\n"
        + cures.loss_of(DISTRIBUTION, output)
        + "\n"
        + cures.metrics_line(output, kept),
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


def of_distances(output, metric):
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
        return  # Logits: `thresholds` has the cure.
    if falls:
        summary = "the loss takes small outputs for a 1, as distances are"
    else:
        summary = "the outputs are scores of another range"
    name = type(metric).__name__
    yield mismatch(
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
