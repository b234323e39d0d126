"""What all losses share: rows, weights, masks, reduction, configuration."""

import keras
import numpy as np
from keras import ops

from keras_xent._keras import get_mask, reduce_weighted_values
from keras_xent.losses import kinds
from keras_xent.ops import checks


class RowLoss(keras.losses.Loss):
    """A Keras loss with one value per row, in float32 at least.

    It differs from `keras.losses.Loss` in what reaches `call`:

    - labels keep their dtype: cast to bfloat16, class 257 becomes class 256;
    - predictions keep theirs, and the sums run in float32 at least; `dtype` is
      the dtype of the result;
    - rows whose weight is 0 or that are masked are blanked out before the loss
      is computed, so that an infinite or undefined loss there is 0, and its
      gradient too. Keras multiplies by 0 afterwards, and 0 · ∞ is NaN.

    The reduction is Keras's own.

    Args:
        reduction, name, dtype: As in `keras.losses.Loss`.
        **options: The configuration of the subclass: what is passed here is
            set as attributes and saved by `get_config`.
    """

    # What `keras_xent.diagnose` takes outputs and labels for.
    output_kind, label_kind = kinds.UNKNOWN, kinds.UNKNOWN

    def __init__(self, *, reduction, name, dtype, **options):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._names = tuple(options)
        for key, value in options.items():
            # A configuration is JSON, which knows no NumPy numbers.
            number = isinstance(value, np.generic)
            setattr(self, key, value.item() if number else value)

    @property
    def options(self):
        return {name: getattr(self, name) for name in self._names}

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype, **self.options}

    def row_axis(self, y_pred):
        """The axis of `y_pred` that `call` sums over; None if there is none."""
        return -1

    def row_losses(self, y_true, y_pred, weight):
        """One loss per row. `weight` is for losses in which rows interact."""
        return self.call(y_true, y_pred)

    def row_mask(self, y_true, y_pred):
        """Which rows count, for losses that leave some out by themselves."""
        return None

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = get_mask(y_pred)
        with keras.name_scope(self.name):
            if not hasattr(y_pred, "shape"):
                y_pred = ops.convert_to_tensor(y_pred)
            weight = None
            if sample_weight is None and mask is None:
                losses = self.row_losses(y_true, y_pred, None)
            else:
                axis = self.row_axis(y_pred)
                weight, mask, keep = rows_that_count(
                    y_pred, axis, sample_weight, mask
                )
                checks.int32_range(y_true)
                y_pred = ops.convert_to_tensor(y_pred)
                y_pred = blank(y_pred, keep, axis)
                y_true = blank(ops.convert_to_tensor(y_true), keep, axis)
                effective = 1 if weight is None else weight
                effective = ops.where(keep, effective, 0)
                losses = self.row_losses(
                    y_true, y_pred, ops.cast(effective, "float32")
                )
                losses = ops.where(keep, losses, 0)
            rows = self.row_mask(y_true, y_pred)
            if rows is not None:
                mask = rows if mask is None else mask & rows
            return self._reduce(losses, weight, mask)

    def _reduce(self, losses, weight, mask):
        loss = reduce_weighted_values(
            losses,
            sample_weight=weight,
            mask=mask,
            reduction=self.reduction,
            dtype=losses.dtype,
        )
        if self.reduction not in (None, "none") and len(loss.shape) > 0:
            # Keras, as of 3.16, does not reduce an empty batch (no upstream
            # issue found).
            loss = ops.sum(loss)
        if keras.backend.standardize_dtype(loss.dtype) == self.dtype:
            return loss
        return ops.cast(loss, self.dtype)


def shallow_copy(loss):
    """A loss with the attributes of another.

    `copy.copy` of a Keras loss writes it to a file in memory and reads it
    again: 5 ms, an import of TensorFlow on every backend, and an error for a
    loss without a configuration.
    """
    copied = object.__new__(type(loss))
    vars(copied).update(vars(loss))
    return copied


def match_rank(y_true, y_pred):
    """Gives `y_true` the rank of `y_pred` where they differ by a last axis 1.

    `(n,)` beside `(n, 1)` is how a yes/no label meets a Dense(1): the same
    rows, which would otherwise broadcast to (n, n).
    """
    if not hasattr(y_true, "shape"):
        y_true = np.asarray(y_true)
    if len(y_true.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:
        return y_true[..., None]
    if len(y_true.shape) == len(y_pred.shape) + 1 and y_true.shape[-1] == 1:
        return y_true[..., 0]
    return y_true


def as_list(value):
    """Arrays as plain numbers, which a configuration can hold."""
    return None if value is None else np.asarray(value).tolist()


def rows_that_count(y_pred, axis, sample_weight, mask):
    """Weight and mask in the shape of the rows, and which rows count."""
    weight = keep = None
    if sample_weight is not None:
        weight = ops.convert_to_tensor(sample_weight)
        weight = per_row(ops.cast(weight, "float32"), y_pred, axis)
        keep = weight != 0
    if mask is not None:
        mask = per_row(ops.cast(mask, "float32"), y_pred, axis) != 0
        keep = mask if keep is None else keep & mask
    return weight, mask, keep


def per_row(weight, y_pred, axis):
    """A weight or mask in the shape of the rows of `y_pred`."""
    shape, size = list(y_pred.shape), list(ops.shape(y_pred))
    if axis is not None:
        del shape[axis], size[axis]
    given = tuple(weight.shape)
    while len(weight.shape) > len(shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    while len(weight.shape) < len(shape):
        weight = ops.expand_dims(weight, -1)
    if not _spreads(weight.shape, shape):
        raise ValueError(
            f"`sample_weight` (or the Keras mask) must hold one number per "
            f"row, a shape that fits {tuple(shape)}. Received shape {given}."
        )
    # Not `broadcast_to`: Keras multiplies weights in place, which PyTorch
    # refuses for a tensor whose rows share their memory.
    return weight * ops.ones(size, dtype=weight.dtype)


def blank(x, keep, axis):
    """Zeros in the rows that do not count. A misfit is left for `call`."""
    if len(x.shape) == len(keep.shape) + 1:
        keep = ops.expand_dims(keep, -1 if axis is None else axis)
    if not _spreads(keep.shape, x.shape):
        return x
    return ops.where(keep, x, ops.zeros_like(x))


def _spreads(shape, other):
    """Whether a shape broadcasts to the other; None fits every size."""
    return len(shape) == len(other) and all(
        a == 1 or a is None or b is None or a == b
        for a, b in zip(shape, other, strict=True)
    )
