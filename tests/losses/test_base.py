"""What the losses of the rows are multiplied with, as Keras reduces them."""

import keras
import numpy as np
import pytest

from keras_xent.losses.base import RowLoss
from tests.testing import BACKEND, gradients, normal, only_on, to_numpy

ROWS = 6
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"]
WEIGHTS = {
    "none": None,
    "some": np.array([1, 0, 2, 0.5, 3, 0.25], "float32"),
    "negative": np.array([-1, -2, -3, -1, -1, -1], "float32"),
    "cancel": np.array([1, -1, 2, -2, 0.5, -0.5], "float32"),
    "cancel_where_masked": np.array([1, 5, -1, 0, 7, 0], "float32"),
    "zero": np.zeros(ROWS, "float32"),
    "tiny": np.full(ROWS, 1e-30, "float32"),
}
MASKS = {
    "none": None,
    "some": np.array([True, False, True, True, False, True]),
    "nobody": np.zeros(ROWS, bool),
}


def row_loss(reduction):
    return RowLoss(reduction=reduction, name="loss", dtype=None)


def tensor(x):
    return None if x is None else keras.ops.convert_to_tensor(x)


def scales_of(reduction, weight=None, mask=None, shape=(ROWS,)):
    ones = keras.ops.ones(shape, dtype="float32")
    loss = row_loss(reduction)
    return to_numpy(loss._row_scales(ones, tensor(weight), tensor(mask)))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("mask", MASKS)
def test_the_scales_of_the_rows_are_the_slope_of_keras_reduction(
    reduction, weight, mask
):
    weight, mask = WEIGHTS[weight], MASKS[mask]

    def reduced(losses):
        # Keras changes weights in place.
        given = tensor(None if weight is None else weight.copy())
        return row_loss(reduction)._reduce(losses, given, tensor(mask))

    losses = normal(ROWS)
    (slope,), value = gradients(reduced, losses)
    scales = scales_of(reduction, weight, mask)
    slope = to_numpy(slope)
    np.testing.assert_allclose(scales, slope, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(
        scales @ losses, to_numpy(value), rtol=1e-4, atol=1e-37
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_of_no_rows_there_are_no_scales(reduction, shape):
    for weight in (None, np.zeros(shape, "float32")):
        assert scales_of(reduction, weight, None, shape).shape == shape


@pytest.mark.float64
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_they_are_of_the_dtype_of_the_losses(reduction):
    ones = keras.ops.ones((3,), dtype="float64")
    weight = tensor(np.array([1, 2, 4], "float32"))
    scales = to_numpy(row_loss(reduction)._row_scales(ones, weight, None))
    number = {"sum": 1, "mean_with_sample_weight": 7}.get(reduction, 3)
    # Of float64 numbers, PyTorch's `ops.divide_no_nan` is float32.
    rtol = 1e-7 if BACKEND == "torch" else 1e-15
    np.testing.assert_allclose(scales, np.array([1, 2, 4]) / number, rtol)


@only_on("tensorflow", "only its sizes are unknown")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_number_of_rows_may_be_unknown(reduction):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)] * 2)
    def scales(ones, weight):
        return row_loss(reduction)._row_scales(ones, weight, None)

    weight = WEIGHTS["some"]
    result = scales(np.ones(ROWS, "float32"), weight)
    np.testing.assert_allclose(result, scales_of(reduction, weight), 1e-6)
