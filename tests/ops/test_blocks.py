"""Every entry once, and written where it belongs."""

import numpy as np
import pytest
from keras import ops

from keras_xent.ops import blocks
from tests.testing import (
    BACKEND,
    assert_all_close,
    normal,
    only_on,
    to_numpy,
)

tensor = ops.convert_to_tensor


def visits(length, size):
    """How often each entry is in a block, and the longest block."""
    each = blocks.Blocks(length, size)

    def visit(state, start, size):
        seen, longest = state
        part = blocks.cut(seen, 0, start, size)
        seen = blocks.put(seen, 0, start, part + 1)
        size = ops.convert_to_tensor(size, dtype="int32")
        return seen, ops.maximum(longest, size)

    zero = ops.zeros((), dtype="int32")
    return each.loop(visit, (ops.zeros(length, dtype="int32"), zero))


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 100])
@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_blocks_cover_every_entry_once(length, size):
    seen, longest = visits(length, size)
    np.testing.assert_array_equal(to_numpy(seen), 1)
    assert int(longest) == min(length, size)


@only_on("tensorflow", "only there an axis is of unknown length")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("length", [0, 1, 3, 7])
def test_blocks_cover_an_axis_of_unknown_length(length, jit_compile):
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec([None])], jit_compile=jit_compile
    )
    def total(x):
        each = blocks.Blocks(tf.shape(x)[0], 3)

        def add(state, start, size):
            return state + ops.sum(blocks.cut(x, 0, start, size))

        return each.loop(add, ops.zeros(()))

    numbers = 2.0 ** np.arange(length, dtype="float32")
    assert float(total(tensor(numbers))) == 2**length - 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("start", "size"), [(0, 2), (1, 2), (2, 1), (3, 0)])
def test_a_part_is_cut_out_and_put_back(axis, start, size):
    whole, part = normal(3, 4, 5), normal(3, 4, 5, seed=1)
    index = [slice(None)] * 3
    index[axis] = slice(start, start + size)
    index = tuple(index)
    cut = blocks.cut(tensor(whole), axis, start, size)
    np.testing.assert_array_equal(to_numpy(cut), whole[index])

    expected = whole.copy()
    expected[index] = part[index]
    result = blocks.put(tensor(whole.copy()), axis, start, tensor(part[index]))
    np.testing.assert_array_equal(to_numpy(result), expected)


@pytest.mark.parametrize("rows", [(0, 0), (1, 2), (2, 3), (5, 0), (0, 5)])
def test_some_rows_go_back_among_zeros(rows):
    whole, (start, size) = normal(5, 3), rows
    some = blocks.some_rows(tensor(whole), rows)
    np.testing.assert_array_equal(to_numpy(some), whole[start : start + size])
    back = blocks.all_rows(some, rows, tensor(whole))
    expected = np.zeros_like(whole)
    expected[start : start + size] = whole[start : start + size]
    np.testing.assert_array_equal(to_numpy(back), expected)


def test_all_rows_are_themselves():
    x = tensor(normal(5, 3))
    assert blocks.some_rows(x, None) is x
    assert blocks.all_rows(x, None, x) is x


def test_what_is_put_takes_the_dtype_of_the_whole():
    whole = ops.zeros(4, dtype="bfloat16")
    result = blocks.put(whole, 0, 1, tensor(np.array([1.001], "float32")))
    np.testing.assert_array_equal(to_numpy(result), [0, 1, 0, 0])
    assert ops.dtype(result) == "bfloat16"


def no_gradient(function):
    """`function` where nothing is recorded to be differentiated."""
    if BACKEND != "torch":
        return function
    import torch

    return torch.no_grad()(function)


UPDATES = {
    "add_product": (blocks.add_product, lambda x, a, b: x + a @ b, 3),
    "subtract": (blocks.subtract, lambda x, y: x - y, 2),
    "multiply": (blocks.multiply, lambda x, y: x * y, 2),
    "exp": (blocks.exp, np.exp, 1),
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("recorded", [False, True])
def test_an_update_in_place_is_the_update(name, recorded):
    function, truth, count = UPDATES[name]
    arrays = [normal(4, 4, seed=seed) for seed in range(count)]
    expected = truth(*arrays)
    how = (lambda x: x) if recorded else no_gradient
    given = [tensor(x.copy()) for x in arrays]
    result = how(function)(*given)
    assert_all_close([result], [expected])
    if BACKEND == "torch":
        # What is recorded is left as it is.
        assert (result.data_ptr() == given[0].data_ptr()) != recorded
    for x, array in list(zip(given, arrays, strict=True))[1:]:
        np.testing.assert_array_equal(to_numpy(x), array)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_product_is_added_to_a_total_of_its_own_dtype(recorded):
    a, b = (np.round(3 * normal(4, 4, seed=seed)) for seed in range(2))
    total = normal(4, 4, seed=2)
    low = [ops.cast(tensor(x), "bfloat16") for x in (a, b)]
    how = (lambda x: x) if recorded else no_gradient
    result = how(blocks.add_product)(tensor(total.copy()), *low)
    # Whole numbers: the product is exact.
    np.testing.assert_array_equal(to_numpy(result), total + a @ b)
