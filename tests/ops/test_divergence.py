"""Divergences of rows against scipy, mpmath and finite differences."""

import math
import warnings

import keras
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from keras_xent import ops
from tests.testing import (
    finite_differences,
    gradient,
    normal,
    to_numpy,
)

P, Q = normal(5, 4, scale=3.0), normal(5, 4, seed=1, scale=3.0)
FUNCTIONS = [ops.kl_divergence, ops.jensen_shannon]


def value(function, *args, **kwargs):
    return to_numpy(function(*args, **kwargs))


def kl(p, q):
    """Σ p log(p / q) in 50 digits, from float32 logits."""
    with mpmath.workdps(50):
        p, q = ([mpmath.e ** mpmath.mpf(float(x)) for x in y] for y in (p, q))
        p, q = ([x / sum(y) for x in y] for y in (p, q))
        return (
            p,
            q,
            sum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True)),
        )


def js(p, q, beta=0.5):
    """β KL(p‖m) + (1 − β) KL(q‖m) in 50 digits, from float32 logits."""
    with mpmath.workdps(50):
        p, q, _ = kl(p, q)
        beta, total = mpmath.mpf(beta), 0
        for a, b in zip(p, q, strict=True):
            m = beta * a + (1 - beta) * b
            total += beta * a * mpmath.log(a / m)
            total += (1 - beta) * b * mpmath.log(b / m)
        return total


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_is_that_of_scipy_times_the_square_of_the_temperature(
    axis, temperature
):
    p, q = (
        softmax(x.astype("float64") / temperature, axis=axis) for x in (P, Q)
    )
    expected = temperature**2 * rel_entr(p, q).sum(axis=axis)
    result = value(ops.kl_divergence, P, Q, temperature=temperature, axis=axis)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_jensen_shannon_is_that_of_scipy():
    p, q = (softmax(x.astype("float64"), axis=1) for x in (P, Q))
    m = (p + q) / 2
    expected = (rel_entr(p, m) + rel_entr(q, m)).sum(axis=1) / 2
    np.testing.assert_allclose(
        value(ops.jensen_shannon, P, Q), expected, rtol=1e-5
    )
    np.testing.assert_allclose(
        value(ops.jensen_shannon, P.T, Q.T, axis=0), expected, rtol=1e-5
    )


@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_they_are_right_near_and_far(scale, offset):
    # At an offset of 1e4 a float32 step is 1e-3: the logits are as they are.
    p = (P[:1] + offset).astype("float32")
    q = (P[:1] + offset + scale * Q[:1]).astype("float32")
    near = max(1e-4, 1e-7 / scale**2)
    expected = [float(kl(p[0], q[0])[2])], [float(js(p[0], q[0]))]
    for function, truth in zip(FUNCTIONS, expected, strict=True):
        np.testing.assert_allclose(value(function, p, q), truth, rtol=near)


@pytest.mark.parametrize("beta", [1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0])
def test_any_share_of_the_mean_is_right_near_and_far(scale, beta):
    p, q = P[:1], (P[:1] + scale * Q[:1]).astype("float32")
    np.testing.assert_allclose(
        value(ops.jensen_shannon, p, q, beta=beta),
        [float(js(p[0], q[0], beta))],
        rtol=max(1e-4, 1e-7 / scale**2),
    )


def test_the_ends_are_the_forward_and_the_reverse_divergence():
    for beta, ends in ((0, (P, Q)), (1, (Q, P))):
        result = value(ops.jensen_shannon, P, Q, beta=beta, temperature=2.0)
        expected = value(ops.kl_divergence, *ends, temperature=2.0)
        np.testing.assert_allclose(result, expected, rtol=1e-5)
    # The formula without a case for the ends, divided by what vanishes there.
    near = value(ops.jensen_shannon, P, Q, beta=1e-4) / 1e-4
    np.testing.assert_allclose(
        near, value(ops.kl_divergence, P, Q), rtol=1e-2, atol=1e-3
    )


def test_activations_need_not_sum_to_one():
    a, b = np.exp(P), np.exp(Q)
    p, q = a.astype("float64"), b.astype("float64")

    def generalized(p, q):
        return np.sum(rel_entr(p, q) - p + q, axis=1)

    np.testing.assert_allclose(
        value(ops.kl_divergence, a, b, from_logits=False),
        generalized(p, q),
        rtol=1e-5,
    )
    m = 0.3 * p + 0.7 * q
    np.testing.assert_allclose(
        value(ops.jensen_shannon, a, b, beta=0.3, from_logits=False),
        0.3 * generalized(p, m) + 0.7 * generalized(q, m),
        rtol=1e-5,
    )


@pytest.mark.parametrize("function", [*FUNCTIONS, ops.symmetric_kl])
def test_of_probabilities_they_are_those_of_the_logits(function):
    p, q = softmax(P, axis=1), softmax(Q, axis=1)
    np.testing.assert_allclose(
        value(function, p, q, from_logits=False), value(function, P, Q),
        rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("function", [*FUNCTIONS, ops.symmetric_kl])
def test_an_activation_of_zero_has_a_finite_gradient(function):
    p, q = np.float32([[0, 1]]), np.float32([[2, 1]])
    for f, x in (
        (lambda x: function(x, q, from_logits=False), p),
        (lambda x: function(q, x, from_logits=False), p),
    ):
        grad, result = gradient(f, x)
        assert np.isfinite(grad).all()
        assert result > 0
        assert grad[0, 0] < 0, "the entry should grow towards its partner"


ALL = [*FUNCTIONS, ops.symmetric_kl, ops.pairwise_kl, ops.pairwise_symmetric_kl]


@pytest.mark.parametrize("function", ALL)
def test_probabilities_do_not_pass_for_logits_in_silence(function):
    with pytest.warns(UserWarning, match="from_logits=False") as seen:
        function(softmax(P, axis=1), Q)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        function(P, Q)
        # Not negative, but with another sum than 1.
        function(np.abs(P), np.abs(Q))
        function(softmax(P, axis=1), softmax(Q, axis=1), from_logits=False)
        function(np.eye(4, dtype="float32"), np.zeros((4, 4), "float32"))


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_probabilities_are_noticed_along_any_axis(axis):
    p = softmax(P, axis=axis)
    with pytest.warns(UserWarning, match="from_logits=False"):
        ops.kl_divergence(p, Q, axis=axis)


@pytest.mark.parametrize("function", ALL)
def test_negative_activations_are_an_error_or_nan(function):
    p = np.array([[-0.5, 1.0]], "float32")
    with pytest.raises(ValueError, match="from_logits=True"):
        function(p, p, from_logits=False)
    tensor = keras.ops.convert_to_tensor(p)
    assert np.isnan(value(function, tensor, tensor, from_logits=False)).all()


# Among any logits are some that look so.
@pytest.mark.filterwarnings("ignore:.*looks like probabilities")
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3),
)
def test_they_are_distances_of_a_kind(p, q):
    p, q = (np.array([x], "float32") for x in (p, q))
    for function in FUNCTIONS:
        assert value(function, p, p) == 0
        assert value(function, p, q) >= 0
    there, back = (
        value(ops.jensen_shannon, p, q),
        value(ops.jensen_shannon, q, p),
    )
    np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-7)
    assert there <= math.log(2) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("p", "q", "divergence", "shannon"),
    [
        ([0.0, -np.inf, 0.0], [0.0, -np.inf, 0.0], 0, 0),
        ([0.0, -np.inf, 0.0], [0.0, 0.0, 0.0], math.log(1.5), None),
        ([0.0, 0.0, 0.0], [0.0, -np.inf, 0.0], np.inf, None),
        ([0.0, -np.inf, -np.inf], [-np.inf, 0.0, 0.0], np.inf, math.log(2)),
        ([1e5, 0.0, 0.0], [0.0, 1e5, 0.0], 1e5, math.log(2)),
        ([-np.inf] * 3, [0.0, 0.0, 0.0], np.nan, np.nan),
        ([np.nan, 0.0, 0.0], [0.0, 0.0, 0.0], np.nan, np.nan),
    ],
)
def test_masked_and_certain_classes(p, q, divergence, shannon):
    p, q = (np.array([x], "float32") for x in (p, q))
    np.testing.assert_allclose(
        value(ops.kl_divergence, p, q), [divergence], rtol=1e-6, atol=1e-7
    )
    if shannon is None:
        a, b = softmax(p.astype("float64")), softmax(q.astype("float64"))
        m = (a + b) / 2
        shannon = (rel_entr(a, m) + rel_entr(b, m)).sum() / 2
    np.testing.assert_allclose(
        value(ops.jensen_shannon, p, q), [shannon], rtol=1e-6, atol=1e-7
    )


def leaning(a, b):
    return ops.jensen_shannon(a, b, beta=0.2)


@pytest.mark.float64
@pytest.mark.parametrize("function", [*FUNCTIONS, leaning])
def test_gradients_of_both_sides_are_those_of_finite_differences(function):
    # In the last row one entry is exactly equal, in the one before all are.
    p = np.append(P[:2, :3], [[0.0, 1, 2], [0, 1, 2]], axis=0)
    q = np.append(Q[:2, :3], [[0.0, 1, 2], [0, 2, 1]], axis=0)
    p, q = p.astype("float64"), q.astype("float64")
    for f, x in (
        (lambda x: function(x, q), p),
        (lambda x: function(p, x), q),
    ):
        grad, _ = gradient(f, x)
        expected = finite_differences(f, x)
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


def test_the_students_gradient_is_t_times_the_difference():
    for temperature in (1.0, 5.0):
        p, q = (softmax(x / temperature, axis=1) for x in (P, Q))
        grad, _ = gradient(
            lambda x, t=temperature: ops.kl_divergence(P, x, temperature=t), Q
        )
        np.testing.assert_allclose(
            grad, temperature * (q - p), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_masked_and_distant_classes_spoil_no_gradient(function):
    p = np.array([[0.0, -np.inf, 1.0], [1e4, 0.0, 0.0]], "float32")
    q = np.array([[2.0, -np.inf, 1.0], [0.0, 1e4, 0.0]], "float32")
    for f, x in (
        (lambda x: function(x, q), p),
        (lambda x: function(p, x), q),
    ):
        grad, _ = gradient(f, x)
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_input_raises(function):
    for p, q, message in [
        (P, Q[:, :3], "same shape"),
        (P, Q[:4], "same shape"),
        (P.astype("int32"), Q, "floating point"),
        (P[:, :1], Q[:, :1], "always the same"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(p, q)
    with pytest.raises(ValueError, match="`temperature`"):
        function(P, Q, temperature=0)
    with pytest.raises(ValueError, match="`temperature` divides logits"):
        function(np.exp(P), np.exp(Q), temperature=2, from_logits=False)
    for beta in (-0.1, 1.1, None):
        with pytest.raises(ValueError, match="`beta`"):
            ops.jensen_shannon(P, Q, beta=beta)


def test_low_precision_is_computed_in_float32():
    p, q = (keras.ops.cast(x, "bfloat16") for x in (P, Q))
    for function in FUNCTIONS:
        result = function(p, q)
        assert keras.backend.standardize_dtype(result.dtype) == "float32"
        expected = value(function, to_numpy(p), to_numpy(q))
        np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-6)
