"""Which columns are right for a row.

`t` is the share of a column in what is right for a row: Σ_k t_k = 1, or 0 for a
row for which none is right.
"""

import keras
from keras import ops

from keras_xent._types import Tensor
from keras_xent.ops.blocks import Blocks, add, cut, in_place
from keras_xent.ops.description import (
    Description,
    column_id,
    description,
    per_column,
    per_row,
)
from keras_xent.ops.select import where

BACKEND = keras.backend.backend()


@description
class OneTarget(Description):
    """One column per row.

    The diagonal, where row i belongs to column i, is `OneTarget(arange(n))`.

    Args:
        labels: Integers `(rows,)`. None of the columns if out of range.
    """

    labels: Tensor | None = column_id()

    def hits(self, logits):
        """Which entries of a block are right."""
        columns = ops.arange(ops.shape(logits)[1], dtype="int32")
        return self.labels[:, None] == columns[None, :]

    def pick(self, logits):
        """Σ_k t_k x_k over a block."""
        if 0 in logits.shape:
            # TensorFlow's gather wants a row if there is no column.
            return ops.sum(logits, axis=1)
        column, inside = self._inside(logits)
        picked = ops.take_along_axis(logits, column[:, None], axis=1)[:, 0]
        return where(inside, picked, 0)

    def add(self, block, amount):
        """block + amount · t, in the memory of the block where that can be."""
        if in_place():
            # n numbers, not a pass over the block. XLA makes that pass
            # together with the exponential.
            column, inside = self._inside(block)
            rows = ops.arange(block.shape[0], dtype="int32")
            block[rows, column] += where(inside, amount, 0)
            return block
        return block + where(self.hits(block), amount[:, None], 0)

    def less(self, same):
        """The entries of a block of yes and no, without what is right."""
        if BACKEND == "torch" and 0 not in same.shape:
            # n entries, not a pass over the block. Nothing is differentiated.
            column, inside = self._inside(same)
            rows = ops.arange(same.shape[0], dtype="int32")
            same[rows, column] &= ~inside
            return same
        return same & ~self.hits(same)

    def _inside(self, block):
        """The column of each row in the block, and whether it is in there."""
        column, size = self.labels, ops.shape(block)[1]
        inside = (column >= 0) & (column < size)
        return where(inside, column, 0), inside


@description
class SharedIds(Description):
    """All columns that share the id of the row, each to the same part.

    Args:
        row_ids: Integers `(rows,)`.
        column_ids: Integers `(columns,)`.
        number: How many columns share the id of a row: `SharedIds.of`.
        own: The column of each row that is none of them although it shares the
            id, as in a batch that is compared with itself; or None.
    """

    row_ids: Tensor | None = per_row()
    column_ids: Tensor | None = per_column()
    number: Tensor | None = per_row()
    own: Tensor | None = column_id()

    @classmethod
    def of(cls, row_ids, column_ids, block_size=1024):
        """Counts the columns of each row, block by block."""

        def count(number, start, size):
            some = cut(column_ids, 0, start, size)
            same = row_ids[:, None] == some[None, :]
            return number + ops.sum(ops.cast(same, "int32"), axis=1)

        found = Blocks(ops.shape(column_ids)[0], block_size)
        number = found.loop(count, ops.zeros_like(row_ids, dtype="int32"))
        return cls(row_ids, column_ids, number)

    def hits(self, logits):
        same = self.row_ids[:, None] == self.column_ids[None, :]
        return same if self.own is None else OneTarget(self.own).less(same)

    def pick(self, logits):
        picked = ops.sum(where(self.hits(logits), logits, 0), axis=1)
        return picked / self._number(logits)

    def add(self, block, amount):
        part = (amount / self._number(block))[:, None]
        return add(block, where(self.hits(block), part, 0))

    def _number(self, block):
        return ops.cast(ops.maximum(self.number, 1), block.dtype)
