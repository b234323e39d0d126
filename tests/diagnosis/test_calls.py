"""What layers return is seen, and the layers stay what they are."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent.diagnosis import calls
from tests.testing import normal, to_numpy

X = normal(4, 3)


def functional():
    inputs = keras.Input((3,))
    hidden = layers.Dense(2, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, ops.clip(hidden, -0.1, 0.1))


def test_layers_and_operations_are_seen_in_their_order():
    model = functional()
    with calls.watched(model) as (noted, _):
        y = model(X)
    seen = [one for one, _ in calls.seen(noted, [y])]
    names = [(one.name, one.activation) for one in seen]
    assert names[-2:] == [("hidden", "tanh"), (seen[-1].name, "clip")]
    np.testing.assert_array_equal(seen[-1].values, to_numpy(y))


def test_afterwards_nothing_watches():
    model = functional()
    with (
        pytest.raises(KeyError, match="mine"),
        calls.watched(model) as (noted, ids),
    ):
        raise KeyError("mine")
    model(X)
    assert noted == ids == []
    assert not any("call" in vars(each) for each in model.operations)


def test_rows_that_are_not_finite_are_named():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    x = X.copy()
    x[2] = np.inf
    with calls.watched(model) as (noted, _):
        y = model(x)
    pairs = calls.seen(noted, [y])
    calls.mark_bad_rows(pairs)
    assert pairs[-1][0].bad_rows == (2,)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (layers.Dense(1), "linear"),
        (layers.Dense(1, activation="relu"), "relu"),
        (layers.Softmax(), "softmax"),
        (layers.ReLU(), "relu"),
        (layers.Activation("sigmoid"), "sigmoid"),
        (layers.TimeDistributed(layers.Dense(1, "tanh")), "tanh"),
        (layers.Flatten(), None),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_activation_of_a_layer(layer, name):
    assert calls.activation(layer) == name
