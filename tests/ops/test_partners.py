import keras
import numpy as np
import pytest

from keras_xent.ops.partners import (
    partners_and_others,
    present,
    rows_counted,
)
from tests.testing import normal, to_numpy


def tensor(x):
    return keras.ops.convert_to_tensor(x)


def test_partners_share_an_id_and_others_do_not():
    partner, other = partners_and_others(tensor([7, 8, 7]))
    assert to_numpy(partner).astype(int).tolist() == [
        [0, 0, 1], [0, 0, 0], [1, 0, 0],
    ]  # fmt: skip
    assert to_numpy(other).astype(int).tolist() == [
        [0, 1, 0], [1, 0, 1], [0, 1, 0],
    ]  # fmt: skip


def test_a_row_of_weight_0_is_absent():
    labels = np.array([7, 8, 7, 7, 9])
    weight = np.array([1.0, 2.0, 0.0, 0.5, 1.0], "float32")
    there = weight != 0
    results = partners_and_others(tensor(labels), tensor(weight))
    expected = partners_and_others(tensor(labels[there]))
    for result, truth in zip(results, expected, strict=True):
        result = to_numpy(result)
        assert (result[np.ix_(there, there)] == to_numpy(truth)).all()
        assert result.sum() == to_numpy(truth).sum()


@pytest.mark.parametrize(
    ("labels", "weight", "others", "counted"),
    [
        ([7, 8, 7], None, False, [1, 0, 1]),
        ([7, 7, 7], None, False, [1, 1, 1]),
        ([7, 7, 7], None, True, [0, 0, 0]),
        ([7, 8, 7], [1.0, 0.0, 1.0], True, [0, 1, 0]),
        ([7, 8, 7], [0.0, 1.0, 1.0], False, [1, 0, 0]),
        ([7.0, np.nan, 7.0], None, True, [1, 1, 1]),
    ],
)
def test_a_row_counts_that_has_what_it_needs(labels, weight, others, counted):
    weight = None if weight is None else tensor(np.array(weight, "float32"))
    result = rows_counted(tensor(np.array(labels)), weight, others=others)
    assert to_numpy(result).astype(int).tolist() == counted


def test_what_an_absent_row_holds_is_forgotten():
    embeddings = normal(3, 2).copy()
    embeddings[1] = np.nan
    weight, kept = present(
        np.array([1.0, 0.0, 2.0]), tensor([1, 1, 2]), tensor(embeddings)
    )
    assert to_numpy(weight).tolist() == [1, 0, 2]
    embeddings[1] = 0
    assert (to_numpy(kept) == embeddings).all()
    with pytest.raises(ValueError, match="`sample_weight`"):
        present(np.ones(2), tensor([1, 1, 2]), tensor(embeddings))
