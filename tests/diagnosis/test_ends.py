"""Cures that change the end of a model run, and give it the end it needs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    SPARSE,
    X,
    compiled,
    repaired,
    stack,
)
from tests.testing import normal

Dense = layers.Dense
CE = "sparse_categorical_crossentropy"
IMAGES = normal(32, 4, 4, 1)
PIXELS = np.arange(IMAGES.size).reshape(32, 4, 4) * 7 // 5 % 4


def of_steps(*each, loss="binary_crossentropy", y=FLAGS[:, 0]):
    return stack(*each, loss=loss, x=normal(32, 5, 4), y=y)


def softmax_over_rows():
    inputs = keras.Input((4,))
    outputs = ops.softmax(Dense(3)(inputs), axis=0)
    return compiled(keras.Model(inputs, outputs), CE), X, IDS


CASES = {
    "a recurrent layer without a softmax": (
        "logits-as-probabilities",
        lambda: of_steps(layers.SimpleRNN(3), loss=CE, y=IDS),
    ),
    "two of them": (
        "logits-as-probabilities",
        lambda: of_steps(layers.Bidirectional(layers.GRU(3)), loss=CE, y=IDS),
    ),
    "an operation along the wrong axis": (
        "logits-as-probabilities",
        softmax_over_rows,
    ),
    "a scale behind a softmax": (
        "logits-as-probabilities",
        lambda: stack(Dense(3, "softmax"), layers.Rescaling(0.5), loss=CE),
    ),
    "a convolution with too few channels": (
        "labels-out-of-range",
        lambda: stack(layers.Conv2D(3, 1), loss=SPARSE, x=IMAGES, y=PIXELS),
    ),
    "a convolution of each step": (
        "shape-broadcast",
        lambda: of_steps(
            layers.GRU(3, return_sequences=True),
            layers.Conv1D(1, 1, activation="sigmoid"),
        ),
    ),
    "two recurrent layers": (
        "shape-broadcast",
        lambda: of_steps(
            layers.Bidirectional(layers.GRU(3, return_sequences=True)),
            Dense(1, "sigmoid"),
        ),
    ),
    "an end that is no layer with weights": (
        "shape-broadcast",
        lambda: of_steps(
            layers.Conv1D(1, 2),
            layers.BatchNormalization(),
            layers.Activation("sigmoid"),
        ),
    ),
}


@pytest.mark.parametrize(("code", "broken"), CASES.values(), ids=list(CASES))
def test_the_end_is_the_one_that_the_loss_needs(code, broken):
    assert repaired(code, *broken()) == ()
