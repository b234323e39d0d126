"""The Brier score against its formula and scikit-learn."""

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss

from keras_xent import ops
from tests.testing import finite_differences, gradient, normal, to_numpy

LOGITS = normal(6, 4, scale=3.0)
TARGETS = np.eye(4, dtype="float32")[np.arange(6) % 4]


def test_over_classes_it_is_the_squared_distance():
    p = softmax(LOGITS.astype("float64"), axis=1)
    expected = np.sum((p - TARGETS) ** 2, axis=1)
    result = to_numpy(ops.brier_score(TARGETS, LOGITS))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-7)
    result = ops.brier_score(TARGETS, p.astype("float32"), from_logits=False)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-5, atol=1e-7)
    across = ops.brier_score(TARGETS.T, LOGITS.T, axis=0)
    np.testing.assert_allclose(to_numpy(across), expected, rtol=1e-5, atol=1e-7)


def test_classes_are_last_whatever_the_rank():
    rows = to_numpy(ops.brier_score(TARGETS, LOGITS))
    shape = (2, 3, 4)
    result = ops.brier_score(TARGETS.reshape(shape), LOGITS.reshape(shape))
    np.testing.assert_allclose(to_numpy(result), rows.reshape(2, 3), rtol=1e-6)


def test_of_yes_or_no_it_is_that_of_scikit_learn():
    logits, yes = LOGITS[:, 0], np.array([1, 0, 0, 1, 1, 0])
    expected = brier_score_loss(yes, expit(logits.astype("float64")))
    result = to_numpy(ops.brier_score(yes, logits, axis=None))
    assert result.mean() == pytest.approx(expected, rel=1e-5)
    # Half of what two classes give.
    both = np.stack([np.zeros_like(logits), logits], axis=1)
    two = to_numpy(ops.brier_score(np.eye(2)[yes], both))
    np.testing.assert_allclose(two, 2 * result, rtol=1e-5)


@pytest.mark.float64
def test_the_gradient_is_that_of_finite_differences():
    def score(logits):
        return ops.brier_score(TARGETS, logits)

    x = LOGITS.astype("float64")
    grad, _ = gradient(score, x)
    np.testing.assert_allclose(
        grad, finite_differences(score, x), rtol=1e-5, atol=1e-8
    )


def test_what_is_no_probability_is_nan_on_a_device():
    p = keras.ops.convert_to_tensor([[0.5, 0.5], [0.5, 0.6], [1.5, -0.5]])
    targets = keras.ops.convert_to_tensor([[1.0, 0.0]] * 3)
    result = to_numpy(ops.brier_score(targets, p, from_logits=False))
    assert np.isnan(result).tolist() == [False, True, True]
    result = to_numpy(ops.brier_score(targets, p, from_logits=False, axis=None))
    assert np.isnan(result).any(axis=1).tolist() == [False, False, True]
    result = to_numpy(ops.brier_score(2 * targets, p, from_logits=False))
    assert np.isnan(result).all()


@pytest.mark.parametrize(
    ("targets", "predictions", "options", "message"),
    [
        (TARGETS[:, :3], LOGITS, {}, "same shape"),
        (TARGETS, LOGITS, {"from_logits": False}, "from_logits=True"),
        (2 * TARGETS, LOGITS, {}, "one-hot"),
        (TARGETS, LOGITS.astype("int32"), {}, "floating point"),
        (TARGETS[:, :1], LOGITS[:, :1], {}, "one logit"),
    ],
)
def test_wrong_input_raises(targets, predictions, options, message):
    with pytest.raises(ValueError, match=message):
        ops.brier_score(targets, predictions, **options)
