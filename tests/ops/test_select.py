import keras
import numpy as np
import pytest

from keras_xent.ops.select import where
from tests.testing import BACKEND, to_numpy

CONDITION = np.array([True, False, True])
DTYPES = ["float16", "bfloat16", "float32", "int32"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number_first", [True, False])
def test_a_number_is_as_a_tensor_full_of_it(dtype, number_first):
    x = keras.ops.cast([1, 2, 3], dtype)
    args = (7, x) if number_first else (x, 7)
    result = where(keras.ops.convert_to_tensor(CONDITION), *args)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    args = (7, [1, 2, 3]) if number_first else ([1, 2, 3], 7)
    expected = np.where(CONDITION, *args)
    result = to_numpy(keras.ops.cast(result, "float32"))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        ("int32", 1.5),
        ("int32", np.nan),
        ("bool", 2),
        ("bool", np.nan),
    ],
)
def test_a_number_that_the_dtype_cannot_hold_is_kept(dtype, number):
    x = keras.ops.cast([1, 0, 1], dtype)
    result = where(keras.ops.convert_to_tensor(CONDITION), x, number)
    result = to_numpy(keras.ops.cast(result, "float32"))
    np.testing.assert_array_equal(result, [1, number, 1])


def test_two_tensors_are_what_keras_makes_of_them():
    x, y = np.arange(3.0), np.ones(3)
    np.testing.assert_array_equal(
        to_numpy(where(CONDITION, x, y)), np.where(CONDITION, x, y)
    )


def test_no_number_is_copied_from_the_host():
    """With a GPU each copy is a wait."""
    if BACKEND != "torch":
        pytest.skip("the others compile")
    import torch

    class Watch(torch.overrides.TorchFunctionMode):
        copies = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            tensors = all(isinstance(x, torch.Tensor) for x in args[:1])
            if function in (torch.as_tensor, torch.tensor) and not tensors:
                self.copies += 1
            return function(*args, **(kwargs or {}))

    condition = keras.ops.convert_to_tensor(CONDITION)
    x = keras.ops.ones(3)
    with Watch() as ours:
        where(condition, x, 0.0)
        where(condition, -np.inf, x)
    with Watch() as of_keras:
        keras.ops.where(condition, x, 0.0)
    assert ours.copies == 0
    assert of_keras.copies == 1
