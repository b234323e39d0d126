"""The hull is what isotonic regression makes of the scores."""

import numpy as np
import pytest
from keras import ops
from scipy.optimize import linprog
from sklearn.isotonic import IsotonicRegression

from keras_xent.ops import hull, roc
from tests.testing import compiled

BINS = 300


def weights(seed):
    """Gaussian scores in bins: crowded, sparse and one-sided ones."""
    rng = np.random.default_rng(seed)
    shift, size = [(1.5, 9000), (3.0, 200), (-0.5, 5000), (6.0, 50)][seed % 4]
    ends = np.linspace(-7, 7, BINS + 1)
    return np.stack(
        [
            np.histogram(rng.normal(mean, 1, size), ends)[0].astype("float64")
            for mean in (shift / 2, -shift / 2)
        ]
    )


def calibrated(w):
    """Log-likelihood ratio of each bin, by scikit-learn's PAV."""
    non_match, match = w / w.sum(axis=1, keepdims=True)
    seen = match + non_match > 0
    share = match[seen] / (match + non_match)[seen]
    fit = IsotonicRegression(increasing=False).fit_transform(
        np.arange(seen.sum()), share, sample_weight=(match + non_match)[seen]
    )
    with np.errstate(divide="ignore"):
        return np.log(fit) - np.log1p(-fit), w[:, seen]


def cllr(llr, w):
    total = 0.0
    for x, z in zip(w, (llr, -llr), strict=True):
        x, z = x[x > 0], z[x > 0]
        total += np.logaddexp(0, z) @ x / x.sum()
    return total / 2 / np.log(2)


def equal_error_by_linear_program(curve):
    """The lowest e with (e, e) in the convex hull of the points."""
    x, y = curve.false_match, curve.false_non_match
    done = linprog(x, A_eq=[x - y, np.ones_like(x)], b_eq=[0, 1])
    assert done.status == 0
    return done.fun


def on_device(function):
    return compiled(lambda n, m: function(roc.Curve(n, m)))


@pytest.fixture(scope="module")
def equal_error():
    return on_device(hull.equal_error_rate)


@pytest.fixture(scope="module")
def min_cllr():
    return on_device(hull.min_cllr)


def tensors(w):
    return [ops.convert_to_tensor(part.astype("float32")) for part in w]


@pytest.mark.parametrize("seed", range(8))
def test_the_min_cllr_is_that_of_isotonic_regression(seed, min_cllr):
    w = weights(seed)
    expected = cllr(*calibrated(w))
    found = hull.min_cllr(roc.Curve(*w, np))
    assert found == pytest.approx(expected, abs=1e-9)
    assert -2e-6 < float(min_cllr(*tensors(w))) - expected < 5e-5


@pytest.mark.parametrize("seed", range(8))
def test_the_equal_error_rate_is_the_lowest_in_the_hull(seed, equal_error):
    w = weights(seed)
    curve = roc.Curve(*w, np)
    expected = equal_error_by_linear_program(curve)
    assert hull.equal_error_rate(curve) == pytest.approx(expected, abs=1e-8)
    assert float(equal_error(*tensors(w))) == pytest.approx(expected, abs=1e-6)


def test_the_hull_is_convex_below_the_curve_and_goes_through_its_corners():
    for seed in range(4):
        curve = roc.Curve(*weights(seed), np)
        corners = hull.corners(curve)
        x, y = curve.false_match[corners], curve.false_non_match[corners]
        assert (x[0], y[0], x[-1], y[-1]) == (0, 1, 1, 0)
        turn = (
            np.diff(x)[:-1] * np.diff(y)[1:] - np.diff(y)[:-1] * np.diff(x)[1:]
        )
        assert np.all(turn > 0)
        # By y where x moves, and by x where it stands still.
        assert np.all(
            curve.false_non_match >= np.interp(curve.false_match, x, y) - 1e-12
        )


def test_perfect_and_useless_scores():
    perfect, useless = np.zeros((2, BINS)), np.ones((2, BINS))
    perfect[1, :9], perfect[0, 9:] = 1, 1
    for w, rate, cost in [(perfect, 0, 0), (useless, 0.5, 1)]:
        curve = roc.Curve(*w, np)
        assert hull.equal_error_rate(curve) == pytest.approx(rate, abs=1e-12)
        assert hull.min_cllr(curve) == pytest.approx(cost, abs=1e-12)
