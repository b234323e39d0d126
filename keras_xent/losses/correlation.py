"""Correlation losses: scores that rise and fall as the targets do."""

import keras
from keras import ops as keras_ops

from keras_xent import ops
from keras_xent._keras import get_mask, replicas
from keras_xent._types import DType, Reduction
from keras_xent.losses import kinds
from keras_xent.losses.base import BatchLoss
from keras_xent.ops import checks, rows
from keras_xent.ops.rank import check_temperature
from keras_xent.ops.select import where


class ListLoss(BatchLoss):
    """A loss that has one value per list of scores, not one per row.

    The entries of a list lie along `axis`. Along axis 0 the batch itself is the
    list, and has one loss, however many rows: every reduction but `"none"`
    returns it, or its mean or sum over the remaining axes. Along another axis
    every row holds a list of its own.

    A weight per entry is the entry's part in its list, and does not scale the
    loss. A weight per list, which lists along another axis than 0 may have,
    scales the loss of the list as in all of Keras. An entry that is masked or
    has weight 0 takes no part, and a list without entries has loss 0.
    """

    output_kind, label_kind = kinds.NUMBERS, kinds.NUMBERS

    def list_losses(self, y_true, y_pred, weight):
        """One loss per list; `weight` has the shape of `y_pred`."""
        raise NotImplementedError

    def call(self, y_true, y_pred):
        return self.list_losses(rows.match_rank(y_true, y_pred), y_pred, None)

    def __call__(self, y_true, y_pred, sample_weight=None):
        mask = get_mask(y_pred)
        with keras.name_scope(self.name):
            if not hasattr(y_pred, "shape"):
                y_pred = checks.tensor("y_pred", y_pred)
            checks.array("y_pred", y_pred)
            y_true = rows.match_rank(y_true, y_pred)
            axis = checks.axis(self.axis, len(y_pred.shape), "scores")
            of_lists = None
            if sample_weight is not None and axis != 0:
                sample_weight = checks.tensor("sample_weight", sample_weight)
                if not checks.fits(sample_weight.shape, y_pred.shape):
                    of_lists = rows.spread(sample_weight, y_pred, axis)
                    sample_weight = None
            weight, _, keep = rows.weights_and_mask(
                y_pred, None, sample_weight, mask
            )
            if weight is None:
                weight = keras_ops.ones_like(y_pred, dtype="float32")
            if keep is not None:
                weight = where(keep, weight, 0)
            everyone = None
            if self.across_replicas and axis == 0:
                own = y_pred, y_true, weight
                everyone = replicas(*own)
            if everyone is not None:
                # The list is one, and each replica computes it whole.
                y_pred, y_true, weight = map(everyone.gather, own)
            losses = self.list_losses(y_true, y_pred, weight)
            counted = keras_ops.any(weight != 0, axis=axis)
            if of_lists is not None:
                losses = where(of_lists == 0, 0, losses)
            losses = where(counted, losses, 0)
            loss = self._reduce(
                losses, of_lists, counted if mask is not None else None
            )
            if everyone is None:
                return loss
            return self.of_one_replica(loss, losses, everyone)

    def of_one_replica(self, loss, losses, everyone):
        if self.reduction in (None, "none"):
            return loss  # The list is one for all.
        return super().of_one_replica(loss, losses, everyone)


@keras.saving.register_keras_serializable(package="keras_xent")
class SpearmanLoss(ListLoss):
    """1 − Spearman's rank correlation, with soft ranks of the scores.

    The loss of a list is `keras_xent.ops.spearman_loss`:

    ```
    loss = 1 − ρ(average_rank(targets), soft_rank(scores, τ))
    ```

    Only the order of the targets counts: outliers and any rising function of
    them change nothing. The scores have that order afterwards, and no scale.

    Args:
        temperature: τ > 0, in the unit of the scores. `None` is 0.3 × their
            standard deviation, batch by batch.
        axis: The axis of the entries that are ranked among each other. 0 ranks
            the batch; with 1, every row is a list of its own.
        across_replicas: Whether along axis 0 the rows of all replicas are one
            list: TensorFlow's replicas, PyTorch's processes. Otherwise each has
            a list of its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the lists become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of lists that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per list. Along axis 0 the
            batch is one list, and its loss does not grow with the batch.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. Ranks and
            sums are float32 at least.

    Shapes:
        `y_true` holds numbers and `y_pred` scores, of one shape up to a last
        axis of 1: `(batch,)` or `(batch, 1)`; with more columns, each is ranked
        by itself. With `axis=1`, `(batch, entries)`. A sample weight per entry
        enters the correlation (2 is as good as the entry twice) and does not
        scale the loss; with `axis=1`, one per row scales the loss of the row.

    Raises:
        ValueError: as `keras_xent.ops.spearman_loss`.

    References:
        As `keras_xent.ops.spearman_loss`.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SpearmanLoss()
    >>> targets = np.array([3, 1, 900])
    >>> for scores in ([0.5, 0.2, 0.9], [0.5, 0.9, 0.2]):
    ...     print(f"{float(loss(targets, np.array(scores, 'float32'))):.2f}")
    0.00
    2.00
    """

    def __init__(
        self,
        *,
        temperature: float | None = None,
        axis: int = 0,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "spearman_loss",
        dtype: DType = None,
    ) -> None:
        check_temperature(temperature)
        checks.whole("axis", axis)
        super().__init__(
            temperature=temperature,
            axis=axis,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def list_losses(self, y_true, y_pred, weight):
        return ops.spearman_loss(
            y_true, y_pred, sample_weight=weight, **self.options
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class PearsonLoss(ListLoss):
    """1 − linear correlation of the scores with the targets.

    The loss of a list is `keras_xent.ops.pearson_loss`: what is left of the
    squared error once scale and offset of the scores are free.

    Args:
        axis: The axis of the entries of a list. 0 takes the batch for one
            list; with 1, every row is a list of its own.
        across_replicas: Whether along axis 0 the rows of all replicas are one
            list: TensorFlow's replicas, PyTorch's processes. Otherwise each has
            a list of its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the lists become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of lists that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per list.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        As in `SpearmanLoss`.

    Raises:
        ValueError: as `keras_xent.ops.pearson_loss`.

    References:
        As `keras_xent.ops.pearson_correlation`.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.PearsonLoss()
    >>> targets = np.array([3, 1, 900])
    >>> scores = np.array([0.5, 0.2, 0.9], "float32")
    >>> print(f"{float(loss(targets, scores)):.4f}")
    0.0950
    """

    def __init__(
        self,
        *,
        axis: int = 0,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "pearson_loss",
        dtype: DType = None,
    ) -> None:
        checks.whole("axis", axis)
        super().__init__(
            axis=axis,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def list_losses(self, y_true, y_pred, weight):
        return ops.pearson_loss(
            y_true, y_pred, sample_weight=weight, **self.options
        )
