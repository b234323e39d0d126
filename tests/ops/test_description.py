"""Objects that hold tensors, cut down to some rows and columns."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from keras_xent._types import Tensor
from keras_xent.ops.description import (
    ALL,
    COLUMNS,
    IDS,
    ROWS,
    Description,
    column_id,
    description,
    for_all,
    per_column,
    per_row,
)
from tests.testing import BACKEND, to_numpy


@description
class Everything(Description):
    weights: Tensor | None = per_row()
    bias: Tensor | None = per_column()
    labels: Tensor | None = column_id()
    scale: Tensor | None = for_all()
    option: float = 0.5


WHOLE = {
    "weights": np.array([0.1, 0.2, 0.3], "float32"),
    "bias": np.array([1.0, 2.0, 3.0, 4.0], "float32"),
    "labels": np.array([0, 2, 3], "int32"),
    "scale": np.array(7.0, "float32"),
}


def whole(**options):
    tensors = {k: ops.convert_to_tensor(x) for k, x in WHOLE.items()}
    return Everything(**tensors, **options)


def assert_holds(result, **changed):
    assert result.option == 0.25
    for name, expected in {**WHOLE, **changed}.items():
        np.testing.assert_array_equal(
            to_numpy(getattr(result, name)), expected, name
        )


def test_some_rows_have_the_numbers_of_those_rows():
    result = whole(option=0.25).rows(1, 2)
    assert_holds(
        result, weights=WHOLE["weights"][1:], labels=WHOLE["labels"][1:]
    )


def test_some_columns_have_the_numbers_of_those_columns():
    """And a column's number counts from the first of them."""
    result = whole(option=0.25).columns(2, 2)
    assert_holds(result, bias=WHOLE["bias"][2:], labels=[-2, 0, 1])


def test_parts_of_parts_are_parts_of_the_whole():
    """A shard of the columns is a block with an offset, cut again."""
    part = whole(option=0.25).columns(1, 3).rows(1, 2).columns(1, 2).rows(1, 1)
    assert_holds(
        part,
        weights=WHOLE["weights"][2:],
        bias=WHOLE["bias"][2:],
        labels=[3 - 2],
    )


def test_chosen_columns_come_in_the_order_asked_for():
    result = whole(option=0.25).take(ops.convert_to_tensor([3, 0, 3]))
    assert_holds(result, bias=WHOLE["bias"][[3, 0, 3]])


def test_what_is_missing_stays_missing():
    empty = Everything()
    assert empty.tensors() == {}
    for part in (
        empty.rows(0, 2),
        empty.columns(1, 2),
        empty.take(np.array([1])),
        empty.holding({}),
    ):
        assert part.tensors() == {}
        assert part.option == 0.5


def test_it_says_what_each_tensor_has_numbers_for():
    kinds = {name: whole().kind(name) for name in whole().tensors()}
    assert kinds == {
        "weights": ROWS,
        "bias": COLUMNS,
        "labels": IDS,
        "scale": ALL,
    }


def test_other_tensors_make_another_object():
    """Nothing traced is left behind on one that lives on."""
    first = whole(option=0.25)
    bias = ops.zeros(4)
    second = first.holding({"bias": bias})
    assert second.bias is bias
    assert second.weights is first.weights
    assert_holds(first)
    assert_holds(second, bias=np.zeros(4))


def test_an_object_is_never_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        whole().scale = None


def test_objects_are_the_same_only_if_they_are_one():
    """Tensors cannot say whether they are equal."""
    one, other = whole(), whole()
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is traced there")
def test_the_start_of_a_part_may_be_traced():
    def last_two(i, state):
        part = whole().columns(i + 1, 2).rows(i, 2)
        return state + ops.sum(part.bias) + 10 * ops.sum(part.weights)

    result = ops.fori_loop(1, 2, last_two, ops.zeros(()))
    assert float(result) == pytest.approx(3 + 4 + 10 * (0.2 + 0.3))
