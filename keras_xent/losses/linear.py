"""Cross-entropy of a linear classifier whose logits never exist."""

import copy

import keras
import numpy as np
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from keras_xent import heads, masking, ops
from keras_xent.losses.base import RowLoss, as_list
from keras_xent.ops import checks, crossentropy, linear


@keras.saving.register_keras_serializable(package="keras_xent")
class LinearCrossentropy(RowLoss):
    """Cross-entropy of integer labels and a `LinearHead`, without the logits.

    The loss of a row is `keras_xent.ops.linear_softmax_crossentropy`, which has
    the formula:

    ```
    loss = Σ_k w_k t̃_k (−log p_k) + z · lse²
    ```

    It equals `SparseSoftmaxCrossentropy` of the head's logits, but of
    `[rows, classes]` logits only a block at a time exists, in `fit` on every
    backend and, where the step is compiled, in `evaluate`.

    The model ends in a `keras_xent.layers.LinearHead`. The loss finds the head
    by the tensor that it returned, so it holds no layer, and a saved model
    loads with one head, which goes on training.

    Args:
        ignore_class: A class id, or a list of them: such rows have no loss and
            do not count in the mean.
        label_smoothing: ε in [0, 1), spread evenly over the classes.
        class_weight: A vector of one non-negative number per class.
        z_loss: The weight z ≥ 0 of the squared log Σ exp(logits).
        softcap: c > 0 keeps the logits within ±c. Better given to the head,
            whose predictions keep to it as well; `None` takes the head's.
        block_size: The number of classes in a block. `None` chooses.
        reduction: As in `keras.losses.Loss`.
        name: The name of the loss.
        dtype: The dtype of the result. The sums run in float32 at least.

    Shapes:
        `y_pred` is what a `LinearHead` returned, features `(batch, ..., d)` in
        training and logits `(batch, ..., classes)` otherwise; a NumPy array is
        taken for logits. `y_true` is `(batch, ...)` or `(batch, ..., 1)`. The
        loss is in nats.

    Raises:
        ValueError: as `keras_xent.ops.linear_softmax_crossentropy`; if `y_pred`
            is a tensor that no head returned; if head and loss have different
            soft caps.

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
        ignore_class=None,
        label_smoothing=0.0,
        class_weight=None,
        z_loss=0.0,
        softcap=None,
        block_size=None,
        reduction="sum_over_batch_size",
        name="linear_crossentropy",
        dtype=None,
    ):
        linear.check_options(label_smoothing, class_weight, z_loss, softcap)
        linear.check_block_size(block_size)
        checks.id_tuple("ignore_class", ignore_class)
        super().__init__(
            ignore_class=as_list(ignore_class),
            label_smoothing=label_smoothing,
            class_weight=as_list(class_weight),
            z_loss=z_loss,
            softcap=softcap,
            block_size=block_size,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
        self._note = None

    def __call__(self, y_true, y_pred, sample_weight=None):
        note = heads.read_note(y_pred)
        if note is None:
            _check_logits(y_pred)
        elif note.features is not None:
            # Where the step is compiled, nobody needs the logits any more.
            mask = masking.get_keras_mask(y_pred)
            y_pred = note.features
            if mask is not None:
                masking.set_keras_mask(y_pred, mask)
        # A copy for this call: one loss may serve several heads.
        bound = copy.copy(self)
        bound._note = note
        return super(LinearCrossentropy, bound).__call__(
            y_true, y_pred, sample_weight
        )

    def row_losses(self, y_true, y_pred, weight):
        if self._note is None:
            return self._of_logits(y_true, y_pred)
        head = self._note.head
        losses, terms = linear.losses_and_terms(
            y_true,
            y_pred,
            **self._note.weights,
            **{**self.options, "softcap": self._softcap(head)},
        )
        counted = self.row_mask(y_true, y_pred)
        if counted is not None:
            counted = keras.ops.cast(counted, "float32")
            weight = counted if weight is None else weight * counted
        head.update_metrics(terms, weight)
        return losses

    def row_mask(self, y_true, y_pred):
        if self.ignore_class is None:
            return None
        axis = len(y_pred.shape) - 1
        labels = crossentropy.integer_labels(y_true, y_pred.shape, axis)
        ignored = checks.id_tuple("ignore_class", self.ignore_class)
        return crossentropy.is_counted(labels, ignored)

    def _of_logits(self, y_true, logits):
        options = dict(self.options)
        del options["block_size"]
        softcap = options.pop("softcap")
        if softcap is not None:
            logits = softcap * keras.ops.tanh(logits / softcap)
        return ops.sparse_softmax_crossentropy(y_true, logits, **options)

    def _softcap(self, head):
        given = {self.softcap, head.softcap} - {None}
        if len(given) > 1:
            raise ValueError(
                f"The head has softcap={head.softcap}, the loss "
                f"softcap={self.softcap}. Give it to the head only."
            )
        return given.pop() if given else None


def _check_logits(y_pred):
    """Raises on a tensor that could be features whose head is unknown."""
    if isinstance(y_pred, np.ndarray) or in_symbolic_scope():
        return
    raise ValueError(
        "LinearCrossentropy takes what a keras_xent.layers.LinearHead has "
        "returned, as it is: it finds the weights by it. Received a tensor of "
        f"shape {tuple(np.shape(y_pred))} from elsewhere. Make the LinearHead "
        "the last layer of the model, with no activation, reshape or cast "
        "after it; for a model that returns logits use "
        "SparseSoftmaxCrossentropy."
    )
