"""Gradients on any backend, and a model that is afterwards what it was."""

import random

import keras
import numpy as np
from keras import layers, ops

from keras_xent.diagnosis import probe
from tests.testing import normal, to_numpy

X, Y = normal(6, 4), normal(6, 1, seed=1)


def square(y, y_pred):
    return ops.mean(ops.square(y_pred - y))


def line():
    """One layer on the rows, and the gradient of its squared error."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    kernel, bias = model.get_weights()
    slope = 2 * (X @ kernel + bias - Y) / len(X)
    return model, [X.T @ slope, slope.sum(axis=0)]


def step(model, recorder):
    around = probe.Probe(model, lambda x, y, y_pred, _: square(y, y_pred))
    tensors = map(ops.convert_to_tensor, (X, Y))
    return around.step(*tensors, None, recorder)


def test_a_step_gives_the_gradient_and_leaves_the_weights():
    model, expected = line()
    before = model.get_weights()
    for result, truth in zip(
        step(model, probe.Recorder()), expected, strict=True
    ):
        np.testing.assert_allclose(to_numpy(result), truth, rtol=1e-4)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_scaled_loss_has_the_same_gradient():
    model, expected = line()
    result = step(model, probe.Recorder(scale=1024.0))[0]
    np.testing.assert_allclose(to_numpy(result), expected[0], rtol=1e-4)


def test_a_follower_makes_the_step_of_its_kind():
    model, expected = line()
    before = model.get_weights()
    step(model, probe.Recorder(follower=keras.optimizers.SGD(0.5)))
    for weight, old, gradient in zip(
        model.get_weights(), before, expected, strict=True
    ):
        np.testing.assert_allclose(weight, old - 0.5 * gradient, rtol=1e-4)


def test_gradients_of_a_function_are_those_of_the_formula():
    (result,) = probe.gradients(lambda v: ops.sum(v[0] ** 3), [X])
    np.testing.assert_allclose(to_numpy(result), 3 * X**2, rtol=1e-5)


def test_what_depends_on_nothing_has_no_gradient():
    (result,) = probe.gradients(lambda v: ops.sum(ops.round(v[0]) * 0), [X])
    assert result is None or not np.any(to_numpy(result))


def test_weights_state_and_seeds_come_back():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dropout(0.5),
            layers.BatchNormalization(),
            layers.Dense(1),
        ]
    )
    keras.random.normal((1,))  # makes the seed of all Keras
    before = [to_numpy(v) for v in probe.copies(model.variables)]

    def draws():
        drawn = to_numpy(keras.random.normal((2,))).tolist()
        dropped = to_numpy(model(X, training=True)).tolist()
        return [random.random(), np.random.random(), drawn, dropped]

    with probe.unchanged(model):
        expected = draws()
        model.set_weights([w + 1 for w in model.get_weights()])
    after = [to_numpy(v) for v in probe.copies(model.variables)]
    for weight, old in zip(after, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert draws() == expected
