"""Cross-entropy of a matrix product that never exists as a whole.

The logits of a classifier are a product, features times kernel, of n × v
numbers: for 8,192 tokens and 128,000 words 4 GB, several times over in the
backward pass. Here the product is made in blocks of columns. Forwards, a block
adds to four numbers per row (an online log-sum-exp) and is forgotten.
Backwards, it is made again, turned into its gradient, and multiplied with the
other factor: four matrix products in all, instead of three, and no memory.

What the logits *are* is said by a description (`SoftmaxLogits`): how a block of
products becomes a block of logits, and which column is the target of a row. A
new kind of logits needs a new description and no new loop.

The loop is `ops.fori_loop`. XLA unrolls a Python loop and keeps most of the
blocks alive at once.
"""

import copy
import typing

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent.ops import checks, extrema

BACKEND = keras.backend.backend()

# Stands for the maximum of logits that are all −inf: exp(−inf − LOWEST) is 0,
# exp(−inf − −inf) would be NaN.
LOWEST = float(np.finfo("float32").min)

# Bytes of a block of logits, 1024 columns for 2048 rows. Smaller blocks make
# poor use of the matrix product, larger ones take memory and save no time:
# python benchmarks/linear_crossentropy.py --kinds blocks.
BLOCK_BYTES = 2**23

# A product with fewer columns wastes its time on the other factor.
SMALLEST_BLOCK = 256

# Stands for the number of rows where it is unknown when the block is chosen.
USUAL_ROWS = 2048


class Terms(typing.NamedTuple):
    """What a block-wise pass gives, one number per row.

    Attributes:
        nll: Σ_k t_k (lse − x_k), the loss of the targets t, which sum to 1.
        spread: Σ_k s_k (lse − x_k), the loss of the shares s.
        log_sum: lse = log Σ_k exp(x_k).
        gap: max_k x_k − Σ_k t_k x_k: 0 where the target is the top class. No
            gradient goes through it, nor through the next two.
        entropy: Σ_k p_k (lse − x_k), p the softmax. Given with a `bar`.
        above: How many columns but the target are above the `bar`.
    """

    nll: object
    spread: object
    log_sum: object
    gap: object
    entropy: object = None
    above: object = None


class SoftmaxLogits:
    """How products become logits: x = c · tanh((product + bias) / c).

    One column per row is the target. A column whose bias is −inf is masked out.

    Args:
        labels: Integer tensor `(n,)`, the target column of each row. None of
            the columns if out of range.
        softcap: c > 0, or None for x = product + bias.
        shares: s, a vector of one number per column, or None.
        bar: One logit per row, that of its target: asks for the entropy, and
            for how many logits are above. It has to be known before the pass.

    Attributes:
        tensors: The names of the attributes that are tensors. They go through
            the custom gradient as arguments: JAX loses those that are only
            closed over when the gradient of a compiled function is taken.
    """

    tensors = ("labels", "shares", "bar")

    def __init__(self, labels, softcap=None, shares=None, bar=None):
        self.labels = labels
        self.softcap = softcap
        self.shares = shares
        self.bar = bar

    def logits(self, products, bias, start):
        """A block of logits, whose first column is `start` of all.

        It may take the memory of the products.
        """
        if bias is not None:
            products += bias[None, :]
        if self.softcap is None:
            return products
        capped = self.softcap * _tanh(products / self.softcap)
        if bias is None:
            return capped
        return ops.where(bias[None, :] > -np.inf, capped, -np.inf)

    def through(self, gradient, logits, bias, start):
        """The gradient of the products from that of a block of logits."""
        if self.softcap is None:
            return gradient
        slope = 1 - (logits / self.softcap) ** 2
        if bias is not None:
            slope = ops.where(bias[None, :] > -np.inf, slope, 0)
        return gradient * slope

    def pick(self, logits, start):
        """Σ_k t_k x_k over a block that starts at column `start`."""
        column, inside = self._columns(logits, start)
        picked = ops.take_along_axis(logits, column[:, None], axis=1)[:, 0]
        return ops.where(inside, picked, 0)

    def add_targets(self, gradient, start, amount):
        """Adds amount · t_k to a block, in place where there is a place."""
        if BACKEND == "torch":
            # In place: n numbers, not a pass over the block. XLA makes that
            # pass together with the exponential.
            column, inside = self._columns(gradient, start)
            rows = ops.arange(gradient.shape[0], dtype="int32")
            gradient[rows, column] += ops.where(inside, amount, 0)
            return gradient
        hit = self._hits(gradient, start)
        return gradient + ops.where(hit, amount[:, None], 0)

    def count_above(self, logits, start):
        """How many columns of a block, the target aside, are above the bar."""
        above = (logits > self.bar[:, None]) & ~self._hits(logits, start)
        return ops.sum(ops.cast(above, logits.dtype), axis=1)

    def _hits(self, block, start):
        """Which entries of the block are targets."""
        columns = ops.arange(ops.shape(block)[1], dtype="int32")
        return (self.labels - start)[:, None] == columns[None, :]

    def _columns(self, block, start):
        """The target's place in the block, and whether it is in there."""
        size = ops.shape(block)[1]
        column = self.labels - start
        inside = (column >= 0) & (column < size)
        return ops.where(inside, column, 0), inside


class Blocks:
    """The columns in blocks of one size, after a first one with the rest.

    Args:
        size: The number of columns.
        rows: The number of rows, None if unknown.
        block_size: The columns of a block; None to choose by `BLOCK_BYTES`.
    """

    def __init__(self, size, rows, block_size):
        if block_size is None:
            # Symbolic on JAX where a functional model is made.
            known = isinstance(rows, int) and rows > 0
            row_bytes = 4 * (rows if known else USUAL_ROWS)
            block_size = max(BLOCK_BYTES // row_bytes, SMALLEST_BLOCK)
        self.size = block_size
        self.full = (size - 1) // block_size
        self.first = size - self.full * block_size

    def loop(self, body, state):
        """Calls `state = body(state, start, size)` for all but the first."""
        if isinstance(self.full, int) and self.full == 0:
            return state
        return ops.fori_loop(
            0,
            self.full,
            lambda i, state: body(state, self.first + i * self.size, self.size),
            state,
        )


def crossentropy_terms(
    left, right, bias, description, *, columns=1, block_size=None
):
    """The terms of the cross-entropy of logits made from left · right.

    Args:
        left: `(n, d)`. float16 and bfloat16 are computed with in float32.
        right: `(d, v)`, or `(v, d)` with `columns=0`.
        bias: `(v,)` or None.
        description: What the products mean, such as `SoftmaxLogits`.
        columns: The axis of the columns in `right`.
        block_size: The columns of a block. None chooses.

    Returns:
        `Terms` of shape `(n,)`, float32, or float64 if the factors are. The
        first three may be differentiated, with respect to left, right, bias.
    """
    factors = (left, right) if bias is None else (left, right, bias)
    # TensorFlow's custom gradient takes no variables, and Keras converts a
    # variable into itself. A reshape reads it, and copies nothing anywhere.
    factors = [ops.reshape(x, ops.shape(x)) for x in factors]
    both = _Pass(description, len(factors), columns, block_size)
    terms = _keras.own_gradient(both.forward)(*factors, *both.tensors)
    return Terms(*ops.unstack(terms, both.count, axis=1))


class _Pass:
    """Forward and backward over the blocks, as `custom_gradient` wants it."""

    def __init__(self, description, factors, columns, block_size):
        self.description = copy.copy(description)
        self.factors = factors
        self.columns = columns
        self.block_size = block_size
        self.count = 4 if description.bar is None else 6
        given = {
            name: getattr(description, name) for name in description.tensors
        }
        given = {name: x for name, x in given.items() if x is not None}
        self.names = list(given)
        self.tensors = [ops.convert_to_tensor(x) for x in given.values()]

    def forward(self, *arguments):
        """The stacked terms, and the function that makes the gradients."""
        left, right, *rest = arguments[: self.factors]
        bias = rest[0] if rest else None
        tensors = arguments[self.factors :]
        for name, tensor in zip(self.names, tensors, strict=True):
            setattr(self.description, name, tensor)
        blocks = Blocks(
            ops.shape(right)[self.columns], left.shape[0], self.block_size
        )
        wide = _wide(left)
        factors = (wide, right, bias)

        def add(state, start, size):
            return _merge(state, self._sums(factors, start, size))

        state = blocks.loop(add, self._sums(factors, 0, blocks.first))
        top, total, target, below, shared, *more = state
        log_total = ops.log(total)
        terms = [
            (top - target) + log_total,
            below + shared * log_total,
            top + log_total,
            top - target,
        ]
        if more:
            lost, above = more
            terms += [lost / total + log_total, above]

        def grad(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            if _keras.records_backward_pass():
                raise NotImplementedError(
                    "On PyTorch the gradients of a cross-entropy without "
                    "logits cannot be differentiated again. Received "
                    "`create_graph=True`: leave it out, or make the logits "
                    "and use sparse_softmax_crossentropy."
                )
            gradients = self._gradients(
                (left, right, bias), wide, blocks, upstream, state
            )
            return *gradients, *[None] * len(tensors)

        return ops.stack(terms, axis=1), grad

    def _block(self, factors, start, size):
        """A block of logits, with the factors that made it."""
        left, right, bias = factors
        right = _slice(right, self.columns, start, size)
        right = ops.cast(right, left.dtype)
        if self.columns == 0:
            right = ops.transpose(right)
        if bias is not None:
            bias = ops.cast(_slice(bias, 0, start, size), left.dtype)
        logits = self.description.logits(left @ right, bias, start)
        return logits, right, bias

    def _sums(self, factors, start, size):
        """What a block adds: maximum, Σ exp, target, Σ s (max − x), Σ s.

        With a bar, Σ exp · (max − x) and the number above it, too.
        """
        logits, _, _ = self._block(factors, start, size)
        target = self.description.pick(logits, start)
        top = extrema.largest(logits, LOWEST, axis=1)
        barred = self.description.bar is not None
        above = self.description.count_above(logits, start) if barred else None
        if _keras.records_backward_pass():
            logits = logits - top[:, None]
        else:  # A block less in memory, on PyTorch.
            logits -= top[:, None]
        shared = ops.zeros((), dtype=logits.dtype)
        below = ops.zeros_like(top)
        shares = self._shares(start, size, logits.dtype)
        if shares is not None:
            shared = ops.sum(shares)
            # 0 · ∞ is 0: a masked column has no share.
            lost = ops.where(shares[None, :] == 0, 0, -logits)
            below = ops.sum(lost * shares[None, :], axis=1)
        powers = ops.exp(logits)
        total = ops.sum(powers, axis=1)
        if not barred:
            return top, total, target, below, shared
        # 0 · ∞ is 0: a masked column has no probability.
        lost = ops.sum(ops.where(powers == 0, 0, powers * -logits), axis=1)
        return top, total, target, below, shared, lost, above

    def _shares(self, start, size, dtype):
        shares = self.description.shares
        if shares is None:
            return None
        return ops.cast(_slice(shares, 0, start, size), dtype)

    def _gradients(self, given, wide, blocks, upstream, state):
        left, right, bias = given
        top, total, _, _, shared, *_ = state
        nll, spread, log_sum, *_ = ops.unstack(upstream, self.count, axis=1)
        # A row whose logits are all −inf has no gradient.
        alive = total > 0
        softmax = (nll + spread * shared + log_sum) / ops.where(alive, total, 1)
        nll = ops.where(alive, nll, 0)

        def write(state, start, size):
            d_left, d_right, *d_bias = state
            logits, factor, block_bias = self._block(
                (wide, right, bias), start, size
            )
            gradient = ops.exp(logits - top[:, None])
            gradient *= softmax[:, None]
            shares = self._shares(start, size, logits.dtype)
            if shares is not None:
                gradient -= spread[:, None] * shares[None, :]
            gradient = self.description.add_targets(gradient, start, -nll)
            gradient = self.description.through(
                gradient, logits, block_bias, start
            )
            if self.columns == 1:
                block = ops.transpose(wide) @ gradient
            else:
                block = ops.transpose(gradient) @ wide
            d_right = _write(d_right, self.columns, start, block)
            if bias is not None:
                sums = ops.sum(gradient, axis=0)
                d_bias = [_write(*d_bias, 0, start, sums)]
            d_left = d_left + gradient @ ops.transpose(factor)
            return d_left, d_right, *d_bias

        others = (right,) if bias is None else (right, bias)
        empty = (ops.zeros_like(wide), *map(ops.zeros_like, others))
        d_left, *d_others = blocks.loop(write, write(empty, 0, blocks.first))
        return ops.cast(d_left, left.dtype), *d_others


def _merge(a, b):
    """The sums of two blocks as those of one."""
    top_a, total_a, target_a, below_a, shared_a, *more_a = a
    top_b, total_b, target_b, below_b, shared_b, *more_b = b
    top = ops.where(top_b > top_a, top_b, top_a)
    scale_a, scale_b = ops.exp(top_a - top), ops.exp(top_b - top)
    merged = (
        top,
        total_a * scale_a + total_b * scale_b,
        target_a + target_b,
        _lowered(below_a, shared_a, top - top_a)
        + _lowered(below_b, shared_b, top - top_b),
        shared_a + shared_b,
    )
    if not more_a:
        return merged
    (lost_a, above_a), (lost_b, above_b) = more_a, more_b
    lost = _lowered(lost_a * scale_a, total_a * scale_a, top - top_a)
    lost += _lowered(lost_b * scale_b, total_b * scale_b, top - top_b)
    return *merged, lost, above_a + above_b


def _lowered(below, shared, rise):
    """Σ s (max − x) after the maximum has risen. 0 · ∞ is 0."""
    return below + ops.where(shared == 0, 0, shared * rise)


def _tanh(x):
    """tanh, in float64 as well: Keras's own takes that to float32 on JAX.

    As of Keras 3.16: https://github.com/keras-team/keras/issues/23704
    """
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.tanh(x)
    rest = ops.expm1(-2 * abs(x))
    return ops.sign(x) * -rest / (2 + rest)


def _wide(x):
    """`x` in float32 at least."""
    return checks.logits(x, "features")


def _slice(x, axis, start, size):
    """`size` entries of an axis from `start` on."""
    starts, sizes = [0] * len(x.shape), list(ops.shape(x))
    starts[axis], sizes[axis] = start, size
    return ops.slice(x, starts, sizes)


def _write(buffer, axis, start, block):
    """The buffer with a block written into it."""
    block = ops.cast(block, buffer.dtype)
    if BACKEND == "torch":
        # `slice_update` copies the buffer, 33 MB for each of 32 blocks.
        index = [slice(None)] * len(buffer.shape)
        index[axis] = slice(start, start + block.shape[axis])
        buffer[tuple(index)] = block
        return buffer
    starts = [0] * len(buffer.shape)
    starts[axis] = start
    return ops.slice_update(buffer, starts, block)
