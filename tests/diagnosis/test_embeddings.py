"""Embeddings all alike; temperatures, scales and margins out of reach."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import losses, ops
from keras_xent.callbacks import Diagnose
from keras_xent.diagnosis.embeddings import _largest_divergence
from keras_xent.layers import CosineHead, SimilarityHead
from tests.diagnosis.cases import (
    PAIRS,
    X,
    codes,
    compiled,
    cured,
    look_at,
    one_tower,
    only,
    stack,
    twins,
    two_towers,
)
from tests.testing import normal, to_numpy

Dense = layers.Dense
ROWS = np.arange(32)
OF_EIGHT = ROWS % 8
CONTRASTIVE = [
    losses.SupervisedContrastive,
    losses.InfoNCE,
    losses.SigmoidContrastive,
]
FAR = X + 1000.0  # A mean that all rows share.


@twins(
    {
        "one tower": (
            lambda: one_tower(losses.SupervisedContrastive(), x=FAR),
            lambda: one_tower(losses.SupervisedContrastive()),
        ),
        "two towers": (
            lambda: two_towers(losses.InfoNCE(), x=[FAR, FAR]),
            lambda: two_towers(losses.InfoNCE()),
        ),
        "one of two towers": (
            lambda: two_towers(losses.SigmoidContrastive(), x=[X, FAR]),
            lambda: two_towers(losses.SigmoidContrastive()),
        ),
        "multi-similarity": (
            lambda: one_tower(losses.MultiSimilarity(), x=FAR),
            lambda: one_tower(losses.MultiSimilarity()),
        ),
        "triplets, later": (
            lambda: one_tower(losses.TripletHinge(1.0), x=0.001 * X, steps=100),
            lambda: one_tower(losses.TripletHinge(1.0), x=0.001 * X),
        ),
        "prototypes, later": (
            lambda: one_tower(COSINES, x=X + 30.0, steps=100),
            lambda: one_tower(COSINES, x=X + 30.0),
        ),
    }
)
def test_collapsed_embeddings(broken, healthy):
    assert codes(*broken()) == ["collapsed-embeddings"]
    assert codes(*healthy()) == []


COSINES = losses.PrototypicalCrossentropy(distance="cosine")


def test_inputs_of_one_scale_are_the_cure_at_the_start():
    loss = losses.SupervisedContrastive()
    found = only(*one_tower(loss, x=FAR))
    assert codes(*one_tower(loss, x=cured(found, x=FAR)["x"])) == []


def test_the_cure_of_triplets_is_another_choice_and_a_lower_rate():
    classes = normal(8, 4)[OF_EIGHT] + 0.5 * X
    case = one_tower(losses.TripletHinge(1.0), x=0.001 * X, steps=100)
    found = only(*case)
    assert found.evidence["to"] < 1 / 30
    names = cured(found)
    model, *_ = one_tower(
        names["loss"], x=classes, optimizer=names["optimizer"]
    )
    assert names["loss"].mining == "semi_hard"
    model.fit(np.tile(classes, (100, 1)), np.tile(OF_EIGHT, 100), verbose=0)
    assert model.optimizer.iterations == 100
    assert codes(model, classes, OF_EIGHT) == []


def test_embeddings_of_zero_are_of_another_code():
    zeros = Dense(8, kernel_initializer="zeros")
    case = stack(zeros, loss=losses.MultiSimilarity(), y=OF_EIGHT)
    assert "collapsed-embeddings" not in codes(*case)


def test_the_callback_sees_a_collapse():
    """A low rate leaves them where a few inputs have put them."""
    model, x, y, _ = one_tower(
        COSINES,
        x=np.tile(X + 30.0, (110, 1)),
        optimizer=keras.optimizers.SGD(1e-5),
    )
    watcher = Diagnose()
    with pytest.warns(UserWarning, match="collapsed-embeddings"):
        model.fit(x, y, shuffle=False, verbose=0, callbacks=[watcher])
    assert watcher.report.findings == ()
    (found,) = watcher.later.findings
    assert found.code == "collapsed-embeddings"
    assert found.evidence["steps"] == 100


def of_prototypes(temperature):
    return losses.PrototypicalCrossentropy(
        distance="cosine", temperature=temperature
    )


def head(units=8, loss=None, x=X, y=OF_EIGHT, **options):
    loss = loss or losses.LinearCrossentropy()
    return stack(Dense(8), CosineHead(units, **options), loss=loss, x=x, y=y)


@twins(
    {
        "a scale for the temperature": (
            lambda: one_tower(losses.InfoNCE(temperature=14.0)),
            lambda: one_tower(losses.InfoNCE(temperature=1.0)),
        ),
        "of a head": (
            lambda: two_towers(
                losses.SigmoidContrastive(), SimilarityHead(temperature=10.0)
            ),
            lambda: two_towers(
                losses.SigmoidContrastive(), SimilarityHead(temperature=0.1)
            ),
        ),
        "too low": (
            lambda: one_tower(losses.SupervisedContrastive(temperature=1e-3)),
            lambda: one_tower(losses.SupervisedContrastive(temperature=0.01)),
        ),
        "of prototypes": (
            lambda: one_tower(of_prototypes(20.0)),
            lambda: one_tower(of_prototypes(0.1)),
        ),
        "a scale of 1": (lambda: head(scale=1.0), lambda: head(scale=30.0)),
        "a scale that is learned": (
            lambda: head(scale=1.0),
            lambda: head(scale=1.0, learn_scale=True),
        ),
    }
)
def test_temperature_out_of_reach(broken, healthy):
    assert codes(*broken()) == ["temperature-out-of-reach"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize("cls", CONTRASTIVE)
@pytest.mark.parametrize("temperature", [1e-3, 14.0])
def test_the_cure_is_a_temperature_that_is_usual(cls, temperature):
    found = only(*one_tower(cls(temperature=temperature)))
    assert codes(*one_tower(cured(found)["loss"])) == []
    of_head = SimilarityHead(temperature=temperature, min_temperature=None)
    model, x, y = two_towers(cls(), of_head)
    names = cured(only(model, x, y), model=model)
    assert codes(compiled(names["model"], names["loss"]), x, y) == []


def test_the_cure_of_prototypes():
    names = cured(only(*one_tower(of_prototypes(20.0))))
    assert codes(*one_tower(names["loss"])) == []


OPPOSITE = np.where(ROWS % 2, 1.0, -1.0)[:, None] * np.eye(4)[0]


@pytest.mark.parametrize(
    ("loss", "views"),
    [
        (losses.InfoNCE(temperature=5.0), 1),
        (losses.SupervisedContrastive(temperature=5.0), 1),
        (losses.SupervisedContrastive(temperature=5.0), 2),
        (losses.InfoNCE(temperature=5.0), 2),
        (of_prototypes(5.0), 1),
    ],
)
def test_the_lowest_loss_is_that_of_two_classes_at_opposite_ends(loss, views):
    def numbers(x):
        x = np.stack([x] * views, axis=1)[:, 0 if views == 1 else slice(None)]
        end = layers.Identity()
        case = stack(end, loss=loss, x=x.astype("float32"), y=ROWS % 2)
        found = [f for f in look_at(*case).findings if "temp" in f.code]
        return float(loss(ROWS % 2, x.astype("float32"))), found[0].evidence

    best, evidence = numbers(OPPOSITE)
    assert evidence["lowest possible loss"] == pytest.approx(best, rel=1e-5)
    some, evidence = numbers(normal(32, 4))
    assert evidence["lowest possible loss"] < some
    blind, evidence = numbers(np.ones((32, 4)))
    assert evidence["loss of knowing nothing"] == pytest.approx(blind, rel=1e-5)


@pytest.mark.parametrize("units", [3, 8])
def test_the_lowest_loss_of_a_scale_is_that_of_a_simplex(units):
    """Class vectors as far apart as they can be, each feature on its own."""
    y = np.arange(32) % units
    found = only(*head(units, scale=1.0, y=y))
    simplex = np.eye(units) - 1 / units
    layer = CosineHead(units, scale=1.0)
    layer.build((None, units))
    layer.set_weights([simplex])
    features = simplex[y].astype("float32")
    loss = losses.LinearCrossentropy()(y, layer(features, training=True))
    assert found.evidence["lowest possible loss"] == pytest.approx(
        float(to_numpy(loss)), rel=1e-5
    )


@pytest.mark.parametrize(
    "options", [{"scale": 1.0}, {"cosine_margin": 2.0}, {"cosine_margin": 30.0}]
)
def test_the_cure_of_a_cosine_head_is_a_head(options):
    model, x, y, *_ = head(**options)
    found = only(model, x, y)
    code = "temperature" if "scale" in options else "margin"
    assert found.code == f"{code}-out-of-reach"
    fixed = cured(found, model=model)["model"]
    assert codes(compiled(fixed, losses.LinearCrossentropy()), x, y) == []


def unit(loss, dim):
    return stack(Dense(dim), layers.UnitNormalization(), loss=loss, y=OF_EIGHT)


def pair(margin, **options):
    return losses.PairHinge(margin, **options)


def triplet(margin, **options):
    return losses.TripletHinge(margin, **options)


@twins(
    {
        "unit vectors": (
            lambda: unit(pair(3.0), 8),
            lambda: unit(pair(1.5), 8),
        ),
        "squares of unit vectors": (
            lambda: unit(triplet(5.0, distance="squared_euclidean"), 8),
            lambda: unit(triplet(3.0, distance="squared_euclidean"), 8),
        ),
        "triplets of unit vectors": (
            lambda: unit(triplet(3.0), 8),
            lambda: one_tower(triplet(3.0)),
        ),
        "cosines": (
            lambda: one_tower(pair(3.0, distance="cosine")),
            lambda: one_tower(pair(0.5, distance="cosine")),
        ),
        "triplets of cosines": (
            lambda: one_tower(triplet(3.0, distance="cosine")),
            lambda: one_tower(triplet(0.2, distance="cosine")),
        ),
        "divergences of unit vectors": (
            lambda: unit(losses.SymmetricKLHinge(2.0), 64),
            lambda: one_tower(losses.SymmetricKLHinge(2.0)),
        ),
        "triplets of divergences": (
            lambda: unit(triplet(2.0, distance="symmetric_kl"), 64),
            lambda: unit(triplet(0.01, distance="symmetric_kl"), 64),
        ),
        "the margin of a head": (
            lambda: head(cosine_margin=2.0),
            lambda: head(cosine_margin=0.35, angular_margin=0.3),
        ),
    }
)
def test_margins_beyond_the_largest_distance(broken, healthy):
    assert codes(*broken()) == ["margin-out-of-reach"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize(
    "loss",
    [
        pair(3.0),
        pair(5.0, distance="squared_euclidean"),
        pair(3.0, distance="cosine"),
        triplet(3.0),
        triplet(5.0, distance="squared_euclidean"),
        triplet(3.0, distance="cosine"),
        triplet(9.0, distance="symmetric_kl"),
        losses.SymmetricKLHinge(9.0),
    ],
)
def test_the_cure_is_a_margin_that_can_be_reached(loss):
    found = only(*unit(loss, 64))
    assert codes(*unit(cured(found)["loss"], 64)) == []


@pytest.mark.parametrize("dim", [2, 3, 10, 100])
def test_no_unit_vectors_diverge_further_than_the_bound(dim):
    first = np.eye(dim)[0]
    ends = first - np.eye(dim)[1]
    rows = [first, -first, ends / np.sqrt(2), -ends / np.sqrt(2)]
    some = normal(50, dim)
    rows += list(some / np.linalg.norm(some, axis=1, keepdims=True))
    found = ops.pairwise_symmetric_kl(np.array(rows, "float32"))
    largest = keras.ops.convert_to_numpy(found).max()
    assert largest <= _largest_divergence(dim)
    assert largest > 0.2 * _largest_divergence(dim)


def test_a_largest_distance_is_not_that_of_other_lengths():
    assert codes(*one_tower(pair(3.0))) == []


@pytest.mark.parametrize("steps", [0, 100, 1000])
def test_towers_that_have_nothing_in_common(steps):
    """After 1000 steps they should; 100 are few for two towers."""
    inputs = [keras.Input((4,)), keras.Input((4,))]
    outputs = SimilarityHead()([layers.Identity()(each) for each in inputs])
    model = compiled(keras.Model(inputs, outputs), losses.InfoNCE())
    model.optimizer.iterations.assign(steps)
    expected = ["pairs-not-separated"] if steps == 1000 else []
    found = look_at(model, [X, -PAIRS[1]], ROWS).findings
    assert [each.code for each in found if each.code != "dead-gradient"] == (
        expected
    )


def test_towers_that_agree_are_in_order():
    model, _, y = two_towers(losses.InfoNCE(), x=[X, X])
    model.optimizer.iterations.assign(1000)
    assert codes(model, [X, X + 0.1], y) == []


@pytest.mark.parametrize(
    "loss",
    [triplet(0.2), losses.MultiSimilarity(), losses.SupervisedContrastive()],
    ids=lambda loss: loss.name,
)
def test_embeddings_without_a_margin_may_not_separate(loss):
    found = only(*one_tower(loss, y=ROWS % 3, steps=100))
    assert found.code == "pairs-not-separated"
    apart = 5 * np.eye(4)[ROWS % 3].astype("float32") + X
    assert codes(*one_tower(loss, x=apart, y=ROWS % 3, steps=100)) == []
