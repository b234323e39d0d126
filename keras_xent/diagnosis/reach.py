"""Activations at the end that keep outputs from where they have to go."""

import numpy as np

from keras_xent.diagnosis import ends
from keras_xent.diagnosis.activations import (
    NORMALIZING,
    final_activation,
    reach,
    seen_before,
)
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    NUMBERS,
    UNKNOWN,
    YES_NO,
)

# Fewer labels out of reach may be noise, or a few that were scaled by others.
_SHARE = 0.05

# How far, as a share of the spread of the labels, is far enough to matter.
_FAR = 0.01

# As a share of the loss beside it, that of the labels is 0.
_HARDLY = 1e-3

# Logits that stay within so much of each other are never sure of anything:
# sigmoid(-4) is 0.02.
_SURE = 4.0

# They have no gradient over half of all scores.
_DEAD = ("relu", "relu6")


def targets(output):
    """Numbers to be predicted that the last activation cannot give."""
    labels = _finite(output.counted(output.labels, whole=True))
    if labels.size == 0 or output.y_true.size != output.y_pred.size:
        return  # Labels of something else, which `label-format` speaks of.
    if output.expects.labels != NUMBERS and not _is_met_by_labels(output):
        return
    activation = final_activation(output)
    low, high = reach(activation, output.y_pred)
    missed = np.abs(labels - np.clip(labels, low, high))
    far = missed > _FAR * float(np.ptp(labels))
    if not far.any():
        return
    yield Finding(
        "unreachable-targets",
        ERROR if far.mean() >= _SHARE else WARNING,
        output.where,
        f"The last activation, {activation}, gives numbers "
        f"{_interval(low, high)}, but labels lie outside. The model can never "
        "come near them, and where it tries, its gradient vanishes.",
        {
            "last activation": activation,
            "smallest label": float(labels.min()),
            "largest label": float(labels.max()),
            "share out of reach": float(far.mean()),
        },
        "The last layer of a classifier, or of numbers of another range, was "
        "taken for a regression.",
        ends.with_activation(output, "linear") + "# then compile again",
    )


def _is_met_by_labels(output):
    """Whether a loss of the user's own is least where outputs are labels.

    Then it is 0 there, or hardly more where it takes a root of what is hardly
    more, and larger on either side.
    """
    if output.expects.labels != UNKNOWN:
        return False
    labels = output.y_true.astype("float32").reshape(output.y_pred.shape)
    step = float(np.ptp(labels)) or 1.0
    try:
        there = output.compute(labels)
        beside = [output.compute(labels + way * step) for way in (-1, 1)]
    except Exception:
        return False  # It takes nothing but what it was written for.
    return np.abs(there).max() < _HARDLY * min(each.max() for each in beside)


def logits(output):
    """Scores that an activation bounds before softmax or sigmoid."""
    kinds = (CLASS_IDS, DISTRIBUTION, YES_NO)
    if output.expects.labels not in kinds:
        return
    seen = seen_before(output)
    if seen is None or seen.activation in NORMALIZING:
        return
    activation = seen.activation or final_activation(output)
    low, high = reach(activation, seen.sample)
    yes_no = output.expects.labels == YES_NO
    if yes_no:
        bounded = max(low, -high) > -_SURE
    else:
        bounded = high - low < _SURE or activation in _DEAD
    if not bounded:
        return
    yield Finding(
        "bounded-logits",
        ERROR if yes_no or high < np.inf else WARNING,
        output.where,
        f"Scores are {_interval(low, high)} when softmax or sigmoid gets them: "
        f"{activation} cuts them off. {_effect(yes_no, low, high)}",
        {
            "activation of the scores": activation,
            "share of zeros": float(np.mean(seen.sample == 0)),
        },
        f"The layer of the classes has activation='{activation}', as a hidden "
        "layer has.",
        ends.with_activation(output, "linear", seen) + "# then compile again",
    )


def _effect(yes_no, low, high):
    if yes_no:
        least = 1 / (1 + np.exp(-low))
        most = 1 / (1 + np.exp(-high))
        return f"No answer can be below {least:.2g} or above {most:.2g}."
    if high < np.inf:
        return "Classes differ by little, so no answer can be sure."
    return "A class whose score is 0 gets no gradient, and may stay there."


def _interval(low, high):
    if low == -np.inf:
        return f"of {high:.4g} at most"
    if high == np.inf:
        return f"of {low:.4g} at least"
    return f"from {low:.4g} to {high:.4g}"


def _finite(labels):
    labels = labels.astype("float64")
    return labels[np.isfinite(labels)]
