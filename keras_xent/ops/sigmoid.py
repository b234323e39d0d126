"""Cross-entropy from logits, a sigmoid per element."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
from keras_xent.ops.blocks import add, in_place, multiply, subtract
from keras_xent.ops.own_softmax import LARGEST, is_written_out
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
    logits = checks.logits(logits)
    check_options(label_smoothing, focal_gamma)
    ignored = ignored_values(ignore_class)
    checks.zero_to_one(
        "targets",
        targets,
        "If yes and no are +1 and -1, pass (targets + 1) / 2; if a value means "
        "that the answer is not known, name it in `ignore_class`.",
        ignored,
    )
    targets = ops.cast(ops.convert_to_tensor(targets), logits.dtype)
    checks.same_shape("targets", targets.shape, "logits", logits.shape)
    known = is_known(targets, ignored)
    if known is not None:
        targets = where(known, targets, 0)
        logits = where(known, logits, 0)

    weight = None if pos_weight is None else _pos_weight(pos_weight, logits)
    if label_smoothing:
        # What is no share of yes and no is none, smoothed or not.
        targets = where(_impossible(targets), np.nan, targets)
        targets = (1 - label_smoothing) * targets + label_smoothing / 2
    if is_written_out(focal_gamma, logits):
        losses = _written_out(targets, logits, weight, focal_gamma)
    else:
        losses = _with_own_gradient(targets, logits, weight)
    losses = checks.sizes_agree(losses, targets, logits)
    return losses if known is None else where(known, losses, 0)


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
        return where(_impossible(targets), np.nan, rest + logits * share)
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
    return where(_impossible(targets), np.nan, losses)


def _impossible(targets):
    """Which targets are neither yes, no nor a share of it. Not so for NaN."""
    return (targets < 0) | (targets > 1)


def _rest(x):
    """log(1 + exp(−|x|)), in the memory of x where that can be."""
    if in_place():
        return x.abs_().neg_().exp_().log1p_()
    return ops.log1p(ops.exp(-abs(x)))


def _is_positive(x):
    """1 for numbers above 0 and 0 for others, in the dtype of x."""
    # Keras's comparison makes booleans first (33 and 43 ms).
    return x.clone().gt_(0) if in_place() else ops.cast(x > 0, x.dtype)


def _sigmoid(x):
    if BACKEND == "torch":
        return ops.sigmoid(x)
    # Of one exponential that XLA has by now, and of one more (35 and 50 ms).
    return ops.exp(ops.minimum(x, 0)) / (1 + ops.exp(-abs(x)))


def _with_own_gradient(targets, logits, weight):
    """As `_written_out`, for a backend that makes one pass after the other.

    On PyTorch a new array costs five times as much as a pass over an old one
    ([1024, 32768], two cores: 26 and 5 ms).
    """
    wanted = _keras.may_want_gradient(targets)

    def factor():
        """q t + 1 − t."""
        return add(multiply(targets * 1.0, weight - 1.0), 1.0)

    def losses(targets, logits):
        bounded = ops.clip(logits, -LARGEST, LARGEST)
        positive = _is_positive(bounded)
        share = positive if weight is None else positive * 1.0
        result = multiply(subtract(share, targets), bounded)
        # As in `_sigmoid`, so that XLA takes one exponential for both.
        rest = _rest(bounded if in_place() else logits)
        if weight is not None:
            # q for what should be yes and is not.
            each = add(multiply(positive, 1.0 - weight), weight)
            result = multiply(result, each)
            rest = multiply(rest, factor())
        result = add(result, rest)
        if in_place():
            del bounded, positive, share, rest
            result.masked_fill_(_impossible(targets), float("nan"))
        else:
            result = where(_impossible(targets), np.nan, result)

        def grad(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            to_targets = None
            if wanted:
                to_targets = -ops.clip(logits, -LARGEST, LARGEST)
                if weight is not None:
                    # Not `maximum`, which makes float32 of float64 on PyTorch.
                    miss = _rest(logits * 1.0) + ops.relu(to_targets)
                    to_targets = to_targets + (weight - 1.0) * miss
                to_targets = to_targets * upstream
            slope = _sigmoid(logits)
            if weight is not None:
                slope = multiply(add(slope, -1.0), factor())
                slope = add(slope, 1.0)
            slope = multiply(subtract(slope, targets), upstream)
            return to_targets, slope

        return result, grad

    return _keras.own_gradient(
        losses, lambda targets, logits: _written_out(targets, logits, weight)
    )(targets, logits)


def check_options(label_smoothing, focal_gamma):
    """Raises on an option that is out of range."""
    checks.number("label_smoothing", label_smoothing, 0, 1, high_open=True)
    checks.number("focal_gamma", focal_gamma, 0)


def check_pos_weight(pos_weight, outputs=None):
    """Raises unless `pos_weight` is a number or a vector of the right size."""
    if pos_weight is not None and np.ndim(pos_weight) == 0:
        checks.number("pos_weight", pos_weight, 0)
    else:
        checks.vector("pos_weight", pos_weight, outputs)


def ignored_values(ignore_class):
    """The numbers that stand for "not known", NaN among them, as floats."""
    if ignore_class is None:
        return ()
    values = np.asarray(ignore_class)
    if values.ndim > 1 or values.dtype.kind not in "iuf":
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
    targets = ops.cast(ops.convert_to_tensor(targets), "float32")
    for value in ignored:
        differs = checks.differs(targets, float(np.float32(value)))
        known = differs if known is None else known & differs
    return known


def _pos_weight(pos_weight, logits):
    if np.ndim(pos_weight) == 0:
        check_pos_weight(pos_weight)
        return float(pos_weight)
    check_pos_weight(pos_weight, logits.shape[-1] if logits.shape else 1)
    return ops.convert_to_tensor(pos_weight, dtype=logits.dtype)
