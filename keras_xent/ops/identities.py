"""Embeddings and the ids that say which of them belong together."""

from keras import ops

from keras_xent.ops import checks
from keras_xent.ops.dtypes import dtype_of
from keras_xent.ops.segments import segment_sum
from keras_xent.ops.select import where

# What they have to be floating point for.
WHY_FLOATS = (
    "give embeddings, the raw output of a layer without an activation, and the "
    "ids as labels."
)


def embeddings(x, name="embeddings"):
    """`x` as a float matrix, float32 at least, or an error that says what."""
    x = checks.floats(x, name, WHY_FLOATS)
    if len(x.shape) != 2 or x.shape[1] == 0:
        raise ValueError(
            f"`{name}` must be embeddings, a matrix with one row per example. "
            f"Received shape {tuple(x.shape)}."
        )
    return x


def ids(labels, embeddings, name="labels"):
    """One id per embedding, `(n,)`, from `(n,)` or `(n, 1)`; else an error."""
    checks.exact_ids(labels)
    labels = checks.tensor(name, labels)
    if len(labels.shape) == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not checks.fits(labels.shape, embeddings.shape[:1]):
        raise ValueError(
            f"`{name}` must hold one class id per row of the embeddings. "
            f"Received labels of shape {tuple(labels.shape)} for embeddings of "
            f"shape {tuple(embeddings.shape)}. For one-hot rows pass "
            "y.argmax(axis=1); for match flags of given pairs use "
            "SoftplusHinge."
        )
    return labels


def views(x, name="embeddings"):
    """`x` as floats `(n, views, dim)`, from `(n, dim)` too; else an error."""
    x = checks.tensor(name, x)
    dtype = dtype_of(x)
    if "float" not in dtype:
        raise ValueError(
            f"`{name}` must be floating point. Received dtype {dtype}: "
            f"{WHY_FLOATS}"
        )
    if len(x.shape) == 2:
        x = x[:, None]
    if len(x.shape) != 3 or None in x.shape[1:] or 0 in x.shape[1:]:
        raise ValueError(
            f"`{name}` must be embeddings of shape (batch, dim), or (batch, "
            "views, dim) for several of each example, and only the batch may "
            f"be of unknown size. Received shape {tuple(x.shape)}."
        )
    return x


def of_each_view(x, views):
    """A number for each view from one for each example, `(n · views,)`.

    Not `ops.repeat`: on PyTorch Keras makes a tensor of how often, and the
    program waits until it is read.
    """
    return ops.reshape(ops.stack([x] * views, axis=1), (-1,))


def numbered(ids):
    """The ids numbered from 0 on, `(n,)` int32: equal where they are equal.

    NaN is not equal to anything, and gets the number −1.
    """
    known = ids == ids
    zero = ops.zeros_like(ids)
    order = ops.argsort(ops.where(known, ids, zero))
    ids = ops.take(ops.where(known, ids, zero), order, axis=0)
    new = ops.cast(ids[1:] != ids[:-1], "int32")
    first = ops.zeros_like(order[:1], dtype="int32")
    number = ops.cumsum(ops.concatenate([first, new]))
    place = ops.zeros_like(order, dtype="int32")
    number = ops.scatter_update(
        place, order[:, None], ops.cast(number, "int32")
    )
    return where(known, number, -1)


def sharing(numbers, present=None):
    """How many present rows have the id of each, itself included if present.

    Args:
        numbers: As `numbered` makes them.
        present: Which rows are there, `(n,)`; None for all.
    """
    counts = ops.ones_like(numbers)
    if present is not None:
        counts = ops.cast(present, "int32")
    size = ops.shape(numbers)[0]
    found = segment_sum(counts, numbers, size)
    if numbers.shape[0] == 0:
        return counts
    return ops.take(found, where(numbers < 0, 0, numbers), axis=0)


def partners(labels, present=None):
    """How many other rows have the id of each, `(n,)` int32; NaN has none."""
    numbers = numbered(labels)
    found = sharing(numbers, present)
    itself = 1 if present is None else ops.cast(present, "int32")
    return where(numbers < 0, 0, found - itself)
