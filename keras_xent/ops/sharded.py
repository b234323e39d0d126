"""A pass over class vectors that lie on several devices, some on each.

A loop that slices along an axis that is spread over devices makes XLA gather
the axis, once per step, and every device multiplies every block. Here the
columns are split by the devices that hold them, into `(shards, d, columns /
shards)`, and each step takes one block of every shard: a device slices within
what it has. What the shards say of a row is merged once, after the loop.

Per pass a device sends three numbers per row forwards, the maximum, the sum and
the target, and its part of the features' gradient backwards. The class vectors
and their gradient stay where they are.
"""

import numpy as np
from keras import ops

from keras_xent.ops import devices
from keras_xent.ops.blocks import Blocks
from keras_xent.ops.blockwise import Pass, What
from keras_xent.ops.description import COLUMNS, IDS


class ShardedPass(Pass):
    """A `Pass` in which every step takes a block of each shard.

    Args:
        left, right, what, columns, block_size, dtype: As in `row_terms`.
            `block_size` is that of all shards together.
        shards: How many there are. Where they do not divide the columns, some
            are added that are left out: the vectors of a column may lie on two
            devices.
    """

    def __init__(
        self, left, right, what, columns, block_size, dtype, *, shards
    ):
        right, what = _filled(right, what, columns, shards)
        super().__init__(left, right, what, columns, block_size, dtype)
        self.shards = shards

    def sums(self, left, right, what):
        def of_shard(shard):
            right, part = self._shard(what, shard)
            return Pass.sums(self, left, right, part)

        found = ops.vectorized_map(of_shard, self._split(right, what))
        return what.reduction.merged(found)

    def gradients(self, left, right, what, sums, upstream):
        def of_shard(shard):
            right, part = self._shard(what, shard)
            return Pass.gradients(self, left, right, part, sums, upstream)

        d_left, d_right, learned = ops.vectorized_map(
            of_shard, self._split(right, what)
        )
        learned = {
            name: ops.reshape(x, (-1,))
            if what.logits.kind(name) == COLUMNS
            else ops.sum(x, axis=0)
            for name, x in learned.items()
        }
        return ops.sum(d_left, axis=0), self._joined(d_right), learned

    def _split(self, right, what):
        """What each shard has of its own, along a new first axis."""
        count, width = self.shards, right.shape[1 - self.columns]
        if self.columns == 1:
            parts = ops.reshape(right, (width, count, -1))
            parts = ops.transpose(parts, (1, 0, 2))
        else:
            parts = ops.reshape(right, (count, -1, width))
        each = what.logits.vectors_per_column
        size = right.shape[self.columns] // each // count
        tensors = {
            part: {
                name: ops.reshape(x, (count, size))
                for name, x in description.tensors().items()
                if description.kind(name) == COLUMNS
            }
            for part, description in what._asdict().items()
        }
        return parts, ops.arange(count, dtype="int32") * size, tensors

    def _shard(self, what, shard):
        """The right factor and the descriptions of a shard."""
        right, first, tensors = shard
        parts = {}
        for part, description in what._asdict().items():
            ids = {
                name: x - first
                for name, x in description.tensors().items()
                if description.kind(name) == IDS
            }
            parts[part] = description.holding({**tensors[part], **ids})
        return right, What(**parts)

    def _joined(self, parts):
        """The parts of all shards as one matrix."""
        if self.columns == 0:
            return ops.reshape(parts, (-1, parts.shape[2]))
        width = parts.shape[1]
        return ops.reshape(ops.transpose(parts, (1, 0, 2)), (width, -1))

    def _column_blocks(self, left, right, logits):
        each = logits.vectors_per_column
        if self.block_size is None:
            size = devices.column_block(left, self.shards) // each
        else:
            size = self.block_size // self.shards
        return Blocks(right.shape[self.columns] // each, max(size, 1))


def _filled(right, what, columns, shards):
    """The right factor and the descriptions, with whole columns per shard."""
    each = what.logits.vectors_per_column
    count = right.shape[columns] // each
    more = -count % shards
    if not more:
        return right, what

    def filled(description):
        tensors = description.tensors().items()
        return description.holding(
            {
                name: ops.pad(x, [(0, more)])
                for name, x in tensors
                if description.kind(name) == COLUMNS
            }
        )

    widths = [(0, 0), (0, 0)]
    widths[columns] = (0, more * each)
    shut = np.repeat(np.array([0, -np.inf], "float32"), [count, more])
    parts = {part: filled(x) for part, x in what._asdict().items()}
    parts["logits"] = what.logits.filled(ops.convert_to_tensor(shut))
    return ops.pad(right, widths), What(**parts)
