"""How well scores rank matches before non-matches."""

import keras

from keras_xent._types import Distance, DType
from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class MatchAUC(ThresholdMetric):
    """Probability that a match scores more alike than a non-match.

        AUC = P(match more alike) + P(both in one bin) / 2

    the area under the ROC, for scores of any range: `keras.metrics.AUC` clips
    them to [0, 1]. Its threshold is Youden's, where the sum of both error rates
    is least.

    Args:
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
        `result()`: a float32 scalar in [0, 1], 1/2 for chance. NaN if there was
        no match or no non-match, if a score is NaN (`histogram.result()` says
        how many), or if a flag is neither 0 nor 1 or a weight negative,
        infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    References:
        Hanley and McNeil, "The meaning and use of the area under a receiver
        operating characteristic (ROC) curve", Radiology 1982.

    Example:

    >>> from keras_xent.metrics import MatchAUC
    >>> metric = MatchAUC(similarity=True)
    >>> float(metric([1, 1, 0, 0], [9.0, -1.0, 2.0, -3.0]))
    0.75
    """

    def __init__(
        self,
        *,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "match_auc",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.MatchAUC(),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class AveragePrecision(ThresholdMetric):
    """Mean, over the matches, of the precision down to their score.

        AP = Σ_k (TMR_k - TMR_{k-1}) precision_k

    over the bins, most alike first; TMR is the true-match rate, precision the
    share of matches among all pairs that are called a match. It depends on how
    many non-matches there are for each match. Its threshold is that of the best
    F1.

    Args:
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
        `result()`: a float32 scalar in [0, 1]. NaN if there was no match or no
        non-match, if a score is NaN (`histogram.result()` says how many), or if
        a flag is neither 0 nor 1 or a weight negative, infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    References:
        As `sklearn.metrics.average_precision_score`.

    Example:

    >>> from keras_xent.metrics import AveragePrecision
    >>> metric = AveragePrecision(similarity=False)
    >>> round(float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])), 4)
    0.8333
    """

    def __init__(
        self,
        *,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "average_precision",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.AveragePrecision(),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class TrueMatchRateAt(ThresholdMetric):
    """The share of matches found with so few false matches (TMR@FMR).

        max { TMR(t) : FMR(t) <= false_match_rate }

    over the thresholds t at the edges of bins. TMR, the true-match rate, is the
    share of matches that are called matches; FMR, the false-match rate, the
    share of non-matches that are. Also known as TAR@FAR. At least 10 /
    `false_match_rate` non-matches are needed for a figure that means something.

    Args:
        false_match_rate: FMR, the largest share of non-matches that may be
            called matches, in [0, 1].
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
        `result()`: a float32 scalar in [0, 1]. NaN if there was no match or no
        non-match, if a score is NaN (`histogram.result()` says how many), or if
        a flag is neither 0 nor 1 or a weight negative, infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    References:
        ISO/IEC 19795-1:2021, "Biometric performance testing and reporting".

    Example:

    >>> from keras_xent.metrics import TrueMatchRateAt
    >>> metric = TrueMatchRateAt(false_match_rate=0.1, similarity=False)
    >>> float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9]))
    0.5
    """

    def __init__(
        self,
        *,
        false_match_rate: float = 1e-3,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "true_match_rate",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.TrueMatchRateAt(false_match_rate),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )
        self.false_match_rate = false_match_rate
