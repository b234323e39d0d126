"""Accuracy of match decisions, at a tuned or at a given threshold."""

import keras
import numpy as np
from keras import ops

from keras_xent.metrics.alignment import all_pairs
from keras_xent.metrics.score_histogram import ScoreHistogram
from keras_xent.ops.distance import name_of, pairwise_distance

# Adding sixteen numbers at a time rounds as little as pairwise summation nearly
# does, in a quarter of its steps.
_SUMMED_AT_ONCE = 16


@keras.saving.register_keras_serializable(package="keras_xent")
class MatchAccuracy(keras.metrics.Metric):
    """Share of pairs that are rightly called match or non-match.

    A pair is called a match iff distance < threshold, or, with
    `similarity=True`, iff similarity >= threshold. With TM and TN the weight of
    pairs rightly called match and non-match, and M and N the weight of all
    matches and all non-matches,

        accuracy          = (TM + TN) / (M + N)
        balanced accuracy = (TM / M + TN / N) / 2

    With `threshold=None` the result is the best accuracy that any threshold
    gives on what the metric has seen, and `metric.threshold` is that threshold.
    Such an accuracy is optimistic: the threshold was chosen to fit the very
    pairs it is measured on. The honest way is to tune on validation data,
    freeze, and measure on test data:

        tuned = MatchAccuracy()
        tuned.update_state(validation_match, validation_distance)
        frozen = MatchAccuracy(threshold=tuned.threshold)
        frozen.update_state(test_match, test_distance)

    Thresholds are tuned over the lower edges of the bins of `ScoreHistogram`,
    from -inf to inf, each a float32 at which the decision is exact: frozen at
    `tuned.threshold`, the accuracy on the same pairs is the same. 7 mantissa
    bits place it to a relative 2**-7 at any scale but the denormal. At the ends
    all finite scores are called alike; a distance of inf never is a match, a
    similarity of inf always. Often a run of neighboring edges is equally good;
    the threshold is the middle one, in the order of bins (between positive
    edges about the geometric mean), of the run that holds the lowest of the
    best edges.

    Args:
        threshold: None to tune it, or the number to compare scores with, in
            float32 whatever the dtype policy.
        distance: None if scores come in. `"symmetric_kl"`, `"euclidean"`,
            `"cosine"`, or a callable from embeddings `[n, d]` to distances
            `[n, n]` if class ids and embeddings come in: then all pairs of a
            batch count, each once, and a pair weighs the product of the weights
            of its rows.
        similarity: Whether large scores mean alike.
        balanced: Whether to give matches and non-matches equal say.
        mantissa_bits: How fine the bins are, as in `ScoreHistogram`. Plays no
            part when `threshold` is a number.
        name: Name of the metric.
        dtype: Dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        `update_state(y_true, y_pred, sample_weight=None)`. Without `distance`:
        `y_true` match flags 1/0 of any dtype, `y_pred` real scores, of one
        shape up to a last axis of 1; `sample_weight` too, or without trailing
        axes. With `distance`: `y_true` class ids `[n]` or `[n, 1]`, integers of
        int32 range or floats that float32 holds exactly; `y_pred` embeddings
        `[n, d]`; `sample_weight` `[n]` or `[n, 1]`. What has weight 0 or is
        masked by Keras does not count, whatever it holds.
        `result()`: float32 scalar, right to 2e-6 (exact counts in, whole
        weights up to 2**36 a bin). NaN if no match or no non-match was counted,
        if a score is NaN (`metric.histogram.result()` says how many), or if a
        flag is neither 0 nor 1 or a weight negative, infinite or NaN.

    Raises:
        ValueError: If an argument or a shape is wrong, or a flag or class id is
            and this can be seen without reading device memory.

    Source: Balanced accuracy as in Brodersen et al., "The balanced accuracy and
    its posterior distribution", ICPR 2010.

    Example:

    >>> from keras_xent.metrics import MatchAccuracy
    >>> tuned = MatchAccuracy()
    >>> float(tuned([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9]))
    1.0
    >>> 0.2 < tuned.threshold < 0.8
    True
    >>> frozen = MatchAccuracy(threshold=0.5)
    >>> float(frozen([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9]))
    0.75
    >>> by_class = MatchAccuracy(distance="euclidean")
    >>> float(by_class([7, 7, 8], [[0.0], [0.1], [5.0]]))
    1.0
    """

    def __init__(
        self,
        threshold=None,
        distance=None,
        similarity=False,
        balanced=False,
        mantissa_bits=7,
        name="match_accuracy",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        distance = name_of(distance)
        if distance is not None:
            self._pairwise = pairwise_distance(distance)
        if similarity and isinstance(distance, str):
            raise ValueError(
                f"distance={distance!r} is small for rows that are alike, so "
                "similarity=True would call the most different rows matches. "
                "Leave similarity=False, or give a callable that returns "
                "similarities."
            )
        self.distance = distance
        self.similarity = bool(similarity)
        self.balanced = bool(balanced)
        self.histogram = ScoreHistogram(mantissa_bits, threshold=threshold)
        self.mantissa_bits = self.histogram.mantissa_bits

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.distance is not None:
            y_true, y_pred, sample_weight = all_pairs(
                y_true, y_pred, sample_weight, self._pairwise
            )
        self.histogram.update_state(y_true, y_pred, sample_weight)

    def result(self):
        masses = self.histogram.masses()
        non_match, match = masses[0], masses[1]
        n, m = _sum(non_match), _sum(match)
        if self.balanced:
            per_match, per_non_match = 0.5 / m, 0.5 / n
        else:
            per_match = per_non_match = 1.0 / (m + n)
        # The accuracy at edge i is that at the lowest edge plus what the bins
        # below edge i gain by changing sides. The last bin is below no edge.
        gain = per_match * match - per_non_match * non_match
        lowest = n * per_non_match
        if self.similarity:
            gain, lowest = -gain, m * per_match
        if self.histogram.split is not None:
            best = lowest + gain[0]
        else:
            best = lowest + largest_prefix_sum(gain[:-1])
        known = ops.logical_and(
            ops.logical_and(m > 0.0, n > 0.0),
            ops.equal(self.histogram.uncounted(), 0.0),
        )
        # Rounding may carry a perfect accuracy past 1.
        return ops.where(known, ops.minimum(best, 1.0), np.nan)

    @property
    def threshold(self):
        """The threshold in use, or the best so far, read on the host.

        A float. NaN while `result()` is NaN and no threshold was given. Worked
        out from the exact counts in float64.
        """
        if self.histogram.split is not None:
            return self.histogram.split
        if np.isnan(ops.convert_to_numpy(self.result())):
            return float("nan")
        non_match, match = self.histogram.counts()
        if self.balanced:
            # Both times m n, so that whole counts stay whole.
            match, non_match = match * non_match.sum(), non_match * match.sum()
        gain = non_match - match if self.similarity else match - non_match
        total = np.concatenate([[0.0], np.cumsum(gain[:-1])])
        best = total == total.max()
        first = int(np.argmax(best))
        worse = np.flatnonzero(~best[first:])
        last = first + int(worse[0]) - 1 if worse.size else best.size - 1
        return float(self.histogram.edges()[(first + last) // 2])

    def merge_state(self, metrics):
        """Adds what other metrics of the same configuration have counted."""
        metrics = list(metrics)
        for other in metrics:
            mine, theirs = (
                {**metric.get_config(), "name": None, "dtype": None}
                for metric in (self, other)
            )
            if mine != theirs:
                raise ValueError(
                    "Metrics can be merged if they are configured alike. "
                    f"Expected {mine}, got {theirs}."
                )
        self.histogram.merge_state([metric.histogram for metric in metrics])

    def get_config(self):
        distance = self.distance
        if distance is not None and not isinstance(distance, str):
            distance = keras.saving.serialize_keras_object(distance)
        return {
            **super().get_config(),
            "threshold": self.histogram.split,
            "distance": distance,
            "similarity": self.similarity,
            "balanced": self.balanced,
            "mantissa_bits": self.mantissa_bits,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config.get("distance"), dict):
            config["distance"] = keras.saving.deserialize_keras_object(
                config["distance"]
            )
        return cls(**config)


def largest_prefix_sum(x):
    """The largest of 0, x_0, x_0 + x_1, ...

    Summed by blocks of blocks, so the error is that of about 60 additions at
    most, not of as many as there are entries.

    Args:
        x: Float tensor `[n]`, n known.

    Returns:
        Scalar tensor of the same dtype. NaN if any entry is.
    """
    total, best = x, ops.maximum(x, 0.0)
    while total.shape[0] > 1:
        total, best = _blocks(total), _blocks(best)
        upto = ops.cumsum(total, axis=1)
        best = ops.max(upto - total + best, axis=1)
        total = upto[:, -1]
    return best[0]


def _sum(x):
    """The sum of all entries, by blocks of blocks as well."""
    while x.shape[0] > 1:
        x = ops.sum(_blocks(x), axis=1)
    return x[0]


def _blocks(x):
    """`x` as rows to sum at once, zeros appended to fill the last one."""
    width = min(_SUMMED_AT_ONCE, x.shape[0])
    return ops.reshape(ops.pad(x, (0, -x.shape[0] % width)), (-1, width))
