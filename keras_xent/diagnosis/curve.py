"""What the curve of a loss says: plain numbers in, a sentence out."""

import dataclasses
import math
from collections.abc import Sequence

NOT_LEARNING = "not-learning"
PREDICTS_PRIOR = "predicts-prior"
OVERFITTING = "overfitting"

# Losses within this share of each other are the same.
SAME = 0.02

# Other rows may have other frequencies, and a loss that is lower by this share.
_OTHER_ROWS = 0.1

# A curve is kept as means of equally many steps, at most so many of them.
_MEANS = 240

# A fall within this many of its standard errors is noise, few, because a model
# that has begun to learn should not be told that it does not; and one by less
# than this share leads nowhere in a hundred times as long.
_NOISE, _NO_FALL = 1.5, 0.002

# Epochs at the end of a fit that are compared, and those before them.
_EPOCHS = 3

# Validation has risen if it lies above its lowest value by this share of it,
# and by a share of the loss of knowing nothing, beside which it would not
# matter; training has fallen if it lies below by the first.
_RISEN, _MATTERS = 0.1, 0.05


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a curve says.

    Attributes:
        code: `"not-learning"`, `"predicts-prior"` or `"overfitting"`.
        summary: The same in a sentence.
        evidence: The numbers it was seen by.

    Example:

    >>> from keras_xent.diagnosis.curve import stuck
    >>> print(stuck([2.3] * 100, prior=2.303, blind=2.303).summary)
    Not learning: the loss stays at 2.3, and 2.303 is that of equal \
probabilities for all.
    """

    code: str
    summary: str
    evidence: dict


class Steps:
    """The loss of each step, in little memory: means of 1, 2, 4, ... steps."""

    def __init__(self):
        self.means, self._each, self._open = [], 1, []

    def add(self, loss: float) -> None:
        self._open.append(loss)
        if len(self._open) < self._each:
            return
        self.means.append(math.fsum(self._open) / self._each)
        self._open = []
        if len(self.means) == _MEANS:
            pairs = zip(self.means[::2], self.means[1::2], strict=True)
            self.means = [(a + b) / 2 for a, b in pairs]
            self._each *= 2


def stuck(
    losses: Sequence[float],
    prior: float,
    blind: float,
    validation: float | None = None,
) -> Reading | None:
    """Whether a loss stays at that of one answer for all rows, or above it.

    Args:
        losses: Of the steps, in order; the last two thirds are looked at.
        prior: The loss of the best answer that is the same for all rows.
        blind: That of equal probabilities.
        validation: The loss on other rows now, if there is one.

    Returns:
        `"not-learning"` or `"predicts-prior"`; None if it still falls, or has
        fallen further than that.
    """
    third = len(losses) // 3
    if third < _EPOCHS or not prior > 0:
        return None
    before, last = losses[-2 * third : -third], losses[-third:]
    level = _mean(last)
    if level < prior * (1 - SAME):
        return None
    if validation is not None and validation < prior * (1 - _OTHER_ROWS):
        return None  # Dropout or augmentation hides what has been learned.
    error = math.sqrt((_variance(before) + _variance(last)) / third)
    if _mean(before) - level > max(_NOISE * error, _NO_FALL * prior):
        return None
    numbers = {
        "loss": level,
        "loss of the frequencies": prior,
        "loss of equal probabilities": blind,
    }
    of_blind = abs(level - blind) <= SAME * blind
    if level <= prior * (1 + SAME) and not (
        of_blind and prior >= blind * (1 - SAME)
    ):
        return Reading(
            PREDICTS_PRIOR,
            f"Predicting the prior: the loss stays at {level:.4g}, and "
            f"{prior:.4g} is that of the frequencies of the labels, one answer "
            "for all rows.",
            numbers,
        )
    known = (
        f"and {blind:.4g} is that of equal probabilities for all"
        if of_blind
        else f"above the {prior:.4g} of one answer for all rows"
    )
    return Reading(
        NOT_LEARNING,
        f"Not learning: the loss stays at {level:.4g}, {known}.",
        numbers,
    )


def overfits(
    losses: Sequence[float], validation: Sequence[float], scale: float
) -> Reading | None:
    """Whether validation rises while training falls.

    Args:
        losses: Of the epochs, in order.
        validation: Of the same epochs.
        scale: The loss of a model that knows nothing.
    """
    if len(validation) < 2 * _EPOCHS:
        return None
    best = min(range(len(validation)), key=validation.__getitem__)
    lowest, last = validation[best], validation[-_EPOCHS:]
    before = validation[-2 * _EPOCHS : -_EPOCHS]
    rise = max(_RISEN * abs(lowest), _MATTERS * abs(scale))
    # A moving average that has not arrived yet makes validation rise and fall
    # at the start: it must still rise.
    if min(last) < lowest + rise or _mean(last) <= _mean(before):
        return None
    falls = losses[best] - _mean(losses[-_EPOCHS:])
    if falls < _RISEN / 2 * abs(losses[best]):
        return None
    return Reading(
        OVERFITTING,
        f"Overfitting: the validation loss was lowest in epoch {best + 1}, "
        f"{lowest:.4g}, and has risen to {validation[-1]:.4g}, while the loss "
        f"fell from {losses[best]:.4g} to {losses[-1]:.4g}.",
        {
            "epoch of the lowest validation loss": best + 1,
            "validation loss then": lowest,
            "now": validation[-1],
            "loss then": losses[best],
            "loss now": losses[-1],
        },
    )


def _mean(numbers):
    return math.fsum(numbers) / len(numbers)


def _variance(numbers):
    mean = _mean(numbers)
    return math.fsum((each - mean) ** 2 for each in numbers) / len(numbers)
