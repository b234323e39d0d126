"""The distance between two towers."""

import typing

import keras

from keras_xent import heads, ops


@keras.saving.register_keras_serializable(package="keras_xent")
class SymmetricKLDistance(heads.LayerOfNumbers):
    """Symmetric KL divergence between two embeddings.

    ```
    distance = KL(p‖q) + KL(q‖p)
    ```

    with p and q the softmax of the two embeddings (`keras_xent.ops.
    symmetric_kl`). For a model of two towers, trained by
    `keras_xent.losses.SoftplusHinge`.

    Args:
        from_logits: Whether the embeddings are logits. Otherwise they are
            activations that are not negative.
        **kwargs: What every `keras.layers.Layer` takes.

    Shapes:
        Input: a list of two embeddings of the same shape `(batch, dim)`.
        Output: the distance in nats, `(batch, 1)`, in float32 at least:
        bfloat16 would round it to two digits.

    Raises:
        ValueError: unless there are two inputs of the same shape.

    References:
        [Lukic, Vogt, Dürr and Stadelmann, 2017](
        https://doi.org/10.1109/MLSP.2017.8168166).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> distance = keras_xent.layers.SymmetricKLDistance()
    >>> a = np.array([[0.0, 1.0]], "float32")
    >>> b = np.array([[1.0, 0.0]], "float32")
    >>> print(f"{float(distance([a, b])[0, 0]):.4f}")
    0.9242
    """

    def __init__(
        self, *, from_logits: bool = True, **kwargs: typing.Any
    ) -> None:
        # Never round what comes in to the compute dtype.
        super().__init__(**{**kwargs, "autocast": False})
        self.from_logits = from_logits

    def call(self, inputs):
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(
                "SymmetricKLDistance takes a list of two embeddings, "
                f"[a, b]. Received: {inputs!r}"
            )
        distance = ops.symmetric_kl(*inputs, from_logits=self.from_logits)
        return keras.ops.expand_dims(distance, -1)

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}
