"""Losses between two distributions, from logits on both sides."""

import keras

from keras_xent import ops
from keras_xent.losses import kinds
from keras_xent.losses.base import RowLoss
from keras_xent.ops import checks
from keras_xent.ops.temperature import check_temperature


@keras.saving.register_keras_serializable(package="keras_xent")
class KLDivergence(RowLoss):
    """Distillation: divergence of a student from its teacher, from logits.

    The loss of a row is `keras_xent.ops.kl_divergence`:

    ```
    loss = T² · Σ_k p_k · log(p_k / q_k)
    with p = softmax(y_true / T), q = softmax(y_pred / T)
    ```

    Keras's loss of this name takes probabilities, clips them, and has no
    temperature.

    Args:
        temperature: T > 0. The factor T² keeps the gradient's size as T grows.
        axis: The axis of the classes.
        reduction: As in `keras.losses.Loss`.
        name: The name of the loss.
        dtype: The dtype of the result. The sums run in float32 at least.

    Shapes:
        `y_true`, logits of the teacher, and `y_pred`, logits of the student,
        have one shape, `(batch, ..., classes)`; the loss is in nats at T = 1.

    Raises:
        ValueError: as `keras_xent.ops.kl_divergence`.

    References:
        [Hinton, Vinyals and Dean, 2015](https://arxiv.org/abs/1503.02531).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.KLDivergence(temperature=2.0)
    >>> teacher = np.array([[0.0, 1.0]], "float32")
    >>> student = np.array([[3.0, 0.0]], "float32")
    >>> print(f"{float(loss(teacher, student)):.4f}")
    1.8890
    """

    output_kind, label_kind = kinds.LOGITS, kinds.NUMBERS

    def __init__(
        self,
        temperature=1.0,
        *,
        axis=-1,
        reduction="sum_over_batch_size",
        name="kl_divergence",
        dtype=None,
    ):
        check_temperature(temperature)
        super().__init__(
            temperature=temperature,
            axis=axis,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_axis(self, y_pred):
        return checks.axis(self.axis, len(y_pred.shape))

    def call(self, y_true, y_pred):
        return ops.kl_divergence(y_true, y_pred, **self.options)


@keras.saving.register_keras_serializable(package="keras_xent")
class JensenShannon(RowLoss):
    """Jensen-Shannon divergence of two distributions, from logits.

    The loss of a row is `keras_xent.ops.jensen_shannon`:

    ```
    loss = ½ KL(p‖m) + ½ KL(q‖m),   m = (p + q) / 2
    with p = softmax(y_true), q = softmax(y_pred)
    ```

    Never above log 2, so that a few rows on which teacher and student disagree
    do not decide the training.

    Args:
        axis: The axis of the classes.
        reduction: As in `keras.losses.Loss`.
        name: The name of the loss.
        dtype: The dtype of the result. The sums run in float32 at least.

    Shapes:
        `y_true` and `y_pred` are logits of one shape, `(batch, ..., classes)`;
        the loss is in nats.

    Raises:
        ValueError: as `keras_xent.ops.jensen_shannon`.

    References:
        [Lin, 1991](https://doi.org/10.1109/18.61115).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.JensenShannon()
    >>> a = np.array([[0.0, 1.0]], "float32")
    >>> b = np.array([[1.0, 0.0]], "float32")
    >>> print(f"{float(loss(a, b)):.4f}")
    0.1109
    """

    output_kind, label_kind = kinds.LOGITS, kinds.NUMBERS

    def __init__(
        self,
        *,
        axis=-1,
        reduction="sum_over_batch_size",
        name="jensen_shannon",
        dtype=None,
    ):
        super().__init__(axis=axis, reduction=reduction, name=name, dtype=dtype)

    def row_axis(self, y_pred):
        return checks.axis(self.axis, len(y_pred.shape))

    def call(self, y_true, y_pred):
        return ops.jensen_shannon(y_true, y_pred, **self.options)
