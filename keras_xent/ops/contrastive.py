"""Contrastive losses: which embeddings of a batch belong together."""

import numpy as np
from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, crossed
from keras_xent.ops.in_batch import (
    TOWERS,
    PairLogits,
    among_themselves,
    batch_of,
    terms_of_columns,
    with_hard,
)
from keras_xent.ops.public import product_op
from keras_xent.ops.reductions import OnlineSoftmax, PairwiseSigmoid
from keras_xent.ops.targets import SharedIds


@product_op
def supervised_contrastive(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    temperature: TensorLike = 0.1,
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
    precision: str | None = None,
    block_size: int | None = None,
) -> Tensor:
    """Cross-entropy of which other embeddings share the id of each.

    With x_ij the cosine of embeddings i and j, divided by the temperature, and
    P_i the others that share the id of i:

    ```
    loss_i = −mean over j in P_i of log p_ij
    p_ij   = exp(x_ij) / Σ_{k ≠ i} exp(x_ik)
    ```

    With two views of each example and an id of its own for each it is NT-Xent,
    the loss of SimCLR. The pairs never exist as a whole, neither forwards nor
    backwards: they are made block by block, with three matrix products.

    Args:
        labels: Ids `(n,)`: embeddings with the same one belong together.
        embeddings: Float tensor `(n, dim)`, or `(n, views, dim)` for several
            views of each example, which belong together. They are made unit
            vectors here.
        temperature: T > 0, a number or a tensor without axes, which gets a
            gradient.
        sample_weight: One number per example, which its loss is multiplied
            with. An example of weight 0 is as good as absent: it is nobody's
            match and nobody's negative. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.
        precision: In what the products are made. `None` is the dtype of the
            embeddings, or that of `torch.autocast` where it is on; `"float32"`
            makes all of them in float32 at least. Sums, exponentials and their
            gradients are in float32 at least with either.
        block_size: The number of columns in a block. `None` chooses it: 8 MB of
            scores on a CPU, but not fewer than 256 columns.

    Returns:
        One loss per example `(n,)` in nats, the mean over its views that have a
        match; float32, or float64 for float64 embeddings. An example without
        any match has loss and gradient 0; a NaN id gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the embeddings are not floating
            point, an option is out of range or unknown, or ids in host memory
            do not fit into int32.

    References:
        [Khosla et al., 2020](https://arxiv.org/abs/2004.11362), the loss "out";
        [Chen et al., 2020](https://arxiv.org/abs/2002.05709), NT-Xent.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], "float32")
    >>> loss = ops.supervised_contrastive([7, 7, 8], x, temperature=1.0)
    >>> print([f"{float(value):.4f}" for value in loss])
    ['0.3133', '0.3133', '0.0000']
    """
    batch = batch_of(
        labels,
        embeddings,
        temperature,
        sample_weight,
        rows,
        precision,
        block_size,
    )
    return batch.weighted(among_themselves(batch))


@product_op
def info_nce(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    temperature: TensorLike = 0.07,
    symmetric: bool = True,
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
    precision: str | None = None,
    block_size: int | None = None,
) -> Tensor:
    """Cross-entropy of which of a batch's columns belongs to each row.

    The rows are the first embeddings of the examples, the columns the second
    ones, and all further ones, which belong to nobody: hard negatives. With
    x_ij the cosine of row i and column j, divided by the temperature, and P_i
    the columns that share the id of row i, its own among them:

    ```
    row_i  = −mean over j in P_i of log (exp(x_ij) / Σ_k exp(x_ik))
    loss_i = ½ (row_i + column_i)
    ```

    where column_i is the same of second embedding i against all rows. It is the
    loss of CLIP, and one-sided that of multiple negatives ranking. The pairs
    never exist as a whole, neither forwards nor backwards, and both directions
    come from one pass over them.

    Args:
        labels: Ids `(n,)`: examples with the same one match, too, and are no
            negatives of each other. Without ids give `arange(n)`.
        embeddings: Float tensor `(n, views, dim)`: rows, columns, hard
            negatives. Of one view, or `(n, dim)`, all are rows and columns, and
            the loss is `supervised_contrastive`. They are made unit vectors
            here.
        temperature: T > 0, a number or a tensor without axes, which gets a
            gradient.
        symmetric: Whether the columns are asked for their rows as well.
        sample_weight: One number per example, which its loss is multiplied
            with. An example of weight 0 is as good as absent: it is nobody's
            match and nobody's negative. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.
        precision: In what the products are made. `None` is the dtype of the
            embeddings, or that of `torch.autocast` where it is on; `"float32"`
            makes all of them in float32 at least. Sums, exponentials and their
            gradients are in float32 at least with either.
        block_size: The number of columns in a block. `None` chooses it: 8 MB of
            scores on a CPU, but not fewer than 256 columns.

    Returns:
        One loss per example `(n,)` in nats; float32, or float64 for float64
        embeddings. A NaN id gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the embeddings are not floating
            point, an option is out of range or unknown, or ids in host memory
            do not fit into int32.

    References:
        [van den Oord et al., 2018](https://arxiv.org/abs/1807.03748);
        [Radford et al., 2021](https://arxiv.org/abs/2103.00020), CLIP;
        [Henderson et al., 2017](https://arxiv.org/abs/1705.00652), multiple
        negatives.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> images = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> texts = np.array([[3.0, 4.0], [0.0, 1.0]], "float32")
    >>> pairs = np.stack([images, texts], axis=1)
    >>> loss = ops.info_nce([0, 1], pairs, temperature=1.0)
    >>> print([f"{float(value):.4f}" for value in loss])
    ['0.6178', '0.4557']
    """
    batch = batch_of(
        labels,
        embeddings,
        temperature,
        sample_weight,
        rows,
        precision,
        block_size,
    )
    if batch.views == 1:
        return batch.weighted(among_themselves(batch))
    targets, gaps = batch.targets()
    count = ops.shape(batch.labels)[0]
    if batch.rows is not None or not symmetric:
        by_rows = batch.of_towers(PairLogits(**gaps), targets, OnlineSoftmax())
        if not symmetric:
            return batch.weighted(by_rows)
        by_columns = terms_of_columns(batch, targets, gaps)
        return batch.weighted((by_rows + by_columns) / 2)
    of_columns = SharedIds(
        targets.column_ids,
        targets.row_ids,
        with_hard(targets.number, batch.views - 2, 0),
    )
    both = crossed.Crossed(
        PairLogits(**gaps), targets, OnlineSoftmax(), of_columns
    )
    losses = batch.terms(crossed.Crossing, both, TOWERS)[0]
    by_rows, by_columns = losses[:count], losses[count : 2 * count]
    return batch.weighted((by_rows + by_columns) / 2)


@product_op
def sigmoid_contrastive(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    temperature: TensorLike = 0.1,
    bias: TensorLike = -10.0,
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
    precision: str | None = None,
    block_size: int | None = None,
) -> Tensor:
    """Asks of each row and column of a batch whether the two match.

    The rows are the first embeddings of the examples, the columns the second
    ones, and all further ones, which belong to nobody: hard negatives. With
    x_ij the cosine of row i and column j, divided by the temperature, plus the
    bias:

    ```
    loss_i = Σ_j softplus(∓x_ij),   − where the ids are equal
    ```

    The loss of SigLIP: its mean over the examples is the sum over all pairs,
    divided by the number of rows. The pairs never exist as a whole, neither
    forwards nor backwards: they are made block by block.

    Args:
        labels: Ids `(n,)`: examples with the same one match, too. Without ids
            give `arange(n)`.
        embeddings: Float tensor `(n, views, dim)`: rows, columns, hard
            negatives. Of one view, or `(n, dim)`, all are rows and columns, and
            each is compared with all others. They are made unit vectors here.
        temperature: T > 0, a number or a tensor without axes, which gets a
            gradient.
        bias: b, a number or a tensor without axes, which gets a gradient. As
            most pairs are none, it begins far below 0.
        sample_weight: One number per example, which its loss is multiplied
            with. An example of weight 0 is as good as absent: it is nobody's
            match and nobody's negative. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.
        precision: In what the products are made. `None` is the dtype of the
            embeddings, or that of `torch.autocast` where it is on; `"float32"`
            makes all of them in float32 at least. Sums, exponentials and their
            gradients are in float32 at least with either.
        block_size: The number of columns in a block. `None` chooses it: 8 MB of
            scores on a CPU, but not fewer than 256 columns.

    Returns:
        One loss per example `(n,)` in nats; float32, or float64 for float64
        embeddings. A NaN id gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the embeddings are not floating
            point, an option is out of range or unknown, or ids in host memory
            do not fit into int32.

    References:
        [Zhai et al., 2023](https://arxiv.org/abs/2303.15343), SigLIP.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> images = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> texts = np.array([[3.0, 4.0], [0.0, 1.0]], "float32")
    >>> pairs = np.stack([images, texts], axis=1)
    >>> loss = ops.sigmoid_contrastive(
    ...     [0, 1], pairs, temperature=1.0, bias=0.0
    ... )
    >>> print([f"{float(value):.4f}" for value in loss])
    ['1.1306', '1.4844']
    """
    batch = batch_of(
        labels,
        embeddings,
        temperature,
        sample_weight,
        rows,
        precision,
        block_size,
    )
    check_bias(bias)
    bias = ops.cast(checks.one_number("bias", bias), batch.root.dtype)
    if batch.views == 1:
        return batch.weighted(among_themselves(batch, PairwiseSigmoid(), bias))
    targets, gaps = batch.targets()
    logits = PairLogits(bias, **gaps)
    return batch.weighted(batch.of_towers(logits, targets, PairwiseSigmoid()))


def check_bias(bias):
    """Raises on a bias in host memory that is no number."""
    if checks.on_host(bias):
        checks.number("bias", bias, -np.inf)
