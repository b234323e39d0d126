"""The finding that a metric does not suit an output, and one that does."""

import keras

from keras_xent.diagnosis import cures, ends
from keras_xent.diagnosis.report import ERROR, Finding
from keras_xent.diagnosis.report import LOGITS as LOGITS_IN_WORDS
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTANCES,
    EMBEDDINGS,
    FEATURES,
    LOGITS,
    NUMBERS,
    PROBABILITIES,
    UNKNOWN,
)

_M = keras.metrics

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


def mismatch(output, metric, summary, cause, cure, severity=ERROR):
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


def called(output):
    """What the output is called in a sentence."""
    head = type(output.head).__name__
    return _IN_WORDS[output.expects.outputs].format(head=head)


def cure(output, metric):
    kind = output.expects.outputs
    if kind == DISTANCES:
        return (
            "# At a tuned threshold; small distances mean alike.\n"
            + cures.metrics_line(
                output,
                "keras_xent.metrics.MatchAccuracy(similarity=False)",
                "keras_xent.metrics.MatchAUC(similarity=False)",
            )
        )
    if kind == EMBEDDINGS:
        distance = getattr(output.loss, "distance", None)
        distance = distance if isinstance(distance, str) else "cosine"
        return cures.metrics_line(
            output, f"keras_xent.metrics.MatchAccuracy(distance={distance!r})"
        )
    if kind == FEATURES:
        head = f"keras_xent.layers.{type(output.head).__name__}"
        return f"{head}({output.classes}, metrics=['accuracy'])"
    if kind == NUMBERS:
        return cures.metrics_line(output, "keras.metrics.MeanAbsoluteError()")
    if output.expects.is_softmax:
        return cures.metrics_line(output, argmax_of(output))
    if isinstance(metric, _M.AUC):
        return cures.metrics_line(output, "keras.metrics.AUC(from_logits=True)")
    if isinstance(metric, _M.BinaryAccuracy):
        return (
            cures.metrics_line(
                output, "keras.metrics.BinaryAccuracy(threshold=0.0)"
            )
            + "\n# yes where the score is over 0: sigmoid(0) is 0.5"
        )
    return (
        "# probabilities, and a loss of them:\n"
        + ends.with_activation(output, "sigmoid")
        + cures.loss_line(output, "keras.losses.BinaryCrossentropy()")
    )


def argmax_of(output):
    """Code of the accuracy of classes for the labels of an output."""
    sparse = "Sparse" if output.expects.labels == CLASS_IDS else ""
    return f"keras.metrics.{sparse}CategoricalAccuracy()"
