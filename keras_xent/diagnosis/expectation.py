"""What a loss expects of the outputs and of the labels."""

import dataclasses
import types

import keras

from keras_xent import _keras
from keras_xent.losses.base import RowLoss
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    LOGITS,
    NUMBERS,
    PROBABILITIES,
    UNKNOWN,
    YES_NO,
)


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What a loss expects.

    Attributes:
        outputs: The kind of the outputs.
        labels: The kind of the labels.
        axis: The axis of the classes.
        ignored: Class ids that the loss leaves out.
    """

    outputs: str = UNKNOWN
    labels: str = UNKNOWN
    axis: int = -1
    ignored: tuple = ()

    @property
    def is_softmax(self):
        """Whether the classes of a row exclude each other."""
        return self.labels in (CLASS_IDS, DISTRIBUTION)


# Keras's functions, which its classes call too: labels, by name.
KERAS = {
    keras.losses.sparse_categorical_crossentropy: CLASS_IDS,
    keras.losses.categorical_crossentropy: DISTRIBUTION,
    keras.losses.categorical_focal_crossentropy: DISTRIBUTION,
    keras.losses.binary_crossentropy: YES_NO,
    keras.losses.binary_focal_crossentropy: YES_NO,
}
_KERAS_NUMBERS = (
    keras.losses.mean_squared_error,
    keras.losses.mean_absolute_error,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.mean_squared_logarithmic_error,
    keras.losses.huber,
    keras.losses.log_cosh,
)


def expectation(loss):
    """The `Expectation` of a loss or its function; else the empty one."""
    if isinstance(loss, RowLoss):
        ignored = getattr(loss, "ignore_class", None)
        axis = getattr(loss, "axis", -1)
        return Expectation(
            loss.output_kind, loss.label_kind, axis, _several(ignored)
        )
    is_function = isinstance(loss, types.FunctionType)
    function = loss if is_function else getattr(loss, "fn", None)
    if function in _KERAS_NUMBERS:
        return Expectation(NUMBERS, NUMBERS)
    if function is keras.losses.kl_divergence:
        return Expectation(PROBABILITIES, DISTRIBUTION)
    if function not in KERAS:
        return Expectation()
    arguments = {} if is_function else _keras.loss_arguments(loss)
    return of_arguments(KERAS[function], arguments)


def of_arguments(labels, arguments):
    """The `Expectation` of a function of Keras's with these arguments."""
    return Expectation(
        LOGITS if arguments.get("from_logits") else PROBABILITIES,
        labels,
        arguments.get("axis", -1),
        _several(arguments.get("ignore_class")),
    )


def _several(ids):
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, (list, tuple)) else (ids,)
