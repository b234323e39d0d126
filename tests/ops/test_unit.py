"""Unit vectors against NumPy in float64."""

import numpy as np
import pytest
from keras import ops

from keras_xent.ops.unit import unit_rows, unit_rows_back
from tests.testing import gradient, normal, to_numpy


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_rows_of_any_scale_have_length_one(scale):
    x = normal(5, 3) * np.float32(scale)
    wide = x.astype("float64")
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(to_numpy(unit_rows(x)), expected, rtol=1e-6)


def test_the_last_axis_is_that_of_the_vectors():
    x = normal(6, 4)
    np.testing.assert_array_equal(
        to_numpy(unit_rows(x.reshape(2, 3, 4))),
        to_numpy(unit_rows(x)).reshape(2, 3, 4),
    )


def test_a_row_of_zeros_stays_one_and_its_gradient_is_finite():
    x = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    assert to_numpy(unit_rows(x))[0].tolist() == [0.0, 0.0]
    slope, _ = gradient(unit_rows, x)
    assert np.isfinite(slope).all()


def test_the_gradient_is_at_right_angles_to_the_row():
    x = normal(5, 3)
    others = ops.convert_to_tensor(normal(5, 3, seed=1))
    slope, _ = gradient(lambda x: unit_rows(x) * others, x)
    np.testing.assert_allclose(np.sum(slope * x, axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_gradient_by_hand_is_that_of_the_vectors(axis, scale):
    x = normal(5, 3) * np.float32(scale)
    x[1], x[:, 1] = 0, 0
    upstream = ops.convert_to_tensor(normal(5, 3, seed=1))
    expected, _ = gradient(lambda x: unit_rows(x, axis) * upstream, x)
    found = unit_rows_back(upstream, ops.convert_to_tensor(x), axis)
    np.testing.assert_allclose(
        to_numpy(found), expected, rtol=1e-4, atol=1e-6 / scale
    )
