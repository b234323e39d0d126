import keras
import numpy as np
import pytest
import scipy.stats

from keras_xent import losses
from tests.ops.test_correlation import formula
from tests.testing import gradient, normal, thorough_on, to_numpy, with_mask

SIZE = 9
MAKE = {
    "spearman": lambda **kw: losses.SpearmanLoss(temperature=0.5, **kw),
    "pearson": losses.PearsonLoss,
}
each_loss = pytest.mark.parametrize("name", MAKE)


def number(tensor):
    return float(to_numpy(tensor))


def test_adam_puts_random_scores_into_order_in_less_than_100_steps():
    size = 1000
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((), dtype="int32"),
            keras.layers.Embedding(size, 1, "normal"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.1), losses.SpearmanLoss())
    places, targets = np.arange(size), normal(size)[:, None]

    def spearman():
        scores = to_numpy(model.layers[0].embeddings.value)
        return scipy.stats.spearmanr(targets, scores).statistic

    assert abs(spearman()) < 0.1
    model.fit(places, targets, size, epochs=99, shuffle=False, verbose=0)
    assert spearman() > 0.99


@each_loss
def test_scores_may_be_flat_or_a_column(name):
    targets, scores = normal(SIZE), normal(SIZE, seed=1)
    loss = MAKE[name]()
    expected = number(loss(targets, scores))
    assert expected == pytest.approx(formula(name, targets, scores), rel=1e-5)
    for y in (targets, targets[:, None]):
        for x in (scores, scores[:, None]):
            assert number(loss(y, x)) == pytest.approx(expected, rel=1e-6)


@each_loss
def test_columns_are_lists_of_their_own(name):
    targets, scores = normal(SIZE, 2), normal(SIZE, 2, seed=1)
    weight = np.abs(normal(SIZE, seed=2))
    expected = [
        formula(name, targets[:, i], scores[:, i], weight) for i in range(2)
    ]
    apart = MAKE[name](reduction="none")(targets, scores, weight)
    np.testing.assert_allclose(to_numpy(apart), expected, rtol=1e-5)
    result = number(MAKE[name]()(targets, scores, weight))
    assert result == pytest.approx(np.mean(expected), rel=1e-5)


@each_loss
def test_a_weight_does_not_scale_the_loss(name):
    targets, scores = normal(SIZE), normal(SIZE, seed=1)
    for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight"):
        loss = MAKE[name](reduction=reduction)
        expected = number(loss(targets, scores))
        weighted = number(loss(targets, scores, np.full(SIZE, 5.0)))
        assert weighted == pytest.approx(expected, rel=1e-5)


@each_loss
def test_along_axis_1_every_row_is_a_list(name):
    targets, scores = normal(2, SIZE), normal(2, SIZE, seed=1)
    expected = [
        formula(name, *rows) for rows in zip(targets, scores, strict=True)
    ]
    rows = MAKE[name](axis=1, reduction="none")(targets, scores)
    np.testing.assert_allclose(to_numpy(rows), expected, rtol=1e-5)
    # One weight per list scales it; one per entry is a part in its list.
    loss = MAKE[name](axis=-1)
    result = number(loss(targets, scores, np.array([0.5, 3])))
    mean = (0.5 * expected[0] + 3 * expected[1]) / 2
    assert result == pytest.approx(mean, rel=1e-5)
    weight = np.abs(normal(2, SIZE, seed=2))
    expected = [formula(name, targets[i], scores[i], weight[i]) for i in (0, 1)]
    result = number(loss(targets, scores, weight))
    assert result == pytest.approx(np.mean(expected), rel=1e-5)


@each_loss
@thorough_on("jax")
def test_lists_of_several_lengths_are_masked(name):
    """Padding holds anything; a list of nothing else counts nowhere."""
    targets, scores = normal(2, SIZE), normal(2, SIZE, seed=1)
    for sizes in ([SIZE, 4], [5, 0]):
        mask = np.arange(SIZE) < np.array(sizes)[:, None]
        broken = np.where(mask, scores, np.float32(np.nan))

        def of_masked(x, mask=mask):
            return MAKE[name](axis=1)(targets, with_mask(x, mask))

        grad, result = gradient(of_masked, broken)
        expected = [
            formula(name, targets[i, :size], scores[i, :size])
            for i, size in enumerate(sizes)
            if size
        ]
        assert result == pytest.approx(np.mean(expected), rel=1e-5)
        assert np.all(grad[~mask] == 0)
        assert np.all(grad[mask] != 0)


@each_loss
def test_constant_scores_have_loss_one_and_no_gradient(name):
    constant = np.full(SIZE, 0.7, "float32")
    grad, result = gradient(lambda x: MAKE[name]()(normal(SIZE), x), constant)
    assert result == 1
    assert np.all(grad == 0)


def test_options_out_of_range_are_an_error_at_once():
    with pytest.raises(ValueError, match="`temperature`"):
        losses.SpearmanLoss(temperature=0)
    for cls in (losses.SpearmanLoss, losses.PearsonLoss):
        with pytest.raises(ValueError, match="`axis`"):
            cls(axis=None)
        with pytest.raises(ValueError, match="`axis`"):
            cls(axis=1)(normal(SIZE), normal(SIZE))
