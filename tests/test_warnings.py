"""Warnings point at the user's line."""

import inspect
import warnings

import keras
import numpy as np

from keras_xent._warnings import warn

ROWS = np.ones((2, 1), "float32")


def ours():
    """A loss function of ours, deep in which something warns."""
    source = "def loss(y_true, y_pred):\n    warn('seen')\n    return y_pred"
    inside = {"__name__": "keras_xent.losses.somewhere", "warn": warn}
    exec(source, inside)
    return inside["loss"]


def here():
    return inspect.currentframe().f_back.f_lineno


def seen_at(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    found = [each for each in caught if str(each.message) == "seen"]
    assert {each.filename for each in found} == {__file__}
    return found[0].lineno


def test_a_warning_shows_the_line_of_the_call():
    assert seen_at(lambda: ours()(ROWS, ROWS)) == here()


def test_a_warning_in_a_step_shows_the_line_of_the_fit():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", ours())
    assert seen_at(lambda: model.fit(ROWS, ROWS, verbose=0)) == here()
