"""Calibration errors against torchmetrics, scikit-learn and the definition."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve

from keras_xent.metrics import ExpectedCalibrationError, ReliabilityDiagram
from tests.testing import normal, thorough_on, to_numpy

# Batches are of one size: for each other one JAX compiles all steps anew.
N, K, HALF = 600, 4, 300
LOGITS = normal(N, K, scale=2.0)
# Labels drawn from the very probabilities at another temperature.
P = softmax(LOGITS.astype("float64"), axis=1)
DRAWS = np.random.default_rng(0).random((N, 1))
LABELS = (softmax(LOGITS / 2, axis=1).cumsum(axis=1) < DRAWS).sum(axis=1)
WEIGHT = np.random.default_rng(1).integers(0, 4, N).astype("float64")


def measure(metric, *batches):
    for batch in batches:
        metric.update_state(*batch)
    return float(to_numpy(metric.result()))


def in_parts(*arrays):
    return [[x[part] for x in arrays] for part in (slice(HALF), slice(HALF, N))]


def by_definition(p, hit, weight, edges, norm):
    """The error of questions with answers, over bins [lower, upper)."""
    gaps, masses = [], []
    edges = [*edges[:-1], np.inf]
    for low, high in itertools.pairwise(edges):
        here = (p >= low) & (p < high)
        if weight[here].sum():
            gap = np.average(hit[here] - p[here], weights=weight[here])
            gaps.append(abs(gap))
            masses.append(weight[here].sum() / weight.sum())
    gaps, masses = np.array(gaps), np.array(masses)
    return {
        "l1": np.sum(masses * gaps),
        "l2": np.sqrt(np.sum(masses * gaps**2)),
        "max": gaps.max(),
    }[norm]


def top(p=P, labels=LABELS):
    return p.max(axis=1), (p.argmax(axis=1) == labels).astype("float64")


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@thorough_on("jax")
def test_top_label_and_equal_width_are_those_of_torchmetrics(norm):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    metric = ExpectedCalibrationError(bins=10, norm=norm)
    result = measure(metric, *in_parts(LABELS, LOGITS))
    theirs = functional.multiclass_calibration_error(
        torch.tensor(P), torch.tensor(LABELS), K, n_bins=10, norm=norm
    )
    assert result == pytest.approx(float(theirs), rel=1e-4)
    yes = (LABELS > 1).astype("int64")
    binary = ExpectedCalibrationError(bins=10, norm=norm)
    result = measure(binary, *in_parts(yes, LOGITS[:, :1]))
    theirs = functional.binary_calibration_error(
        torch.tensor(expit(LOGITS[:, 0])), torch.tensor(yes), 10, norm
    )
    assert result == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_weights_enter_as_copies_of_a_row_would(norm):
    metric = ExpectedCalibrationError(bins=12, norm=norm)
    result = measure(metric, *in_parts(LABELS, LOGITS, WEIGHT))
    expected = by_definition(*top(), WEIGHT, np.linspace(0, 1, 13), norm)
    assert result == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dense", [False, True])
def test_class_wise_is_the_mean_over_the_classes(dense):
    targets = np.eye(K)[LABELS]
    metric = ExpectedCalibrationError(class_wise=K)
    labels = targets if dense else LABELS
    result = measure(metric, *in_parts(labels, LOGITS, WEIGHT))
    expected = np.mean(
        [
            by_definition(
                P[:, k], targets[:, k], WEIGHT, np.linspace(0, 1, 16), "l1"
            )
            for k in range(K)
        ]
    )
    assert result == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("class_wise", [None, K])
def test_equal_mass_is_exact_for_the_bins_it_tells(norm, class_wise):
    metric = ExpectedCalibrationError(
        bins=8, binning="equal_mass", class_wise=class_wise, norm=norm
    )
    result = measure(metric, *in_parts(LABELS, LOGITS, WEIGHT))
    bars = metric.diagram.bars()
    if class_wise:
        edges = np.append(bars.lower, bars.upper[:, -1:], axis=1)
        errors = [
            by_definition(P[:, k], k == LABELS, WEIGHT, edges[k], norm)
            for k in range(K)
        ]
        errors = np.array(errors)
        expected = {
            "l1": np.mean(errors),
            "l2": np.sqrt(np.mean(errors**2)),
            "max": np.max(errors),
        }[norm]
    else:
        edges = np.append(bars.lower, 1)
        expected = by_definition(*top(), WEIGHT, edges, norm)
    assert result == pytest.approx(expected, rel=1e-4)


def test_bins_of_equal_mass_hold_as_much_up_to_a_fine_bin():
    yes = (LABELS > 1).astype("float64")
    metric = ExpectedCalibrationError(bins=6, binning="equal_mass")
    result = measure(metric, *in_parts(yes, LOGITS[:, 0]))
    p = expit(LOGITS[:, 0].astype("float64"))
    bars = metric.diagram.bars()
    assert bars.weight.sum() == N
    # Half a fine bin at each end.
    fine = np.bincount(np.floor(64 * (LOGITS[:, 0] + 16)).astype(int)).max()
    assert np.abs(bars.weight - N / 6).max() <= fine
    order = np.argsort(p)
    parts = np.array_split(order, 6)
    expected = sum(
        len(part) / N * abs(yes[part].mean() - p[part].mean()) for part in parts
    )
    assert result == pytest.approx(expected, abs=6 * fine / N)
    accuracy, confidence = calibration_curve(
        yes, p, n_bins=6, strategy="quantile"
    )
    np.testing.assert_allclose(bars.confidence, confidence, atol=0.01)
    np.testing.assert_allclose(bars.accuracy, accuracy, atol=2 * fine / 100)


def test_overconfident_models_still_get_several_bins_of_equal_mass():
    # All confidences above 0.999: one bin of fifteen of equal width.
    logits = np.linspace(7.0, 12.0, HALF)[:, None].astype("float32")
    metric = ExpectedCalibrationError(bins=5, binning="equal_mass")
    measure(metric, (np.ones((HALF, 1)), logits))
    np.testing.assert_allclose(metric.diagram.bars().weight, HALF / 5, atol=2)


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_confidence_one_is_in_the_last_bin(binning):
    p = np.tile([1.0, 1.0, 0.99, 0.0], 75).astype("float32")
    metric = ExpectedCalibrationError(
        bins=4, binning=binning, from_logits=False
    )
    result = measure(metric, (np.tile([1, 0, 1, 0], 75), p))
    bars = metric.diagram.bars()
    assert bars.upper[-1] == 1
    assert bars.lower[0] == 0
    assert bars.weight.sum() == HALF
    if binning == "equal_width":
        assert bars.weight.tolist() == [75, 0, 0, 225]
        assert bars.confidence[-1] == pytest.approx(2.99 / 3)
        assert result == pytest.approx(0.99 / 4, rel=1e-5)


def test_equal_confidences_are_not_torn_apart():
    metric = ExpectedCalibrationError(bins=10, binning="equal_mass")
    labels = np.arange(HALF) % 4 == 0
    result = measure(metric, (labels, np.zeros((HALF, 1), "float32")))
    assert result == pytest.approx(0.25)
    assert np.count_nonzero(metric.diagram.bars().weight) == 1


def test_of_distributions_the_share_of_the_class_is_how_often_it_is_right():
    targets = np.full((HALF, K), 0.1) + 0.6 * np.eye(K)[LABELS[:HALF]]
    chosen = LOGITS[:HALF].argmax(axis=1)
    share = np.where(chosen == LABELS[:HALF], 0.7, 0.1)
    expected = by_definition(
        P[:HALF].max(axis=1), share, np.ones(HALF), np.linspace(0, 1, 16), "l1"
    )
    metric = ExpectedCalibrationError()
    result = measure(metric, (targets, LOGITS[:HALF]))
    assert result == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, width=32), st.booleans()),
        min_size=1,
        max_size=50,
    )
)
def test_the_error_is_between_the_mean_gap_and_one(pairs):
    p, yes = np.array(pairs).T
    error = ExpectedCalibrationError(
        bins=5, binning="equal_mass", from_logits=False
    )
    weight = np.arange(HALF) < len(p)
    p, yes = (np.resize(x, HALF) for x in (p, yes))
    result = measure(error, (yes, p.astype("float32"), weight))
    gap = np.average(yes - p, weights=weight)
    assert abs(gap) - 1e-5 <= result <= 1 + 1e-5


def test_a_diagram_tells_its_means_and_draws_itself():
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    diagram = ReliabilityDiagram(bins=5)
    for batch in in_parts(LABELS, LOGITS, WEIGHT):
        diagram.update_state(*batch)
    result = {k: float(to_numpy(x)) for k, x in diagram.result().items()}
    p, hit = top()
    assert result["weight"] == WEIGHT.sum()
    assert result["mean_confidence"] == pytest.approx(
        np.average(p, weights=WEIGHT)
    )
    assert result["mean_accuracy"] == pytest.approx(
        np.average(hit, weights=WEIGHT)
    )
    axes = diagram.plot()
    heights = [bar.get_height() for bar in axes.containers[1]]
    expected = np.nan_to_num(diagram.bars().accuracy)
    np.testing.assert_allclose(heights, expected)
    mpl.pyplot.close("all")
    with pytest.raises(ValueError, match="`class_id`"):
        diagram.plot(class_id=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 0}, "`bins`"),
        ({"bins": 1.5}, "`bins`"),
        ({"binning": "quantile"}, "'equal_mass'"),
        ({"class_wise": 1}, "`class_wise`"),
        ({"class_wise": True}, "`class_wise`"),
        ({"norm": "l3"}, "'max'"),
    ],
)
def test_wrong_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        ExpectedCalibrationError(**options)


def test_what_does_not_fit_raises():
    with pytest.raises(ValueError, match="class_wise=3"):
        ExpectedCalibrationError(class_wise=3).update_state(LABELS, LOGITS)
    with pytest.raises(ValueError, match="from_logits=True"):
        ExpectedCalibrationError(from_logits=False).update_state(LABELS, LOGITS)
    with pytest.raises(ValueError, match="configured alike"):
        ExpectedCalibrationError(bins=10).merge_state(
            [ExpectedCalibrationError(bins=9)]
        )


def test_what_cannot_be_measured_is_nan():
    weight, labels, logits = np.ones(HALF), LABELS[:HALF], LOGITS[:HALF]
    broken = np.where(np.arange(HALF)[:, None] == 7, np.nan, logits)
    for batch in [
        (np.where(np.arange(HALF) == 7, 9, labels), logits, weight),
        (labels, logits, np.where(np.arange(HALF) == 7, -1, 1)),
        (labels, broken.astype("float32"), weight),
    ]:
        assert np.isnan(measure(ExpectedCalibrationError(), batch))
    metric = ExpectedCalibrationError(from_logits=False)
    assert np.isnan(measure(metric, (labels, logits, weight)))


def test_targets_on_the_device_that_are_no_distributions_are_nan():
    ones = keras.ops.ones((3, 3))
    result = ExpectedCalibrationError()(ones, np.eye(3, dtype="float32"))
    assert np.isnan(to_numpy(result))


def test_a_weight_that_float32_does_not_hold_is_nan():
    metric = ExpectedCalibrationError()
    metric.update_state([0, 1], np.eye(2, dtype="float32"), [3e38, 3e38])
    assert np.isnan(to_numpy(metric.result()))
