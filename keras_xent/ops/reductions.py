"""What becomes of the logits of a row: sums that blocks add to.

Columns may come in blocks, and blocks from several devices. A block is made
again for its gradient, when the sums of all of them are known.
"""

import typing

import numpy as np
from keras import ops

from keras_xent._types import Tensor
from keras_xent.ops import extrema
from keras_xent.ops.blocks import exp, multiply, subtract
from keras_xent.ops.description import (
    Description,
    description,
    per_column,
    per_row,
)
from keras_xent.ops.select import where

# Stands for the maximum of logits that are all −inf: exp(−inf − LOWEST) is 0,
# exp(−inf − −inf) would be NaN.
LOWEST = float(np.finfo("float32").min)


class Terms(typing.NamedTuple):
    """What `OnlineSoftmax` says of the rows, one number for each.

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


@description
class Reduction(Description):
    """Sums over the columns, one number per row and sum, that just add up.

    A subclass says what a block adds in `add`, and the derivative in `back`;
    and what else is different.
    """

    # How many numbers a row is told.
    count: typing.ClassVar[int] = 1

    # Whether it takes the logits to float32 itself, where products are made in
    # less, and leaves their memory alone till then.
    widens: typing.ClassVar[bool] = False

    def init(self, zeros):
        """The sums of no columns.

        Args:
            zeros: One zero per row.
        """
        return (zeros,) * self.count

    def add(self, sums, logits, targets):
        """The sums with those of a block, whose memory may be taken."""
        raise NotImplementedError

    def merge(self, a, b):
        """The sums of two sets of columns as those of one."""
        return tuple(x + y for x, y in zip(a, b, strict=True))

    def merged(self, sums):
        """The sums of several sets of columns, along a first axis, as those
        of one."""
        return tuple(ops.sum(x, axis=0) for x in sums)

    def finish(self, sums):
        """What a row is told: a tuple of `count` numbers."""
        return sums

    def back(self, upstream, sums, logits, targets):
        """The gradient of a block of logits, whose memory may be taken.

        Args:
            upstream: The gradients of what `finish` returned.
            sums: Those of all columns.
            logits, targets: The block.
        """
        raise NotImplementedError


@description
class OnlineSoftmax(Reduction):
    """The softmax over the columns, and its cross-entropy.

    Args:
        shares: s, one number per column, or None.
        bar: One logit per row, that of its target: asks for the entropy, and
            for how many logits are above. It has to be known before the pass.
    """

    widens = True

    shares: Tensor | None = per_column()
    bar: Tensor | None = per_row()

    @property
    def count(self):
        return 4 if self.bar is None else 6

    def init(self, zeros):
        """Maximum, Σ exp, target, Σ s (max − x), Σ s.

        With a bar, Σ exp · (max − x) and the number above it, too.
        """
        none = ops.zeros((), dtype=zeros.dtype)
        sums = zeros + LOWEST, zeros, zeros, zeros, none
        return sums if self.bar is None else (*sums, zeros, zeros)

    def add(self, sums, logits, targets):
        block = self._of_block(logits, targets, sums[0].dtype)
        return self.merge(sums, block)

    def _of_block(self, logits, targets, dtype):
        target = ops.cast(targets.pick(logits), dtype)
        top = ops.cast(extrema.largest(logits, LOWEST, axis=1), dtype)
        # LOWEST is −inf in float16 and bfloat16.
        top = where(top < LOWEST, LOWEST, top)
        if self.bar is not None:
            above = (logits > self.bar[:, None]) & ~targets.hits(logits)
            above = ops.sum(ops.cast(above, dtype), axis=1)
        logits = subtract(logits, top[:, None])
        below, shared = ops.zeros_like(top), ops.zeros((), dtype=logits.dtype)
        if self.shares is not None:
            shares = ops.cast(self.shares, logits.dtype)
            shared = ops.sum(shares)
            # 0 · ∞ is 0: a masked column has no share.
            lost = where(shares[None, :] == 0, 0, -logits)
            below = ops.sum(lost * shares[None, :], axis=1)
        if self.bar is None:
            return top, ops.sum(exp(logits), axis=1), target, below, shared
        powers = ops.exp(logits)
        # 0 · ∞ is 0: a masked column has no probability.
        lost = ops.sum(where(powers == 0, 0, powers * -logits), axis=1)
        total = ops.sum(powers, axis=1)
        return top, total, target, below, shared, lost, above

    def merge(self, a, b):
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

    def merged(self, sums):
        tops, totals, targets, below, shared, *more = sums
        top = ops.max(tops, axis=0)
        rises = top[None, :] - tops
        scales = ops.exp(-rises)
        below = _lowered(below, shared[:, None], rises)
        merged = [totals * scales, targets, below, shared]
        if more:
            lost, above = more
            lost = _lowered(lost * scales, totals * scales, rises)
            merged += [lost, above]
        return top, *(ops.sum(x, axis=0) for x in merged)

    def finish(self, sums):
        """The numbers of `Terms`, in their order."""
        top, total, target, below, shared, *more = sums
        log_total = ops.log(total)
        terms = (
            (top - target) + log_total,
            below + shared * log_total,
            top + log_total,
            top - target,
        )
        if not more:
            return terms
        lost, above = more
        return *terms, lost / total + log_total, above

    def back(self, upstream, sums, logits, targets):
        top, total, _, _, shared, *_ = sums
        # A row whose logits are all −inf has no gradient, however infinite what
        # comes from above is.
        alive = total > 0
        nll, spread, log_sum = (where(alive, x, 0) for x in upstream[:3])
        softmax = (nll + spread * shared + log_sum) / where(alive, total, 1)
        block = exp(subtract(logits, top[:, None]))
        block = multiply(block, softmax[:, None])
        if self.shares is not None:
            shares = ops.cast(self.shares, block.dtype)
            block = subtract(block, spread[:, None] * shares[None, :])
        return targets.add(block, -nll)


@description
class PairwiseSigmoid(Reduction):
    """A yes/no question for each column: Σ_k softplus(∓x_k), − for a target."""

    def add(self, sums, logits, targets):
        hits = targets.hits(logits)
        losses = ops.softplus(ops.where(hits, -logits, logits))
        return (sums[0] + ops.sum(losses, axis=1),)

    def back(self, upstream, sums, logits, targets):
        hits = ops.cast(targets.hits(logits), logits.dtype)
        return (ops.sigmoid(logits) - hits) * upstream[0][:, None]


@description
class SoftmaxLoss(Description):
    """The loss of a row from its `Terms`: a · nll + b · spread + z · lse².

    Args:
        nll, spread, squared: a, b and z of each row. A part that weighs 0 is
            0, and has no gradient, even where it is infinite.
    """

    nll: Tensor | None = per_row()
    spread: Tensor | None = per_row()
    squared: Tensor | None = per_row()

    def of(self, terms):
        nll, spread, log_sum, *_ = terms
        losses = _times(self.nll, nll)
        if self.spread is not None:
            losses = losses + _times(self.spread, spread)
        if self.squared is not None:
            losses = losses + _times(self.squared, ops.square(log_sum))
        return losses

    def back(self, terms):
        """The derivative of the loss by each of the terms."""
        zeros = ops.zeros_like(self.nll)
        spread = zeros if self.spread is None else self.spread
        log_sum = zeros
        if self.squared is not None:
            log_sum = 2 * _times(self.squared, terms[2])
        return self.nll, spread, log_sum, *[zeros] * (len(terms) - 3)

    def slopes(self, terms):
        """The derivative of the loss by each of its weights, by their names."""
        nll, spread, log_sum, *_ = terms
        values = {
            "nll": nll,
            "spread": spread,
            "squared": ops.square(log_sum),
        }
        return {
            name: where(weight == 0, 0, values[name])
            for name, weight in self.tensors().items()
        }


def _times(weight, x):
    """weight · x; 0 · ∞ is 0, and so is its derivative by the weight."""
    return weight * where(weight == 0, 0, x)


def _lowered(below, shared, rise):
    """Σ s (max − x) after the maximum has risen. 0 · ∞ is 0."""
    return below + where(shared == 0, 0, shared * rise)
