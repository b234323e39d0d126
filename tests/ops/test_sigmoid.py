import keras
import mpmath
import numpy as np
import pytest
import scipy.special

from keras_xent import ops
from keras_xent.ops import own_softmax
from tests.testing import (
    BACKEND,
    finite_differences,
    gradient,
    hessian,
    normal,
    to_numpy,
)

NAN = float("nan")


@pytest.fixture(params=["written out", "with its own gradient"])
def both_ways(request, monkeypatch):
    """As few numbers are, and, where a backend has another way, as many."""
    if request.param == "with its own gradient":
        monkeypatch.setattr(own_softmax, "SMALL_SIZE", 0)


def element(t, x, q, label_smoothing, focal_gamma):
    x = mpmath.mpf(x)
    p, rest = 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))
    t = (1 - label_smoothing) * float(t) + label_smoothing / 2
    yes = -q * t * rest**focal_gamma * mpmath.log(p)
    return yes - (1 - t) * p**focal_gamma * mpmath.log(rest)


def reference(
    targets, logits, label_smoothing=0.0, pos_weight=1.0, focal_gamma=0.0
):
    def of_element(t, x, q):
        return float(element(t, float(x), q, label_smoothing, focal_gamma))

    with mpmath.workdps(60):
        return np.vectorize(of_element)(targets, logits, pos_weight)


OPTIONS = {
    "plain": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "pos_weight": {"pos_weight": 3.0},
    "pos_weights": {"pos_weight": [1.0, 2.0, 0.5]},
    "focal_gamma": {"focal_gamma": 2.0},
    "all": {"label_smoothing": 0.2, "pos_weight": 2.0, "focal_gamma": 1.5},
}
each_options = pytest.mark.parametrize(
    "options", OPTIONS.values(), ids=OPTIONS.keys()
)


def grid():
    sizes = [0.0, 1e-40, 1e-3, 1.0, 15.0, 25.0, 80.0, 1e3, 1e4]
    logits = np.array([s * x for s in sizes for x in (-1, 1)], "float32")
    logits = np.repeat(logits[:, None], 3, axis=1)
    return np.tile([0.0, 1.0, 0.9999], (len(logits), 1)), logits


@each_options
def test_equals_the_formula_at_any_magnitude(options, both_ways):
    targets, logits = grid()
    targets = targets.astype("float32")
    expected = reference(targets, logits, **options)
    result = ops.sigmoid_crossentropy(targets, logits, **options)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=2e-6, atol=1e-6)


def test_gradient_is_probability_minus_target():
    targets, logits = grid()
    expected = scipy.special.expit(logits.astype("float64")) - targets
    grad, _ = gradient(lambda x: ops.sigmoid_crossentropy(targets, x), logits)
    np.testing.assert_allclose(grad, expected, rtol=0, atol=2e-6)


@pytest.mark.float64
@each_options
def test_gradients_agree_with_finite_differences(options, both_ways):
    logits = 2 * normal(2, 3).astype("float64")
    targets = np.array([[0.0, 1.0, 0.3], [1.0, 0.0, 0.8]])

    def function(x):
        return ops.sigmoid_crossentropy(targets, x, **options)

    grad, _ = gradient(function, logits)
    expected = finite_differences(function, logits)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.float64
@each_options
def test_gradients_to_the_targets_agree_with_finite_differences(
    options, both_ways
):
    logits = 2 * normal(2, 3).astype("float64")
    targets = np.array([[0.1, 0.9, 0.3], [0.6, 0.5, 0.8]])

    def function(t):
        return ops.sigmoid_crossentropy(t, logits, **options)

    grad, _ = gradient(function, targets)
    expected = finite_differences(function, targets)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


def test_at_a_logit_of_zero_the_gradient_is_half_minus_the_target():
    targets = np.array([0.0, 1.0, 0.25], "float32")
    grad, value = gradient(
        lambda x: ops.sigmoid_crossentropy(targets, x), np.zeros(3, "float32")
    )
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(grad, 0.5 - targets, rtol=1e-6)


def test_infinite_log_odds_cost_nothing_where_they_are_right():
    logits = np.array([-np.inf, np.inf, -np.inf, np.inf], "float32")
    targets = np.array([0.0, 1.0, 1.0, 0.0], "float32")
    for gamma in (0.0, 0.5, 2.0):
        grad, value = gradient(
            lambda x, gamma=gamma: ops.sigmoid_crossentropy(
                targets, x, focal_gamma=gamma
            ),
            logits,
        )
        assert value[:2].tolist() == [0, 0]
        assert np.all(value[2:] > 1e38)
        assert grad[:2].tolist() == [0, 0]
        assert not np.isnan(grad).any()


def test_targets_outside_0_1_are_an_error_or_nan():
    logits = normal(2)
    with pytest.raises(ValueError, match=r"\[0, 1\].*-1"):
        ops.sigmoid_crossentropy(np.array([1, -1]), logits)
    targets = keras.ops.convert_to_tensor(np.array([1, -1]))
    result = to_numpy(ops.sigmoid_crossentropy(targets, logits))
    assert np.isnan(result).tolist() == [False, True]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 1.5, 2.0])
def test_second_derivatives_are_right_where_the_answer_is_sure(gamma):
    logits = np.array([100, 75, 50, 20, 5, 0, -5, -50, -75, -100], "float32")
    for target in (0.0, 0.2, 1.0):
        result = second_derivatives(
            lambda x, t=target: ops.sigmoid_crossentropy(
                np.full(len(logits), t, "float32"), x, focal_gamma=gamma
            ),
            logits,
        )
        with mpmath.workdps(80):
            expected = [
                mpmath.diff(
                    lambda x, t=target: element(t, x, 1, 0, gamma), float(x), 2
                )
                for x in logits
            ]
        np.testing.assert_allclose(
            result, np.array(expected, "float64"), rtol=1e-3, atol=1e-6
        )


def second_derivatives(function, x):
    """Of each value of a function by the number that it depends on."""
    if BACKEND != "tensorflow":
        return np.diag(hessian(lambda x: function(x).sum(), x))
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = function(x)
        slope = inner.gradient(value, x)
    return outer.gradient(slope, x).numpy()


@pytest.mark.parametrize("unknown", [-1, NAN, [-1, NAN], 0.5])
@pytest.mark.parametrize("on_device", [False, True])
def test_what_is_not_known_has_no_loss_and_no_gradient(unknown, on_device):
    known = np.array([True, False, True, False, False, False])
    targets = np.array([1.0, 0, 0, 0, 0, 0], "float32")
    targets[~known] = np.resize(unknown, 4)
    logits = np.array([0.5, 1.0, -2.0, NAN, np.inf, -np.inf], "float32")
    if on_device:
        targets = keras.ops.convert_to_tensor(targets)
    for options in ({}, {"focal_gamma": 2.0, "label_smoothing": 0.1}):
        grad, value = gradient(
            lambda x, options=options: ops.sigmoid_crossentropy(
                targets, x, ignore_class=unknown, **options
            ),
            logits,
        )
        assert np.all(value[~known] == 0)
        assert np.all(grad[~known] == 0)
        expected = ops.sigmoid_crossentropy([1, 0], logits[known], **options)
        np.testing.assert_allclose(value[known], to_numpy(expected), rtol=1e-6)
        assert np.all(grad[known] != 0)


def test_a_target_that_is_not_ignored_is_still_looked_at():
    with pytest.raises(ValueError, match="-2"):
        ops.sigmoid_crossentropy([1, -2], normal(2), ignore_class=-1)
    with pytest.raises(ValueError, match="`ignore_class`"):
        ops.sigmoid_crossentropy([1, -1], normal(2))
    for wrong in ("nan", [[1]], True):
        with pytest.raises(ValueError, match="`ignore_class` must be"):
            ops.sigmoid_crossentropy([1, 0], normal(2), ignore_class=wrong)


def test_labels_without_a_sign_may_be_unknown():
    targets = keras.ops.convert_to_tensor(np.array([1, 255], "uint8"))
    losses = ops.sigmoid_crossentropy(targets, normal(2), ignore_class=255)
    assert to_numpy(losses)[1] == 0
