"""The Brier score over a whole epoch."""

import keras

from keras_xent._keras import set_direction
from keras_xent._types import ClassIds, DType
from keras_xent.metrics.class_rows import ClassMetric
from keras_xent.ops.brier import brier_score


@keras.saving.register_keras_serializable(package="keras_xent")
class BrierScore(ClassMetric):
    """Mean squared error of the predicted probabilities.

    The score of a row is `keras_xent.ops.brier_score`:

    ```
    score = Σ_k (p_k − t_k)²   over classes, from 0 to 2
    score = (p − t)²           of a yes/no answer, from 0 to 1
    ```

    Args:
        from_logits: Whether the predictions are logits. Otherwise they are
            probabilities.
        axis: The axis of the classes.
        ignore_class: A class id, or a list of them: such rows do not count.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        As `CrossentropyRate`. `result()` is a float32 scalar, the weighted mean
        over all rows of all batches. NaN if nothing was counted, or if a
        prediction, label or weight is impossible.

    Raises:
        ValueError: If an argument, a shape or a dtype is wrong, or a label or
            probability is and this can be seen without reading device memory.

    References:
        [Brier, 1950](https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2).

    Example:

    >>> import numpy as np
    >>> from keras_xent.metrics import BrierScore
    >>> rain = BrierScore(from_logits=False)
    >>> float(rain([1, 0], np.array([0.5, 0.0], "float32")))
    0.125
    """

    def __init__(
        self,
        *,
        from_logits: bool = True,
        axis: int = -1,
        ignore_class: ClassIds = None,
        name: str = "brier_score",
        dtype: DType = None,
    ) -> None:
        super().__init__((2,), axis, ignore_class, name, dtype, from_logits)
        set_direction(self, "down")

    def update_state(self, y_true, y_pred, sample_weight=None):
        rows = self.rows(y_true, y_pred, sample_weight)
        score = brier_score(
            rows.one_hot(),
            rows.predictions,
            from_logits=self.from_logits,
            axis=None if rows.binary else 1,
        )
        self.add(rows.weighted(score), rows.weight)

    def result(self):
        return self.ratio()

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}
