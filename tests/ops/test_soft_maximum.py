import keras
import numpy as np
import pytest

from keras_xent.ops.soft_maximum import log_one_plus_sum
from tests.testing import gradient, normal, to_numpy


@pytest.mark.parametrize("scale", [1e-3, 1.0, 80.0, 1e4])
def test_equals_its_formula_at_any_magnitude(scale):
    x = scale * normal(5, 6)
    counted = normal(5, 6, seed=1) > 0
    # log Σ exp, with a zero for the 1.
    terms = np.where(counted, x.astype("float64"), -np.inf)
    expected = np.logaddexp.reduce(
        np.concatenate([terms, np.zeros((5, 1))], axis=1), axis=1
    )
    result = log_one_plus_sum(
        keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(counted)
    )
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-5, atol=1e-6)


def test_what_does_not_count_has_no_gradient_whatever_it_holds():
    x = np.array([[1.0, np.nan, np.inf], [np.nan, -np.inf, 1e30]], "float32")
    counted = keras.ops.convert_to_tensor([[True, False, False], [False] * 3])
    grad, value = gradient(lambda x: log_one_plus_sum(x, counted), x)
    np.testing.assert_allclose(value, [np.log1p(np.e), 0], rtol=1e-6)
    np.testing.assert_allclose(
        grad, [[1 / (1 + np.exp(-1)), 0, 0], [0, 0, 0]], rtol=1e-6
    )
