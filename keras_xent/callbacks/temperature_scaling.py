"""Calibrates a classifier when its training is done."""

import keras
import numpy as np
from keras import ops

from keras_xent._types import TensorLike
from keras_xent._warnings import warn
from keras_xent.callbacks.the_layer import TheLayer
from keras_xent.callbacks.validation_data import (
    check_numbers,
    predictions,
    unpacked,
)
from keras_xent.layers.temperature import Temperature
from keras_xent.metrics.likelihood import CrossentropyRate
from keras_xent.ops import checks
from keras_xent.ops.crossentropy import SUM_TOLERANCE
from keras_xent.ops.temperature import fit_temperature

# Why there is no temperature, by what `fit_temperature` returns.
NO_TEMPERATURE = {
    "0.0": "the model is right about every validation example, so that more "
    "confidence is always better. Take more examples, or harder ones",
    "inf": "an even guess is more likely than the model is at any temperature. "
    "On average its logits say nothing about these labels, or the opposite: "
    "check that the labels belong to the examples",
    "nan": "nothing could be measured: no example counts, the logits of each "
    "are all equal, or one of them, a label or a weight is impossible",
}


class TemperatureScaling(keras.callbacks.Callback):
    """Fits the model's temperature to validation data after the training.

    A trained classifier is often too sure of itself. Dividing its logits by
    one number T brings its confidence down to its accuracy, and changes none of
    its decisions. The model ends in a `keras_xent.layers.Temperature`, which
    does nothing in training; at the end of it this callback fits T by
    `keras_xent.ops.fit_temperature` and leaves it in the layer, which is saved
    with the model.

    Where other callbacks put back weights at the end of training
    (`EarlyStopping`, `TuneThreshold`), put this one after them in the list: a
    temperature belongs to the weights it was fitted for. The validation data
    must not be training data, on which the model is rightly sure.

    If there is no best temperature, the layer keeps 1, and a warning says why.

    Args:
        validation_data: `(x, y)` or `(x, y, sample_weight)`, arrays. `y` holds
            class ids, or distributions of the shape of the logits, or, for a
            single logit, 0 and 1; `sample_weight` one number from 0 for each
            row. `model.predict` drops masks: leave examples out by a weight
            of 0.
        layer: The `Temperature` layer; None finds the only one in the model.
            Its output must be the model's.
        axis: The axis of the classes in the output.
        batch_size: How many rows are predicted at a time.
        verbose: 1 prints a line at the end, 0 prints nothing.

    Attributes:
        temperature: What was fitted, as `fit_temperature` returns it: NaN, 0
            and inf are no temperatures. NaN before the end of training.
        loss_before, loss_after: The cross-entropy of the validation data, in
            nats, at temperature 1 and at the one that the layer has.

    Raises:
        ValueError: If an argument is wrong, the model has no such layer or
            several, its output is not one array of logits, or does not fit `y`.

    Warns:
        UserWarning: If there is no best temperature.

    References:
        [Guo et al., 2017](https://arxiv.org/abs/1706.04599), on calibration of
        modern neural networks.

    Example:

    >>> import keras, numpy as np
    >>> from keras_xent import callbacks, layers, losses
    >>> x, y = np.array([[-5.0], [-5.0], [-5.0], [5.0]]), np.array([0, 0, 1, 1])
    >>> sure = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    >>> model = keras.Sequential([sure, layers.Temperature(name="calibrated")])
    >>> model.compile(keras.optimizers.SGD(1e-4), losses.SigmoidCrossentropy())
    >>> scaling = callbacks.TemperatureScaling((x, y))
    >>> history = model.fit(x, y, verbose=0, callbacks=[scaling])
    >>> print(f"{model.get_layer('calibrated').temperature:.2f}")  # 5 / log 3
    4.55
    >>> scaling.loss_after < scaling.loss_before
    True
    """

    def __init__(
        self,
        validation_data: tuple[TensorLike, ...],
        *,
        layer: Temperature | None = None,
        axis: int = -1,
        batch_size: int = 32,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self._x, self._y, self._weight = unpacked(validation_data)
        self._place = TheLayer(
            Temperature,
            layer,
            "TemperatureScaling puts the temperature into the last layer of "
            "the model",
        )
        checks.whole("axis", axis)
        self.axis = axis
        check_numbers(batch_size, verbose)
        self.batch_size = int(batch_size)
        self.verbose = verbose
        self._forget()

    def _forget(self):
        self.temperature = self.loss_before = self.loss_after = np.nan

    def on_train_begin(self, logs=None):
        self._forget()
        self._layer()

    def on_train_end(self, logs=None):
        layer = self._layer()
        layer.temperature = 1.0
        logits = self._logits()
        self.temperature = float(
            ops.convert_to_numpy(
                fit_temperature(
                    self._y, logits, sample_weight=self._weight, axis=self.axis
                )
            )
        )
        reason = NO_TEMPERATURE.get(str(self.temperature))
        if reason is None:
            layer.temperature = self.temperature
        else:
            warn(f"No temperature was fitted, the layer keeps 1: {reason}.")
        self.loss_before = self._loss(logits)
        self.loss_after = self._loss(logits / layer.temperature)
        if self.verbose:
            print(
                f"Temperature {layer.temperature:.4g}: validation "
                f"cross-entropy {self.loss_before:.4f} -> "
                f"{self.loss_after:.4f} nats"
            )

    def _loss(self, logits):
        rate = CrossentropyRate(axis=self.axis)
        rate.update_state(self._y, logits, self._weight)
        return float(ops.convert_to_numpy(rate.result()))

    def _layer(self):
        return self._place.of(self.model)

    def _logits(self):
        """What the model gives for the validation data, at temperature 1."""
        logits = predictions(self, self._x, "logits")
        axis = checks.axis(self.axis, logits.ndim)
        several = logits.ndim > 1 and logits.shape[axis] > 1
        sums = logits.sum(axis=axis) if several else np.full(1, np.nan)
        if np.all(logits >= 0) and np.all(np.abs(sums - 1) < SUM_TOLERANCE):
            raise ValueError(
                "TemperatureScaling needs logits. The model gives numbers that "
                "are not negative and sum to 1: probabilities. Leave out the "
                "softmax, and let `Temperature` be the last layer."
            )
        return logits
