"""How a product of features and class vectors becomes a logit, and back.

A head says what a logit is: by one of these. The same object makes the logits
block by block in training, all of them in `predict`, and those of a sample.
"""

import typing

import numpy as np
from keras import ops

from keras_xent._types import Tensor
from keras_xent.ops.blocks import add, cut, put
from keras_xent.ops.description import (
    COLUMNS,
    ROWS,
    Description,
    description,
    per_column,
)
from keras_xent.ops.dtypes import dtype_of
from keras_xent.ops.select import where


@description
class Logits(Description):
    """x = product, and what other logits have to say.

    A subclass says what is different in `dense`, as an ordinary function, and
    in `back`, its derivative; and in `block` if the logits of training are
    others, as with a margin for the target. Its tensors are fields made by
    `description.per_column` and its like; those that `back` gives a gradient
    of are named in `learned`.
    """

    learned: typing.ClassVar[tuple[str, ...]] = ()

    # Whether `vectors` changes them.
    prepares: typing.ClassVar[bool] = False

    # Whether `back` looks at products or logits. Where it does not, their
    # memory is used for the gradient.
    reads_back: typing.ClassVar[bool] = True

    @property
    def plain(self):
        """Whether the products are the logits."""
        return False

    @property
    def vectors_per_column(self):
        """How many vectors of the right factor stand side by side for one."""
        return 1

    @property
    def needs_own(self):
        """Whether `trained` wants the products of rows with their classes."""
        return False

    def features(self, features):
        """The left factor of the products, an ordinary function."""
        return features

    def vectors(self, block, axis):
        """The right factor, from some of the vectors that are stored.

        Args:
            block: The vectors.
            axis: The axis of the entries of a vector.
        """
        return block

    def vectors_back(self, gradient, block, axis):
        """From the gradient of `vectors` to that of the block."""
        return gradient

    def trained(self, labels, own):
        """The same for training, where the labels of the rows are known.

        Args:
            labels: One class per row, `(rows,)`.
            own: The product of each row with its own class, `(rows,)`; None
                without `needs_own`.
        """
        return self

    def with_margin(self, labels, logits):
        """The logits of the rows' own classes, as they are trained.

        Args:
            labels: Class ids.
            logits: The logit of each, of one shape with them.
        """
        return logits

    def dense(self, products):
        """The logits of products whose targets are unknown.

        Args:
            products: `(..., columns · vectors_per_column)`.
        """
        return products

    def block(self, products, targets):
        """The logits of a block `(rows, columns)` and what is right in it.

        May take the memory of the products.
        """
        return self.dense(products)

    def back(self, gradient, products, logits, targets):
        """From the gradient of a block of logits to what it was made from.

        Args:
            gradient: That of the logits.
            products, logits, targets: What `block` was given, as it has left
                it, and what it returned.

        Returns:
            The gradient of the products, and a dict with that of each field
            in `learned` that is not None: summed over the rows, one number per
            column for a tensor that has one per column.
        """
        return gradient, {}

    def gap(self, gap):
        """How far rows are from having their target on top, in `predict`.

        Args:
            gap: How far they are in training, `reductions.Terms.gap`.
        """
        return gap

    def masked(self):
        """Which columns are left out, `(columns,)`; None if none is."""
        return None

    def filled(self, shut):
        """The same with more columns, which come last and are left out.

        Args:
            shut: 0 for each column that there is, −inf for each that is new.
        """
        raise NotImplementedError


@description
class LinearLogits(Logits):
    """x = c · tanh((product + bias) / c).

    Args:
        bias: One number per column, or None. A column with −inf is left out.
        softcap: c > 0, or None for x = product + bias.
    """

    learned = ("bias",)

    bias: Tensor | None = per_column()
    softcap: float | None = None

    @property
    def plain(self):
        return self.bias is None and self.softcap is None

    @property
    def reads_back(self):
        return self.softcap is not None

    def dense(self, products):
        if self.bias is not None:
            products = products + ops.cast(self.bias, products.dtype)
        return self._capped(products)

    def block(self, products, targets):
        if self.bias is not None:
            products = add(products, ops.cast(self.bias, products.dtype))
        return self._capped(products)

    def back(self, gradient, products, logits, targets):
        if self.softcap is not None:
            slope = 1 - ops.square(logits / self.softcap)
            masked = self.masked()
            if masked is not None:
                slope = where(masked, 0, slope)
            gradient = gradient * slope
        if self.bias is None:
            return gradient, {}
        return gradient, {"bias": ops.sum(gradient, axis=0)}

    def masked(self):
        return None if self.bias is None else self.bias == -np.inf

    def filled(self, shut):
        if self.bias is not None:
            more = shut.shape[0] - self.bias.shape[0]
            shut = ops.pad(self.bias, [(0, more)]) + ops.cast(
                shut, self.bias.dtype
            )
        return self.holding({"bias": shut})

    def _capped(self, logits):
        if self.softcap is None:
            return logits
        capped = self.softcap * _tanh(logits / self.softcap)
        masked = self.masked()
        return capped if masked is None else where(masked, -np.inf, capped)


def nothing_learned(logits, dtype):
    """Zeros for the gradient of each tensor that is learned, by the names."""
    tensors = logits.tensors()
    return {
        name: ops.zeros_like(tensors[name], dtype=dtype)
        for name in logits.learned
        if name in tensors
    }


def gathered(logits, learned, found, row, column):
    """What has been learned so far with that of a block that begins there."""
    starts = {ROWS: row, COLUMNS: column}
    learned = dict(learned)
    for name, x in found.items():
        start = starts.get(logits.kind(name))
        if start is None:
            learned[name] = learned[name] + x
        else:
            before = cut(learned[name], 0, start, ops.shape(x)[0])
            learned[name] = put(learned[name], 0, start, before + x)
    return learned


def _tanh(x):
    """tanh, in float64 as well: Keras's own takes that to float32 on JAX.

    As of Keras 3.16: https://github.com/keras-team/keras/issues/23704
    """
    if dtype_of(x) != "float64":
        return ops.tanh(x)
    rest = ops.expm1(-2 * abs(x))
    return ops.sign(x) * -rest / (2 + rest)
