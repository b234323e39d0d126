"""What a model is sure of, beside how often it is right."""

import typing

import keras
import numpy as np
from keras import ops

from keras_xent._types import ClassIds, DType
from keras_xent.metrics.class_rows import ClassMetric
from keras_xent.ops import checks
from keras_xent.ops.segments import segment_sum
from keras_xent.ops.select import where

# Bins of equal mass are put together from bins of the log-odds of the
# confidence, 64 to a unit. Inside one the confidence varies by less than
# 1/256. At 16 it is within 1.2e-7 of 1: float32 ends there.
_PER_UNIT = 64
_LARGEST_LOG_ODDS = 16
FINE_BINS = 2 * _LARGEST_LOG_ODDS * _PER_UNIT

# Fine bins whose masses are added up in one go: 2048 is 32 times 64.
_SUMMED_AT_ONCE = 64

Binning = typing.Literal["equal_width", "equal_mass"]


class Bars(typing.NamedTuple):
    """A reliability diagram in numbers, float64 `[bins]` or `[classes, bins]`.

    Attributes:
        lower, upper: The edges: a confidence p is in a bin if
            lower <= p < upper; 1 is in the last.
        weight: The weight in the bin.
        confidence: The mean confidence in it, NaN if it is empty.
        accuracy: How often that was right, NaN if it is empty.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


@keras.saving.register_keras_serializable(package="keras_xent")
class ReliabilityDiagram(ClassMetric):
    """Confidence beside accuracy, in bins of confidence.

    Of a calibrated model, 80 % of what it says with confidence 0.8 is right.
    The confidence is the largest probability of a row, and right means that
    this is the row's class. With `class_wise` it is the probability of each
    class in turn, and right means that the row is of that class. Where the
    answer is yes or no (one number per row), it is the probability of yes.

    Bins of equal width: bin ⌊p · bins⌋, the last one with 1.

    Bins of equal mass hold as many examples each, as far as that goes. The
    state counts 2048 fine bins, 1/64 of a unit of log-odds log(p / (1 − p))
    wide, and a fine bin goes as a whole to the bin in which the middle of its
    mass lies. So an edge lies off its quantile by half the mass of a fine bin
    at most; sums inside the bins that `bars()` tells are exact for these bins.

    Args:
        bins: The number of bins.
        binning: "equal_width" or "equal_mass".
        class_wise: None for the predicted class alone; or the number of
            classes, to look at the probability of each. With bins of equal
            mass a class takes 48 kB of state.
        from_logits: Whether the predictions are logits. Otherwise they are
            probabilities.
        axis: The axis of the classes.
        ignore_class: A class id, or a list of them: such rows do not count.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        `update_state(y_true, y_pred, sample_weight=None)`: as
        `CrossentropyRate`. Of distributions as `y_true`, the share of a class
        counts as how often it was right. `result()`: a dict of float32
        scalars: the counted `weight`, the `mean_confidence` and the
        `mean_accuracy`. NaN if a prediction, label or weight is impossible.

    Raises:
        ValueError: If an argument, a shape or a dtype is wrong, or a label or
            probability is and this can be seen without reading device memory.
        ImportError: By `plot`, without matplotlib.

    References:
        DeGroot and Fienberg, "The comparison and evaluation of forecasters",
        1983; [Guo et al., 2017](https://arxiv.org/abs/1706.04599).

    Example:

    >>> import numpy as np
    >>> from keras_xent.metrics import ReliabilityDiagram
    >>> diagram = ReliabilityDiagram(bins=2, from_logits=False)
    >>> rain = np.array([0.2, 0.7, 0.8, 1.0], "float32")
    >>> diagram.update_state([0, 1, 1, 1], rain)
    >>> bars = diagram.bars()
    >>> bars.weight.tolist(), bars.accuracy.tolist()
    ([1.0, 3.0], [0.0, 1.0])
    >>> bars.confidence.round(4).tolist()
    [0.2, 0.8333]
    """

    def __init__(
        self,
        *,
        bins: int = 15,
        binning: Binning = "equal_width",
        class_wise: int | None = None,
        from_logits: bool = True,
        axis: int = -1,
        ignore_class: ClassIds = None,
        name: str = "reliability_diagram",
        dtype: DType = None,
    ) -> None:
        checks.whole("bins", bins, 1)
        checks.choice("binning", binning, typing.get_args(Binning))
        if class_wise is not None:
            checks.whole("class_wise", class_wise, 2)
        slots = bins if binning == "equal_width" else FINE_BINS
        shape = ((class_wise or 1) * slots, 3)
        super().__init__(shape, axis, ignore_class, name, dtype, from_logits)
        self._slots = slots
        self.bins = int(bins)
        self.binning = binning
        self.class_wise = None if class_wise is None else int(class_wise)

    def update_state(self, y_true, y_pred, sample_weight=None):
        rows = self.rows(y_true, y_pred, sample_weight)
        confidence, hit, slot = self._questions(rows)
        confidence = ops.cast(confidence, "float32")
        slot = slot + self._slot(confidence)
        parts = [ops.ones_like(confidence), confidence, hit]
        if len(confidence.shape) == 2:
            rows = rows._replace(weight=rows.weight[:, None])
        # NaN, a confidence that is none, must not be lost in any sum.
        known = where(confidence >= 0, ops.ones_like(confidence), np.nan)
        parts = [ops.reshape(rows.weighted(known * x), (-1,)) for x in parts]
        added = segment_sum(
            ops.stack(parts, axis=1),
            ops.reshape(slot, (-1,)),
            (self.class_wise or 1) * self._slots,
        )
        self._sums.update_state(added)

    def _questions(self, rows):
        """What was said with which confidence: confidence, hit, first slot."""
        p = rows.probabilities(self.from_logits)
        if self.class_wise is None and rows.binary:
            return p, ops.cast(rows.targets, "float32"), 0
        if self.class_wise is not None:
            if p.shape[1:] != (self.class_wise,):
                raise ValueError(
                    f"The metric was made for class_wise={self.class_wise} "
                    "classes. The predictions of a row have shape "
                    f"{tuple(p.shape[1:])}."
                )
            first = ops.arange(self.class_wise, dtype="int32") * self._slots
            return p, ops.cast(rows.one_hot(), "float32"), first[None, :]
        chosen = ops.argmax(rows.predictions, axis=1)[:, None]
        confidence = ops.take_along_axis(p, chosen, axis=1)[:, 0]
        if rows.sparse:
            hit = ops.cast(chosen[:, 0], rows.targets.dtype) == rows.targets
        else:
            hit = ops.take_along_axis(rows.targets, chosen, axis=1)[:, 0]
        return confidence, ops.cast(hit, "float32"), 0

    def _slot(self, p):
        if self.binning == "equal_width":
            place = p * self.bins
        else:
            log_odds = ops.log(p) - ops.log1p(-p)
            place = (log_odds + _LARGEST_LOG_ODDS) * _PER_UNIT
        # NaN is no integer, and its weight is NaN already.
        place = where(place >= 0, place, 0.0)
        place = ops.minimum(place, float(self._slots - 1))
        return ops.cast(ops.floor(place), "int32")

    def sums(self):
        """Weight, Σ confidence, Σ hits of each bin, as a traceable tensor.

        Returns:
            Float32 tensor `[classes, bins, 3]`, with one class where they are
            not looked at in turn.
        """
        count = self.class_wise or 1
        sums = self._sums.result()
        if self.binning == "equal_mass":
            first = ops.arange(count, dtype="int32")[:, None] * self.bins
            bins = self._bin_of_slots() + first
            sums = segment_sum(
                sums, ops.reshape(bins, (-1,)), count * self.bins
            )
        return ops.reshape(sums, (count, self.bins, 3))

    def _bin_of_slots(self):
        """The bin of equal mass that each fine bin goes to, `[classes, ·]`."""
        weight = self._sums.result()[:, 0]
        blocks = ops.reshape(
            weight, (-1, FINE_BINS // _SUMMED_AT_ONCE, _SUMMED_AT_ONCE)
        )
        # XLA sums up n numbers in n² steps: better by blocks.
        inside = ops.cumsum(blocks, axis=2)
        before = ops.cumsum(inside[:, :, -1], axis=1)
        total = before[:, -1:, None]
        before = (before - inside[:, :, -1])[:, :, None]
        middle = before + inside - blocks / 2
        total = where(total > 0, total, 1.0)
        place = ops.reshape(middle / total * self.bins, (-1, FINE_BINS))
        place = where(place >= 0, place, 0.0)
        place = ops.minimum(place, float(self.bins - 1))
        return ops.cast(ops.floor(place), "int32")

    def result(self):
        weight, confidence, hits = ops.unstack(
            ops.sum(self._sums.result(), axis=0), 3
        )
        return {
            "weight": weight / (self.class_wise or 1),
            "mean_confidence": confidence / weight,
            "mean_accuracy": hits / weight,
        }

    def bars(self):
        """The diagram in numbers, exact, read on the host: `Bars`."""
        count = self.class_wise or 1
        sums = self._sums.exact().reshape(count, self._slots, 3)
        edges = np.linspace(0, 1, self.bins + 1)
        edges = np.broadcast_to(edges, (count, self.bins + 1))
        if self.binning == "equal_mass":
            # In the order of bins, so that sums add up between their starts.
            bins = ops.convert_to_numpy(self._bin_of_slots())
            numbers = np.arange(self.bins + 1)
            starts = np.stack([np.searchsorted(row, numbers) for row in bins])
            upto = np.pad(sums.cumsum(axis=1), ((0, 0), (1, 0), (0, 0)))
            sums = np.diff(
                np.take_along_axis(upto, starts[:, :, None], axis=1), axis=1
            )
            log_odds = starts / _PER_UNIT - _LARGEST_LOG_ODDS
            edges = 1 / (1 + np.exp(-log_odds))
            edges = np.where(starts == 0, 0.0, edges)
            edges = np.where(starts == FINE_BINS, 1.0, edges)
        weight, confidence, hits = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore"):
            mean, accuracy = confidence / weight, hits / weight
        bars = edges[:, :-1], edges[:, 1:], weight, mean, accuracy
        if self.class_wise is None:
            bars = [part[0] for part in bars]
        return Bars(*bars)

    def plot(self, ax=None, class_id=None):
        """Draws the diagram with matplotlib.

        Args:
            ax: The axes to draw into; None makes a figure.
            class_id: Which class, with `class_wise`.

        Returns:
            The axes.
        """
        from keras_xent.metrics.reliability_plot import draw

        if (self.class_wise is None) != (class_id is None):
            raise ValueError(
                "`class_id` names the class to draw, with `class_wise` and "
                f"only there. Received: class_id={class_id!r}, "
                f"class_wise={self.class_wise!r}"
            )
        bars = self.bars()
        if class_id is not None:
            bars = Bars(*(part[class_id] for part in bars))
        return draw(bars, ax)

    def get_config(self):
        return {
            **super().get_config(),
            "bins": self.bins,
            "binning": self.binning,
            "class_wise": self.class_wise,
            "from_logits": self.from_logits,
        }
