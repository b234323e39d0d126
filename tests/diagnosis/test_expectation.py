"""What each loss takes."""

import keras
import pytest

from keras_xent import losses
from keras_xent.diagnosis.expectation import (
    CLASS_IDS,
    DISTRIBUTION,
    EMBEDDINGS,
    LOGITS,
    NUMBERS,
    PROBABILITIES,
    UNKNOWN,
    YES_NO,
    Expectation,
    expectation,
)

KERAS = keras.losses


class Own(KERAS.Loss):
    def call(self, y_true, y_pred):
        return y_pred - y_true


@pytest.mark.parametrize(
    ("loss", "outputs", "labels"),
    [
        (KERAS.SparseCategoricalCrossentropy(), PROBABILITIES, CLASS_IDS),
        (KERAS.CategoricalCrossentropy(True), LOGITS, DISTRIBUTION),
        (KERAS.BinaryCrossentropy(from_logits=True), LOGITS, YES_NO),
        (KERAS.BinaryFocalCrossentropy(), PROBABILITIES, YES_NO),
        (KERAS.KLDivergence(), PROBABILITIES, DISTRIBUTION),
        (KERAS.MeanSquaredError(), NUMBERS, NUMBERS),
        (KERAS.CosineSimilarity(), UNKNOWN, UNKNOWN),
        (losses.SoftmaxCrossentropy(), LOGITS, DISTRIBUTION),
        (losses.SymmetricKLHinge(1.0), EMBEDDINGS, "identities"),
        (Own(), UNKNOWN, UNKNOWN),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_loss_takes(loss, outputs, labels):
    found = expectation(loss)
    assert (found.outputs, found.labels) == (outputs, labels)


def test_every_loss_of_this_package_is_known():
    """A new one must be added to the table, or `diagnose` says little of it."""
    from keras_xent.diagnosis.expectation import _OURS

    assert {cls.__name__ for cls in _OURS} == set(losses.__all__)


def test_the_options_of_the_loss_are_part_of_it():
    loss = losses.SparseSoftmaxCrossentropy(axis=1, ignore_class=[-1, 3])
    expected = Expectation(LOGITS, CLASS_IDS, 1, (-1, 3))
    assert expectation(loss) == expected
    loss = KERAS.SparseCategoricalCrossentropy(ignore_class=255, axis=1)
    expected = Expectation(PROBABILITIES, CLASS_IDS, 1, (255,))
    assert expectation(loss) == expected
