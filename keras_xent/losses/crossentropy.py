"""Cross-entropy losses that take logits, always."""

import keras

from keras_xent import ops
from keras_xent.losses import kinds
from keras_xent.losses.base import RowLoss, as_list, match_rank
from keras_xent.ops import checks, crossentropy


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
        axis: The axis of the classes.
        label_smoothing: ε in [0, 1), spread evenly over the classes.
        class_weight: A vector of one non-negative number per class.
        focal_gamma: The focal exponent γ ≥ 0.
        z_loss: The weight z ≥ 0 of the squared log Σ exp(logits).
        reduction: As in `keras.losses.Loss`.
        name: The name of the loss.
        dtype: The dtype of the result. The sums run in float32 at least.

    Shapes:
        `y_true` and `y_pred` have one shape, `(batch, ..., classes)`; the loss
        is in nats.

    Raises:
        ValueError: as `keras_xent.ops.softmax_crossentropy`.

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
        axis=-1,
        label_smoothing=0.0,
        class_weight=None,
        focal_gamma=0.0,
        z_loss=0.0,
        reduction="sum_over_batch_size",
        name="softmax_crossentropy",
        dtype=None,
    ):
        crossentropy.check_options(
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
        axis: The axis of the classes.
        label_smoothing: ε in [0, 1), spread evenly over the classes.
        class_weight: A vector of one non-negative number per class.
        focal_gamma: The focal exponent γ ≥ 0.
        z_loss: The weight z ≥ 0 of the squared log Σ exp(logits).
        ignore_class: A class id, or a list of them: such rows have no loss and
            do not count in the mean.
        reduction: As in `keras.losses.Loss`.
        name: The name of the loss.
        dtype: The dtype of the result. The sums run in float32 at least.

    Shapes:
        `y_pred` is `(batch, ..., classes)`, `y_true` is `(batch, ...)` or
        `(batch, ..., 1)`; the loss is in nats.

    Raises:
        ValueError: as `keras_xent.ops.sparse_softmax_crossentropy`. A label
            that does not exist and is already on a device makes the loss NaN.

    References:
        As `SoftmaxCrossentropy`.

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
        axis=-1,
        label_smoothing=0.0,
        class_weight=None,
        focal_gamma=0.0,
        z_loss=0.0,
        ignore_class=None,
        reduction="sum_over_batch_size",
        name="sparse_softmax_crossentropy",
        dtype=None,
    ):
        crossentropy.check_options(
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

    def call(self, y_true, y_pred):
        return ops.sparse_softmax_crossentropy(y_true, y_pred, **self.options)

    def row_mask(self, y_true, y_pred):
        if self.ignore_class is None:
            return None
        axis = checks.axis(self.axis, len(y_pred.shape))
        labels = crossentropy.integer_labels(y_true, y_pred.shape, axis)
        ignored = checks.id_tuple("ignore_class", self.ignore_class)
        return crossentropy.is_counted(labels, ignored)


@keras.saving.register_keras_serializable(package="keras_xent")
class SigmoidCrossentropy(RowLoss):
    """Cross-entropy of yes/no targets and logits.

    The loss of a row is the mean of `keras_xent.ops.sigmoid_crossentropy` over
    its last axis:

    ```
    loss = q t̃ (1 − p)^γ (−log p) + (1 − t̃) p^γ (−log(1 − p))
    ```

    The model ends in a Dense layer *without* activation: its outputs are the
    logits, the log-odds of a yes.

    Args:
        label_smoothing: ε in [0, 1).
        pos_weight: The weight q of a yes: a number, or one per output.
        focal_gamma: The focal exponent γ ≥ 0.
        reduction: As in `keras.losses.Loss`.
        name: The name of the loss.
        dtype: The dtype of the result. The sums run in float32 at least.

    Shapes:
        `y_true` and `y_pred` have one shape, `(batch, ..., outputs)` or
        `(batch,)`; `(batch,)` beside `(batch, 1)` is the same rows. The loss
        is in nats.

    Raises:
        ValueError: as `keras_xent.ops.sigmoid_crossentropy`.

    References:
        As `SoftmaxCrossentropy`.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SigmoidCrossentropy()
    >>> logits = np.array([[2.0], [-2.0]], "float32")
    >>> print(f"{float(loss(np.array([1, 0]), logits)):.4f}")
    0.1269
    """

    output_kind, label_kind = kinds.LOGITS, kinds.YES_NO

    def __init__(
        self,
        *,
        label_smoothing=0.0,
        pos_weight=None,
        focal_gamma=0.0,
        reduction="sum_over_batch_size",
        name="sigmoid_crossentropy",
        dtype=None,
    ):
        crossentropy.check_options(label_smoothing, None, focal_gamma, 0)
        crossentropy.check_pos_weight(pos_weight)
        super().__init__(
            label_smoothing=label_smoothing,
            pos_weight=as_list(pos_weight),
            focal_gamma=focal_gamma,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_axis(self, y_pred):
        return -1 if len(y_pred.shape) > 1 else None

    def call(self, y_true, y_pred):
        losses = ops.sigmoid_crossentropy(
            match_rank(y_true, y_pred), y_pred, **self.options
        )
        if len(losses.shape) < 2:
            return losses
        count = keras.ops.shape(losses)[-1]
        return keras.ops.sum(losses, axis=-1) / keras.ops.cast(
            count, losses.dtype
        )
