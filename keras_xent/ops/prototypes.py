"""Prototypes: a class is the mean of its rows, and each row finds its own."""

import numpy as np
from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, identities
from keras_xent.ops.blocks import some_rows
from keras_xent.ops.distance import pairwise_squared_euclidean
from keras_xent.ops.partners import (
    partners_and_others,
    present,
    without_meaning,
)
from keras_xent.ops.public import public_op
from keras_xent.ops.segments import segment_sum
from keras_xent.ops.select import where
from keras_xent.ops.soft_maximum import log_one_plus_sum
from keras_xent.ops.temperature import check_temperature
from keras_xent.ops.unit import unit_rows

# By distance: the temperature where none is given. A cosine has no scale of its
# own; 1 / 10 is where the papers start to learn one.
TEMPERATURES = {"squared_euclidean": 1.0, "cosine": 0.1}


@public_op
def prototypical_crossentropy(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    distance: str = "squared_euclidean",
    temperature: float | None = None,
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
) -> Tensor:
    """Cross-entropy of each row over the prototypes of the classes in a batch.

    The prototype c_k of a class is the mean of its rows; that of a row's own
    class is the mean of the others of them, without the row itself.

    ```
    loss_i = −log(exp(z_ik) / Σ_l exp(z_il)), k the class of row i

    z_ik = −|x_i − c_k|² / T      "squared_euclidean"
    z_ik = cos(x_i, c_k) / T      "cosine", c_k of unit vectors
    ```

    A row that is alone in its class has no prototype and a loss of 0; it is a
    prototype for the others. No list of the classes is needed, and no split
    into support and query rows: every row is both. n² memory.

    The settings of others: `"cosine"` is the softmax loss of GE2E.
    `"squared_euclidean"` with T = 1 is that of prototypical networks, and
    `"cosine"` that of angular prototypical networks, but that each row is a
    query in turn; they part the rows of a class into queries and support, and
    queries are in no prototype. GE2E and the angular networks learn the scale
    1 / T, from 10 on, and an offset, which changes no softmax.

    Args:
        labels: Class ids `(n,)`.
        embeddings: Float tensor `(n, d)`.
        distance: `"squared_euclidean"` or `"cosine"`.
        temperature: T > 0. `None` is 1 for squared Euclidean distances, 0.1 for
            cosines.
        sample_weight: `(n,)`. A row of weight 0 is as good as absent, and in no
            prototype. Else weights change nothing here: a loss weighs the rows
            by them. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.

    Returns:
        One value per row `(n,)` in nats, float32, or float64 for float64
        embeddings. A NaN label gives NaN, an embedding that is not finite
        everywhere.

    Raises:
        ValueError: if the shapes do not fit, the embeddings are not floating
            point, the distance is not known, or the temperature is not above 0.

    References:
        [Snell, Swersky and Zemel, 2017](https://arxiv.org/abs/1703.05175);
        [Wan, Wang, Papir and Moreno, 2018](https://arxiv.org/abs/1710.10467),
        GE2E; [Chung et al., 2020](https://arxiv.org/abs/2003.11982), angular
        prototypical.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> embeddings = np.array([[0.0], [1.0], [0.5], [9.0]], "float32")
    >>> labels = np.array([7, 7, 8, 9])
    >>> rows = ops.prototypical_crossentropy(labels, embeddings)
    >>> print([f"{float(value):.4f}" for value in rows])
    ['1.1369', '1.1369', '0.0000', '0.0000']
    """
    temperature = check_prototypes(distance, temperature)
    embeddings = identities.embeddings(embeddings)
    labels = identities.ids(labels, embeddings)
    rows = checks.row_range(rows, embeddings.shape[0])
    weight, embeddings = present(sample_weight, labels, embeddings)
    partner, other = partners_and_others(labels, weight, rows)
    x = embeddings if distance == "squared_euclidean" else unit_rows(embeddings)
    queries = some_rows(x, rows)
    partners = ops.cast(partner, x.dtype)
    count = ops.sum(partners, axis=1, keepdims=True)
    some = count > 0
    own = partners @ x / where(some, count, 1.0)
    of_class, members = _of_classes(x, labels, weight)
    if distance == "squared_euclidean":
        to_own = -ops.sum(ops.square(queries - own), axis=1)
        to_others = -ops.transpose(
            pairwise_squared_euclidean(of_class, queries)
        )
    else:
        to_own = ops.sum(queries * unit_rows(own), axis=1)
        to_others = queries @ ops.transpose(unit_rows(of_class))
    gap = (to_others - to_own[:, None]) / temperature
    # A class stands in a column for each of its rows: each is a share of it.
    gap = gap - ops.log(members)
    unknown = ops.any(~(embeddings - embeddings == 0))
    losses = log_one_plus_sum(gap, other & some)
    known = ~without_meaning(labels, weight, rows) & ~unknown
    losses = where(known, losses, np.nan)
    return checks.sizes_agree(losses, labels, embeddings[:, 0])


def _of_classes(x, labels, weight):
    """For each row the mean of its class, and how many rows that is made of.

    A row whose label is NaN is a class by itself.
    """
    numbers = identities.numbered(labels)
    there = None if weight is None else weight != 0
    known = numbers >= 0
    members = ops.cast(identities.sharing(numbers, there), x.dtype)
    members = where(known & (members > 0), members, 1.0)
    sums = segment_sum(x, numbers, ops.shape(x)[0])
    mine = ops.take(sums, where(known, numbers, 0), axis=0)
    return where(known[:, None], mine / members[:, None], x), members


def check_prototypes(distance, temperature):
    """The temperature; an error for one, or a distance, that there is not."""
    checks.choice("distance", distance, tuple(TEMPERATURES))
    if temperature is None:
        return TEMPERATURES[distance]
    check_temperature(temperature)
    return temperature
