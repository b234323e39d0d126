"""Pair losses: pull matches together, push the others beyond a margin."""

import keras

from keras_xent import ops
from keras_xent._types import Distance, DType, Reduction
from keras_xent.losses import kinds
from keras_xent.losses.base import RowLoss
from keras_xent.losses.embedding_loss import DistanceOption, EmbeddingLoss
from keras_xent.ops import checks, rows
from keras_xent.ops.hinge import check_hinge


@keras.saving.register_keras_serializable(package="keras_xent")
class SoftplusHinge(RowLoss):
    """Hinge loss of distances between given pairs.

    The loss of a pair is `keras_xent.ops.softplus_hinge`:

    ```
    loss = y · d + (1 − y) · h(d)
    h(d) = s · softplus((m − d) / s)
    ```

    With `squared=True` it is d² and h(d)²; with `softness=0` too, that is the
    contrastive loss of the paper, and of TensorFlow Addons. For models of two
    towers that end in a distance, such as
    `keras_xent.layers.SymmetricKLDistance`.

    Args:
        margin: m, the distance beyond which a non-match costs little.
        softness: s ≥ 0, the width of the bend; 0 is the hard hinge.
        squared: Whether the distance and the hinge are squared.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked), `"sum"`, `"mean_with_sample_weight"` (over the sum
            of their weights), or `"none"`, one loss per row.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` is 1 for a match and 0 for none, `y_pred` a distance, each
        `(batch,)` or `(batch, 1)`; the loss is in the unit of the distance.

    Raises:
        ValueError: as `keras_xent.ops.softplus_hinge`.

    References:
        [Hadsell, Chopra and LeCun, 2006](https://doi.org/10.1109/CVPR.2006.100).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SoftplusHinge(margin=1.0)
    >>> distance = np.array([[0.2], [3.0]], "float32")
    >>> print(f"{float(loss(np.array([1, 0]), distance)):.4f}")
    0.1635
    """

    output_kind, label_kind = kinds.DISTANCES, kinds.MATCHES

    def __init__(
        self,
        margin: float,
        *,
        softness: float = 1.0,
        squared: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "softplus_hinge",
        dtype: DType = None,
    ) -> None:
        check_hinge(margin, softness)
        super().__init__(
            margin=margin,
            softness=softness,
            squared=checks.flag("squared", squared),
            reduction=reduction,
            name=name,
            dtype=dtype,
        )

    def row_axis(self, y_pred):
        if len(y_pred.shape) == 1:
            return None
        if len(y_pred.shape) == 2 and y_pred.shape[1] == 1:
            return -1
        raise ValueError(
            f"`y_pred` must be one distance per pair, (batch,) or (batch, 1). "
            f"Received shape {tuple(y_pred.shape)}. For embeddings and class "
            f"ids use SymmetricKLHinge or PairHinge."
        )

    def call(self, y_true, y_pred):
        self.row_axis(y_pred)
        losses = ops.softplus_hinge(
            rows.match_rank(y_true, y_pred), y_pred, **self.options
        )
        return losses if len(losses.shape) == 1 else losses[:, 0]


@keras.saving.register_keras_serializable(package="keras_xent")
class SymmetricKLHinge(EmbeddingLoss):
    """Symmetric KL divergence with a softplus hinge, over all pairs of a batch.

    The loss is `keras_xent.ops.symmetric_kl_hinge`, the mean over the pairs
    i < j of

    ```
    d_ij                              if labels i and j are equal
    s · softplus((m − d_ij) / s)      if they differ
    ```

    with d_ij = KL(i‖j) + KL(j‖i) of the softmax of the embeddings.

    Args:
        margin: m, the divergence beyond which a non-match costs little, in
            nats.
        softness: s ≥ 0, the width of the bend; 0 is the hard hinge.
        balanced: Whether matches and others share the loss half and half.
        directed: Whether to hinge KL(i‖j) and KL(j‖i) one by one, as in the
            paper, with `margin=2` and `softness=0` there.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked, which is the mean over the pairs), `"sum"`,
            `"mean_with_sample_weight"` (over the sum of their weights), or
            `"none"`, one loss per row. A row of weight 0 is in no pair; that
            it still counts as a row in the mean is Keras's way, and
            `"mean_with_sample_weight"` the way round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds class ids, `(batch,)` or `(batch, 1)`; `y_pred`
        embeddings as logits, `(batch, dim)` or `(batch, views, dim)`, the raw
        output of a Dense layer without activation. A pair weighs the product of
        its rows' sample weights.

    Raises:
        ValueError: as `keras_xent.ops.symmetric_kl_hinge`.

    References:
        [Lukic, Vogt, Dürr and Stadelmann, 2017](
        https://doi.org/10.1109/MLSP.2017.8168166).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.SymmetricKLHinge(margin=2.0)
    >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], "float32")
    >>> print(f"{float(loss(np.array([7, 7, 8]), logits)):.4f}")
    0.1505
    """

    op = staticmethod(ops.symmetric_kl_hinge)
    distance = "symmetric_kl"

    def __init__(
        self,
        margin: float,
        *,
        softness: float = 1.0,
        balanced: bool = True,
        directed: bool = False,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "symmetric_kl_hinge",
        dtype: DType = None,
    ) -> None:
        check_hinge(margin, softness)
        super().__init__(
            margin=margin,
            softness=softness,
            balanced=balanced,
            directed=directed,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )


@keras.saving.register_keras_serializable(package="keras_xent")
class PairHinge(DistanceOption, EmbeddingLoss):
    """Any distance with a softplus hinge, over all pairs of a batch.

    The loss is `keras_xent.ops.pair_hinge`, the mean over the pairs i < j of

    ```
    d_ij                              if labels i and j are equal
    s · softplus((m − d_ij) / s)      if they differ
    ```

    With `squared=True` either is squared; with `softness=0` too, that is the
    contrastive loss of the paper over all pairs of a batch. `SymmetricKLHinge`
    is this loss for `distance="symmetric_kl"`, and hinges both directions one
    by one if asked to. For given pairs, two towers and match flags, use
    `SoftplusHinge`.

    Args:
        margin: m, the distance beyond which a non-match costs little.
        distance: `"euclidean"`, `"squared_euclidean"`, `"cosine"`,
            `"symmetric_kl"` (embeddings are logits), or a callable from
            embeddings `[n, d]` to distances `[n, n]`.
        softness: s ≥ 0, the width of the bend; 0 is the hard hinge.
        squared: Whether the distance and the hinge are squared.
        balanced: Whether matches and others share the loss half and half.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked, which is the mean over the pairs), `"sum"`,
            `"mean_with_sample_weight"` (over the sum of their weights), or
            `"none"`, one loss per row. A row of weight 0 is in no pair; that
            it still counts as a row in the mean is Keras's way, and
            `"mean_with_sample_weight"` the way round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds class ids, `(batch,)` or `(batch, 1)`; `y_pred`
        embeddings, `(batch, dim)` or `(batch, views, dim)`. A pair weighs the
        product of its rows' sample weights.

    Raises:
        ValueError: as `keras_xent.ops.pair_hinge`.

    References:
        [Hadsell, Chopra and LeCun, 2006](https://doi.org/10.1109/CVPR.2006.100).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.PairHinge(margin=2.0, softness=0.0)
    >>> embeddings = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], "float32")
    >>> print(f"{float(loss(np.array([7, 7, 8]), embeddings)):.4f}")
    2.7500
    """

    op = staticmethod(ops.pair_hinge)

    def __init__(
        self,
        margin: float,
        *,
        distance: Distance = "euclidean",
        softness: float = 1.0,
        squared: bool = False,
        balanced: bool = True,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "pair_hinge",
        dtype: DType = None,
    ) -> None:
        check_hinge(margin, softness)
        super().__init__(
            margin=margin,
            distance=distance,
            softness=softness,
            squared=checks.flag("squared", squared),
            balanced=checks.flag("balanced", balanced),
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
