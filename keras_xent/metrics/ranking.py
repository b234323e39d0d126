"""How well scores rank matches before non-matches."""

import keras

from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class MatchAUC(ThresholdMetric):
    """Probability that a match scores more alike than a non-match.

        AUC = P(match more alike) + P(both in one bin) / 2

    the area under the ROC, for scores of any range: `keras.metrics.AUC` clips
    them to [0, 1]. Its threshold is Youden's, where hits minus false matches
    are most.

    Args:
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. The result is in [0, 1], 1/2 for chance.

    Raises:
        ValueError: As `ThresholdMetric`.

    Source: Hanley and McNeil, "The meaning and use of the area under a receiver
    operating characteristic (ROC) curve", Radiology 1982.

    Example:

    >>> from keras_xent.metrics import MatchAUC
    >>> metric = MatchAUC(similarity=True)
    >>> float(metric([1, 1, 0, 0], [9.0, -1.0, 2.0, -3.0]))
    0.75
    """

    def __init__(self, name="match_auc", **options):
        super().__init__(measures.AUC(), name=name, **options)


@keras.saving.register_keras_serializable(package="keras_xent")
class AveragePrecision(ThresholdMetric):
    """Mean, over the matches, of the precision down to their score.

        AP = Σ_k (hit_k - hit_{k-1}) precision_k

    over the bins, most alike first; precision is the share of matches among all
    pairs that are called a match. It depends on how many non-matches there are
    for each match. Its threshold is that of the best F1.

    Args:
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. The result is in [0, 1].

    Raises:
        ValueError: As `ThresholdMetric`.

    Source: as `sklearn.metrics.average_precision_score`.

    Example:

    >>> from keras_xent.metrics import AveragePrecision
    >>> metric = AveragePrecision()
    >>> round(float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])), 4)
    0.8333
    """

    def __init__(self, name="average_precision", **options):
        super().__init__(measures.MeanPrecision(), name=name, **options)


@keras.saving.register_keras_serializable(package="keras_xent")
class TrueMatchRateAt(ThresholdMetric):
    """The share of matches found with so few false matches.

        max { hit rate(t) : false-match rate(t) <= false_match_rate }

    over the thresholds t at the edges of bins. At least 10 /
    `false_match_rate` non-matches are needed for a figure that means something.

    Args:
        false_match_rate: The largest share of non-matches that may be called
            matches, in [0, 1].
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. The result is in [0, 1].

    Raises:
        ValueError: As `ThresholdMetric`, or if the rate is not in [0, 1].

    Source: ISO/IEC 19795-1:2021, "Biometric performance testing and reporting".

    Example:

    >>> from keras_xent.metrics import TrueMatchRateAt
    >>> metric = TrueMatchRateAt(false_match_rate=0.1)
    >>> float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9]))
    0.5
    """

    def __init__(
        self, false_match_rate=1e-3, name="true_match_rate", **options
    ):
        measure = measures.TrueMatches(false_match_rate)
        super().__init__(measure, name=name, **options)
        self.false_match_rate = false_match_rate
