"""Distances that are none, pairs of one kind, margins out of reach."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent import losses
from keras_xent.diagnosis.pairs import _Pairs
from keras_xent.layers import SymmetricKLDistance
from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    PAIRS,
    X,
    codes,
    compiled,
    only,
    stack,
    twins,
)
from tests.testing import normal

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
    margin = float(found.cure.split("=")[1].split("#")[0])
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
    assert "margin = 3 " in found.cure


def measured(distances, y, margin=2.0, steps=100, before=(), **options):
    """A model that returns the distances it is given, after so many steps."""
    distances = np.asarray(distances, "float32").reshape(-1, 1)
    end = Dense(1, use_bias=False, kernel_initializer="ones")
    loss = losses.SoftplusHinge(margin)
    model, *case = stack(*before, end, loss=loss, x=distances, y=y, **options)
    model.optimizer.iterations.assign(steps)
    return model, *case


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
        pairs = _Pairs(
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
