"""The temperature of a calibrated model, as part of it."""

import typing

import keras
import numpy as np
from keras import ops

from keras_xent import heads
from keras_xent.ops import checks
from keras_xent.ops.temperature import check_temperature


@keras.saving.register_keras_serializable(package="keras_xent")
class Temperature(heads.LayerOfNumbers):
    """Divides logits by a temperature, except in training.

    ```
    output = logits / T
    ```

    The last layer of a model whose confidence should mean what it says. T is
    fitted after the training, by `keras_xent.callbacks.TemperatureScaling` or
    `keras_xent.ops.fit_temperature`. In training (`training=True`) the logits
    pass untouched, so that a calibrated model can be trained on. Behind a
    `LinearHead` that goes for `fit` and `predict`; in `evaluate` the losses of
    such a head refuse logits that were divided.

    The temperature is a non-trainable float32 weight, so it is saved with the
    model and by `get_weights`; the configuration carries its current value, so
    a clone is calibrated as the original is. Put one in place by
    `layer.temperature = fitted`; that needs no compilation.

    Args:
        temperature: T > 0. 1 changes nothing.
        **kwargs: What every `keras.layers.Layer` takes.

    Shapes:
        Input: logits of any shape and float dtype.
        Output: the same shape, float32 at least: a mixed policy does not round
        what a decision is made from. In training, the input itself.

    Raises:
        ValueError: If the temperature is not a positive number, or the logits
            are not floating point.

    References:
        [Guo, Pleiss, Sun and Weinberger, 2017](
        https://arxiv.org/abs/1706.04599).

    Example:

    >>> import numpy as np
    >>> from keras_xent.layers import Temperature
    >>> calibrate = Temperature(temperature=2.0)
    >>> np.asarray(calibrate(np.array([[3.0, -1.0]], "float32"))).tolist()
    [[1.5, -0.5]]
    >>> calibrate.temperature = 4.0
    >>> np.asarray(calibrate(np.array([[3.0, -1.0]], "float32"))).tolist()
    [[0.75, -0.25]]
    """

    def __init__(
        self, *, temperature: float = 1.0, **kwargs: typing.Any
    ) -> None:
        # Never cast what comes in to the compute dtype.
        super().__init__(**{**kwargs, "autocast": False})
        check_temperature(temperature)
        self.supports_masking = True
        self._temperature = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(float(temperature)),
            dtype="float32",
            trainable=False,
            autocast=False,
            name="temperature",
        )
        self.built = True

    @property
    def temperature(self):
        """The temperature in use, a float read on the host."""
        return float(np.asarray(ops.convert_to_numpy(self._temperature)))

    @temperature.setter
    def temperature(self, value):
        check_temperature(value)
        self._temperature.assign(float(value))

    def call(self, inputs, training=False):
        if training:
            # This very tensor: `LinearHead` has left its note on it.
            return inputs
        logits = checks.logits(inputs)
        temperature = ops.convert_to_tensor(self._temperature)
        return logits / ops.cast(temperature, logits.dtype)

    def compute_output_spec(self, inputs, training=False):
        wide = "float64" if inputs.dtype == "float64" else "float32"
        return keras.KerasTensor(inputs.shape, dtype=wide)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}
