import numpy as np
import pytest
from keras import ops

from keras_xent.ops import rows
from tests.testing import normal, to_numpy

# What weighs the rows (4, 3) of logits (4, 3, 5).
LOGITS = normal(4, 3, 5)
EXAMPLES = np.array([1.0, 2, 3, 4])
STEPS = np.array([5.0, 6, 7])
EACH = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (2.0, 2.0),
        ([2.0], 2.0),
        (EXAMPLES, EXAMPLES[:, None]),
        (EXAMPLES.tolist(), EXAMPLES[:, None]),
        (EXAMPLES[:, None], EXAMPLES[:, None]),
        (EXAMPLES[:, None, None], EXAMPLES[:, None]),
        (STEPS[None], STEPS),
        (STEPS[None, :, None], STEPS),
        (EACH, EACH),
        (EACH[..., None], EACH),
    ],
)
def test_a_weight_is_spread_over_the_rows(weight, expected):
    result = to_numpy(rows.spread(weight, LOGITS, 2))
    np.testing.assert_array_equal(result, np.broadcast_to(expected, (4, 3)))
    moved = to_numpy(rows.spread(weight, np.moveaxis(LOGITS, 2, 1), 1))
    np.testing.assert_array_equal(moved, result)


@pytest.mark.parametrize(
    ("shape", "cure"),
    [
        ((3,), r"pass \(1, 3\)"),
        ((2,), r"leading axes\. Received shape \(2,\)\.$"),
        ((3, 4), r"Received shape \(3, 4\)\.$"),
        ((4, 3, 5), r"Received shape \(4, 3, 5\)\.$"),
    ],
)
def test_a_weight_of_other_rows_is_an_error(shape, cure):
    with pytest.raises(ValueError, match=rf"`mask` must hold one.*{cure}"):
        rows.spread(np.ones(shape), LOGITS, 2, "mask")


def test_weights_that_int32_cannot_hold_stay_what_they_are():
    weight = np.array([2**40, 1, 1, 1])
    assert to_numpy(rows.spread(weight, LOGITS, 2))[0, 0] == 2**40


def test_what_does_not_count_is_blank():
    keep = np.array([True, False, True, False])
    wanted = np.where(keep[:, None], LOGITS[:, 0], 0)
    for x, axis in ((LOGITS[:, 0], 1), (LOGITS[:, 0, :1], None)):
        result = to_numpy(rows.blank(x, keep, axis))
        np.testing.assert_array_equal(result, wanted[:, : x.shape[1]])
    result = to_numpy(rows.blank(LOGITS[:, 0, 0], keep[:, None], None))
    np.testing.assert_array_equal(result, wanted[:, 0])
    # Which rows are meant, it cannot know.
    assert rows.blank(LOGITS, keep[:3], 2) is LOGITS


def test_a_row_may_be_all_of_an_example():
    keep = np.array([True, False, True, False])
    result = to_numpy(rows.blank(LOGITS, keep, slice(1, None)))
    expected = np.where(keep[:, None, None], LOGITS, 0)
    np.testing.assert_array_equal(result, expected)
    result = to_numpy(rows.spread(keep, LOGITS, slice(1, None)))
    np.testing.assert_array_equal(result, keep)


def test_a_row_counts_that_has_a_weight_and_is_not_masked():
    weight, mask = (
        ops.convert_to_tensor(x)
        for x in (
            np.array([1.0, 0.0, 2.0, 0.0], "float32"),
            np.array([True, True, False, False]),
        )
    )
    assert rows.kept(None, None) is None
    assert rows.kept(None, mask) is mask
    assert to_numpy(rows.kept(weight, None)).tolist() == [1, 0, 1, 0]
    assert to_numpy(rows.kept(weight, mask)).tolist() == [1, 0, 0, 0]
