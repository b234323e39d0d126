"""All figures of a verification system from one state."""

import keras
import numpy as np
from keras import ops

from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric
from keras_xent.ops import checks


@keras.saving.register_keras_serializable(package="keras_xent")
class VerificationMetrics(ThresholdMetric):
    """Every figure of merit of a verification system, as one dict.

    One state and one curve for all. With n the name of the metric:

    | key | as |
    | --- | --- |
    | `n_equal_error_rate` | `EqualErrorRate(method)` |
    | `n_min_detection_cost` | `MinDetectionCost(p_target, ...)` |
    | `n_detection_cost` | `DetectionCost(threshold, ...)`, if there is one |
    | `n_match_auc` | `MatchAUC()` |
    | `n_true_match_rate` | `TrueMatchRateAt(false_match_rate)` |
    | `n_average_precision` | `AveragePrecision()` |
    | `n_cllr`, `n_cllr_min` | `Cllr()`, `CllrMin()` |
    | `n_d_prime` | `DPrime()` |

    Keras writes the keys into its logs as they are. `bounds()` and
    `thresholds()` are dicts of the same keys; `threshold` is that of the equal
    error rate.

    Args:
        p_target, c_miss, c_false_alarm: As in `MinDetectionCost`.
        false_match_rate: As in `TrueMatchRateAt`.
        method: As in `EqualErrorRate`.
        threshold: None, or the number to report the detection cost at. Exact
            if it is the edge of a bin, as the thresholds of metrics with the
            same bins are; else the mean of the rates at the next edges.
        name: Name of the metric, the prefix of the keys.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. The result is a dict of float32 scalars.

    Raises:
        ValueError: As the metrics of the table.

    Example:

    >>> from keras_xent.metrics import VerificationMetrics
    >>> metric = VerificationMetrics(name="test")
    >>> result = metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])
    >>> float(result["test_match_auc"])
    0.75
    >>> metric.bounds()["test_equal_error_rate"]
    (0.5, 0.5)
    """

    def __init__(
        self,
        p_target=0.01,
        c_miss=1.0,
        c_false_alarm=1.0,
        false_match_rate=1e-3,
        method="linear",
        threshold=None,
        name="verification",
        **options,
    ):
        super().__init__(measures.EqualError(method), name=name, **options)
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
            "min_detection_cost": measures.MinCost(*costs),
            "match_auc": measures.AUC(),
            "true_match_rate": measures.TrueMatches(false_match_rate),
            "average_precision": measures.MeanPrecision(),
            "cllr": measures.ActualCllr(),
            "cllr_min": measures.LeastCllr(),
            "d_prime": measures.DPrime(),
        }
        if threshold is not None:
            points = self._points_around(self._own["threshold"])
            at = measures.CostAt(*costs, points=points)
            self._measures["detection_cost"] = at

    def result(self):
        curve = self._curve(ops)
        return self._each(lambda m: self._if_known(curve, m.value(curve)))

    def bounds(self):
        return self._each(self._bounds_of)

    def thresholds(self):
        """The threshold that each figure implies, a dict of floats."""
        found = self._each(self._threshold_of)
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
