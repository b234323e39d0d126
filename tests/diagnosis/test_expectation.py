"""What each loss takes."""

import keras
import pytest

from keras_xent import losses
from keras_xent.diagnosis.expectation import Expectation, expectation
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    EMBEDDINGS,
    LOGITS,
    NUMBERS,
    PROBABILITIES,
    UNKNOWN,
    YES_NO,
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


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_of_this_package_says_what_it_takes(name):
    """Or `diagnose` says little of it."""
    cls = getattr(losses, name)
    assert UNKNOWN not in (cls.output_kind, cls.label_kind)


def test_a_subclass_takes_what_its_class_takes():
    class Mine(losses.SparseSoftmaxCrossentropy):
        def call(self, y_true, y_pred):
            return 2 * super().call(y_true, y_pred)

    found = expectation(Mine(axis=1, ignore_class=0))
    assert found == Expectation(LOGITS, CLASS_IDS, 1, (0,))


def test_a_subclass_may_take_something_else():
    class Probabilities(losses.SparseSoftmaxCrossentropy):
        output_kind = PROBABILITIES

    found = expectation(Probabilities())
    assert found == Expectation(PROBABILITIES, CLASS_IDS)


def test_the_options_of_the_loss_are_part_of_it():
    loss = losses.SparseSoftmaxCrossentropy(axis=1, ignore_class=[-1, 3])
    expected = Expectation(LOGITS, CLASS_IDS, 1, (-1, 3))
    assert expectation(loss) == expected
    loss = KERAS.SparseCategoricalCrossentropy(ignore_class=255, axis=1)
    expected = Expectation(PROBABILITIES, CLASS_IDS, 1, (255,))
    assert expectation(loss) == expected
