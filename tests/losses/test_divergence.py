"""What the divergence losses have beside the contract."""

import keras
import numpy as np
import pytest

from keras_xent import losses
from tests.testing import normal, to_numpy

TEACHER, STUDENT = normal(6, 3, 4), normal(6, 3, 4, seed=1)


@pytest.mark.parametrize(
    "loss", [losses.KLDivergence, losses.JensenShannonDivergence]
)
def test_any_axis_holds_the_classes(loss):
    expected = to_numpy(loss()(TEACHER, STUDENT))
    moved = [np.moveaxis(x, -1, 1) for x in (TEACHER, STUDENT)]
    result = to_numpy(loss(axis=1)(*moved))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_of_probabilities_it_is_that_of_keras():
    loss = losses.KLDivergence()(TEACHER, STUDENT)
    theirs = keras.losses.KLDivergence()(
        *(keras.ops.softmax(x) for x in (TEACHER, STUDENT))
    )
    np.testing.assert_allclose(to_numpy(loss), to_numpy(theirs), rtol=1e-4)


def test_a_student_learns_its_teacher():
    x = normal(32, 4)
    teacher = x @ normal(4, 3, seed=2)
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    student.compile(
        keras.optimizers.Adam(0.1), losses.KLDivergence(temperature=2.0)
    )
    history = student.fit(
        x, teacher, batch_size=32, epochs=60, verbose=0
    ).history["loss"]
    assert history[-1] < history[0] / 100


def test_no_temperature_raises():
    with pytest.raises(ValueError, match="`temperature`"):
        losses.KLDivergence(temperature=-1.0)
