"""Prototypical losses: each row finds the prototype of its own class."""

import keras

from keras_xent import ops
from keras_xent._types import DType, Reduction
from keras_xent.losses.embedding_loss import PartnerLoss
from keras_xent.ops.prototypes import check_prototypes


@keras.saving.register_keras_serializable(package="keras_xent")
class PrototypicalCrossentropy(PartnerLoss):
    """Cross-entropy of each row over the prototypes of the classes in a batch.

    The loss of a row is `keras_xent.ops.prototypical_crossentropy`. The
    prototype c_k of a class is the mean of its rows; that of a row's own class
    is the mean of the others of them, without the row itself.

    ```
    loss_i = −log(exp(z_ik) / Σ_l exp(z_il)), k the class of row i

    z_ik = −|x_i − c_k|² / T      "squared_euclidean"
    z_ik = cos(x_i, c_k) / T      "cosine", c_k of unit vectors
    ```

    With `"cosine"` this is the softmax loss of GE2E, and nearly that of angular
    prototypical networks; with `"squared_euclidean"`, nearly that of
    prototypical networks: see the function. A row that is alone in its class
    has a loss of 0 and does not count in the mean; it is a prototype for the
    others.

    Args:
        distance: `"squared_euclidean"` or `"cosine"`.
        temperature: T > 0. `None` is 1 for squared Euclidean distances, 0.1 for
            cosines.
        across_replicas: Whether the rows of all replicas are compared with each
            other: TensorFlow's replicas, PyTorch's processes. Otherwise each
            compares its own. On JAX a batch is one, however many devices hold
            it.
        reduction: How the losses of the rows become one:
            `"sum_over_batch_size"` or `"mean"` (over the number of rows that
            are not masked and have a partner, another row of their class),
            `"sum"`, `"mean_with_sample_weight"` (over the sum of their
            weights), or `"none"`, one loss per row. That a row of weight 0
            still counts in the mean is Keras's way, and
            `"mean_with_sample_weight"` the way round it.
        name: The name of the loss, in logs and in saved models.
        dtype: The dtype of the result, `None` for Keras's `floatx`. The sums
            run in float32 at least.

    Shapes:
        `y_true` holds class ids, `(batch,)` or `(batch, 1)`; `y_pred`
        embeddings, `(batch, dim)` or `(batch, views, dim)`; the loss is in
        nats. Give each batch several rows of each of its classes. A row that is
        masked or has weight 0 is in no prototype.

    Raises:
        ValueError: as `keras_xent.ops.prototypical_crossentropy`.

    References:
        As `keras_xent.ops.prototypical_crossentropy`.

    Example:

    >>> import numpy as np
    >>> import keras_xent
    >>> loss = keras_xent.losses.PrototypicalCrossentropy()
    >>> embeddings = np.array([[0.0], [1.0], [0.5], [9.0]], "float32")
    >>> print(f"{float(loss(np.array([7, 7, 8, 9]), embeddings)):.4f}")
    1.1369
    """

    op = staticmethod(ops.prototypical_crossentropy)

    def __init__(
        self,
        *,
        distance: str = "squared_euclidean",
        temperature: float | None = None,
        across_replicas: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str = "prototypical_crossentropy",
        dtype: DType = None,
    ) -> None:
        check_prototypes(distance, temperature)
        super().__init__(
            distance=distance,
            temperature=temperature,
            across_replicas=across_replicas,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
