"""Losses over all pairs of a batch: what belongs together is alike."""

import functools
import typing

import keras

from keras_xent import heads, ops
from keras_xent._types import DType, Reduction
from keras_xent.losses.embedding_loss import EmbeddingLoss, PartnerLoss
from keras_xent.ops import checks, contrastive, linear
from keras_xent.ops.temperature import check_temperature


class ContrastiveLoss(EmbeddingLoss):
    """A loss on the embeddings of a batch, or on what a head made of them.

    The loss finds a `keras_xent.layers.SimilarityHead` by the tensor that it
    returned, so it holds no layer and no variable. A row is an example with all
    of its views.

    Args:
        temperature: T > 0, or None for the head's, and `usual` without one.
        precision, block_size, reduction, name, dtype, **options: As in
            `SupervisedContrastive`.
    """

    distance = "cosine"

    # The temperature where neither the loss nor a head has one.
    usual: typing.ClassVar[float]

    # The options that a head may have instead.
    may_be_of_head: typing.ClassVar[tuple[str, ...]] = ("temperature",)

    def __init__(
        self,
        *,
        temperature,
        precision,
        block_size,
        reduction,
        name,
        dtype,
        **options,
    ):
        if temperature is not None:
            check_temperature(temperature)
        linear.check_precision(precision)
        linear.check_block_size(block_size)
        super().__init__(
            temperature=temperature,
            **options,
            precision=precision,
            block_size=block_size,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def __call__(self, y_true, y_pred, sample_weight=None):
        note = heads.read_note(y_pred, heads.SimilarityNote)
        if note is None:
            self._check_not_copied(y_pred)
        # Bound to this call: one loss may serve several heads.
        row_losses = functools.partial(self.row_losses, note=note)
        return self._apply(row_losses, y_true, y_pred, sample_weight)

    def row_losses(self, y_true, y_pred, weight, rows=None, note=None):
        if weight is not None:
            # The reduction multiplies with the weight; here 0 is absent.
            weight = keras.ops.cast(weight != 0, "float32")
        return self.op(
            y_true,
            y_pred,
            sample_weight=weight,
            rows=rows,
            **{**self.options, **self.of_head(note)},
        )

    def of_head(self, note):
        """The options that the head has, or else their usual values."""
        if note is None or note.log_scale is None:
            usual = self.usual if self.temperature is None else self.temperature
            return {"temperature": usual}
        self._check_once("temperature", self.temperature)
        return {"temperature": keras.ops.exp(-note.log_scale)}

    def _check_not_copied(self, y_pred):
        """Raises rather than take the usual values for those of a head."""
        missing = [x for x in self.may_be_of_head if getattr(self, x) is None]
        if missing:
            otherwise = (
                f" Without a head give the loss its {' and '.join(missing)}."
            )
            heads.check_not_copied(y_pred, self, otherwise=otherwise)

    def _check_once(self, name, value):
        if value is not None:
            raise ValueError(
                f"Give the {name} once: the SimilarityHead has one, and "
                f"{type(self).__name__} was given {name}={value}. Leave it out "
                "of the loss."
            )


@keras.saving.register_keras_serializable(package="keras_xent")
class SupervisedContrastive(PartnerLoss, ContrastiveLoss):
    """Cross-entropy of which other embeddings of the batch share an id.

    The loss of an example is `keras_xent.ops.supervised_contrastive`, which has
    the formula: the mean over the others with its id of

    ```
    −log (exp(x_ij) / Σ_{k ≠ i} exp(x_ik)),   x = cosine / temperature
    ```

    With two views of each example, `(batch, 2, dim)`, and an id of its own for
    each it is NT-Xent, the loss of SimCLR. The pairs never exist as a whole:
    memory grows with the batch and not with its square.

    Args:
        temperature: T > 0. `None` is that of a
            `keras_xent.layers.SimilarityHead`, which may learn it, and 0.1
            without one.
        precision: In what products of embeddings are made. `None` is their
            dtype: bfloat16 under `mixed_bfloat16`. `"float32"` makes them in
            float32 at least.
        block_size: The number of columns in a block of pairs. `None` chooses
            it: 4 MB of scores on a CPU, but not fewer than 64 columns.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the examples become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of examples
            that are not masked and have a match), `"sum"`,
            `"mean_with_sample_weight"` (over the sum of their weights), or
            `"none"`, one loss per example. An example of weight 0 is in no
            pair; that it still counts in the mean is Keras's way, and
            `"mean_with_sample_weight"` the way round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds ids, `(batch,)` or `(batch, 1)`. `y_pred` holds
        embeddings, `(batch, dim)` or `(batch, views, dim)`, or is what a
        `SimilarityHead` returned. Sample weights and masks are `(batch,)`.

    Raises:
        ValueError: as `keras_xent.ops.supervised_contrastive`; if both the head
            and the loss have a temperature.

    References:
        As `keras_xent.ops.supervised_contrastive`.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SupervisedContrastive(temperature=1.0)
    >>> x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], "float32")
    >>> print(f"{float(loss(np.array([7, 7, 8]), x)):.4f}")
    0.3133
    """

    op = staticmethod(ops.supervised_contrastive)
    usual = 0.1

    def __init__(
        self,
        *,
        temperature: float | None = None,
        precision: str | None = None,
        block_size: int | None = None,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "supervised_contrastive",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            temperature=temperature,
            precision=precision,
            block_size=block_size,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class InfoNCE(PartnerLoss, ContrastiveLoss):
    """Cross-entropy of which of the batch belongs to each, from both sides.

    The loss of an example is `keras_xent.ops.info_nce`, which has the formula:
    with x the cosine of a first and a second embedding, divided by the
    temperature, the mean of

    ```
    −log (exp(x_ii) / Σ_k exp(x_ik))   and   −log (exp(x_ii) / Σ_k exp(x_ki))
    ```

    It is the loss of CLIP for two towers, and one-sided that of multiple
    negatives ranking, whose further embeddings are hard negatives. The pairs
    never exist as a whole: memory grows with the batch and not with its square.

    ```
    head = keras_xent.layers.SimilarityHead()
    model = keras.Model([image, text], head([f(image), g(text)]))
    model.compile("adam", loss=keras_xent.losses.InfoNCE())
    model.fit([images, texts], np.arange(len(images)))
    ```

    Args:
        temperature: T > 0. `None` is that of a
            `keras_xent.layers.SimilarityHead`, which may learn it, and 0.07
            without one.
        symmetric: Whether the second embeddings are asked for their first ones
            as well, among all first ones.
        precision: In what products of embeddings are made. `None` is their
            dtype: bfloat16 under `mixed_bfloat16`. `"float32"` makes them in
            float32 at least.
        block_size: The number of columns in a block of pairs. `None` chooses
            it: 4 MB of scores on a CPU, but not fewer than 64 columns.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the examples become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of examples
            that are not masked and have a match), `"sum"`,
            `"mean_with_sample_weight"` (over the sum of their weights), or
            `"none"`, one loss per example. An example of weight 0 is in no
            pair; that it still counts in the mean is Keras's way, and
            `"mean_with_sample_weight"` the way round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds ids, `(batch,)` or `(batch, 1)`: examples with the same
        one match, too. Where there are none, number the rows of the data.
        `y_pred` holds embeddings, `(batch, views, dim)`: rows, columns, and
        hard negatives from the third view on; or is what a `SimilarityHead`
        returned. `(batch, dim)` compares the rows with each other, as
        `SupervisedContrastive` does. Sample weights and masks are `(batch,)`.

    Raises:
        ValueError: as `keras_xent.ops.info_nce`; if both the head and the loss
            have a temperature.

    References:
        As `keras_xent.ops.info_nce`.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.InfoNCE(temperature=1.0)
    >>> images = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> texts = np.array([[3.0, 4.0], [0.0, 1.0]], "float32")
    >>> pairs = np.stack([images, texts], axis=1)
    >>> print(f"{float(loss(np.array([0, 1]), pairs)):.4f}")
    0.5368
    """

    op = staticmethod(ops.info_nce)
    usual = 0.07

    def __init__(
        self,
        *,
        temperature: float | None = None,
        symmetric: bool = True,
        precision: str | None = None,
        block_size: int | None = None,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "info_nce",
        dtype: DType = None,
    ) -> None:
        super().__init__(
            temperature=temperature,
            symmetric=checks.flag("symmetric", symmetric),
            precision=precision,
            block_size=block_size,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class SigmoidContrastive(ContrastiveLoss):
    """Asks of each pair of a batch whether the two match.

    The loss of an example is `keras_xent.ops.sigmoid_contrastive`, which has
    the formula: with x the cosine of a first and a second embedding, divided by
    the temperature, plus the bias,

    ```
    loss_i = Σ_j softplus(∓x_ij),   − where the ids are equal
    ```

    It is the loss of SigLIP: the sum over all pairs, divided by the number of
    rows. The pairs never exist as a whole: memory grows with the batch and not
    with its square.

    Args:
        temperature: T > 0. `None` is that of a
            `keras_xent.layers.SimilarityHead`, which may learn it, and 0.1
            without one.
        bias: b. `None` is that of the head, and −10 without one: most pairs
            are no match.
        precision: In what products of embeddings are made. `None` is their
            dtype: bfloat16 under `mixed_bfloat16`. `"float32"` makes them in
            float32 at least.
        block_size: The number of columns in a block of pairs. `None` chooses
            it: 4 MB of scores on a CPU, but not fewer than 64 columns.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the examples become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of examples
            that are not masked), `"sum"`, `"mean_with_sample_weight"` (over the
            sum of their weights), or `"none"`, one loss per example. An example
            of weight 0 is in no pair; that it still counts in the mean is
            Keras's way, and `"mean_with_sample_weight"` the way round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds ids, `(batch,)` or `(batch, 1)`: examples with the same
        one match, too. Where there are none, number the rows of the data.
        `y_pred` holds embeddings, `(batch, views, dim)`: rows, columns, and
        hard negatives from the third view on; or is what a `SimilarityHead`
        returned. `(batch, dim)` compares each row with all others. Sample
        weights and masks are `(batch,)`.

    Raises:
        ValueError: as `keras_xent.ops.sigmoid_contrastive`; if both the head
            and the loss have a temperature or a bias.

    References:
        As `keras_xent.ops.sigmoid_contrastive`.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SigmoidContrastive(temperature=1.0, bias=0.0)
    >>> images = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> texts = np.array([[3.0, 4.0], [0.0, 1.0]], "float32")
    >>> pairs = np.stack([images, texts], axis=1)
    >>> print(f"{float(loss(np.array([0, 1]), pairs)):.4f}")
    1.3075
    """

    op = staticmethod(ops.sigmoid_contrastive)
    usual = 0.1
    usual_bias = -10.0
    may_be_of_head = ("temperature", "bias")

    def __init__(
        self,
        *,
        temperature: float | None = None,
        bias: float | None = None,
        precision: str | None = None,
        block_size: int | None = None,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "sigmoid_contrastive",
        dtype: DType = None,
    ) -> None:
        if bias is not None:
            contrastive.check_bias(bias)
        super().__init__(
            temperature=temperature,
            bias=bias,
            precision=precision,
            block_size=block_size,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def of_head(self, note):
        options = super().of_head(note)
        if note is None or note.bias is None:
            usual = self.usual_bias if self.bias is None else self.bias
            return {**options, "bias": usual}
        self._check_once("bias", self.bias)
        return {**options, "bias": note.bias}
