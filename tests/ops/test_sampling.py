"""A sample of classes, and expected counts that are those of what is drawn."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xent import ops
from keras_xent.ops import sampling
from tests.testing import BACKEND, compiled, to_numpy

CLASSES, DRAWN = 30, 7
COUNTS = np.random.default_rng(0).permutation(
    [0, 0, 1000, *range(1, CLASSES - 2)]
)
SAMPLERS = {
    "log_uniform": lambda labels, **options: ops.log_uniform_sample(
        labels, DRAWN, CLASSES, **options
    ),
    "uniform": lambda labels, **options: ops.uniform_sample(
        labels, DRAWN, CLASSES, **options
    ),
    "unigram": lambda labels, **options: ops.unigram_sample(
        labels, DRAWN, COUNTS, **options
    ),
}
RANKS = np.arange(CLASSES)
SHARES = {
    "log_uniform": np.log((RANKS + 2) / (RANKS + 1)) / np.log(CLASSES + 1),
    "uniform": np.full(CLASSES, 1 / CLASSES),
    "unigram": COUNTS**0.75 / np.sum(COUNTS**0.75),
}
each_sampler = pytest.mark.parametrize("name", SAMPLERS)
both_ways = pytest.mark.parametrize("unique", [True, False])


def expected_counts(name, unique):
    """What a sampler says of every class."""
    sample = SAMPLERS[name](RANKS, unique=unique, seed=0)
    return to_numpy(sample.true_expected_count).astype("float64")


@each_sampler
def test_with_replacement_the_expected_count_is_that_of_the_distribution(name):
    np.testing.assert_allclose(
        expected_counts(name, unique=False),
        DRAWN * SHARES[name],
        rtol=1e-5,
        atol=DRAWN / sampling.UNITS,
    )


@each_sampler
def test_without_replacement_expected_counts_are_chances_of_a_full_sample(name):
    chances = expected_counts(name, unique=True)
    assert chances.sum() == pytest.approx(DRAWN, rel=1e-6)
    assert chances.min() >= 0
    assert chances.max() <= 1
    assert np.all((chances > 0) == (SHARES[name] > 0))


@each_sampler
@both_ways
def test_of_all_numbers_that_can_be_drawn_each_class_has_its_count(
    name, unique, monkeypatch
):
    """Not a sample of the samples: few units, and each of them drawn once."""
    monkeypatch.setattr(sampling, "UNITS", 2**8)
    sampling.named_table.cache_clear()
    number, limits = 0, set()

    def randint(shape, low, high, dtype, seed):
        limits.add((low, high))
        return keras.ops.full(shape, number, dtype=dtype)

    monkeypatch.setattr(keras.random, "randint", randint)
    expected = expected_counts(name, unique)
    ((_, units),) = limits
    seen = np.zeros(CLASSES)
    for number in range(units):  # noqa: B007, `randint` returns it
        np.add.at(seen, to_numpy(SAMPLERS[name]([0], unique=unique).ids), 1)
    sampling.named_table.cache_clear()
    assert limits == {(0, units)}
    np.testing.assert_allclose(seen, units * expected, rtol=1e-5)


@each_sampler
def test_without_replacement_no_class_comes_twice(name):
    for seed in range(20):
        ids = to_numpy(SAMPLERS[name]([0], seed=seed).ids)
        assert len(set(ids.tolist())) == DRAWN
        assert ids.dtype == np.int32


@each_sampler
@both_ways
def test_the_counts_of_labels_and_ids_are_from_one_table(name, unique):
    sample = SAMPLERS[name](RANKS, unique=unique, seed=3)
    ids, true_count, sampled_count = map(to_numpy, sample)
    np.testing.assert_array_equal(sampled_count, true_count[ids])
    assert np.all(sampled_count > 0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.floats(0, 1e9) | st.sampled_from([0.0, 1.0, 1e-12, 1e12]),
        min_size=2,
        max_size=40,
    ),
    st.data(),
)
def test_any_weights_make_a_table_that_can_draw_each_class(weights, data):
    weights = np.array(weights)
    drawn = np.count_nonzero(weights)
    if drawn < 2:
        return
    size = data.draw(st.integers(1, drawn - 1))
    table = sampling.unigram_table(weights, 1.0, size, True)
    units = np.diff(table.ends.astype("int64"), prepend=0)
    # Every class has a unit at least, every stratum the same number of them.
    assert np.all(units > 0)
    assert table.ends[-1] == size * table.units
    assert set(range(1, size + 1)) <= set(table.ends / table.units)
    np.testing.assert_allclose(table.counts.sum(dtype="float64"), size, 1e-6)


def test_the_log_uniform_counts_are_those_of_tensorflow():
    if BACKEND != "tensorflow":
        pytest.skip("TensorFlow's sampler is the truth here")
    import tensorflow as tf

    labels = np.arange(CLASSES)[None]
    theirs = tf.random.log_uniform_candidate_sampler(
        labels, CLASSES, DRAWN, unique=False, range_max=CLASSES
    )
    mine = SAMPLERS["log_uniform"](labels, unique=False, seed=0)
    np.testing.assert_allclose(
        mine.true_expected_count, theirs.true_expected_count, rtol=1e-5
    )


def test_a_million_classes_are_as_exact():
    classes = 10**6
    last = [classes - 1]
    for unique in (True, False):
        sample = ops.log_uniform_sample(
            last, 64, classes, unique=unique, seed=0
        )
        ids = to_numpy(sample.ids)
        assert ids.min() >= 0
        assert ids.max() < classes
        # A unit in 2**30 is a hundredth of the rarest class.
        expected = 64 * np.log1p(1 / classes) / np.log1p(classes)
        rate = 0.15 if unique else 0.02  # all of a stratum weigh about alike
        assert float(sample.true_expected_count[0]) == pytest.approx(
            expected, rel=rate
        )


@each_sampler
def test_a_seed_gives_the_same_sample_and_a_generator_others(name):
    first, again = (to_numpy(SAMPLERS[name]([0], seed=7).ids) for _ in "ab")
    np.testing.assert_array_equal(first, again)
    seeds = keras.random.SeedGenerator(7)
    first, other = (to_numpy(SAMPLERS[name]([0], seed=seeds).ids) for _ in "ab")
    assert first.tolist() != other.tolist()


@each_sampler
@both_ways
def test_a_compiled_draw_is_the_same(name, unique):
    def draw(labels):
        return tuple(SAMPLERS[name](labels, unique=unique, seed=5))

    labels = keras.ops.convert_to_tensor([[1, 2], [3, 29]])
    for a, b in zip(compiled(draw)(labels), draw(labels), strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_on_pytorch_a_table_is_copied_once(monkeypatch):
    """Nor is one kept that was made where there are no numbers."""
    if BACKEND != "torch":
        pytest.skip("the other backends compile their steps, table and all")
    sampling.named_table.cache_clear()
    sampling.KEPT.clear()
    labels = keras.ops.convert_to_tensor(RANKS.astype("int32"))
    with keras.device("meta"):
        ops.log_uniform_sample(labels, DRAWN, CLASSES, seed=0)
    assert not sampling.KEPT
    found = ops.log_uniform_sample(labels, DRAWN, CLASSES, seed=0)
    monkeypatch.setattr(sampling, "_columns", None)
    again = ops.log_uniform_sample(labels, DRAWN, CLASSES, seed=0)
    for one, other in zip(found, again, strict=True):
        assert to_numpy(one).tolist() == to_numpy(other).tolist()
    # It goes with its table.
    sampling.named_table.cache_clear()
    assert not sampling.KEPT


def test_a_power_of_0_draws_all_that_occur_alike():
    sample = ops.unigram_sample(
        RANKS, DRAWN, COUNTS, power=0, unique=False, seed=0
    )
    expected = np.where(COUNTS > 0, DRAWN / np.count_nonzero(COUNTS), 0)
    np.testing.assert_allclose(
        to_numpy(sample.true_expected_count), expected, rtol=1e-6
    )


def test_a_label_that_does_not_exist_has_no_count():
    labels = keras.ops.convert_to_tensor(np.array([-1, 0, CLASSES], "int32"))
    sample = SAMPLERS["uniform"](labels, seed=0)
    assert np.isnan(to_numpy(sample.true_expected_count)).tolist() == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.uniform_sample([0], 10, 10), "fewer classes can be drawn"),
        (lambda: ops.uniform_sample([0], 11, 10), "unique=False"),
        (lambda: ops.uniform_sample([0], 0, 10), "`num_sampled`.*from 1"),
        (lambda: ops.uniform_sample([0], 2.5, 10), "`num_sampled`"),
        (lambda: ops.uniform_sample([0], True, 10), "`num_sampled`"),
        (lambda: ops.uniform_sample([0], 1, 1), "`classes`.*from 2"),
        (lambda: ops.log_uniform_sample([10], 1, 10), "Received the label 10"),
        (lambda: ops.unigram_sample([0], 1, [1, -1]), "non-negative"),
        (lambda: ops.unigram_sample([0], 1, [1, np.nan]), "non-negative"),
        (lambda: ops.unigram_sample([0], 1, [0, 0]), "not all of them 0"),
        (lambda: ops.unigram_sample([0], 1, [3]), "two classes"),
        (lambda: ops.unigram_sample([0], 2, [3, 1, 0]), "2 have a weight"),
        (lambda: ops.unigram_sample([0], 1, [3, 1], power=-1), "`power`"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_too_many_classes_to_a_stratum_are_an_error(monkeypatch):
    monkeypatch.setattr(sampling, "UNITS", 16)
    with pytest.raises(ValueError, match="Draw fewer"):
        sampling._table(np.ones(40), 2, True)
