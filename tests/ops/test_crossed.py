"""Both directions from one pass, against all products at once."""

import keras
import numpy as np
import pytest

from keras_xent import _keras
from keras_xent._types import Tensor
from keras_xent.ops.blockwise import What, row_terms
from keras_xent.ops.crossed import Crossed, Crossing, Mirrored
from keras_xent.ops.description import description, for_all
from keras_xent.ops.logits import Logits
from keras_xent.ops.reductions import OnlineSoftmax, PairwiseSigmoid
from keras_xent.ops.targets import SharedIds
from tests.testing import assert_all_close, gradients, normal, to_numpy

ops = keras.ops
tensor = ops.convert_to_tensor
ROWS, COLUMNS, SIZE = 5, 7, 3
ROW_IDS = np.array([1, 2, 5, 1, 0], "int32")
COLUMN_IDS = np.array([1, 0, 2, 1, 1, 5, 2], "int32")
WEIGHT = tensor(normal(ROWS + COLUMNS, seed=8))
REDUCTIONS = {"softmax": OnlineSoftmax(), "sigmoid": PairwiseSigmoid()}
each_reduction = pytest.mark.parametrize("name", REDUCTIONS)
each_block_size = pytest.mark.parametrize("block_size", [2, 50])


@description
class Shifted(Logits):
    """product + shift, which is learned."""

    learned = ("shift",)

    shift: Tensor | None = for_all()

    def dense(self, products):
        return products + self.shift

    def back(self, gradient, products, logits, targets):
        return gradient, {"shift": ops.sum(gradient)}


def terms(left, right, shift, row_ids, column_ids, reduction, block_size):
    """Of a pass over the rows alone, which has tests of its own."""
    targets = SharedIds.of(tensor(row_ids), tensor(column_ids))
    what = What(Shifted(shift), targets, reduction)
    return row_terms(left, right, what, columns=0, block_size=block_size)


@each_reduction
@each_block_size
def test_each_direction_is_that_of_a_pass_of_its_own(name, block_size):
    reduction = REDUCTIONS[name]

    def crossed(left, right, shift):
        what = Crossed(
            Shifted(shift),
            SharedIds.of(tensor(ROW_IDS), tensor(COLUMN_IDS)),
            reduction,
            SharedIds.of(tensor(COLUMN_IDS), tensor(ROW_IDS)),
        )
        both = Crossing(left, right, what, 0, block_size, None)
        found = _keras.own_gradient(both.per_row)(*both.arguments)
        return ops.sum(found[:, 0] * WEIGHT)

    def one_by_one(left, right, shift):
        rows = terms(left, right, shift, ROW_IDS, COLUMN_IDS, reduction, None)
        columns = terms(
            right, left, shift, COLUMN_IDS, ROW_IDS, reduction, None
        )
        return ops.sum(ops.concatenate([rows[0], columns[0]]) * WEIGHT)

    arrays = normal(ROWS, SIZE), normal(COLUMNS, SIZE, seed=1), np.float32(0.5)
    results, value = gradients(crossed, *arrays)
    expected, truth = gradients(one_by_one, *arrays)
    assert_all_close([value], [truth])
    assert_all_close(results, expected, rtol=1e-4, atol=1e-5)


@each_reduction
@each_block_size
def test_a_matrix_with_itself_is_that_of_two_equal_ones(name, block_size):
    reduction = REDUCTIONS[name]

    def mirrored(x, shift):
        targets = SharedIds.of(tensor(COLUMN_IDS), tensor(COLUMN_IDS))
        what = Crossed(Shifted(shift), targets, reduction, targets)
        both = Mirrored(x, x, what, 0, block_size, None)
        function = _keras.own_gradient(both.per_row)
        return ops.sum(
            function(x, *both.arguments[2:])[:, 0] * WEIGHT[:COLUMNS]
        )

    def twice(x, shift):
        rows = terms(x, x, shift, COLUMN_IDS, COLUMN_IDS, reduction, None)
        return ops.sum(rows[0] * WEIGHT[:COLUMNS])

    arrays = normal(COLUMNS, SIZE), np.float32(0.5)
    results, value = gradients(mirrored, *arrays)
    expected, truth = gradients(twice, *arrays)
    assert_all_close([value], [truth])
    assert_all_close(results, expected, rtol=1e-4, atol=1e-5)


def test_columns_are_cut_out_of_both():
    targets = SharedIds.of(tensor(ROW_IDS), tensor(COLUMN_IDS))
    across = SharedIds.of(tensor(COLUMN_IDS), tensor(ROW_IDS))
    what = Crossed(Logits(), targets, OnlineSoftmax(), across).columns(2, 3)
    block = np.zeros((ROWS, 3), "float32")
    expected = np.equal.outer(ROW_IDS, COLUMN_IDS[2:5])
    hits = to_numpy(what.targets.hits(tensor(block)))
    np.testing.assert_array_equal(hits, expected)
    hits = to_numpy(what.across.hits(tensor(block.T.copy())))
    np.testing.assert_array_equal(hits, expected.T)
