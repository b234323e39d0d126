"""Rows that an attention mask leaves nothing of."""

import keras
import numpy as np
from keras import layers, ops

from tests.diagnosis.cases import (
    SPARSE,
    codes,
    compiled,
    look_at,
    run_cure,
    twins,
)
from tests.testing import normal

WORDS = np.random.RandomState(0).randint(1, 50, (32, 6)).astype("int32")
WORDS[:20, 4:] = 0  # padding, which is right
EMPTY = WORDS * (np.arange(32) != 25)[:, None]
ANSWERS = np.arange(32) % 2


def minus_infinity(words):
    return ops.where(ops.equal(words, 0), -np.inf, 0.0)


def functional(words, softmax=ops.softmax):
    inputs = keras.Input((6,), dtype="int32")
    vectors = layers.Embedding(50, 8)(inputs)
    scores = ops.sum(vectors, -1) + minus_infinity(inputs)
    share = ops.expand_dims(softmax(scores), -1)
    outputs = layers.Dense(2)(ops.sum(vectors * share, 1))
    return compiled(keras.Model(inputs, outputs), SPARSE), words, ANSWERS


class Attends(keras.Model):
    def __init__(self):
        super().__init__()
        self.embed, self.end = layers.Embedding(50, 8), layers.Dense(2)

    def call(self, words):
        vectors = self.embed(words)
        scores = ops.sum(vectors, -1) + minus_infinity(words)
        share = ops.expand_dims(ops.softmax(scores), -1)
        return self.end(ops.sum(vectors * share, 1))


def subclassed(words):
    model = Attends()
    model(words[:1])
    return compiled(model, SPARSE), words, ANSWERS


def beside(words):
    """The mask is an input of its own."""
    inputs = [keras.Input((6, 4)), keras.Input((6,))]
    vectors = layers.Dense(8)(inputs[0])
    scores = layers.Dense(1)(vectors)[..., 0]
    scores = ops.where(inputs[1] > 0, scores, -np.inf)
    share = ops.expand_dims(layers.Softmax()(scores), -1)
    outputs = layers.Dense(2)(ops.sum(vectors * share, 1))
    x = [normal(32, 6, 4), (words > 0).astype("float32")]
    return compiled(keras.Model(inputs, outputs), SPARSE), x, ANSWERS


@twins(
    {
        "functional": (lambda: functional(EMPTY), lambda: functional(WORDS)),
        "subclassed": (lambda: subclassed(EMPTY), lambda: subclassed(WORDS)),
        "an input beside": (lambda: beside(EMPTY), lambda: beside(WORDS)),
        "a layer": (
            lambda: functional(EMPTY, layers.Softmax()),
            lambda: functional(WORDS, layers.Softmax()),
        ),
    }
)
def test_a_row_that_is_masked_as_a_whole(broken, healthy):
    model, x, y = broken()
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.code == "nonfinite-gradient"
    assert found.evidence["rows"] == [25]
    assert "masked as a whole" in found.cause
    assert "where" not in found.where
    assert run_cure(report, {"model": model, "x": x, "y": y}).findings == ()
    assert codes(*healthy()) == []
