"""The decision match or no match, as part of a model."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_xent import heads
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
from keras_xent.ops.direction import is_similarity


@keras.saving.register_keras_serializable(package="keras_xent")
class MatchDecision(heads.LayerOfNumbers):
    """The decision whether a score means a match.

        similarity=True:   match iff score >= threshold
        similarity=False:  match iff score < threshold, as of distances

    The comparison is in
    float32 whatever the dtype policy; a mixed policy does not round the
    score first. NaN is never a match.

    The threshold is a non-trainable float32 weight, so it is saved with the
    model and by `get_weights`; the configuration carries its current value, so
    a clone decides as the original does. Put a tuned one in place by
    `layer.threshold = tuned`; that needs no compilation.

    Args:
        threshold: The number to compare with.
        similarity: True if large scores mean alike, as cosines and logits do;
            False if small ones do, as distances. It has no default.
        **kwargs: What every layer of Keras takes, such as `name` and `dtype`.

    Shapes:
        Input: distances or similarities, any shape, any real dtype.
        Output: int32 of the same shape, 1 for a match and 0 for none.

    Raises:
        ValueError: If the threshold is NaN or not one number, or `similarity`
            is not said.

    Example:

    >>> import numpy as np
    >>> from keras_xent.layers import MatchDecision
    >>> decide = MatchDecision(0.5, similarity=False)
    >>> np.asarray(decide(np.array([0.2, 0.5, 0.7, np.nan]))).tolist()
    [1, 0, 0, 0]
    >>> decide.threshold = 0.6
    >>> np.asarray(decide(np.array([0.2, 0.5, 0.7, np.nan]))).tolist()
    [1, 1, 0, 0]
    """

    def __init__(
        self,
        threshold: float,
        *,
        similarity: bool | None = None,
        **kwargs: Any,
    ) -> None:
        # Never cast what comes in to the compute dtype.
        super().__init__(**{**kwargs, "autocast": False})
        self.similarity = is_similarity(similarity)
        self.supports_masking = True
        self._threshold = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(
                checks.threshold(threshold)
            ),
            dtype="float32",
            trainable=False,
            autocast=False,
            name="threshold",
        )
        self.built = True

    @property
    def threshold(self) -> float:
        """The threshold in use, a float read on the host."""
        return float(np.asarray(ops.convert_to_numpy(self._threshold)))

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold.assign(checks.threshold(value))

    def call(self, inputs: TensorLike) -> Tensor:
        score = ops.cast(checks.tensor("inputs", inputs), "float32")
        threshold = ops.convert_to_tensor(self._threshold)
        match = score >= threshold if self.similarity else score < threshold
        return ops.cast(match, "int32")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="int32")

    def get_config(self):
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "similarity": self.similarity,
        }
