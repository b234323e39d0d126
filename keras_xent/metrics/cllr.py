"""Scores as evidence: what they cost as log-likelihood ratios, and d'."""

import keras

from keras_xent.metrics import measures
from keras_xent.metrics.threshold_metric import ThresholdMetric


@keras.saving.register_keras_serializable(package="keras_xent")
class Cllr(ThresholdMetric):
    """What log-likelihood ratios cost over all priors, in bits.

        Cllr = (mean_m log2(1 + exp(-llr)) + mean_n log2(1 + exp(llr))) / 2

    over matches m and non-matches n. The scores are taken as natural
    log-likelihood ratios (with `similarity=False`: as their negatives). Always
    answering 0, "I do not know", costs 1; more than 1 is worse than that.
    `Cllr - CllrMin` is what the calibration loses. Every score stands at the
    middle of its bin. The threshold is 0: evidence for neither side.

    Args:
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. The result is at least 0; NaN, too, if a score
        lies outside of `range`, where bins have no middle.

    Raises:
        ValueError: As `ThresholdMetric`.

    Source: Brümmer and du Preez, "Application-independent evaluation of speaker
    detection", Computer Speech and Language 2006.

    Example:

    >>> from keras_xent.metrics import Cllr
    >>> metric = Cllr(similarity=True)
    >>> round(float(metric([1, 1, 0, 0], [0.0, 0.0, 0.0, 0.0])), 6)
    1.0
    """

    def __init__(self, name="cllr", **options):
        super().__init__(measures.ActualCllr(), name=name, **options)


@keras.saving.register_keras_serializable(package="keras_xent")
class CllrMin(ThresholdMetric):
    """The `Cllr` that is left after the best calibration, in bits.

    The best that scores can do in this order: each score becomes the
    log-likelihood ratio that isotonic regression gives it (the slopes of the
    convex hull of the ROC). Between 0 and 1. The threshold is Youden's, where
    the calibrated log-likelihood ratio changes sign.

    Args:
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. The result touches the hull at 385 slopes and
        comes out up to 5e-5 above that of all corners; `bounds()` goes by all.

    Raises:
        ValueError: As `ThresholdMetric`.

    Source: Brümmer and du Preez, "Application-independent evaluation of speaker
    detection", Computer Speech and Language 2006.

    Example:

    >>> from keras_xent.metrics import CllrMin
    >>> metric = CllrMin()
    >>> round(float(metric([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9])), 6)
    0.5
    """

    def __init__(self, name="cllr_min", **options):
        super().__init__(measures.LeastCllr(), name=name, **options)


@keras.saving.register_keras_serializable(package="keras_xent")
class DPrime(ThresholdMetric):
    """How far apart matches and non-matches are, in standard deviations.

        d' = (mean_m - mean_n) / sqrt((variance_m + variance_n) / 2)

    of similarities, or of distances with the sign changed: positive where
    matches are more alike. Every score stands at the middle of its bin. The
    threshold is as many standard deviations from one mean as from the other.

    Args:
        name: Name of the metric.
        **options: `distance`, `similarity`, `mantissa_bits`, `range` and
            `dtype`, as in `ThresholdMetric`.

    Shapes:
        As in `ThresholdMetric`. NaN, too, if a score is infinite, or lies
        outside of `range`, where bins have no middle: then the bounds are
        infinite.

    Raises:
        ValueError: As `ThresholdMetric`.

    Source: Daugman, "Biometric decision landscapes", University of Cambridge
    technical report 482, 2000.

    Example:

    >>> from keras_xent.metrics import DPrime
    >>> metric = DPrime(similarity=True, range=(0, 8))
    >>> round(float(metric([1, 1, 0, 0], [4.0, 6.0, 1.0, 3.0])), 3)
    3.0
    """

    def __init__(self, name="d_prime", **options):
        super().__init__(measures.DPrime(), name=name, **options)
