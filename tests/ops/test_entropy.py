"""Entropy against scipy, in every unit, at the edges of probability."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from keras_xent import ops
from tests.testing import finite_differences, gradient, normal, to_numpy

LOGITS = normal(4, 3, 6, scale=4.0)


def value(x, from_logits=True, unit="nats", axis=-1):
    return to_numpy(
        ops.entropy(x, from_logits=from_logits, unit=unit, axis=axis)
    )


@pytest.mark.parametrize("unit", ["nats", "bits"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_it_is_that_of_scipy(unit, axis):
    p = softmax(LOGITS.astype("float64"), axis=axis)
    base = {"nats": None, "bits": 2}[unit]
    expected = scipy_entropy(p, axis=axis, base=base)
    for x, from_logits in ((LOGITS, True), (p.astype("float32"), False)):
        result = value(x, from_logits, unit, axis)
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-6)


def test_an_even_choice_is_one_bit_and_certainty_none():
    assert value([5.0, 5.0], unit="bits") == 1
    assert value([0.5, 0.5], False, "bits") == 1
    assert value([0.0, 1.0], False) == 0
    assert value([1e4, -1e4, -np.inf]) == 0
    absent = value([3.0, -np.inf, 3.0, 3.0], unit="bits")
    assert absent == pytest.approx(np.log2(3), rel=1e-6)


def test_low_precision_is_computed_in_float32():
    import keras

    low = keras.ops.cast(LOGITS, "bfloat16")
    result = ops.entropy(low)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    expected = value(to_numpy(low))
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-6)


@pytest.mark.float64
def test_the_gradient_is_that_of_finite_differences():
    x = LOGITS[:2].astype("float64")
    grad, _ = gradient(ops.entropy, x)
    expected = finite_differences(ops.entropy, x)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("x", "from_logits"),
    [([2.0, 0.0, -np.inf], True), ([0.5, 0.5, 0.0], False)],
)
def test_absent_classes_spoil_no_gradient_and_have_none(x, from_logits):
    grad, _ = gradient(
        lambda x: ops.entropy(x, from_logits=from_logits),
        np.array(x, "float32"),
    )
    assert np.isfinite(grad).all()
    assert grad[2] == 0


def test_what_is_no_distribution_is_nan_on_a_device():
    import keras

    rows = [[0.5, 0.4], [1.5, -0.5], [0.3, 0.7], [np.nan, 1.0]]
    result = value(keras.ops.convert_to_tensor(rows), False)
    assert np.isnan(result).tolist() == [True, True, False, True]
    assert np.isnan(value([-np.inf, -np.inf]))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([1, 2],), "floating point"),
        (([1.0],), "one logit"),
        (([0.5, 0.4], False), r"sum is 0\.9.*from_logits=True"),
        (([1.5, -0.5], False), r"\[0, 1\].*from_logits=True"),
        (([0.5, 0.5], False, "digits"), "'bits'"),
        (([[0.5, 0.5]], True, "bits", 2), "`axis`"),
    ],
)
def test_wrong_input_raises(args, message):
    with pytest.raises(ValueError, match=message):
        value(*args)
