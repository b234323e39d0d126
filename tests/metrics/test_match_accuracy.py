"""The accuracy is that of a naive search, and the threshold attains it."""

import pickle

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from sklearn.metrics import accuracy_score, balanced_accuracy_score

import keras_xent
from keras_xent.metrics import MatchAccuracy
from tests.testing import thorough_on

NAN = float("nan")
quick = settings(max_examples=20, deadline=None)
decisions = pytest.mark.parametrize("similarity", [False, True])
balances = pytest.mark.parametrize("balanced", [False, True])


def metric_of(match, score, weight=None, **kwargs):
    """A metric that has seen these scores, distances if nothing is said."""
    metric = MatchAccuracy(**{"similarity": False, **kwargs})
    metric.update_state(match, score, weight)
    return metric


def value(metric):
    return float(ops.convert_to_numpy(metric.result()))


def accuracy_at(threshold, match, score, weight, similarity, balanced):
    """Naive accuracy of raw float32 scores, by scikit-learn."""
    score = np.asarray(score, "float32")
    called = score >= threshold if similarity else score < threshold
    judge = balanced_accuracy_score if balanced else accuracy_score
    return judge(match, called, sample_weight=weight)


def random_pairs(n=300, seed=0, coarse=False):
    rng = np.random.default_rng(seed)
    match = rng.integers(0, 2, n)
    score = np.exp(rng.normal(1.0 - match)) - 1.0
    if coarse:
        score = np.round(score)
    return match, score.astype("float32"), rng.integers(0, 5, n)


@decisions
@balances
@pytest.mark.parametrize("threshold", [-0.3, 0.0, 0.7, np.inf])
def test_at_a_number_it_is_plain_accuracy(similarity, balanced, threshold):
    match, score, weight = random_pairs(coarse=True)
    kwargs = {"similarity": similarity, "balanced": balanced}
    metric = metric_of(match, score, weight, threshold=threshold, **kwargs)
    expected = accuracy_at(threshold, match, score, weight, **kwargs)
    assert value(metric) == pytest.approx(expected, abs=1e-6)
    assert metric.threshold == np.float32(threshold)


@decisions
@balances
def test_tuned_it_is_the_best_over_all_edges(similarity, balanced):
    match, score, weight = random_pairs()
    kwargs = {"similarity": similarity, "balanced": balanced}
    metric = metric_of(match, score, weight, resolution=1, **kwargs)
    every = [
        accuracy_at(edge, match, score, weight, **kwargs)
        for edge in metric.histogram.edges()
    ]
    assert value(metric) == pytest.approx(max(every), abs=2e-6)
    at_threshold = accuracy_at(metric.threshold, match, score, weight, **kwargs)
    assert at_threshold == pytest.approx(max(every), abs=1e-12)


@balances
@quick
@given(data=st.data())
def test_frozen_at_its_threshold_it_stays_the_same(balanced, data):
    n = 12
    score = data.draw(
        st.lists(st.floats(width=32, allow_nan=False), min_size=n, max_size=n)
    )
    match = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    similarity = data.draw(st.booleans())
    kwargs = {"similarity": similarity, "balanced": balanced}
    tuned = metric_of(match, score, resolution=3, **kwargs)
    if all(match) or not any(match):
        assert np.isnan(value(tuned))
        assert np.isnan(tuned.threshold)
        return
    frozen = metric_of(match, score, threshold=tuned.threshold, **kwargs)
    assert value(frozen) == pytest.approx(value(tuned), abs=2e-6)
    # At least as good as everything or nothing a match, which no threshold
    # gives where a score is inf.
    if max(score) == np.inf:
        return
    least = 0.5 if balanced else max(np.mean(match), 1 - np.mean(match))
    assert value(tuned) >= least - 1e-6


@balances
def test_fine_bins_find_the_best_threshold_of_raw_scores(balanced):
    match, score, _ = random_pairs()
    best = max(
        accuracy_at(t, match, score, None, False, balanced)
        for t in [*score, np.inf]
    )
    metric = metric_of(match, score, balanced=balanced, resolution=12)
    assert value(metric) == pytest.approx(best, abs=1e-6)


@balances
@quick
@given(seed=st.integers(0, 10_000))
def test_distances_and_their_negatives_as_similarities_agree(balanced, seed):
    match, score, weight = random_pairs(n=50, seed=seed)
    score = np.where(score % 0.125 == 0, score + 0.01, score)  # off the edges
    kwargs = {"balanced": balanced, "resolution": 3}
    distance = metric_of(match, score, weight, **kwargs)
    similarity = metric_of(match, -score, weight, similarity=True, **kwargs)
    assert value(distance) == pytest.approx(value(similarity), abs=2e-6)


@quick
@given(seed=st.integers(0, 10_000))
@thorough_on("jax")
def test_merging_equals_one_pass_in_any_order(seed):
    match, score, weight = random_pairs(n=40, seed=seed)
    order = np.random.default_rng(seed).permutation(40)
    whole, first, second = (
        metric_of(match[rows], score[rows], weight[rows], resolution=3)
        for rows in (order, slice(20), slice(20, None))
    )
    first.merge_state([second])
    assert value(first) == value(whole)
    assert first.threshold == whole.threshold


@pytest.mark.parametrize(
    ("match", "score", "expected"),
    [
        # Best from just above 1 up to 4: the middle in the order of bins.
        ([1, 0], [1.0, 4.0], 2.0),
        # Everything a match: from the bin above 1 up to infinity.
        ([1, 1, 0], [0.5, 1.0, 0.5], 2.0**64),
        # Two runs are equally good; the lower one holds.
        ([1, 0, 1, 0], [1.0, 4.0, 16.0, 64.0], 2.0),
    ],
)
def test_among_equals_it_takes_the_middle_of_the_lowest_run(
    match, score, expected
):
    metric = metric_of(match, score)
    assert metric.threshold == pytest.approx(expected, rel=2**-7)


def test_an_infinite_distance_is_never_a_match_a_similarity_always():
    match, score = [1, 1, 1, 0], [np.inf, np.inf, 1.0, 2.0]
    assert value(metric_of(match, score)) == 0.5
    flipped = [1 - flag for flag in match]
    assert value(metric_of(flipped, score, similarity=True)) == 0.5


def test_counts_and_threshold_stay_exact_past_two_to_the_24():
    big = 2.0**30
    match, score = [1, 0, 1, 0], [1.0, 1.0, 2.0, 2.0]
    # One more match than non-match at 1, one fewer at 2: float32 sees neither.
    metric = metric_of(match, score, [big, big, big, big])
    for flag, at in [(1, 1.0), (0, 2.0)]:
        metric.update_state([flag], [at])
    assert 1.0 < metric.threshold <= 2.0
    frozen = MatchAccuracy(threshold=1.5, similarity=False)
    frozen.histogram.update_state(match, score, [big, big, big, big])
    for _ in range(3):
        frozen.update_state([1], [1.0])
    assert frozen.histogram.counts()[1, 0] == big + 3


@balances
def test_a_large_random_state_gives_the_right_accuracy(balanced):
    metric = MatchAccuracy(balanced=balanced, similarity=False)
    rng = np.random.default_rng(0)
    for variable in metric.variables:
        variable.assign(rng.integers(0, 4096, variable.shape) * 1.0)
        # No NaN scores, nothing unusable.
        slots = ops.convert_to_numpy(variable).copy()
        slots[2 * metric.histogram.bins :] = 0
        variable.assign(slots)
    non_match, match = metric.histogram.counts()
    below = [np.append(0, np.cumsum(c)[:-1]) for c in (non_match, match)]
    true_match, true_non_match = below[1], non_match.sum() - below[0]
    if balanced:
        rates = true_match / match.sum() + true_non_match / non_match.sum()
        expected = rates.max() / 2
    else:
        expected = (true_match + true_non_match).max() / (
            match + non_match
        ).sum()
    assert value(metric) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("match", [[], [1, 1], [0, 0]])
def test_without_both_kinds_it_is_nan(threshold, match):
    metric = metric_of(match, np.ones(len(match)), threshold=threshold)
    assert np.isnan(value(metric))
    assert (threshold is None) == np.isnan(metric.threshold)


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize(
    ("match", "score", "weight"),
    [
        ([1, 0, 1], [0.1, 0.9, NAN], None),
        (ops.array([1, 0, 2]), [0.1, 0.9, 0.2], None),
        (ops.array([1, 0, NAN]), [0.1, 0.9, 0.2], None),
        ([1, 0, 1], [0.1, 0.9, 0.2], [1.0, 1.0, -1.0]),
    ],
)
def test_what_cannot_be_judged_makes_it_nan(threshold, match, score, weight):
    assert np.isnan(value(metric_of(match, score, weight, threshold=threshold)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_comparison_is_in_float32_whatever_the_policy(dtype):
    # 257/256 and 1 are one number in bfloat16.
    metric = metric_of([1, 0], [1.0, 257 / 256], threshold=1.001, dtype=dtype)
    assert value(metric) == 1.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "bool"])
def test_scores_and_flags_of_any_dtype_are_taken(dtype):
    score = ops.cast(ops.array([0.0, 1.0]), dtype)
    match = ops.cast(ops.array([1, 0]), dtype)
    assert value(metric_of(match, score)) == 1.0


def test_a_fixed_threshold_needs_no_histogram():
    metric = MatchAccuracy(threshold=1, similarity=False)
    assert sum(np.prod(v.shape) for v in metric.variables) < 30


# All pairs of a batch ------------------------------------------------------


def pairs_by_loop(ids, rows, weight):
    for j in range(len(ids)):
        for i in range(j):
            d = float(np.sqrt(np.sum((rows[i] - rows[j]) ** 2)))
            yield int(ids[i] == ids[j]), d, weight[i] * weight[j]


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
@pytest.mark.parametrize("threshold", [None, 1.5])
def test_all_pairs_count_once_with_the_product_of_weights(shape, threshold):
    rng = np.random.default_rng(1)
    ids, weight = rng.integers(0, 3, 9), rng.integers(0, 3, 9)
    rows = rng.normal(size=(9, 2)) + ids[:, None]
    match, distance, product = zip(
        *pairs_by_loop(ids, rows, weight), strict=True
    )
    expected = metric_of(match, distance, product, threshold=threshold)
    metric = metric_of(
        ids.reshape(shape),
        rows.astype("float32"),
        weight.reshape(shape),
        threshold=threshold,
        distance="euclidean",
    )
    assert value(metric) == pytest.approx(value(expected), abs=1e-6)
    total = metric.histogram.counts().sum()
    assert total == np.sum(product)


@pytest.mark.parametrize("junk", [NAN, np.inf, 1e30])
@pytest.mark.parametrize("distance", ["symmetric_kl", "euclidean", "cosine"])
def test_masked_rows_take_part_in_no_pair(distance, junk):
    rows = ops.array([[0.0, 2.0], [junk, 0.0], [0.5, 2.0], [4.0, 1.0]])
    rows._keras_mask = ops.array([True, False, True, True])
    metric = metric_of([1, 1, 1, 2], rows, distance=distance)
    assert value(metric) == 1.0
    assert metric.histogram.counts().sum(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize("wrap", [np.array, lambda x: ops.array(x, "int32")])
def test_class_ids_that_float32_cannot_tell_apart_stay_apart(wrap):
    ids = wrap([2**24, 2**24 + 1, 2**31 - 1, 2**31 - 2])
    metric = metric_of(ids, np.arange(8.0).reshape(4, 2), distance="euclidean")
    assert metric.histogram.counts().sum(axis=1).tolist() == [6, 0]


def test_a_class_id_that_is_nan_makes_it_nan():
    ids, rows = np.array([1.0, 1.0, 2.0, NAN]), np.arange(4.0)[:, None] ** 2
    assert np.isnan(value(metric_of(ids, rows, distance="euclidean")))
    metric = metric_of(ids, rows, [1, 1, 1, 0], distance="euclidean")
    assert value(metric) == 1.0


@pytest.mark.parametrize("distance", ["symmetric_kl", "euclidean", "cosine"])
def test_named_distances_part_what_is_far_apart(distance):
    rows = [[5.0, 0.0], [5.1, 0.0], [0.0, 5.0], [0.0, 5.1]]
    metric = metric_of([0, 0, 1, 1], rows, distance=distance)
    assert value(metric) == 1.0


@keras.saving.register_keras_serializable(package="test")
def dot_similarity(rows):
    return ops.matmul(rows, ops.transpose(rows))


def test_a_callable_may_give_similarities():
    metric = metric_of(
        [0, 0, 1, 1],
        [[5.0, 0.0], [5.1, 0.0], [0.0, 5.0], [0.0, 5.1]],
        distance=dot_similarity,
        similarity=True,
    )
    assert value(metric) == 1.0
    assert 0 < metric.threshold <= 25.5


# What goes wrong -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": NAN, "similarity": False}, "not NaN"),
        ({"distance": "euclid"}, "'euclidean'"),
        ({"distance": 3, "similarity": False}, "callable"),
        ({"distance": "cosine", "similarity": True}, "similarity=True"),
        ({"resolution": -1, "similarity": False}, "resolution"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        MatchAccuracy(**arguments)


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        (np.arange(3), np.ones((4, 2)), "class ids \\[n\\]"),
        (np.arange(4), np.ones(4), "class ids \\[n\\]"),
        (np.ones((4, 2)), np.ones((4, 2)), "shape \\[n\\] or"),
        (np.array([1, 2**31]), np.ones((2, 2)), "fit into int32"),
        (np.array([1, 2**63], "uint64"), np.ones((2, 2)), "fit into int32"),
        (np.array([1, 2.0**24 + 1]), np.ones((2, 2)), "fit into float32"),
        (np.array(["a", "b"]), np.ones((2, 2)), "numbers"),
    ],
)
def test_wrong_class_ids_raise(ids, rows, message):
    with pytest.raises(ValueError, match=message):
        metric_of(ids, rows, distance="euclidean")


def test_a_distance_of_another_shape_raises():
    for wrong in (lambda x: x[:, 0], lambda x: x):
        with pytest.raises(ValueError, match="shape"):
            metric_of(np.arange(4), np.ones((4, 2)), distance=wrong)


# What Keras asks for -------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": 0.25, "similarity": True, "dtype": "float16"},
        {"distance": "cosine", "balanced": True, "resolution": 5},
        {"distance": dot_similarity, "similarity": True, "name": "dot"},
    ],
)
def test_the_configuration_comes_back_whole(arguments):
    metric = MatchAccuracy(**arguments)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert again.get_config() == metric.get_config()
    assert again.distance == metric.distance
    for name, given_value in arguments.items():
        assert getattr(again, name) == given_value


def test_it_survives_pickling():
    # Without its state, as Keras's own metrics do.
    metric = MatchAccuracy(resolution=2, distance="cosine")
    again = pickle.loads(pickle.dumps(metric))
    assert again.get_config() == metric.get_config()


def test_it_works_without_state_of_its_own():
    metric = MatchAccuracy(resolution=2, similarity=False)
    state = [ops.convert_to_tensor(v) for v in metric.variables]
    state = metric.stateless_update_state(
        state, ops.array([1, 0]), ops.array([0.1, 0.9])
    )
    assert float(metric.stateless_result(state)) == 1.0
    assert np.isnan(value(metric))


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_fit_reports_it_and_evaluate_agrees_with_a_loop(threshold):
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(4), 4)
    rows = (rng.normal(size=(16, 3)) + ids[:, None]).astype("float32")
    metric = MatchAccuracy(threshold=threshold, distance="euclidean")
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", lambda y, x: ops.sum(x, axis=1), metrics=[metric])
    history = model.fit(rows, ids, batch_size=16, epochs=1, verbose=0)
    assert 0 < history.history["match_accuracy"][0] <= 1
    result = model.evaluate(rows, ids, 16, verbose=0, return_dict=True)
    embedded = model.predict(rows, verbose=0)
    match, distance, _ = zip(
        *pairs_by_loop(ids, embedded, np.ones(16)), strict=True
    )
    expected = metric_of(match, distance, threshold=threshold)
    assert result["match_accuracy"] == pytest.approx(value(expected), abs=0.01)


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_bad_weights_do_not_multiply_to_a_good_pair(bad):
    metric = MatchAccuracy(distance="euclidean")
    metric.update_state(
        np.array([0, 0, 1]), np.eye(3, dtype="float32"), np.full(3, bad)
    )
    assert np.isnan(float(metric.result()))


def test_scores_beyond_int32_keep_their_order():
    metric = MatchAccuracy(similarity=False)
    metric.update_state([1, 0], np.array([2**40, 2**41]))
    assert float(metric.result()) == 1.0


def test_our_own_distance_functions_are_saved_by_name():
    metric = MatchAccuracy(distance=keras_xent.ops.pairwise_cosine)
    assert metric.get_config()["distance"] == "cosine"


def test_metrics_configured_differently_do_not_merge():
    one, other = (
        MatchAccuracy(balanced=balanced, similarity=False)
        for balanced in (False, True)
    )
    with pytest.raises(ValueError, match="configured alike"):
        one.merge_state([other])
