"""How rows, labels, weights and masks line up, in losses and in metrics.

A row is what has one loss or one score: predictions `(batch, time, classes)`
have the rows `(batch, time)`.

Weights and masks have the leading axes of the rows. What they leave out at the
end is spread, `(batch,)` along time; an axis of 1 is spread too, `(1, time)`
along the batch; axes of 1 too many at the end are dropped. A weight `(time,)`
is an error, and where batch and time are equal, it is one per example. Keras
disagrees with itself there: its metrics do as this module does, its losses lay
a vector along the last axis, and raise for `(batch,)`.
"""

import numpy as np
from keras import ops

from keras_xent.ops import checks
from keras_xent.ops.select import where


def spread(weight, like, axis=None, name="sample_weight"):
    """A weight or mask as float32 in the shape of the rows of `like`.

    Args:
        weight: One number, or a tensor with the leading axes of the rows.
        like: The predictions.
        axis: The axis of `like` that is none of the rows', or a slice of them.
            None if each entry is a row.
        name: What the weight is called in an error.

    Returns:
        Float32 tensor.

    Raises:
        ValueError: if the shapes do not fit.
    """
    shape, size = list(like.shape), list(ops.shape(like))
    if axis is not None:
        del shape[axis], size[axis]
    if checks.on_host(weight):
        # JAX would fold int64 into int32 first.
        weight = np.asarray(checks.array(name, weight)).astype("float32")
    weight = ops.cast(checks.tensor(name, weight), "float32")
    given = tuple(weight.shape)
    while len(weight.shape) > len(shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    while len(weight.shape) < len(shape):
        weight = ops.expand_dims(weight, -1)
    if not broadcasts(weight.shape, shape):
        cure = ""
        if 0 < len(given) < len(shape) and broadcasts(
            given, shape[-len(given) :]
        ):
            along = (1,) * (len(shape) - len(given)) + given
            cure = f" For one weight per place in each example, pass {along}."
        raise ValueError(
            f"`{name}` must hold one number per row: the shape {tuple(shape)} "
            f"or its leading axes. Received shape {given}.{cure}"
        )
    # Not `broadcast_to`: Keras multiplies weights in place, which PyTorch
    # refuses for a tensor whose rows share their memory.
    return weight * ops.ones(size, dtype="float32")


def weights_and_mask(like, axis, sample_weight, mask):
    """Weight and mask in the shape of the rows, and which rows count."""
    weight = None
    if sample_weight is not None:
        weight = spread(sample_weight, like, axis)
    if mask is not None:
        mask = spread(mask, like, axis, "mask") != 0
    return weight, mask, kept(weight, mask)


def of_rows(weight, like):
    """Whether there is one weight for each row along the last axis of `like`.

    Not so where it has an entry for each entry of the last axis, or fits
    nowhere.
    """
    shape, size = _shape(like)[:-1], list(_shape(weight))
    while len(size) > len(shape) and size[-1] == 1:
        size.pop()
    size += [1] * (len(shape) - len(size))
    return broadcasts(size, shape)


def kept(weight, mask):
    """Which rows count, by weight and mask; None for all, without either."""
    if weight is None:
        return mask
    return weight != 0 if mask is None else (weight != 0) & mask


def full_weight(sample_weight, mask, like):
    """Weights of the entries of `like` without gradient; 0 where masked."""
    weight = spread(1.0 if sample_weight is None else sample_weight, like)
    if mask is not None:
        weight = where(spread(mask, like, None, "mask") != 0, weight, 0.0)
    return ops.stop_gradient(weight)


def blank(x, keep, axis):
    """Zeros in the rows that do not count. A misfit is left for others."""
    if isinstance(axis, slice):
        keep = ops.reshape(keep, (-1, *[1] * (len(x.shape) - 1)))
    elif len(x.shape) == len(keep.shape) + 1:
        keep = ops.expand_dims(keep, -1 if axis is None else axis)
    elif len(x.shape) + 1 == len(keep.shape) and keep.shape[-1] == 1:
        keep = ops.squeeze(keep, -1)
    if not broadcasts(keep.shape, x.shape):
        return x
    return ops.where(keep, x, ops.zeros_like(x))


def match_rank(y_true, y_pred):
    """Gives `y_true` the rank of `y_pred` where they differ by a last axis 1.

    `(n,)` beside `(n, 1)` is how a yes/no label meets a Dense(1): the same
    rows, which would otherwise broadcast to (n, n).
    """
    y_true = checks.array("y_true", y_true)
    if len(y_true.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:
        return y_true[..., None]
    if len(y_true.shape) == len(y_pred.shape) + 1 and y_true.shape[-1] == 1:
        return y_true[..., 0]
    return y_true


def known_rank(name, x):
    """Raises on a tensor whose number of axes TensorFlow does not know."""
    shape = getattr(x, "shape", ())
    if getattr(shape, "rank", 0) is None:
        raise ValueError(
            f"`{name}` has an unknown number of axes: TensorFlow has compiled "
            "this step for several shapes, such as (batch, time) and then "
            "(batch, time, 1). Give one rank to each call of `fit` and "
            "`evaluate`, or call `model.compile` again in between."
        )


def _shape(x):
    return checks.array("y_pred", x).shape


def broadcasts(shape, other):
    """Whether a shape broadcasts to the other; None fits every size."""
    return len(shape) == len(other) and all(
        a == 1 or a is None or b is None or a == b
        for a, b in zip(shape, other, strict=True)
    )
