"""All figures of a verification system from one state."""

from typing import Literal

import keras
import numpy as np

from keras_xent import _keras
from keras_xent._types import Distance, DType, Tensor
from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric
from keras_xent.ops import checks


@keras.saving.register_keras_serializable(package="keras_xent")
class VerificationMetrics(ThresholdMetric):
    """Every figure of merit of a verification system, as one dict.

    One state and one curve for all. With n the name of the metric:

    | key | as |
    | --- | --- |
    | `n_equal_error_rate` | `EqualErrorRate(method=...)` |
    | `n_min_detection_cost` | `MinDetectionCost(p_target=..., ...)` |
    | `n_detection_cost` | `DetectionCost(threshold, ...)`, if there is one |
    | `n_match_auc` | `MatchAUC()` |
    | `n_true_match_rate` | `TrueMatchRateAt(false_match_rate=...)` |
    | `n_average_precision` | `AveragePrecision()` |
    | `n_cllr`, `n_min_cllr` | `Cllr()`, `MinCllr()` |
    | `n_d_prime` | `DPrime()` |

    Keras writes the keys into its logs as they are. `bounds()` and
    `thresholds()` are dicts of the same keys; `threshold` is that of the equal
    error rate.

    Args:
        p_target: p, the probability of a match where the system will be used;
            not its share in the data.
        c_miss: What it costs to call a match a non-match: a miss, in NIST's
            words for a false non-match.
        c_false_alarm: What it costs to call a non-match a match: a false alarm,
            in NIST's words for a false match.
        false_match_rate: FMR, the largest share of non-matches that may be
            called matches, in [0, 1], for the true-match rate.
        method: `"linear"` or `"convex_hull"`: on which lines of the ROC the
            equal error rate lies.
        threshold: `None`, or the number to report the detection cost at. Exact
            if it is the edge of a bin, as the thresholds of metrics with the
            same bins are; else the mean of the rates at the next edges.
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
        name: The name of the metric, in saved models, and what the keys begin
            with.
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
        `result()`: a dict of float32 scalars. NaN if there was no match or no
        non-match, if a score is NaN (`histogram.result()` says how many), or if
        a flag is neither 0 nor 1 or a weight negative, infinite or NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument or a shape is
            wrong, or a flag or class id is and this can be seen without reading
            device memory.

    Example:

    >>> from keras_xent.metrics import VerificationMetrics
    >>> metric = VerificationMetrics(similarity=False, name="test")
    >>> result = metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])
    >>> float(result["test_match_auc"])
    0.75
    >>> metric.bounds()["test_equal_error_rate"]
    (0.5, 0.5)
    """

    def __init__(
        self,
        *,
        p_target: float = 0.01,
        c_miss: float = 1.0,
        c_false_alarm: float = 1.0,
        false_match_rate: float = 1e-3,
        method: Literal["linear", "convex_hull"] = "linear",
        threshold: float | None = None,
        distance: Distance = None,
        across_replicas: bool = False,
        similarity: bool | None = None,
        resolution: int = 7,
        range: tuple[float, float] | None = None,
        name: str = "verification",
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
        costs = p_target, c_miss, c_false_alarm
        self._own = {
            "p_target": p_target,
            "c_miss": c_miss,
            "c_false_alarm": c_false_alarm,
            "false_match_rate": false_match_rate,
            "method": method,
            "threshold": None
            if threshold is None
            else checks.threshold(threshold),
        }
        self._measures = {
            "equal_error_rate": self._measure,
            "min_detection_cost": measures.MinDetectionCost(*costs),
            "match_auc": measures.MatchAUC(),
            "true_match_rate": measures.TrueMatchRateAt(false_match_rate),
            "average_precision": measures.AveragePrecision(),
            "cllr": measures.Cllr(),
            "min_cllr": measures.MinCllr(),
            "d_prime": measures.DPrime(),
        }
        if threshold is not None:
            points = self._points_around(self._own["threshold"])
            at = measures.DetectionCost(*costs, points=points)
            self._measures["detection_cost"] = at
        _keras.set_directions(self, self._each(lambda m: m.direction))

    def result(self) -> dict[str, Tensor]:
        """All figures, float32 scalars by their keys."""
        return self._values(self._each)

    def bounds(  # type: ignore[override]
        self,
    ) -> dict[str, tuple[float, float]]:
        """What exact scores, without bins, may give, for each figure."""
        curve = self._exact_curve()
        return self._each(lambda measure: self._bounds_of(measure, curve))

    def thresholds(self) -> dict[str, float]:
        """The threshold that each figure implies, a dict of floats."""
        curve = self._exact_curve()
        found = self._each(lambda measure: self._threshold_of(measure, curve))
        if self._own["threshold"] is not None:
            found[f"{self.name}_detection_cost"] = self._own["threshold"]
        return found

    def _each(self, function):
        return {
            f"{self.name}_{key}": function(measure)
            for key, measure in self._measures.items()
        }

    def _points_around(self, threshold):
        """The two points of the curve between which a threshold lies."""
        edges = self.histogram.edges()
        above = int(np.searchsorted(edges, np.float32(threshold)))
        below = above if edges[above] == np.float32(threshold) else above - 1
        if self.similarity:
            return len(edges) - above, len(edges) - below
        return below, above

    def _own_config(self):
        return dict(self._own)
