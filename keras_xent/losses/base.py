"""What all losses share: rows, weights, masks, reduction, configuration."""

import keras
import numpy as np
from keras import ops

from keras_xent._keras import (
    get_mask,
    reduce_weighted_values,
    replicas,
    scale_loss_for_distribution,
)
from keras_xent.losses import kinds
from keras_xent.ops import checks, rows
from keras_xent.ops.blocks import some_rows
from keras_xent.ops.dtypes import cast, sums_dtype
from keras_xent.ops.select import where


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

    # Whether the rows of all replicas are one batch: see `BatchLoss`.
    across_replicas = False

    def __init__(self, *, reduction, name, dtype, **options):
        if not isinstance(reduction, str | None):
            # Keras looks for it in a set, where some things cannot be.
            raise ValueError(
                "`reduction` must be the name of one, or None. Received: "
                f"reduction={reduction!r}"
            )
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
        """The axis of `y_pred` that `call` sums over; None if there is none.

        A slice of all but the first where a row is all of an example.
        """
        return -1

    def blanks_rows(self, y_pred):
        """Whether rows that do not count must be zeros for `row_losses`.

        Else such a row has no gradient whatever it holds, since that of its
        loss is 0. It takes a pass over predictions and labels to blank them.
        """
        return True

    def row_losses(self, y_true, y_pred, weight):
        """One loss per row. `weight` is for losses in which rows interact."""
        return self.call(y_true, y_pred)

    def row_mask(self, y_true, y_pred, weight):
        """Which rows count, for losses that leave some out by themselves.

        `weight` is 0 where a row is masked or weighs nothing, or None.
        """
        return None

    def __call__(self, y_true, y_pred, sample_weight=None):
        return self._apply(self.row_losses, y_true, y_pred, sample_weight)

    def _apply(self, row_losses, y_true, y_pred, sample_weight, total=None):
        """The reduced loss, from a function as `row_losses` is one.

        `total` is a faster way to it where the losses of the rows become one
        number: given what they are multiplied with as well, it adds them up.
        """
        mask = get_mask(y_pred)
        rows.known_rank("y_true", y_true)
        with keras.name_scope(self.name):
            if not hasattr(y_pred, "shape"):
                y_pred = checks.tensor("y_pred", y_pred)
            checks.array("y_pred", y_pred)
            weight, keep, effective = None, None, None
            everyone, given = None, y_true
            if sample_weight is not None or mask is not None:
                axis = self.row_axis(y_pred)
                weight, mask, keep = rows.weights_and_mask(
                    y_pred, axis, sample_weight, mask
                )
                checks.int32_range(y_true)
                y_pred = checks.tensor("y_pred", y_pred)
                y_true = checks.tensor("y_true", y_true)
                given = y_true
                if self.blanks_rows(y_pred):
                    y_pred = rows.blank(y_pred, keep, axis)
                    y_true = rows.blank(y_true, keep, axis)
            if self.across_replicas:
                checks.exact_ids(y_true)
                own = y_pred, y_true, weight, mask
                everyone = replicas(*own)
            if everyone is not None:
                # From here on all have all rows, but the losses of their own.
                y_pred, y_true, weight, mask = map(everyone.gather, own)
                given = y_true
                keep = rows.kept(weight, mask)
            if keep is not None:
                effective = ops.cast(keep, "float32")
                if weight is not None:
                    effective = where(keep, weight, 0)
            if self.reduction in (None, "none") or len(y_pred.shape) < 2:
                total = None
            if everyone is not None:
                losses = row_losses(
                    y_true, y_pred, effective, rows=everyone.rows
                )
                losses = everyone.gather(losses)
            elif total is None:
                losses = row_losses(y_true, y_pred, effective)
            if total is None and keep is not None:
                losses = where(keep, losses, 0)
            # Of the labels that were given: a blank one may be a class that is
            # ignored, and a row of weight 0 counts.
            counted = self.row_mask(given, y_pred, effective)
            if counted is not None:
                mask = counted if mask is None else mask & counted
            if total is None:
                loss = self._reduce(losses, weight, mask)
                if everyone is None:
                    return loss
                return self.of_one_replica(loss, losses, everyone)
            dtype = sums_dtype(y_pred.dtype)
            ones = ops.ones_like(y_pred[..., 0], dtype=dtype)
            scales = self._row_scales(ones, weight, mask)
            loss = total(y_true, y_pred, effective, row_weights=scales)
            return ops.cast(loss, self.dtype)

    def _row_scales(self, ones, weight, mask):
        """What the reduction multiplies the loss of each row with.

        `ones` is a loss of 1 for each row.
        """
        if weight is not None:
            weight = ops.cast(weight, ones.dtype)
        scales = ones if weight is None else weight
        if mask is not None:
            scales = scales * ops.cast(mask, ones.dtype)
        # By absolute values: weights may cancel, and be divided by all the same
        # by how many there are.
        signed = self.reduction == "mean_with_sample_weight" or weight is None
        sizes = scales if signed else abs(scales)
        of_ones = reduce_weighted_values(
            ones,
            sample_weight=weight if signed else abs(weight),
            mask=mask,
            reduction=self.reduction,
            dtype=ones.dtype,
        )
        all_of_them = ops.sum(sizes)
        some = all_of_them != 0
        factor = ops.sum(of_ones) / where(some, all_of_them, 1)
        return scales * where(some, factor, 0)

    def _reduce(self, losses, weight, mask):
        if weight is None and mask is None and self._is_mean(losses):
            # What Keras does, without the operations that ask for the size:
            # half the time of an eager call on PyTorch. The tensor's own mean,
            # where it has one, takes a third of the time of that of Keras.
            has_mean = hasattr(losses, "mean")
            mean = losses.mean() if has_mean else ops.mean(losses)
            loss = scale_loss_for_distribution(mean)
            return cast(loss, self.dtype)
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
        return cast(loss, self.dtype)

    def _is_mean(self, losses):
        """Whether the loss is the mean of some losses, of a known number."""
        if len(losses.shape) == 0 or None in losses.shape:
            return False
        empty = 0 in losses.shape
        return not empty and self.reduction not in (None, "none", "sum")


class BatchLoss(RowLoss):
    """A loss in which the rows of a batch meet.

    With `across_replicas`, those of all replicas do. Each has the loss of the
    whole batch then, so that the mean of their gradients is the gradient of it:
    trainers take that mean. With `reduction="none"` each has its own rows.

    Args:
        across_replicas: Whether the rows of all replicas are one batch.
        **options: As in `RowLoss`. Its `row_losses` takes `rows=None`, those
            whose losses are wanted, too.
    """

    def __init__(self, *, across_replicas=False, **options):
        super().__init__(**options)
        self.across_replicas = checks.flag("across_replicas", across_replicas)

    def of_one_replica(self, loss, losses, everyone):
        """What one replica has of the reduced `loss` of the rows of all."""
        if self.reduction in (None, "none"):
            return some_rows(loss, everyone.rows)
        reduced = len(losses.shape) > 0
        return everyone.scaled(loss, self.reduction == "sum" or not reduced)

    def get_config(self):
        return {
            **super().get_config(),
            "across_replicas": self.across_replicas,
        }


def as_list(value):
    """Arrays as plain numbers, which a configuration can hold."""
    if value is None or isinstance(value, dict):
        return value
    return np.asarray(value).tolist()
