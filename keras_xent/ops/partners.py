"""Which rows of a batch belong to each row, and which do not."""

from keras import ops

from keras_xent.ops import checks, identities
from keras_xent.ops import rows as row_shapes
from keras_xent.ops.blocks import some_rows


def partners_and_others(labels, weight=None, rows=None):
    """Two `(size, n)` tensors of booleans, by the rows of which a row looks.

    A row is neither its own partner nor an other of its own. A row of weight 0
    is as good as absent: it is nobody's partner or other, and has none.

    Args:
        labels: Ids, `(n,)`.
        weight: `(n,)`, or None if all are there.
        rows: `(start, size)`, the rows that look; None for all.
    """
    index = ops.arange(ops.shape(labels)[0], dtype="int32")
    apart = some_rows(index, rows)[:, None] != index[None, :]
    if weight is not None:
        there = weight != 0
        looks = some_rows(there, rows)
        apart = apart & looks[:, None] & there[None, :]
    same = some_rows(labels, rows)[:, None] == labels[None, :]
    return apart & same, apart & ~same


def rows_counted(labels, weight=None, *, others=False):
    """Which rows have a partner, `(n,)`; with `others`, one of those too.

    A row whose label is NaN counts, so that it is seen, and so does a row of
    weight 0, as in all of Keras.
    """
    there = None if weight is None else weight != 0
    found = identities.partners(labels, there)
    counted = found > 0
    if others:
        total = ops.shape(labels)[0]
        if there is not None:
            total = ops.sum(ops.cast(there, "int32"))
        counted = counted & (found + 1 < total)
    counted = counted | (labels != labels)
    return counted if weight is None else counted | (weight == 0)


def present(sample_weight, labels, embeddings):
    """The weights, or None, and embeddings that are 0 where a weight is."""
    if sample_weight is None:
        return None, embeddings
    weight = checks.tensor("sample_weight", sample_weight)
    checks.same_shape("sample_weight", weight.shape, "labels", labels.shape)
    return weight, row_shapes.blank(embeddings, weight != 0, -1)


def without_meaning(labels, weight, rows):
    """Which rows have NaN for a label or a weight, `(size,)`."""
    found = labels != labels
    if weight is not None:
        found = found | (weight != weight)
    return some_rows(found, rows)
