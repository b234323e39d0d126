"""How labels, predictions over classes, weights and masks line up."""

import typing

import numpy as np
from keras import ops

from keras_xent._keras import get_mask
from keras_xent.metrics.sums import SummedMetric
from keras_xent.ops import checks, crossentropy, probabilities, rows
from keras_xent.ops.probabilities import (
    check_distributions,
    class_probabilities,
    yes_probability,
)
from keras_xent.ops.select import where


class ClassRows(typing.NamedTuple):
    """Examples in rows, without gradient.

    Attributes:
        targets: Class ids `[n]`, int; distributions `[n, k]`; or, of yes/no
            predictions, the share of yes `[n]`, float.
        predictions: `[n, k]`, or `[n]` where the answer is yes or no. Float32
            at least; 0 in rows that weigh 0.
        weight: Float32 `[n]`: 0 for what is masked or ignored, NaN for what
            cannot be measured, because a weight is negative or infinite or a
            target is none.
    """

    targets: object
    predictions: object
    weight: object

    @property
    def binary(self):
        """Whether the answer is yes or no, one number per example."""
        return len(self.predictions.shape) == 1

    @property
    def sparse(self):
        """Whether the targets are class ids."""
        return not self.binary and len(self.targets.shape) == 1

    def one_hot(self):
        """The targets `[n, k]` as distributions."""
        if not self.sparse:
            return self.targets
        classes = ops.arange(self.predictions.shape[1], dtype="int32")
        ids = ops.cast(self.targets, "int32")
        hit = ids[:, None] == classes[None, :]
        return ops.cast(hit, self.predictions.dtype)

    def probabilities(self, from_logits):
        """The predictions as probabilities; NaN where they are none."""
        if self.binary:
            return yes_probability(self.predictions, from_logits)
        return class_probabilities(self.predictions, from_logits, axis=1)

    def weighted(self, values):
        """weight · values, in which 0 · ∞ and 0 · NaN are 0."""
        product = self.weight * ops.cast(values, "float32")
        return where(self.weight == 0, 0.0, product)


class ClassMetric(SummedMetric):
    """A metric that sums over rows of classes.

    Args:
        shape: The shape of the sums.
        axis: The axis of the classes.
        ignore_class: A class id, or a list of them: such rows do not count.
        name, dtype: As in `keras.metrics.Metric`.
        from_logits: Whether the predictions are logits; else probabilities.
    """

    def __init__(
        self, shape, axis, ignore_class, name, dtype, from_logits=True
    ):
        super().__init__(shape, name=name, dtype=dtype)
        self.from_logits = checks.flag("from_logits", from_logits)
        self.axis = axis
        ignored = checks.id_tuple("ignore_class", ignore_class)
        self.ignore_class = list(ignored) or None

    def rows(self, y_true, y_pred, sample_weight):
        """What `update_state` is given as `ClassRows`."""
        return class_rows(
            y_true,
            y_pred,
            sample_weight,
            self.axis,
            self.ignore_class,
            self.from_logits,
        )

    def add(self, amount, size):
        """Adds the rows of a batch to two sums."""
        self._sums.update_state(ops.stack([ops.sum(amount), ops.sum(size)]))

    def ratio(self):
        """The quotient of the two sums.

        NaN if nothing was counted, or more than float32 holds.
        """
        amount, size = ops.unstack(self._sums.result(), 2)
        return where(size < np.inf, amount / size, np.nan)

    def get_config(self):
        return {
            **super().get_config(),
            "axis": self.axis,
            "ignore_class": self.ignore_class,
        }


def class_rows(
    y_true,
    y_pred,
    sample_weight=None,
    axis=-1,
    ignore_class=None,
    from_logits=True,
):
    """The examples that a metric of classes counts.

    Args:
        y_true: Class ids of the shape of `y_pred` without `axis`, or with 1
            there; or distributions of the shape of `y_pred`. Beside one number
            per example, yes (1), no (0) or a share of it.
        y_pred: Float `(..., classes, ...)`; or one number per example, `(n,)`
            or with size 1 along `axis`, where the answer is yes or no.
        sample_weight: None, or weights as `rows.spread` takes them.
        axis: The axis of the classes.
        ignore_class: None, a class id, or several: such rows weigh 0.
        from_logits: Whether the predictions are logits; else probabilities.

    Returns:
        `ClassRows`.

    Raises:
        ValueError: If shapes or dtypes do not fit, or targets or probabilities
            in host memory are none, unless weights or a mask may leave them
            out.
    """
    mask = get_mask(y_pred)
    rows.known_rank("y_true", y_true)
    logits = ops.stop_gradient(checks.logits(y_pred, "y_pred"))
    on_host = sample_weight is None and mask is None
    ignored = checks.id_tuple("ignore_class", ignore_class)
    last = len(logits.shape) - 1
    axis = checks.axis(axis, last + 1)
    if on_host and not from_logits:
        several = last > 0 and logits.shape[axis] != 1
        check_distributions("y_pred", y_pred, axis if several else None)
    if last == 0 or logits.shape[axis] == 1:
        if ignored:
            raise ValueError(
                "`ignore_class` is for class ids. Predictions of shape "
                f"{tuple(logits.shape)} are one yes/no answer per example: "
                "leave examples out by a weight of 0."
            )
        places = ops.squeeze(logits, axis) if last else logits
        targets, possible = _flags(y_true, places, axis, on_host)
        logits = ops.reshape(logits, (-1,))
    else:
        count = checks.classes(logits.shape, axis)
        if count is None:
            raise ValueError(
                "The number of classes must be known when the metric is "
                f"called. Received y_pred of shape {tuple(logits.shape)}, "
                f"axis={axis}."
            )
        targets, possible = _targets(y_true, logits, axis, ignored, on_host)
        if axis != last:
            logits = ops.moveaxis(logits, axis, -1)
        places = logits[..., 0]
        logits = ops.reshape(logits, (-1, count))
    weight = ops.reshape(rows.full_weight(sample_weight, mask, places), (-1,))
    counted = crossentropy.is_counted(targets, ignored)
    if counted is not None:
        weight = where(counted, weight, 0.0)
    keep = weight != 0
    good = possible & (weight > 0) & (weight < np.inf)
    weight = where(keep, where(good, weight, np.nan), 0.0)
    one_each = targets if len(targets.shape) == 1 else targets[:, 0]
    weight = checks.sizes_agree(weight, one_each, weight)
    return ClassRows(
        rows.blank(targets, good, None), rows.blank(logits, keep, None), weight
    )


def _flags(y_true, like, axis, on_host):
    """Shares of yes `[n]`, and which of them are possible."""
    if on_host:
        cure = "For class ids, give one logit per class."
        checks.zero_to_one("y_true", y_true, cure)
    targets = checks.tensor("y_true", y_true)
    if len(targets.shape) == len(like.shape) + 1 and targets.shape[axis] == 1:
        targets = ops.squeeze(targets, axis)
    checks.same_shape("y_true", targets.shape, "y_pred", like.shape)
    targets = ops.reshape(ops.cast(targets, like.dtype), (-1,))
    targets = ops.stop_gradient(targets)
    return targets, (targets >= 0) & (targets <= 1)


def _targets(y_true, logits, axis, ignored, on_host):
    """Class ids `[n]` or distributions `[n, k]`, and which are possible."""
    y_true = checks.array("y_true", y_true)
    count = logits.shape[axis]
    dense = len(y_true.shape) == len(logits.shape) and y_true.shape[axis] != 1
    if not dense:
        if on_host:
            checks.label_range(y_true, count, ignored)
        else:
            checks.int32_range(y_true)
        labels = crossentropy.integer_labels(y_true, logits.shape, axis)
        labels = ops.reshape(labels, (-1,))
        return labels, (labels >= 0) & (labels < count)
    if ignored:
        raise ValueError(
            "`ignore_class` is for class ids, and y_true of shape "
            f"{tuple(y_true.shape)} holds distributions: leave examples out by "
            "a weight of 0."
        )
    if not on_host:
        y_true = ops.convert_to_tensor(y_true)
    targets = ops.stop_gradient(crossentropy.distribution(y_true, logits, axis))
    if axis != len(logits.shape) - 1:
        targets = ops.moveaxis(targets, axis, -1)
    targets = ops.reshape(targets, (-1, count))
    return targets, probabilities.is_distribution(targets, -1)
