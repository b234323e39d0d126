"""The histogram bins every float32 rightly, and forgets nothing."""

from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_xent.metrics import ScoreHistogram
from keras_xent.metrics.score_histogram import order_key
from tests.testing import BACKEND, compiled

INF, NAN = np.float32(np.inf), np.float32(np.nan)
TINY = np.float32(1e-45)  # the smallest denormal
GREATEST = np.finfo("float32").max
SPECIAL = np.array(
    np.outer([0.0, TINY, 1e-40, 1.0, 1.5, 2.0, GREATEST, INF], [1, -1]).ravel(),
    "float32",
)

any_score = st.floats(width=32, allow_nan=False)
quick = settings(max_examples=25, deadline=None)


def bin_by_frexp(score, resolution):
    """The bin worked out from the value alone; no bits are read."""
    size = float(abs(score))
    if np.isinf(size):
        magnitude = 255
    else:
        _, exponent = np.frexp(size)  # size = fraction · 2^exponent
        exponent = max(int(exponent), -125) if size else -125
        # Binades from 0 up, and how far into the last one.
        magnitude = exponent + 125 + size / 2.0 ** (exponent - 1)
    return int(np.floor(np.copysign(magnitude, float(score)) * 2**resolution))


def filled(scores, match=None, weight=None, **kwargs):
    histogram = ScoreHistogram(**kwargs)
    match = np.ones(np.shape(scores)) if match is None else match
    histogram.update_state(match, scores, weight)
    return histogram


@pytest.mark.parametrize("resolution", [0, 3, 7, 9])
def test_the_bin_is_that_of_exponent_and_leading_mantissa(resolution):
    # Weights that tell the scores of a bin apart.
    weight = 2.0 ** np.arange(len(SPECIAL))
    histogram = filled(SPECIAL, weight=weight, resolution=resolution)
    expected = np.zeros(histogram.bins)
    for score, w in zip(SPECIAL, weight, strict=True):
        middle = histogram.bins // 2
        expected[middle + bin_by_frexp(score, resolution)] += w
    assert np.array_equal(histogram.counts()[1], expected)


@quick
@given(st.lists(any_score, min_size=20, max_size=20))
def test_every_score_lies_in_its_half_open_bin(scores):
    histogram = filled(np.array(scores, "float32"))
    edges = histogram.edges()
    expected = np.searchsorted(edges, np.float32(scores), side="right") - 1
    counts = np.bincount(expected, minlength=histogram.bins)
    assert np.array_equal(histogram.counts()[1], counts)


@quick
@given(st.lists(any_score, min_size=20, max_size=20))
def test_keys_are_ordered_as_scores_are(scores):
    scores = np.sort(np.array(scores, "float32"))
    keys = np.asarray(ops.convert_to_numpy(order_key(ops.array(scores))))
    # No difference of keys: that of two far ones is beyond int32.
    assert np.array_equal(keys[1:] > keys[:-1], scores[1:] > scores[:-1])


def test_there_are_65281_edges_from_minus_to_plus_infinity():
    edges = ScoreHistogram(resolution=7).edges()
    assert len(edges) == 65281
    assert edges.dtype == np.float32
    assert edges[0] == -np.inf
    assert edges[-1] == np.inf
    middle = len(edges) // 2
    assert edges[middle] == 0.0
    assert not np.signbit(edges[middle])
    bits = edges.view("int32").astype("int64")
    # Rising in the order of float32, and 2**16 steps apart: worked out from the
    # sign and the bits, since differences of denormals are awkward.
    keys = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    assert np.all(np.diff(keys) == 2**16)


def test_bins_are_the_same_when_compiled():
    histogram = ScoreHistogram()
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(
        loss="mse",
        metrics=[histogram],
        # PyTorch takes 20 s to compile a model.
        jit_compile=keras.backend.backend() != "torch",
    )
    scores = np.append(SPECIAL, NAN)[:, None]
    model.evaluate(scores, np.ones(scores.shape), verbose=0)
    expected = filled(SPECIAL)
    assert np.array_equal(histogram.counts(), expected.counts())
    assert float(histogram.result()["nan_scores"]) == 1


def test_nan_is_counted_apart_on_both_sides():
    negative_nan = np.array([0xFFC00000], "uint32").view("float32")
    scores = np.concatenate([negative_nan, [NAN, 1.0, 2.0]]).astype("float32")
    histogram = filled(scores, match=[1, 0, 1, 0], weight=[2.0, 3.0, 1.0, 4.0])
    result = {k: float(v) for k, v in histogram.result().items()}
    assert result == {
        "matches": 1,
        "non_matches": 4,
        "nan_scores": 5,
        "unusable": 0,
    }
    assert histogram.counts().sum() == 5


@pytest.mark.parametrize("weight", [-1.0, np.inf, np.nan])
def test_a_wrong_weight_is_reported_not_counted(weight):
    histogram = filled([1.0, 2.0], weight=[weight, 1.0])
    assert float(histogram.result()["unusable"]) == 1
    assert histogram.counts().sum() == 1


def test_a_flag_on_the_device_that_is_no_flag_is_reported_not_counted():
    histogram = filled([1.0, 2.0, 3.0], match=ops.array([1.0, 2.0, NAN]))
    assert float(histogram.result()["unusable"]) == 2
    assert histogram.counts().sum() == 1


def test_what_weighs_nothing_does_not_count_whatever_it_holds():
    histogram = filled([NAN, 1.0, 2.0], match=[0, -1, 1], weight=[0, 0, 3])
    result = {k: float(v) for k, v in histogram.result().items()}
    assert result.pop("matches") == 3
    assert not any(result.values())


def test_masked_scores_do_not_count():
    scores = ops.array([[1.0, NAN], [3.0, 4.0]])
    scores._keras_mask = ops.array([[True, False], [True, True]])
    histogram = filled(scores, match=np.array([[1, 7], [0, 1]]))
    assert histogram.counts().sum(axis=1).tolist() == [1, 2]
    assert histogram.exact_sums()[1].sum() == 0


@quick
@given(
    st.lists(st.tuples(st.booleans(), any_score), min_size=9, max_size=9),
    st.lists(st.tuples(st.booleans(), any_score), min_size=9, max_size=9),
)
def test_merging_equals_one_pass_and_order_plays_no_part(first, second):
    def of(pairs):
        pairs = np.array(pairs, "float32").reshape(-1, 2)
        return filled(pairs[:, 1], match=pairs[:, 0], resolution=2)

    merged, other = of(first), of(second)
    merged.merge_state([other])
    assert np.array_equal(merged.counts(), of(second + first).counts())


def test_counts_are_exact_far_past_what_float32_counts():
    histogram = ScoreHistogram(threshold=0.0)
    start = 2**35 + 1  # float32 has only multiples of 4096 here
    histogram.update_state([1], [1.0], [2.0**35])
    for _ in range(2):
        histogram.update_state(np.ones(1000), np.ones(1000))
    histogram.update_state([1], [1.0])
    assert histogram.counts()[1, 1] == start + 2000


def test_states_of_many_devices_may_be_added_part_by_part():
    histogram = ScoreHistogram(threshold=0.0)
    histogram.update_state([1], [1.0], [2.0**24 - 1])
    devices = 2**12
    for variable in histogram.variables:
        variable.assign(ops.convert_to_tensor(variable) * devices)
    assert histogram.counts()[1, 1] == (2**24 - 1) * devices


def test_a_block_too_large_for_a_float32_sum_is_split(monkeypatch):
    module = "keras_xent.metrics.score_histogram._LARGEST_BLOCK"
    scores, match = np.arange(10.0), np.arange(10) % 2
    whole = filled(scores, match)
    monkeypatch.setattr(module, 3)
    assert np.array_equal(filled(scores, match).counts(), whole.counts())


# Fractional weights --------------------------------------------------------


def exactly(weights):
    return sum(map(Fraction, np.float32(weights).tolist()))


def error(histogram, total):
    """Relative error of the only count there is."""
    return abs(Fraction(histogram.counts()[1, 1]) / total - 1)


@pytest.fixture(scope="module")
def weighted_update():
    """A compiled update of a thousand weights into one bin: state to state."""
    histogram = ScoreHistogram(threshold=0.0)
    score = ops.ones(1000)

    def update(*state_and_weight):
        *state, weight = state_and_weight
        return histogram.stateless_update_state(state, score, score, weight)

    if BACKEND == "torch":
        return histogram, update
    return histogram, compiled(update)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 37.0, 1e5])
def test_fractional_weights_are_summed_exactly_when_compiled(
    scale, weighted_update
):
    histogram, update = weighted_update
    rng = np.random.default_rng(0)
    state = [ops.zeros(v.shape) for v in histogram.variables]
    total = 0
    for _ in range(20):
        weight = (scale * rng.random(1000)).astype("float32")
        state = update(*state, ops.convert_to_tensor(weight))
        total += exactly(weight)
    for variable, part in zip(histogram.variables, state, strict=True):
        variable.assign(part)
    assert error(histogram, total) < 2**-40


def test_a_billion_updates_with_fractional_weights_are_right_to_2_to_the_40():
    # One update, doubled thirty times: almost 2**36.
    histogram = ScoreHistogram(threshold=0.0)
    weight = np.linspace(0.1, 1.9, 60, dtype="float32")
    histogram.update_state(np.ones(60), np.ones(60), weight)
    other = ScoreHistogram(threshold=0.0)
    for _ in range(30):
        for mine, its in zip(other.variables, histogram.variables, strict=True):
            mine.assign(its)
        histogram.merge_state([other])
    assert error(histogram, exactly(weight) * 2**30) < 2**-40


@quick
@given(st.integers(0, 2**20))
def test_weights_of_any_size_together(seed):
    size = np.random.default_rng(seed).uniform(-12, 16, 1000)
    weight = (2.0**size).astype("float32")
    histogram = filled(np.ones(1000), weight=weight, threshold=0.0)
    assert error(histogram, exactly(weight)) < 2**-45


def test_many_weights_in_one_bin_at_once_are_summed_exactly():
    weight = np.full(200_000, 0.1, "float32")
    histogram = filled(np.ones(200_000), weight=weight, threshold=0.0)
    assert error(histogram, exactly(weight[:1]) * 200_000) < 2**-40


def test_tiny_weights_keep_their_relative_size():
    histogram = filled(np.ones(1000), weight=np.full(1000, 1e-20))
    assert histogram.counts().sum() == pytest.approx(1e-17, rel=1e-4)
    assert float(histogram.result()["matches"]) == pytest.approx(1e-17, 1e-4)


def test_fractional_states_of_many_devices_may_be_added_part_by_part():
    histogram = ScoreHistogram(threshold=0.0)
    histogram.update_state([1], [1.0], [4095.999])
    devices = 2**12
    for variable in histogram.variables:
        variable.assign(ops.convert_to_tensor(variable) * devices)
    assert error(histogram, exactly([4095.999]) * devices) == 0


# Linear bins ---------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [(0.98, 1.0), (-3.0, 5.0), (0.0, 1e-6), (1e9, 1e9 + 512)]
)
def test_linear_bins_are_half_open_and_of_one_width(limits):
    histogram = ScoreHistogram(resolution=2, range=limits)
    edges = histogram.edges()
    lo, hi = np.float32(limits)
    assert np.all(np.diff(edges) > 0)
    assert edges[[0, 1, -2, -1]].tolist() == [-np.inf, lo, hi, np.inf]
    assert histogram.bins <= 2**11 + 3
    inner = edges[1:-1].astype("float64")
    even = np.linspace(inner[0], inner[-1], len(inner))
    np.testing.assert_allclose(
        inner, even, atol=float(np.spacing(np.float32(max(abs(lo), abs(hi)))))
    )
    rng = np.random.default_rng(0)
    # On the edges, next to them, in between and outside.
    scores = np.concatenate(
        [
            edges,
            np.nextafter(edges, np.float32(-np.inf)),
            np.nextafter(edges, np.float32(np.inf)),
            rng.uniform(limits[0], limits[1], 1000).astype("float32"),
            SPECIAL,
        ]
    ).astype("float32")
    histogram.update_state(np.ones(len(scores)), scores)
    place = np.searchsorted(edges, scores, side="right") - 1
    expected = np.bincount(place, minlength=histogram.bins)
    assert np.array_equal(histogram.counts()[1], expected)


def test_nan_is_counted_apart_from_linear_bins_too():
    histogram = filled([NAN, 0.5, -1.0], resolution=0, range=(0, 1))
    assert float(histogram.result()["nan_scores"]) == 1
    assert histogram.counts().sum() == 2


def test_where_float32_has_fewer_numbers_there_are_fewer_bins():
    histogram = ScoreHistogram(resolution=9, range=(0.999, 1.0))
    spacing = np.spacing(np.float32(0.999))
    assert histogram.bins < 2**18
    assert np.diff(histogram.edges()[1:-1]).min() >= spacing


def test_with_a_threshold_there_are_two_bins_parted_exactly_there():
    below = np.nextafter(np.float32(0.1), np.float32(0))
    histogram = filled(np.array([below, 0.1, -INF, INF]), threshold=0.1)
    assert histogram.counts().tolist() == [[0, 0], [2, 2]]
    assert histogram.edges().tolist() == [-np.inf, np.float32(0.1)]


@pytest.mark.parametrize("threshold", [TINY, 0.0, -0.0, -TINY])
def test_denormals_are_not_flushed_to_zero(threshold):
    scores = np.array([-TINY, -0.0, 0.0, TINY], "float32")
    histogram = filled(scores, threshold=threshold)
    assert histogram.counts()[1, 0] == (scores < threshold).sum()


def test_reset_forgets_everything():
    histogram = filled([1.0, NAN])
    histogram.reset_state()
    assert histogram.counts().sum() == histogram.exact_sums()[1].sum() == 0


def test_an_empty_batch_changes_nothing():
    histogram = filled(np.zeros((0,)))
    assert histogram.counts().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 13}, "from 0 to 12"),
        ({"resolution": 7.5}, "whole number"),
        ({"resolution": True}, "whole number"),
        ({"threshold": NAN}, "not NaN"),
        ({"threshold": [1.0, 2.0]}, "one number"),
        ({"threshold": "0.5"}, "one number"),
        ({"range": (1.0, 1.0)}, "two finite numbers"),
        ({"range": (0.0, NAN)}, "two finite numbers"),
        ({"range": (0.0, 1.0, 2.0)}, "two finite numbers"),
        ({"range": (0.0, 1e-40)}, "two finite numbers"),
        ({"range": (0.0, 1.0), "threshold": 0.5}, "one of them"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScoreHistogram(**arguments)


@pytest.mark.parametrize(
    ("match", "score", "weight", "message"),
    [
        (np.ones(3), np.ones(4), None, "one match flag for each score"),
        (np.ones((2, 2)), np.ones(4), None, "one match flag for each score"),
        (np.ones((1, 3)), np.ones(3), None, "one match flag for each score"),
        (np.ones(1), np.ones(3), None, "one match flag for each score"),
        (np.ones(3), np.ones(3), np.ones(2), "sample_weight"),
        (np.ones(3), np.ones(3), np.ones((3, 2)), "sample_weight"),
        ([0, 2], [1.0, 2.0], None, "Received .*2.*distance"),
        ([0, 2], [1.0, 2.0], [0.0, 1.0], "Received .*2.*distance"),
    ],
)
def test_wrong_input_raises(match, score, weight, message):
    with pytest.raises(ValueError, match=message):
        ScoreHistogram(resolution=0).update_state(match, score, weight)


@pytest.mark.parametrize("match_shape", [(6,), (6, 1)])
@pytest.mark.parametrize("score_shape", [(6,), (6, 1)])
@pytest.mark.parametrize("weight_shape", [(), (6,), (6, 1)])
def test_a_last_axis_of_one_never_broadcasts(
    match_shape, score_shape, weight_shape
):
    histogram = filled(
        np.arange(6.0).reshape(score_shape),
        np.ones(match_shape),
        np.full(weight_shape, 2.0),
        resolution=1,
    )
    assert histogram.counts().sum() == 12


def test_a_weight_per_row_counts_for_every_score_of_the_row():
    match = np.array([[1, 1, 1], [0, 0, 0]])
    histogram = filled(np.ones((2, 3)), match, np.array([2.0, 5.0]))
    assert histogram.counts().sum(axis=1).tolist() == [15, 6]


def test_histograms_of_other_bins_do_not_merge():
    with pytest.raises(ValueError, match="alike"):
        ScoreHistogram().merge_state([ScoreHistogram(resolution=6)])


@pytest.mark.parametrize(
    "arguments",
    [
        {"resolution": 3},
        {"threshold": 0.5, "name": "at_half"},
        {"range": (0.5, 1), "resolution": 1},
    ],
)
def test_the_configuration_comes_back_whole(arguments):
    histogram = ScoreHistogram(**arguments)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(histogram)
    )
    assert again.get_config() == histogram.get_config()
    assert np.array_equal(again.edges(), histogram.edges())
