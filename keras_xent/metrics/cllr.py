"""Scores as evidence: what they cost as log-likelihood ratios, and d'."""

import keras

from keras_xent._types import Distance, DType
from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class Cllr(ThresholdMetric):
    """What log-likelihood ratios cost over all priors, in bits.

        Cllr = (mean_m log2(1 + exp(-llr)) + mean_n log2(1 + exp(llr))) / 2

    over matches m and non-matches n. The scores are taken as natural
    log-likelihood ratios (with `similarity=False`: as their negatives). Always
    answering 0, "I do not know", costs 1; more than 1 is worse than that.
    `Cllr - MinCllr` is what the calibration loses. Every score stands at the
    middle of its bin. The threshold is 0: evidence for neither side.

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
        `result()`: a float32 scalar, at least 0. NaN if a score lies outside of
        `range`, where bins have no middle. NaN if there was no match or no
        non-match, if a score is NaN (`histogram.result()` says how many), or if
        a flag is neither 0 nor 1 or a weight negative, infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    References:
        Brümmer and du Preez, "Application-independent evaluation of speaker
        detection", Computer Speech and Language 2006.

    Example:

    >>> from keras_xent.metrics import Cllr
    >>> metric = Cllr(similarity=True)
    >>> round(float(metric([1, 1, 0, 0], [0.0, 0.0, 0.0, 0.0])), 6)
    1.0
    """

    def __init__(
        self,
        *,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "cllr",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.Cllr(),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class MinCllr(ThresholdMetric):
    """The `Cllr` that is left after the best calibration, in bits.

    The best that scores can do in this order: each score becomes the
    log-likelihood ratio that isotonic regression gives it (the slopes of the
    convex hull of the ROC). The threshold is Youden's, where the calibrated
    log-likelihood ratio changes sign. The result touches the hull at 385 slopes
    and comes out up to 5e-5 above that of all corners; `bounds()` goes by all.

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
        Brümmer and du Preez, "Application-independent evaluation of speaker
        detection", Computer Speech and Language 2006.

    Example:

    >>> from keras_xent.metrics import MinCllr
    >>> metric = MinCllr(similarity=False)
    >>> round(float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])), 6)
    0.5
    """

    def __init__(
        self,
        *,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "min_cllr",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.MinCllr(),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class DPrime(ThresholdMetric):
    """How far apart matches and non-matches are, in standard deviations.

        d' = (mean_m - mean_n) / sqrt((variance_m + variance_n) / 2)

    of similarities, or of distances with the sign changed: positive where
    matches are more alike. Every score stands at the middle of its bin. The
    threshold is as many standard deviations from one mean as from the other.

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
        `result()`: a float32 scalar. NaN if a score is infinite, or lies
        outside of `range`, where bins have no middle: then the bounds are
        infinite. NaN if there was no match or no non-match, if a score is NaN
        (`histogram.result()` says how many), or if a flag is neither 0 nor 1 or
        a weight negative, infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    References:
        Daugman, "Biometric decision landscapes", University of Cambridge
        technical report 482, 2000.

    Example:

    >>> from keras_xent.metrics import DPrime
    >>> metric = DPrime(similarity=True, range=(0, 8))
    >>> round(float(metric([1, 1, 0, 0], [4.0, 6.0, 1.0, 3.0])), 3)
    3.0
    """

    def __init__(
        self,
        *,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "d_prime",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.DPrime(),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )
