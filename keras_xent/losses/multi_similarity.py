"""Multi-similarity: partners and others weighed by their cosines."""

import keras

from keras_xent import ops
from keras_xent._types import DType, Reduction
from keras_xent.losses.embedding_loss import PartnerLoss
from keras_xent.ops.multi_similarity import check_multi_similarity


@keras.saving.register_keras_serializable(package="keras_xent")
class MultiSimilarity(PartnerLoss):
    """Multi-similarity loss: soft maxima over partners and over others.

    The loss of a row i is `keras_xent.ops.multi_similarity`, of the cosines s
    with its partners p, the other rows of its class, and the others o, the rows
    of other classes:

    ```
    loss_i = 1/α · log(1 + Σ_p exp(−α (s_ip − λ)))
           + 1/β · log(1 + Σ_o exp(β (s_io − λ)))
    ```

    A row without a partner has a loss of 0 and does not count in the mean; it
    is an other for the rest.

    Args:
        alpha: α > 0, how much the least similar partners outweigh the rest.
        beta: β > 0, how much the most similar others outweigh the rest.
        base: λ, the cosine from which pairs cost much: partners below it,
            others above.
        epsilon: ε of the choice of hard pairs, 0.1 in the paper. `None` takes
            all.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked and have a partner), `"sum"`,
            `"mean_with_sample_weight"` (over the sum of their weights), or
            `"none"`, one loss per row. That a row of weight 0 still counts in
            the mean is Keras's way, and `"mean_with_sample_weight"` the way
            round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds class ids, `(batch,)` or `(batch, 1)`; `y_pred`
        embeddings, `(batch, dim)` or `(batch, views, dim)`, which need not be
        unit vectors. Give each batch several rows of each of its classes. A row
        that is masked or has weight 0 is no row's partner or other.

    Raises:
        ValueError: as `keras_xent.ops.multi_similarity`.

    References:
        [Wang, Han, Huang, Dong and Scott, 2019](
        https://arxiv.org/abs/1904.06627).

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.MultiSimilarity()
    >>> embeddings = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], "float32")
    >>> print(f"{float(loss(np.array([7, 7, 8]), embeddings)):.4f}")
    0.2688
    """

    op = staticmethod(ops.multi_similarity)
    distance = "cosine"

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        epsilon: float | None = None,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "multi_similarity",
        dtype: DType = None,
    ) -> None:
        check_multi_similarity(alpha, beta, base, epsilon)
        super().__init__(
            alpha=alpha,
            beta=beta,
            base=base,
            epsilon=epsilon,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
