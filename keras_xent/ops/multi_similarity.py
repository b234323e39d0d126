"""Multi-similarity: partners and others weighed by their cosines."""

import numpy as np
from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, extrema, identities
from keras_xent.ops.blocks import some_rows
from keras_xent.ops.partners import (
    partners_and_others,
    present,
    without_meaning,
)
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where
from keras_xent.ops.soft_maximum import log_one_plus_sum
from keras_xent.ops.unit import unit_rows


@public_op
def multi_similarity(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float | None = None,
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
) -> Tensor:
    """Multi-similarity loss: soft maxima over partners and over others.

    With s_ij the cosine of rows i and j, P_i the partners of row i, the other
    rows of its class, and O_i the rows of other classes,

    ```
    loss_i = 1/α · log(1 + Σ_{p ∈ P_i} exp(−α (s_ip − λ)))
           + 1/β · log(1 + Σ_{o ∈ O_i} exp(β (s_io − λ)))
    ```

    With `epsilon`, only hard pairs are in the sums: partners less similar than
    the most similar other, and others more similar than the least similar
    partner, each by up to ε more.

    A row without a partner has a loss of 0, as in the authors' code. They, and
    pytorch-metric-learning's `MultiSimilarityLoss`, still count it in the mean
    over the rows; there it also pays for its others.

    Args:
        labels: Class ids `(n,)`.
        embeddings: Float tensor `(n, d)`, of any length: cosines do not see it.
        alpha: α > 0, how much the least similar partners outweigh the rest.
        beta: β > 0, how much the most similar others outweigh the rest.
        base: λ, the cosine from which pairs cost much: partners below it,
            others above.
        epsilon: ε of the choice of pairs, 0.1 in the paper. `None` takes all.
        sample_weight: `(n,)`. A row of weight 0 is as good as absent: no row's
            partner or other. Else weights change nothing here: a loss weighs
            the rows by them. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.

    Returns:
        One value per row `(n,)`, float32, or float64 for float64 embeddings. A
        NaN label gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the embeddings are not floating
            point, or an option is out of range.

    References:
        [Wang, Han, Huang, Dong and Scott, 2019](
        https://arxiv.org/abs/1904.06627).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> embeddings = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], "float32")
    >>> rows = ops.multi_similarity(np.array([7, 7, 8]), embeddings)
    >>> print([f"{float(value):.4f}" for value in rows])
    ['0.2187', '0.3189', '0.0000']
    """
    check_multi_similarity(alpha, beta, base, epsilon)
    embeddings = identities.embeddings(embeddings)
    labels = identities.ids(labels, embeddings)
    rows = checks.row_range(rows, embeddings.shape[0])
    weight, embeddings = present(sample_weight, labels, embeddings)
    partner, other = partners_and_others(labels, weight, rows)
    has_partner = ops.any(partner, axis=1)
    unit = unit_rows(embeddings)
    cosine = some_rows(unit, rows) @ ops.transpose(unit)
    # Of a row that is not finite, which no maximum may hide.
    unknown = ops.any((partner | other) & (cosine != cosine), axis=1)
    if epsilon is not None:
        seen = ops.stop_gradient(cosine)
        nearest = extrema.largest(where(other, seen, -np.inf), -np.inf, axis=1)
        farthest = extrema.smallest(
            where(partner, seen, np.inf), np.inf, axis=1
        )
        partner = partner & (seen < nearest[:, None] + epsilon)
        other = other & (seen > farthest[:, None] - epsilon)
    other = other & has_partner[:, None]
    losses = log_one_plus_sum(-alpha * (cosine - base), partner) / alpha
    losses = losses + log_one_plus_sum(beta * (cosine - base), other) / beta
    unknown = unknown | without_meaning(labels, weight, rows)
    losses = where(unknown, np.nan, losses)
    return checks.sizes_agree(losses, labels, embeddings[:, 0])


def check_multi_similarity(alpha, beta, base, epsilon):
    """Raises on an option that is out of range."""
    checks.positive("alpha", alpha)
    checks.positive("beta", beta)
    checks.number("base", base, -np.inf)
    if epsilon is not None:
        checks.number("epsilon", epsilon, 0)
