"""Losses between two distributions, from logits on both sides."""

import keras

from keras_xent import ops
from keras_xent._types import DType, Reduction
from keras_xent.losses import kinds
from keras_xent.losses.base import RowLoss
from keras_xent.ops import checks
from keras_xent.ops.divergence import check_beta
from keras_xent.ops.temperature import check_temperature


class DivergenceLoss(RowLoss):
    """A divergence of the student `y_pred` from the teacher `y_true`.

    Args:
        beta, temperature, axis: As in `keras_xent.ops.jensen_shannon`.
        reduction, name, dtype: As in `RowLoss`.
    """

    output_kind, label_kind = kinds.LOGITS, kinds.NUMBERS

    def __init__(self, *, beta, temperature, axis, reduction, name, dtype):
        check_beta(beta)
        check_temperature(temperature)
        super().__init__(
            beta=beta,
            temperature=temperature,
            axis=axis,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_axis(self, y_pred):
        return checks.axis(self.axis, len(y_pred.shape))

    def call(self, y_true, y_pred):
        return ops.jensen_shannon(y_true, y_pred, **self.options)


@keras.saving.register_keras_serializable(package="keras_xent")
class KLDivergence(DivergenceLoss):
    """Distillation: divergence of a student from its teacher, from logits.

    The loss of a row is `keras_xent.ops.kl_divergence`:

    ```
    loss = T² · Σ_k p_k · log(p_k / q_k)
    with p = softmax(y_true / T), q = softmax(y_pred / T)
    ```

    or, with another β than 0, `keras_xent.ops.jensen_shannon`, which ends in
    the reverse divergence at β = 1. Keras's loss of this name takes
    probabilities, clips them, and has no temperature.

    Args:
        temperature: T > 0. The factor T² keeps the gradient's size as T grows.
        beta: β in [0, 1]: 0 is the forward divergence, by which a student
            covers all that its teacher holds for possible; 1 the reverse one,
            by which it settles on what the teacher likes best; between them is
            the generalized Jensen-Shannon divergence.
        axis: The axis of the classes.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per row.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true`, logits of the teacher, and `y_pred`, logits of the student,
        have one shape, `(batch, ..., classes)`; the loss is in nats at T = 1.

    Raises:
        ValueError: if the temperature is not a positive number or β not in
            [0, 1]; when called, as `keras_xent.ops.kl_divergence`.

    References:
        [Hinton, Vinyals and Dean, 2015](https://arxiv.org/abs/1503.02531);
        [Agarwal et al., 2024](https://arxiv.org/abs/2306.13649), β.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.KLDivergence(temperature=2.0)
    >>> teacher = np.array([[0.0, 1.0]], "float32")
    >>> student = np.array([[3.0, 0.0]], "float32")
    >>> print(f"{float(loss(teacher, student)):.4f}")
    1.8890
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        beta: float = 0.0,
        axis: int = -1,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "kl_divergence",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            beta=beta,
            temperature=temperature,
            axis=axis,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class JensenShannonDivergence(DivergenceLoss):
    """Jensen-Shannon divergence of two distributions, from logits.

    The loss of a row is `keras_xent.ops.jensen_shannon`:

    ```
    loss = T² · (β KL(p‖m) + (1 − β) KL(q‖m)),   m = β p + (1 − β) q
    with p = softmax(y_true / T), q = softmax(y_pred / T)
    ```

    At β = ½ never above log 2 (at T = 1), so that a few rows on which teacher
    and student disagree do not decide the training.

    Args:
        beta: β in [0, 1], the share of the teacher in the mean m. At 0 and 1
            the loss is the forward and the reverse KL divergence.
        temperature: T > 0. The factor T² keeps the gradient's size as T grows.
        axis: The axis of the classes.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per row.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` and `y_pred` are logits of one shape, `(batch, ..., classes)`;
        the loss is in nats at T = 1.

    Raises:
        ValueError: if the temperature is not a positive number or β not in
            [0, 1]; when called, as `keras_xent.ops.jensen_shannon`.

    References:
        [Lin, 1991](https://doi.org/10.1109/18.61115);
        [Agarwal et al., 2024](https://arxiv.org/abs/2306.13649), β.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.JensenShannonDivergence()
    >>> a = np.array([[0.0, 1.0]], "float32")
    >>> b = np.array([[1.0, 0.0]], "float32")
    >>> print(f"{float(loss(a, b)):.4f}")
    0.1109
    """

    def __init__(
        self,
        *,
        beta: float = 0.5,
        temperature: float = 1.0,
        axis: int = -1,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "jensen_shannon_divergence",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            beta=beta,
            temperature=temperature,
            axis=axis,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
