"""Ids that are none, ids of one kind, and rows that have partners."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import losses
from keras_xent.callbacks import Diagnose
from keras_xent.diagnosis.identities import with_partners
from keras_xent.layers import SimilarityHead
from tests.diagnosis.cases import (
    FLAGS,
    PAIRS,
    X,
    codes,
    compiled,
    cured,
    one_tower,
    only,
    twins,
    two_towers,
)
from tests.testing import normal

OF_EIGHT = np.arange(32) % 8
ROWS = np.arange(32)
TRIPLETS = losses.TripletHinge(0.2)
TOWERS = losses.InfoNCE()


@twins(
    {
        "one-hot rows": (
            lambda: one_tower(TRIPLETS, y=np.eye(8)[OF_EIGHT]),
            lambda: one_tower(TRIPLETS, y=OF_EIGHT),
        ),
        "match flags of two towers": (
            lambda: two_towers(TOWERS, y=FLAGS),
            lambda: two_towers(TOWERS, y=ROWS),
        ),
        "measurements": (
            lambda: one_tower(losses.SupervisedContrastive(), y=X[:, 0]),
            lambda: one_tower(losses.SupervisedContrastive(), y=OF_EIGHT),
        ),
        "an id for each view": (
            lambda: two_towers(TOWERS, y=np.stack([ROWS, ROWS], axis=1)),
            lambda: two_towers(TOWERS, y=ROWS[:, None]),
        ),
        "several attributes": (
            lambda: one_tower(TRIPLETS, y=np.stack([ROWS % 4, ROWS % 2], 1)),
            lambda: one_tower(TRIPLETS, y=ROWS % 4),
        ),
    }
)
def test_labels_that_are_no_ids(broken, healthy):
    model, x, y, *_ = broken()
    found = only(model, x, y)
    assert found.code == "label-format"
    names = cured(found, x=x, y=y)
    assert codes(model, names["x"], names["y"]) == []
    assert codes(*healthy()) == []


def test_the_cure_of_flags_keeps_the_pairs_that_match():
    model, x, y, *_ = two_towers(TOWERS, y=FLAGS)
    names = cured(only(model, x, y), x=x, y=y)
    match = FLAGS[:, 0] == 1
    for kept, each in zip(names["x"], x, strict=True):
        np.testing.assert_array_equal(kept, each[match])
    np.testing.assert_array_equal(names["y"], np.arange(16))


def test_two_classes_are_no_flags_where_views_are_of_one_tower():
    views = losses.SupervisedContrastive()
    assert codes(*two_towers(views, y=ROWS % 2)) == []
    assert codes(*one_tower(TOWERS, y=ROWS % 2)) == []


def joined(loss, y=ROWS):
    """Two towers whose embeddings are put one behind the other."""
    inputs = [keras.Input((4,)), keras.Input((4,))]
    tower = layers.Dense(8)
    towers = [tower(each) for each in inputs]
    outputs = SimilarityHead()(layers.Concatenate()(towers))
    return compiled(keras.Model(inputs, outputs), loss), PAIRS, y


@twins(
    {
        "1 for each pair": (
            lambda: two_towers(TOWERS, y=np.ones(32)),
            lambda: two_towers(TOWERS, y=ROWS),
        ),
        "0 for each pair": (
            lambda: two_towers(losses.SigmoidContrastive(), y=np.zeros(32)),
            lambda: two_towers(losses.SigmoidContrastive(), y=ROWS),
        ),
        "a number for each row": (
            lambda: one_tower(TRIPLETS, y=ROWS),
            lambda: one_tower(TRIPLETS, y=ROWS // 4),
        ),
        "a number for each single view": (
            lambda: one_tower(TOWERS, y=ROWS),
            lambda: one_tower(TOWERS, y=ROWS // 4),
        ),
        "towers joined along the features": (
            lambda: joined(TOWERS),
            lambda: two_towers(TOWERS),
        ),
        "one class": (
            lambda: one_tower(losses.MultiSimilarity(), y=0 * ROWS),
            lambda: one_tower(losses.MultiSimilarity(), y=ROWS // 4),
        ),
    }
)
def test_ids_of_one_kind(broken, healthy):
    assert codes(*broken()) == ["one-kind-of-pairs"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_ids_that_are_all_equal_are_numbered(value):
    model, x, y, *_ = two_towers(TOWERS, y=np.full(32, value))
    found = only(model, x, y)
    assert codes(model, x, cured(found, x=x, y=y)["y"]) == []


def test_joined_towers_are_taken_apart():
    model, x, y = joined(TOWERS)
    model = cured(only(model, x, y), model=model)["model"]
    model = compiled(model, TOWERS)
    assert codes(model, PAIRS, ROWS) == []


def test_only_a_loss_of_views_is_told_of_views():
    assert "SimilarityHead" in only(*one_tower(TOWERS, y=ROWS)).cure
    assert "SimilarityHead" not in only(*one_tower(TRIPLETS, y=ROWS)).cure


@pytest.mark.parametrize(
    "loss", [TRIPLETS, losses.MultiSimilarity(), losses.SupervisedContrastive()]
)
def test_many_classes_have_partners_in_the_batch_that_is_looked_at(loss):
    """At equal distances, each row of a sorted set is of another class."""
    many = normal(640, 4)
    assert codes(*one_tower(loss, x=many, y=np.arange(640) // 10)) == []


@pytest.mark.parametrize(
    ("labels", "number", "classes"),
    [
        (np.arange(100) // 2, 8, 4),  # two of each
        (np.arange(100) % 3, 9, 2),
        (np.arange(100) // 10, 32, 8),
        (np.arange(1000) // 10, 6, 2),
    ],
)
def test_rows_with_partners(labels, number, classes):
    index = np.arange(0, len(labels))
    rows = with_partners(labels, index, number)
    assert len(rows) <= number
    assert np.all(np.diff(rows) > 0)
    counts = np.unique(labels[rows], return_counts=True)[1]
    assert len(counts) == classes
    assert counts.min() >= 2


def test_rows_are_chosen_of_those_that_there_are():
    index = np.arange(20, 60)
    rows = with_partners(np.arange(100) // 10, index, 16)
    assert set(rows) <= set(index)
    assert with_partners(np.arange(100), index, 16) is None


def watched(y, **options):
    model, x, *_ = one_tower(TRIPLETS, x=normal(len(y), 4))
    watcher = Diagnose()
    model.fit(x, y, batch_size=32, verbose=0, callbacks=[watcher], **options)
    return watcher, model, x


def test_a_batch_without_a_match_is_warned_of():
    y = np.arange(320) % 160
    with pytest.warns(UserWarning, match="holds no match"):
        watcher, model, x = watched(y, shuffle=False)
    (found,) = watcher.report.findings
    assert (found.code, found.severity) == ("one-kind-of-pairs", "warning")
    watcher = Diagnose()
    fit = model.fit
    model.fit = lambda x: fit(x, verbose=0, callbacks=[watcher])
    cured(found, model=model, x=x, y=y)
    assert watcher.report.findings == ()


def test_a_batch_of_one_class_is_warned_of():
    with pytest.warns(UserWarning, match="same id"):
        watcher, *_ = watched(np.arange(320) // 40, shuffle=False)
    found, *_ = watcher.report.findings
    assert (found.code, found.severity) == ("one-kind-of-pairs", "warning")
    # The first loss of a batch that has pairs is more than the 0 before it.
    assert watcher.trouble is None


def test_a_batch_with_matches_is_in_order():
    report = watched(np.arange(320) % 8, shuffle=False)[0].report
    assert report.findings == ()
    assert "one-kind-of-pairs" in report.checked
    assert "one-kind-of-pairs" not in report.unchecked
