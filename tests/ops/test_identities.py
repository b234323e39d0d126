"""What passes for embeddings and their ids."""

import keras
import numpy as np
import pytest

from keras_xent.ops import identities
from tests.testing import normal, to_numpy

tensor = keras.ops.convert_to_tensor


@pytest.mark.parametrize("shape", [(5,), (5, 2, 1)])
def test_embeddings_are_a_matrix(shape):
    with pytest.raises(ValueError, match="a matrix with one row per example"):
        identities.embeddings(np.zeros(shape, "float32"))


@pytest.mark.parametrize("read", [identities.embeddings, identities.views])
def test_embeddings_of_integers_raise_in_words_of_embeddings(read):
    with pytest.raises(ValueError, match="the ids as labels"):
        read(np.zeros((3, 2), "int32"))


def test_one_hot_ids_raise_with_the_way_out():
    with pytest.raises(ValueError, match=r"For one-hot .*argmax"):
        identities.ids(np.eye(3), identities.views(normal(3, 2)))


def test_low_precision_embeddings_are_computed_with_in_float32():
    x = identities.embeddings(normal(3, 2).astype("float16"))
    assert to_numpy(x).dtype == "float32"


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_ids_are_one_per_row(shape):
    found = identities.ids(np.arange(3).reshape(shape), normal(3, 2))
    assert to_numpy(found).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(), (4,), (3, 3)])
def test_ids_that_do_not_fit_the_rows_raise(shape):
    with pytest.raises(ValueError, match="one class id per row"):
        identities.ids(np.zeros(shape, "int32"), normal(3, 2))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_matrix_is_one_view_and_keeps_its_dtype(dtype):
    x = normal(3, 2).astype(dtype)
    found = to_numpy(identities.views(x))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x[:, None])
    assert identities.views(normal(3, 4, 2)).shape == (3, 4, 2)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 1, 1), (3, 0), (3, 0, 2)])
def test_views_of_another_shape_raise(shape):
    with pytest.raises(ValueError, match="views, dim"):
        identities.views(np.zeros(shape, "float32"))


def test_views_are_floats():
    with pytest.raises(ValueError, match="must be floating point"):
        identities.views(np.zeros((3, 2), "int32"))


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_ids_are_numbered_in_their_order(dtype):
    ids = np.array([7, -3, 7, 100_000, -3, 0], dtype)
    expected = np.unique(ids, return_inverse=True)[1]
    found = to_numpy(identities.numbered(tensor(ids)))
    assert found.dtype == "int32"
    np.testing.assert_array_equal(found, expected)
    assert to_numpy(identities.numbered(tensor(ids[:0]))).tolist() == []


def test_nan_is_no_number():
    ids = tensor(np.array([np.nan, 0, 2, np.nan, 0], "float32"))
    found = to_numpy(identities.numbered(ids)).tolist()
    assert found[0] == found[3] == -1
    assert found[1] == found[4] != found[2]
    assert to_numpy(identities.partners(ids)).tolist() == [0, 1, 0, 0, 1]


def test_partners_are_the_others_that_are_there():
    ids = np.array([7, 3, 7, 9, 3, 7], "int32")
    there = np.array([True, True, False, True, True, True])
    same = np.equal.outer(ids, ids) & ~np.eye(6, dtype=bool)
    numbers = identities.numbered(tensor(ids))
    for present in (None, there):
        given = None if present is None else tensor(present)
        some = same if present is None else same & present
        found = identities.partners(tensor(ids), given)
        np.testing.assert_array_equal(to_numpy(found), some.sum(axis=1))
        own = np.ones(6) if present is None else present
        found = identities.sharing(numbers, given)
        np.testing.assert_array_equal(to_numpy(found), some.sum(axis=1) + own)


@pytest.mark.parametrize("views", [1, 3])
def test_views_have_the_number_of_their_example(views):
    found = identities.of_each_view(tensor(np.array([4, 7])), views)
    assert to_numpy(found).tolist() == [4] * views + [7] * views
