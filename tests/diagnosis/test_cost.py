"""How many rows a diagnosis takes of a model."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import losses
from keras_xent.diagnosis import cost, diagnose
from tests.diagnosis.cases import IDS, SPARSE, X, compiled

IMAGES = np.zeros((2, 6, 8, 3), "float32")


def functional(x, *stack):
    return keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), *stack])


class Own(keras.Model):
    """Layers in a `call` of its own, whose shapes nobody knows before."""

    def __init__(self, *stack):
        super().__init__()
        self.stack = list(stack)

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def own(x, *stack):
    model = Own(*stack)
    model(x)
    return model


CONVOLUTION = 6 * 8 * (3 * 3 * 3 * 4)
HALF = 3 * 4 * (3 * 3 * 3 * 4)
WORDS = np.zeros((2, 7), "int32")


@pytest.mark.parametrize(
    ("make", "x", "stack", "expected"),
    [
        (functional, X, [layers.Dense(5), layers.Dense(3)], 4 * 5 + 5 * 3),
        (own, X, [layers.Dense(5), layers.Dense(3)], 4 * 5 + 5 * 3),
        (
            functional,
            IMAGES,
            [layers.Conv2D(4, 3, padding="same"), layers.Flatten()],
            CONVOLUTION,
        ),
        (own, IMAGES, [layers.Conv2D(4, 3, padding="same")], CONVOLUTION),
        (
            functional,
            IMAGES,
            [layers.Conv2D(4, 3, strides=2, padding="same")],
            HALF,
        ),
        (
            functional,
            IMAGES,
            [functional(IMAGES, layers.Conv2D(4, 3, padding="same"))],
            CONVOLUTION,
        ),
        (
            functional,
            WORDS,
            [layers.Embedding(9, 5), layers.Dense(3)],
            7 * 5 * 3,
        ),
        (own, WORDS, [layers.Embedding(9, 5), layers.Dense(3)], 7 * 5 * 3),
    ],
)
def test_each_weight_counts_once_at_each_position(make, x, stack, expected):
    # Layers of this test alone: those above are shared by its repeats.
    model = make(
        x, *(type(each).from_config(each.get_config()) for each in stack)
    )
    assert cost.multiplications(model, x) == expected


@pytest.mark.parametrize(
    ("loss", "few"),
    [
        (SPARSE, True),
        ("sparse_categorical_crossentropy", True),
        (keras.losses.binary_crossentropy, True),
        ("mse", True),
        ([SPARSE, None], True),
        (losses.SymmetricKLHinge(2.0), False),
        (lambda y_true, y_pred: y_pred[:, 0], False),
        (None, False),
    ],
)
def test_a_large_model_is_run_on_few_rows_unless_rows_are_compared(
    loss, few, monkeypatch
):
    inputs = keras.Input((4,))
    outputs = layers.Dense(3)(inputs)
    if isinstance(loss, list):
        outputs = [outputs, layers.Dense(2)(inputs)]
    model = compiled(keras.Model(inputs, outputs), loss)
    assert cost.rows(model, X) == cost.ROWS
    monkeypatch.setattr(cost, "_LARGE", 0)
    assert cost.rows(model, X) == (cost.FEW_ROWS if few else cost.ROWS)


def test_the_number_of_rows_of_a_large_model_may_be_given(monkeypatch):
    monkeypatch.setattr(cost, "_LARGE", 0)
    model = compiled(functional(X, layers.Dense(3)), SPARSE)
    report = diagnose(model, X, IDS)
    assert (report.rows, report.labels) == (cost.FEW_ROWS, len(X))
    assert diagnose(model, X, IDS, batch_size=20).rows == 20
