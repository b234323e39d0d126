import keras
import numpy as np
import pytest
import scipy.stats

from keras_xent import losses, ops
from tests.testing import gradient, normal, to_numpy, with_mask

BOTH = [losses.SpearmanLoss, losses.PearsonLoss]
OPS = {
    losses.SpearmanLoss: ops.spearman_loss,
    losses.PearsonLoss: ops.pearson_loss,
}
each_class = pytest.mark.parametrize("cls", BOTH)


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


@each_class
def test_scores_may_be_flat_or_a_column(cls):
    targets, scores = normal(7), normal(7, seed=1)
    expected = number(cls()(targets, scores))
    assert expected == pytest.approx(number(OPS[cls](targets, scores)))
    for y in (targets, targets[:, None]):
        for x in (scores, scores[:, None]):
            assert number(cls()(y, x)) == expected


@each_class
def test_columns_are_lists_of_their_own(cls):
    targets, scores = normal(7, 2), normal(7, 2, seed=1)
    weight = np.array([1, 2, 0, 1, 0, 3, 1], "float32")
    each = [
        number(cls()(targets[:, i], scores[:, i], weight)) for i in range(2)
    ]
    result = number(cls()(targets, scores, weight))
    assert result == pytest.approx(np.mean(each), rel=1e-5)
    apart = to_numpy(cls(reduction="none")(targets, scores, weight))
    np.testing.assert_allclose(apart, each, rtol=1e-5)


@each_class
def test_a_weight_does_not_scale_the_loss(cls):
    targets, scores = normal(7), normal(7, seed=1)
    for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight"):
        loss = cls(reduction=reduction)
        expected = number(loss(targets, scores))
        weighted = number(loss(targets, scores, np.full(7, 5.0)))
        assert weighted == pytest.approx(expected, rel=1e-5)


@each_class
def test_along_axis_1_every_row_is_a_list(cls):
    targets, scores = normal(3, 7), normal(3, 7, seed=1)
    rows = to_numpy(cls(axis=1, reduction="none")(targets, scores))
    expected = to_numpy(OPS[cls](targets, scores))
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    mean = number(cls(axis=-1)(targets, scores))
    assert mean == pytest.approx(expected.mean(), rel=1e-5)
    # One weight per list scales it; one per entry is a part in its list.
    of_lists = np.array([1, 0, 3], "float32")
    result = number(cls(axis=1)(targets, scores, of_lists))
    assert result == pytest.approx((of_lists * expected).mean(), rel=1e-5)
    of_entries = np.abs(normal(3, 7, seed=2))
    result = number(cls(axis=1)(targets, scores, of_entries))
    expected = to_numpy(OPS[cls](targets, scores, weight=of_entries)).mean()
    assert result == pytest.approx(expected, rel=1e-5)


@each_class
def test_lists_of_several_lengths_are_masked(cls):
    """Padding holds anything; a list of nothing else counts nowhere."""
    targets, scores = normal(3, 7), normal(3, 7, seed=1)
    mask = np.arange(7) < np.array([[7], [4], [0]])
    broken = np.where(mask, scores, np.float32(np.nan))
    grad, result = gradient(
        lambda x: cls(axis=1)(targets, with_mask(x, mask)), broken
    )
    each = [
        number(cls()(targets[i, :size], scores[i, :size]))
        for i, size in ((0, 7), (1, 4))
    ]
    assert result == pytest.approx(np.mean(each), rel=1e-5)
    assert np.all(grad[~mask] == 0)
    assert np.all(grad[mask] != 0)


@each_class
def test_constant_scores_have_loss_one_and_no_gradient(cls):
    grad, result = gradient(
        lambda x: cls()(normal(7), x), np.full((7, 1), 0.7, "float32")
    )
    assert result == 1
    assert np.all(grad == 0)


def test_options_out_of_range_are_an_error_at_once():
    with pytest.raises(ValueError, match="`temperature`"):
        losses.SpearmanLoss(temperature=0)
    for cls in BOTH:
        with pytest.raises(ValueError, match="`axis`"):
            cls(axis=None)
        with pytest.raises(ValueError, match="`axis`"):
            cls(axis=1)(normal(7), normal(7))
