"""Triplet losses: partners nearer than others by a margin."""

import keras

from keras_xent import ops
from keras_xent._types import Distance, DType, Reduction
from keras_xent.losses.embedding_loss import DistanceOption, PartnerLoss
from keras_xent.ops.hinge import check_hinge
from keras_xent.ops.triplet import check_mining


@keras.saving.register_keras_serializable(package="keras_xent")
class TripletHinge(DistanceOption, PartnerLoss):
    """Triplet loss: others should be farther than partners by a margin.

    The loss of a row i is `keras_xent.ops.triplet_hinge`, of its partners p,
    the other rows of its class, and the others o, the rows of other classes:

    ```
    h_ipo = s · softplus((d_ip − d_io + m) / s)

    "hard"       h of the farthest partner p and the nearest other o
    "semi_hard"  the mean over partners p of h with the nearest other that is
                 farther than p, or with the farthest other if none is
    "all"        the mean over all partners p and others o of h
    ```

    A row without a partner or without an other has no triplet: its loss is 0,
    and it does not count in the mean. TensorFlow Addons and
    pytorch-metric-learning average in other ways: see the function.

    Args:
        margin: m, by how much an other should be farther than a partner.
        distance: `"euclidean"`, `"squared_euclidean"`, `"cosine"`,
            `"symmetric_kl"` (embeddings are logits), or a callable from
            embeddings `[n, d]` to distances `[n, n]`.
        softness: s ≥ 0, the width of the bend; 0 is the hard hinge. The soft
            margin of the paper is `margin=0, softness=1`.
        mining: Which triplets count: `"hard"`, `"semi_hard"` or `"all"`. "all"
            with a soft hinge takes n³ time, all else n² log n at most, and all
            of them n² memory.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked and have a triplet), `"sum"`,
            `"mean_with_sample_weight"` (over the sum of their weights), or
            `"none"`, one loss per row. That a row of weight 0 still counts in
            the mean is Keras's way, and `"mean_with_sample_weight"` the way
            round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds class ids, `(batch,)` or `(batch, 1)`; `y_pred`
        embeddings, `(batch, dim)` or `(batch, views, dim)`; the loss is in the
        unit of the distance. Give each batch several rows of each of its
        classes. A row that is masked or has weight 0 is no row's partner or
        other.

    Raises:
        ValueError: as `keras_xent.ops.triplet_hinge`.

    References:
        [Schroff, Kalenichenko and Philbin, 2015](
        https://arxiv.org/abs/1503.03832); [Hermans, Beyer and Leibe, 2017](
        https://arxiv.org/abs/1703.07737).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.TripletHinge(margin=1.0)
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], "float32")
    >>> float(loss(np.array([7, 7, 8, 8]), embeddings))
    2.625
    """

    op = staticmethod(ops.triplet_hinge)
    needs_others = True

    def __init__(
        self,
        margin: float,
        *,
        distance: Distance = "euclidean",
        softness: float = 0.0,
        mining: str = "hard",
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "triplet_hinge",
        dtype: DType = None,
    ) -> None:
        check_hinge(margin, softness)
        check_mining(mining)
        super().__init__(
            margin=margin,
            distance=distance,
            softness=softness,
            mining=mining,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
