"""Cross-entropy from logits, softmax over classes.

One formula covers both kinds of labels with all their options,

    loss = Σ_k w_k t̃_k (1 − p_k)^γ (−log p_k) + z · lse²,

with p = softmax(x), lse = log Σ_k exp(x_k), t̃ the smoothed target, w the class
weights, γ the focal exponent. −log p_k is always taken as
(m − x_k) + log Σ_j exp(x_j − m) with m the largest logit: `lse − x_k` loses
3e-4 at logits near 1e4, because both grow with the offset and only their
difference counts.
"""

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import ClassIds, ClassWeight, Tensor, TensorLike
from keras_xent._warnings import warn
from keras_xent.ops import checks, extrema
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

# Each backend has a formula that beats the others; forward + backward on
# [1024, 32768], first prototypes, two cores. TensorFlow's fused kernel takes
# 132 MB, a custom gradient 268 MB and 4 times the cost of an eager call.
# PyTorch's takes 0.24 s, a custom gradient 0.30 s, and log-softmax and gather
# cost 1.3 times as much in an eager call. On JAX the maximum and the sum
# written out, which XLA fuses, take 0.10 s and 128 MB, the log-softmax 0.18 s
# and 256 MB, and Keras's own loss 0.25 s and 384 MB.
# What came of it: python benchmarks/crossentropy.py, docs/crossentropy.md.
BACKEND = keras.backend.backend()

# Stands for a label that is no whole number or too large for int32. It is the
# one int32 that `ignore_class` does not accept, so that it is never ignored.
NO_CLASS = -(2**31)

# float32's largest number stands for ∞ where 0 · ∞ has to be 0.
LARGEST = float(np.finfo("float32").max)

# Targets in float16 or bfloat16 miss a sum of 1 by rounding alone.
SUM_TOLERANCE = 1e-2


@public_op
def softmax_crossentropy(
    targets: TensorLike,
    logits: TensorLike,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    class_weight: ClassWeight = None,
    focal_gamma: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Cross-entropy between target distributions and the softmax of logits.

    ```
    loss = Σ_k w_k t̃_k (1 − p_k)^γ (−log p_k) + z · lse²
    p    = softmax(logits),   lse = log Σ_k exp(logits_k)
    t̃_k  = (1 − ε) t_k + ε / K   over the K classes with a finite logit
    ```

    A class whose logit is −inf is masked out: it has no probability, takes no
    part in the smoothing, and costs nothing as long as its target is 0.

    Args:
        targets: Float tensor of the shape of `logits`: the distribution t over
            the classes, non-negative, with sum 1 along `axis`.
        logits: Float tensor `(..., classes, ...)` of unnormalized
            log-probabilities: the raw output of the last layer, no softmax.
        axis: The axis of the classes. Any axis, on every backend.
        label_smoothing: ε in [0, 1): the share of every target that is spread
            evenly over the classes.
        class_weight: w, a vector of one non-negative number per class, or a
            dict from class ids to numbers, as in `fit`: classes that it leaves
            out weigh 1. `None` weighs all alike. It multiplies: a mean divides
            by the number of rows, not by their weights.
        focal_gamma: γ ≥ 0, the focal exponent. 0 is the plain cross-entropy.
        z_loss: z ≥ 0, keeps log Σ exp(logits) near 0.

    Returns:
        The loss of every example in nats: the shape of `logits` without
        `axis`, float32, or float64 for float64 logits. A row that holds no
        finite logit gives NaN, a negative or NaN target as well. The gradient
        of such a row is 0 with label smoothing, focal exponent or z-loss;
        without, it is the NaN of the fused log-softmax.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the logits are
            not floating point or have one class only, an option is out of
            range, or `targets` in host memory hold a negative number.

    Warns:
        UserWarning: if `targets` in host memory do not sum to 1.

    References:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), smoothing;
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), focal loss;
        [Chowdhery et al., 2022](https://arxiv.org/abs/2204.02311), z-loss.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> logits = np.array([[2.0, 1.0, -np.inf]], "float32")
    >>> targets = np.array([[1.0, 0.0, 0.0]], "float32")
    >>> loss = ops.softmax_crossentropy(targets, logits)
    >>> print(f"{float(loss[0]):.4f}")
    0.3133
    """
    logits = checks.logits(logits)
    axis = checks.axis(axis, len(logits.shape))
    count = checks.classes(logits.shape, axis)
    class_weight = check_options(
        label_smoothing, class_weight, focal_gamma, z_loss, count
    )
    _check_vector(class_weight, logits, axis)
    targets = distribution(targets, logits, axis)
    if not (label_smoothing or focal_gamma or z_loss):
        # One fused kernel instead of five steps.
        log_p = ops.log_softmax(logits, axis=axis)
    else:
        log_p, log_sum = _log_softmax(logits, axis)
    # Before the smoothing: that would hide a negative or NaN target.
    lowest = extrema.smallest(targets, np.inf, axis=axis)
    given = targets
    if label_smoothing:
        targets = (1 - label_smoothing) * targets
        targets = targets + label_smoothing * _even_share(logits, axis)
    if class_weight is not None:
        targets = targets * _along(class_weight, logits, axis)
    if focal_gamma:
        losses = ops.sum(targets * _surprise(log_p, focal_gamma), axis=axis)
    else:
        losses = -ops.sum(targets * _bounded(log_p), axis=axis)
    if z_loss:
        losses = losses + _z_loss(log_sum, z_loss, axis)
    losses = where(lowest >= 0, losses, np.nan)
    losses = checks.sizes_agree(losses, given, logits)
    return _several_classes(losses, logits, axis)


@public_op
def sparse_softmax_crossentropy(
    labels: TensorLike,
    logits: TensorLike,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    class_weight: ClassWeight = None,
    focal_gamma: float = 0.0,
    z_loss: float = 0.0,
    ignore_class: ClassIds = None,
) -> Tensor:
    """Cross-entropy between integer labels and the softmax of logits.

    ```
    loss = Σ_k w_k t̃_k (1 − p_k)^γ (−log p_k) + z · lse²
    p    = softmax(logits),   lse = log Σ_k exp(logits_k)
    t̃_k  = (1 − ε) [k = label] + ε / K   over the K classes with a finite logit
    ```

    It equals `softmax_crossentropy` of the one-hot labels, which it never
    builds. Labels stay integers all the way.

    Args:
        labels: Integer tensor of class ids from 0: the shape of `logits`
            without `axis`, or with size 1 there. Floats that hold whole
            numbers are accepted.
        logits: Float tensor `(..., classes, ...)` of unnormalized
            log-probabilities: the raw output of the last layer, no softmax.
        axis: The axis of the classes. Any axis, on every backend.
        label_smoothing: ε in [0, 1): the share of every target that is spread
            evenly over the classes.
        class_weight: w, a vector of one non-negative number per class, or a
            dict from class ids to numbers, as in `fit`: classes that it leaves
            out weigh 1. `None` weighs all alike. It multiplies: a mean divides
            by the number of rows, not by their weights.
        focal_gamma: γ ≥ 0, the focal exponent. 0 is the plain cross-entropy.
        z_loss: z ≥ 0, keeps log Σ exp(logits) near 0.
        ignore_class: A class id, or a list of them, whether such classes exist
            or not. Examples with such a label have loss and gradient 0.

    Returns:
        The loss of every example in nats: the shape of `logits` without
        `axis`, float32, or float64 for float64 logits. A label that does not
        exist gives NaN (on TensorFlow, where it runs on a CPU, an error), and
        so does a row that holds no finite logit. The gradient of such a row is
        0, except on TensorFlow and PyTorch, where it is the NaN of their fused
        kernels.

    Raises:
        ValueError: if the shapes do not fit, the logits are not floating point
            or have one class only, an option is out of range, or `labels` in
            host memory hold a number that is no class id or does not fit into
            int32.

    References:
        [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), smoothing;
        [Lin et al., 2017](https://arxiv.org/abs/1708.02002), focal loss;
        [Chowdhery et al., 2022](https://arxiv.org/abs/2204.02311), z-loss.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> logits = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]], "float32")
    >>> loss = ops.sparse_softmax_crossentropy([0, -1], logits, ignore_class=-1)
    >>> print([f"{float(value):.4f}" for value in loss])
    ['0.4076', '0.0000']
    """
    logits = checks.logits(logits)
    axis = checks.axis(axis, len(logits.shape))
    count = checks.classes(logits.shape, axis)
    class_weight = check_options(
        label_smoothing, class_weight, focal_gamma, z_loss, count
    )
    _check_vector(class_weight, logits, axis)
    ignored = checks.id_tuple("ignore_class", ignore_class)
    checks.label_range(labels, count, ignored)
    labels = integer_labels(labels, logits.shape, axis)
    counted = is_counted(labels, ignored)
    if counted is not None:
        labels = where(counted, labels, 0)
        logits = where(ops.expand_dims(counted, axis), logits, 0)

    losses = _negative_log_likelihood(labels, logits, axis)
    if focal_gamma:
        losses = _surprise(-losses, focal_gamma)
    if class_weight is not None:
        weight = _weight_of(labels, class_weight, logits.dtype)
        losses = where(weight == 0, 0, weight * losses)
    if label_smoothing or z_loss:
        log_p, log_sum = _log_softmax(logits, axis)
        losses = (1 - label_smoothing) * losses
        if label_smoothing:
            share = label_smoothing * _even_share(logits, axis)
            if class_weight is not None:
                share = share * _along(class_weight, logits, axis)
            share = share * _surprise(log_p, focal_gamma)
            losses = losses + ops.sum(share, axis=axis)
        if z_loss:
            losses = losses + _z_loss(log_sum, z_loss, axis)
    losses = _several_classes(losses, logits, axis)
    return losses if counted is None else where(counted, losses, 0)


def check_options(
    label_smoothing, class_weight, focal_gamma, z_loss, classes=None
):
    """Raises on an option that is out of range. Returns the class weights."""
    checks.number("label_smoothing", label_smoothing, 0, 1, high_open=True)
    checks.number("focal_gamma", focal_gamma, 0)
    checks.number("z_loss", z_loss, 0)
    return checks.class_weights(class_weight, classes)


def _check_vector(class_weight, logits, axis):
    """Raises where the weights are of some classes, of an unknown number."""
    if isinstance(class_weight, dict):
        raise ValueError(
            "With `class_weight` as a dict, the number of classes must be "
            f"known. Received logits of shape {tuple(logits.shape)}, "
            f"axis={axis}. Pass a vector of one number per class."
        )


def is_counted(labels, ignored):
    """Which labels are none of the ignored ones; None where all count."""
    counted = None
    for ignore in ignored:
        differs = ops.not_equal(labels, ignore)
        counted = differs if counted is None else counted & differs
    return counted


def rows_counted(labels, shape, axis, ignore_class):
    """Which rows have a label that is not ignored; None where all count."""
    ignored = checks.id_tuple("ignore_class", ignore_class)
    if not ignored:
        return None
    return is_counted(integer_labels(labels, shape, axis), ignored)


def integer_labels(labels, shape, axis):
    """Labels without the class axis, as integers that compare exactly."""
    labels = ops.convert_to_tensor(labels)
    rows = (*shape[:axis], *shape[axis + 1 :])
    if len(labels.shape) == len(shape) and labels.shape[axis] == 1:
        labels = ops.squeeze(labels, axis=axis)
    if not checks.fits(labels.shape, rows):
        hint = (
            " They look one-hot: use SoftmaxCrossentropy."
            if checks.fits(labels.shape, shape)
            else ""
        )
        raise ValueError(
            f"`labels` must be integer class ids of the shape of `logits` "
            f"without the axis of the classes, {rows}. Received labels of "
            f"shape {tuple(labels.shape)} for logits of shape {tuple(shape)} "
            f"with axis={axis}.{hint}"
        )
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if dtype in ("int32", "int64"):
        return labels
    if dtype in ("uint32", "uint64"):
        fits = ops.less_equal(labels, checks.INT32_MAX)
        return where(fits, ops.cast(labels, "int32"), NO_CLASS)
    if "float" not in dtype:
        return ops.cast(labels, "int32")
    labels = ops.cast(labels, checks.sums_dtype(dtype))
    whole = (labels == ops.floor(labels)) & (abs(labels) <= checks.INT32_MAX)
    labels = where(whole, labels, NO_CLASS)
    return ops.cast(labels, "int32")


def distribution(targets, logits, axis):
    """Targets as floats; raises and warns on what are no distributions."""
    if not hasattr(targets, "shape"):
        targets = np.asarray(targets)
    shape, expected = tuple(targets.shape), tuple(logits.shape)
    if not checks.fits(shape, expected):
        rows = (*expected[:axis], *expected[axis + 1 :])
        column = (*expected[:axis], 1, *expected[axis + 1 :])
        if checks.fits(shape, rows) or checks.fits(shape, column):
            raise ValueError(
                f"`targets` must be distributions of the shape of `logits`, "
                f"{expected}. Received shape {shape}: for integer class ids "
                f"use SparseSoftmaxCrossentropy."
            )
        checks.same_shape("targets", shape, "logits", expected)
    values = checks.host_array(targets)
    if values is not None and np.any(values < 0):
        raise ValueError(
            "`targets` must be distributions over the classes. Received the "
            f"negative number {values[values < 0].flat[0]}. If these are "
            "logits of a teacher, pass their softmax."
        )
    if values is not None:
        sums = values.sum(axis=axis, dtype="float64")
        if values.size and not np.allclose(sums, 1, atol=SUM_TOLERANCE):
            warn(
                "`targets` should be distributions: the numbers of an example "
                "sum to 1. Received an example whose sum is "
                f"{sums[~np.isclose(sums, 1, atol=SUM_TOLERANCE)].flat[0]}. If "
                "several classes may be right at once, use "
                "SigmoidCrossentropy."
            )
    return ops.cast(ops.convert_to_tensor(targets), logits.dtype)


def _negative_log_likelihood(labels, logits, axis):
    """−log softmax(logits) at the labels. One that does not exist gives NaN.

    On TensorFlow it is an error of the kernel where that runs on a CPU.
    """
    if BACKEND == "jax":
        return _gathered(labels, logits, axis)
    if axis != len(logits.shape) - 1:
        logits = _keras.moveaxis(logits, axis, -1)
    if BACKEND == "tensorflow":
        # Behind a softmax Keras takes what the softmax was given, and not what
        # it is given itself. A copy (no bytes are copied) has no such past.
        # As of Keras 3.16 it does so on purpose, with a warning.
        return ops.sparse_categorical_crossentropy(
            labels, ops.copy(logits), from_logits=True
        )
    # PyTorch takes −100 for "ignore" and gives 0 for it.
    existing = labels % logits.shape[-1]
    losses = ops.sparse_categorical_crossentropy(
        existing, logits, from_logits=True
    )
    return where(existing == labels, losses, np.nan)


def _gathered(labels, logits, axis):
    # JAX gathers NaN beyond the end, but counts −1 from there.
    count = logits.shape[axis]
    labels = ops.expand_dims(ops.where(labels < 0, count, labels), axis)
    chosen = ops.take_along_axis(logits, labels, axis)
    top, defined = _top(logits, axis)
    total = ops.sum(ops.exp(logits - top), axis=axis, keepdims=True)
    losses = (top - chosen) + ops.log(where(defined, total, 1))
    return ops.squeeze(where(defined, losses, np.nan), axis)


def _log_softmax(logits, axis):
    """log softmax and log Σ exp along an axis.

    Rows without a finite maximum give NaN and pass no gradient.
    """
    top, defined = _top(logits, axis)
    shifted = where(defined, logits - top, 0)
    log_total = ops.log(ops.sum(ops.exp(shifted), axis=axis, keepdims=True))
    log_p = where(defined, shifted - log_total, np.nan)
    return log_p, where(defined, top + log_total, np.nan)


def _top(logits, axis):
    """The row's maximum as a constant, and whether it is finite (else 0)."""
    top = extrema.largest(logits, -np.inf, axis=axis, keepdims=True)
    top = ops.stop_gradient(top)
    defined = ops.isfinite(top)
    return where(defined, top, 0), defined


def _surprise(log_p, focal_gamma):
    """(1 − p)^γ (−log p), with its limit 0 and derivative 0 at p = 1."""
    log_p = _bounded(log_p)
    if not focal_gamma:
        return -log_p
    certain = log_p >= 0
    rest = -ops.expm1(where(certain, -1, log_p))
    return where(certain, 0, rest**focal_gamma * -log_p)


def _bounded(log_p):
    """The largest float32 instead of ∞, so that times a weight of 0 it is 0."""
    return ops.clip(log_p, -LARGEST, LARGEST)


def _even_share(logits, axis):
    """1/K for the K finite logits of a row, 0 for those that are −inf."""
    finite = ops.cast(logits > -np.inf, logits.dtype)
    count = ops.sum(finite, axis=axis, keepdims=True)
    return finite / ops.maximum(count, 1)


def _z_loss(log_sum, z_loss, axis):
    return z_loss * ops.squeeze(log_sum, axis) ** 2


def _weight_of(labels, class_weight, dtype):
    """The weights of the labels; NaN for labels that have none."""
    weights = ops.convert_to_tensor(class_weight, dtype=dtype)
    existing = labels % len(class_weight)
    weights = ops.take(weights, ops.cast(existing, "int32"))
    return where(existing == labels, weights, np.nan)


def _several_classes(losses, logits, axis):
    """NaN for one class, which may be unknown until the data flows."""
    if logits.shape[axis] is not None:
        return losses
    return where(ops.shape(logits)[axis] > 1, losses, np.nan)


def _along(class_weight, logits, axis):
    shape = [1] * len(logits.shape)
    shape[axis] = -1
    weights = ops.convert_to_tensor(class_weight, dtype=logits.dtype)
    return ops.reshape(weights, shape)
