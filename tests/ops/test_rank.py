"""Ranks are what the sum over all pairs says, and what SciPy says."""

import functools

import keras
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xent import ops
from tests.testing import (
    BACKEND,
    compiled,
    finite_differences,
    gradient,
    normal,
    to_numpy,
)

SIZE = 9
# Ties, an outlier, and weights that make some entries count twice or not.
ENTRIES = np.array([0.3, -1, 2, 0.3, 50, 0.31, -1, 0.3, 0], "float32")
WEIGHT = np.array([1, 2, 0.5, 3, 1, 0, 1, 2, 0], "float32")


def pairwise(x, temperature, weight=None):
    """The formula of the docstring: all pairs, in float64."""
    x = np.asarray(x, "float64")
    weight = np.ones_like(x) if weight is None else np.asarray(weight)
    z = x[..., :, None] - x[..., None, :]
    if temperature == 0:
        step = 0.5 * (1 + np.sign(z))
    else:
        below = 0.5 * np.exp(-abs(z) / temperature)
        step = np.where(z <= 0, below, 1 - below)
    ranks = 0.5 + (step * weight[..., None, :]).sum(axis=-1)
    return np.where(weight > 0, ranks, 0)


def usual(x, weight=None):
    """The default temperature in float64."""
    x = np.asarray(x, "float64")
    mean = np.average(x, weights=weight)
    return 0.3 * np.sqrt(np.average((x - mean) ** 2, weights=weight))


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0, 30.0, 1e5])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_soft_ranks_equal_the_sum_over_pairs(temperature, weight):
    ranks = to_numpy(
        ops.soft_rank(ENTRIES, temperature=temperature, sample_weight=weight)
    )
    assert ranks.dtype == np.float32
    expected = pairwise(ENTRIES, temperature, weight)
    np.testing.assert_allclose(ranks, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 4, 33])
def test_any_number_of_entries_is_summed_in_full(size):
    x = np.round(normal(size, seed=size), 2)
    ranks = to_numpy(ops.soft_rank(x, temperature=0.5))
    np.testing.assert_allclose(ranks, pairwise(x, 0.5), rtol=2e-6)
    exact = to_numpy(ops.average_rank(x))
    assert exact.tolist() == scipy.stats.rankdata(x).tolist()


def test_the_default_temperature_is_a_share_of_the_standard_deviation():
    ranks = to_numpy(ops.soft_rank(ENTRIES))
    np.testing.assert_allclose(
        ranks, pairwise(ENTRIES, usual(ENTRIES)), rtol=1e-5
    )
    ranks = to_numpy(ops.soft_rank(ENTRIES, sample_weight=WEIGHT))
    expected = pairwise(ENTRIES, usual(ENTRIES, WEIGHT), WEIGHT)
    np.testing.assert_allclose(ranks, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30, 3e36])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_default_temperature_goes_with_the_scale(scale, offset):
    x = (normal(SIZE) + np.float32(offset)) * np.float32(scale)
    ranks = to_numpy(ops.soft_rank(x))
    exact = x.astype("float64")
    np.testing.assert_allclose(ranks, pairwise(exact, usual(exact)), rtol=1e-5)


def test_the_temperature_leads_from_exact_ranks_to_none():
    exact = scipy.stats.rankdata(ENTRIES)
    cold = to_numpy(ops.soft_rank(ENTRIES, temperature=1e-6))
    assert cold.tolist() == exact.tolist()
    hot = to_numpy(ops.soft_rank(ENTRIES, temperature=1e9))
    np.testing.assert_allclose(hot, (SIZE + 1) / 2, rtol=1e-6)


@given(
    st.lists(
        st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
        min_size=9,
        max_size=9,
    ),
    st.lists(st.integers(0, 3), min_size=9, max_size=9),
    st.sampled_from([0.01, 1.0, 100.0]),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_weight_is_as_good_as_repetition(x, weight, temperature):
    x, weight = np.array(x, "float32"), np.array(weight)
    repeated = np.repeat(x, weight)
    soft = to_numpy(
        ops.soft_rank(x, temperature=temperature, sample_weight=weight)
    )
    np.testing.assert_allclose(
        np.repeat(soft, weight), pairwise(repeated, temperature), rtol=2e-6
    )
    exact = to_numpy(ops.average_rank(x, sample_weight=weight))
    expected = scipy.stats.rankdata(repeated)
    assert np.repeat(exact, weight).tolist() == expected.tolist()
    assert np.all(soft[weight == 0] == 0)
    assert np.all(exact[weight == 0] == 0)


def slopes(x, temperature, upstream, weight=None, step=1e-6):
    """d Σ upstream · ranks / dx by differences of the sum over pairs."""
    x = np.asarray(x, "float64")
    grad = np.zeros_like(x)
    for i in range(x.size):
        shift = step * (np.arange(x.size) == i)
        upper = pairwise(x + shift, temperature, weight)
        lower = pairwise(x - shift, temperature, weight)
        grad[i] = (upstream * (upper - lower)).sum() / (2 * step)
    return grad


@pytest.mark.parametrize("temperature", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_gradients_are_the_slopes_of_the_sum_over_pairs(temperature, weight):
    upstream = normal(SIZE, seed=1)

    def function(x):
        ranks = ops.soft_rank(x, temperature=temperature, sample_weight=weight)
        return ranks * keras.ops.convert_to_tensor(upstream)

    grad, _ = gradient(function, ENTRIES)
    expected = slopes(ENTRIES, temperature, upstream, weight)
    np.testing.assert_allclose(
        grad, expected, rtol=1e-5, atol=1e-5 * abs(expected).max()
    )
    if weight is not None:
        assert np.all(grad[weight == 0] == 0)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it has no such way")
def test_differentiated_as_written_the_gradients_are_the_same():
    """Equal entries and infinite ones, too."""
    entries = np.append(ENTRIES, [np.inf, np.inf, -np.inf]).astype("float32")
    upstream = normal(len(entries), seed=3)

    def total(x):
        ranks = ops.soft_rank(x, temperature=0.7)
        return keras.ops.sum(keras.ops.multiply(ranks, upstream))

    expected, _ = gradient(total, entries)
    for derivative in as_written(total, entries):
        np.testing.assert_allclose(
            to_numpy(derivative), expected, rtol=1e-5, atol=1e-5
        )


def as_written(function, x):
    """Gradients by the ways that do not take an operation's own one."""
    if BACKEND == "jax":
        import jax

        yield jax.jacfwd(function)(x)
        return
    import torch

    x = torch.tensor(x, requires_grad=True)
    yield torch.func.grad(function)(x.detach())
    yield torch.autograd.grad(function(x), x, create_graph=True)[0]


def test_no_gradient_goes_through_the_default_temperature():
    upstream = normal(SIZE, seed=1)

    def function(x):
        return ops.soft_rank(x) * keras.ops.convert_to_tensor(upstream)

    grad, _ = gradient(function, ENTRIES)
    expected = slopes(ENTRIES, usual(ENTRIES), upstream)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.float64
def test_float64_entries_are_ranked_in_float64():
    x = normal(2, SIZE).astype("float64")
    upstream = keras.ops.convert_to_tensor(normal(2, SIZE).astype("float64"))

    def function(x):
        return ops.soft_rank(x, temperature=0.3, axis=0) * upstream

    grad, value = gradient(function, x)
    assert value.dtype == np.float64
    expected = pairwise(x.T, 0.3).T * to_numpy(upstream)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(
        grad, finite_differences(function, x), rtol=1e-6, atol=1e-8
    )
    close = np.array([1.0, 1 + 1e-12, 1.0])
    assert to_numpy(ops.average_rank(close)).tolist() == [1.5, 3, 1.5]


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_other_axes_are_lists_of_their_own(axis):
    x = np.round(normal(2, 3, 4), 1)
    weight = np.abs(normal(2, 3, 4, seed=1))
    last = [np.moveaxis(each, axis, -1) for each in (x, weight)]
    soft = ops.soft_rank(x, temperature=0.5, axis=axis, sample_weight=weight)
    expected = np.moveaxis(pairwise(last[0], 0.5, last[1]), -1, axis)
    np.testing.assert_allclose(to_numpy(soft), expected, rtol=1e-5)
    exact = ops.average_rank(x, axis=axis)
    expected = scipy.stats.rankdata(x, axis=axis)
    assert to_numpy(exact).tolist() == expected.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", ["sample_weight", "mask"])
@pytest.mark.parametrize("temperature", [None, 0.5])
def test_nothing_in_an_entry_that_does_not_count_matters(
    value, how, temperature
):
    counts = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1], bool)
    keep = {how: counts if how == "mask" else counts.astype("float32")}
    upstream = normal(SIZE, seed=1)

    def function(x):
        ranks = ops.soft_rank(x, temperature=temperature, **keep)
        return ranks * keras.ops.convert_to_tensor(upstream)

    broken = np.where(counts, ENTRIES, np.float32(value))
    grad, ranks = gradient(function, broken)
    expected_grad, expected = gradient(function, ENTRIES)
    np.testing.assert_array_equal(ranks, expected)
    np.testing.assert_array_equal(grad, expected_grad)
    assert np.all(grad[~counts] == 0)
    assert np.all(grad[counts] != 0)
    exact = to_numpy(ops.average_rank(broken, **keep))
    expected = scipy.stats.rankdata(ENTRIES[counts])
    assert exact[counts].tolist() == expected.tolist()
    assert np.all(exact[~counts] == 0)


def test_infinities_have_the_first_and_the_last_ranks():
    inf = np.inf
    x = np.array([inf, 0, -inf, 1, inf, 0.5, 0, 0.1, 3], "float32")
    for temperature in (None, 0.5):
        grad, ranks = gradient(
            lambda x, t=temperature: keras.ops.square(
                ops.soft_rank(x, temperature=t)
            ),
            x,
        )
        finite = np.isfinite(x)
        expected = 1 + pairwise(x[finite], temperature or usual(x[finite]))
        np.testing.assert_allclose(ranks[finite], expected**2, rtol=1e-5)
        np.testing.assert_allclose(ranks[~finite] ** 0.5, [8.5, 1, 8.5])
        assert np.all(grad[~finite] == 0)
        assert np.all(grad[finite] != 0)
    exact = to_numpy(ops.average_rank(x))
    assert exact.tolist() == scipy.stats.rankdata(x).tolist()


@pytest.mark.parametrize(
    ("x", "weight"),
    [(np.nan, 1.0), (0.0, -1.0), (0.0, np.nan), (0.0, np.inf)],
)
def test_what_cannot_be_ranked_makes_its_own_list_nan(x, weight):
    lists, weights = np.array([ENTRIES, ENTRIES]), np.ones((2, SIZE), "float32")
    lists[0, 3], weights[0, 3] = x, weight
    grad, soft = gradient(
        lambda x: keras.ops.square(
            ops.soft_rank(x, temperature=0.5, sample_weight=weights)
        ),
        lists,
    )
    exact = to_numpy(ops.average_rank(lists, sample_weight=weights))
    for ranks in (soft, exact):
        assert np.isnan(ranks[0]).all()
        assert np.isfinite(ranks[1]).all()
    assert np.all(grad[0] == 0)
    assert np.any(grad[1] != 0)


@pytest.mark.parametrize("temperature", [None, 0.5])
@pytest.mark.parametrize("size", [0, 1, SIZE])
def test_equal_entries_none_or_one_are_defined(temperature, size):
    x = np.full((2, size), 1e6, "float32")
    grad, ranks = gradient(
        lambda x: ops.soft_rank(x, temperature=temperature), x
    )
    assert ranks.tolist() == np.full((2, size), (size + 1) / 2).tolist()
    assert np.all(grad == 0)
    assert to_numpy(ops.average_rank(x)).tolist() == ranks.tolist()


def test_neighbors_beyond_every_scale_overflow_nowhere():
    x = np.array([-3e38, -2, -1e-38, 0, 1e-38, 1, 2, 3e38, 3e38], "float32")
    for temperature in (None, 1e-30, 1.0, 1e30):
        grad, ranks = gradient(
            lambda x, t=temperature: keras.ops.square(
                ops.soft_rank(x, temperature=t)
            ),
            x,
        )
        assert np.isfinite(ranks).all()
        assert np.isfinite(grad).all()
    # Some hardware takes denormals for 0.
    exact = to_numpy(ops.average_rank(np.where(abs(x) < 1, 0, x)))
    assert exact.tolist() == [1, 2, 4, 4, 4, 6, 7, 8.5, 8.5]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_entries_are_ranked_in_float32(dtype):
    low = keras.ops.cast(normal(SIZE), dtype)
    high = to_numpy(keras.ops.cast(low, "float32"))
    upstream = keras.ops.convert_to_tensor(normal(SIZE, seed=1))
    grad, ranks = gradient(
        lambda x: ops.soft_rank(x, temperature=0.5) * upstream, low
    )
    expected, value = gradient(
        lambda x: ops.soft_rank(x, temperature=0.5) * upstream, high
    )
    assert ranks.dtype == np.float32
    np.testing.assert_allclose(ranks, value, rtol=1e-6)
    np.testing.assert_allclose(grad, expected, rtol=1e-2, atol=1e-4)
    exact = to_numpy(ops.average_rank(low))
    assert exact.tolist() == scipy.stats.rankdata(high).tolist()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_ranked_as_integers(dtype):
    x = np.array([3, 0, 1, 7, 1, 0, 9, 0, 2], dtype)
    expected = scipy.stats.rankdata(x).tolist()
    assert to_numpy(ops.average_rank(x)).tolist() == expected


def test_integers_beyond_float32_stay_apart():
    x = 2**24 + np.array([1, 0, 2, 3, 5, 4, 8, 7, 1], "int32")
    exact = to_numpy(ops.average_rank(x))
    assert exact.tolist() == scipy.stats.rankdata(x).tolist()


def test_it_compiles_with_the_same_ranks_and_gradients():
    x = keras.ops.convert_to_tensor(ENTRIES)
    expected = to_numpy(ops.soft_rank(x, sample_weight=WEIGHT))
    quick = compiled(lambda x: ops.soft_rank(x, sample_weight=WEIGHT))
    np.testing.assert_allclose(to_numpy(quick(x)), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 2, 6, 9])
def test_the_number_of_entries_may_be_unknown(size):
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow traces with unknown sizes")
    import tensorflow as tf

    for jit_compile in (False, True):
        ranks, grad = _traced(jit_compile)(ENTRIES[None, :size])
        assert ranks.shape == grad.shape == (1, size)
        x = tf.constant(ENTRIES[None, :size])
        with tf.GradientTape() as tape:
            tape.watch(x)
            expected = ops.soft_rank(x)
            total = tf.reduce_sum(expected**2)
        np.testing.assert_allclose(ranks, expected, rtol=1e-6)
        np.testing.assert_allclose(
            grad, tape.gradient(total, x), rtol=1e-4, atol=1e-5
        )


@functools.cache
def _traced(jit_compile):
    import tensorflow as tf

    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            ranks = ops.soft_rank(x)
            total = tf.reduce_sum(ranks**2)
        return ranks, tape.gradient(total, x)

    return tf.function(
        function,
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec((None, None), tf.float32)],
    )


def test_equal_entries_have_one_rank_whatever_their_weights():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (3, 500))
    weight = rng.random(x.shape, "float32")
    ranks = to_numpy(ops.average_rank(x, sample_weight=weight))
    np.testing.assert_allclose(ranks, pairwise(x, 0, weight), rtol=1e-5)
    for row, found in zip(x, ranks, strict=True):
        assert len(set(zip(row, found, strict=True))) == 9


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf, "1", True])
def test_a_temperature_out_of_range_is_an_error(temperature):
    with pytest.raises(ValueError, match="`temperature`"):
        ops.soft_rank(ENTRIES, temperature=temperature)


def test_wrong_arguments_are_an_error_that_names_them():
    with pytest.raises(ValueError, match=r"`x` must be floating.*int32"):
        ops.soft_rank(ENTRIES.astype("int32"))
    for rank in (ops.soft_rank, ops.average_rank):
        for axis in (1, -2, 0.5, None):
            with pytest.raises(ValueError, match="`axis`"):
                rank(ENTRIES, axis=axis)
        with pytest.raises(ValueError, match="single number"):
            rank(np.float32(1))
        for name in ("sample_weight", "mask"):
            for shape in ((SIZE, 1), (1,), (SIZE + 1,), ()):
                with pytest.raises(ValueError, match=f"`{name}`"):
                    rank(ENTRIES, **{name: np.ones(shape)})
