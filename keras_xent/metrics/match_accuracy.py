"""Accuracy of match decisions, at a tuned or at a given threshold."""

import keras
import numpy as np
from keras import ops

from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric
from keras_xent.ops import roc


@keras.saving.register_keras_serializable(package="keras_xent")
class MatchAccuracy(ThresholdMetric):
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
        distance, similarity, mantissa_bits, range, name, dtype: As in
            `ThresholdMetric`. Bins play no part when `threshold` is a number.
        balanced: Whether to give matches and non-matches equal say.

    Shapes:
        As in `ThresholdMetric`. The result is right to 2e-6 (exact counts in,
        whole weights up to 2**36 a bin).

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
        range=None,
        name="match_accuracy",
        dtype=None,
    ):
        if threshold is not None:
            range = None
        super().__init__(
            measures.Accuracy(bool(balanced)),
            distance=distance,
            similarity=similarity,
            mantissa_bits=mantissa_bits,
            range=range,
            name=name,
            dtype=dtype,
            threshold=threshold,
        )
        self.balanced = bool(balanced)

    def result(self):
        masses = self.histogram.masses()
        non_match, match = masses[0], masses[1]
        n, m = roc.total(non_match), roc.total(match)
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
        known = self._known(m, n)
        # Rounding may carry a perfect accuracy past 1.
        return ops.where(known, ops.minimum(best, 1.0), np.nan)

    def bounds(self):
        if self.histogram.split is None:
            return super().bounds()
        return (float(ops.convert_to_numpy(self.result())),) * 2

    def get_config(self):
        return {**super().get_config(), "threshold": self.histogram.split}


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
        total, best = roc.rows(total), roc.rows(best)
        upto = ops.cumsum(total, axis=1)
        best = ops.max(upto - total + best, axis=1)
        total = upto[:, -1]
    return best[0]
