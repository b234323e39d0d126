"""Accuracy of match decisions, at a tuned or at a given threshold."""

import keras

from keras_xent._types import Distance, DType
from keras_xent.metrics import measures
from keras_xent.metrics.score_histogram import checked_range
from keras_xent.metrics.threshold_metric import ThresholdMetric
from keras_xent.ops import checks


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

        tuned = MatchAccuracy(similarity=False)
        tuned.update_state(validation_match, validation_distance)
        frozen = MatchAccuracy(threshold=tuned.threshold, similarity=False)
        frozen.update_state(test_match, test_distance)

    Thresholds are tuned over the lower edges of the bins of `ScoreHistogram`,
    from -inf to inf, each a float32 at which the decision is exact: frozen at
    `tuned.threshold`, the accuracy on the same pairs is the same. A resolution
    of 7 places it to a relative 2^-7 at any scale but the denormal. At the ends
    all finite scores are called alike; a distance of inf never is a match, a
    similarity of inf always. Often a run of neighboring edges is equally good;
    the threshold is the middle one, in the order of bins (between positive
    edges about the geometric mean), of the run that holds the lowest of the
    best edges.

    Args:
        threshold: `None` to tune it, or the number to compare scores with, in
            float32 whatever the dtype policy. Then bins play no part.
        balanced: Whether to give matches and non-matches equal say.
        distance: `None` if scores come in. If class ids and embeddings do:
            `"symmetric_kl"` (of logits), `"euclidean"`, `"cosine"`, or a
            callable from embeddings `[n, d]` to scores `[n, n]`. Then all pairs
            of a batch count, each once, and a pair weighs the product of the
            weights of its rows.
        across_replicas: Whether, with a `distance`, the rows of all replicas
            are compared with each other, each pair once: TensorFlow's replicas,
            PyTorch's processes. Otherwise each compares its own. On JAX a batch
            is one, however many devices hold it.
        similarity: True if large scores mean alike, as cosines and logits do;
            False if small ones do, as distances. It has no default where scores
            come in or a callable makes them; a `distance` with a name is known
            to be small for what is alike.
        resolution: How fine the bins are, a whole number from 0 to 12: each is
            2^-resolution wide relative to its scores. Finer bins bring the
            `bounds` together; every step doubles memory and time. 7 takes 2 MiB
            and is for training, 9 is for an evaluation.
        range: `None`, or `(lo, hi)` for linear bins between the two, where
            scores crowd far from 0, as cosines near 1 do.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        `update_state(y_true, y_pred, sample_weight=None)`. Without `distance`:
        match flags 1/0 of any dtype, real scores of the same shape up to a last
        axis of 1, and weights of that shape or without trailing axes. With
        `distance`: class ids `[n]` or `[n, 1]`, weights like them, embeddings
        `[n, d]` or `[n, views, d]`, where each view is a row of its own with
        the id and weight of its example. What has weight 0 or is masked by
        Keras does not count, whatever it holds.
        `result()`: a float32 scalar in [0, 1], right to 2e-6 (exact counts in,
        whole weights up to 2^36 a bin). NaN if there was no match or no
        non-match, if a score is NaN (`histogram.result()` says how many), or if
        a flag is neither 0 nor 1 or a weight negative, infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    References:
        Balanced accuracy as in Brodersen et al., "The balanced accuracy and its
        posterior distribution", ICPR 2010.

    Example:

    >>> from keras_xent.metrics import MatchAccuracy
    >>> tuned = MatchAccuracy(similarity=False)
    >>> float(tuned([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9]))
    1.0
    >>> 0.2 < tuned.threshold < 0.8
    True
    >>> frozen = MatchAccuracy(threshold=0.5, similarity=False)
    >>> float(frozen([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9]))
    0.75
    >>> by_class = MatchAccuracy(distance="euclidean")
    >>> float(by_class([7, 7, 8], [[0.0], [0.1], [5.0]]))
    1.0
    """

    def __init__(
        self,
        *,
        threshold: float | None = None,
        balanced: bool = False,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "match_accuracy",
        dtype: DType = None,
    ) -> None:
        if threshold is not None and range is not None:
            # It plays no part, and must be one all the same.
            checked_range(range)
        super().__init__(
            measures.MatchAccuracy(checks.flag("balanced", balanced)),
            threshold=threshold,
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range if threshold is None else None,
            name=name,
            dtype=dtype,
        )
        self.balanced = checks.flag("balanced", balanced)

    def get_config(self):
        return {
            **super().get_config(),
            "threshold": self.histogram.split,
            "resolution": self.resolution,
        }
