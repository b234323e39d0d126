"""The figures are scikit-learn's, and small rates keep their digits."""

import numpy as np
import pytest
from keras import ops
from sklearn.metrics import (
    average_precision_score,
    det_curve,
    roc_auc_score,
    roc_curve,
)

from keras_xent.ops import roc
from tests.testing import compiled, to_numpy

BINS = 40


def weights(seed, whole=True):
    """Weight of non-matches and of matches in each bin, some of them empty."""
    rng = np.random.default_rng(seed)
    w = rng.integers(0, 5, (2, BINS)).astype("float64")
    w[0, : BINS // 3] *= rng.integers(0, 2)
    return w if whole else w * rng.random((2, BINS))


def curves(w):
    """The curve in both kinds of numbers."""
    tensors = [ops.convert_to_tensor(part.astype("float32")) for part in w]
    return roc.Curve(*w, np), roc.Curve(*tensors)


def as_scores(w):
    """Labels, similarities and weights that fall into the bins."""
    label = np.repeat([0, 1], BINS)
    return label, -np.tile(np.arange(BINS), 2), w.ravel()


def crossing(w):
    """The equal error rate by a loop over the points of scikit-learn."""
    label, score, weight = as_scores(w)
    x, hit, _ = roc_curve(
        label, score, sample_weight=weight, drop_intermediate=False
    )
    y = 1 - hit
    for i in range(1, len(x)):
        if y[i] <= x[i]:
            a, b = y[i - 1] - x[i - 1], x[i] - y[i]
            return x[i - 1] + a / (a + b) * (x[i] - x[i - 1])


TRUTH = {
    roc.equal_error_rate: crossing,
    roc.match_auc: lambda w: roc_auc_score(
        *as_scores(w)[:2], sample_weight=as_scores(w)[2]
    ),
    roc.average_precision: lambda w: average_precision_score(
        *as_scores(w)[:2], sample_weight=as_scores(w)[2]
    ),
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("function", TRUTH, ids=lambda f: f.__name__)
def test_the_figure_is_that_of_scikit_learn(function, whole):
    for seed in range(5):
        w = weights(seed, whole)
        host, device = curves(w)
        expected = TRUTH[function](w)
        assert function(host) == pytest.approx(expected, abs=1e-12)
        assert float(function(device)) == pytest.approx(expected, abs=1e-6)


def test_the_rates_are_those_of_scikit_learn():
    w = weights(0)
    label, score, weight = as_scores(w)
    false_match, miss, _ = det_curve(label, score, sample_weight=weight)
    host, device = curves(w)
    found = {
        (x, y)
        for x, y in zip(host.false_match, host.false_non_match, strict=True)
    }
    for x, y in zip(false_match, miss, strict=True):
        assert min(abs(x - a) + abs(y - b) for a, b in found) < 1e-12
    for name in ("false_match", "false_non_match", "true_match"):
        np.testing.assert_allclose(
            to_numpy(getattr(device, name)), getattr(host, name), atol=1e-6
        )


def test_the_true_match_rate_is_the_best_within_the_limit():
    w = weights(3)
    host, device = curves(w)
    for limit in [0.0, 0.01, 0.1, 0.5, 1.0]:
        best = host.true_match[host.false_match <= limit].max()
        assert roc.true_match_rate_at(host, limit) == best
        found = float(roc.true_match_rate_at(device, limit))
        assert found == pytest.approx(best, abs=1e-6)


def test_the_detection_cost_of_the_better_trivial_system_is_one():
    never = roc.detection_cost(0.0, 1.0, 0.01, 1.0, 1.0)
    always = roc.detection_cost(1.0, 0.0, 0.01, 1.0, 1.0)
    assert (never, always) == (1.0, pytest.approx(99.0))
    # By hand: 10 · 0.02 · 0.1 + 1 · 0.98 · 0.03, over 0.2.
    cost = roc.detection_cost(0.03, 0.1, 0.02, 10.0, 1.0)
    assert cost == pytest.approx(0.0494 / 0.2)


def test_rates_in_the_tail_are_right_to_a_millionth():
    # 1e9 non-matches: float32 has lost the single ones long before the end.
    rng = np.random.default_rng(0)
    w = np.stack([10.0 ** np.linspace(0, 7, 3000), np.ones(3000)])
    w = np.floor(w * rng.uniform(0.5, 1.5, w.shape) + 1)
    host, device = curves(w)
    assert host.false_match[1] < 1e-8
    for name in ("false_match", "true_match"):
        found, expected = to_numpy(getattr(device, name)), getattr(host, name)
        np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-6)
    np.testing.assert_allclose(
        to_numpy(device.false_non_match)[:-1],
        host.false_non_match[:-1],
        rtol=1e-6,
    )


def test_the_least_average_precision_is_that_of_many_small_matches():
    w = weights(1)
    few = roc.least_average_precision(roc.Curve(*w, np))
    # Each bin: its non-matches first, then its matches in tiny pieces.
    pieces, total = 20_000, 0.0
    hits = false = 0.0
    for non_match, match in w.T:
        false += non_match
        steps = hits + match * (np.arange(pieces) + 0.5) / pieces
        if match:
            total += match * np.mean(steps / (steps + false))
        hits += match
    assert few == pytest.approx(total / hits, abs=1e-6)


def test_cllr_is_the_mean_of_two_log_losses():
    w, llr = weights(2, whole=False), np.linspace(9, -9, BINS)
    host, device = curves(w)
    cost = [np.log2(1 + np.exp(sign * llr)) for sign in (1, -1)]
    expected = np.mean(
        [np.average(c, weights=x) for c, x in zip(cost, w, strict=True)]
    )
    found = roc.cllr(host, llr, llr)
    assert found == pytest.approx(expected, abs=1e-12)
    llr = ops.convert_to_tensor(llr, "float32")
    found = roc.cllr(device, llr, llr)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bins", [1, 2, 31, 32, 33, 1025, 5000])
@pytest.mark.parametrize("way", [compiled, lambda function: function])
@pytest.mark.parametrize("ends", ["all", "not the first", "not the last"])
def test_figures_of_many_bins_are_those_of_all_points(bins, way, ends):
    rng = np.random.default_rng(bins)
    w = rng.integers(0, 9, (2, bins)).astype("float32") + 1
    first, last = {"not the first": 1}.get(ends, 0), bins
    last -= ends == "not the last"
    false_match = np.append(0, np.cumsum(w[0])) / w[0].sum()
    true_match = np.append(0, np.cumsum(w[1])) / w[1].sum()
    right = w[0].sum() * (1 - false_match) + w[1].sum() * true_match
    both = 1 - false_match + true_match
    expected = {
        "auc": np.trapezoid(true_match, false_match),
        "balanced": 0.5 * np.max(both[first : last + 1]),
        "accuracy": np.max(right[first : last + 1]) / w.sum(),
        "few": true_match[false_match <= 0.1][-1],
        "all": 1.0,
    }
    gap = 1 - true_match - false_match
    k = np.argmax(gap <= 0)
    share = gap[k - 1] / (gap[k - 1] - gap[k])
    expected["eer"] = (1 - share) * false_match[k - 1] + share * false_match[k]

    def figures(non_match, match):
        curve = roc.Curve(non_match, match, ends=(first, last))
        return {
            "auc": roc.match_auc(curve),
            "balanced": roc.match_accuracy(curve, True),
            "accuracy": roc.match_accuracy(curve, False),
            "few": roc.true_match_rate_at(curve, 0.1),
            "all": roc.true_match_rate_at(curve, 1.0),
            "eer": roc.equal_error_rate(curve),
        }

    found = way(figures)(*map(ops.convert_to_tensor, w))
    assert {k: float(v) for k, v in found.items()} == pytest.approx(
        expected, rel=2e-6
    )
