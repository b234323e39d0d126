"""A reduction over logits that never exist as a whole.

The logits of a classifier are made from a product, features times kernel, of
n × v numbers: for 8,192 tokens and 128,000 words 4 GB, several times over in
the backward pass. Here the product is made in blocks. There are two ways:

- `row_terms`, blocks of columns. Forwards, a block adds to a few numbers per
  row and is forgotten. Backwards it is made again, turned into its gradient,
  and multiplied with the other factor: four matrix products instead of three.
- `weighted_sum`, blocks of rows, where the weight of each row in the loss is
  known. A row is finished within its block, so that the block is turned into
  its gradient at once, in the forward pass: three products.

What the logits *are*, which of them are right, and what is made of them, is
said by three descriptions (`logits.py`, `targets.py`, `reductions.py`). A new
loss needs a new description and no new loop.

Products are made in one dtype, which may be float16 or bfloat16; exponentials,
sums and the gradient of the features are in float32 at least.
"""

import typing

import keras
from keras import ops

from keras_xent import _keras
from keras_xent.ops import blocks, devices, extrema
from keras_xent.ops.description import Description
from keras_xent.ops.dtypes import dtype_of, sums_dtype
from keras_xent.ops.logits import gathered, nothing_learned
from keras_xent.ops.select import where

BACKEND = keras.backend.backend()

# float16 ends at 65504. Row weights are scaled to this sum, so that one row of
# 8,192 keeps its digits, and that a column of the kernel's gradient stays below
# the end for features up to this size; for larger ones the sum is smaller.
FLOAT16_SUM = 2048.0
FLOAT16_FEATURE = 16.0


class What(typing.NamedTuple):
    """What is made of a product of two factors.

    Attributes:
        logits: How products become logits, as `logits.Logits`.
        targets: Which columns are right, as `targets.OneTarget`.
        reduction: What becomes of a row, as `reductions.OnlineSoftmax`.
        loss: The loss of a row, as `reductions.SoftmaxLoss`, for
            `weighted_sum`.
    """

    logits: Description
    targets: Description
    reduction: Description
    loss: Description = Description()

    def rows(self, start, size):
        return What(*(x.rows(start, size) for x in self))

    def columns(self, start, size):
        return What(*(x.columns(start, size) for x in self))


def row_terms(left, right, what, *, columns=1, block_size=None, dtype=None):
    """What the reduction makes of each row of logits made from left · right.

    Args:
        left: `(n, d)`.
        right: `(d, v)`, or `(v, d)` with `columns=0`.
        what: The descriptions, `What`.
        columns: The axis of the columns in `right`.
        block_size: The columns of a block. None chooses.
        dtype: The dtype of the products. None is that of `left`.

    Returns:
        A list of tensors `(n,)`, float32, or float64 if the products are. What
        the reduction gives a gradient of may be differentiated with respect to
        left, right and what the logits have learned.
    """
    return Pass(left, right, what, columns, block_size, dtype).terms()


def weighted_sum(left, right, what, *, columns=1, block_size=None, dtype=None):
    """The sum of the losses of all rows, and what it is made of.

    Args:
        left, right, what, columns, dtype: As in `row_terms`; `what.loss` says
            what the loss of a row is, weight and all.
        block_size: The rows of a block. None chooses.

    Returns:
        A number, to be differentiated once, and the list of `row_terms`,
        without gradients.
    """
    both = Pass(left, right, what, columns, block_size, dtype)
    result = _keras.own_gradient(both.summed)(*both.arguments)
    terms = ops.reshape(ops.stop_gradient(result[1:]), (-1, both.count))
    return result[0], ops.unstack(terms, both.count, axis=1)


def gradients_forwards(x):
    """Whether `weighted_sum` is the faster way on the device of a tensor.

    On an H100, [8192, 2304] × 256,000 in bfloat16, it took 89 to 99 ms of
    PyTorch and 58 to 62 of JAX, and four products took 123 and 64 at best. On
    two cores of a CPU the fourth product costs less than what the rows of all
    columns ask of the cache and the memory: 2048 × 131,072 in float32 took 3.1
    s and 147 MB with four products in plain PyTorch, and with three 3.2 s and
    200 MB in blocks of 128 rows, 2.9 s and 264 MB in blocks of 256; in
    `keras.ops` under XLA 2.0 s against 3.8.
    """
    if BACKEND == "torch" and not _keras.records_backward_pass():
        return False  # Nobody wants a gradient.
    return devices.on_accelerator(x) and not devices.rows_may_be_spread()


class Pass:
    """Forward and backward over the blocks, as `custom_gradient` wants it.

    All tensors are arguments: JAX loses those that are only closed over when
    the gradient of a compiled function is taken.
    """

    def __init__(self, left, right, what, columns, block_size, dtype):
        self.what = what
        self.columns = columns
        self.block_size = block_size
        self.dtype = dtype or dtype_of(left)
        self.wide = sums_dtype(self.dtype)
        self.names = [
            (part, name)
            for part, each in what._asdict().items()
            for name in each.tensors()
        ]
        tensors = [x for each in what for x in each.tensors().values()]
        # TensorFlow's custom gradient takes no variables, and Keras converts a
        # variable into itself. A reshape reads it, and copies nothing anywhere.
        self.arguments = [
            ops.reshape(x, ops.shape(x)) for x in (left, right, *tensors)
        ]
        self.count = what.reduction.count

    def _unpack(self, arguments):
        left, right, *tensors = arguments
        held = {part: {} for part in self.what._fields}
        for (part, name), tensor in zip(self.names, tensors, strict=True):
            held[part][name] = tensor
        parts = self.what._asdict()
        what = type(self.what)(
            **{part: x.holding(held[part]) for part, x in parts.items()}
        )
        return left, right, what

    # Blocks of columns ------------------------------------------------------

    def terms(self):
        """What `row_terms` returns."""
        terms = _keras.own_gradient(self.per_row)(*self.arguments)
        return ops.unstack(terms, self.count, axis=1)

    def per_row(self, *arguments):
        """The stacked terms, and the function that makes the gradients."""
        left, right, what = self._unpack(arguments)
        sums = self.sums(left, right, what)
        terms = ops.stack(what.reduction.finish(sums), axis=1)

        def grad(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            check_not_recorded()
            upstream = ops.unstack(upstream, self.count, axis=1)
            d_left, d_right, learned = self.gradients(
                left, right, what, sums, upstream
            )
            return (
                ops.cast(d_left, left.dtype),
                d_right,
                *self._of_arguments(what, logits=learned),
            )

        return terms, grad

    def sums(self, left, right, what):
        """The sums of the columns of `right`.

        These may be a shard of more: its sums are merged with those of others,
        and it is told of its columns, `what.columns(offset, size)`.
        """
        left = ops.cast(left, self.dtype)

        def add(sums, start, size):
            part = what.columns(start, size)
            products = left @ self._factor(part.logits, right, start, size)
            products = self._given(part, products)
            logits = part.logits.block(products, part.targets)
            return part.reduction.add(sums, logits, part.targets)

        zeros = ops.zeros_like(left[:, 0], dtype=self.wide)
        each = self._column_blocks(left, right, what.logits)
        return each.loop(add, what.reduction.init(zeros))

    def gradients(self, left, right, what, sums, upstream):
        """The gradients of the factors, and of what the logits have learned.

        Of a shard they are its part of the left one, and all of the right one.

        Args:
            left, right, what: As in `sums`.
            sums: Those of all columns, of all shards.
            upstream: The gradients of what the reduction makes of them.
        """
        left = ops.cast(left, self.dtype)
        upstream, scale = self._scaled(upstream, left)

        def write(state, start, size):
            d_left, d_right, learned = state
            part = what.columns(start, size)
            factor = self._factor(part.logits, right, start, size)
            products = self._given(part, left @ factor)
            gradient, found = self._back(part, products, sums, upstream)
            learned = gathered(what.logits, learned, found, 0, start)
            gradient = ops.cast(gradient, self.dtype)
            a, b = self._factors_of_right(left, gradient)
            block = times(self._wide(a @ b), scale)
            d_right = self._put_right(part.logits, d_right, right, start, block)
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
        return times(d_left, scale), d_right, learned

    def _column_blocks(self, left, right, logits):
        size, each = self.block_size, logits.vectors_per_column
        if size is None:
            size = max(devices.column_block(left) // each, 1)
        return blocks.Blocks(ops.shape(right)[self.columns] // each, size)

    # Blocks of rows ---------------------------------------------------------

    def summed(self, *arguments):
        """The loss with the terms behind it, and the gradients of the loss."""
        left, right, what = self._unpack(arguments)
        if _keras.records_backward_pass():
            # Differentiated as it is written: no gradients are to be made.
            terms = what.reduction.finish(self.sums(left, right, what))
            return _flat(ops.sum(what.loss.of(terms)), terms), None
        total, terms, gradients = self._in_rows(left, right, what)
        made = [gradients]

        def grad(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            check_not_recorded()
            # They are scaled in place, on PyTorch: a second time they are made
            # anew.
            gradients = (
                made.pop() if made else self._in_rows(left, right, what)[2]
            )
            d_left, d_right, learned = gradients
            by_weights = what.loss.slopes(terms)
            scale = upstream[0]
            learned, by_weights = (
                {name: x * scale for name, x in each.items()}
                for each in (learned, by_weights)
            )
            d_right = blocks.multiply(d_right, ops.cast(scale, d_right.dtype))
            return (
                ops.cast(blocks.multiply(d_left, scale), left.dtype),
                ops.cast(d_right, right.dtype),
                *self._of_arguments(what, logits=learned, loss=by_weights),
            )

        return _flat(total, terms), grad

    def _in_rows(self, left, right, what):
        """The loss, the terms, and the gradients of the loss."""
        left = ops.cast(left, self.dtype)
        each = what.logits.vectors_per_column
        whole = what.logits.vectors(right, 1 - self.columns)
        whole = ops.cast(whole, self.dtype)
        count, columns = ops.shape(left)[0], ops.shape(right)[self.columns]
        columns = columns // each
        if self.columns == 0:
            whole = ops.transpose(whole)
        size = self.block_size or devices.row_block(
            count, columns * each, self.dtype
        )
        chunks = blocks.Blocks(columns, devices.column_chunk(size))

        def step(state, first, size):
            total, terms, d_left, d_right, learned = state
            part = what.rows(first, size)
            x = blocks.cut(left, 0, first, size)
            products = x @ whole
            zeros = ops.zeros_like(x[:, 0], dtype=self.wide)

            def add(sums, start, size):
                inner = part.columns(start, size)
                some = self._chunk(inner, products, start, size)
                logits = inner.logits.block(some, inner.targets)
                return inner.reduction.add(sums, logits, inner.targets)

            sums = chunks.loop(add, part.reduction.init(zeros))
            found = part.reduction.finish(sums)
            total = total + ops.sum(part.loss.of(found))
            terms = blocks.put(terms, 0, first, ops.stack(found, axis=1))
            upstream, scale = self._scaled(part.loss.back(found), x)

            def turn(state, start, size):
                products, learned = state
                inner = part.columns(start, size)
                some = self._chunk(inner, products, start, size)
                gradient, found = self._back(inner, some, sums, upstream)
                found = {name: times(x, scale) for name, x in found.items()}
                return (
                    blocks.put(products, 1, start * each, gradient),
                    gathered(part.logits, learned, found, first, start),
                )

            gradient, learned = chunks.loop(turn, (products, learned))
            rows = self._wide(gradient @ ops.transpose(whole))
            d_left = blocks.put(d_left, 0, first, times(rows, scale))
            a, b = self._factors_of_right(x, gradient)
            if scale is None:
                d_right = blocks.add_product(d_right, a, b)
            else:
                block = times(self._wide(a @ b), scale)
                d_right = d_right + ops.cast(block, d_right.dtype)
            return total, terms, d_left, d_right, learned

        zeros = ops.zeros_like(left[:, 0], dtype=self.wide)
        rows = blocks.Blocks(count, size)
        total, terms, d_left, d_right, learned = rows.loop(
            step,
            (
                ops.sum(zeros),
                ops.stack([zeros] * self.count, axis=1),
                ops.zeros_like(left, dtype=self.wide),
                ops.zeros_like(right, dtype=self._sum_dtype(right, rows)),
                nothing_learned(what.logits, self.wide),
            ),
        )
        if what.logits.prepares:
            each = blocks.Blocks(columns, devices.column_block(left))
            d_right = self._of_stored(what.logits, d_right, right, each)
        terms = ops.unstack(terms, self.count, axis=1)
        return total, terms, (d_left, d_right, learned)

    def _of_stored(self, logits, d_right, right, each):
        """From the gradient of prepared vectors to that of the stored ones."""

        def back(d_right, start, size):
            block = self._vectors(logits, d_right, start, size)
            block = self._wide(block)
            return self._put_right(logits, d_right, right, start, block)

        return each.loop(back, d_right)

    def _sum_dtype(self, right, rows):
        """In what the gradient of the right factor is added up."""
        dtype = dtype_of(right)
        few = isinstance(rows.full, int) and rows.full < devices.MOST_ROW_BLOCKS
        # float16 loses what a loss scale has not been put on yet.
        if dtype == "float16" or (dtype == "bfloat16" and not few):
            return self.wide
        return dtype

    # Both -------------------------------------------------------------------

    def _factor(self, logits, right, start, size):
        """A block of columns as `(d, size)`, in the dtype of the products."""
        block = self._vectors(logits, right, start, size)
        block = logits.vectors(block, 1 - self.columns)
        block = ops.cast(block, self.dtype)
        return block if self.columns == 1 else ops.transpose(block)

    def _vectors(self, logits, right, start, size):
        """What is stored in the right factor for a block of columns."""
        each = logits.vectors_per_column
        return blocks.cut(right, self.columns, start * each, size * each)

    def _put_right(self, logits, d_right, right, start, block):
        """Writes the gradient of a block, given that of what it was made to."""
        each, axis = logits.vectors_per_column, self.columns
        if logits.prepares:
            stored = blocks.cut(
                right, axis, start * each, ops.shape(block)[axis]
            )
            block = logits.vectors_back(block, stored, 1 - axis)
        return blocks.put(d_right, axis, start * each, block)

    def _factors_of_right(self, left, gradient):
        """The two whose product is the gradient of a block of `right`."""
        if self.columns == 1:
            return ops.transpose(left), gradient
        return ops.transpose(gradient), left

    def _back(self, part, products, sums, upstream):
        """From a block of products to the gradients of what it is made of."""
        reads = part.logits.reads_back
        logits = part.logits.block(products, part.targets)
        given = ops.copy(logits) if reads else logits
        gradient = part.reduction.back(upstream, sums, given, part.targets)
        return part.logits.back(gradient, products, logits, part.targets)

    def _given(self, part, products):
        """Products as the logits are made from."""
        plain = part.logits.plain and part.reduction.widens
        if BACKEND == "torch" and plain:
            # Taken to float32 in the next operation: one pass less.
            return products
        return self._wide(products)

    def _chunk(self, part, products, start, size):
        """Some columns of products that are still needed as they are."""
        if BACKEND != "torch":
            return self._wide(products)
        each = part.logits.vectors_per_column
        some = products[:, start * each : (start + size) * each]
        if self.dtype == self.wide:
            return ops.copy(some)
        return self._given(part, some)

    def _wide(self, x):
        return ops.cast(x, self.wide)

    def _scaled(self, upstream, left):
        """Gradients that float16 can hold, and what they were divided by."""
        if self.dtype != "float16":
            return upstream, None
        size = ops.sum(sum(abs(x) for x in upstream))
        largest = extrema.largest(abs(left), 0)
        largest = ops.cast(largest, self.wide) / FLOAT16_FEATURE
        size = size * ops.maximum(largest, 1)
        scale = where(size > 0, size / FLOAT16_SUM, 1)
        return [x / scale for x in upstream], scale

    def _of_arguments(self, what, **found):
        """Gradients in the order of the tensors, None where there is none."""
        gradients = []
        for part, name in self.names:
            x = found.get(part, {}).get(name)
            dtype = getattr(getattr(what, part), name).dtype
            gradients.append(None if x is None else ops.cast(x, dtype))
        return gradients


def times(x, scale):
    """x · scale; x where the scale is None."""
    return x if scale is None else x * scale


def _flat(total, terms):
    rows = ops.reshape(ops.stack(terms, axis=1), (-1,))
    return ops.concatenate([ops.reshape(total, (1,)), rows])


def check_not_recorded():
    if _keras.records_backward_pass():
        raise NotImplementedError(
            "On PyTorch the gradients of a cross-entropy without logits cannot "
            "be differentiated again. Received `create_graph=True`: leave it "
            "out, or make the logits and use sparse_softmax_crossentropy."
        )
