"""Cross-entropy losses that take logits, always."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_xent import ops
from keras_xent._keras import full_precision, get_mask
from keras_xent._types import ClassIds, ClassWeight, DType, Reduction
from keras_xent.losses import kinds
from keras_xent.losses.base import RowLoss, as_list
from keras_xent.ops import checks, crossentropy, rows, sigmoid
from keras_xent.ops.select import where


@keras.saving.register_keras_serializable(package="keras_xent")
class SoftmaxCrossentropy(RowLoss):
    """Cross-entropy of target distributions and logits.

    The loss of a row is `keras_xent.ops.softmax_crossentropy`, which has the
    formula:

    ```
    loss = Σ_k w_k t̃_k (1 − p_k)^γ (−log p_k) + z · lse²
    ```

    The model ends in a Dense layer *without* activation: its outputs are the
    logits, unnormalized log-probabilities. For integer class ids use
    `SparseSoftmaxCrossentropy`.

    Args:
        axis: The axis of the classes. Any axis, on every backend.
        label_smoothing: ε in [0, 1): the share of every target that is spread
            evenly over the classes.
        class_weight: w, a vector of one non-negative number per class, or a
            dict from class ids to numbers, as in `fit`: classes that it leaves
            out weigh 1. `None` weighs all alike. It multiplies: the mean
            divides by the number of rows, as in Keras, and not by the sum of
            their weights, as in PyTorch.
        focal_gamma: γ ≥ 0, the focal exponent. 0 is the plain cross-entropy.
        z_loss: z ≥ 0, the weight of the squared log Σ exp(logits).
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per row.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` and `y_pred` have one shape, `(batch, ..., classes)`; weights
        and masks have the leading axes of the rows, `(batch, ...)`. The loss
        is in nats.

    Raises:
        ValueError: if an option is out of range; when called, if shapes differ
            (nothing is broadcast), logits are not floating point or have one
            class only, or targets in host memory hold a negative number.

    References:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), smoothing;
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), focal loss.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SoftmaxCrossentropy(label_smoothing=0.1)
    >>> targets = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> logits = np.array([[3.0, 0.0], [0.0, 0.0]], "float32")
    >>> print(f"{float(loss(targets, logits)):.4f}")
    0.4459
    """

    output_kind, label_kind = kinds.LOGITS, kinds.DISTRIBUTION

    def __init__(
        self,
        *,
        axis: int = -1,
        label_smoothing: float = 0.0,
        class_weight: ClassWeight = None,
        focal_gamma: float = 0.0,
        z_loss: float = 0.0,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "softmax_crossentropy",
        dtype: DType = None,
    ) -> None:
        class_weight = crossentropy.check_options(
            label_smoothing, class_weight, focal_gamma, z_loss
        )
        super().__init__(
            axis=axis,
            label_smoothing=label_smoothing,
            class_weight=as_list(class_weight),
            focal_gamma=focal_gamma,
            z_loss=z_loss,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_axis(self, y_pred):
        return checks.axis(self.axis, len(y_pred.shape))

    def blanks_rows(self, y_pred):
        return crossentropy.is_written_out(self.focal_gamma)

    def call(self, y_true, y_pred):
        return ops.softmax_crossentropy(y_true, y_pred, **self.options)


@keras.saving.register_keras_serializable(package="keras_xent")
class SparseSoftmaxCrossentropy(RowLoss):
    """Cross-entropy of integer labels and logits.

    The loss of a row is `keras_xent.ops.sparse_softmax_crossentropy`, which
    has the formula:

    ```
    loss = Σ_k w_k t̃_k (1 − p_k)^γ (−log p_k) + z · lse²
    ```

    The model ends in a Dense layer *without* activation: its outputs are the
    logits, unnormalized log-probabilities. Labels stay integers: class 257 is
    class 257 in bfloat16, too.

    Args:
        axis: The axis of the classes. Any axis, on every backend.
        label_smoothing: ε in [0, 1): the share of every target that is spread
            evenly over the classes.
        class_weight: w, a vector of one non-negative number per class, or a
            dict from class ids to numbers, as in `fit`: classes that it leaves
            out weigh 1. `None` weighs all alike. It multiplies: the mean
            divides by the number of rows, as in Keras, and not by the sum of
            their weights, as in PyTorch.
        focal_gamma: γ ≥ 0, the focal exponent. 0 is the plain cross-entropy.
        z_loss: z ≥ 0, the weight of the squared log Σ exp(logits).
        ignore_class: A class id, or a list of them: such rows have no loss and
            do not count in the mean.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per row.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_pred` is `(batch, ..., classes)`, `y_true` is `(batch, ...)` or
        `(batch, ..., 1)`; weights and masks have the leading axes of the rows,
        `(batch, ...)`. The loss is in nats.

    Raises:
        ValueError: if an option is out of range; when called, if shapes do not
            fit, logits are not floating point or have one class only, or
            labels in host memory are no class ids. A label that does not exist
            and is already on a device makes the loss NaN.

    References:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), smoothing;
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), focal loss.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SparseSoftmaxCrossentropy(ignore_class=-1)
    >>> labels = np.array([0, 1, -1])
    >>> logits = np.array([[3.0, 0.0], [0.0, 0.0], [9.0, 0.0]], "float32")
    >>> print(f"{float(loss(labels, logits)):.4f}")
    0.3709
    """

    output_kind, label_kind = kinds.LOGITS, kinds.CLASS_IDS

    def __init__(
        self,
        *,
        axis: int = -1,
        label_smoothing: float = 0.0,
        class_weight: ClassWeight = None,
        focal_gamma: float = 0.0,
        z_loss: float = 0.0,
        ignore_class: ClassIds = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "sparse_softmax_crossentropy",
        dtype: DType = None,
    ) -> None:
        class_weight = crossentropy.check_options(
            label_smoothing, class_weight, focal_gamma, z_loss
        )
        checks.id_tuple("ignore_class", ignore_class)
        super().__init__(
            axis=axis,
            label_smoothing=label_smoothing,
            class_weight=as_list(class_weight),
            focal_gamma=focal_gamma,
            z_loss=z_loss,
            ignore_class=as_list(ignore_class),
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_axis(self, y_pred):
        return checks.axis(self.axis, len(y_pred.shape))

    def blanks_rows(self, y_pred):
        return crossentropy.is_written_out(self.focal_gamma, y_pred)

    def call(self, y_true, y_pred):
        return ops.sparse_softmax_crossentropy(y_true, y_pred, **self.options)

    def row_mask(self, y_true, y_pred, weight):
        return crossentropy.rows_counted(
            y_true, y_pred.shape, self.row_axis(y_pred), self.ignore_class
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class SigmoidCrossentropy(RowLoss):
    """Cross-entropy of yes/no targets and logits.

    The loss of an output is `keras_xent.ops.sigmoid_crossentropy`, the loss of
    a row the mean over the outputs that are known:

    ```
    loss = q t̃ (1 − p)^γ (−log p) + (1 − t̃) p^γ (−log(1 − p))
    ```

    The model ends in a Dense layer *without* activation: its outputs are the
    logits, the log-odds of a yes.

    An output is not known where its target is one of `ignore_class`, its Keras
    mask is False or its weight is 0. It takes no part in its row's mean, and
    its gradient is 0. So every row counts alike, however much of it is known,
    as it does without gaps, and a row whose outputs are all ignored or masked
    counts in no mean. A row of which nothing is left but weights of 0 counts as
    a loss of 0, as rows of weight 0 do in Keras.

    Args:
        label_smoothing: ε in [0, 1): the share of every target that is spread
            over yes and no.
        pos_weight: q ≥ 0, the weight of a yes: a number, or one per output.
            `None` is 1.
        focal_gamma: γ ≥ 0, the focal exponent. 0 is the plain cross-entropy.
        ignore_class: A number, or a list of them, that stands for "not known",
            such as -1 or `float("nan")`.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per row.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` and `y_pred` have one shape, `(batch, ..., outputs)` or
        `(batch,)`; `(batch,)` beside `(batch, 1)` is the same rows. Weights and
        masks are one per output, or leave out trailing axes: `(batch,)` is one
        per row. The loss is in nats.

    Raises:
        ValueError: if an option is out of range; when called, if shapes differ
            (nothing is broadcast), logits are not floating point, or targets
            in host memory lie outside [0, 1].

    References:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), smoothing;
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), focal loss.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SigmoidCrossentropy(ignore_class=-1)
    >>> logits = np.array([[2.0, 1.0], [-2.0, 0.0]], "float32")
    >>> print(f"{float(loss(np.array([[1, -1], [0, -1]]), logits)):.4f}")
    0.1269
    """

    output_kind, label_kind = kinds.LOGITS, kinds.YES_NO

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        pos_weight: float | Sequence[float] | np.ndarray | None = None,
        focal_gamma: float = 0.0,
        ignore_class: float | Sequence[float] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "sigmoid_crossentropy",
        dtype: DType = None,
    ) -> None:
        sigmoid.check_options(label_smoothing, focal_gamma)
        sigmoid.check_pos_weight(pos_weight)
        sigmoid.ignored_values(ignore_class)
        super().__init__(
            label_smoothing=label_smoothing,
            pos_weight=as_list(pos_weight),
            focal_gamma=focal_gamma,
            ignore_class=as_list(ignore_class),
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_axis(self, y_pred):
        return -1 if len(y_pred.shape) > 1 else None

    def blanks_rows(self, y_pred):
        single = len(y_pred.shape) < 2
        return single or sigmoid.is_written_out(self.focal_gamma, y_pred)

    def call(self, y_true, y_pred):
        y_true = rows.match_rank(y_true, y_pred)
        if len(y_pred.shape) < 2:
            return ops.sigmoid_crossentropy(y_true, y_pred, **self.options)
        with full_precision():
            return sigmoid.row_means(y_true, y_pred, **self.options)

    def row_mask(self, y_true, y_pred, weight):
        known = known_outputs(y_true, y_pred, self.ignore_class)
        if known is None or len(known.shape) < 2:
            return known
        return keras.ops.any(known, axis=-1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        given = [x for x in (sample_weight, get_mask(y_pred)) if x is not None]
        if all(rows.of_rows(x, y_pred) for x in given):
            return super().__call__(y_true, y_pred, sample_weight)
        return _OfOutputs(self)(y_true, y_pred, sample_weight)


class _OfOutputs(RowLoss):
    """A `SigmoidCrossentropy` with weights or a mask of single outputs.

    It keeps the loss of each, which takes several times as long on PyTorch.
    """

    def __init__(self, loss):
        super().__init__(
            reduction=loss.reduction,
            name=loss.name,
            dtype=loss.dtype,
            **loss.options,
        )

    def row_axis(self, y_pred):
        return None  # Weights are of outputs; `_reduce` makes rows of them.

    def row_losses(self, y_true, y_pred, weight):
        y_true = rows.match_rank(y_true, y_pred)
        return ops.sigmoid_crossentropy(y_true, y_pred, **self.options)

    def row_mask(self, y_true, y_pred, weight):
        return known_outputs(y_true, y_pred, self.ignore_class)

    def _reduce(self, losses, weight, mask):
        return super()._reduce(*rows_of_outputs(losses, weight, mask))


def known_outputs(y_true, y_pred, ignore_class):
    """Which targets are none of the ignored ones; None where all count."""
    ignored = sigmoid.ignored_values(ignore_class)
    if not ignored:
        return None
    return sigmoid.is_known(rows.match_rank(y_true, y_pred), ignored)


def rows_of_outputs(losses, weight, mask):
    """Losses, weights and mask of rows, from those of their outputs.

    The loss is the mean over the outputs that count, by their weights, and the
    weight is the mean of these weights.
    """
    if len(losses.shape) < 2:
        return losses, weight, mask
    weighted = weight is not None
    if not weighted:
        weight = keras.ops.cast(mask, losses.dtype)
    elif mask is not None:
        weight = where(mask, weight, 0)
    weight = keras.ops.cast(weight, losses.dtype)
    losses = where(weight == 0, 0, weight * losses)
    count = keras.ops.sum(keras.ops.cast(weight != 0, losses.dtype), axis=-1)
    total = keras.ops.sum(weight, axis=-1)
    losses = keras.ops.sum(losses, axis=-1)
    losses = losses / where(count == 0, 1, total)
    weight = total / keras.ops.maximum(count, 1) if weighted else None
    mask = None if mask is None else keras.ops.any(mask, axis=-1)
    return losses, weight, mask
