"""Cross-entropy from logits, a sigmoid per element."""

import dataclasses
import typing
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, devices
from keras_xent.ops.blocks import (
    add,
    add_multiplied,
    in_place,
    multiply,
    subtract,
)
from keras_xent.ops.by_rows import by_rows
from keras_xent.ops.by_rows import is_written_out as rows_written_out
from keras_xent.ops.dtypes import sums_dtype
from keras_xent.ops.own_softmax import LARGEST
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

BACKEND = keras.backend.backend()


@public_op
def sigmoid_crossentropy(
    targets: TensorLike,
    logits: TensorLike,
    *,
    label_smoothing: float = 0.0,
    pos_weight: float | Sequence[float] | np.ndarray | None = None,
    focal_gamma: float = 0.0,
    ignore_class: float | Sequence[float] | None = None,
) -> Tensor:
    """Cross-entropy between yes/no targets and the sigmoid of logits.

    ```
    loss = q t̃ (1 − p)^γ (−log p) + (1 − t̃) p^γ (−log(1 − p))
    p    = sigmoid(logits),   t̃ = (1 − ε) t + ε / 2
    ```

    −log p is softplus(−logit) and −log(1 − p) is softplus(logit), made of one
    log(1 + exp(−|logit|)): exact for logits of any size, and soft targets.
    With a focal exponent each of the two terms has a factor of its own, which
    for soft targets is not the (1 − p_t)^γ of others, optax among them: there
    p_t = t p + (1 − t)(1 − p).

    Args:
        targets: Tensor of the shape of `logits`: 1 (yes), 0 (no), or the
            probability of yes.
        logits: Float tensor of log-odds: the raw output of the last layer, no
            sigmoid.
        label_smoothing: ε in [0, 1): the share of every target that is spread
            over yes and no.
        pos_weight: q ≥ 0, the weight of a yes: a number, or a vector of one
            per entry of the last axis. `None` is 1.
        focal_gamma: γ ≥ 0, the focal exponent. 0 is the plain cross-entropy.
        ignore_class: A number, or a list of them, that stands for "not known",
            such as -1 or NaN: elements with such a target have loss and
            gradient 0.

    Returns:
        The loss of every element in nats: the shape of `logits`, float32, or
        float64 for float64 logits. A target outside [0, 1] gives NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the logits are
            not floating point, an option is out of range, or `targets` in host
            memory lie outside [0, 1].

    References:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), smoothing;
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), focal loss.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> logits = np.array([0.0, 20.0, 9.0], "float32")
    >>> targets = np.array([1, 0, -1])
    >>> loss = ops.sigmoid_crossentropy(targets, logits, ignore_class=-1)
    >>> print([f"{float(value):.4f}" for value in loss])
    ['0.6931', '20.0000', '0.0000']
    """
    check_options(label_smoothing, focal_gamma)
    return _losses(
        targets,
        logits,
        pos_weight,
        label_smoothing=label_smoothing,
        focal_gamma=focal_gamma,
        ignored=ignored_values(ignore_class),
    )


def row_means(
    targets, logits, label_smoothing, pos_weight, focal_gamma, ignore_class
):
    """The mean of `sigmoid_crossentropy` over the last axis.

    Over the entries that are known, and 0 where none is. No loss of a single
    entry is kept.
    """
    ignored = ignored_values(ignore_class)
    sums = _losses(
        targets,
        logits,
        pos_weight,
        label_smoothing=label_smoothing,
        focal_gamma=focal_gamma,
        ignored=ignored,
        summed=True,
    )
    known = is_known(targets, ignored)
    if known is not None:
        # Not `count_nonzero`: on PyTorch Keras turns its axes around, as of
        # 3.16 (no upstream issue found).
        count = ops.sum(ops.cast(known, sums.dtype), axis=-1)
        return sums / where(count == 0, 1, count)
    count = logits.shape[-1]
    if count is None:
        count = ops.cast(ops.shape(logits)[-1], sums.dtype)
    # Not `mean`: JAX then writes the losses (0.20 and 0.11 s of the whole).
    return sums / count


def is_written_out(focal_gamma, logits):
    """Whether the gradient of these losses is that of the formula.

    If not, it is one of its own: see `by_rows`.
    """
    return (focal_gamma > 0 and BACKEND != "torch") or rows_written_out(logits)


def _losses(targets, logits, pos_weight, **options):
    logits = checks.logits(logits, widen=False)
    checks.zero_to_one(
        "targets",
        targets,
        "If yes and no are +1 and -1, pass (targets + 1) / 2; if a value means "
        "that the answer is not known, name it in `ignore_class`.",
        options["ignored"],
    )
    targets = checks.tensor("targets", targets)
    checks.same_shape("targets", targets.shape, "logits", logits.shape)
    weight = None if pos_weight is None else _pos_weight(pos_weight, logits)
    loss = _Loss(weight=weight, **options)
    if is_written_out(loss.focal_gamma, logits):
        losses = loss.written_out(targets, logits)
    else:
        losses = by_rows(loss.with_gradients, loss.written_out, targets, logits)
    return checks.sizes_agree(losses, targets, logits)


@dataclasses.dataclass(frozen=True)
class _Loss:
    """The loss of one element, or of a row of them if it is summed up.

    Targets and logits may be of any dtype: a few at a time they are taken to
    float32 or float64.
    """

    weight: typing.Any
    label_smoothing: float
    focal_gamma: float
    ignored: tuple
    summed: bool = False

    def written_out(self, targets, logits):
        known, targets, logits = self._known(targets, logits)
        if self.label_smoothing:
            # What is no share of yes and no is none, smoothed or not.
            targets = where(_impossible(targets), np.nan, targets)
        losses = _written_out(
            self._smoothed(targets), logits, self.weight, self.focal_gamma
        )
        if known is not None:
            losses = where(known, losses, 0)
        return ops.sum(losses, axis=-1) if self.summed else losses

    def with_gradients(self, wanted, targets, logits):
        """As `by_rows` has it: by passes, in the memory of those before."""
        known, given, logits = self._known(targets, logits)
        targets = self._smoothed(given)
        limit = LARGEST / max(1, self.focal_gamma)
        logits = ops.clip(logits, -limit, limit)
        of_loss = self._focal if self.focal_gamma else self._plain
        losses, slopes = of_loss(wanted, targets, logits)
        if slopes[0] is not None and self.label_smoothing:
            slopes[0] = multiply(slopes[0], 1 - self.label_smoothing)
        if known is not None:
            known = ops.cast(known, losses.dtype)
            losses = multiply(losses, known)
            slopes = [x if x is None else multiply(x, known) for x in slopes]
        if not self.summed:
            return where(_impossible(given), np.nan, losses), slopes
        bad = _impossible(ops.min(given, -1)) | _impossible(ops.max(given, -1))
        return where(bad, np.nan, ops.sum(losses, axis=-1)), slopes

    def _known(self, targets, logits):
        """Which are known, None for all, and 0 for those that are not."""
        known = is_known(targets, self.ignored)
        dtype = sums_dtype(logits.dtype)
        targets, logits = ops.cast(targets, dtype), ops.cast(logits, dtype)
        if known is not None:
            targets, logits = where(known, targets, 0), where(known, logits, 0)
        return known, targets, logits

    def _smoothed(self, targets):
        share = self.label_smoothing
        if not share:
            return targets
        return add(targets * (1 - share), share / 2)

    def _plain(self, wanted, t, x):
        """max(x, 0) − t x + log(1 + exp(−|x|)) and its slopes.

        With q they are ([x > 0] − t) x [q where x < 0] + f log(1 + exp(−|x|))
        and f p − q t, where f = q t + 1 − t.
        """
        q = self.weight
        weighed = None if q is None else t * q
        factor = None if q is None else add(1.0 - t, weighed)
        slopes = [None, None]
        if wanted[0]:
            slopes[0] = -x
            if q is not None:
                miss = add(_below(x), _rest(x * 1.0))
                slopes[0] = add(slopes[0], multiply(miss, q - 1.0))
        if wanted[1]:
            slopes[1] = _sigmoid(x)
            if q is not None:
                slopes[1] = multiply(slopes[1], factor)
            slopes[1] = subtract(slopes[1], t if q is None else weighed)
        positive = _is_positive(x)
        share = positive if q is None else positive * 1.0
        losses = multiply(subtract(share, t), x)
        rest = _rest(x)
        if q is not None:
            each = add(multiply(positive, 1.0 - q), q)
            losses = multiply(losses, each)
            rest = multiply(rest, factor)
        return add(losses, rest), slopes

    def _focal(self, wanted, t, x):
        """q t r^γ miss + (1 − t) p^γ alarm and its slopes, with r = 1 − p."""
        gamma, q = self.focal_gamma, self.weight
        p, r = _sigmoid(x), _sigmoid(-x)
        miss, alarm = ops.relu(-x), ops.relu(x)
        rest = _rest(x)
        miss, alarm = add(miss, rest), add(alarm, rest)
        yes, no = r**gamma, p**gamma
        if q is not None:
            yes = multiply(yes, q)
        slopes = [None, None]
        if wanted[0]:
            slopes[0] = subtract(yes * miss, no * alarm)
        yes, no = multiply(yes, t), multiply(no, 1.0 - t)
        losses = add_multiplied(yes * miss, no, alarm)
        if wanted[1]:
            # Each is overwritten where it is needed no more.
            of_yes = add_multiplied(r * 1.0, miss, p, gamma)
            of_no = add_multiplied(p, alarm, r, gamma)
            slopes[1] = add_multiplied(multiply(no, of_no), yes, of_yes, -1)
        return losses, slopes


def _written_out(targets, logits, weight, focal_gamma=0):
    # Bounded, as infinite log-odds must cost 0 where they are right, and 0 · ∞
    # is NaN. γ times that must be finite, too.
    limit = LARGEST / max(1, focal_gamma)
    logits = ops.clip(logits, -limit, limit)
    positive = logits > 0
    # Not `abs`, whose derivative at 0 is another one on each backend.
    size = where(positive, logits, -logits)
    rest = ops.log1p(ops.exp(-size))
    if not focal_gamma and weight is None:
        # One factor for both, max(x, 0) − t x, without what that cancels.
        share = ops.cast(positive, logits.dtype) - targets
        return _or_nan(rest + logits * share, targets)
    yes = targets if weight is None else targets * weight
    miss = rest + where(positive, 0, size)
    alarm = rest + where(positive, size, 0)
    if focal_gamma:
        # (1 − p)^γ by its logarithm: all derivatives exist, for any γ.
        miss, alarm = (
            ops.exp(-focal_gamma * alarm) * miss,
            ops.exp(-focal_gamma * miss) * alarm,
        )
    losses = yes * miss + (1 - targets) * alarm
    return _or_nan(losses, targets)


def _or_nan(losses, targets):
    """The losses, and NaN where a target is impossible."""
    if devices.is_in_sight(targets):
        seen = ops.convert_to_numpy(targets)
        if not np.any(_impossible(seen)):
            return losses
    return where(_impossible(targets), np.nan, losses)


def _impossible(targets):
    """Which targets are neither yes, no nor a share of it. Not so for NaN."""
    return (targets < 0) | (targets > 1)


# TensorFlow differentiates the gradient as it is written: at 0 these take the
# side of the numbers below, all of them, so that their sums are right there.


def _rest(x):
    """log(1 + exp(−|x|)), in the memory of x where that can be."""
    if in_place():
        return x.abs_().neg_().exp_().log1p_()
    return ops.log1p(ops.exp(-_size(x)))


def _size(x):
    return where(x > 0, x, -x)


def _below(x):
    """max(−x, 0)"""
    return ops.relu(-x) if BACKEND == "torch" else where(x > 0, 0, -x)


def _is_positive(x):
    """1 for numbers above 0 and 0 for others, in the dtype of x."""
    # Keras's comparison makes booleans first (33 and 43 ms).
    return x.clone().gt_(0) if in_place() else ops.cast(x > 0, x.dtype)


def _sigmoid(x):
    if BACKEND == "torch":
        return ops.sigmoid(x)
    # Of one exponential that XLA has by now, and of one more (35 and 50 ms).
    return ops.exp(-_below(x)) / (1 + ops.exp(-_size(x)))


def check_options(label_smoothing, focal_gamma):
    """Raises on an option that is out of range."""
    checks.number("label_smoothing", label_smoothing, 0, 1, high_open=True)
    checks.number("focal_gamma", focal_gamma, 0)


def check_pos_weight(pos_weight, outputs=None):
    """Returns a number, a vector of the right size or None, or raises."""
    if pos_weight is None or not checks.is_single(pos_weight):
        return checks.vector("pos_weight", pos_weight, outputs)
    checks.number("pos_weight", pos_weight, 0)
    return float(pos_weight)


def ignored_values(ignore_class):
    """The numbers that stand for "not known", NaN among them, as floats."""
    if ignore_class is None:
        return ()
    values = checks.as_numpy(ignore_class)
    if values is None or values.ndim > 1 or values.dtype.kind not in "iuf":
        raise ValueError(
            "`ignore_class` must be a number, which may be NaN, or a list of "
            f"them. Received: ignore_class={ignore_class!r}"
        )
    return tuple(float(value) for value in values.reshape(-1))


def is_known(targets, ignored):
    """Which targets are none of the ignored ones; None where all count."""
    if not ignored:
        return None
    known = None
    targets = ops.cast(checks.tensor("targets", targets), "float32")
    for value in ignored:
        differs = checks.differs(targets, float(np.float32(value)))
        known = differs if known is None else known & differs
    return known


def _pos_weight(pos_weight, logits):
    outputs = logits.shape[-1] if logits.shape else 1
    weight = check_pos_weight(pos_weight, outputs)
    if isinstance(weight, float):
        return weight
    return ops.convert_to_tensor(weight, dtype=sums_dtype(logits.dtype))
