"""Triplets at one point, by losses that nobody knows and by ours."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent.losses import TripletHinge
from tests.diagnosis.cases import (
    codes,
    compiled,
    cured,
    look_at,
    only,
    run_cure,
    stack,
)
from tests.testing import normal

X = normal(32, 4)
IDS = np.arange(32) % 8
TRIPLES = [X, X + 0.1, normal(32, 4, seed=1)]
NOTHING = np.zeros((32, 1), "float32")
MARGIN = 0.5

# How the last layer of a tower is made.
DEAD = {
    "activation": "relu",
    "bias_initializer": keras.initializers.Constant(-50.0),
}
TINY = {"kernel_initializer": keras.initializers.RandomNormal(0.0, 1e-6)}


def tower(**last):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="tanh"),
            layers.Dense(4, **last),
        ]
    )


def squared(a, b):
    return ops.sum(ops.square(a - b), axis=-1)


def side_by_side(_, e):
    a, p, n = e[:, :4], e[:, 4:8], e[:, 8:]
    return ops.maximum(squared(a, p) - squared(a, n) + MARGIN, 0)


def stacked(_, e):
    apart = squared(e[:, 0], e[:, 1]) - squared(e[:, 0], e[:, 2])
    return ops.maximum(apart + MARGIN, 0)


def softplus_of_distances(_, d):
    return ops.softplus(d[:, 0] - d[:, 1])


def batch_hard(y_true, e):
    y_true = ops.reshape(y_true, (-1,))
    same = ops.cast(y_true[:, None] == y_true[None], "float32")
    d = ops.sum(ops.square(e[:, None] - e[None]), axis=-1)
    farthest = ops.max(d * same, axis=1)
    return ops.maximum(farthest - ops.min(d + 1e6 * same, axis=1) + MARGIN, 0)


class Stack(layers.Layer):
    def call(self, each):
        return ops.stack(each, axis=1)


class Distances(layers.Layer):
    def call(self, each):
        a, p, n = each
        return ops.stack([squared(a, p), squared(a, n)], axis=1)


def triples(loss, join, steps=0, x=TRIPLES, **last):
    """One tower for anchors, partners and others."""
    inputs = [keras.Input((4,)) for _ in range(3)]
    one = tower(**last)
    model = keras.Model(inputs, join([one(each) for each in inputs]))
    compiled(model, loss, "adam")
    model.optimizer.iterations.assign(steps)
    return model, x, NOTHING


def of_rows(loss, steps=0, **last):
    model = compiled(tower(**last), loss, "adam")
    model.optimizer.iterations.assign(steps)
    return model, X, IDS


KINDS = {
    "side by side": lambda **how: triples(
        side_by_side, layers.Concatenate(), **how
    ),
    "ours": lambda **how: of_rows(TripletHinge(MARGIN), **how),
    "stacked": lambda **how: triples(stacked, Stack(), **how),
    "distances": lambda **how: triples(
        softplus_of_distances, Distances(), **how
    ),
    "of a batch": lambda **how: of_rows(batch_hard, **how),
    "ours, semi-hard": lambda **how: of_rows(
        TripletHinge(MARGIN, mining="semi_hard"), **how
    ),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize("last", [DEAD, TINY], ids=["dead", "tiny"])
def test_embeddings_that_begin_at_one_point(kind, last):
    model, x, y = kind(**last)
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.code == "collapsed-embeddings"
    assert "begin at one point" in found.cause
    assert "Crossentropy" not in found.cure
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names, epochs=1).findings == ()
    assert codes(*kind()) == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_embeddings_that_were_pulled_together(kind):
    found = only(*kind(**TINY, steps=100))
    assert found.code == "collapsed-embeddings"
    assert "hardest triplets" in found.cause
    names = cured(found)
    assert names["optimizer"].learning_rate < 2e-4
    if "loss" in names:
        assert names["loss"].mining == "semi_hard"
        assert codes(*of_rows(names["loss"])) == []
    assert codes(*kind()) == []


def test_the_cure_of_a_loss_of_ids_parts_the_rows():
    found = only(*of_rows(batch_hard, **TINY, steps=100))
    loss = cured(found)["loss"]
    assert loss.margin == pytest.approx(MARGIN)
    classes = normal(8, 4)[IDS] + 0.3 * X
    model, *_ = of_rows(loss)
    history = model.fit(classes, IDS, epochs=80, verbose=0).history["loss"]
    assert history[-1] < 0.85 * history[0]
    assert codes(model, classes, IDS) == []


def test_inputs_with_a_large_mean_are_scaled():
    far = [each * 1e-4 + 1.0 for each in TRIPLES]
    model, x, y = triples(side_by_side, layers.Concatenate(), x=far)
    report = look_at(model, x, y)
    assert report.findings[0].code == "collapsed-embeddings"
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names, epochs=1).findings == ()


def turned(a, b):
    lengths = ops.sqrt(ops.sum(a * a, -1) * ops.sum(b * b, -1) + 1e-9)
    return 1 - ops.sum(a * b, axis=-1) / lengths


def of_angles(_, e):
    a, p, n = e[:, :4], e[:, 4:8], e[:, 8:]
    return ops.maximum(turned(a, p) - turned(a, n) + MARGIN, 0)


ANGLES = {
    "ours": lambda **how: of_rows(
        TripletHinge(MARGIN, distance="cosine"), **how
    ),
    "side by side": lambda **how: triples(
        of_angles, layers.Concatenate(), **how
    ),
}


@pytest.mark.parametrize("kind", ANGLES.values(), ids=list(ANGLES))
@pytest.mark.parametrize("size", [200.0, 1e4])
def test_embeddings_of_nearly_one_direction(kind, size):
    """However long they are, and far apart by another distance."""
    same = {"bias_initializer": keras.initializers.Constant(size)}
    model, x, y = kind(**same)
    report = look_at(model, x, y)
    assert report.findings[0].code == "collapsed-embeddings"
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names, epochs=1).findings == ()
    assert codes(*kind()) == []


def crossentropy(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=True
    )


def distance(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def cosine(y_true, y_pred):
    return -keras.losses.cosine_similarity(y_true, y_pred)


def signs(y_true, y_pred):
    return ops.mean(ops.maximum(1 - y_true * y_pred, 0), axis=-1)


OTHERS = {
    "three classes": (crossentropy, IDS % 3, 3),
    "two classes": (crossentropy, IDS % 2, 2),
    "numbers": (distance, X, 4),
    "directions": (cosine, X, 4),
    "signs": (signs, np.sign(X), 4),
}


@pytest.mark.parametrize(
    ("loss", "y", "units"),
    OTHERS.values(),
    ids=list(OTHERS),
)
def test_outputs_that_begin_alike_are_no_embeddings(loss, y, units):
    last = layers.Dense(units, **TINY, bias_initializer="zeros")
    case = stack(layers.Dense(8), last, loss=loss, x=X, y=y, optimizer="adam")
    assert "collapsed-embeddings" not in codes(*case)


def test_a_kernel_of_zeros_has_a_code_of_its_own():
    case = of_rows(TripletHinge(MARGIN), kernel_initializer="zeros")
    assert codes(*case) == ["zero-initialized"]
