"""Losses of a linear classifier over a sample of its classes."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_xent import ops
from keras_xent._types import ClassIds, DType, Reduction
from keras_xent.losses.base import as_list
from keras_xent.losses.head_loss import HeadLoss
from keras_xent.ops import checks, linear, reductions, rows, sampled, sampling
from keras_xent.ops.select import where

DISTRIBUTIONS = ("log_uniform", "uniform")


class SampledLoss(HeadLoss):
    """A loss over a sample in training, and over all classes otherwise.

    A subclass says which loss: `sampled_losses` is a function such as
    `ops.sampled.softmax_losses`. The arguments are those of
    `SampledSoftmaxCrossentropy`.
    """

    # An option of a subclass, or this.
    batch_classes = False

    def __init__(
        self,
        num_sampled,
        *,
        distribution,
        power,
        unique,
        remove_accidental_hits,
        subtract_log_q,
        ignore_class,
        precision,
        reduction,
        name,
        dtype,
        **options,
    ):
        linear.check_precision(precision)
        sampling.check_num_sampled(num_sampled)
        checks.number("power", power, 0)
        if remove_accidental_hits is not None:
            checks.flag("remove_accidental_hits", remove_accidental_hits)
        unique = checks.flag("unique", unique)
        named = isinstance(distribution, str)
        if not named and distribution is not None:
            # Of a wrong one it says so, before it is saved.
            counted = sampling.unigram_table(
                distribution, power, num_sampled, unique
            )
        elif distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"`distribution` must be one of {DISTRIBUTIONS}, or hold one "
                "non-negative number per class. Received: distribution="
                f"{distribution!r}"
            )
        super().__init__(
            num_sampled=num_sampled,
            distribution=distribution if named else as_list(distribution),
            power=power,
            unique=unique,
            remove_accidental_hits=remove_accidental_hits,
            subtract_log_q=checks.flag("subtract_log_q", subtract_log_q),
            ignore_class=ignore_class,
            precision=precision,
            reduction=reduction,
            name=name,
            dtype=dtype,
            **options,
        )
        self._counted = None if named else counted

    def _removes_hits(self):
        if self.remove_accidental_hits is None:
            return self.unique
        return self.remove_accidental_hits

    def row_losses(self, y_true, y_pred, weight, note=None):
        if note is None or note.features is not None:
            return self._over_all_classes(y_true, y_pred, weight, note)
        return self._over_a_sample(y_true, y_pred, weight, note)

    def row_mask(self, y_true, y_pred, weight):
        if self.ignore_class is not None and len(_columns(y_true, y_pred)) > 1:
            raise ValueError(
                "`ignore_class` goes with one label per row. Received labels "
                f"of shape {tuple(np.shape(y_true))}: give the rows to ignore "
                "a sample weight of 0."
            )
        return super().row_mask(y_true, y_pred, weight)

    def _over_a_sample(self, y_true, features, weight, note):
        units = note.head.units
        if note.seed is None:
            raise ValueError(
                f"{type(self).__name__} draws a sample in every training step, "
                "and this head draws no seed for it. Make it by "
                f"{type(note.head).__name__}({units}, sampled=True)."
            )
        ignored = checks.id_tuple("ignore_class", self.ignore_class)
        checks.label_range(y_true, units, ignored)
        counted = self.row_mask(y_true, features, weight)
        labels = checks.tensor("y_true", y_true)
        if counted is not None:
            labels, features = (
                rows.blank(x, counted, -1) for x in (labels, features)
            )
        labels = sampled.true_classes(labels, features.shape, units)
        losses = self.sampled_losses(
            labels,
            features,
            kernel=note.matrix.get("kernel"),
            class_vectors=note.matrix.get("class_vectors"),
            logits=note.logits,
            candidates=sampling.draw(labels, self._table(units), note.seed),
            remove_accidental_hits=self._removes_hits(),
            subtract_log_q=self.subtract_log_q,
            precision=self.products(note),
            batch_classes=self.batch_classes,
        )
        if counted is not None:
            losses = where(counted, losses, 0)
        # A sample knows neither the accuracy nor the perplexity.
        unknown = losses * np.nan
        terms = reductions.Terms(*[unknown for _ in reductions.Terms._fields])
        self.update_metrics(note.head, terms, y_true, features, weight)
        return losses

    def _over_all_classes(self, y_true, y_pred, weight, note):
        """The full softmax; the mean over the true classes of a row."""
        columns = _columns(y_true, y_pred)
        units = y_pred.shape[-1] if note is None else note.head.units
        sampled.check_several(len(columns), units)
        if note is None:
            losses = [
                ops.sparse_softmax_crossentropy(
                    labels, y_pred, ignore_class=self.ignore_class
                )
                for labels in columns
            ]
            return sum(losses) / len(losses)
        losses, terms = zip(
            *(
                self.linear_losses(note, labels, y_pred, note.logits)
                for labels in columns
            ),
            strict=True,
        )
        self.update_metrics(
            note.head, _of_all_labels(terms), y_true, y_pred, weight
        )
        return sum(losses) / len(losses)

    def _table(self, units):
        if self._counted is None:
            return sampling.named_table(
                self.distribution, units, self.num_sampled, self.unique
            )
        if self._counted.counts.size != units:
            raise ValueError(
                "`distribution` must hold one number per class. The head has "
                f"{units} classes, `distribution` holds "
                f"{self._counted.counts.size} numbers."
            )
        return self._counted


@keras.saving.register_keras_serializable(package="keras_xent")
class SampledSoftmaxCrossentropy(SampledLoss):
    """Softmax cross-entropy of a `LinearHead` over a sample of its classes.

    The loss of a row is `keras_xent.ops.sampled_softmax_crossentropy`, which
    has the formula:

    ```
    z_k  = logit_k − log E_k,      E_k how often class k is expected in a sample
    loss = −(1 / T) Σ_t log (exp(z_t) / (Σ_true exp(z) + Σ_sample exp(z)))
    ```

    Every training step draws a sample of its own, the same for all rows, and
    only the logits of the sample and the labels exist. The value in training is
    that of another objective, and no figure to report: in
    `evaluate`, and so for the validation loss, it is the full one, block by
    block as in `LinearCrossentropy`. The metrics of the head are NaN in
    training, for the same reason.

    The model ends in a `keras_xent.layers.LinearHead(…, sampled=True)`, which
    draws a seed for every step.

    Args:
        num_sampled: How many classes to draw, below the number of classes with
            `unique`.
        distribution: What to draw them by. `"log_uniform"` fits classes that
            are numbered from the most to the least frequent; `"uniform"`; or
            one non-negative number per class, such as how often it occurs. A
            label whose number is 0 makes the loss NaN.
        power: The power of such numbers; 0.75 as in word2vec.
        unique: Whether no class comes twice in a sample, as in
            `keras_xent.ops.log_uniform_sample`.
        remove_accidental_hits: Whether a class of the sample that is a true
            class of the row is left out of its sum. `None` is as `unique`:
            with replacement hits must stay, or frequent classes are learned as
            more frequent than they are, the more so the larger the sample.
        subtract_log_q: Whether to take off log E. Without, the model learns
            logits from which it is missing.
        batch_classes: Whether the sum also has the classes of the other rows
            of the batch, each once. With `distribution="uniform"`,
            `subtract_log_q=False` and a `CosineHead` it is Partial FC.
        ignore_class: A class id, or a list of them: such rows have no loss and
            do not count in the mean.
        precision: In what products of features and weights are made, as in
            `LinearCrossentropy`.
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
        taken for logits. `y_true` is `(batch, ...)`, or `(batch, ..., T)` for T
        true classes per row. The loss is in nats.

    Raises:
        ValueError: as the ops; if `distribution` is unknown, or does not fit
            the classes of the head; if `y_pred` is a tensor that no head
            returned, or one without `sampled=True`; if `ignore_class` is given
            and there are several true classes per row.

    References:
        [Jean et al., 2015](https://arxiv.org/abs/1412.2007); [An et al., 2022](
        https://arxiv.org/abs/2203.15565), Partial FC.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> head = keras_xent.layers.LinearHead(
    ...     1000, sampled=True, kernel_initializer="zeros"
    ... )
    >>> loss = keras_xent.losses.SampledSoftmaxCrossentropy(
    ...     10, distribution="uniform"
    ... )
    >>> labels, features = np.array([3, 7]), np.ones((2, 8), "float32")
    >>> print(f"{float(loss(labels, head(features))):.2f}")
    6.91
    >>> print(f"{float(loss(labels, head(features, training=True))):.2f}")
    2.40
    """

    sampled_losses = staticmethod(sampled.softmax_losses)

    def __init__(
        self,
        num_sampled: int,
        *,
        distribution: str | Sequence[float] | np.ndarray = "log_uniform",
        power: float = sampling.WORD2VEC_POWER,
        unique: bool = True,
        remove_accidental_hits: bool | None = None,
        subtract_log_q: bool = True,
        batch_classes: bool = False,
        ignore_class: ClassIds = None,
        precision: str | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "sampled_softmax_crossentropy",
        dtype: DType = None,
    ):
        super().__init__(
            num_sampled,
            distribution=distribution,
            power=power,
            unique=unique,
            remove_accidental_hits=remove_accidental_hits,
            subtract_log_q=subtract_log_q,
            batch_classes=checks.flag("batch_classes", batch_classes),
            ignore_class=ignore_class,
            precision=precision,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class NoiseContrastiveEstimation(SampledLoss):
    """Noise-contrastive estimation: tell the true class from a sample.

    The loss of a row is `keras_xent.ops.nce_loss`, which has the formula:

    ```
    loss = Σ_t H(1 / T, z_t) + Σ_sample H(0, z_k),   z_k = logit_k − log E_k
    H(p, z) = p softplus(−z) + (1 − p) softplus(z)
    ```

    In training it is a sum of `num_sampled` + T yes/no losses per row, of
    another size than the cross-entropy; in `evaluate` it is the full softmax
    cross-entropy, as with `SampledSoftmaxCrossentropy`, of which everything
    else that is said there holds.

    Args:
        num_sampled: How many classes to draw, below the number of classes with
            `unique`.
        distribution: What to draw them by. `"log_uniform"` fits classes that
            are numbered from the most to the least frequent; `"uniform"`; or
            one non-negative number per class, such as how often it occurs. A
            label whose number is 0 makes the loss NaN.
        power: The power of such numbers; 0.75 as in word2vec.
        unique: Whether no class comes twice in a sample, as in
            `keras_xent.ops.log_uniform_sample`.
        remove_accidental_hits: Whether a class of the sample that is a true
            class of the row is no noise to it. NCE proper leaves it in. `None`
            is as `unique`.
        subtract_log_q: Whether to take off log E. Without, the model learns
            logits from which it is missing.
        ignore_class: A class id, or a list of them: such rows have no loss and
            do not count in the mean.
        precision: In what products of features and weights are made, as in
            `LinearCrossentropy`.
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
        taken for logits. `y_true` is `(batch, ...)`, or `(batch, ..., T)` for T
        true classes per row. The loss is in nats.

    Raises:
        ValueError: as the ops; if `distribution` is unknown, or does not fit
            the classes of the head; if `y_pred` is a tensor that no head
            returned, or one without `sampled=True`; if `ignore_class` is given
            and there are several true classes per row.

    References:
        [Gutmann and Hyvärinen, 2010](
        https://proceedings.mlr.press/v9/gutmann10a.html);
        [Mnih and Teh, 2012](https://arxiv.org/abs/1206.6426).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> head = keras_xent.layers.LinearHead(
    ...     1000, sampled=True, kernel_initializer="zeros"
    ... )
    >>> loss = keras_xent.losses.NoiseContrastiveEstimation(10)
    >>> labels, features = np.array([3, 7]), np.ones((2, 8), "float32")
    >>> print(f"{float(loss(labels, head(features))):.2f}")
    6.91
    """

    sampled_losses = staticmethod(sampled.nce_losses)

    def __init__(
        self,
        num_sampled: int,
        *,
        distribution: str | Sequence[float] | np.ndarray = "log_uniform",
        power: float = sampling.WORD2VEC_POWER,
        unique: bool = True,
        remove_accidental_hits: bool | None = False,
        subtract_log_q: bool = True,
        ignore_class: ClassIds = None,
        precision: str | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "noise_contrastive_estimation",
        dtype: DType = None,
    ):
        super().__init__(
            num_sampled,
            distribution=distribution,
            power=power,
            unique=unique,
            remove_accidental_hits=remove_accidental_hits,
            subtract_log_q=subtract_log_q,
            ignore_class=ignore_class,
            precision=precision,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


def _of_all_labels(terms):
    """The terms of a row of several labels, of which any may be on top."""
    first, *others = terms
    gap, above = first.gap, first.above
    for other in others:
        gap = keras.ops.minimum(gap, other.gap)
        if above is not None:
            above = keras.ops.minimum(above, other.above)
    nll = sum(x.nll for x in terms) / len(terms)
    return first._replace(nll=nll, gap=gap, above=above)


def _columns(y_true, y_pred):
    """The labels of a row one by one; most have one."""
    if not hasattr(y_true, "shape"):
        y_true = checks.array("y_true", y_true)
    several = y_true.shape[-1] if len(y_true.shape) == len(y_pred.shape) else 1
    if several == 1:
        return [y_true]
    return [y_true[..., i] for i in range(several)]
