"""Distances and embeddings that know nothing of the labels after training."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import losses
from keras_xent.diagnosis.separation import Pairs
from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    X,
    codes,
    compiled,
    measured,
    only,
    stack,
    twins,
)
from tests.testing import normal

Dense = layers.Dense


def embedded(x, y, margin=2.0, steps=100):
    """A model that returns the embeddings it is given."""
    eye = Dense(x.shape[1], kernel_initializer="identity")
    loss = losses.SymmetricKLHinge(margin)
    model, *case = stack(eye, loss=loss, x=x.astype("float32"), y=y)
    model.optimizer.iterations.assign(steps)
    return model, *case


MATCH = FLAGS[:, 0] == 1
MIXED = (np.arange(32) + 4 * MATCH) / 16  # matches a little further apart
APART = np.where(MATCH, 0.0, 4.0) + np.arange(32) / 32
OF_CLASSES = 3 * np.eye(4)[IDS] + X


@twins(
    {
        "pairs": (
            lambda: measured(MIXED, FLAGS),
            lambda: measured(APART, FLAGS),
        ),
        "rows": (
            lambda: embedded(X, IDS),
            lambda: embedded(OF_CLASSES, IDS),
        ),
        "rows near one point": (
            lambda: embedded(0.01 * X, IDS),
            lambda: embedded(OF_CLASSES, IDS),
        ),
        "flags reversed": (
            lambda: measured(APART, 1 - FLAGS, steps=0),
            lambda: measured(APART, FLAGS, steps=0),
        ),
        "in the rows that count": (
            lambda: (*embedded(X, IDS)[:3], np.arange(32) % 4),
            lambda: (*embedded(OF_CLASSES, IDS)[:3], np.arange(32) % 4),
        ),
    }
)
def test_pairs_not_separated(broken, healthy):
    assert codes(*broken()) == ["pairs-not-separated"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize(
    "case", [measured(MIXED, FLAGS, steps=99), embedded(X, IDS, steps=99)]
)
def test_before_100_steps_it_is_no_wonder(case):
    assert codes(*case) == []


def test_reversed_flags_have_a_cause_and_a_cure_of_their_own():
    for steps in (0, 100):
        found = only(*measured(APART, 1 - FLAGS, steps=steps))
        assert "the wrong way round" in found.summary
        assert "y = 1 - y" in found.cure
    assert "y = 1 - y" not in only(*measured(MIXED, FLAGS)).cure


def test_rows_of_a_class_far_apart_are_not_called_reversed():
    """Of each class one row on this side, and one opposite."""
    side = np.where(np.arange(128) % 2, 3.0, -3.0)[:, None]
    x, y = side * np.eye(3)[0] + 0.1 * normal(128, 3), np.arange(128) // 2
    assert codes(*embedded(x, y, steps=0), batch_size=128) == []
    found = only(*embedded(x, y), batch_size=128)
    assert found.evidence["area under the ROC curve"] < 0.3
    assert "the wrong way round" not in found.summary


def test_where_all_lie_near_one_point_this_is_the_cause():
    found = only(*embedded(0.01 * X, IDS))
    assert "near one point" in found.cause
    assert "VarianceScaling" in found.cure
    assert "near one point" not in only(*embedded(X, IDS)).cause


def test_the_numbers_of_pairs_that_are_not_separated():
    found = only(*measured(MIXED, FLAGS, margin=1.5))
    match, other = MIXED[MATCH], MIXED[~MATCH]
    area = (
        np.mean(match[:, None] < other) + np.mean(match[:, None] == other) / 2
    )
    # Mann and Whitney's deviation of the area, of independent pairs.
    deviation = np.sqrt(33 / (12 * 16 * 16))
    assert found.severity == "warning"
    assert found.evidence == {
        "area under the ROC curve": pytest.approx(area, rel=1e-6),
        "by chance up to": pytest.approx(0.5 + 1.645 * deviation, abs=0.04),
        "equal error rate": pytest.approx(9 / 16, abs=1 / 16),
        "median distance of matches": pytest.approx(np.median(match)),
        "of others": pytest.approx(np.median(other)),
        "margin": 1.5,
        "matches": 16,
        "others": 16,
        "steps": 100,
    }


def test_pairs_of_one_row_are_not_taken_for_independent():
    """The deviation is that of fresh rows whose labels know nothing."""
    first, second = np.triu_indices(32, 1)
    areas, deviations = [], []
    for seed in range(200):
        rows = normal(32, seed=seed)
        pairs = Pairs(
            np.abs(rows[first] - rows[second]),
            np.arange(32) % 2,
            lambda ids: ids[first] == ids[second],
        )
        areas.append(pairs.area)
        if seed % 20 == 0:
            deviations.append(pairs.by_chance())
    assert np.mean(areas) == pytest.approx(0.5, abs=0.01)
    assert np.mean(deviations) == pytest.approx(np.std(areas), rel=0.2)


@pytest.mark.parametrize("rows", [2, 8, 15])
def test_a_few_rows_tell_nothing(rows):
    flags = 1 - FLAGS[:rows]
    assert codes(*measured(APART[:rows], flags)) == []
    assert codes(*embedded(X[:rows], IDS[:rows])) == []


def test_a_few_pairs_of_one_kind_tell_nothing():
    rare = (np.arange(32)[:, None] >= 25).astype("int32")
    assert codes(*measured(np.arange(32) / 16, rare)) == []
    pairs = np.where(np.arange(32) < 14, np.arange(32) // 2, np.arange(32))
    assert codes(*embedded(X, pairs)) == []


def test_what_32_pairs_cannot_tell_512_can():
    """Of flags that know nothing, and of distances that know a little."""
    assert codes(*measured(np.arange(32) / 16, FLAGS)) == []
    many, flags = np.arange(512) / 256, np.arange(512)[:, None] % 2
    case = measured(many, flags)
    assert codes(*case, batch_size=512) == ["pairs-not-separated"]
    nearer = measured(many - 0.15 * flags[:, 0] + 0.4, flags)
    assert codes(*nearer, batch_size=512) == []


class Reverses(layers.Layer):
    """In training, or else in inference, what is near becomes far."""

    def __init__(self, when):
        super().__init__()
        self.when = when

    def call(self, x, training=False):
        return 5.5 - x if bool(training) == self.when else x


@pytest.mark.parametrize("when", [True, False])
def test_distances_that_separate_in_one_of_two_ways_are_in_order(when):
    """Dropout hides it in training, averages that come late in inference."""
    assert codes(*measured(APART, FLAGS, before=[Reverses(when)])) == []


def test_distances_that_are_all_the_same_are_of_another_code():
    case = measured(0 * MIXED, FLAGS)
    assert "pairs-not-separated" not in codes(*case)
    assert "margin-out-of-reach" in codes(*case)


def test_the_margin_below_every_distance_comes_first():
    assert codes(*measured(MIXED + 1, FLAGS, margin=0.5)) == [
        "margin-out-of-reach"
    ]


def test_a_similarity_is_not_called_wrong_twice():
    assert codes(*measured(1 - APART, FLAGS, margin=0.5)) == ["not-a-distance"]


def test_of_two_outputs_the_one_that_does_not_separate_is_named():
    x = np.stack([APART, MIXED], axis=1).astype("float32")
    inputs = keras.Input((2,))
    outputs = {
        "first": layers.Identity(name="first")(inputs[:, :1]),
        "second": layers.Identity(name="second")(
            Dense(1, name="d")(inputs[:, 1:])
        ),
    }
    model = keras.Model(inputs, outputs)
    hinge = losses.SoftplusHinge(2.0)
    compiled(model, {"first": hinge, "second": hinge})
    model.get_layer("d").set_weights([np.ones((1, 1)), np.zeros(1)])
    model.optimizer.iterations.assign(100)
    found = only(model, x, {"first": FLAGS, "second": FLAGS})
    assert found.where == "output 'second'"
    median = found.evidence["median distance of matches"]
    assert median == pytest.approx(np.median(MIXED[MATCH]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_distances_that_are_not_finite_are_not_ranked(value):
    broken = np.where(np.arange(32) == 3, value, MIXED)
    assert codes(*measured(broken, FLAGS)) == ["nonfinite-gradient"]
