"""Correlations are SciPy's, and their losses have the slopes of the formula."""

import keras
import numpy as np
import pytest
import scipy.stats

from keras_xent import ops
from tests.ops.test_rank import pairwise
from tests.testing import compiled, gradient, normal, to_numpy

SIZE = 9
TARGETS = np.array([3, 1, 2, 2, 900, 2, 0, -4, 1], "float32")
SCORES = np.array([0.3, -1, 2, 0.3, 5, 0.31, -1, 0.3, 0], "float32")
WEIGHT = np.array([1, 2, 0.5, 3, 1, 0, 1, 2, 0], "float32")
COUNTS = np.array([1, 2, 1, 3, 1, 0, 1, 2, 0])
LOSSES = {
    "pearson": ops.pearson_loss,
    "spearman": lambda *args, **kw: ops.spearman_loss(
        *args, temperature=0.5, **kw
    ),
}
CORRELATIONS = {
    "pearson": (ops.pearson_correlation, scipy.stats.pearsonr),
    "spearman": (ops.spearman_correlation, scipy.stats.spearmanr),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
each_correlation = pytest.mark.parametrize("name", CORRELATIONS)


def formula(name, targets, scores, weight=None):
    """1 − ρ of the docstring in float64, by the sum over pairs."""
    weight = np.ones(len(scores)) if weight is None else weight
    a, b = np.asarray(targets, "float64"), np.asarray(scores, "float64")
    if name == "spearman":
        a, b = pairwise(a, 0, weight), pairwise(b, 0.5, weight)
    covariance = np.cov(a, b, aweights=weight, ddof=0)
    return 1 - covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])


@each_correlation
def test_correlations_are_those_of_scipy(name):
    ours, scipys = CORRELATIONS[name]
    for a, b in ((TARGETS, SCORES), (normal(SIZE), normal(SIZE, seed=1))):
        expected = scipys(a, b).statistic
        assert float(to_numpy(ours(a, b))) == pytest.approx(expected, abs=1e-6)
        assert float(to_numpy(ours(a, -b))) == pytest.approx(
            -expected, abs=1e-6
        )
    repeated = [np.repeat(x, COUNTS) for x in (TARGETS, SCORES)]
    result = ours(TARGETS, SCORES, sample_weight=COUNTS)
    expected = scipys(*repeated).statistic
    assert float(to_numpy(result)) == pytest.approx(expected, abs=1e-6)


@each_correlation
@pytest.mark.parametrize("axis", [0, -1])
def test_other_axes_are_lists_of_their_own(name, axis):
    ours, scipys = CORRELATIONS[name]
    a, b = normal(2, SIZE), normal(2, SIZE, seed=1)
    if axis == 0:
        a, b = a.T.copy(), b.T.copy()
    result = to_numpy(ours(a, b, axis=axis))
    lists = zip(np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1), strict=True)
    expected = [scipys(*each).statistic for each in lists]
    np.testing.assert_allclose(result, expected, atol=1e-6)


@each_loss
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_losses_and_their_slopes_are_those_of_the_formula(name, weight):
    grad, loss = gradient(
        lambda x: LOSSES[name](TARGETS, x, sample_weight=weight), SCORES
    )
    assert loss.dtype == np.float32
    exact = formula(name, TARGETS, SCORES, weight)
    assert loss == pytest.approx(exact, rel=1e-5)
    expected, step = np.zeros(SIZE), 1e-6
    for i in range(SIZE):
        shift = step * (np.arange(SIZE) == i)
        upper, lower = (
            formula(name, TARGETS, SCORES.astype("float64") + s, weight)
            for s in (shift, -shift)
        )
        expected[i] = (upper - lower) / (2 * step)
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)
    if weight is not None:
        assert np.all(grad[weight == 0] == 0)


def test_a_cold_spearman_loss_is_one_minus_spearman():
    expected = 1 - scipy.stats.spearmanr(TARGETS, SCORES).statistic
    loss = ops.spearman_loss(TARGETS, SCORES, temperature=1e-4)
    assert float(to_numpy(loss)) == pytest.approx(expected, rel=1e-5)


def test_only_the_order_of_the_targets_counts():
    expected = to_numpy(ops.spearman_loss(TARGETS, SCORES))
    ranks = scipy.stats.rankdata(TARGETS).astype("float32")
    for same in (ranks, 1e30 * ranks, np.exp(ranks), TARGETS.astype("int32")):
        assert to_numpy(ops.spearman_loss(same, SCORES)) == expected


def test_scale_and_offset_of_the_scores_do_not_matter():
    for loss in (ops.pearson_loss, ops.spearman_loss):
        expected = to_numpy(loss(TARGETS, SCORES))
        for scale, offset in ((1e-30, 0), (1e30, 0), (8, 128), (2.0**-8, 1)):
            moved = (scale * SCORES + np.float32(offset)).astype("float32")
            np.testing.assert_allclose(
                to_numpy(loss(TARGETS, moved)), expected, rtol=1e-4
            )


def test_a_loss_near_zero_keeps_its_digits():
    """1 − ρ in float32 has steps of 6e-8."""
    scores = np.linspace(-1, 1, SIZE, dtype="float32")
    noise = 1e-5 * normal(SIZE)
    loss = float(to_numpy(ops.pearson_loss(scores + noise, scores)))
    moved = (scores + noise).astype("float64")
    expected = 1 - scipy.stats.pearsonr(moved, scores).statistic
    assert 0 < loss < 1e-9
    assert loss == pytest.approx(expected, rel=0.05)
    assert float(to_numpy(ops.pearson_loss(scores, scores))) == 0


@each_loss
@pytest.mark.parametrize("size", [1, SIZE])
def test_without_two_different_entries_the_loss_is_one(name, size):
    constant, other = np.full(size, 3e6, "float32"), normal(SIZE)[:size]
    for targets, scores in ((other, constant), (constant, other)):
        grad, loss = gradient(lambda x, t=targets: LOSSES[name](t, x), scores)
        assert loss == 1
        assert np.all(grad == 0)
        for function, _ in CORRELATIONS.values():
            assert np.isnan(to_numpy(function(targets, scores)))


@each_loss
def test_rounded_sums_of_weights_make_no_order_of_equal_entries(name):
    """Nor does the loss of a list without an order depend on its length."""
    weight = np.random.default_rng(0).random(1000, "float32")
    constant, other = np.full(1000, 5, "float32"), normal(1000)
    for targets, scores in ((other, constant), (constant, other)):
        grad, loss = gradient(
            lambda x, t=targets: LOSSES[name](t, x, sample_weight=weight),
            scores,
        )
        assert loss == 1
        assert np.all(grad == 0)


@each_loss
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 3e36])
def test_the_scale_of_the_weights_does_not_matter(name, scale):
    scale = np.float32(scale)
    grad, loss = gradient(
        lambda x: LOSSES[name](TARGETS, x, sample_weight=scale * WEIGHT),
        SCORES,
    )
    expected_grad, expected = gradient(
        lambda x: LOSSES[name](TARGETS, x, sample_weight=WEIGHT), SCORES
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-4, atol=1e-7)


@each_loss
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_in_an_entry_of_weight_zero_matters(name, value):
    def function(x):
        return LOSSES[name](TARGETS, x, sample_weight=WEIGHT)

    broken = np.where(WEIGHT > 0, SCORES, np.float32(value))
    grad, loss = gradient(function, broken)
    expected_grad, expected = gradient(function, SCORES)
    assert loss == expected
    np.testing.assert_array_equal(grad, expected_grad)
    targets = np.where(WEIGHT > 0, TARGETS, np.float32(value))
    result = LOSSES[name](targets, SCORES, sample_weight=WEIGHT)
    assert to_numpy(result) == expected


@each_loss
@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("targets", np.nan),
        ("scores", np.nan),
        ("weight", np.nan),
        ("weight", -1.0),
        ("weight", np.inf),
    ],
)
def test_what_has_no_correlation_is_nan_in_its_own_list(name, where, value):
    lists = {
        "targets": np.stack([TARGETS, TARGETS]),
        "scores": np.stack([SCORES, SCORES]),
        "weight": np.ones((2, SIZE), "float32"),
    }
    lists[where][0, 3] = value
    grad, loss = gradient(
        lambda x: LOSSES[name](
            lists["targets"], x, sample_weight=lists["weight"]
        ),
        lists["scores"],
    )
    assert np.isnan(loss).tolist() == [True, False]
    assert np.all(grad[0] == 0)
    assert np.any(grad[1] != 0)


def test_infinities_have_ranks_and_no_linear_correlation():
    scores = np.where(SCORES == 5, np.float32(np.inf), SCORES)
    result = float(to_numpy(ops.spearman_correlation(TARGETS, scores)))
    expected = scipy.stats.spearmanr(TARGETS, SCORES).statistic
    assert result == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(to_numpy(ops.spearman_loss(TARGETS, scores)))
    assert np.isnan(to_numpy(ops.pearson_correlation(TARGETS, scores)))
    assert np.isnan(to_numpy(ops.pearson_loss(TARGETS, scores)))


def test_it_compiles_with_the_same_loss():
    scores = keras.ops.convert_to_tensor(SCORES)
    quick = compiled(
        lambda x: ops.spearman_loss(TARGETS, x, sample_weight=WEIGHT)
    )
    expected = to_numpy(
        ops.spearman_loss(TARGETS, SCORES, sample_weight=WEIGHT)
    )
    assert to_numpy(quick(scores)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [ops.pearson_loss, ops.spearman_loss])
def test_wrong_arguments_are_an_error_that_names_them(loss):
    with pytest.raises(ValueError, match=r"`scores` must be floating"):
        loss(TARGETS, SCORES.astype("int32"))
    with pytest.raises(ValueError, match="`targets` and `scores`"):
        loss(TARGETS[:, None], SCORES)
    with pytest.raises(ValueError, match="`sample_weight`"):
        loss(TARGETS, SCORES, sample_weight=WEIGHT[:3])
    with pytest.raises(ValueError, match="must fit into int32"):
        loss(np.arange(SIZE) + 2**40, SCORES)
    with pytest.raises(ValueError, match="`axis`"):
        loss(TARGETS, SCORES, axis=1)
