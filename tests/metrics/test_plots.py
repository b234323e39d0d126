"""The pictures show the curve and mark the threshold."""

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from scipy.stats import norm

from keras_xent.metrics import EqualErrorRate, MinDetectionCost

KINDS = ("det", "roc", "histogram", "cost")


@pytest.fixture(params=[False, True], ids=["distance", "similarity"])
def metric(request):
    rng = np.random.default_rng(0)
    match = np.arange(500) % 2
    score = np.exp(1.5 * rng.normal(size=500) - 3 * match)
    score = -np.log(score) if request.param else score
    metric = MinDetectionCost(
        p_target=0.3, similarity=request.param, resolution=3
    )
    metric.update_state(match, score)
    yield metric
    plt.close("all")


def drawn(ax, number=0):
    return np.array(ax.lines[number].get_xydata())


def test_the_det_curve_is_the_error_rates_on_normal_deviates(metric):
    rates, ax = metric.curve(), metric.plot("det")
    points = drawn(ax)
    inside = [
        (norm.ppf(x), norm.ppf(y))
        for x, y in zip(rates.false_match, rates.false_non_match, strict=True)
        if 0 < x < 1 and 0 < y < 1
    ]
    assert np.allclose(np.sort(points, axis=0), np.sort(inside, axis=0))
    x, y = norm.cdf(drawn(ax, 1)[0])
    cost = 0.3 * rates.false_non_match + 0.7 * rates.false_match
    assert 0.3 * y + 0.7 * x == pytest.approx(cost.min())


def test_the_roc_runs_from_corner_to_corner(metric):
    ax = metric.plot("roc")
    points = drawn(ax)
    assert points[[0, -1]].tolist() == [[0, 0], [1, 1]]
    assert np.all(np.diff(points, axis=0) >= 0)


def test_the_histogram_shows_all_scores(metric):
    ax = metric.plot("histogram")
    for patch in ax.patches:
        assert patch.get_data().values.sum() == pytest.approx(1)
    assert ax.get_xscale() == ("linear" if metric.similarity else "log")
    assert drawn(ax)[0, 0] == metric.threshold


def test_the_cost_is_least_at_the_threshold(metric):
    ax = metric.plot("cost")
    threshold, cost = drawn(ax, 2).T
    best = threshold[np.flatnonzero(cost == cost.min())]
    assert best.min() / 1.2 - 0.2 < metric.threshold < best.max() * 1.2 + 0.2
    assert drawn(ax, 3)[0, 0] == metric.threshold


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_scores_can_be_drawn_on_given_axes(kind):
    metric = EqualErrorRate(resolution=1, similarity=False)
    metric.update_state([1, 1, 0], [1.0, 1.0, 1.0e3])
    ax = plt.subplots()[1]
    assert metric.plot(kind, ax=ax) is ax
    ax.figure.canvas.draw()
    plt.close("all")


def test_what_cannot_be_drawn_raises():
    metric = EqualErrorRate(resolution=1, similarity=False)
    with pytest.raises(ValueError, match="at least one match"):
        metric.plot("det")
    metric.update_state([1, 0], [1.0, 2.0])
    with pytest.raises(ValueError, match="'histogram'"):
        metric.plot("pie")
