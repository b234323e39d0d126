"""What a loss of one's own expects is told by the losses that it calls."""

import functools

import keras
import pytest
from keras import layers, ops

import keras_xent
from keras_xent import losses
from keras_xent.diagnosis.within import expectation_within
from keras_xent.losses.kinds import LOGITS, PROBABILITIES, UNKNOWN, YES_NO
from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    X,
    codes,
    run_cure,
    stack,
)
from tests.testing import normal

Dense = layers.Dense
KERAS = keras.losses
binary = KERAS.BinaryCrossentropy(from_logits=True)


def returned(y, p):
    return KERAS.binary_crossentropy(y, p, from_logits=True)


def closed(from_logits):
    def loss(y, p):
        return 0.5 * ops.mean(
            KERAS.binary_crossentropy(y, p, from_logits), axis=-1
        )

    return loss


class Own(KERAS.Loss):
    def call(self, y, p):
        return binary(y, p) + ops.mean(ops.abs(p))


# Losses of logits, yes or no.
OWN = {
    "a function": returned,
    "a lambda": lambda y, p: KERAS.binary_crossentropy(y, p, True),
    "partial": functools.partial(KERAS.binary_crossentropy, from_logits=True),
    "a closure": closed(True),
    "a class": Own(),
    "an object within": lambda y, p: binary(y, p),
    "an operation": lambda y, p: ops.binary_crossentropy(
        y, p, from_logits=True
    ),
    "a loss of this package": lambda y, p: losses.SigmoidCrossentropy()(y, p),
}


@pytest.mark.parametrize("name", OWN)
def test_logits_are_asked_for(name):
    loss, y = OWN[name], FLAGS.astype("float32")
    broken = stack(Dense(1, "sigmoid"), loss=loss, y=y)
    assert codes(*broken) == ["probabilities-as-logits"]
    assert codes(*stack(Dense(1), loss=loss, y=y)) == []


def test_probabilities_are_asked_for():
    y = FLAGS.astype("float32")
    broken = stack(Dense(1), loss=closed(False), y=y)
    assert codes(*broken) == ["logits-as-probabilities"]
    assert codes(*stack(Dense(1, "sigmoid"), loss=closed(False), y=y)) == []


def sparse(y, p):
    return KERAS.sparse_categorical_crossentropy(y, p, from_logits=True)


def one_hot(y, p):
    ids = ops.cast(y, "int32")
    return KERAS.categorical_crossentropy(ops.one_hot(ids, 3), p, True)


@pytest.mark.parametrize("loss", [sparse, one_hot])
def test_classes(loss):
    assert codes(*stack(Dense(3, "softmax"), loss=loss)) == [
        "probabilities-as-logits"
    ]
    assert codes(*stack(Dense(3), loss=loss)) == []


class Wrapped(KERAS.Loss):
    def __init__(self, function):
        super().__init__()
        self.call = function


def asked(function):
    y, p = ops.convert_to_tensor(FLAGS * 1.0), ops.convert_to_tensor(X[:, :1])
    return expectation_within(Wrapped(function), y, p)


def test_what_is_handed_on_as_something_else_is_not_known():
    assert asked(lambda y, p: KERAS.binary_crossentropy(y, ops.sigmoid(p))) == (
        asked(lambda y, p: ops.abs(y - p))
    )
    found = asked(lambda y, p: KERAS.binary_crossentropy(1 - y, p, True))
    assert (found.outputs, found.labels) == (LOGITS, UNKNOWN)
    found = asked(returned)
    assert (found.outputs, found.labels) == (LOGITS, YES_NO)
    both = asked(lambda y, p: KERAS.binary_crossentropy(y, p) + returned(y, p))
    assert both.outputs == UNKNOWN
    assert asked(closed(False)).outputs == PROBABILITIES


def teacher(function, loss, end=None):
    y = ops.convert_to_numpy(function(normal(32, 3, seed=2)))
    return stack(Dense(3, end), loss=loss, y=y)


@pytest.mark.parametrize(
    "loss",
    [losses.KLDivergence(), losses.JensenShannonDivergence()],
    ids=lambda loss: loss.name,
)
def test_a_teacher_gives_logits(loss):
    broken = teacher(ops.softmax, loss)
    report = keras_xent.diagnose(*broken[:3])
    (found,) = report.findings
    assert found.code == "probabilities-as-logits"
    assert found.where.startswith("the labels of")
    names = {"x": broken[1], "y": broken[2]}
    assert run_cure(report, {"model": broken[0], **names}).findings == ()
    assert codes(*teacher(lambda z: z, loss)) == []
    assert codes(*teacher(ops.log_softmax, loss)) == []
    student = teacher(lambda z: z, loss, "softmax")
    assert codes(*student) == ["probabilities-as-logits"]
    assert len(codes(*teacher(ops.softmax, loss, "softmax"))) == 2


def test_what_the_loss_raises_over_is_found_first():
    model, x, y, _ = stack(Dense(3), loss=sparse, y=IDS + 1)
    assert codes(model, x, y) == ["labels-out-of-range"]
