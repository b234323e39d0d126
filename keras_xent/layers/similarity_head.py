"""The last layer of a model whose embeddings are compared with each other."""

import typing

import keras
import numpy as np
from keras import ops

from keras_xent import heads
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, identities
from keras_xent.ops.dtypes import sums_dtype
from keras_xent.ops.temperature import check_temperature
from keras_xent.ops.unit import unit_rows


@keras.saving.register_keras_serializable(package="keras_xent")
class SimilarityHead(heads.NotingLayer):
    """Makes unit vectors of embeddings, and owns the temperature of a loss.

    ```
    output = x / |x|
    ```

    The last layer of one tower, or of several: their embeddings are stacked to
    `(batch, towers, dim)`. It leaves its temperature, and its bias, to the
    contrastive loss that the model is compiled with, which divides cosines by
    it, and trains it. No training step of one's own, then:

    ```
    head = keras_xent.layers.SimilarityHead()
    model = keras.Model([image, text], head([f(image), g(text)]))
    model.compile("adam", loss=keras_xent.losses.InfoNCE())
    ```

    It must be the last layer: the loss finds it by the tensor that it returned.
    The product of two outputs is the cosine.

    What is stored is log(1 / temperature), as in CLIP and SigLIP: the
    temperature stays positive, whatever the optimizer does. After each step it
    is kept from falling below `min_temperature`.

    Args:
        temperature: T > 0, by which the loss divides cosines in the beginning.
        bias: b, which `keras_xent.losses.SigmoidContrastive` adds to them, in
            the beginning. `None` for no bias here: then it is the loss's own.
        learn: Whether the temperature and the bias are trained.
        min_temperature: What the temperature does not fall below. 0.01 is the
            limit of CLIP, a scale of 100. `None` for none.
        **kwargs: What every layer of Keras takes, such as `name` and `dtype`.

    Shapes:
        Input: embeddings `(batch, dim)` or `(batch, views, dim)`, or a list of
        them. Masks, `(batch,)`, are passed on: an example is masked where any
        of its embeddings is.
        Output: unit vectors, `(batch, views, dim)` of all inputs in their
        order, or `(batch, dim)` of a single one.

    Raises:
        ValueError: if a number is out of range, the temperature begins below
            its limit, or the embeddings do not fit together.

    References:
        [Radford et al., 2021](https://arxiv.org/abs/2103.00020), CLIP;
        [Zhai et al., 2023](https://arxiv.org/abs/2303.15343), SigLIP.

    Example:

    >>> import numpy as np
    >>> from keras_xent.layers import SimilarityHead
    >>> head = SimilarityHead(temperature=0.07)
    >>> images = np.array([[3.0, 4.0]], "float32")
    >>> texts = np.array([[0.0, 2.0]], "float32")
    >>> pairs = np.asarray(head([images, texts]))
    >>> print(pairs.shape, f"{pairs[0, 0] @ pairs[0, 1]:.4f}")
    (1, 2, 2) 0.8000
    >>> print(f"{head.temperature:.2f}")
    0.07
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        bias: float | None = None,
        learn: bool = True,
        min_temperature: float | None = 0.01,
        **kwargs: typing.Any,
    ) -> None:
        super().__init__(**kwargs)
        check_temperature(temperature)
        if bias is not None:
            checks.number("bias", bias, -np.inf)
        limit = None
        if min_temperature is not None:
            check_temperature(min_temperature)
            if temperature < min_temperature:
                raise ValueError(
                    "`temperature` must not begin below `min_temperature`. "
                    f"Received: temperature={temperature}, "
                    f"min_temperature={min_temperature}"
                )
            limit = AtMost(-np.log(min_temperature))
        self.learn = checks.flag("learn", learn)
        # A configuration is JSON, which knows no NumPy numbers.
        self.min_temperature = _float(min_temperature)
        self._first = {"temperature": float(temperature), "bias": _float(bias)}
        self.supports_masking = True
        self._log_scale = self._number("log_scale", -np.log(temperature), limit)
        self._bias = None
        if bias is not None:
            self._bias = self._number("bias", bias)
        self.built = True

    def _number(self, name, value, constraint=None):
        # In float32 under every policy: a step of an optimizer is small.
        return self.add_weight(
            name=name,
            shape=(),
            initializer=keras.initializers.Constant(float(value)),
            dtype="float32",
            trainable=self.learn,
            autocast=False,
            constraint=constraint,
        )

    @property
    def temperature(self) -> float:
        """The temperature in use, a float read on the host."""
        scale = ops.convert_to_numpy(ops.convert_to_tensor(self._log_scale))
        return float(np.exp(-np.float64(scale)))

    @property
    def bias(self) -> float | None:
        """The bias in use, a float read on the host; None if there is none."""
        if self._bias is None:
            return None
        bias = ops.convert_to_tensor(self._bias)
        return float(ops.convert_to_numpy(bias))

    def call(self, inputs: TensorLike) -> Tensor:
        several = _are_several(inputs)
        towers = list(inputs) if several else [inputs]
        parts = [identities.views(x, "inputs") for x in towers]
        _check_fit(parts)
        x = ops.concatenate(parts, axis=1) if several else parts[0]
        if not several and len(towers[0].shape) == 2:
            x = x[:, 0]
        wide = sums_dtype(x.dtype)
        result = ops.cast(unit_rows(ops.cast(x, wide)), x.dtype)
        bias = self._bias
        note = heads.SimilarityNote(
            self,
            ops.convert_to_tensor(self._log_scale),
            None if bias is None else ops.convert_to_tensor(bias),
        )
        heads.leave_note(result, note)
        return result

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """The call as it is, in a `keras.RematScope` too.

        What leaves a rematerialized call on JAX has lost the head's note.
        """
        return layer_call

    def compute_mask(self, inputs, previous_mask):
        masks = previous_mask
        if not isinstance(masks, (list, tuple)):
            masks = [masks]
        masks = [mask for mask in masks if mask is not None]
        if not masks:
            return None
        mask = masks[0]
        for other in masks[1:]:
            mask = ops.logical_and(mask, other)
        return mask

    def compute_output_spec(self, inputs):
        several = _are_several(inputs)
        shapes = [tuple(x.shape) for x in (inputs if several else [inputs])]
        shape = shapes[0]
        if several:
            parts = [
                keras.KerasTensor((s[0], 1, s[1]) if len(s) == 2 else s)
                for s in shapes
            ]
            _check_fit(parts)
            views = sum(part.shape[1] for part in parts)
            shape = (shape[0], views, shape[-1])
        first = inputs[0] if several else inputs
        return keras.KerasTensor(shape, dtype=first.dtype)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            **self._first,
            "learn": self.learn,
            "min_temperature": self.min_temperature,
        }


class AtMost(keras.constraints.Constraint):
    """Keeps a weight from rising above a number. The head makes it anew."""

    def __init__(self, limit):
        self.limit = float(limit)

    def __call__(self, w):
        return ops.minimum(w, ops.cast(self.limit, w.dtype))


def _are_several(inputs):
    """Whether they are a list; an error for what are no embeddings."""
    several = isinstance(inputs, (list, tuple))
    if isinstance(inputs, dict) or (several and not inputs):
        raise ValueError(
            "Expected embeddings, or a list of them: one for each tower, in "
            f"the order of the views. Received: {inputs!r}"
        )
    return several


def _float(number):
    return None if number is None else float(number)


def _check_fit(parts):
    first = parts[0].shape
    for part in parts:
        if not checks.fits(
            (part.shape[0], part.shape[2]), (first[0], first[2])
        ):
            raise ValueError(
                "The towers must give embeddings of one size for one batch. "
                f"Received shapes {[tuple(x.shape) for x in parts]}: put a "
                "Dense of one number of units at the end of each tower."
            )
