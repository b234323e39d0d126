"""Cross-entropy from logits, a sigmoid per element."""

from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

# float32's largest number stands for ∞ where 0 · ∞ has to be 0.
LARGEST = float(np.finfo("float32").max)


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

    −log p is softplus(−logit) and −log(1 − p) is softplus(logit): exact for
    logits of any size. With a focal exponent each of the two terms has a
    factor of its own, which for soft targets is not the (1 − p_t)^γ of others,
    optax among them: there p_t = t p + (1 − t)(1 − p).

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

    yes = targets
    if label_smoothing:
        yes = (1 - label_smoothing) * yes + label_smoothing / 2
    no = 1 - yes
    if pos_weight is not None:
        yes = yes * _pos_weight(pos_weight, logits)
    # Before the softplus, which need not be finite in float32 for infinite
    # log-odds: 0 · ∞ must be 0. γ times it must be finite, too.
    limit = LARGEST / max(1, focal_gamma)
    logits = ops.clip(logits, -limit, limit)
    miss, alarm = ops.softplus(-logits), ops.softplus(logits)
    if focal_gamma:
        # (1 − p)^γ by its logarithm: all derivatives exist, for any γ.
        miss, alarm = (
            ops.exp(-focal_gamma * alarm) * miss,
            ops.exp(-focal_gamma * miss) * alarm,
        )
    losses = yes * miss + no * alarm
    possible = ops.clip(targets, 0, 1) == targets
    losses = where(possible, losses, np.nan)
    losses = checks.sizes_agree(losses, targets, logits)
    return losses if known is None else where(known, losses, 0)


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
