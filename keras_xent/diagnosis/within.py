"""The losses that a loss of the user's own calls."""

import contextlib
import dataclasses
import sys

import numpy as np
from keras import losses, ops

from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.expectation import (
    KERAS,
    Expectation,
    expectation,
    of_arguments,
)
from keras_xent.losses.base import RowLoss
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    PROBABILITIES,
    UNKNOWN,
    YES_NO,
)

# What `keras.losses` is made of, which may be called as well: labels, by name.
_OPS = {
    ops.sparse_categorical_crossentropy: CLASS_IDS,
    ops.categorical_crossentropy: DISTRIBUTION,
    ops.binary_crossentropy: YES_NO,
}
_BY_CODE = {
    function.__code__: kind for function, kind in {**KERAS, **_OPS}.items()
}
_BY_CODE[losses.kl_divergence.__code__] = DISTRIBUTION

# The names of predictions and of labels, in Keras's losses and operations.
_PREDICTIONS, _LABELS = ("y_pred", "output"), ("y_true", "target")


def expectation_within(loss, y_true, y_pred):
    """What a loss expects, by what it is or by what it calls.

    A loss of the user's own expects what those of Keras's or of this package
    expect that it hands the predictions to, as they are. Labels that it makes
    something else of first are of a kind that is not known.
    """
    known = expectation(loss)
    if known != Expectation():
        return known
    found = _called(loss, y_true, y_pred)
    if len({each.outputs for each in found}) != 1:
        return known
    return found[0]


def _called(loss, y_true, y_pred):
    """The expectation of each loss that gets the predictions as they are."""
    found, values, labels = [], host(y_pred), host(y_true)

    def watch(frame, event, _):
        if event != "call":
            return
        arguments = frame.f_locals
        one = _expectation_of(frame.f_code, arguments)
        if one is None or not _holds(arguments, _PREDICTIONS, values):
            return
        if not _holds(arguments, _LABELS, labels):
            one = dataclasses.replace(one, labels=UNKNOWN)
        found.append(one)

    before = sys.getprofile()
    try:
        # What it raises the step raises again, where it is to be seen.
        with contextlib.suppress(Exception):
            sys.setprofile(watch)
            loss.call(ops.convert_to_tensor(y_true), ops.stop_gradient(y_pred))
    finally:
        sys.setprofile(before)
    return found


def _expectation_of(code, arguments):
    own = arguments.get("self")
    if code.co_name == "__call__" and isinstance(own, RowLoss):
        return expectation(own)
    if code not in _BY_CODE:
        return None
    if code is losses.kl_divergence.__code__:
        return Expectation(PROBABILITIES, DISTRIBUTION)
    return of_arguments(_BY_CODE[code], arguments)


def _holds(arguments, names, values):
    """Whether an argument of one of the names has these values."""
    given = next((arguments[n] for n in names if n in arguments), None)
    if given is None:
        return False
    try:
        given = host(given)
    except Exception:
        return False  # Within a compiled part it has no values.
    return given.size == values.size and np.array_equal(
        given.reshape(-1), values.reshape(-1)
    )
