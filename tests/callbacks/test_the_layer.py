"""The layer that a callback is about is the only one, or the named one."""

import keras
import pytest

from keras_xent.callbacks.the_layer import TheLayer

FIRST, SECOND = keras.layers.Dense(2), keras.layers.Dense(2)


def dense(given=None):
    return TheLayer(keras.layers.Dense, given, "This is about a layer")


def model(*layers):
    return keras.Sequential([keras.Input((2,)), *layers])


def test_the_only_one_is_found_at_any_depth():
    inner = model(keras.layers.ReLU(), FIRST)
    assert dense().of(model(inner)) is FIRST


@pytest.mark.parametrize("layers", [[], [FIRST, SECOND]], ids=len)
def test_none_or_several_raise_unless_one_is_named(layers):
    made = model(keras.layers.ReLU(), *layers)
    with pytest.raises(ValueError, match=f"has {len(layers)} of them"):
        dense().of(made)
    assert dense(SECOND).of(made) is SECOND


def test_another_kind_of_layer_raises():
    with pytest.raises(ValueError, match="`layer` must be a keras_xent"):
        dense(keras.layers.ReLU())
