"""Which columns are right, against a matrix of which are."""

import numpy as np
import pytest
from keras import ops

from keras_xent.ops.targets import OneTarget, SharedIds
from tests.testing import (
    assert_all_close,
    compiled,
    gradient,
    normal,
    only_on,
    to_numpy,
)

tensor = ops.convert_to_tensor

ROWS, COLUMNS = 5, 7


def one(labels):
    labels = np.array(labels, "int32")
    matrix = np.equal.outer(labels, np.arange(COLUMNS)).astype("float32")
    return OneTarget(tensor(labels)), matrix


def shared(row_ids, column_ids, **options):
    row_ids, column_ids = (np.array(x, "int32") for x in (row_ids, column_ids))
    matrix = np.equal.outer(row_ids, column_ids).astype("float32")
    matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    targets = SharedIds.of(tensor(row_ids), tensor(column_ids), **options)
    return targets, matrix


def without_own(ids):
    """The first of some ids with all of them, none with itself."""
    ids, own = np.array(ids, "int32"), np.arange(ROWS, dtype="int32")
    same = np.equal.outer(ids[:ROWS], ids)
    same &= ~np.eye(ROWS, len(ids), dtype=bool)
    number = same.sum(axis=1).astype("int32")
    matrix = same / np.maximum(number, 1)[:, None]
    targets = SharedIds(*map(tensor, (ids[:ROWS], ids, number, own)))
    return targets, matrix.astype("float32")


COLUMN_IDS = [1, 0, 2, 1, 1, 5, 2]
CASES = {
    "one": lambda: one([0, 6, 3, 3, 1]),
    "diagonal": lambda: one(range(ROWS)),
    # Below, above, and as far off as int32 can say.
    "out_of_range": lambda: one([-1, COLUMNS, 3, -(2**31), 2**31 - 1]),
    "shared": lambda: shared([1, 2, 5, 1, 0], COLUMN_IDS),
    "counted_in_blocks": lambda: shared(
        [1, 2, 5, 1, 0], COLUMN_IDS, block_size=2
    ),
    "without_own": lambda: without_own(COLUMN_IDS),
    "shared_with_none": lambda: shared([9, -1, 1, 8, 0], COLUMN_IDS),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def assert_agrees(targets, matrix):
    """The targets of a block say what the matrix says."""
    logits = normal(*matrix.shape, seed=3)
    amount = normal(len(matrix), seed=4)
    np.testing.assert_array_equal(
        to_numpy(targets.hits(tensor(logits))), matrix > 0
    )
    assert_all_close(
        [targets.pick(tensor(logits))], [np.sum(matrix * logits, axis=1)]
    )
    assert_all_close(
        [targets.add(tensor(logits.copy()), tensor(amount))],
        [logits + amount[:, None] * matrix],
    )


@each_case
def test_they_agree_with_a_matrix(case):
    assert_agrees(*case())


@each_case
def test_a_block_of_them_agrees_with_a_block_of_the_matrix(case):
    targets, matrix = case()
    for rows, columns in [((0, 2), (0, 3)), ((1, 4), (2, 5)), ((4, 1), (6, 1))]:
        block = targets.rows(*rows).columns(*columns)
        (row, height), (column, width) = rows, columns
        part = matrix[row : row + height, column : column + width]
        assert_agrees(block, part)


@only_on("torch", "only there something is added in place")
@each_case
def test_in_place_they_add_the_same(case):
    import torch

    targets, matrix = case()
    with torch.no_grad():
        assert_agrees(targets, matrix)
        block = ops.zeros((ROWS, COLUMNS))
        result = targets.add(block, ops.ones(ROWS))
    if isinstance(targets, OneTarget):
        assert result.data_ptr() == block.data_ptr()


@each_case
def test_what_is_picked_has_its_gradient_where_it_is(case):
    targets, matrix = case()
    weight = normal(ROWS, seed=5)
    result, _ = gradient(
        lambda x: tensor(weight) * targets.pick(x), normal(ROWS, COLUMNS)
    )
    assert_all_close([result], [weight[:, None] * matrix])


@each_case
def test_a_masked_logit_that_is_not_right_does_not_matter(case):
    targets, matrix = case()
    logits = np.where(matrix > 0, normal(ROWS, COLUMNS), -np.inf)
    picked = to_numpy(targets.pick(tensor(logits.astype("float32"))))
    finite = np.where(matrix > 0, logits, 0)
    expected = np.sum(matrix * finite, axis=1)
    np.testing.assert_allclose(picked, expected, rtol=1e-6)


@each_case
def test_a_block_may_have_no_rows(case):
    targets, _ = case()
    empty = targets.rows(0, 0)
    logits = ops.zeros((0, COLUMNS))
    assert empty.hits(logits).shape == (0, COLUMNS)
    assert empty.pick(logits).shape == (0,)
    assert empty.add(logits, ops.zeros(0)).shape == (0, COLUMNS)


@each_case
def test_a_block_may_have_no_columns(case):
    targets, matrix = case()
    assert_agrees(targets.columns(COLUMNS, 0), matrix[:, :0])
    assert_agrees(targets.rows(0, 0).columns(0, 0), matrix[:0, :0])


def test_the_columns_of_a_row_are_counted_over_all_of_them():
    """So that a shard of the columns knows the share of one in all."""
    targets, matrix = shared([1, 2, 5, 1, 9], COLUMN_IDS, block_size=3)
    np.testing.assert_array_equal(to_numpy(targets.number), [3, 2, 1, 3, 0])
    halves = [targets.columns(0, 4), targets.columns(4, 3)]
    logits = normal(ROWS, COLUMNS)
    parts = [
        half.pick(tensor(x))
        for half, x in zip(halves, np.split(logits, [4], axis=1), strict=True)
    ]
    assert_all_close([parts[0] + parts[1]], [np.sum(matrix * logits, axis=1)])


@each_case
def test_they_can_be_compiled(case):
    targets, matrix = case()
    logits = normal(ROWS, COLUMNS)
    picked = compiled(targets.pick)(tensor(logits))
    assert_all_close([picked], [np.sum(matrix * logits, axis=1)])
