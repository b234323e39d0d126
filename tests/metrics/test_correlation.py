import numpy as np
import pytest
import scipy.stats

from keras_xent import metrics
from keras_xent.metrics.correlation import spearman_of_counts
from tests.testing import normal, to_numpy

ROWS = 200


def value(metric):
    return float(to_numpy(metric.result()))


def data(kind):
    """Targets and scores with a rank correlation about one half."""
    a, b = normal(ROWS, seed=1), normal(ROWS, seed=2)
    return {
        "normal": (a + b, a),
        "ties": (np.round(a + b), np.round(2 * a)),
        "heavy tails": ((a + b) ** 5, np.exp(3 * a)),
        "large offset": (20 + a + b, a),
    }[kind]


@pytest.mark.parametrize("kind", ["normal", "ties", "heavy tails"])
def test_the_buffer_is_exact_over_all_batches(kind):
    targets, scores = data(kind)
    metric = metrics.SpearmanCorrelation(capacity=ROWS)
    for part in np.split(np.arange(ROWS), 4):
        metric.update_state(targets[part], scores[part])
    expected = scipy.stats.spearmanr(targets, scores).statistic
    assert value(metric) == pytest.approx(expected, abs=2e-6)


def rounded(x, bits):
    """The lower edges of the bins, as the definition reads."""
    exponent = np.floor(np.log2(np.where(x == 0, 1, abs(x))))
    step = 2.0 ** (exponent - bits)
    return np.sign(x) * np.floor(abs(x) / step) * step


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "large offset"])
def test_the_histogram_is_exact_for_rounded_numbers(kind):
    targets, scores = data(kind)
    metric = metrics.SpearmanCorrelation(capacity=None)
    metric.update_state(targets, scores)
    expected = scipy.stats.spearmanr(rounded(targets, 3), rounded(scores, 3))
    assert value(metric) == pytest.approx(expected.statistic, abs=2e-6)


def test_the_histogram_is_close_unless_an_offset_hides_the_numbers():
    """8 bins an octave: 20 and 21 are one number to it."""
    for kind, apart in (("normal", 0.005), ("heavy tails", 0.005)):
        targets, scores = data(kind)
        metric = metrics.SpearmanCorrelation(capacity=None)
        metric.update_state(targets, scores)
        expected = scipy.stats.spearmanr(targets, scores).statistic
        assert value(metric) == pytest.approx(expected, abs=apart)
    targets, scores = data("large offset")
    metric.reset_state()
    metric.update_state(targets, scores)
    expected = scipy.stats.spearmanr(targets, scores).statistic
    assert abs(value(metric) - expected) > 0.02


@pytest.mark.parametrize("capacity", [ROWS, None])
def test_a_weight_is_as_good_as_repetition(capacity):
    targets, scores = normal(8), normal(8, seed=1)
    weight = np.array([1, 2, 0, 3, 1, 1, 2, 0])
    metric = metrics.SpearmanCorrelation(capacity=capacity)
    metric.update_state(targets, scores, weight)
    again = metrics.SpearmanCorrelation(capacity=capacity)
    again.update_state(np.repeat(targets, weight), np.repeat(scores, weight))
    assert value(metric) == pytest.approx(value(again), abs=2e-6)


def test_beyond_the_capacity_the_result_is_nan():
    targets, scores = normal(12), normal(12, seed=1)
    metric = metrics.SpearmanCorrelation(capacity=9)
    for part in np.split(np.arange(9), 3):
        metric.update_state(targets[part], scores[part])
    assert np.isfinite(value(metric))
    metric.update_state(targets[9:], scores[9:])
    assert np.isnan(value(metric))


def test_numbers_in_one_bin_have_no_correlation():
    metric = metrics.SpearmanCorrelation(capacity=None)
    for scale in (1, 1 / 3, 1e3):
        metric.update_state([1000, 1001, 1002], [1.0, 2, 3], [scale] * 3)
        assert np.isnan(value(metric))


@pytest.mark.parametrize("capacity", [9, None])
def test_equal_scores_and_nan_have_no_correlation(capacity):
    metric = metrics.SpearmanCorrelation(capacity=capacity)
    metric.update_state([1, 2, 3], [5.0, 5.0, 5.0])
    assert np.isnan(value(metric))
    metric.update_state([1], [7.0])
    assert np.isfinite(value(metric))
    metric.update_state([np.nan], [6.0])
    assert np.isnan(value(metric))


def test_only_metrics_alike_are_merged():
    metric = metrics.SpearmanCorrelation(capacity=9)
    for other in ({"capacity": 8}, {"capacity": None}):
        with pytest.raises(ValueError, match="configured alike"):
            metric.merge_state([metrics.SpearmanCorrelation(**other)])


def test_a_table_of_counts_has_a_correlation():
    counts = np.array([[3, 0, 1], [1, 2, 0], [0, 1, 4]], "float32")
    rows, columns = np.nonzero(counts)
    repeat = counts[rows, columns].astype(int)
    expected = scipy.stats.spearmanr(
        np.repeat(rows, repeat), np.repeat(columns, repeat)
    ).statistic
    result = float(to_numpy(spearman_of_counts(counts)))
    assert result == pytest.approx(expected, rel=1e-6)
