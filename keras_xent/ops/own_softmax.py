"""Softmax cross-entropy with a gradient of its own, from log p alone.

TensorFlow's graphs run one pass over the logits after the other, and keep what
the backward pass may want. Here that is log p and nothing else: the gradient,
p − t, is made of it.

On JAX, whose compiler does all of this by itself, it is not used: forward mode
refuses gradients that are not the framework's own. PyTorch has
`in_place_softmax`.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import ClassWeight
from keras_xent.ops import extrema
from keras_xent.ops.select import where

BACKEND = keras.backend.backend()

# Up to so many numbers, starting an operation is what costs time. On TensorFlow
# a gradient of its own then takes longer than it spares.
SMALL_SIZE = 2**16

# float32's largest number stands for ∞ where 0 · ∞ has to be 0.
LARGEST = float(np.finfo("float32").max)


def is_written_out(focal_gamma, logits=None):
    """Whether the gradient is that of the formula, operation by operation.

    If not, it is one of its own, which is 0 in rows whose losses have gradient
    0, whatever they hold.

    Args:
        focal_gamma: The focal exponent, which has no gradient of its own.
        logits: Given where few of them, on TensorFlow, are a reason as well.
    """
    few = BACKEND == "tensorflow" and logits is not None and is_small(logits)
    return BACKEND == "jax" or focal_gamma > 0 or few


def is_small(x):
    """Whether a tensor has `SMALL_SIZE` numbers at most, and that is known."""
    shape = tuple(x.shape)
    known = all(isinstance(size, int) for size in shape)
    return known and math.prod(shape) <= SMALL_SIZE


def dense(targets, logits, more, written_out):
    """The loss of targets t and of `more` along the last axis, for each row.

    Args:
        targets: Float tensor `(..., classes)`.
        logits: Float tensor of the same shape.
        more: What else the loss has, `More`.
        written_out: The same as a function of both that any transform can
            differentiate.
    """
    return _losses(_Shares, (targets, logits), more, written_out)


def sparse(labels, logits, weight, more, written_out):
    """As `dense`, for labels that exist, `(...)`, and their weights or None."""
    labels = labels[..., None]
    return _losses(
        lambda: _Column(labels, weight), (logits,), more, written_out
    )


@dataclasses.dataclass(frozen=True)
class More:
    """What a loss has beside its targets.

    loss = (1 − ε) Σ_k t_k (−log p_k) + ε/K Σ_k w_k (−log p_k) + z · lse², the
    second sum over the K classes with a finite logit.
    """

    label_smoothing: float = 0.0
    class_weight: ClassWeight = None
    z_loss: float = 0.0


def _losses(targets_of, arguments, more, written_out):
    kept_share = 1 - more.label_smoothing
    # All of it over 1 − ε, so that the targets need no factor.
    z_loss = more.z_loss / kept_share

    def parts(logits):
        log_p = ops.log_softmax(logits, axis=-1)
        evenly = _Evenly(log_p, more) if more.label_smoothing else None
        # The largest log p is −log Σ exp(x − top).
        log_sum = 0
        if z_loss:
            top = extrema.largest(logits, -np.inf, axis=-1)
            log_sum = top - extrema.largest(log_p, -np.inf, axis=-1)
        return log_p, evenly, log_sum

    def losses(*arguments):
        *targets, logits = arguments
        targets = targets_of(*targets)
        log_p, evenly, log_sum = parts(logits)
        log_p = targets.bounded(log_p)
        expected = targets.sum(log_p)
        result = -expected
        if evenly is not None:
            result = result - evenly.sum(log_p)
        if z_loss:
            result = result + z_loss * log_sum**2

        def grad(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            # NaN where no logit is finite.
            good = expected == expected
            upstream = kept_share * where(good, upstream, 0)[..., None]
            to_targets = targets.gradient(log_p, upstream)
            total = targets.total()
            if evenly is not None:
                total = total + evenly.total
            if z_loss:
                total = total + 2 * z_loss * where(good, log_sum, 0)
            slope = ops.exp(_after(good, log_p))
            if not isinstance(total, int):
                slope = slope * total[..., None]
            if evenly is not None:
                slope = evenly.less(slope)
            slope = targets.less(slope)
            return *to_targets, scaled(slope, upstream)

        if more.label_smoothing:
            result = kept_share * result
        return result, grad

    return _keras.own_gradient(losses, written_out)(*arguments)


class _Shares:
    """Targets with a share of each class."""

    def __init__(self, targets):
        self.targets = targets

    def bounded(self, log_p):
        """−LARGEST for −∞: 0 · ∞ has to be 0."""
        return ops.clip(log_p, -LARGEST, LARGEST)

    def sum(self, log_p):
        """Σ_k t_k log p_k.

        XLA sums up terms that it never writes, and is slower at the product
        (40 and 60 ms of the whole).
        """
        return ops.sum(self.targets * log_p, axis=-1)

    def total(self):
        return ops.sum(self.targets, axis=-1)

    def less(self, slope):
        return slope - self.targets

    def gradient(self, log_p, upstream):
        return (-scaled(self.bounded(log_p), upstream),)


class _Column:
    """One right class in each row, and maybe a weight of it."""

    def __init__(self, labels, weight):
        self.labels, self.weight = labels, weight

    def bounded(self, log_p):
        return log_p

    def sum(self, log_p):
        return weighted(_taken(log_p, self.labels), self.weight)

    def total(self):
        return 1 if self.weight is None else self.weight

    def less(self, slope):
        amount = -ops.ones_like(self.labels, dtype=slope.dtype)
        if self.weight is not None:
            amount = amount * self.weight[..., None]
        return _add_at(slope, self.labels, amount)

    def gradient(self, log_p, upstream):
        return ()


class _Evenly:
    """ε / (1 − ε) spread over the classes with a finite logit, by weight."""

    def __init__(self, log_p, more):
        dtype = log_p.dtype
        self.masked, self.weight = log_p == -np.inf, None
        number = ops.shape(log_p)[-1] - ops.sum(self.masked, axis=-1)
        share = more.label_smoothing / (1 - more.label_smoothing)
        self.share = share / ops.cast(ops.maximum(number, 1), dtype)
        number = ops.cast(number, dtype)
        if more.class_weight is not None:
            self.weight = ops.convert_to_tensor(more.class_weight, dtype=dtype)
            number = where(self.masked, 0, self.weight)
            number = ops.sum(number, axis=-1)
        self.total = self.share * number

    def sum(self, log_p):
        finite = where(self.masked, 0, log_p)
        if self.weight is not None:
            finite = finite * self.weight
        return self.share * ops.sum(finite, axis=-1)

    def less(self, slope):
        share = self.share[..., None]
        if self.weight is not None:
            share = share * self.weight
        return where(self.masked, 0, slope - share)


def weighted(losses, weight):
    """Losses by their weights, or None. 0 · ∞ is 0 here, and 0 · NaN NaN."""
    if weight is None:
        return losses
    nothing = (weight == 0) & (losses == losses)
    return where(nothing, 0, weight * losses)


def scaled(x, amount):
    """x · amount, and 0 in rows whose amount is 0, whatever they hold."""
    none = amount == 0
    # One pass, in a graph in the memory of x. `where` is another one.
    return ops.divide_no_nan(x, where(none, 0, 1 / where(none, 1, amount)))


def _after(good, log_p):
    """log p, but not before the loss is known: 0 in rows without one.

    A graph of TensorFlow starts at once what it can. While the terms of the
    loss are there, that is in memory of its own (384 MB instead of 256).
    """
    return ops.divide_no_nan(log_p, ops.cast(good, log_p.dtype)[..., None])


def _taken(x, columns):
    return ops.squeeze(ops.take_along_axis(x, columns, axis=-1), -1)


def _add_at(x, columns, amount):
    """x with an amount added to one column of each row."""
    flat = ops.reshape(x, (-1, ops.shape(x)[-1]))
    columns = ops.reshape(columns, (-1,))
    rows = ops.arange(ops.shape(flat)[0], dtype=columns.dtype)
    places = ops.stack([rows, columns], axis=-1)
    amount = ops.reshape(amount, (-1,))
    flat = ops.scatter_update(flat, places, amount, reduction="add")
    return ops.reshape(flat, ops.shape(x))
