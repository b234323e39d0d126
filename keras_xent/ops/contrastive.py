"""Contrastive losses: which embeddings of a batch belong together.

The scores of all pairs of a batch of 65,536 are 17 GB; here they are made in
blocks, by `ops.blockwise` and `ops.crossed`. The temperature is a factor of the
embeddings, the root of it of either side, so that its gradient costs nothing
that grows with the pairs. The unit vectors and their gradient are made within
the pass, where one takes the memory of the other.
"""

import typing

import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import (
    blockwise,
    checks,
    crossed,
    devices,
    extrema,
    identities,
    linear,
)
from keras_xent.ops.blocks import add, multiply, subtract
from keras_xent.ops.description import (
    column_id,
    description,
    for_all,
    per_column,
    per_row,
)
from keras_xent.ops.logits import Logits
from keras_xent.ops.public import product_op
from keras_xent.ops.reductions import OnlineSoftmax, PairwiseSigmoid
from keras_xent.ops.select import where
from keras_xent.ops.targets import OneTarget, SharedIds
from keras_xent.ops.temperature import check_temperature

# What an absent row and an absent column have for a number: they never match.
NO_ROW, NO_COLUMN = -1, -2


@product_op
def supervised_contrastive(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    temperature: TensorLike = 0.1,
    sample_weight: TensorLike | None = None,
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
    batch = _batch(
        labels, embeddings, temperature, sample_weight, precision, block_size
    )
    return batch.weighted(_among_themselves(batch))


@product_op
def info_nce(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    temperature: TensorLike = 0.07,
    symmetric: bool = True,
    sample_weight: TensorLike | None = None,
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
    batch = _batch(
        labels, embeddings, temperature, sample_weight, precision, block_size
    )
    if batch.views == 1:
        return batch.weighted(_among_themselves(batch))
    targets, gaps = batch.targets()
    rows = ops.shape(batch.labels)[0]
    if not symmetric:
        what = blockwise.What(PairLogits(**gaps), targets, OnlineSoftmax())
        return batch.weighted(batch.terms(blockwise.Pass, what)[0])
    of_columns = SharedIds(
        targets.column_ids,
        targets.row_ids,
        _with_hard(targets.number, batch.views - 2, 0),
    )
    both = crossed.Crossed(
        PairLogits(**gaps), targets, OnlineSoftmax(), of_columns
    )
    losses = batch.terms(crossed.Crossing, both)[0]
    by_rows, by_columns = losses[:rows], losses[rows : 2 * rows]
    return batch.weighted((by_rows + by_columns) / 2)


@product_op
def sigmoid_contrastive(
    labels: TensorLike,
    embeddings: TensorLike,
    *,
    temperature: TensorLike = 0.1,
    bias: TensorLike = -10.0,
    sample_weight: TensorLike | None = None,
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
    batch = _batch(
        labels, embeddings, temperature, sample_weight, precision, block_size
    )
    check_bias(bias)
    bias = ops.cast(ops.convert_to_tensor(bias), batch.root.dtype)
    if batch.views == 1:
        return batch.weighted(_among_themselves(batch, PairwiseSigmoid(), bias))
    targets, gaps = batch.targets()
    what = blockwise.What(PairLogits(bias, **gaps), targets, PairwiseSigmoid())
    return batch.weighted(batch.terms(blockwise.Pass, what)[0])


@description
class PairLogits(Logits):
    """x = product + bias, and −inf where there is no pair.

    Args:
        bias: One number for all, or None.
        own: The column of each row that is the row itself, or None.
        row_gaps, column_gaps: −inf where a row or a column is absent, else 0;
            or None.
    """

    learned = ("bias",)
    reads_back = False

    bias: Tensor | None = for_all()
    own: Tensor | None = column_id()
    row_gaps: Tensor | None = per_row()
    column_gaps: Tensor | None = per_column()

    def block(self, products, targets):
        if self.bias is not None:
            products = add(products, self.bias)
        if self.row_gaps is not None:
            products = add(products, self.row_gaps[:, None])
            products = add(products, self.column_gaps[None, :])
        if self.own is None:
            return products
        none = ops.zeros_like(self.own, dtype=products.dtype) - np.inf
        return OneTarget(self.own).add(products, none)

    def back(self, gradient, products, logits, targets):
        if self.bias is None:
            return gradient, {}
        return gradient, {"bias": ops.sum(gradient)}


class Batch(typing.NamedTuple):
    """A batch as the losses need it.

    Attributes:
        x: Embeddings `(n, views, dim)`.
        root: The root of 1 / temperature.
        labels: `(n,)`.
        present: Which examples are there, `(n,)`; None for all.
        weight: `(n,)`, or None.
        how: The block size and the dtype of the products.
    """

    x: Tensor
    root: Tensor
    labels: Tensor
    present: Tensor
    weight: Tensor
    how: dict

    @property
    def views(self):
        return self.x.shape[1]

    def targets(self):
        """Which columns are right for the rows, and the gaps of the logits."""
        hard = self.views - 2
        numbers = identities.numbered(self.labels)
        count = identities.sharing(numbers, self.present)
        rows, columns, gaps = _there(numbers, self.present, self.root.dtype)
        if gaps:
            gaps["column_gaps"] = _with_hard(
                gaps["column_gaps"], hard, gaps["column_gaps"]
            )
        columns = _with_hard(columns, hard, NO_COLUMN)
        return SharedIds(rows, columns, count), gaps

    def terms(self, kind, what):
        """What a pass over the products of the unit vectors says.

        Args:
            kind: `blockwise.Pass` or a subclass. `crossed.Mirrored` compares
                all embeddings with each other, the others the first ones of
                the examples with all others.
            what: The descriptions that it takes.
        """
        one = kind is crossed.Mirrored
        split, join = (_all, _all_back) if one else (_towers, _towers_back)
        size = self.how["block_size"] or devices.pair_block(self.x, self.views)
        both = kind(self.x, self.x, what, 0, size, self.how["dtype"])

        def forward(x, root, *tensors):
            scaled = [_scaled(each, root) for each in split(x)]
            terms, back = both.per_row(*(u for u, _ in scaled), *tensors)

            def grad(*arguments, upstream=None):
                if upstream is None:
                    (upstream,) = arguments
                found = list(back(upstream=upstream))
                d_root, of_tensors = 0, found[len(scaled) :]
                for i, (u, factor) in enumerate(scaled):
                    found[i], part = _scaled_back(found[i], u, factor, root)
                    d_root = d_root + part
                d_x = join(found[: len(scaled)], x)
                return ops.cast(d_x, x.dtype), d_root, *of_tensors

            return terms, grad

        tensors = both.arguments[2:]
        terms = _keras.own_gradient(forward)(self.x, self.root, *tensors)
        return ops.unstack(terms, both.count, axis=1)

    def weighted(self, losses):
        """What is returned: weights and all that makes a loss NaN."""
        if self.weight is not None:
            losses = where(self.present, losses, 0) * self.weight
        known = self.labels == self.labels
        if self.present is not None:
            known = known | ~self.present
        losses = where(known, losses, np.nan)
        return checks.sizes_agree(losses, self.labels, self.x[:, 0, 0])


def check_bias(bias):
    """Raises on a bias in host memory that is no number."""
    if checks.on_host(bias):
        checks.number("bias", bias, -np.inf)


def _batch(
    labels, embeddings, temperature, sample_weight, precision, block_size
):
    """Checks and converts what all of the losses take."""
    linear.check_block_size(block_size)
    if checks.on_host(temperature):
        check_temperature(temperature)
    embeddings = identities.views(embeddings)
    labels = identities.ids(labels, embeddings)
    dtype = linear.products_dtype(embeddings, precision)
    wide = checks.sums_dtype(dtype)
    weight = present = None
    if sample_weight is not None:
        weight = ops.convert_to_tensor(sample_weight)
        checks.same_shape("sample_weight", weight.shape, "labels", labels.shape)
        weight = ops.cast(weight, wide)
        present = weight != 0
        embeddings = where(present[:, None, None], embeddings, 0)
    scale = 1 / ops.cast(ops.convert_to_tensor(temperature), wide)
    how = {"block_size": block_size, "dtype": dtype}
    return Batch(embeddings, ops.sqrt(scale), labels, present, weight, how)


def _scaled(x, root):
    """root · x / |x| of each row, and what it has been multiplied with.

    A row of zeros stays one, with gradient, as in `unit.unit_rows`.
    """
    x = ops.cast(x, root.dtype)
    # Divided by their largest entry first: squares neither overflow nor vanish.
    largest = extrema.largest(ops.abs(x), 0, axis=1, keepdims=True)
    zero = largest == 0
    largest = ops.stop_gradient(where(zero, 1, largest))
    x = x / largest
    square = ops.einsum("nd,nd->n", x, x)[:, None]
    factor = root / ops.sqrt(where(zero, 1, square))
    return multiply(x, factor), factor / largest


def _scaled_back(gradient, u, factor, root):
    """The gradients of a row and of the root, in the memory of the first."""
    gradient = ops.cast(gradient, root.dtype)
    along = ops.einsum("nd,nd->n", gradient, u)[:, None]
    of_root = ops.sum(along) / root
    gradient = subtract(gradient, u * (along / ops.square(root)))
    return multiply(gradient, factor), of_root


def _all(x):
    return (ops.reshape(x, (-1, x.shape[2])),)


def _all_back(gradients, x):
    return ops.reshape(gradients[0], (-1, *x.shape[1:]))


def _towers(x):
    """Rows and columns, the hard negatives behind the others."""
    rows, columns = x[:, 0], x[:, 1]
    if x.shape[1] > 2:
        hard = ops.reshape(x[:, 2:], (-1, x.shape[2]))
        columns = ops.concatenate([columns, hard], axis=0)
    return rows, columns


def _towers_back(gradients, x):
    rows, columns = gradients
    count, views, dim = ops.shape(x)[0], x.shape[1], x.shape[2]
    found = [rows[:, None], columns[:count, None]]
    if views > 2:
        found.append(ops.reshape(columns[count:], (-1, views - 2, dim)))
    return ops.concatenate(found, axis=1)


def _among_themselves(batch, reduction=None, bias=None):
    """The loss of each example, its views compared with all others."""
    views = batch.views
    numbers = identities.numbered(batch.labels)
    number = views * identities.sharing(numbers, batch.present) - 1
    rows, columns, gaps = _there(numbers, batch.present, batch.root.dtype)
    rows, columns, number = (
        identities.of_each_view(each, views) for each in (rows, columns, number)
    )
    gaps = {
        name: identities.of_each_view(gap, views) for name, gap in gaps.items()
    }
    own = ops.arange(ops.shape(rows)[0], dtype="int32")
    targets = SharedIds(rows, columns, number, own)
    what = crossed.Crossed(
        PairLogits(bias, own, **gaps),
        targets,
        OnlineSoftmax() if reduction is None else reduction,
        targets,
    )
    losses = batch.terms(crossed.Mirrored, what)[0]
    if reduction is None:
        losses = where(number > 0, losses, 0)
    # Not `ops.mean`, which takes float64 to float32.
    return ops.sum(ops.reshape(losses, (-1, views)), axis=1) / views


def _there(numbers, present, dtype):
    """The numbers of rows and columns, and the gaps of what is absent."""
    known = numbers >= 0
    gaps = {}
    if present is not None:
        known = known & present
        gap = where(present, ops.zeros_like(numbers, dtype=dtype), -np.inf)
        gaps = {"row_gaps": gap, "column_gaps": gap}
    return where(known, numbers, NO_ROW), where(known, numbers, NO_COLUMN), gaps


def _with_hard(each, hard, value):
    """One number per column from one per example: those of hard negatives.

    Args:
        each: `(n,)`.
        hard: How many there are per example.
        value: That of each, a number or `(n,)`.
    """
    if not hard:
        return each
    more = identities.of_each_view(ops.zeros_like(each) + value, hard)
    return ops.concatenate([each, more], axis=0)
