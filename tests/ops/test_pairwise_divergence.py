import keras
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keras_xent import ops
from tests.testing import (
    compiled,
    finite_differences,
    gradient,
    normal,
    thorough_on,
    to_numpy,
)


def log_softmax(x):
    return scipy.special.log_softmax(np.asarray(x, "float64"), axis=-1)


def exact_kl(a, b):
    """KL of all pairs of rows, by differences in float64."""
    log_p, log_q = log_softmax(a)[:, None], log_softmax(b)[None]
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)


def exact(a, b):
    """Symmetric KL of all pairs of rows, by differences in float64."""
    log_p, log_q = log_softmax(a)[:, None], log_softmax(b)[None]
    return np.sum((np.exp(log_p) - np.exp(log_q)) * (log_p - log_q), axis=-1)


def embeddings():
    """Rows that are nearly equal, apart, clustered, nearly one-hot, huge."""
    rng = np.random.default_rng(0)
    for columns in (2, 16, 128):
        x = rng.normal(size=(40, columns))
        shared = 5 * rng.normal(size=columns)
        centers = rng.normal(size=(5, columns))[rng.integers(0, 5, 40)]
        hot = np.eye(columns)[rng.integers(0, columns, 40)]
        yield from (
            0.01 * x, 0.3 * x, x, 3 * x, 10 * x, 100 * x, 1e4 * x,
            shared + 0.1 * x, shared + x,
            10 * centers + 0.1 * x, 100 * centers + 0.1 * x,
            5 * hot + 0.3 * x, 30 * hot, 1e4 * hot + x,
            np.concatenate([x[:20], x[:20]]),
        )  # fmt: skip


@pytest.mark.parametrize("other", [False, True], ids=["a with a", "a with b"])
def test_pairwise_divergences_are_as_exact_as_documented(other):
    for x in embeddings():
        x = x.astype("float32")
        a, b = (x[:25], x[15:]) if other else (x, x)
        result = to_numpy(ops.pairwise_symmetric_kl(a, b if other else None))
        expected = exact(a, b)
        error = np.abs(result - expected)
        large = expected >= 0.1
        assert np.all(error[large] <= 1e-5 * expected[large])
        assert np.all(error[~large] <= 2e-5)
        assert np.all(result >= 0)


def test_one_way_divergences_are_as_exact_as_documented():
    for x in embeddings():
        x = x.astype("float32")
        result = to_numpy(ops.pairwise_kl(x))
        expected = exact_kl(x, x)
        error = np.abs(result - expected)
        assert np.all(error <= np.where(expected >= 0.1, 1e-5 * expected, 2e-5))
        assert np.all(result >= 0)
        assert np.all(np.diag(result) == 0)


def test_one_way_divergences_of_two_sets_are_those_of_their_rows():
    a, b = normal(6, 8), normal(5, 8, seed=1)
    expected = exact_kl(a, b)
    result = to_numpy(ops.pairwise_kl(a, b))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    p, q = np.exp(a), np.exp(b)
    result = to_numpy(ops.pairwise_kl(p, q, from_logits=False))
    wide_p, wide_q = p.astype("float64")[:, None], q.astype("float64")[None]
    expected = wide_p * np.log(wide_p / wide_q) - wide_p + wide_q
    np.testing.assert_allclose(result, expected.sum(axis=-1), rtol=1e-5)


def test_a_batch_compared_with_itself_is_symmetric_with_a_zero_diagonal():
    for x in embeddings():
        result = to_numpy(ops.pairwise_symmetric_kl(x.astype("float32")))
        assert np.all(np.diag(result) == 0)
        np.testing.assert_array_equal(result, result.T)


def test_pairs_of_rows_agree_with_all_pairs():
    a, b = normal(6, 8), normal(6, 8, seed=1)
    rows = to_numpy(ops.symmetric_kl(a, b))
    matrix = to_numpy(ops.pairwise_symmetric_kl(a, b))
    np.testing.assert_allclose(rows, np.diag(matrix), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_symmetric_kl_is_exact_at_any_magnitude(axis):
    for scale in (1e-3, 1.0, 30.0, 1e4):
        p = np.moveaxis(scale * normal(7, 9), -1, axis)
        q = np.moveaxis(scale * normal(7, 9, seed=1), -1, axis)
        expected = np.diag(
            exact(np.moveaxis(p, axis, -1), np.moveaxis(q, axis, -1))
        )
        result = to_numpy(ops.symmetric_kl(p, q, axis=axis))
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-9)


rows = arrays("float32", (2, 4), elements=st.floats(-200, 200, width=32))


# Among any logits are some that look so.
@pytest.mark.filterwarnings("ignore:.*looks like probabilities")
@settings(deadline=None, max_examples=30)
@given(rows)
def test_symmetric_kl_is_symmetric_and_zero_only_at_equality(x):
    p, q = x[:1], x[1:]
    forth = to_numpy(ops.symmetric_kl(p, q))
    back = to_numpy(ops.symmetric_kl(q, p))
    assert forth == back
    assert forth >= 0
    assert to_numpy(ops.symmetric_kl(p, p)) == 0


# Among any logits are some that look so.
@pytest.mark.filterwarnings("ignore:.*looks like probabilities")
@settings(deadline=None, max_examples=30)
@given(rows, st.floats(-100, 100, width=32))
def test_a_constant_added_to_all_logits_of_a_row_changes_nothing(x, shift):
    p, q = x[:1].round(), x[1:].round()
    moved = p + np.round(np.float32(shift))
    moved = to_numpy(ops.symmetric_kl(moved, q))
    np.testing.assert_allclose(
        moved, to_numpy(ops.symmetric_kl(p, q)), rtol=1e-4, atol=1e-4
    )


@thorough_on("jax")
def test_entries_masked_in_both_rows_cost_nothing():
    p, q = normal(2, 5).copy(), normal(2, 5, seed=1).copy()
    p[:, 2] = q[:, 2] = -np.inf
    keep = [0, 1, 3, 4]
    grad, value = gradient(lambda x: ops.symmetric_kl(x, q), p)
    expected = to_numpy(ops.symmetric_kl(p[:, keep], q[:, keep]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(grad).all()
    assert np.all(grad[:, 2] == 0)


def test_an_entry_masked_in_one_row_only_is_infinitely_far():
    p = np.array([[0.0, -np.inf]], "float32")
    for q in ([[0.0, 0.0]], [[200.0, 0.0]], [[0.0, 200.0]]):
        q = np.array(q, "float32")
        assert to_numpy(ops.symmetric_kl(p, q)) == np.inf
        assert to_numpy(ops.symmetric_kl(q, p)) == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_pairwise_divergence(value):
    x = normal(3, 4).copy()
    x[1, 2] = value
    result = to_numpy(ops.pairwise_symmetric_kl(x, x.copy()))
    assert np.isnan(result[1]).all()
    assert np.isnan(result[:, 1]).all()
    # The others keep theirs.
    others = to_numpy(ops.pairwise_symmetric_kl(x[[0, 2]], x[[0, 2]]))
    np.testing.assert_allclose(
        result[np.ix_([0, 2], [0, 2])], others, rtol=1e-4, atol=1e-6
    )


@pytest.mark.float64
@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.symmetric_kl(x, np.roll(normal(4, 5), 1, 0)),
        lambda x: ops.pairwise_symmetric_kl(x, 1.0 * normal(3, 5, seed=1)),
        lambda x: (
            ops.pairwise_symmetric_kl(x)
            * keras.ops.convert_to_tensor(np.arange(16.0).reshape(4, 4))
        ),
        lambda x: (
            ops.pairwise_kl(x)
            * keras.ops.convert_to_tensor(np.arange(16.0).reshape(4, 4))
        ),
        lambda x: ops.symmetric_kl(
            keras.ops.exp(x),
            np.exp(np.roll(normal(4, 5), 1, 0)),
            from_logits=False,
        ),
        lambda x: (
            ops.pairwise_symmetric_kl(keras.ops.exp(x), from_logits=False)
            * keras.ops.convert_to_tensor(np.arange(16.0).reshape(4, 4))
        ),
        lambda x: (
            ops.pairwise_kl(keras.ops.exp(x), from_logits=False)
            * keras.ops.convert_to_tensor(np.arange(16.0).reshape(4, 4))
        ),
    ],
)
def test_gradients_agree_with_finite_differences(function):
    x = normal(4, 5).astype("float64")
    grad, _ = gradient(function, x)
    expected = finite_differences(function, x)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-7)


def test_a_divergence_that_rounds_below_zero_keeps_its_gradient():
    rng = np.random.default_rng(0)
    x = (3 + 1e-4 * rng.normal(size=(64, 32))).astype("float32")
    grad, value = gradient(ops.pairwise_symmetric_kl, x)
    assert np.all(value >= 0)
    assert np.all(np.any(grad != 0, axis=1))


# Activations


def exact_activations(a, b):
    a, b = np.asarray(a, "float64")[:, None], np.asarray(b, "float64")[None]
    return np.sum((a - b) * np.log(a / b), axis=-1)


def test_activations_need_not_sum_to_one():
    a = np.exp(normal(6, 8, scale=2.0))
    b = np.exp(normal(5, 8, seed=1, scale=2.0))
    expected = exact_activations(a, b)
    result = to_numpy(ops.pairwise_symmetric_kl(a, b, from_logits=False))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    rows = to_numpy(ops.symmetric_kl(a[:5], b, from_logits=False))
    np.testing.assert_allclose(rows, np.diag(expected[:5]), rtol=1e-5)


def test_one_way_divergence_of_activations_is_the_generalized_one():
    a = np.exp(normal(6, 8, scale=2.0))
    p, q = a.astype("float64")[:, None], a.astype("float64")[None]
    expected = np.sum(p * np.log(p / q) - p + q, axis=-1)
    result = to_numpy(ops.pairwise_kl(a, from_logits=False))
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("entry", [1e-3, 1e-30, 1e-40, 0.0])
def test_an_activation_that_goes_to_zero_keeps_a_finite_gradient(entry):
    p = np.array([[entry, 1.0]], "float32")
    q = np.array([[2.0, 1.0]], "float32")
    grad, value = gradient(
        lambda x: ops.symmetric_kl(x, q, from_logits=False), p
    )
    assert value > 0
    assert np.isfinite(grad).all()
    assert np.isfinite(value).all()
    assert grad[0, 0] < 0, "the entry should grow towards its partner"


def test_two_activations_of_zero_are_equal():
    p = np.array([[0.0, 1.0]], "float32")
    grad, value = gradient(
        lambda x: ops.symmetric_kl(x, p, from_logits=False), p
    )
    assert value.tolist() == [0]
    assert np.isfinite(grad).all()


# Shapes and dtypes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_summed_in_float32(dtype):
    low = keras.ops.cast(normal(5, 64), dtype)
    high = to_numpy(keras.ops.cast(low, "float32"))
    for function in (ops.pairwise_symmetric_kl, ops.pairwise_kl):
        result = function(low)
        assert keras.backend.standardize_dtype(result.dtype) == "float32"
        np.testing.assert_allclose(
            to_numpy(result), to_numpy(function(high)), rtol=1e-5, atol=1e-6
        )


def test_compiles_with_the_same_result():
    x = keras.ops.convert_to_tensor(normal(5, 8))
    for function in (ops.pairwise_symmetric_kl, ops.pairwise_kl):
        np.testing.assert_allclose(
            to_numpy(compiled(function)(x)), to_numpy(function(x)), atol=1e-6
        )


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_and_single_row_batches_are_defined(rows):
    x = normal(1, 4)[:rows]
    assert to_numpy(ops.pairwise_symmetric_kl(x)).tolist() == [[0.0]] * rows
    assert tuple(ops.pairwise_symmetric_kl(x, normal(3, 4)).shape) == (rows, 3)


def test_wrong_shapes_and_dtypes_are_errors_that_say_so():
    with pytest.raises(ValueError, match="same shape"):
        ops.symmetric_kl(normal(3, 4), normal(1, 4))
    with pytest.raises(ValueError, match="same number of columns"):
        ops.pairwise_symmetric_kl(normal(3, 4), normal(3, 5))
    with pytest.raises(ValueError, match="matrix"):
        ops.pairwise_symmetric_kl(normal(3))
    with pytest.raises(ValueError, match="more than one entry"):
        ops.pairwise_symmetric_kl(normal(3, 1))
    with pytest.raises(ValueError, match="floating point"):
        ops.symmetric_kl(np.zeros((2, 3), "int32"), np.zeros((2, 3), "int32"))
