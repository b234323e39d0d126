import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.testing import (
    BACKEND,
    finite_differences,
    gradient,
    normal,
    to_numpy,
)

LABELS = np.array([0, 1, 0, 2, 1, 0, 3])
each_epsilon = pytest.mark.parametrize("epsilon", [None, 0.0, 0.1, 0.5])


def naive(labels, x, alpha=2.0, beta=50.0, base=0.5, epsilon=None, there=None):
    """The losses of the rows by loops; 0 for a row without a partner."""
    x = np.asarray(x, "float64")
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    s, n = unit @ unit.T, len(labels)
    there = np.ones(n, bool) if there is None else there
    rows = np.zeros(n)
    for i in np.flatnonzero(there):
        partners, others = (
            [
                s[i, j]
                for j in range(n)
                if there[j] and j != i and (labels[j] == labels[i]) == same
            ]
            for same in (True, False)
        )
        if not partners:
            continue
        if epsilon is not None:
            top, low = max(others, default=-np.inf), min(partners)
            partners = [p for p in partners if p < top + epsilon]
            others = [o for o in others if o > low - epsilon]
        rows[i] = (
            np.log1p(sum(np.exp(-alpha * (p - base)) for p in partners)) / alpha
            + np.log1p(sum(np.exp(beta * (o - base)) for o in others)) / beta
        )
    return rows


@each_epsilon
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.5, "beta": 3.0, "base": -0.2}]
)
def test_equals_loops_over_pairs(epsilon, weighted, options):
    x = normal(7, 4)
    weight = np.array([1, 2, 0.5, 0, 1, 0, 1]) if weighted else None
    rows = ops.multi_similarity(
        LABELS, x, epsilon=epsilon, sample_weight=weight, **options
    )
    there = None if weight is None else weight != 0
    expected = naive(LABELS, x, epsilon=epsilon, there=there, **options)
    np.testing.assert_allclose(to_numpy(rows), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.float64
@each_epsilon
def test_gradients_agree_with_finite_differences(epsilon):
    weight = np.array([1, 2, 0.5, 0, 1, 3, 1])
    upstream = np.array([1.0, -2.0, 0.5, 3.0, 1.5, 1.0, 4.0])

    def function(x):
        rows = ops.multi_similarity(
            LABELS, x, beta=10.0, epsilon=epsilon, sample_weight=weight
        )
        return rows * keras.ops.convert_to_tensor(upstream)

    x = normal(7, 4).astype("float64")
    grad, value = gradient(function, x)
    assert value.dtype == np.float64
    expected = finite_differences(function, x)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)
    assert np.all(grad[3] == 0)


@each_epsilon
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [5], []])
def test_a_batch_of_one_kind_of_pairs_or_none_is_finite(labels, epsilon):
    grad, rows = gradient(
        lambda x: ops.multi_similarity(
            np.array(labels, "int32"), x, epsilon=epsilon
        ),
        normal(3, 4)[: len(labels)],
    )
    assert rows.shape == (len(labels),)
    assert np.isfinite(rows).all()
    assert np.isfinite(grad).all()
    # With a choice of pairs there is none without others.
    assert np.any(rows != 0) == (labels == [0, 0, 0] and epsilon is None)


def test_equal_embeddings_have_no_gradient_and_zeros_are_finite():
    labels = np.array([0, 0, 1, 1])
    for x in (np.ones((4, 3), "float32"), np.zeros((4, 3), "float32")):
        grad, rows = gradient(lambda x: ops.multi_similarity(labels, x), x)
        assert np.isfinite(rows).all()
        np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_the_order_of_rows_and_the_lengths_of_embeddings_do_not_matter():
    x, order = normal(7, 4), np.array([3, 1, 6, 0, 5, 2, 4])
    rows = to_numpy(ops.multi_similarity(LABELS, x))
    lengths = np.float32(10) ** np.arange(-3, 4)[:, None]
    again = ops.multi_similarity(
        LABELS[order], (x * lengths.astype("float32"))[order]
    )
    np.testing.assert_allclose(to_numpy(again), rows[order], rtol=1e-4)


def test_large_options_do_not_overflow():
    labels, x = np.array([0, 0, 1, 1]), normal(4, 3)
    rows = to_numpy(ops.multi_similarity(labels, x, alpha=1e4, beta=1e4))
    np.testing.assert_allclose(
        rows, naive(labels, x.astype("longdouble"), 1e2, 1e2), atol=0.05
    )


def test_a_nan_is_seen():
    labels = keras.ops.convert_to_tensor(np.array([0.0, 0.0, 1.0, np.nan]))
    rows = to_numpy(ops.multi_similarity(labels, normal(4, 3)))
    assert np.isnan(rows).tolist() == [False, False, False, True]
    x = normal(4, 3).copy()
    x[0] = np.nan
    for epsilon in (None, 0.1):
        rows = ops.multi_similarity(np.array([0, 0, 1, 1]), x, epsilon=epsilon)
        assert np.isnan(to_numpy(rows)).all()


@pytest.mark.skipif(BACKEND != "torch", reason="a package of PyTorch's")
@each_epsilon
def test_is_that_of_pytorch_metric_learning(epsilon):
    theirs = pytest.importorskip("pytorch_metric_learning.losses")
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    labels, x = np.array([0, 0, 0, 1, 1, 2, 2, 2]), normal(8, 4)
    y, z = (keras.ops.convert_to_tensor(each) for each in (labels, x))
    pairs = None
    if epsilon is not None:
        pairs = miners.MultiSimilarityMiner(epsilon=epsilon)(z, y)
    loss = theirs.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    rows = to_numpy(ops.multi_similarity(labels, x, epsilon=epsilon))
    assert rows.mean() == pytest.approx(float(loss(z, y, pairs)), rel=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"beta": -1.0}, "beta"),
        ({"base": float("nan")}, "base"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"sample_weight": np.ones(3)}, "sample_weight"),
    ],
)
def test_options_out_of_range_are_an_error_that_names_them(kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ops.multi_similarity(np.zeros(2), normal(2, 3), **kwargs)
