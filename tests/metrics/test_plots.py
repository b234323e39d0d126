"""The pictures show the curve and mark the threshold."""

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from scipy.stats import norm

from keras_xent.metrics import (
    DetectionCost,
    EqualErrorRate,
    MinDetectionCost,
    VerificationMetrics,
)

KINDS = ("det", "roc", "histogram", "cost")


def trials(similarity):
    rng = np.random.default_rng(0)
    match = np.arange(500) % 2
    score = np.exp(1.5 * rng.normal(size=500) - 3 * match)
    return match, -np.log(score) if similarity else score


@pytest.fixture(params=[False, True], ids=["distance", "similarity"])
def metric(request):
    match, score = trials(request.param)
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


def test_the_cost_is_drawn_at_the_thresholds_that_have_it(metric):
    match, score = trials(metric.similarity)
    line = metric.plot("cost").lines[2]
    x, y = line.get_xydata().T
    # Edges of bins, where the counts are exact.
    edges = metric.histogram.edges()
    edges = edges[(edges > x[2]) & (edges < x[-3])][::7]
    side = {"steps-pre": ("left", 0), "steps-post": ("right", -1)}
    side, offset = side[line.get_drawstyle()]
    shown = y[np.searchsorted(x, edges, side) + offset]
    for threshold, value in zip(edges, shown, strict=True):
        called = score >= threshold if metric.similarity else score < threshold
        miss, false_alarm = np.mean(~called[match == 1]), np.mean(called[::2])
        assert value == pytest.approx(miss + 0.7 / 0.3 * false_alarm)


def test_the_least_cost_is_marked(metric):
    ax = metric.plot("cost")
    cost, (x, y) = drawn(ax, 2)[:, 1], drawn(ax, 4)[0]
    assert y == cost.min() == pytest.approx(float(metric.result()))
    assert x == metric.threshold
    assert f"least cost {y:.3g} at {x:.4g}" in legend(ax)
    assert ax.get_ylim() == (0.0, 1.2)


def test_one_threshold_has_no_least_cost():
    metric = DetectionCost(threshold=1e3, similarity=False)
    metric.update_state(*trials(similarity=False))
    ax = metric.plot("cost")
    assert not [text for text in legend(ax) if "least" in text]
    plt.close("all")


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("kind", ["histogram", "cost"])
@pytest.mark.parametrize(
    ("threshold", "where"), [(1e-6, "left"), (1e6, "right"), (-np.inf, "left")]
)
def test_a_threshold_out_of_the_picture_is_at_its_edge(kind, threshold, where):
    metric = VerificationMetrics(
        similarity=False, threshold=threshold, resolution=3
    )
    metric.update_state(*trials(similarity=False))
    ax = metric.plot(kind)
    line = next(x for x in ax.lines if x.get_linestyle() == "--")
    (x, _), _ = line.get_xydata()
    low, high = np.sort(ax.get_xlim())
    assert low <= x <= high
    assert (x < np.sqrt(low * high)) == (where == "left")
    assert line.get_marker() == {"left": "<", "right": ">"}[where]
    note = f"threshold {threshold:.4g}, {where} of the picture"
    assert note in legend(ax)
    ax.figure.canvas.draw()
    plt.close("all")


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_that_is_reported_at_is_the_one_marked(kind):
    metric = VerificationMetrics(similarity=False, threshold=0.5, resolution=3)
    metric.update_state(*trials(similarity=False))
    assert metric.threshold != 0.5
    assert "threshold 0.5" in legend(metric.plot(kind))
    plt.close("all")


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
