"""Cross-entropy of a linear classifier whose logits never exist."""

import dataclasses
import functools

import keras

from keras_xent import ops
from keras_xent._types import ClassIds, ClassWeight, DType, Reduction
from keras_xent.losses.base import as_list
from keras_xent.losses.head_loss import HeadLoss
from keras_xent.ops import checks, crossentropy, linear
from keras_xent.ops.logits import LinearLogits


@keras.saving.register_keras_serializable(package="keras_xent")
class LinearCrossentropy(HeadLoss):
    """Cross-entropy of integer labels and a `LinearHead`, without the logits.

    The loss of a row is `keras_xent.ops.linear_softmax_crossentropy`, which has
    the formula:

    ```
    loss = Σ_k w_k t̃_k (−log p_k) + z · lse²
    ```

    It equals `SparseSoftmaxCrossentropy` of the head's logits, but of
    `[rows, classes]` logits only a block at a time exists, in `fit` on every
    backend and, where the step is compiled, in `evaluate`.

    The model ends in a `keras_xent.layers.LinearHead`, or a `CosineHead`, whose
    logits are cosines with a margin. The loss finds the head
    by the tensor that it returned, so it holds no layer, and a saved model
    loads with one head, which goes on training.

    Args:
        ignore_class: A class id, or a list of them: such rows have no loss and
            do not count in the mean.
        label_smoothing: ε in [0, 1), spread evenly over the classes.
        class_weight: One non-negative number per class, or a dict from class
            ids to such numbers, as `fit` takes it; a class that is not in it
            weighs 1. The mean stays one over the number of rows, as in `fit`.
        z_loss: The weight z ≥ 0 of the squared log Σ exp(logits).
        softcap: c > 0 keeps the logits within ±c. Better given to the head,
            whose predictions keep to it as well; `None` takes the head's.
        precision: In what products of features and weights are made. `None` is
            as the head has it: the dtype of the features, or that of
            `torch.autocast` where it is on. `"float32"` makes them in float32
            at least.
        block_size: The number of classes in a block, or of rows where the
            gradients are made in the forward pass. `None` chooses it: 8 MB of
            logits on a CPU, but not fewer than 256 classes, and a few hundred
            on a GPU.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per row.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_pred` is what a `LinearHead` returned, features `(batch, ..., d)` in
        training and logits `(batch, ..., classes)` otherwise; a NumPy array is
        taken for logits. `y_true` is `(batch, ...)` or `(batch, ..., 1)`. The
        loss is in nats.

    Raises:
        ValueError: as `keras_xent.ops.linear_softmax_crossentropy`; if `y_pred`
            is a tensor that no head returned; if head and loss have different
            soft caps, or the head is a `CosineHead` and the loss has one.

    References:
        [Wijmans et al., 2024](https://arxiv.org/abs/2411.09009), Cut
        Cross-Entropy.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> head = keras_xent.layers.LinearHead(4, kernel_initializer="zeros")
    >>> loss = keras_xent.losses.LinearCrossentropy()
    >>> features = head(np.ones((3, 2), "float32"), training=True)
    >>> print(f"{float(loss(np.array([0, 1, 3]), features)):.4f}")
    1.3863
    """

    def __init__(
        self,
        *,
        ignore_class: ClassIds = None,
        label_smoothing: float = 0.0,
        class_weight: ClassWeight = None,
        z_loss: float = 0.0,
        softcap: float | None = None,
        precision: str | None = None,
        block_size: int | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "linear_crossentropy",
        dtype: DType = None,
    ):
        class_weight = crossentropy.check_options(
            label_smoothing, class_weight, 0.0, z_loss
        )
        linear.check_softcap(softcap)
        linear.check_precision(precision)
        linear.check_block_size(block_size)
        super().__init__(
            ignore_class=ignore_class,
            label_smoothing=label_smoothing,
            class_weight=as_list(class_weight),
            z_loss=z_loss,
            softcap=softcap,
            precision=precision,
            block_size=block_size,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_losses(self, y_true, y_pred, weight, note=None):
        if note is None:
            options = dict(self.options)
            for name in ("softcap", "precision", "block_size"):
                del options[name]
            logits = checks.logits(y_pred)
            logits = LinearLogits(softcap=self.softcap).dense(logits)
            return ops.sparse_softmax_crossentropy(y_true, logits, **options)
        return self._of_features(y_true, y_pred, weight, note)

    def total_of(self, note):
        return functools.partial(self._of_features, note=note, summed=True)

    def _of_features(self, y_true, y_pred, weight, note, **how):
        losses, terms = self.linear_losses(
            note,
            y_true,
            y_pred,
            self._logits(note),
            label_smoothing=self.label_smoothing,
            class_weight=self.class_weight,
            z_loss=self.z_loss,
            block_size=self.block_size,
            **how,
        )
        self.update_metrics(note.head, terms, y_true, y_pred, weight)
        return losses

    def _logits(self, note):
        if self.softcap is None:
            return note.logits
        if not isinstance(note.logits, LinearLogits):
            raise ValueError(
                f"The logits of a {type(note.head).__name__} are between "
                "±scale and have no soft cap. Received a loss with softcap="
                f"{self.softcap}: leave it out."
            )
        if note.head.softcap not in (None, self.softcap):
            raise ValueError(
                f"The head has softcap={note.head.softcap}, the loss "
                f"softcap={self.softcap}. Give it to the head only."
            )
        return dataclasses.replace(note.logits, softcap=self.softcap)
