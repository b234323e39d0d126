"""What last layers share that leave the logits to the loss."""

import typing
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_xent import _keras, heads
from keras_xent._types import Tensor, TensorLike
from keras_xent.layers.head_metrics import head_metrics
from keras_xent.ops import checks, devices, linear
from keras_xent.ops.dtypes import dtype_of

Initializer: typing.TypeAlias = str | dict | keras.initializers.Initializer


class Head(heads.NotingLayer):
    """A layer that in training returns its features, with a note on them.

    A subclass says what weights the classes have in `build`, `_classes` and
    `_matrix`, what is made of a product in `_logits`, and in `_predict` what
    `predict` gives. The arguments are those of `LinearHead`.
    """

    # How many vectors a class has.
    sub_centers = 1

    def __init__(
        self,
        units: int,
        *,
        precision: str | None,
        metrics: Sequence[str] | str | None,
        sampled: bool,
        seed: int | None,
        kernel_initializer: Initializer,
        **kwargs: typing.Any,
    ) -> None:
        super().__init__(**kwargs)
        linear.check_precision(precision)
        self.units = units
        self.precision = precision
        self.sampled = checks.flag("sampled", sampled)
        if seed is not None:
            checks.whole("seed", seed, 0)
        self.seed = seed
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self._trackers = _keras.MetricGroup(head_metrics(metrics, units))
        self.supports_masking = True
        if sampled:
            self._seed_generator = keras.random.SeedGenerator(seed)

    def _add_kernel(self, input_shape):
        if not input_shape or not input_shape[-1]:
            raise ValueError(
                "A head takes features of one number or more, and has to know "
                f"how many. Received features of shape {tuple(input_shape)}."
            )
        shape = (input_shape[-1], self.units * self.sub_centers)
        try:
            self._kernel = self.add_weight(
                name="class_vectors" if self.sampled else "kernel",
                shape=shape[::-1] if self.sampled else shape,
                initializer=self.kernel_initializer,
            )
        except ValueError as error:
            # In the words of JAX, which says neither which layer nor a way out.
            if "evenly divide" not in str(error):
                raise
            raise ValueError(
                f"The weights of the head {self.name!r}, {shape[0]} features "
                f"times {shape[1]} columns for {self.units} classes, could not "
                "be laid out over the devices. An axis must divide evenly by "
                "the devices that it is spread over: round `units` up to a "
                "multiple of them. A class that no label names, and whose "
                "bias is -inf, changes nothing."
            ) from error

    def _classes(self):
        """The variable with the weights of the classes, by its name."""
        return "class_vectors" if self.sampled else "kernel", self._kernel

    def _matrix(self):
        """The weights of the classes in this call."""
        return ops.convert_to_tensor(self._classes()[1])

    def quantize(self, mode=None, type_check=True, config=None):
        """Says that a head cannot be quantized; `Model.quantize` leaves it."""
        raise NotImplementedError(
            f"A {type(self).__name__} is not quantized: its loss needs the "
            "weights of the classes as floating point. The head "
            f"{self.name!r} stays as it is; for a quantized last layer copy "
            "its weights into a Dense."
        )

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """The call as it is, in a `keras.RematScope` too.

        In training the head computes nothing that could be computed again, and
        what leaves a rematerialized call on JAX has lost the head's note.
        """
        return layer_call

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(metric.name for metric in self._trackers.metrics)

    @property
    def needs_all_terms(self) -> bool:
        """Whether a metric asks for all of the `ops.reductions.Terms`."""
        return any(x.needs_all_terms for x in self._trackers.metrics)

    def call(self, inputs: TensorLike, training: bool = False) -> Tensor:
        inputs = ops.convert_to_tensor(inputs)
        if "float" not in dtype_of(inputs):
            inputs = ops.cast(inputs, self.compute_dtype)
        self._check_features(inputs)
        training = self._trains(training)
        with _keras.without_autocast():
            name, variable = self._classes()
            matrix, logits = {name: self._matrix()}, self._logits(training)
        shards = class_shards(variable, 0 if name == "class_vectors" else 1)
        # A tensor of its own: two heads on the same features leave two notes.
        features = ops.copy(inputs)
        if training:
            seed = None
            if self.sampled:
                seed = heads.DrawnSeed(self._seed_generator.next())
            note = heads.Note(self, matrix, logits, seed=seed, shards=shards)
            heads.leave_note(features, note)
            return features
        dtype = linear.products_dtype(features, self.precision)
        # On TensorFlow the variables are still to be read.
        with _keras.without_autocast(), _keras.full_precision():
            result = self._predict(features, matrix, logits, dtype)
            result = ops.cast(result, features.dtype)
        note = heads.Note(self, matrix, logits, features, shards=shards)
        heads.leave_note(result, note)
        return result

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def update_metrics(self, terms, weight):
        """Adds the rows of a pass, in the `ops.reductions.Terms` of them."""
        for metric in self._trackers.metrics:
            metric.update(terms, weight)

    def _check_features(self, inputs):
        """Raises on features that the weights cannot be multiplied with."""

    def _trains(self, training):
        try:
            return bool(training)
        except TypeError as error:
            raise ValueError(
                f"A {type(self).__name__} has to know whether it trains. "
                "Received a tensor without a value as `training`, as on JAX in "
                "a model that is made inside of a keras.RematScope: make the "
                "model outside of the scope. Its layers may be made inside, "
                "the head too."
            ) from error

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "units": self.units,
            "precision": self.precision,
            "metrics": list(self.metric_names),
            "sampled": self.sampled,
            "seed": self.seed,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


def class_shards(variable, axis):
    """Over how many devices an axis of a variable is spread, 1 for none.

    It is what `keras.distribution.ModelParallel` was told of the variable,
    which as of Keras 3.16 there is on JAX only.
    """
    return devices.parts(_mesh_axis(variable, axis))


def spread_alike(x, axis, variable, of):
    """A tensor with an axis spread as another axis of a variable is."""
    name = _mesh_axis(variable, of)
    if name is None:
        return x
    axes = [None] * len(x.shape)
    axes[axis] = name
    return devices.laid_out(x, axes)


def _mesh_axis(variable, axis):
    """The axis of the mesh of devices that an axis is spread over, or None."""
    distribution = devices.spread()
    if distribution is None:
        return None
    axes = distribution.get_variable_layout(variable).axes
    # A layout may leave out the last axes.
    return axes[axis] if axis < len(axes) else None


def checked_units(units):
    """The number of classes, or an error."""
    if not isinstance(units, (int, np.integer)) or units < 2:
        raise ValueError(
            "`units` is the number of classes, a whole number from 2: the "
            f"softmax of one logit is always 1. Received: units={units!r}"
        )
    return int(units)
