"""What errors cost: at the best threshold, and at a given one."""

import keras

from keras_xent._types import Distance, DType
from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class MinDetectionCost(ThresholdMetric):
    """The least detection cost that any threshold gives (minDCF).

        DCF = (c_miss p P_miss + c_false_alarm (1 - p) P_false_alarm)
              / min(c_miss p, c_false_alarm (1 - p))

    so that the better of the two systems that always give one answer costs 1.
    P_miss is the false non-match rate, P_false_alarm the false-match rate.
    Optimistic, as every figure at a threshold tuned on the same pairs: freeze
    `metric.threshold` on validation data, and report `DetectionCost` on test
    data.

    Args:
        p_target: p, the probability of a match where the system will be used;
            not its share in the data. NIST's evaluations take 0.01 or 0.05,
            VoxCeleb's trainer 0.05.
        c_miss: What it costs to call a match a non-match: a miss, in NIST's
            words for a false non-match.
        c_false_alarm: What it costs to call a non-match a match: a false alarm,
            in NIST's words for a false match.
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
        NIST 2016 Speaker Recognition Evaluation Plan, section 3.1.

    Example:

    >>> from keras_xent.metrics import MinDetectionCost
    >>> metric = MinDetectionCost(p_target=0.5, similarity=False)
    >>> round(float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])), 6)
    0.5
    """

    def __init__(
        self,
        *,
        p_target: float = 0.01,
        c_miss: float = 1.0,
        c_false_alarm: float = 1.0,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "min_detection_cost",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.MinDetectionCost(p_target, c_miss, c_false_alarm),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )
        self.p_target, self.c_miss = p_target, c_miss
        self.c_false_alarm = c_false_alarm


@keras.saving.register_keras_serializable(package="keras_xent")
class DetectionCost(ThresholdMetric):
    """The detection cost at a given threshold (actual DCF).

    The formula of `MinDetectionCost`, where `threshold` parts matches from
    non-matches. Exact: there are no bins but the two sides of the threshold.

    Args:
        threshold: The number to compare scores with, in float32.
        p_target: p, the probability of a match where the system will be used;
            not its share in the data.
        c_miss: What it costs to call a match a non-match: a miss, in NIST's
            words for a false non-match.
        c_false_alarm: What it costs to call a non-match a match: a false alarm,
            in NIST's words for a false match.
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
        `result()`: a float32 scalar, at least 0. More than 1: always giving one
        answer would cost less. NaN if there was no match or no non-match, if a
        score is NaN (`histogram.result()` says how many), or if a flag is
        neither 0 nor 1 or a weight negative, infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    References:
        NIST 2016 Speaker Recognition Evaluation Plan, section 3.1.

    Example:

    >>> from keras_xent.metrics import DetectionCost
    >>> metric = DetectionCost(0.65, p_target=0.5, similarity=False)
    >>> float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9]))
    1.0
    """

    def __init__(
        self,
        threshold: float,
        *,
        p_target: float = 0.01,
        c_miss: float = 1.0,
        c_false_alarm: float = 1.0,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        name: str = "detection_cost",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.DetectionCost(p_target, c_miss, c_false_alarm),
            threshold=checked(threshold),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            name=name,
            dtype=dtype,
        )
        self.p_target, self.c_miss = p_target, c_miss
        self.c_false_alarm = c_false_alarm

    def _own_config(self):
        config = super()._own_config()
        del config["points"]
        return config


def checked(threshold):
    """Raises where no threshold is given."""
    if threshold is None:
        raise ValueError(
            "`threshold` is the number that scores are compared with. Tune it "
            "on validation data: MinDetectionCost has a `threshold`. Received: "
            "threshold=None"
        )
    return threshold
