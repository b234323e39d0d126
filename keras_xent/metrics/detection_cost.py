"""What errors cost: at the best threshold, and at a given one."""

import keras

from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class MinDetectionCost(ThresholdMetric):
    """The least detection cost that any threshold gives (minDCF).

        DCF = (c_miss p miss + c_false_alarm (1 - p) false_match)
              / min(c_miss p, c_false_alarm (1 - p))

    so that the better of the two systems that always give one answer costs 1.
    Optimistic, as every figure at a threshold tuned on the same pairs: freeze
    `metric.threshold` on validation data, and report `DetectionCost` on test
    data.

    Args:
        p_target: p, the probability of a match where the system will be used;
            not its share in the data. NIST's evaluations take 0.01 or 0.05,
            VoxCeleb's trainer 0.05.
        c_miss: Cost of calling a match a non-match.
        c_false_alarm: Cost of calling a non-match a match.
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. The result is in [0, 1].

    Raises:
        ValueError: As `ThresholdMetric`, or if `p_target` is not between 0 and
            1 or a cost not above 0.

    Source: NIST 2016 Speaker Recognition Evaluation Plan, section 3.1.

    Example:

    >>> from keras_xent.metrics import MinDetectionCost
    >>> metric = MinDetectionCost(p_target=0.5)
    >>> round(float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])), 6)
    0.5
    """

    def __init__(
        self,
        p_target=0.01,
        c_miss=1.0,
        c_false_alarm=1.0,
        name="min_detection_cost",
        **options,
    ):
        measure = measures.MinCost(p_target, c_miss, c_false_alarm)
        super().__init__(measure, name=name, **options)
        self.p_target, self.c_miss = p_target, c_miss
        self.c_false_alarm = c_false_alarm


@keras.saving.register_keras_serializable(package="keras_xent")
class DetectionCost(ThresholdMetric):
    """The detection cost at a given threshold (actual DCF).

    The formula of `MinDetectionCost`, where `threshold` parts matches from
    non-matches. Exact: there are no bins but the two sides of the threshold.

    Args:
        threshold: The number to compare scores with, in float32.
        p_target, c_miss, c_false_alarm: As in `MinDetectionCost`.
        name: Name of the metric.
        **options: `distance`, `similarity` and `dtype`, as in
            `ThresholdMetric`; bins play no part.

    Shapes:
        As in `ThresholdMetric`. The result may exceed 1: then always giving
        one answer would cost less.

    Raises:
        ValueError: As `MinDetectionCost`, or if `threshold` is not a number.

    Source: NIST 2016 Speaker Recognition Evaluation Plan, section 3.1.

    Example:

    >>> from keras_xent.metrics import DetectionCost
    >>> metric = DetectionCost(threshold=0.65, p_target=0.5)
    >>> float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9]))
    1.0
    """

    def __init__(
        self,
        threshold,
        p_target=0.01,
        c_miss=1.0,
        c_false_alarm=1.0,
        name="detection_cost",
        **options,
    ):
        measure = measures.CostAt(p_target, c_miss, c_false_alarm)
        super().__init__(
            measure, name=name, threshold=checked(threshold), **options
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
            "on validation data: MinDetectionCost has a `threshold`."
        )
    return threshold
