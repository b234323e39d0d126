"""Softmax cross-entropy on PyTorch, a few rows at a time.

PyTorch runs one operation after the other. Over rows that stay in the cache a
pass costs 1.5 ms, over all of [1024, 32768] 5 ms and into a new array 26 (two
cores). So the loss of a few rows is worked out with all its options, and its
gradient with it, before the next rows are read. The gradient is the one array
as large as the logits.

With l = log p and −h_k the derivative of the loss by l_k,

    loss = Σ_k c_k (1 − p_k)^γ (−l_k) + z · lse²
    h_k  = c_k (1 − p_k)^(γ−1) (1 − p_k − γ p_k l_k)
    d loss / d x_k = p_k (Σ_j h_j + 2z · lse) − h_k

where c_k = w_k t̃_k: of labels without smoothing one number in each row.
"""

import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent.ops import devices
from keras_xent.ops.dtypes import cast, dtype_of, sums_dtype
from keras_xent.ops.own_softmax import LARGEST, weighted

# The least 1 − p where that is raised to a negative power. It does not show,
# as l is about as small.
TINY = float(np.finfo("float32").tiny)


def dense(targets, logits, more, focal_gamma, written_out):
    """The loss of targets t along the last axis, for each row.

    Args:
        targets: Tensor `(..., classes)`.
        logits: Float tensor of the same shape, in any precision.
        more: ε, w and z, `More`.
        focal_gamma: γ.
        written_out: The same as a function of both that any transform can
            differentiate.
    """

    def terms(targets, logits):
        return _Shares(targets, logits, more, focal_gamma)

    return _losses(terms, (targets, logits), written_out)


def sparse(labels, logits, weight, more, focal_gamma, written_out):
    """As `dense`, for labels that exist, `(...)`, and their weights or None."""
    kind = _Smoothed if more.label_smoothing else _Column

    def terms(logits):
        return kind(labels, weight, logits, more, focal_gamma)

    return _losses(terms, (logits,), written_out)


def _losses(terms_of, arguments, written_out):
    *targets, logits = arguments
    of_targets = any(map(_keras.may_want_gradient, targets))
    # What is kept is the gradient for upstream 1. Not in 16 bit: p may be too
    # small for float16, but not times the scale of the loss.
    keeps = (
        _keras.records_backward_pass()
        and _keras.may_want_gradient(logits)
        and not of_targets
        and dtype_of(logits) == _dtype(logits)
    )

    def losses(*arguments):
        terms = terms_of(*arguments)
        result, slope, _ = terms.all(of_logits=keeps)
        kept = [slope] if keeps else []
        # Not the result itself: PyTorch would keep each for the other's sake.
        good = result == result

        def grad(*arguments, upstream):
            if _keras.records_backward_pass():
                return _keras.gradients(written_out, arguments, upstream)
            upstream = upstream.masked_fill(~good, 0)
            if kept:
                to_targets, slope = None, terms.scaled(kept[0], upstream)
                # It is overwritten: a second time it is made anew.
                kept.clear()
            else:
                _, slope, to_targets = terms.all(upstream, True, of_targets)
            return (to_targets, slope)[-len(arguments) :]

        return result, grad

    return _keras.own_gradient(losses, written_out)(*arguments)


def _dtype(x):
    return sums_dtype(x.dtype)


class _Terms:
    """A loss and its gradients, for some rows or for all.

    A subclass has the `targets` that a gradient may be wanted of, or None, and
    says in `some` what the losses of some rows are.
    """

    targets = None

    def __init__(self, logits, more, focal_gamma):
        self.shape, self.dtype = logits.shape, _dtype(logits)
        self.logits = logits
        # Else it would be a copy.
        if logits.is_contiguous() or len(self.shape) == 1:
            self.logits = logits.reshape(-1, self.shape[-1])
        self.more, self.focal_gamma = more, focal_gamma
        now = _keras.computes_now(logits)
        # Whether it costs nothing to know what the numbers are.
        self.looks = now and not devices.on_accelerator(logits)
        size = devices.cached_rows(self.logits) if now else None
        count = self.logits.shape[0]
        self.blocks = [slice(None)]
        if size is not None and size < count:
            starts = range(0, count, size)
            self.blocks = [slice(start, start + size) for start in starts]

    def all(self, upstream=None, of_logits=False, of_targets=False):
        """The losses, and the gradients by logits and by targets or None."""
        if upstream is not None:
            upstream = upstream.reshape(self.logits.shape[:-1])
        losses, wholes = [], None
        for rows in self.blocks:
            result, *slopes = self.some(rows, of_logits, of_targets)
            losses.append(result)
            if upstream is not None:
                for slope in slopes:
                    self._scale(slope, upstream[rows])
            if wholes is None:
                wholes = self._wholes(slopes)
            if len(self.blocks) > 1:
                for whole, slope in zip(wholes, slopes, strict=True):
                    if slope is not None:
                        whole[rows] = slope
        losses = losses[0] if len(losses) == 1 else ops.concatenate(losses)
        wholes = [x if x is None else x.reshape(self.shape) for x in wholes]
        return losses.reshape(self.shape[:-1]), *wholes

    def _wholes(self, slopes):
        """Gradients of the dtypes of what they are by, from those of a block.

        Of one block they are what is wanted. Of several they are yet to be.
        """
        wholes = []
        for slope, like in zip(
            slopes, (self.logits, self.targets), strict=True
        ):
            if slope is None:
                wholes.append(None)
            elif len(self.blocks) == 1:
                wholes.append(cast(slope, dtype_of(like)))
            else:
                wholes.append(like.new_empty(like.shape))
        return wholes

    def scaled(self, slope, upstream):
        """A gradient times that of the losses, in its memory."""
        by_rows = slope.view(self.logits.shape)
        upstream = upstream.reshape(by_rows.shape[:-1])
        for rows in self.blocks:
            self._scale(by_rows[rows], upstream[rows])
        return slope

    def _scale(self, x, upstream):
        """x · upstream, and 0 in rows where that is 0, whatever they hold."""
        if x is None:
            return
        x.mul_(upstream[..., None])
        none = upstream == 0
        if not self.looks or none.any():
            x.masked_fill_(none[..., None], 0)

    def z_loss(self, top, log_total):
        """z · lse² and its derivative by lse."""
        lse = top + log_total
        return self.more.z_loss * lse[..., 0] ** 2, 2 * self.more.z_loss * lse


class _Column(_Terms):
    """One right class in each row, and maybe a weight of it."""

    def __init__(self, labels, weight, *rest):
        super().__init__(*rest)
        self.labels, self.weight = _columns(labels, weight, self.logits)

    def some(self, rows, of_logits, of_targets):
        labels = self.labels[rows]
        x = cast(self.logits[rows], self.dtype)
        top = x.amax(-1, keepdim=True)
        p = x - top
        log_p = p.gather(-1, labels)
        total = p.exp_().sum(-1, keepdim=True)
        log_total = total.log()
        losses, slope = self._of_one(log_p - log_total)
        if self.weight is not None:
            losses = weighted(losses, self.weight[rows])
            slope = slope * self.weight[rows]
        losses, amount = losses[..., 0], slope
        if self.more.z_loss:
            more, by_lse = self.z_loss(top, log_total)
            losses, amount = losses + more, amount + by_lse
        if not of_logits:
            return losses, None, None
        p.mul_(amount / total).scatter_add_(-1, labels, -slope)
        return losses, p, None

    def _of_one(self, log_p):
        """(1 − p)^γ (−l) of the right class, and h without its weight."""
        if not self.focal_gamma:
            return -log_p, log_p.new_ones(log_p.shape)
        log_p = log_p.clamp(min=-LARGEST)
        rest = -log_p.expm1()
        power = rest.clamp(min=TINY) ** (self.focal_gamma - 1)
        slope = power * (rest - self.focal_gamma * log_p.exp() * log_p)
        return -power * rest * log_p, slope


class _Spread(_Terms):
    """A share of each class, c: a subclass says in `shares` of which."""

    def __init__(self, *given):
        super().__init__(*given)
        self.class_weight = None
        if self.more.class_weight is not None:
            self.class_weight = ops.convert_to_tensor(
                self.more.class_weight, dtype=self.dtype
            )

    def some(self, rows, of_logits, of_targets):
        x = cast(self.logits[rows], self.dtype)
        shares, good = self.shares(x, rows)
        top = x.amax(-1, keepdim=True)
        # Bounded, as 0 · ∞ has to be 0.
        below = (x - top).clamp_(min=-LARGEST)
        p = below.exp()
        total = p.sum(-1, keepdim=True)
        log_total = total.log()
        of = self._focal if self.focal_gamma else self._plain
        losses, slope, scale, to_targets = of(
            shares, below, p, total, log_total, of_targets
        )
        if self.more.z_loss:
            more, by_lse = self.z_loss(top, log_total)
            losses, scale = losses + more, scale + by_lse
        if good is not None:
            losses = losses.masked_fill(~good, np.nan)
        if of_targets:
            to_targets.mul_(1 - self.more.label_smoothing)
            if self.class_weight is not None:
                to_targets.mul_(self.class_weight)
        if not of_logits:
            return losses, None, to_targets
        return losses, p.mul_(scale / total).sub_(slope), to_targets

    def _plain(self, shares, below, p, total, log_total, of_targets):
        """The losses, h and Σ h, and the derivatives by w t̃ or None."""
        sums = shares.sum(-1, keepdim=True)
        # No sum of terms of both signs: they would cancel.
        losses = sums * log_total
        losses = losses[..., 0] - (shares * below).sum(-1)
        to_targets = log_total - below if of_targets else None
        return losses, shares, sums, to_targets

    def _focal(self, shares, below, p, total, log_total, of_targets):
        """As `_plain`, in the memory of what is given but the shares."""
        gamma = self.focal_gamma
        log_p = below.sub_(log_total)
        # At most 1, as p is at most total, which is at least 1.
        p.mul_(1 / total)
        total.fill_(1)
        rest = 1 - p
        if gamma < 1:
            rest.clamp_(min=TINY)
        # Two is what most take, and needs no power.
        power = rest if gamma == 2 else rest ** (gamma - 1)
        to_targets = -(power * rest * log_p) if of_targets else None
        part = power * shares
        losses = -(part * rest).mul_(log_p).sum(-1)
        # h = c (1 − p)^(γ−1) (1 − p − γ p l), with γ p first: γ l may overflow.
        slope = rest.addcmul_(p, log_p, value=-gamma).mul_(part)
        return losses, slope, slope.sum(-1, keepdim=True), to_targets

    def even(self, x):
        """ε/K for the K finite logits of a row, 0 for those that are −inf."""
        smoothing = self.more.label_smoothing
        if self.looks and 0 not in x.shape and x.amin() > -np.inf:
            return x.new_full((1,) * len(x.shape), smoothing / x.shape[-1])
        finite = ops.cast(x > -np.inf, x.dtype)
        count = finite.sum(-1, keepdim=True).clamp(min=1)
        return finite.mul_(smoothing / count)


class _Shares(_Spread):
    """Targets with a share of each class."""

    def __init__(self, targets, *rest):
        super().__init__(*rest)
        self.targets = targets.reshape(self.logits.shape)

    def shares(self, x, rows):
        """c, and which rows have no target below 0; None if all."""
        shares = cast(self.targets[rows], self.dtype)
        good = None
        if not self.looks or shares.numel() == 0 or not shares.amin() >= 0:
            good = shares.amin(-1) >= 0
        smoothing = self.more.label_smoothing
        if smoothing:
            shares = self.even(x).add(shares, alpha=1 - smoothing)
        if self.class_weight is not None:
            shares = shares * self.class_weight
        return shares, good


class _Smoothed(_Spread):
    """A right class in each row, and maybe a weight of it, with smoothing."""

    def __init__(self, labels, weight, *rest):
        super().__init__(*rest)
        self.labels, self.weight = _columns(labels, weight, self.logits)

    def shares(self, x, rows):
        labels = self.labels[rows]
        shares = self.even(x)
        if self.class_weight is not None:
            shares = shares * self.class_weight
        shares = shares.expand(x.shape).clone()
        weight = x.new_full(labels.shape, 1 - self.more.label_smoothing)
        if self.weight is not None:
            weight = weight * self.weight[rows]
        shares.scatter_add_(-1, labels, weight)
        return shares, None


def _columns(labels, weight, logits):
    """Labels, to gather and scatter with, and their weights beside them."""
    shape = (*logits.shape[:-1], 1)
    weight = weight if weight is None else weight.reshape(shape)
    return labels.reshape(shape).long(), weight
