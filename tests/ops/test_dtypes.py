"""Dtypes have one name on all backends, and sums are made in wide ones."""

import numpy as np
import pytest
from keras import ops

from keras_xent.ops import dtypes

NAMES = ["float16", "bfloat16", "float32", "int32", "bool"]


@pytest.mark.parametrize("name", NAMES)
def test_the_dtype_of_a_tensor_goes_by_its_name(name):
    assert dtypes.dtype_of(ops.zeros((2,), dtype=name)) == name


def test_an_array_has_a_name_too():
    assert dtypes.dtype_of(np.zeros(2, "float64")) == "float64"


@pytest.mark.parametrize("name", NAMES)
def test_sums_are_made_in_float32_at_least(name):
    assert dtypes.sums_dtype(ops.zeros((2,), dtype=name).dtype) == "float32"


def test_sums_of_float64_stay_in_it():
    assert dtypes.sums_dtype(np.dtype("float64")) == "float64"


def test_what_is_of_a_dtype_is_not_cast_to_it():
    x = ops.ones((2,), dtype="float32")
    assert dtypes.cast(x, "float32") is x
    assert dtypes.dtype_of(dtypes.cast(x, "float16")) == "float16"
