"""Parts of an axis: which there are, and how they are read and written.

On PyTorch, which runs one operation after the other, what is written is written
in place, unless it is recorded: a copy of the whole for each part would cost
more than the work on the part.
"""

import keras
from keras import ops

from keras_xent import _keras

BACKEND = keras.backend.backend()


class Blocks:
    """An axis in blocks of one size, after a first one with the rest.

    Args:
        length: The length of the axis, a tensor or a symbol if it is unknown.
        size: The length of a block. None makes one of all.
    """

    def __init__(self, length, size):
        if size is None or (BACKEND == "jax" and not isinstance(length, int)):
            # Of unknown length on JAX: symbols, to which only shapes matter.
            size, full = length, 0
        elif isinstance(length, int):
            # An axis of length 0 is one block of length 0.
            full = max((length - 1) // size, 0)
        else:
            # XLA of TensorFlow knows the length after all, and refuses to cut
            # out more than that, even in a loop that never runs.
            size = ops.minimum(size, length)
            full = ops.maximum((length - 1) // ops.maximum(size, 1), 0)
        self.size, self.full = size, full
        self.first = length - full * size

    def loop(self, body, state):
        """`state = body(state, start, size)` for all blocks.

        The loop is `ops.fori_loop`. XLA unrolls a Python loop and keeps most
        of the blocks alive at once.
        """
        state = body(state, 0, self.first)
        if isinstance(self.full, int) and self.full == 0:
            return state
        return ops.fori_loop(
            0,
            self.full,
            lambda i, state: body(state, self.first + i * self.size, self.size),
            state,
        )


def cut(x, axis, start, size):
    """`size` entries of an axis from `start` on."""
    starts, sizes = [0] * len(x.shape), list(ops.shape(x))
    starts[axis], sizes[axis] = start, size
    return ops.slice(x, starts, sizes)


def some_rows(x, rows):
    """Some rows of a tensor, `(start, size)` of them; all for None."""
    return x if rows is None else cut(x, 0, *rows)


def all_rows(part, rows, like):
    """Some rows among zeros, as long as another tensor; the part for None."""
    if rows is None:
        return part
    return put(ops.zeros_like(like, dtype=part.dtype), 0, rows[0], part)


def in_place():
    """Whether what is computed now may overwrite what it is computed from."""
    return BACKEND == "torch" and not _keras.records_backward_pass()


def put(whole, axis, start, part):
    """The whole with a part of it replaced, in the dtype of the whole."""
    if BACKEND == "torch":
        whole[_place(whole, axis, start, part)] = part
        return whole
    part = ops.cast(part, whole.dtype)
    starts = [0] * len(whole.shape)
    starts[axis] = start
    return ops.slice_update(whole, starts, part)


def add_product(total, a, b):
    """total + a · b, the product in the dtype of its factors."""
    if not in_place():
        return total + ops.cast(a @ b, total.dtype)
    if total.dtype == a.dtype:
        return total.addmm_(a, b)
    total += a @ b
    return total


def add(x, y):
    """x + y, in the memory of x where that can be."""
    if not in_place():
        return x + y
    x += y
    return x


def subtract(x, y):
    """x − y, in the memory of x where that can be.

    On PyTorch x may be of a lower dtype, and is taken to that of y on the way.
    """
    if not in_place() or x.dtype != y.dtype:
        return x - y
    x -= y
    return x


def multiply(x, y):
    """x · y, in the memory of x where that can be."""
    if not in_place():
        return x * y
    x *= y
    return x


def add_multiplied(x, a, b, factor=1):
    """x + factor · a · b, in the memory of x where that can be."""
    if not in_place():
        return x + factor * (a * b)
    return x.addcmul_(a, b, value=factor)


def exp(x):
    """exp(x), in the memory of x where that can be."""
    return x.exp_() if in_place() else ops.exp(x)


def _place(whole, axis, start, part):
    index = [slice(None)] * len(whole.shape)
    index[axis] = slice(start, start + part.shape[axis])
    return tuple(index)
