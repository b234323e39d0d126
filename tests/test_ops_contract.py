"""What every operation owes its user, asked of every operation."""

import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.contract import FLOATS, NUMBERS, OPS
from tests.testing import (
    assert_all_close,
    autocast,
    only_on,
    quick,
    to_numpy,
)

each_op = pytest.mark.parametrize("op", OPS, ids=str)
ROWS = 4


def call(op, arrays):
    """The results of an operation, one or several, as a list."""
    return keras.tree.flatten(quick(op)(*map(tensor, arrays)))


def tensor(array, dtype=None):
    return keras.ops.convert_to_tensor(array, dtype=dtype)


def low(op, dtype):
    """Tensors for an operation, its floats in some dtype."""
    return [
        tensor(array, dtype if kind in FLOATS + NUMBERS else None)
        for kind, array in zip(op.data, op.arrays(ROWS), strict=True)
    ]


def dtypes(results):
    return [keras.backend.standardize_dtype(x.dtype) for x in results]


def test_all_operations_are_under_contract():
    assert [str(op) for op in OPS] == sorted(ops.__all__)


@each_op
def test_is_a_step_of_a_functional_model(op, tmp_path):
    arrays = op.arrays(ROWS)
    expected = call(op, arrays)
    inputs = [
        keras.Input(x.shape[1:], dtype=keras.backend.standardize_dtype(x.dtype))
        for x in arrays
    ]
    outputs = keras.tree.flatten(op(*inputs))
    assert dtypes(outputs) == dtypes(expected)
    for output, result in zip(outputs, expected, strict=True):
        assert len(output.shape) == len(result.shape)
        assert all(
            size in (None, known)
            for size, known in zip(output.shape, result.shape, strict=True)
        )
    keras.Model(inputs, outputs).save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    results = keras.tree.flatten(quick(model)([tensor(x) for x in arrays]))
    assert_all_close(results, expected)


@each_op
@pytest.mark.parametrize(
    "dtype",
    [
        "float16",
        "bfloat16",
        pytest.param("float64", marks=pytest.mark.float64),
    ],
)
def test_computes_in_float32_at_least(op, dtype):
    if not set(op.data) & set(FLOATS + NUMBERS):
        pytest.skip("takes no floats")
    op = op.exact()
    results = call(op, low(op, dtype))
    wide = "float64" if dtype == "float64" else "float32"
    assert dtypes(results) == [wide] * len(results)
    # The same numbers as from the same numbers in a wider dtype.
    given = [tensor(to_numpy(x)) for x in low(op, dtype)]
    assert_all_close(results, call(op, given))


@each_op
@pytest.mark.device
@only_on("torch", "autocast is PyTorch's")
def test_autocast_changes_nothing(op):
    op = op.exact()
    *rest, last = map(tensor, op.arrays(ROWS))

    def outcome():
        if not op.gradient:
            return keras.tree.flatten(op(*rest, last))
        x = last.clone().requires_grad_(True)
        losses = op(*rest, x)
        # Where PyTorch wants the backward pass: outside. A gradient of our own
        # need not care.
        with autocast(inside and op.own_gradient):
            losses.sum().backward()
        return losses.detach(), x.grad

    inside = False
    expected = outcome()
    inside = True
    with autocast():
        results = outcome()
    for result, truth in zip(results, expected, strict=True):
        np.testing.assert_array_equal(to_numpy(result), to_numpy(truth))


@each_op
def test_of_no_rows_is_finite_or_empty(op):
    # No temperature fits no rows.
    defined = op.function is not ops.fit_temperature
    for result in call(op, op.arrays(0)):
        assert np.all(np.isfinite(to_numpy(result)) == defined)


@each_op
def test_integers_for_floats_are_an_error(op):
    for i, kind in enumerate(op.data):
        if kind in FLOATS:
            arrays = op.arrays(ROWS)
            arrays[i] = arrays[i].astype("int32")
            with pytest.raises(ValueError, match="Received"):
                op(*map(tensor, arrays))


@each_op
def test_data_of_unlike_shapes_is_an_error(op):
    if len(op.data) == 1:
        pytest.skip("has nothing to be unlike")
    for i in range(len(op.data)):
        arrays = op.arrays(ROWS)
        for wrong in (np.concatenate([arrays[i], arrays[i][:1]]), arrays[i][0]):
            given = [*arrays[:i], wrong, *arrays[i + 1 :]]
            with pytest.raises(ValueError, match="Received"):
                op(*map(tensor, given))


@each_op
def test_data_with_too_few_axes_is_an_error(op):
    entrywise = op.function in (ops.sigmoid_crossentropy, ops.softplus_hinge)
    if entrywise or not set(op.data) & set(FLOATS + NUMBERS):
        pytest.skip("takes any shape")
    arrays = [array.ravel()[0] for array in op.arrays(ROWS)]
    with pytest.raises(ValueError, match="Received"):
        op(*map(tensor, arrays))
    inputs = [keras.KerasTensor((), dtype=str(x.dtype)) for x in arrays]
    with pytest.raises(ValueError, match="Received"):
        op(*inputs)
