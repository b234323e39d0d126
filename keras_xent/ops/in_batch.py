"""The embeddings of a batch, compared with each other block by block.

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
from keras_xent._types import Tensor
from keras_xent.ops import (
    blocks,
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
from keras_xent.ops.dtypes import sums_dtype
from keras_xent.ops.logits import Logits
from keras_xent.ops.reductions import OnlineSoftmax
from keras_xent.ops.select import where
from keras_xent.ops.targets import OneTarget, SharedIds
from keras_xent.ops.temperature import check_temperature

# What an absent row and an absent column have for a number: they never match.
NO_ROW, NO_COLUMN = -1, -2


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
        rows: Which examples' losses are wanted; None for all.
        how: The block size and the dtype of the products.
    """

    x: Tensor
    root: Tensor
    labels: Tensor
    present: Tensor
    weight: Tensor
    rows: tuple | None
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
            gaps["column_gaps"] = with_hard(
                gaps["column_gaps"], hard, gaps["column_gaps"]
            )
        columns = with_hard(columns, hard, NO_COLUMN)
        return SharedIds(rows, columns, count), gaps

    def of_towers(self, *what):
        """The loss of each row by all columns.

        Args:
            *what: Logits, targets and reduction of all rows and columns.
        """
        what = self.some(blockwise.What(*what))
        return self.terms(crossed.InBatch, what, TOWERS)[0]

    def some(self, x, views=1):
        """A tensor or a description, cut down to the rows that are wanted.

        Args:
            x: That of all rows.
            views: How many rows an example has there.
        """
        if self.rows is None:
            return x
        start, size = (views * each for each in self.rows)
        if hasattr(x, "rows"):
            return x.rows(start, size)
        return blocks.some_rows(x, (start, size))

    def terms(self, kind, what, factors):
        """What a pass over the products of the unit vectors says.

        Args:
            kind: `crossed.InBatch` or a subclass.
            what: The descriptions that it takes.
            factors: `THEMSELVES`, `TOWERS` or `TURNED`.
        """
        split, join = factors
        some = blocks.some_rows(self.x, self.rows)
        size = self.how["block_size"] or devices.pair_block(some, self.views)
        both = kind(self.x, self.x, what, 0, size, self.how["dtype"])

        def forward(x, root, *tensors):
            scaled = [_scaled(each, root) for each in split(x, self.rows)]
            terms, back = both.per_row(*(u for u, _ in scaled), *tensors)

            def grad(*arguments, upstream=None):
                if upstream is None:
                    (upstream,) = arguments
                found = list(back(upstream=upstream))
                d_root, of_tensors = 0, found[len(scaled) :]
                for i, (u, factor) in enumerate(scaled):
                    found[i], part = _scaled_back(found[i], u, factor, root)
                    d_root = d_root + part
                d_x = join(found[: len(scaled)], x, self.rows)
                return ops.cast(d_x, x.dtype), d_root, *of_tensors

            return terms, grad

        tensors = both.arguments[2:]
        terms = _keras.own_gradient(forward)(self.x, self.root, *tensors)
        return ops.unstack(terms, both.count, axis=1)

    def weighted(self, losses):
        """What is returned: weights and all that makes a loss NaN."""
        known = self.labels == self.labels
        if self.present is not None:
            known = known | ~self.present
            there, weight = self.some(self.present), self.some(self.weight)
            losses = where(there, losses, 0) * weight
        losses = where(self.some(known), losses, np.nan)
        return checks.sizes_agree(losses, self.labels, self.x[:, 0, 0])


def batch_of(
    labels, embeddings, temperature, sample_weight, rows, precision, block_size
):
    """Checks and converts what all of the losses take."""
    linear.check_block_size(block_size)
    if checks.on_host(temperature):
        check_temperature(temperature)
    embeddings = identities.views(embeddings)
    labels = identities.ids(labels, embeddings)
    rows = checks.row_range(rows, embeddings.shape[0])
    dtype = linear.products_dtype(embeddings, precision)
    wide = sums_dtype(dtype)
    weight = present = None
    if sample_weight is not None:
        weight = checks.tensor("sample_weight", sample_weight)
        checks.same_shape("sample_weight", weight.shape, "labels", labels.shape)
        weight = ops.cast(weight, wide)
        present = weight != 0
        embeddings = where(present[:, None, None], embeddings, 0)
    scale = 1 / ops.cast(checks.one_number("temperature", temperature), wide)
    how = {"block_size": block_size, "dtype": dtype}
    root = ops.sqrt(scale)
    return Batch(embeddings, root, labels, present, weight, rows, how)


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


# Which rows of which matrices are compared, and from the gradients of these
# matrices to that of the embeddings.


def _themselves(x, rows):
    """All embeddings, and before them those of some examples, if not of all."""
    whole = _flat(x)
    if rows is None:
        return (whole,)
    return _flat(blocks.some_rows(x, rows)), whole


def _themselves_back(gradients, x, rows):
    *some, whole = (ops.reshape(each, (-1, *x.shape[1:])) for each in gradients)
    for each in some:
        whole = add(whole, blocks.all_rows(each, rows, whole))
    return whole


def _towers(x, rows):
    """Rows and columns, the hard negatives behind the others."""
    columns = x[:, 1]
    if x.shape[1] > 2:
        columns = ops.concatenate([columns, _flat(x[:, 2:])], axis=0)
    return blocks.some_rows(x, rows)[:, 0], columns


def _towers_back(gradients, x, rows):
    of_rows, columns = gradients
    count, views, dim = ops.shape(x)[0], x.shape[1], x.shape[2]
    of_rows = blocks.all_rows(of_rows, rows, x[:, 0])
    found = [of_rows[:, None], columns[:count, None]]
    if views > 2:
        found.append(ops.reshape(columns[count:], (-1, views - 2, dim)))
    return ops.concatenate(found, axis=1)


def _turned(x, rows):
    """The second embeddings of the examples as rows, and the first ones."""
    return blocks.some_rows(x, rows)[:, 1], x[:, 0]


def _turned_back(gradients, x, rows):
    second, first = gradients
    second = blocks.all_rows(second, rows, first)
    found = [first[:, None], second[:, None]]
    if x.shape[1] > 2:
        found.append(ops.zeros_like(x[:, 2:], dtype=first.dtype))
    return ops.concatenate(found, axis=1)


def _flat(x):
    return ops.reshape(x, (-1, x.shape[2]))


THEMSELVES = _themselves, _themselves_back
TOWERS = _towers, _towers_back
TURNED = _turned, _turned_back


def terms_of_columns(batch, targets, gaps):
    """The loss of each second embedding by all first ones."""
    count = ops.shape(batch.labels)[0]
    if gaps:
        gaps = {
            "row_gaps": gaps["column_gaps"][:count],
            "column_gaps": gaps["row_gaps"],
        }
    columns = targets.column_ids[:count]
    targets = SharedIds(columns, targets.row_ids, targets.number)
    what = blockwise.What(PairLogits(**gaps), targets, OnlineSoftmax())
    return batch.terms(crossed.InBatch, batch.some(what), TURNED)[0]


def among_themselves(batch, reduction=None, bias=None):
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
    logits = PairLogits(bias, own, **gaps)
    softmax = reduction is None
    if softmax:
        reduction = OnlineSoftmax()
    if batch.rows is None:
        what = crossed.Crossed(logits, targets, reduction, targets)
        losses = batch.terms(crossed.Mirrored, what, THEMSELVES)[0]
    else:
        what = batch.some(blockwise.What(logits, targets, reduction), views)
        losses = batch.terms(crossed.InBatch, what, THEMSELVES)[0]
    if softmax:
        losses = where(batch.some(number, views) > 0, losses, 0)
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


def with_hard(each, hard, value):
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
