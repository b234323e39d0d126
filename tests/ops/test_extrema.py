"""Maximum and minimum of any batch, an empty one too."""

import keras
import numpy as np
import pytest

from keras_xent.ops.extrema import largest, smallest
from tests.testing import normal, to_numpy


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("start", [-np.inf, 0.3, np.inf])
def test_they_are_those_of_numpy(axis, keepdims, start):
    x = normal(4, 3)
    options = {"axis": axis, "keepdims": keepdims}
    for mine, truth in ((largest, np.max), (smallest, np.min)):
        result = to_numpy(
            mine(keras.ops.convert_to_tensor(x), start, **options)
        )
        np.testing.assert_array_equal(
            result, truth(x, initial=np.float32(start), **options)
        )


@pytest.mark.float64
def test_float64_stays_what_it_is():
    x = np.array([[1 + 1e-12, 1.0], [-3.0, 0.1]])
    for function, truth in ((largest, np.max), (smallest, np.min)):
        result = to_numpy(function(keras.ops.convert_to_tensor(x), 0.5, axis=1))
        assert result.dtype == np.float64
        np.testing.assert_array_equal(result, truth(x, axis=1, initial=0.5))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_stays_what_it_is(dtype):
    x = keras.ops.cast(normal(4, 3), dtype)
    for function in (largest, smallest):
        result = function(x, 0.0, axis=1)
        assert keras.backend.standardize_dtype(result.dtype) == dtype


@pytest.mark.parametrize("keepdims", [False, True])
def test_without_rows_there_is_a_start_for_each_of_them(keepdims):
    x = keras.ops.zeros((0, 3))
    for function in (largest, smallest):
        assert function(x, 0, axis=1, keepdims=keepdims).shape == (
            (0, 1) if keepdims else (0,)
        )
        assert float(function(x, 0.5)) == 0.5
