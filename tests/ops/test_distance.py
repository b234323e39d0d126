"""Distances of all pairs are those of SciPy, and their slopes are finite."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.spatial.distance import cdist

from keras_xent.ops import pairwise_divergence
from keras_xent.ops.distance import (
    loaded,
    pairwise_cosine,
    pairwise_distance,
    pairwise_euclidean,
    pairwise_squared_euclidean,
    saved,
)

quick = settings(max_examples=20, deadline=None)
each = pytest.mark.parametrize(
    "distance",
    [pairwise_euclidean, pairwise_squared_euclidean, pairwise_cosine],
)


def rows(n, d=5, seed=0, shift=0.0, scale=1.0):
    x = np.random.default_rng(seed).normal(size=(n, d)) * scale + shift
    return x.astype("float32")


def host(x):
    return np.asarray(ops.convert_to_numpy(x))


def gradient(f, x):
    """The gradient of a scalar function of one tensor, on any backend."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(f)(x))
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        return tape.gradient(y, x).numpy()
    import torch

    x = torch.tensor(x, requires_grad=True)
    f(x).backward()
    return x.grad.numpy()


def test_euclidean_is_that_of_scipy_between_two_sets():
    a, b = rows(7), rows(4, seed=1)
    expected = cdist(a.astype("float64"), b)
    assert np.allclose(host(pairwise_euclidean(a, b)), expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_euclidean_keeps_its_accuracy_at_any_scale_and_offset(scale, shift):
    a = rows(9, scale=scale, shift=shift * scale)
    exact = cdist(a.astype("float64"), a.astype("float64"))
    center = a.astype("float64").mean(axis=0)
    largest = ((a - center) ** 2).sum(axis=1).max()
    error = np.abs(
        host(pairwise_euclidean(a)).astype("float64") ** 2 - exact**2
    )
    assert error.max() <= 2e-6 * largest


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_squared_euclidean_is_that_of_scipy_at_any_scale(scale):
    a, b = rows(7, scale=scale), rows(4, seed=1, scale=scale)
    result = host(pairwise_squared_euclidean(a, b))
    expected = cdist(a.astype("float64"), b, "sqeuclidean")
    assert np.allclose(result, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_cosine_is_that_of_scipy_at_any_scale(scale):
    a, b = rows(7), rows(4, seed=1)
    expected = cdist(a.astype("float64"), b, "cosine")
    result = host(pairwise_cosine(a * np.float32(scale), b))
    assert np.allclose(result, expected, atol=1e-6)


@each
@quick
@given(seed=st.integers(0, 10_000))
def test_never_negative_and_zero_to_itself(distance, seed):
    a = rows(6, d=2, seed=seed)
    a[3:] = a[:3] * (1 + 1e-7)
    d = host(distance(a))
    assert d.min() >= 0
    assert not np.diagonal(d).any()
    assert np.allclose(d, d.T, atol=1e-6)


@each
def test_one_set_is_compared_with_itself(distance):
    a = rows(6)
    assert np.allclose(host(distance(a)), host(distance(a, a)), atol=2e-3)


def test_equal_rows_are_at_distance_zero():
    a = np.repeat(rows(1, shift=3.0), 4, axis=0)
    assert host(pairwise_euclidean(a)).max() == 0
    assert host(pairwise_cosine(a)).max() <= 1e-6


@each
@pytest.mark.parametrize("fill", [0.0, 2.0])
def test_the_gradient_of_equal_rows_is_zero(distance, fill):
    x = np.full((3, 2), fill, "float32")
    slope = gradient(lambda a: ops.sum(distance(a)), x)
    assert np.allclose(slope, 0, atol=1e-6)


@each
def test_the_gradient_is_that_of_finite_differences(distance):
    x, weight, step = rows(4, d=3), rows(4, d=4, seed=2), 1e-6
    kind = distance.__name__.removeprefix("pairwise_")
    kind = kind.replace("squared_", "sq")

    def exact(a):
        return (cdist(a, a, kind) * weight).sum()

    expected = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        up, down = x.astype("float64"), x.astype("float64")
        up[index] += step
        down[index] -= step
        expected[index] = (exact(up) - exact(down)) / (2 * step)
    slope = gradient(lambda a: ops.sum(distance(a) * ops.array(weight)), x)
    assert np.allclose(slope, expected, atol=1e-4)


@each
@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_a_row_that_is_not_finite_spoils_its_own_distances_only(distance, junk):
    a = rows(4)
    a[1, 2] = junk
    d = host(distance(a))
    others = [0, 2, 3]
    assert not np.isfinite([d[1, others], d[others, 1]]).any()
    clean = host(distance(a[others]))
    assert np.allclose(d[np.ix_(others, others)], clean, atol=1e-5)


def test_a_row_of_zeros_is_at_cosine_distance_one():
    d = host(pairwise_cosine([[0.0, 0.0], [1.0, 2.0]]))
    assert d.tolist() == [[0, 1], [1, 0]]


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_computed_in_float32(distance, dtype):
    a = ops.cast(rows(5, scale=300), dtype)
    result = distance(a)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    expected = host(distance(ops.cast(a, "float32")))
    assert np.array_equal(host(result), expected)


@each
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones(3), None),
        (np.ones((3, 2, 1)), None),
        (np.ones((3, 2)), np.ones((3, 4))),
        (np.ones((3, 2)), np.ones(2)),
        (np.float32(1), None),
    ],
)
def test_what_is_no_pair_of_matrices_raises(distance, a, b):
    with pytest.raises(ValueError, match="rows of one width"):
        distance(a, b)


def test_names_stand_for_functions_and_callables_for_themselves():
    assert pairwise_distance("euclidean") is pairwise_euclidean
    squared = pairwise_distance("squared_euclidean")
    assert squared is pairwise_squared_euclidean
    assert pairwise_distance("cosine") is pairwise_cosine
    kl = pairwise_distance("symmetric_kl")
    assert kl is pairwise_divergence.pairwise_symmetric_kl
    assert pairwise_distance(len) is len


@pytest.mark.parametrize("name", ["Euclidean", "", None, 1])
def test_other_names_raise_and_list_what_there_is(name):
    with pytest.raises(ValueError, match=r"symmetric_kl.*euclidean.*cosine"):
        pairwise_distance(name)


@keras.saving.register_keras_serializable(package="tests")
def all_apart(a):
    return ops.ones((len(a), len(a)))


@pytest.mark.parametrize("given", [None, "cosine", all_apart])
def test_a_configuration_holds_a_name_or_a_registered_callable(given):
    config = {"distance": saved(given), "margin": 2.0}
    config = json.loads(json.dumps(config))
    assert loaded(config) == {"distance": given, "margin": 2.0}
