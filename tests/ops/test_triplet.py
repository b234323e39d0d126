import functools
import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xent import ops
from tests.testing import (
    BACKEND,
    finite_differences,
    gradient,
    normal,
    only_on,
    quick,
    to_numpy,
)

MININGS = ["hard", "semi_hard", "all"]
LABELS = np.array([0, 1, 0, 2, 1, 0, 3])
each_mining = pytest.mark.parametrize("mining", MININGS)
each_softness = pytest.mark.parametrize("softness", [0.0, 0.7])


def euclidean(x):
    x = np.asarray(x, "float64")
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=-1))


def naive(labels, distance, margin, softness, mining, there=None):
    """The losses of the rows by loops over triplets; NaN for no triplet."""

    def hinge(x):
        if softness == 0:
            return max(0.0, x)
        return softness * np.logaddexp(0, x / softness)

    n = len(labels)
    there = np.ones(n, bool) if there is None else there
    rows = np.full(n, np.nan)
    for i in np.flatnonzero(there):
        partners = [
            distance[i, j]
            for j in range(n)
            if there[j] and j != i and labels[j] == labels[i]
        ]
        others = [
            distance[i, j]
            for j in range(n)
            if there[j] and labels[j] != labels[i]
        ]
        if not partners or not others:
            continue
        if mining == "hard":
            triplets = [(max(partners), min(others))]
        elif mining == "semi_hard":
            triplets = [
                (p, min([o for o in others if o > p], default=max(others)))
                for p in partners
            ]
        else:
            triplets = itertools.product(partners, others)
        rows[i] = np.mean([hinge(p - o + margin) for p, o in triplets])
    return rows


def triplet(labels, x, mining, softness=0.0, margin=1.0, **kwargs):
    return ops.triplet_hinge(
        labels, x, margin, mining=mining, softness=softness, **kwargs
    )


@each_mining
@each_softness
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("margin", [0.0, 1.0, -0.5])
def test_equals_loops_over_triplets(mining, softness, weighted, margin):
    x = normal(7, 4)
    weight = np.array([1, 2, 0.5, 0, 1, 0, 1]) if weighted else None
    rows = triplet(LABELS, x, mining, softness, margin, sample_weight=weight)
    there = None if weight is None else weight != 0
    expected = naive(LABELS, euclidean(x), margin, softness, mining, there)
    np.testing.assert_allclose(
        to_numpy(rows), np.nan_to_num(expected), rtol=1e-5, atol=1e-6
    )


def tensors(*arrays):
    return [keras.ops.convert_to_tensor(array) for array in arrays]


@functools.cache
def of_distances(mining, softness):
    """The losses of the rows from labels and distances, compiled once."""

    def rows(labels, distance):
        return triplet(labels, distance, mining, softness, distance=lambda x: x)

    return quick(rows)


@each_mining
@each_softness
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_ties_count_as_in_the_loops_in_any_order(mining, softness, data):
    """Points of a small grid, where most distances are equal to others."""
    n = 6
    labels = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    x = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    order = np.array(data.draw(st.permutations(range(n))))
    labels, x = np.array(labels, "int32"), np.array(x, "float32")[:, None]
    grid = euclidean(x).astype("float32")

    def rows(order):
        given = tensors(labels[order], grid[np.ix_(order, order)])
        return to_numpy(of_distances(mining, softness)(*given))

    expected = naive(labels, euclidean(x), 1.0, softness, mining)
    expected = np.nan_to_num(expected)
    np.testing.assert_allclose(rows(np.arange(n)), expected, atol=1e-6)
    np.testing.assert_allclose(rows(order), expected[order], atol=1e-6)


@pytest.mark.float64
@each_mining
@each_softness
@pytest.mark.parametrize(
    "distance", ["euclidean", "squared_euclidean", "cosine", "symmetric_kl"]
)
def test_gradients_agree_with_finite_differences(mining, softness, distance):
    weight = np.array([1, 2, 0.5, 0, 1, 3, 1])
    upstream = np.array([1.0, -2.0, 0.5, 3.0, 1.5, 1.0, 4.0])

    def function(x):
        rows = triplet(
            LABELS, x, mining, softness, distance=distance, sample_weight=weight
        )
        return rows * keras.ops.convert_to_tensor(upstream)

    x = normal(7, 4).astype("float64")
    grad, value = gradient(function, x)
    assert value.dtype == np.float64
    expected = finite_differences(function, x)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)
    assert np.any(grad != 0)
    assert np.all(grad[3] == 0)


@each_mining
@each_softness
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_equal_embeddings_cost_the_margin_and_have_no_gradient(
    mining, softness, distance
):
    labels = np.array([0, 0, 1, 1])
    grad, rows = gradient(
        lambda x: triplet(labels, x, mining, softness, distance=distance),
        np.ones((4, 3), "float32"),
    )
    cost = 1.0 if softness == 0 else 0.7 * np.logaddexp(0, 1 / 0.7)
    np.testing.assert_allclose(rows, 4 * [cost], rtol=1e-6)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


@each_mining
@each_softness
def test_a_duplicate_does_not_spoil_the_gradient(mining, softness):
    x = normal(6, 3).copy()
    x[1] = x[0]
    grad, _ = gradient(
        lambda x: triplet(np.array([0, 0, 0, 1, 1, 1]), x, mining, softness), x
    )
    assert np.isfinite(grad).all()
    assert np.any(grad != 0)


@each_mining
@each_softness
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [5], []])
def test_rows_without_a_triplet_cost_nothing(mining, softness, labels):
    x = normal(3, 4)[: len(labels)]
    grad, rows = gradient(
        lambda x: triplet(np.array(labels, "int32"), x, mining, softness), x
    )
    assert rows.tolist() == [0] * len(labels)
    assert np.all(grad == 0)


@each_mining
@each_softness
def test_a_nan_is_seen_by_all_who_meet_it(mining, softness):
    labels = keras.ops.convert_to_tensor(np.array([0.0, 0.0, 1.0, np.nan]))
    rows = to_numpy(triplet(labels, normal(4, 3), mining, softness))
    assert np.isnan(rows).tolist() == [False, False, False, True]
    x = normal(4, 3).copy()
    x[0] = np.nan
    rows = triplet(np.array([0, 0, 1, 1]), x, mining, softness)
    assert np.isnan(to_numpy(rows)).all()


@each_mining
@each_softness
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_distance_of_a_row_from_itself_does_not_matter(
    mining, softness, value
):
    d = euclidean(normal(7, 3)).astype("float32")
    expected = to_numpy(of_distances(mining, softness)(*tensors(LABELS, d)))
    np.fill_diagonal(d, value)
    grad, rows = gradient(
        lambda d: triplet(LABELS, d, mining, softness, distance=lambda x: x), d
    )
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert np.isfinite(grad).all()


@each_mining
def test_what_an_absent_row_holds_does_not_matter(mining):
    x = normal(5, 3).copy()
    x[4] = np.nan
    labels, weight = np.array([0, 0, 1, 1, 0]), np.array([1, 1, 1, 1, 0])
    grad, rows = gradient(
        lambda x: triplet(labels, x, mining, sample_weight=weight), x
    )
    expected = to_numpy(triplet(labels[:4], x[:4], mining))
    np.testing.assert_allclose(rows, [*expected, 0], rtol=1e-5)
    assert np.isfinite(grad).all()


@only_on("tensorflow", "the other backends know all sizes")
@each_mining
@each_softness
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_batch_may_be_of_unknown_size(mining, softness, jit_compile):
    import tensorflow as tf

    def function(labels, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            rows = triplet(labels, x, mining, softness)
        return rows, tape.gradient(rows, x)

    traced = tf.function(
        function,
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None, 3), tf.float32),
        ],
    )
    for n in (7, 4):
        labels, x = LABELS[:n].astype("int32"), normal(n, 3)
        grad, rows = gradient(
            lambda x, y=labels: triplet(y, x, mining, softness), x
        )
        result = traced(labels, x)
        np.testing.assert_allclose(result[0], rows, rtol=1e-5)
        np.testing.assert_allclose(result[1], grad, rtol=1e-4, atol=1e-6)


@only_on("jax", "a Hessian is JAX's")
def test_a_soft_hinge_of_all_has_second_derivatives():
    import jax

    def total(x):
        return triplet(LABELS[:4], x, "all", 0.7).sum()

    x, v, step = normal(4, 3), normal(4, 3, seed=1), 1e-2
    hessian = jax.jit(jax.hessian(total))(x)
    slope = jax.jit(jax.grad(total))
    truth = (slope(x + step * v) - slope(x - step * v)) / (2 * step)
    np.testing.assert_allclose(
        np.tensordot(hessian, v, 2), truth, rtol=2e-2, atol=5e-3
    )


def test_many_rows_lose_no_digits():
    """Sums over the triplets of a row, of which there are many."""
    n = 400
    labels, x = np.arange(n) % 2, normal(n, 8)
    rows = to_numpy(triplet(labels, x, "all", margin=0.1))
    distance = euclidean(x)
    for i in range(0, n, 80):
        same = (labels == labels[i]) & (np.arange(n) != i)
        gap = distance[i, same][:, None] - distance[i, labels != labels[i]]
        expected = np.maximum(gap + 0.1, 0).mean()
        assert rows[i] == pytest.approx(expected, rel=1e-5)


# What others do -------------------------------------------------------------


def addons_semi_hard(labels, distance, margin):
    """`tfa.losses.TripletSemiHardLoss`, pair by pair."""
    same = labels[:, None] == labels
    costs = []
    for i, j in zip(
        *np.nonzero(same & ~np.eye(len(labels), dtype=bool)), strict=True
    ):
        others = distance[i][~same[i]]
        farther = others[others > distance[i, j]]
        chosen = farther.min() if len(farther) else others.max()
        costs.append(max(margin + distance[i, j] - chosen, 0))
    return np.sum(costs) / len(costs)


def addons_hard(labels, distance, margin, soft):
    """`tfa.losses.TripletHardLoss`."""
    same = labels[:, None] == labels
    farthest = np.where(same, distance, 0).max(axis=1)
    nearest = np.where(same, np.inf, distance).min(axis=1)
    if soft:
        return np.log1p(np.exp(farthest - nearest)).mean()
    return np.maximum(farthest - nearest + margin, 0).mean()


def test_semi_hard_is_that_of_tensorflow_addons_by_the_weight_of_partners():
    labels, x = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2]), normal(9, 3)
    rows = to_numpy(triplet(labels, x, "semi_hard"))
    partners = (labels[:, None] == labels).sum(axis=1) - 1
    expected = addons_semi_hard(labels, euclidean(x), 1.0)
    assert np.average(rows, weights=partners) == pytest.approx(
        expected, rel=1e-5
    )
    assert rows.mean() != pytest.approx(expected, rel=1e-3)


def test_hard_is_that_of_tensorflow_addons():
    labels, x = np.array([0, 0, 0, 1, 1, 1, 2, 2]), normal(8, 3)
    for soft, options in ((False, {}), (True, {"margin": 0, "softness": 1})):
        rows = to_numpy(triplet(labels, x, "hard", **options))
        expected = addons_hard(labels, euclidean(x), 1.0, soft)
        assert rows.mean() == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="a package of PyTorch's")
def test_all_is_that_of_pytorch_metric_learning_but_for_its_mean():
    torch_losses = pytest.importorskip("pytorch_metric_learning.losses")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    reducers = pytest.importorskip("pytorch_metric_learning.reducers")
    labels, x = np.array([0, 0, 0, 0, 1, 1, 1, 1]), normal(8, 3)
    theirs = torch_losses.TripletMarginLoss(
        margin=0.3,
        distance=distances.LpDistance(normalize_embeddings=False),
        reducer=reducers.MeanReducer(),
    )
    expected = theirs(
        keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(labels)
    )
    # Of classes of one size, whose rows have as many triplets each.
    rows = to_numpy(triplet(labels, x, "all", margin=0.3))
    assert rows.mean() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"margin": "1"}, "`margin`"),
        ({"softness": -1.0}, "`softness`"),
        ({"mining": "hardest"}, "`mining` must be one of 'hard', 'semi_hard'"),
        ({"distance": "manhattan"}, "`distance` must be one of"),
        ({"distance": lambda x: x}, r"\(2, 2\).*Received shape \(2, 3\)"),
        ({"sample_weight": np.ones(3)}, "`sample_weight`"),
    ],
)
def test_options_out_of_range_are_an_error_that_names_them(kwargs, message):
    options = {"margin": 1.0, **kwargs}
    with pytest.raises(ValueError, match=message):
        ops.triplet_hinge(np.zeros(2), normal(2, 3), **options)
