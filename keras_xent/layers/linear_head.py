"""The last layer of a classifier, which leaves its product to the loss."""

import typing
from collections.abc import Sequence

import keras
from keras import ops

from keras_xent import _keras
from keras_xent.layers.head import Initializer, checked_units
from keras_xent.layers.low_rank import LowRankLayer
from keras_xent.ops import checks, linear
from keras_xent.ops.logits import LinearLogits


@keras.saving.register_keras_serializable(package="keras_xent")
class LinearHead(LowRankLayer):
    """The last layer of a classifier whose logits are too many to store.

    ```
    logits = features · kernel + bias,   softcap · tanh(logits / softcap)
    ```

    It is a Dense layer without activation that, in training, returns its
    *features* and leaves the product to `keras_xent.losses.LinearCrossentropy`,
    which takes it block by block. `predict` gives logits. Two lines, then:

    ```
    outputs = keras_xent.layers.LinearHead(50_000)(hidden)
    model.compile(optimizer, loss=keras_xent.losses.LinearCrossentropy())
    ```

    It must be the last layer: what comes after it would get features in
    training and logits otherwise. The same holds for metrics in
    `compile(metrics=…)`: in `fit` they would compare labels with features. Use
    `metrics` here, which come out of the pass that the loss makes anyway.

    Args:
        units: v, the number of classes. May be left out for a tied head.
        tied_to: An `Embedding` or `ReversibleEmbedding` whose matrix `(v, d)`
            is the transposed kernel, so that the head has no weights but the
            bias. In a functional model the embedding must lie on the way to
            the head; a copy of the model finds its own embedding there, by
            name.
        use_bias: Whether to add a bias.
        softcap: c > 0 keeps the logits within ±c. `None` takes that of a
            `ReversibleEmbedding` (`logit_soft_cap`), if there is one.
        precision: In what products of features and weights are made. `None` is
            the dtype of the features, as in a Dense layer: bfloat16 under
            `mixed_bfloat16`. `"float32"` makes them in float32 at least.
        metrics: Any of "accuracy" (the share of rows whose label has the
            largest logit), "top_5_accuracy", or another number for the 5 (the
            share of rows in which fewer than 5 other classes have a larger
            logit than the label), "perplexity" (exp of the mean of −log p,
            without smoothing and z-loss), "entropy" (the mean of −Σ p log p, in
            nats) and "z_loss" (the mean of the squared log Σ exp(logits)),
            shown under these names by `fit` and `evaluate`. Sample weights,
            masks and ignored classes count in all. Of several heads in a model
            give them to one: Keras shows a name once. `None` for none.
        sampled: Whether the loss is one over a sample of the classes, such as
            `keras_xent.losses.SampledSoftmaxCrossentropy`. Then the head draws
            a seed for every training step, and its weights are stored as
            `(v, d)`, one row per class as in an `Embedding`: the loss reads a
            few rows, and on TensorFlow their gradient is sparse. A tied head
            is stored as its embedding is.
        seed: A whole number, to draw the same samples in every training.
            `None` draws it, too.
        kernel_initializer: How the weights of the classes begin: the name of
            an initializer of Keras, or one.
        bias_initializer: How the bias begins.
        lora_rank: The rank for `enable_lora`, which is called once the head is
            built. `None` trains the kernel itself.
        lora_alpha: The factor for `enable_lora`. `None` is `lora_rank`.
        **kwargs: What every layer of Keras takes, such as `name` and `dtype`.

    Shapes:
        Input: features `(batch, ..., d)`.
        Output: logits `(batch, ..., v)`; in training the features.

    Raises:
        ValueError: if the number of classes is missing or below 2, the features
            do not fit the embedding, `tied_to` is no embedding, a metric is
            unknown, or a tied head is to have a low rank of its own.

    References:
        [Press and Wolf, 2017](https://arxiv.org/abs/1608.05859), tied weights;
        [Hu et al., 2021](https://arxiv.org/abs/2106.09685), LoRA.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> head = keras_xent.layers.LinearHead(1000)
    >>> features = np.ones((2, 8), "float32")
    >>> head(features).shape == (2, 1000)
    True
    >>> head(features, training=True).shape == (2, 8)
    True
    """

    def __init__(
        self,
        units: int | None = None,
        *,
        tied_to: keras.layers.Embedding | str | None = None,
        use_bias: bool = False,
        softcap: float | None = None,
        precision: str | None = None,
        metrics: Sequence[str] | str | None = (),
        sampled: bool = False,
        seed: int | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: typing.Any,
    ) -> None:
        linear.check_softcap(softcap)
        tied_to = _checked_embedding(tied_to)
        super().__init__(
            _units_of(units, tied_to),
            precision=precision,
            metrics=metrics,
            sampled=sampled,
            seed=seed,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        self.tied_to = tied_to
        self.use_bias = checks.flag("use_bias", use_bias)
        self._softcap = softcap
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias = None
        if lora_rank is not None:
            self._set_lora(lora_rank, lora_alpha)
        elif lora_alpha is not None:
            raise ValueError(
                "`lora_alpha` belongs to a `lora_rank`, which says that there "
                f"is a low rank. Received: lora_alpha={lora_alpha!r} alone."
            )

    def build(self, input_shape: tuple) -> None:
        if self.tied_to is None:
            self._add_kernel(input_shape)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
            )
        if self.lora_rank is not None:
            self.built = True
            self.enable_lora(self.lora_rank, lora_alpha=self.lora_alpha)

    @property
    def softcap(self) -> float | None:
        """The soft cap in use, the embedding's if the head has none."""
        if self._softcap is not None:
            return self._softcap
        return getattr(self.tied_to, "logit_soft_cap", None)

    def __call__(self, inputs, *args, **kwargs):
        if isinstance(self.tied_to, str):
            self._tie(_layer_before(inputs, self.tied_to))
        return super().__call__(inputs, *args, **kwargs)

    def _tie(self, embedding):
        """Puts the embedding in the place of its name."""
        _units_of(self.units, embedding)
        # A layer that is built, or loaded, takes no sublayers otherwise.
        with _keras.unlocked(self):
            self.tied_to = embedding

    def _logits(self, training):
        """What the head makes of a product."""
        bias = self.bias
        if bias is not None:
            bias = ops.convert_to_tensor(bias)
        return LinearLogits(bias, self.softcap)

    def _predict(self, features, matrix, logits, dtype):
        """The logits, from products in that dtype."""
        kernel = ops.cast(*matrix.values(), dtype)
        if "class_vectors" in matrix:
            kernel = ops.transpose(kernel)
        return logits.dense(ops.matmul(ops.cast(features, dtype), kernel))

    def _matrix(self):
        if self.tied_to is None:
            return self._merged_kernel()
        return super()._matrix()

    def _classes(self):
        if self.tied_to is None:
            return super()._classes()
        if getattr(self.tied_to, "quantization_mode", None) is not None:
            raise ValueError(
                f"The embedding {self.tied_to.name!r} is quantized, and its "
                "integers are no weights of classes. Quantize a model whose "
                "head has a kernel of its own, or none."
            )
        if getattr(self.tied_to, "tie_weights", True):
            return "class_vectors", self.tied_to.embeddings
        return "kernel", self.tied_to.reverse_embeddings

    def get_config(self) -> dict:
        tied_to = self.tied_to
        if isinstance(tied_to, keras.layers.Layer):
            tied_to = tied_to.name
        return {
            **super().get_config(),
            "tied_to": tied_to,
            "use_bias": self.use_bias,
            "softcap": self._softcap,
            "bias_initializer": keras.initializers.serialize(
                self.bias_initializer
            ),
            "lora_rank": self.lora_rank,
            "lora_alpha": self.lora_alpha,
        }

    def _check_features(self, inputs):
        if self.tied_to is None or self.tied_to.output_dim == inputs.shape[-1]:
            return
        raise ValueError(
            f"The features of a tied head must be as long as the vectors of "
            f"its embedding, {self.tied_to.output_dim}. Received features of "
            f"shape {tuple(inputs.shape)}: put a Dense("
            f"{self.tied_to.output_dim}) before the head."
        )


def _checked_embedding(layer):
    """An embedding; or its name, to be looked up when the head is called."""
    if layer is None or isinstance(layer, (str, keras.layers.Embedding)):
        return layer
    raise ValueError(
        "`tied_to` must be the Embedding or ReversibleEmbedding whose vectors "
        f"are the weights of the classes. Received: {layer!r}"
    )


def _units_of(units, tied_to):
    size = getattr(tied_to, "input_dim", None)
    units = checked_units(size if units is None else units)
    if size is not None and units != size:
        raise ValueError(
            f"The embedding has {size} vectors, so the head has {size} "
            f"classes. Received: units={units}. Leave `units` out."
        )
    return units


def _layer_before(tensor, name):
    """The layer of that name on the way to a symbolic tensor."""
    found = {
        id(layer): layer
        for operation in _keras.operations_before(tensor)
        if isinstance(operation, keras.layers.Layer)
        for layer in _keras.flat_layers(operation)
        if layer.name == name
    }
    if len(found) == 1:
        return _checked_embedding(*found.values())
    raise ValueError(
        f"This head is tied to the embedding {name!r}, and {len(found)} layers "
        "of that name lie on the way to it. In a functional model the "
        "embedding must be among the layers before the head, and the only one "
        "of its name; in a model class of your own, make the head by "
        "LinearHead(tied_to=self.embedding) rather than from "
        "its configuration."
    )
