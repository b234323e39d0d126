"""What all threshold metrics share: bounds, thresholds, curves, merging."""

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import ops
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from keras_xent import metrics
from tests.testing import normal, thorough_on, to_numpy, with_mask

INF, NAN = np.inf, float("nan")
P_TARGET, LIMIT, CUT = 0.2, 0.25, 0.3
BINS = {"resolution": 1}
LINEAR = {"range": (-2.0, 2.0), "resolution": 0}


def everything(similarity, **options):
    return metrics.VerificationMetrics(
        p_target=P_TARGET,
        false_match_rate=LIMIT,
        threshold=CUT,
        similarity=similarity,
        name="v",
        **options,
    )


def results(metric, on_host=True):
    """The figures, made on the host or by operations on tensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            metrics.ScoreHistogram, "is_on_host", lambda self: on_host
        )
        found = metric.result()
    return {k[2:]: float(to_numpy(v)) for k, v in found.items()}


on_host_or_device = pytest.mark.parametrize("on_host", [True, False])


def truth(match, score, similarity):
    """Every figure from the raw scores, by scikit-learn and plain formulas."""
    score = np.asarray(score, "float64")
    alike = score if similarity else -score
    x, hit, _ = roc_curve(match, alike, drop_intermediate=False)
    y = 1 - hit
    i = max(int(np.argmax(y <= x)), 1)
    gap, next_gap = y[i - 1] - x[i - 1], y[i] - x[i]
    unit = min(P_TARGET, 1 - P_TARGET)
    called = score >= np.float32(CUT) if similarity else score < np.float32(CUT)
    at = np.mean(~called[match]), np.mean(called[~match])
    # By rank: scikit-learn takes scores 1e-20 apart for one.
    rank = np.unique(alike, return_inverse=True)[1]
    fit = IsotonicRegression().fit_transform(rank, match.astype(float))
    with np.errstate(divide="ignore"):
        calibrated = np.log(fit) - np.log1p(-fit)
    calibrated -= np.log(np.mean(match) / np.mean(~match))
    m, n = alike[match], alike[~match]
    with np.errstate(divide="ignore", invalid="ignore"):
        d = (m.mean() - n.mean()) / np.sqrt((m.var() + n.var()) / 2)
    return {
        "equal_error_rate": x[i - 1]
        + gap / (gap - next_gap) * (x[i] - x[i - 1]),
        "min_detection_cost": min(P_TARGET * y + (1 - P_TARGET) * x) / unit,
        "detection_cost": (P_TARGET * at[0] + (1 - P_TARGET) * at[1]) / unit,
        "match_auc": roc_auc_score(match, alike),
        "true_match_rate": hit[x <= LIMIT].max(),
        "average_precision": average_precision_score(match, alike),
        "cllr": cost(m, n),
        "min_cllr": cost(calibrated[match], calibrated[~match]),
        "d_prime": d,
    }


def cost(match_llr, other_llr):
    losses = np.logaddexp(0, -match_llr), np.logaddexp(0, other_llr)
    return np.mean([loss.mean() for loss in losses]) / np.log(2)


def assert_bracketed(metric, expected):
    bounds, on_host = metric.bounds(), results(metric)
    found = results(metric, on_host=False)
    assert len(bounds) == len(expected)
    for key, exact in expected.items():
        low, high = bounds[f"v_{key}"]
        assert not np.isnan([low, high]).any()
        if not np.isnan(exact):  # d' of scores that are all equal
            assert low - 1e-9 <= exact <= high + 1e-9, key
        if not np.isnan(on_host[key]):
            assert low - 1e-6 <= on_host[key] <= high + 1e-6, key
        if not np.isnan(found[key]) and key != "d_prime":
            slack = 1e-4 if key == "min_cllr" else 4e-6 * max(1, high)
            assert low - slack <= found[key] <= high + slack, key


scores = st.lists(
    # Few distinct values, so that bins are shared and scores tie.
    st.one_of(
        st.integers(-9, 9).map(lambda k: k / 8),
        st.floats(-3, 3, width=32, allow_subnormal=False),
    ),
    min_size=12,
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@example(11 * [0.0] + [3e-20], 10 * [False], False, BINS)
@given(
    data=scores,
    flags=st.lists(st.booleans(), min_size=10, max_size=10),
    similarity=st.booleans(),
    options=st.sampled_from([BINS, LINEAR]),
)
@thorough_on("jax")
def test_the_bounds_hold_what_exact_scores_give(
    data, flags, similarity, options
):
    match = np.array([True, False, *flags])
    score = np.array(data, "float32")
    metric = everything(similarity, **options)
    metric.update_state(match, score)
    assert_bracketed(metric, truth(match, score, similarity))


@pytest.mark.parametrize("similarity", [False, True])
def test_twenty_matches_among_many_non_matches_are_bracketed(similarity):
    rng = np.random.default_rng(0)
    match = np.arange(100_000) < 20
    score = (rng.normal(size=len(match)) + 2 * match).astype("float32")
    score = score if similarity else -score
    metric = everything(similarity, **BINS)
    metric.update_state(match, score)
    assert_bracketed(metric, truth(match, score, similarity))


@pytest.mark.parametrize("similarity", [False, True])
def test_a_metric_of_its_own_gives_what_the_dict_gives(similarity):
    rng = np.random.default_rng(1)
    match = rng.random(200) < 0.4
    score = (rng.normal(size=200) + match).astype("float32")
    options = {"similarity": similarity, **BINS}
    both = everything(**options)
    both.update_state(match, score)
    found = results(both)
    for key, metric in {
        "equal_error_rate": metrics.EqualErrorRate(**options),
        "min_detection_cost": metrics.MinDetectionCost(
            p_target=P_TARGET, **options
        ),
        "match_auc": metrics.MatchAUC(**options),
        "true_match_rate": metrics.TrueMatchRateAt(
            false_match_rate=LIMIT, **options
        ),
        "average_precision": metrics.AveragePrecision(**options),
        "cllr": metrics.Cllr(**options),
        "min_cllr": metrics.MinCllr(**options),
        "d_prime": metrics.DPrime(**options),
    }.items():
        metric.update_state(match, score)
        assert float(metric.result()) == found[key]
        assert metric.bounds() == both.bounds()[f"v_{key}"]
        assert metric.threshold == both.thresholds()[f"v_{key}"]
    assert both.thresholds()["v_detection_cost"] == np.float32(CUT)
    assert both.threshold == both.thresholds()["v_equal_error_rate"]


@pytest.mark.parametrize("similarity", [False, True])
def test_the_threshold_is_where_the_figure_is_reached(similarity):
    rng = np.random.default_rng(2)
    match = rng.random(200) < 0.4
    score = (rng.normal(size=200) + match).astype("float32")
    score = score if similarity else -score
    metric = everything(similarity, **BINS)
    metric.update_state(match, score)
    found, edges = metric.thresholds(), metric.histogram.edges()

    def errors(threshold):
        called = score >= threshold if similarity else score < threshold
        return np.mean(called[~match]), np.mean(~called[match])

    rates = np.array([errors(edge) for edge in edges])
    false_match, non_match = rates.T
    hits = match.sum() * (1 - non_match)
    best = {
        "equal_error_rate": abs(non_match - false_match),
        "min_detection_cost": P_TARGET * non_match
        + (1 - P_TARGET) * false_match,
        "match_auc": non_match + false_match,
        "min_cllr": non_match + false_match,
        "true_match_rate": non_match + 9 * (false_match > LIMIT),
        "average_precision": -2
        * hits
        / (hits + (~match).sum() * false_match + match.sum()),
    }
    for key, badness in best.items():
        at = np.flatnonzero(edges == np.float32(found[f"v_{key}"]))
        assert badness[at] == pytest.approx(badness.min(), abs=1e-12), key
    assert found["v_cllr"] == 0
    x, y = score[match], score[~match]
    t = found["v_d_prime"]
    apart = abs(x.mean() - t) / x.std(), abs(y.mean() - t) / y.std()
    assert apart[0] == pytest.approx(apart[1], rel=0.2)  # as fine as bins are


@pytest.mark.parametrize("similarity", [False, True])
def test_frozen_at_its_threshold_the_cost_stays_the_same(similarity):
    rng = np.random.default_rng(3)
    match = rng.random(200) < 0.4
    score = (rng.normal(size=200) + 2 * match).astype("float32")
    score = score if similarity else -score
    tuned = metrics.MinDetectionCost(
        p_target=0.3, similarity=similarity, **BINS
    )
    tuned.update_state(match, score)
    frozen = metrics.DetectionCost(
        tuned.threshold, p_target=0.3, similarity=similarity
    )
    frozen.update_state(match, score)
    result = float(frozen.result())
    assert result == pytest.approx(float(tuned.result()), abs=1e-6)
    assert frozen.threshold == tuned.threshold
    assert frozen.bounds() == pytest.approx((result, result), abs=1e-6)


@pytest.mark.parametrize("similarity", [False, True])
def test_the_curve_counts_errors_at_its_thresholds(similarity):
    rng = np.random.default_rng(4)
    match = rng.random(200) < 0.4
    score = (rng.normal(size=200) + match).astype("float32")
    metric = metrics.MatchAUC(similarity=similarity, **BINS)
    metric.update_state(match, score)
    curve = metric.curve()
    assert np.all(np.diff(curve.threshold) > 0)
    assert len(curve.threshold) < 40
    for t, non_match, false_match in zip(*curve, strict=True):
        called = score >= t if similarity else score < t
        assert non_match == pytest.approx(np.mean(~called[match]), abs=1e-12)
        assert false_match == pytest.approx(np.mean(called[~match]), abs=1e-12)


def test_merging_several_equals_one_pass():
    rng = np.random.default_rng(5)
    match, score, weight = rng.integers(0, 2, 90), rng.normal(size=90), rng
    weight = weight.random(90)
    whole, *parts = (everything(False, **BINS) for _ in range(4))
    whole.update_state(match, score, weight)
    for part, rows in zip(parts, np.split(np.arange(90), 3), strict=True):
        part.update_state(match[rows], score[rows], weight[rows])
    parts[0].merge_state(parts[1:])
    assert np.array_equal(parts[0].histogram.counts(), whole.histogram.counts())
    assert results(parts[0]) == results(whole)
    with pytest.raises(ValueError, match="configured alike"):
        whole.merge_state([everything(True, **BINS)])


@pytest.mark.parametrize(
    ("match", "score"),
    [
        ([], []),
        ([1, 1], [0.1, 0.2]),
        ([0, 0], [0.1, 0.2]),
        ([1, 0, 1], [0.1, 0.9, NAN]),
    ],
)
@on_host_or_device
def test_what_cannot_be_judged_is_nan_and_has_no_curve(match, score, on_host):
    metric = everything(False, **BINS)
    metric.update_state(match, score)
    assert np.isnan(list(results(metric, on_host).values())).all()
    assert np.isnan(list(metric.bounds().values())).all()
    assert np.isnan(metric.threshold)
    with pytest.raises(ValueError, match="at least one match"):
        metric.curve()


@on_host_or_device
def test_infinite_scores_are_ordered_as_all_others(on_host):
    metric = everything(True, **BINS)
    metric.update_state([1, 1, 1, 0, 0, 0], [INF, INF, 1, -INF, -1, 0.5])
    found = results(metric, on_host)
    assert found["match_auc"] == 1
    assert found["equal_error_rate"] == found["min_detection_cost"] == 0
    assert np.isnan(found["d_prime"])
    assert metric.bounds()["v_d_prime"] == (-INF, INF)
    # No evidence could be stronger, and it is right: it costs nothing.
    assert found["cllr"] < 1
    metric.update_state([0], [INF])
    assert results(metric, on_host)["cllr"] == INF


@on_host_or_device
def test_outside_of_the_range_scores_keep_their_order_but_lose_their_value(
    on_host,
):
    metric = everything(True, **LINEAR)
    metric.update_state([1, 1, 0, 0], [9.0, 1.0, -9.0, 0.5])
    found, bounds = results(metric, on_host), metric.bounds()
    assert found["match_auc"] == 1
    assert np.isnan([found["d_prime"], found["cllr"]]).all()
    assert bounds["v_d_prime"] == (-INF, INF)
    low, high = bounds["v_cllr"]
    assert 0 < low < high < 1


def test_all_pairs_of_a_batch_are_compared():
    rng = np.random.default_rng(6)
    ids, weight = rng.integers(0, 3, 8), rng.random(8).astype("float32")
    rows = (rng.normal(size=(8, 2)) + ids[:, None]).astype("float32")
    a, b = np.triu_indices(8, k=1)
    distance = np.linalg.norm(rows[a] - rows[b], axis=1)
    plain = metrics.MatchAUC(similarity=False, **BINS)
    plain.update_state(ids[a] == ids[b], distance, weight[a] * weight[b])
    paired = metrics.MatchAUC(distance="euclidean", **BINS)
    paired.update_state(ids, rows, weight)
    assert float(paired.result()) == pytest.approx(float(plain.result()))


def test_flags_and_logits_of_any_shape_that_flattens():
    match = np.array([[1, 0, 1], [0, 1, 0]])
    logits = np.array([[2.0, -1.0, 0.5], [1.0, 3.0, -2.0]], "float32")
    metric = metrics.MatchAUC(similarity=True, **BINS)
    metric.update_state(match[..., None], logits)
    expected = roc_auc_score(match.ravel(), logits.ravel())
    low, high = metric.bounds()
    assert low - 1e-12 <= expected <= high + 1e-12
    mask = ops.array([[True, True, False], [True, True, False]])
    masked = metrics.MatchAUC(similarity=True, **BINS)
    tensor = ops.convert_to_tensor(logits)
    tensor._keras_mask = mask
    masked.update_state(match, tensor)
    assert masked.histogram.counts().sum() == 4


@on_host_or_device
def test_counts_beyond_two_to_the_31_a_bin_are_exact(on_host):
    metric = everything(False, **BINS)
    metric.update_state([1, 0, 1, 0], [0.1, 0.1, 0.9, 0.9])
    high = metric.histogram.variables[0]
    high.assign(ops.convert_to_tensor(metric.histogram.variables[1]) * 2**20)
    counts = metric.histogram.counts()
    assert np.all(counts[counts > 0] == 2**32 + 1)
    found = results(metric, on_host)
    assert found["match_auc"] == found["equal_error_rate"] == 0.5


# What goes wrong -----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.EqualErrorRate(method="hull"), "'convex_hull'"),
        (lambda: metrics.MinDetectionCost(p_target=0.0), "p_target"),
        (lambda: metrics.MinDetectionCost(p_target=1.5), "p_target"),
        (lambda: metrics.MinDetectionCost(c_miss=0), "c_miss"),
        (lambda: metrics.MinDetectionCost(c_false_alarm=NAN), "c_false_alarm"),
        (lambda: metrics.DetectionCost(None), "threshold"),
        (lambda: metrics.DetectionCost(NAN, similarity=False), "not NaN"),
        (
            lambda: metrics.TrueMatchRateAt(false_match_rate=1.5),
            "false_match_rate",
        ),
        (lambda: metrics.MatchAUC(range=(1, 0), similarity=False), "range"),
        (lambda: metrics.MatchAUC(range=3, similarity=False), "range"),
        (lambda: metrics.MatchAUC(range=(0, INF), similarity=False), "range"),
        (
            lambda: metrics.MatchAUC(resolution=13, similarity=False),
            "resolution",
        ),
        (lambda: metrics.MatchAUC(distance="cosine", similarity=True), "alike"),
    ],
)
def test_wrong_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "metric",
    [
        metrics.EqualErrorRate(
            method="convex_hull", range=(0.5, 1), similarity=True
        ),
        metrics.MinDetectionCost(
            p_target=0.05,
            c_miss=2.0,
            c_false_alarm=3.0,
            resolution=3,
            similarity=False,
        ),
        metrics.DetectionCost(
            0.7, p_target=0.05, similarity=False, dtype="float16"
        ),
        metrics.MatchAUC(distance="cosine", name="mine"),
        metrics.TrueMatchRateAt(false_match_rate=0.25, similarity=False),
        metrics.AveragePrecision(similarity=True),
        metrics.Cllr(similarity=True),
        metrics.MinCllr(similarity=False),
        metrics.DPrime(similarity=False),
        metrics.MatchAccuracy(range=(0, 1), similarity=False),
    ],
    ids=lambda metric: metric.name,
)
def test_the_configuration_comes_back_whole(metric):
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert again.get_config() == metric.get_config()
    assert np.array_equal(again.histogram.edges(), metric.histogram.edges())


@pytest.mark.parametrize("weight", [[1, 1, 1e38, 3e38], [1e38, 3e38, 1, 1]])
def test_weights_whose_sum_float32_does_not_hold_are_no_good_figure(weight):
    for metric in (everything(False), metrics.MatchAccuracy(similarity=False)):
        metric.update_state([1, 1, 0, 0], [0.1, 0.7, 0.6, 0.9], weight)
        result, bounds = metric.result(), metric.bounds()
        if not isinstance(result, dict):
            result, bounds = {"": result}, {"": bounds}
        assert np.isnan([to_numpy(x) for x in result.values()]).all()
        assert np.isnan(list(bounds.values())).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("distance", ["cosine", "euclidean", "symmetric_kl"])
@thorough_on("jax")
def test_each_view_of_an_embedding_is_a_row(distance, masked):
    views, ids = normal(6, 2, 3), np.array([0, 1, 0, 2, 1, 0])
    weight = np.array([1.0, 2.0, 0.0, 1.0, 3.0, 1.0])
    keep = np.array([[1, 1], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1]])
    metric, flat = (metrics.EqualErrorRate(distance=distance) for _ in range(2))
    rows, each = views.reshape(12, 3), np.repeat(weight, 2)
    if masked:
        views, each = with_mask(views, keep == 1), each * keep.ravel()
    metric.update_state(ids[:, None], views, weight)
    flat.update_state(np.repeat(ids, 2), rows, each)
    np.testing.assert_array_equal(
        metric.histogram.counts(), flat.histogram.counts()
    )
    assert flat.histogram.counts().sum(axis=1).min() > 0


def test_a_model_may_give_views_of_each_example():
    x, ids = normal(12, 6), np.arange(12) % 3
    model = keras.Sequential([keras.Input((6,)), keras.layers.Reshape((2, 3))])
    model.compile(
        loss=lambda y_true, y_pred: ops.zeros_like(y_pred[:, 0, 0]),
        metrics=[metrics.MatchAccuracy(distance="cosine")],
    )
    # Batches of 5, 5 and 2.
    found = model.evaluate(x, ids, batch_size=5, verbose=0)[1]
    metric = metrics.MatchAccuracy(distance="cosine")
    for start in (0, 5, 10):
        rows = x[start : start + 5].reshape(-1, 3)
        metric.update_state(np.repeat(ids[start : start + 5], 2), rows)
    assert found == pytest.approx(float(to_numpy(metric.result())))
