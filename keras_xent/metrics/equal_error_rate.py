"""Where false matches and misses are equally frequent."""

import keras

from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class EqualErrorRate(ThresholdMetric):
    """The rate at which false matches and misses are equally frequent.

        EER = false-match rate = miss rate

    between two thresholds, on a straight line of the ROC. With
    `method="convex_hull"`, on a line of its convex hull, as in the BOSARIS
    toolkit (ROCCH-EER): the rate after the best calibration, never above 1/2,
    and steadier where there are few matches. The threshold is the edge of a bin
    at which the two rates are nearest.

    Args:
        method: `"linear"` or `"convex_hull"`.
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`.

    Raises:
        ValueError: As `ThresholdMetric`, or if `method` is another.

    Source: Brümmer and de Villiers, "The BOSARIS Toolkit: theory, algorithms
    and code for surviving the new DCF", 2013.

    Example:

    >>> from keras_xent.metrics import EqualErrorRate
    >>> metric = EqualErrorRate()
    >>> metric.update_state([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])
    >>> float(metric.result()), metric.bounds()
    (0.5, (0.5, 0.5))
    >>> 0.6 < metric.threshold <= 0.7
    True
    """

    def __init__(self, method="linear", name="equal_error_rate", **options):
        super().__init__(measures.EqualError(method), name=name, **options)
        self.method = method
