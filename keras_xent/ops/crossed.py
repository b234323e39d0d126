"""Rows against columns, and columns against rows, from the same products.

Two towers are asked both ways which of the others belongs to each, and a batch
that is compared with itself has the same product on either side of the
diagonal. A block holds some columns and all rows: what becomes of these columns
is known within the block, by the reduction of its transpose, while that of the
rows is merged from block to block. Backwards a block is made once more, and its
gradient is the sum of both:

- `Crossing`, two matrices: four products, two of them to make a block and two
  for its gradients, for both directions together.
- `Mirrored`, a matrix with itself: x_ij = x_ji, so that the gradient G + Gᵀ of
  a block is known from the sums of the rows, and is multiplied with one factor:
  three products.

All are used as `blockwise.Pass` is, by `per_row`: the matrices have one row per
row and per column of the logits. `InBatch` is the same in one direction. Of a
batch that is spread over devices each compares its rows with all columns.
"""

import typing

from keras import ops

from keras_xent.ops import blocks
from keras_xent.ops.blockwise import Pass, check_not_recorded, times
from keras_xent.ops.description import Description
from keras_xent.ops.devices import on_all_devices, over_devices, spread
from keras_xent.ops.logits import gathered, nothing_learned


class Crossed(typing.NamedTuple):
    """What is made of a product of two factors, by rows and by columns.

    Attributes:
        logits, targets, reduction: As in `blockwise.What`. The logits are one
            number for both directions.
        across: Which rows are right for a column: as `targets` for the
            transposed logits. Its rows are the columns.
    """

    logits: Description
    targets: Description
    reduction: Description
    across: Description

    def columns(self, start, size):
        return Crossed(
            self.logits.columns(start, size),
            self.targets.columns(start, size),
            self.reduction.columns(start, size),
            self.across.rows(start, size),
        )


class InBatch(Pass):
    """Forward and backward over the blocks, where the columns are of the batch.

    What has a number per column is gathered from the devices once, before the
    blocks are read: else each block is gathered anew, with all others.
    """

    def _unpack(self, arguments):
        left, *others = arguments
        others = [on_all_devices(x) for x in others]
        return super()._unpack((over_devices(left), *others))

    def gradients(self, *arguments):
        d_left, d_right, learned = super().gradients(*arguments)
        return d_left, on_all_devices(d_right), learned


class Crossing(InBatch):
    """Forward and backward over the blocks, in both directions.

    The terms of the columns come after those of the rows.
    """

    def per_row(self, *arguments):
        left, right, what = self._unpack(arguments)
        finish = what.reduction.finish
        sums = self.both_sums(left, right, what)
        each = [ops.stack(finish(x), axis=1) for x in sums]

        def grad(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            check_not_recorded()
            d_left, d_right, learned = self.both_gradients(
                left, right, what, sums, upstream
            )
            return (
                ops.cast(d_left, left.dtype),
                d_right,
                *self._of_arguments(what, logits=learned),
            )

        return ops.concatenate(each, axis=0), grad

    def both_sums(self, left, right, what):
        """The sums of the rows, and those of the columns."""
        left = ops.cast(left, self.dtype)

        def add(state, start, size):
            sums, across = state
            part = what.columns(start, size)
            factor = self._factor(part.logits, right, start, size)
            products = self._given(part, left @ factor)
            logits = part.logits.block(products, part.targets)
            none = part.reduction.init(ops.zeros_like(factor[0], self.wide))
            found = part.reduction.add(none, _turned(logits), part.across)
            across = tuple(
                blocks.put(x, 0, start, y) if len(x.shape) else x
                for x, y in zip(across, found, strict=True)
            )
            return part.reduction.add(sums, logits, part.targets), across

        init = what.reduction.init
        sums = init(ops.zeros_like(left[:, 0], dtype=self.wide))
        across = init(ops.zeros_like(right[:, 0], dtype=self.wide))
        # Written in place on PyTorch, and no two may be one.
        across = tuple(ops.copy(x) for x in across)
        each = self._column_blocks(left, right, what.logits)
        sums, across = each.loop(add, (sums, across))
        return sums, [on_all_devices(x) for x in across]

    def both_gradients(self, left, right, what, sums, upstream):
        """The gradients of the factors, and of what the logits have learned."""
        left = ops.cast(left, self.dtype)
        rows = ops.shape(left)[0]
        upstream = ops.unstack(upstream, self.count, axis=1)
        upstream, scale = self._scaled(upstream, left)
        of_rows, of_columns = (
            [x[:rows] for x in upstream],
            [on_all_devices(x[rows:]) for x in upstream],
        )

        def write(state, start, size):
            d_left, d_right, learned = state
            factor, gradient, found = self._block(
                left, right, what, sums, of_rows, of_columns, start, size
            )
            learned = gathered(what.logits, learned, found, 0, start)
            block = self._wide(ops.transpose(gradient) @ left)
            d_right = blocks.put(d_right, 0, start, times(block, scale))
            d_left = blocks.add_product(d_left, gradient, ops.transpose(factor))
            return d_left, d_right, learned

        each = self._column_blocks(left, right, what.logits)
        d_left, d_right, learned = each.loop(
            write,
            (
                ops.zeros_like(left, dtype=self.wide),
                ops.zeros_like(right),
                nothing_learned(what.logits, self.wide),
            ),
        )
        learned = {name: times(x, scale) for name, x in learned.items()}
        return times(d_left, scale), on_all_devices(d_right), learned

    def _block(self, left, right, what, sums, of_rows, of_columns, start, size):
        """A block of the right factor, and the gradients of its logits."""

        def cut(x):
            return blocks.cut(x, 0, start, size) if len(x.shape) else x

        part = what.columns(start, size)
        factor = self._factor(part.logits, right, start, size)
        products = self._given(part, left @ factor)
        logits = part.logits.block(products, part.targets)
        by_columns = part.reduction.back(
            [cut(x) for x in of_columns],
            [cut(x) for x in sums[1]],
            _turned(logits),
            part.across,
        )
        reads = part.logits.reads_back
        given = ops.copy(logits) if reads else logits
        by_rows = part.reduction.back(of_rows, sums[0], given, part.targets)
        gradient = blocks.add(by_rows, ops.transpose(by_columns))
        gradient, found = part.logits.back(
            gradient, products, logits, part.targets
        )
        return factor, ops.cast(gradient, self.dtype), found


class Mirrored(Crossing):
    """Forward and backward where both factors are one matrix, given once.

    Logits and targets must be the same for (i, j) and for (j, i), and `across`
    is `targets`.
    """

    def per_row(self, *arguments):
        x, *tensors = arguments
        left, right, what = self._unpack((x, x, *tensors))
        sums = self.sums(left, right, what)

        def grad(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            check_not_recorded()
            d_x, learned = self.own_gradients(left, right, what, sums, upstream)
            return d_x, *self._of_arguments(what, logits=learned)

        return ops.stack(what.reduction.finish(sums), axis=1), grad

    def own_gradients(self, left, right, what, sums, upstream):
        """The gradient of the matrix, and of what the logits have learned."""
        dtype = left.dtype
        left = ops.cast(left, self.dtype)
        upstream = ops.unstack(upstream, self.count, axis=1)
        upstream, scale = self._scaled(upstream, left)
        across = [on_all_devices(x) for x in sums]
        of_columns = [on_all_devices(x) for x in upstream]
        by_rows = spread() is not None

        def write(state, start, size):
            d_x, learned = state
            factor, gradient, found = self._block(
                left,
                right,
                what,
                (sums, across),
                upstream,
                of_columns,
                start,
                size,
            )
            learned = gathered(what.logits, learned, found, 0, start)
            if by_rows:
                # Each device adds to its rows, and asks the others nothing.
                factor = ops.transpose(factor)
                return blocks.add_product(d_x, gradient, factor), learned
            block = self._wide(ops.transpose(gradient) @ left)
            return blocks.put(d_x, 0, start, times(block, scale)), learned

        each = self._column_blocks(left, right, what.logits)
        none = ops.zeros_like(left, dtype=self.wide if by_rows else dtype)
        d_x, learned = each.loop(
            write, (none, nothing_learned(what.logits, self.wide))
        )
        if by_rows:
            d_x = ops.cast(times(d_x, scale), dtype)
        # Each pair has been met on both sides of the diagonal.
        learned = {name: times(x / 2, scale) for name, x in learned.items()}
        return d_x, learned


def _turned(logits):
    """The block with a row for each column, in memory that may be taken."""
    return ops.transpose(ops.copy(logits))
