"""What all metrics share that are functions of two histograms of scores."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.metrics.alignment import all_pairs, flat_entries
from keras_xent.metrics.merging import checked_alike
from keras_xent.metrics.score_histogram import (
    ScoreHistogram,
    only_zeros_and_ones,
)
from keras_xent.ops import checks
from keras_xent.ops.direction import is_similarity
from keras_xent.ops.distance import (
    loaded,
    name_of,
    pairwise_distance,
    saved,
)
from keras_xent.ops.roc import Alikeness, Curve
from keras_xent.ops.select import where


class ErrorRates(NamedTuple):
    """Error rates at rising thresholds, NumPy arrays of one length."""

    threshold: np.ndarray
    false_non_match: np.ndarray
    false_match: np.ndarray


class ThresholdMetric(keras.metrics.Metric):
    """A figure of merit of scores that a threshold turns into decisions.

    What the public classes share. The state is one `ScoreHistogram`: it takes
    scores of any range, does not grow, and adds up over updates, devices and
    `merge_state`. Class ids are integers of int32 range, or floats that float32
    holds exactly.

    Args:
        measure: A `Measure`: what is made of the histograms.
        threshold: None, or the number the scores are compared with; then there
            are two bins.
        distance, across_replicas, similarity, resolution, range, name, dtype:
            What the public classes say of them.

    Raises:
        ValueError: If an argument or a shape is wrong, or a flag or class id is
            and this can be seen without reading device memory.
    """

    def __init__(
        self,
        measure,
        *,
        distance=None,
        across_replicas=False,
        similarity=None,
        resolution=7,
        range=None,
        name=None,
        dtype=None,
        threshold=None,
    ):
        super().__init__(name=name, dtype=dtype)
        _keras.set_direction(self, measure.direction)
        distance = name_of(distance)
        if distance is not None:
            pairwise_distance(distance)  # An unknown one is an error at once.
        self._measure = measure
        self.distance = distance
        self.across_replicas = checks.flag("across_replicas", across_replicas)
        self.similarity = is_similarity(similarity, distance)
        self.histogram = ScoreHistogram(
            resolution=resolution, threshold=threshold, range=range
        )
        self.resolution = self.histogram.resolution
        self.range = self.histogram.range

    def update_state(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike = None,
    ) -> None:
        """Counts a batch of scores, or all pairs of a batch of embeddings."""
        if self.distance is None:
            self.histogram.update_state(y_true, y_pred, sample_weight)
            return
        entries = flat_entries(
            *all_pairs(
                y_true,
                y_pred,
                sample_weight,
                self.distance,
                across_replicas=self.across_replicas,
            )
        )
        self.histogram.add_entries(
            *entries, zero_one=only_zeros_and_ones(sample_weight)
        )

    def result(self) -> Tensor:
        """The figure, a float32 scalar."""
        return self._values(lambda of: of(self._measure))

    def _values(self, each):
        """What `each` makes of a function from a measure to its figure.

        The figure is NaN where one kind is missing or something cannot count.
        Weights whose sum float32 does not hold cannot.

        On the host where the counts are there: one operation after the other, a
        step of `MatchAUC` took 19 ms on JAX and 53 on TensorFlow, by NumPy it
        takes 10 and 17 (benchmarks/metrics.py --kinds step).
        """
        if self.histogram.is_on_host():
            exact = self._exact_curve()
            return each(lambda measure: self._value_on_host(measure, exact))
        masses, uncounted = self.histogram.sums()
        curve = self._curve_of(masses, ops)
        matches, non_matches = curve.matches, curve.non_matches
        both = ops.minimum(matches, non_matches) > 0.0
        held = matches + non_matches < np.inf
        known = both & held & ops.equal(ops.sum(uncounted), 0.0)
        return each(lambda measure: where(known, measure.value(curve), np.nan))

    @staticmethod
    def _value_on_host(measure, curve):
        """The figure as a tensor; NaN where there is no curve."""
        found = np.nan
        if curve is not None:
            # As tensors do: NaN and infinity without a word.
            with np.errstate(all="ignore"):
                found = measure.value(curve)
        return ops.convert_to_tensor(found, "float32")

    @property
    def threshold(self) -> float:
        """The threshold that is given or that the result implies.

        A float, read on the host and worked out from exact counts in float64.
        NaN while `result()` is NaN and no threshold was given. Where a run of
        neighboring edges of bins is equally good, the middle one, of the run
        that holds the lowest of the best edges.
        """
        if self.histogram.split is not None:
            return self.histogram.split
        return self._threshold_of(self._measure, self._exact_curve())

    def _threshold_of(self, measure, curve):
        if curve is None:
            return float("nan")
        alike = measure.threshold(curve)
        if alike is not None:
            return float(alike if self.similarity else 0.0 - alike)
        best = self._by_edge(measure.badness(curve))
        best = best == best.min()
        first = int(np.argmax(best))
        worse = np.flatnonzero(~best[first:])
        last = first + int(worse[0]) - 1 if worse.size else best.size - 1
        return float(self.histogram.edges()[(first + last) // 2])

    def bounds(self) -> tuple[float, float]:
        """What exact scores, without bins, may give at least and at most.

        The result lies between the two as well, up to the rounding of float32.
        Within a bin the order of matches and non-matches is not known, nor is
        the place of a score: the bounds are those of the best and of the worst
        case. Both are NaN while `result()` is.

        Returns:
            Two floats, worked out on the host from exact counts in float64.
        """
        return self._bounds_of(self._measure, self._exact_curve())

    @staticmethod
    def _bounds_of(measure, curve):
        if curve is None:
            return float("nan"), float("nan")
        return measure.bounds(curve)

    def curve(self) -> ErrorRates:
        """Both error rates at all thresholds where one of them changes.

        Returns:
            `ErrorRates(threshold, false_non_match, false_match)`, float64 NumPy
            arrays, the thresholds rising, from exact counts. Of a run of
            neighboring edges of bins with the same rates, the highest stands
            for all.

        Raises:
            ValueError: If there is not at least one match and one non-match.
        """
        curve = self._exact_curve()
        if curve is None:
            seen = {k: float(v) for k, v in self.histogram.result().items()}
            raise ValueError(
                f"{self.name} has no curve: it takes at least one match and "
                f"one non-match, and no NaN. Received: {seen}"
            )
        rates = [
            self._by_edge(rate)
            for rate in (curve.false_non_match, curve.false_match)
        ]
        moves = (np.diff(rates[0]) != 0) | (np.diff(rates[1]) != 0)
        keep = np.append(moves, True)
        edges = self.histogram.edges().astype("float64")
        return ErrorRates(edges[keep], *(rate[keep] for rate in rates))

    def plot(self, kind: str, *, ax: Any = None) -> Any:
        """Draws the error rates, with the threshold marked.

        The threshold is the one that is reported at, or else that of the
        metric. Where the scores and costs are drawn, one that lies outside of
        the picture stands at its edge, with a note.

        Args:
            kind: `"det"`, both errors on normal deviates; `"roc"`, the true
                matches over the false ones; `"histogram"`, where the scores of
                both kinds lie; or `"cost"`, the errors and the detection cost
                over the threshold, with the least cost marked.
            ax: Axes of matplotlib, or None for new ones.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib or scikit-learn is not installed.
            ValueError: If `kind` is another, or there is not at least one match
                and one non-match.
        """
        from keras_xent.metrics import plots

        return plots.plot(self, kind, ax)

    def merge_state(self, metrics: Iterable["ThresholdMetric"]) -> None:
        """Adds what other metrics of the same configuration have counted."""
        self.histogram.merge_state(
            [m.histogram for m in checked_alike(self, metrics)]
        )

    def get_config(self):
        bins = {"resolution": self.resolution, "range": self.range}
        if self.histogram.split is not None:
            bins = {"threshold": self.histogram.split}
        return {
            **super().get_config(),
            **self._own_config(),
            "distance": saved(self.distance),
            "across_replicas": self.across_replicas,
            "similarity": self.similarity,
            **bins,
        }

    def _own_config(self):
        return dataclasses.asdict(self._measure)

    @classmethod
    def from_config(cls, config):
        return cls(**loaded(config))

    def _exact_curve(self):
        """The curve of exact counts, in float64 on the host.

        None where a kind is missing or something cannot be counted.
        """
        masses, uncounted = self.histogram.exact_sums()
        counts = masses.sum(axis=1)
        held = counts.sum() < np.finfo("float32").max
        if not (np.all(counts > 0) and held and np.all(uncounted == 0)):
            return None
        return self._curve_of(masses, np)

    def _curve_of(self, weights, xp):
        """The curve of a histogram, bins from the most alike on."""
        if self.similarity:
            weights = xp.flip(weights, axis=1)

        def alike():
            parts = self._alikeness()
            if xp is np:
                return parts
            return Alikeness(
                *(ops.convert_to_tensor(part, "float32") for part in parts)
            )

        non_match, match = weights if xp is np else ops.unstack(weights, 2)
        return Curve(non_match, match, xp, alike, self._ends())

    def _ends(self):
        """The first and the last point of the curve that a threshold gives.

        Nothing calls an infinite distance a match, or an infinite similarity a
        non-match.
        """
        if self.histogram.split is not None:
            return 1, 1
        bins = self.histogram.bins
        return (1, bins) if self.similarity else (0, bins - 1)

    def _alikeness(self):
        low = self.histogram.edges().astype("float64")
        high = np.append(low[1:], np.inf)
        middle = 0.5 * low + 0.5 * high
        if self.range is not None:
            # Open ends: where their scores lie is not known.
            middle[[0, -2]] = np.nan
        if self.similarity:
            return Alikeness(low[::-1], middle[::-1], high[::-1])
        return Alikeness(-high, -middle, -low)

    def _by_edge(self, by_point):
        """One number for each lower edge of a bin, out of one for each point.

        The points that are no threshold, see `_ends`, are left out.
        """
        return by_point[:0:-1] if self.similarity else by_point[:-1]
