"""What the losses on a `LinearHead` share: how they find its weights."""

import keras
import numpy as np

from keras_xent import _keras, heads
from keras_xent.losses import kinds
from keras_xent.losses.base import RowLoss, as_list, shallow_copy
from keras_xent.ops import checks, crossentropy, linear


class HeadLoss(RowLoss):
    """A loss on what a `keras_xent.layers.LinearHead` has returned.

    The loss finds the head by the tensor, so it holds no layer, and a saved
    model loads with one head, which goes on training. While `row_losses` runs,
    `_note` is the head's note, or None where `y_pred` are logits in a NumPy
    array, and `y_pred` are the features.

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
        self._note = None

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
        # A copy for this call: one loss may serve several heads.
        bound = shallow_copy(self)
        bound._note = note
        return super(HeadLoss, bound).__call__(y_true, y_pred, sample_weight)

    def row_mask(self, y_true, y_pred):
        if self.ignore_class is None:
            return None
        axis = len(y_pred.shape) - 1
        labels = crossentropy.integer_labels(y_true, y_pred.shape, axis)
        ignored = checks.id_tuple("ignore_class", self.ignore_class)
        return crossentropy.is_counted(labels, ignored)

    def linear_losses(self, y_true, features, **options):
        """The losses over all classes, and the `blockwise.Terms`."""
        return linear.losses_and_terms(
            y_true,
            features,
            **self._note.weights,
            ignore_class=self.ignore_class,
            **options,
        )

    def update_metrics(self, terms, y_true, y_pred, weight):
        """Adds the rows that count to the metrics of the head."""
        counted = self.row_mask(y_true, y_pred)
        if counted is not None:
            counted = keras.ops.cast(counted, "float32")
            weight = counted if weight is None else weight * counted
        self._note.head.update_metrics(terms, weight)

    def _check_logits(self, y_pred):
        """Raises on a tensor that could be features whose head is unknown."""
        if isinstance(y_pred, np.ndarray) or _keras.in_symbolic_scope():
            return
        raise ValueError(
            f"{type(self).__name__} takes what a keras_xent.layers.LinearHead "
            "has returned, as it is: it finds the weights by it. Received a "
            f"tensor of shape {tuple(np.shape(y_pred))} from elsewhere. Make "
            "the LinearHead the last layer of the model, with no activation, "
            "reshape or cast after it; for a model that returns logits use "
            "SparseSoftmaxCrossentropy."
        )
