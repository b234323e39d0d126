"""What the losses on a head share: how they find its weights."""

import functools

import keras
import numpy as np

from keras_xent import _keras, heads
from keras_xent.losses import kinds
from keras_xent.losses.base import RowLoss, as_list
from keras_xent.ops import checks, crossentropy, linear


class HeadLoss(RowLoss):
    """A loss on what a `LinearHead` or a `CosineHead` has returned.

    The loss finds the head by the tensor, so it holds no layer, and a saved
    model loads with one head, which goes on training.

    Args:
        ignore_class: A class id, or a list of them: such rows have no loss and
            do not count in the mean.
        reduction, name, dtype, **options: As in `RowLoss`.
    """

    output_kind, label_kind = kinds.FEATURES, kinds.CLASS_IDS

    def __init__(self, *, ignore_class, reduction, name, dtype, **options):
        checks.id_tuple("ignore_class", ignore_class)
        super().__init__(
            ignore_class=as_list(ignore_class),
            reduction=reduction,
            name=name,
            dtype=dtype,
            **options,
        )

    def __call__(self, y_true, y_pred, sample_weight=None):
        note = heads.read_note(y_pred)
        if note is None:
            self._check_logits(y_pred)
        elif note.features is not None:
            # Where the step is compiled, nobody needs the logits any more.
            mask = _keras.get_mask(y_pred)
            y_pred = note.features
            if mask is not None:
                _keras.set_mask(y_pred, mask)
        # Bound to this call: one loss may serve several heads.
        row_losses = functools.partial(self.row_losses, note=note)
        total = None
        if note is not None and note.features is None:
            total = self.total_of(note)
        return self._apply(row_losses, y_true, y_pred, sample_weight, total)

    def row_losses(self, y_true, y_pred, weight, note=None):
        """One loss per row.

        `y_pred` are the features that the head of the `heads.Note` was called
        with; logits without a note.
        """
        raise NotImplementedError

    def total_of(self, note):
        """A faster way to the reduced loss in training, None for none.

        A function as `row_losses`, which is given what the reduction multiplies
        the loss of each row with as well, and returns their sum.
        """
        return None

    def row_mask(self, y_true, y_pred, weight):
        axis = len(y_pred.shape) - 1
        return crossentropy.rows_counted(
            y_true, y_pred.shape, axis, self.ignore_class
        )

    def linear_losses(self, note, y_true, features, logits, **options):
        """The losses over all classes, and the `reductions.Terms`."""
        return linear.losses_and_terms(
            y_true,
            features,
            **note.matrix,
            logits=logits,
            ignore_class=self.ignore_class,
            precision=self.products(note),
            all_terms=note.head.needs_all_terms,
            shards=note.shards,
            **options,
        )

    def products(self, note):
        """The precision of the products, the loss's or the head's."""
        return self.precision or note.head.precision

    def update_metrics(self, head, terms, y_true, y_pred, weight):
        """Adds the rows that count to the metrics of the head."""
        counted = self.row_mask(y_true, y_pred, weight)
        if counted is not None:
            counted = keras.ops.cast(counted, "float32")
            weight = counted if weight is None else weight * counted
        head.update_metrics(terms, weight)

    def _check_logits(self, y_pred):
        """Raises on a tensor that could be features whose head is unknown."""
        if isinstance(y_pred, np.ndarray) or _keras.in_symbolic_scope():
            return
        y_pred = checks.array("y_pred", y_pred)
        heads.check_not_copied(y_pred, self)
        raise ValueError(
            f"{type(self).__name__} takes what a keras_xent.layers.LinearHead "
            "or CosineHead has returned, as it is: it finds the weights by it. "
            f"Received a tensor of shape {tuple(y_pred.shape)} from "
            "elsewhere. Make the head the last layer of the model, with no "
            "activation, reshape or cast after it; for a model that returns "
            "logits use SparseSoftmaxCrossentropy."
        )
