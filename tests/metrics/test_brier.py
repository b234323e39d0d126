"""The Brier score of an epoch is the mean over all its rows."""

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss

from keras_xent.metrics import BrierScore
from tests.testing import normal, to_numpy

LOGITS = normal(20, 4, scale=3.0)
LABELS = np.arange(20) % 4
WEIGHT = np.array([1, 0, 2, 0.5] * 5)


def measure(metric, *batches):
    for batch in batches:
        metric.update_state(*batch)
    return float(to_numpy(metric.result()))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("from_logits", [False, True])
def test_of_classes_it_is_the_weighted_mean(dense, from_logits):
    p = softmax(LOGITS.astype("float64"), axis=1)
    rows = np.sum((p - np.eye(4)[LABELS]) ** 2, axis=1)
    x = LOGITS if from_logits else p.astype("float32")
    y = np.eye(4)[LABELS] if dense else LABELS
    metric = BrierScore(from_logits=from_logits)
    batches = [
        (y[part], x[part], WEIGHT[part]) for part in (slice(10), slice(10, 20))
    ]
    expected = np.average(rows, weights=WEIGHT)
    assert measure(metric, *batches) == pytest.approx(expected, rel=1e-5)


def test_of_yes_or_no_it_is_that_of_scikit_learn():
    yes, p = LABELS > 1, expit(LOGITS[:, 0].astype("float64"))
    expected = brier_score_loss(yes, p, sample_weight=WEIGHT)
    for x, from_logits in ((LOGITS[:, :1], True), (p[:, None], False)):
        metric = BrierScore(from_logits=from_logits)
        assert measure(
            metric, (yes, x.astype("float32"), WEIGHT)
        ) == pytest.approx(expected, rel=1e-5)


def test_ignored_classes_and_any_axis():
    expected = measure(BrierScore(), (LABELS, LOGITS, LABELS != 3))
    metric = BrierScore(ignore_class=3, axis=0)
    result = measure(metric, (LABELS, LOGITS.T))
    assert result == pytest.approx(expected, rel=1e-5)


def test_logits_in_the_place_of_probabilities_raise():
    with pytest.raises(ValueError, match="from_logits=True"):
        BrierScore(from_logits=False).update_state(LABELS, LOGITS)
    # In a step, where nothing can be read, and beside weights: NaN.
    metric = BrierScore(from_logits=False)
    assert np.isnan(measure(metric, (LABELS, LOGITS, WEIGHT)))


def test_what_is_no_distribution_or_cannot_be_weighed_is_nan():
    zeros = keras.ops.zeros((2, 3))
    assert np.isnan(to_numpy(BrierScore()(zeros, np.zeros((2, 3), "float32"))))
    metric = BrierScore()
    metric.update_state([0, 1], np.eye(2, dtype="float32"), [3e38, 3e38])
    assert np.isnan(to_numpy(metric.result()))
