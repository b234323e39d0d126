"""Where both errors are equally frequent."""

from typing import Literal

import keras

from keras_xent._types import Distance, DType
from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class EqualErrorRate(ThresholdMetric):
    """The rate at which both errors are equally frequent.

        EER = false-match rate = false non-match rate

    between two thresholds, on a straight line of the ROC. With
    `method="convex_hull"`, on a line of its convex hull, as in the BOSARIS
    toolkit (ROCCH-EER): the rate after the best calibration, never above 1/2,
    and steadier where there are few matches. The threshold is the edge of a bin
    at which the two rates are nearest.

    Args:
        method: `"linear"` or `"convex_hull"`.
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
        Brümmer and de Villiers, "The BOSARIS Toolkit: theory, algorithms and
        code for surviving the new DCF", 2013.

    Example:

    >>> from keras_xent.metrics import EqualErrorRate
    >>> metric = EqualErrorRate(similarity=False)
    >>> metric.update_state([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])
    >>> float(metric.result()), metric.bounds()
    (0.5, (0.5, 0.5))
    >>> 0.6 < metric.threshold <= 0.7
    True
    """

    def __init__(
        self,
        *,
        method: Literal["linear", "convex_hull"] = "linear",
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "equal_error_rate",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            measures.EqualErrorRate(method),
            distance=distance,
            across_replicas=across_replicas,
            similarity=similarity,
            resolution=resolution,
            range=range,
            name=name,
            dtype=dtype,
        )
        self.method = method
