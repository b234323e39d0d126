"""What a product becomes, in predict and in training, and back."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_xent.ops.logits import LinearLogits, Logits
from keras_xent.ops.targets import OneTarget
from tests.testing import (
    assert_all_close,
    finite_differences,
    normal,
    to_numpy,
)

tensor = ops.convert_to_tensor

ROWS, COLUMNS = 5, 7
BIAS = normal(COLUMNS, seed=1)
OUT = np.arange(COLUMNS) == 2
MASKED = np.where(OUT, -np.inf, BIAS).astype("float32")
TARGETS = OneTarget(tensor(np.array([0, 6, 3, 3, 1], "int32")))


def formula(products, bias=None, softcap=None):
    x = products if bias is None else products + bias
    return x if softcap is None else softcap * np.tanh(x / softcap)


def described(bias=None, softcap=None):
    return LinearLogits(None if bias is None else tensor(bias), softcap)


def masked(bias, logits):
    """A class with a bias of −inf stays out, whatever the cap."""
    if bias is None:
        return logits
    return np.where(bias == -np.inf, -np.inf, logits)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("bias", [None, BIAS, MASKED], ids=["", "b", "masked"])
@pytest.mark.parametrize("shape", [(), (ROWS,), (2, 3), (0,)], ids=str)
def test_logits_are_the_formula(bias, softcap, shape):
    products = normal(*shape, COLUMNS, scale=3)
    expected = masked(bias, formula(products, bias, softcap))
    logits = described(bias, softcap)
    assert_all_close([logits.dense(tensor(products))], [expected])
    if shape == (ROWS,):
        block = logits.block(tensor(products.copy()), TARGETS)
        assert_all_close([block], [expected])


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_those_of_chosen_columns_are_chosen_logits(softcap):
    products, chosen = normal(ROWS, COLUMNS, scale=3), [3, 0, 2, 3]
    logits = described(MASKED, softcap)
    result = logits.take(tensor(chosen)).dense(tensor(products[:, chosen]))
    expected = to_numpy(logits.dense(tensor(products)))[:, chosen]
    np.testing.assert_array_equal(to_numpy(result), expected)


@pytest.mark.float64
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("bias", [None, BIAS], ids=["", "b"])
def test_back_is_the_derivative(bias, softcap):
    products, weight = (
        normal(ROWS, COLUMNS, seed=seed).astype("float64") for seed in (2, 3)
    )
    bias = None if bias is None else bias.astype("float64")

    def weighted(products, bias):
        return tensor(weight) * LinearLogits(bias, softcap).dense(products)

    fixed = None if bias is None else tensor(bias)
    logits = LinearLogits(fixed, softcap)
    made = logits.block(tensor(products.copy()), TARGETS)
    gradient, learned = logits.back(
        tensor(weight), tensor(products), made, TARGETS
    )
    expected = finite_differences(lambda x: weighted(x, fixed), products)
    np.testing.assert_allclose(to_numpy(gradient), expected, atol=1e-8)
    if bias is None:
        assert learned == {}
        return
    expected = finite_differences(lambda x: weighted(tensor(products), x), bias)
    np.testing.assert_allclose(to_numpy(learned["bias"]), expected, atol=1e-8)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_a_masked_class_passes_no_gradient(softcap):
    logits = described(MASKED, softcap)
    products = tensor(normal(ROWS, COLUMNS))
    made = logits.block(tensor(normal(ROWS, COLUMNS).copy()), TARGETS)
    # The gradient of a logit of −inf is 0 from any reduction.
    weight = np.where(OUT, 0, normal(ROWS, COLUMNS, seed=3))
    gradient, learned = logits.back(
        tensor(weight.astype("float32")), products, made, TARGETS
    )
    for x in gradient, learned["bias"]:
        x = to_numpy(x)
        np.testing.assert_array_equal(x[..., 2], 0)
        assert np.all(np.isfinite(x))


@pytest.mark.float64
def test_a_soft_cap_is_as_exact_as_float64():
    """Keras's own tanh is float32 on JAX."""
    products = np.array([0.0, 1e-9, -1e-3, 0.3, -2.0, 40.0, -800.0])
    result = LinearLogits(softcap=1.5).dense(tensor(products))
    expected = 1.5 * np.tanh(products / 1.5)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_of_predict_keep_the_dtype_of_the_products(dtype):
    products = ops.cast(tensor(normal(ROWS, COLUMNS)), dtype)
    result = described(BIAS, 1.5).dense(products)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    expected = formula(to_numpy(products), BIAS, 1.5)
    np.testing.assert_allclose(to_numpy(result), expected, atol=0.02)


def test_masked_columns_are_named():
    assert Logits().masked() is None
    assert described().masked() is None
    np.testing.assert_array_equal(to_numpy(described(MASKED).masked()), OUT)


def test_products_are_logits_if_nothing_else_is_said():
    products, weight = normal(ROWS, COLUMNS), tensor(normal(ROWS, COLUMNS))
    logits = Logits()
    for made in (
        logits.dense(tensor(products)),
        logits.block(tensor(products), TARGETS),
    ):
        np.testing.assert_array_equal(to_numpy(made), products)
    assert logits.back(weight, products, products, TARGETS) == (weight, {})
