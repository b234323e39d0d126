"""Rows that an attention mask leaves nothing of."""

import numpy as np

from keras_xent import _keras
from keras_xent.diagnosis import data
from keras_xent.diagnosis.evidence import NAMED, host

# The weights of a layer that multiplies or normalizes.
_WEIGHTS = ("kernel", "gamma")


def masked_row(evidence, numbers):
    """Where, why and the cure, if softmax has nothing but minus infinity.

    Minus infinity itself is what a mask is made of, and right. Adds to the
    numbers; None if it is something else.
    """
    masked = {}
    for seen in evidence.layers:
        if seen.nan_rows:
            rows = set(seen.nan_rows)
            break
        for row in seen.masked_rows:
            masked.setdefault(row, seen.name)
    else:
        return None
    found = _padding(evidence.x, rows, evidence.rows)
    of_mask = rows <= set(masked) and not _has_weights(evidence.model, seen)
    # A `softmax` in a `call` leaves no layer whose inputs can be looked at.
    if not of_mask and (found is None or masked or not found[1]):
        return None
    numbers["rows"] = sorted(rows)[:NAMED]
    if of_mask:
        numbers["masked as a whole in"] = masked[min(rows)]
    if found is None:
        cure = "# in the mask, a finite number for -inf: -1e9"
    else:
        name, value = found[0], found[2]
        cure = (
            "# leave out the rows that are nothing but padding; or, in the "
            "mask, a\n# finite number for -inf: -1e9\n"
            f"rows = np.asarray({name}).reshape(len({name}), -1)\n"
            f"keep = (rows != {value}).any(axis=1)\n"
            "x = keras.tree.map_structure(lambda e: np.asarray(e)[keep], x)\n"
            "y = keras.tree.map_structure(lambda e: np.asarray(e)[keep], y)"
        )
    return (
        f"layer {seen.name!r}",
        "These rows are masked as a whole: softmax over nothing but -inf is "
        "0/0. A mask of -inf is right as long as each row keeps one entry.",
        cure,
    )


def _has_weights(model, seen):
    """Whether a layer multiplies what it gets: that is no softmax of a mask.

    Minus infinity from elsewhere, the log of a row of zeros, say, is made NaN
    by the next kernel.
    """
    return any(
        layer.name == seen.name and any(hasattr(layer, w) for w in _WEIGHTS)
        for layer in _keras.flat_layers(model)
    )


def _padding(x, rows, count):
    """The input in which just these rows are of one value.

    Its name as code, whether its values are whole numbers, and the value.
    """
    for name, leaf in data.named(x, "x"):
        array = host(leaf)
        if array.ndim < 2 or array[0].size < 2:
            continue
        flat = array.reshape(len(array), -1)
        # Rows without any padding may be of one value, too: of another.
        value = flat[min(rows), 0]
        same = np.flatnonzero((flat == value).all(axis=1))
        if set(same.tolist()) == rows and len(rows) < count:
            whole = array.dtype.kind in "biu" or bool(
                np.all(array == np.rint(array))
            )
            return name, whole, value.item()
    return None
