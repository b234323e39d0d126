"""Values of rows that do not meet, a few rows at a time where that is faster.

PyTorch runs one operation after the other. Over an array that is larger than
the cache of a CPU each is a way to the memory and back, and a new array costs
several times as much as that: 5 to 26 ms for [1024, 32768] and two cores, where
it is 1.5 over rows that stay in the cache. So a few rows at a time go through
all operations, and through those of their gradient as well: what comes out is
two arrays, the values and the gradient for an upstream of 1. The backward pass
multiplies it by the upstream, in its memory.
"""

import keras
from keras import ops

from keras_xent import _keras
from keras_xent.ops import devices
from keras_xent.ops.blocks import Blocks, put, some_rows
from keras_xent.ops.dtypes import dtype_of
from keras_xent.ops.own_softmax import is_small, scaled
from keras_xent.ops.select import where

BACKEND = keras.backend.backend()


def is_written_out(x):
    """Whether the gradient of `by_rows` is that of what is written out.

    If not, it is 0 in rows whose values have gradient 0, whatever they hold.
    The compiler of JAX needs no help, nor does that of PyTorch; and starting
    the operations is what takes time where numbers are few.
    """
    if BACKEND == "torch" and not _keras.computes_now(x):
        return True
    return BACKEND == "jax" or is_small(x)


def by_rows(function, written_out, *arguments):
    """Values of each row, or of each entry, with a gradient of their own.

    Args:
        function: `function(wanted, *parts)`, given some of the rows as
            `(rows, columns)` and for each argument whether its gradient is
            wanted. Returns the values, `(rows,)` or `(rows, columns)`, and a
            list of their gradients, with None for those that are not: all new,
            and what is given is not changed.
        written_out: The values as a function of the arguments, for any
            transform to differentiate. In their shape, or without the last
            axis.
        *arguments: Tensors of one shape `(..., columns)`.
    """
    if is_written_out(arguments[-1]):
        return written_out(*arguments)
    of_blocks = _cached if BACKEND == "torch" else _at_once
    wanted = [_may_want_gradient(x) for x in arguments]
    forward = of_blocks(function, written_out, wanted)
    return _keras.own_gradient(forward, written_out)(*arguments)


def _may_want_gradient(x):
    is_float = "float" in dtype_of(x)
    return is_float and _keras.may_want_gradient(x)


def _at_once(function, written_out, wanted):
    """For graphs, which leave out what is not asked for."""

    def forward(*arguments):
        values, _ = function([False] * len(wanted), *arguments)
        # Not asked in there: `values` would be kept for it.
        by_row = len(values.shape) < len(arguments[0].shape)

        def grad(upstream):
            _, slopes = function(wanted, *arguments)
            if by_row:
                upstream = upstream[..., None]
            found = [
                None if slope is None else _times(slope, upstream, by_row, x)
                for slope, x in zip(slopes, arguments, strict=True)
            ]
            return tuple(found)

        return values, grad

    return forward


def _times(slope, upstream, by_row, like):
    slope = scaled(slope, upstream) if by_row else slope * upstream
    return ops.cast(slope, like.dtype)


def _cached(function, written_out, wanted):
    """For PyTorch, block by block."""
    # Within a gradient of our own nothing is recorded.
    wanted = [each and _keras.records_backward_pass() for each in wanted]

    def forward(*arguments):
        shape = tuple(arguments[0].shape)
        parts = [x.reshape(-1, shape[-1]) for x in arguments]
        # Not of 16 bits: float16 has no room for small gradients before the
        # upstream, maybe a loss scale, is put on, and bfloat16 rounds twice.
        early = all(
            x.dtype.itemsize > 2
            for x, each in zip(parts, wanted, strict=True)
            if each
        )
        now = wanted if early else [False] * len(wanted)
        values, *kept = _of_all_rows(function, now, parts)
        values_shape = tuple(values.shape)
        by_row = len(values_shape) < 2
        kept = [kept] if any(now) else []

        def grad(*_, upstream):
            if _keras.records_backward_pass():
                found = _keras.gradients(written_out, arguments, upstream)
                return _blank(found, upstream) if by_row else found
            upstream = upstream.reshape(values_shape)
            if kept:
                # It is overwritten: a second time it is made anew.
                slopes = kept.pop()
                for slope in slopes:
                    _scale(slope, upstream)
            else:
                _, *slopes = _of_all_rows(function, wanted, parts, upstream)
            return tuple(
                None if slope is None else slope.reshape(shape)
                for slope in slopes
            )

        return values.reshape(shape[:-1] if by_row else shape), grad

    return forward


def _blank(gradients, upstream):
    """0 for what is not finite in rows of upstream 0.

    Not for all there: the gradient has a derivative by the upstream.
    """
    none = (upstream == 0)[..., None]
    return tuple(
        x if x is None else where(none & ~ops.isfinite(x), 0, x)
        for x in gradients
    )


def _of_all_rows(function, wanted, arguments, upstream=None):
    """Values and gradients of all rows, made block by block.

    Args:
        upstream: What the gradients are multiplied by, None for 1.
    """
    rows = arguments[0].shape[0]
    size = devices.cached_rows(arguments[0])

    def of_block(wholes, start, size):
        block = start, size
        parts = [some_rows(x, block) for x in arguments]
        values, slopes = function(wanted, *parts)
        if upstream is not None:
            for slope in slopes:
                _scale(slope, some_rows(upstream, block))
        dtypes = [values.dtype, *(x.dtype for x in arguments)]
        found = list(zip([values, *slopes], dtypes, strict=True))
        if wholes is None:
            wholes = [_room(part, dtype, rows) for part, dtype in found]
        return [
            part if part is None else put(whole, 0, start, part)
            for whole, (part, _) in zip(wholes, found, strict=True)
        ]

    return Blocks(rows, size).loop(of_block, None)


def _room(part, dtype, rows):
    """For all rows, what a block of them has."""
    if part is None:
        return None
    return part.new_empty((rows, *part.shape[1:]), dtype=dtype)


def _scale(slope, upstream):
    """Multiplies a gradient in its memory; 0 in rows of upstream 0."""
    if slope is None:
        return
    if len(upstream.shape) > 1:
        slope *= upstream
        return
    slope *= upstream[:, None]
    none = upstream == 0
    if devices.on_accelerator(slope):
        # Which they are is not read back.
        slope.masked_fill_(none[:, None], 0)
    else:
        slope[ops.nonzero(none)[0]] = 0
