"""Distances that are none, pairs of one kind, margins out of reach."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent import losses
from keras_xent.layers import SymmetricKLDistance
from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    PAIRS,
    X,
    codes,
    compiled,
    cured,
    look_at,
    measured,
    only,
    run_cure,
    stack,
    twins,
)

Dense = layers.Dense


def towers(distance, margin=0.5, shared=True, loss=None, y=FLAGS, x=PAIRS):
    """Two inputs, an embedding of each, and a distance between the two."""
    first, second = keras.Input((4,)), keras.Input((4,))
    tower = Dense(3)
    other = tower if shared else Dense(3)
    outputs = distance(tower(first), other(second))
    model = keras.Model([first, second], outputs)
    return compiled(model, loss or losses.SoftplusHinge(margin)), x, y


def symmetric(a, b):
    return SymmetricKLDistance()([a, b])


def one_way(a, b):
    p, q = ops.softmax(a), ops.softmax(b)
    return ops.sum(p * ops.log(p / q), axis=-1, keepdims=True)


def of_logits(a, b):
    """KL of what are no distributions."""
    both = (a - b) * (ops.log(ops.abs(a)) - ops.log(ops.abs(b)))
    return ops.sum(both, axis=-1, keepdims=True)


def similarity(a, b):
    return layers.Dot(-1, normalize=True)([a, b])


def cosine_distance(a, b):
    return 1 - layers.Dot(-1, normalize=True)([a, b])


def contrastive(y, d):
    y = ops.cast(y, "float32")
    return y * d**2 + (1 - y) * ops.maximum(1 - d, 0) ** 2


@twins(
    {
        "a plain layer": (
            lambda: stack(Dense(1), loss=losses.SoftplusHinge(0.5), y=FLAGS),
            lambda: stack(
                Dense(1, "softplus"), loss=losses.SoftplusHinge(0.5), y=FLAGS
            ),
        ),
        "a similarity": (
            lambda: towers(similarity),
            lambda: towers(cosine_distance),
        ),
        "KL of no distributions": (
            lambda: towers(of_logits),
            lambda: towers(symmetric),
        ),
        "KL one way": (lambda: towers(one_way), lambda: towers(symmetric)),
        "two towers": (
            lambda: towers(symmetric, shared=False),
            lambda: towers(symmetric),
        ),
        "one way, and a loss of one's own": (
            lambda: towers(one_way, loss=contrastive),
            lambda: towers(symmetric, loss=contrastive),
        ),
        "inputs by name": (lambda: named(one_way), lambda: named(symmetric)),
    }
)
def test_not_a_distance(broken, healthy):
    assert codes(*broken()) == ["not-a-distance"]
    assert codes(*healthy()) == []


def named(distance):
    inputs = {name: keras.Input((4,), name=name) for name in ("a", "b")}
    tower = Dense(3)
    outputs = distance(*map(tower, inputs.values()))
    model = compiled(keras.Model(inputs, outputs), losses.SoftplusHinge(0.5))
    return model, dict(zip(inputs, PAIRS, strict=True)), FLAGS


def test_the_two_directions_are_told():
    model, (a, b), y = towers(one_way)
    found = only(model, [a, b], y)
    there = model.predict([a, b], verbose=0)
    back = model.predict([b, a], verbose=0)
    assert found.evidence["a to b"] == pytest.approx(there[0, 0], rel=1e-4)
    assert found.evidence["b to a"] == pytest.approx(back[0, 0], rel=1e-4)
    assert found.evidence["largest difference"] == pytest.approx(
        np.abs(there - back).max(), rel=1e-4
    )


def test_two_inputs_of_different_kinds_are_no_pair():
    left, right = keras.Input((4,)), keras.Input((4,))
    outputs = Dense(1, "sigmoid")(Dense(3)(left) - Dense(3)(right))
    model = compiled(keras.Model([left, right], outputs), "mse")
    assert codes(model, PAIRS, np.clip(abs(X[:, :1]), 0, 1)) == []
    model.compile("sgd", "binary_crossentropy")
    assert codes(model, PAIRS, FLAGS) == []


def logistic(y, score):
    return ops.softplus((1 - 2 * ops.cast(y, score.dtype)) * score)


def squared(y, p):
    return (ops.cast(y, p.dtype) - p) ** 2


@pytest.mark.parametrize(
    ("end", "loss"), [("linear", logistic), ("sigmoid", squared)]
)
def test_scores_of_two_inputs_are_no_distances(end, loss):
    left, right = keras.Input((4,)), keras.Input((4,))
    outputs = Dense(1, end)(layers.Concatenate()([left, right]))
    model = compiled(keras.Model([left, right], outputs), loss)
    assert codes(model, PAIRS, FLAGS) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_distance_that_is_not_finite_is_not_called_negative(value):
    x = [np.where(np.arange(32)[:, None] == 3, value, X), PAIRS[1]]
    assert codes(*towers(symmetric, x=x)) == ["nonfinite-gradient"]


def embeddings(y, margin=0.5, **options):
    loss = losses.SymmetricKLHinge(margin, **options)
    return stack(Dense(3), loss=loss, y=y)


@twins(
    {
        "all alike": (
            lambda: towers(symmetric, y=0 * FLAGS + 1),
            lambda: towers(symmetric, y=FLAGS),
        ),
        "all different": (
            lambda: towers(symmetric, y=0 * FLAGS),
            lambda: towers(symmetric, y=FLAGS),
        ),
        "one class": (lambda: embeddings(0 * IDS), lambda: embeddings(IDS)),
        "a class for each row": (
            lambda: embeddings(np.arange(32)),
            lambda: embeddings(np.arange(32) // 2),
        ),
        "in the rows that count": (
            lambda: (*towers(symmetric), FLAGS[:, 0] * 1.0),
            lambda: (*towers(symmetric), (np.arange(32) > 3) * 1.0),
        ),
    }
)
def test_one_kind_of_pairs(broken, healthy):
    assert codes(*broken()) == ["one-kind-of-pairs"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("kind", [list, tuple])
def test_pairs_of_the_other_kind_are_added(flag, kind):
    y = np.full((32, 1), flag)
    model, x, y = towers(symmetric, y=y, x=kind(PAIRS))
    report = look_at(model, x, y)
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names, epochs=1).findings == ()
    assert len(names["y"]) == 64


def test_a_few_pairs_may_be_of_one_kind():
    a, b = PAIRS
    assert codes(*towers(symmetric, y=FLAGS[:8] * 0, x=[a[:8], b[:8]])) == []


@twins(
    {
        "below all": (
            lambda: towers(symmetric, margin=1e-9),
            lambda: towers(symmetric, margin=0.5),
        ),
        "above all": (
            lambda: towers(symmetric, margin=1e6),
            lambda: towers(symmetric, margin=5.0),
        ),
        "below all of a batch": (
            lambda: embeddings(IDS, 1e-9),
            lambda: embeddings(IDS, 0.5),
        ),
        "above all of a batch": (
            lambda: embeddings(IDS, 1e6),
            lambda: embeddings(IDS, 5.0),
        ),
    }
)
def test_margin_out_of_reach(broken, healthy):
    assert codes(*broken()) == ["margin-out-of-reach"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize(
    "loss",
    [
        losses.PairHinge(2.0),
        losses.PairHinge(0.5, distance="cosine"),
        # Its margin is one between distances, and may be below all of them.
        losses.TripletHinge(1e-9),
        losses.MultiSimilarity(),
        losses.PrototypicalCrossentropy(),
    ],
    ids=lambda loss: loss.name,
)
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_losses_of_embeddings_have_embeddings_of_any_kind(loss, activation):
    assert codes(*stack(Dense(3, activation=activation), loss=loss)) == []


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_margin_is_in_the_unit_of_the_distance(distance):
    x = X + 100  # Cosines near 1, and symmetric divergences far from 0.
    eye = Dense(4, kernel_initializer="identity")
    loss = losses.PairHinge(1.0, distance=distance)
    found = codes(*stack(eye, loss=loss, x=x))
    assert ("margin-out-of-reach" in found) == (distance == "cosine")


def test_the_cure_is_a_margin_within_reach():
    found = only(*towers(symmetric, margin=1e-9))
    margin = cured(found)["loss"].margin
    assert found.evidence["distances from"] < margin < found.evidence["to"]
    assert codes(*towers(symmetric, margin=margin)) == []


@pytest.mark.parametrize("margin", [1e-9, 1e6])
@pytest.mark.parametrize("flag", [0, 1])
def test_pairs_of_one_kind_have_no_margin(margin, flag):
    """It is one of pairs that differ, as far as they lie from matches."""
    case = towers(symmetric, margin=margin, y=np.full_like(FLAGS, flag))
    assert codes(*case) == ["one-kind-of-pairs"]


def test_a_batch_of_matches_alone_has_no_margin():
    """Others are among the labels, but not among the rows that were run."""
    x = [np.tile(each, (2, 1)) for each in PAIRS]
    y = np.ones((64, 1), "int32")
    y[1::2] = 0
    case = towers(symmetric, margin=1e6, x=x, y=y)
    weight = np.where(y == 1, 1.0, 0.0).reshape(-1)
    assert "margin-out-of-reach" in codes(*case)
    assert "margin-out-of-reach" not in codes(*case, weight)


def test_the_margin_is_that_of_pairs_that_differ():
    """Few of them, and far apart."""
    distances = np.where(np.arange(32) < 22, 0.01, 3.0)
    flags = (np.arange(32) < 22)[:, None].astype("int32")
    found = only(*measured(distances, flags, margin=500.0, steps=0))
    assert found.code == "margin-out-of-reach"
    assert "margin=3.0" in found.cure
