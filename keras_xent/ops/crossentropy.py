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
from keras_xent.ops import (
    checks,
    devices,
    extrema,
    in_place_softmax,
    own_softmax,
)
from keras_xent.ops.dtypes import cast, dtype_of, sums_dtype
from keras_xent.ops.own_softmax import LARGEST, More, weighted
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

# Where a formula is right on all backends, and others are faster on some. JAX
# fuses the maximum and the sums as they are written out. PyTorch has a gradient
# of its own (`in_place_softmax`), and so has TensorFlow (`own_softmax`): for a
# small batch that costs several times as much as the call of its fused kernel.
# Figures: python benchmarks/crossentropy.py, docs/speed/crossentropy.md.
BACKEND = keras.backend.backend()

# Stands for a label that is no whole number or too large for int32. It is the
# one int32 that `ignore_class` does not accept, so that it is never ignored.
NO_CLASS = -(2**31)

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
        finite logit gives NaN, and passes gradient 0. A negative or NaN target
        gives NaN as well.

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
    logits = checks.logits(logits, widen=BACKEND != "torch")
    axis = checks.axis(axis, len(logits.shape))
    count = checks.classes(logits.shape, axis)
    class_weight = check_options(
        label_smoothing, class_weight, focal_gamma, z_loss, count
    )
    _check_vector(class_weight, logits, axis)
    more = More(label_smoothing, class_weight, z_loss)
    targets = distribution(targets, logits, axis)
    losses = _of_distribution(targets, logits, axis, more, focal_gamma)
    losses = checks.sizes_agree(losses, targets, logits)
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
        exist gives NaN, and so does a row that holds no finite logit, which
        passes gradient 0.

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
    logits = checks.logits(logits, widen=BACKEND != "torch")
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
        if is_written_out(focal_gamma, logits):
            logits = where(ops.expand_dims(counted, axis), logits, 0)
    more = More(label_smoothing, class_weight, z_loss)
    weight = None
    if class_weight is not None:
        dtype = sums_dtype(logits.dtype)
        weight = _weight_of(labels, class_weight, dtype)
    losses = _of_class_ids(labels, weight, logits, axis, more, focal_gamma)
    losses = _several_classes(losses, logits, axis)
    return losses if counted is None else where(counted, losses, 0)


def is_written_out(focal_gamma, logits=None):
    """As `own_softmax.is_written_out`, for the two losses of a softmax."""
    if BACKEND == "torch":
        return False
    return own_softmax.is_written_out(focal_gamma, logits)


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
    labels = checks.tensor("labels", labels)
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
    dtype = dtype_of(labels)
    if dtype in ("int32", "int64"):
        return labels
    if dtype in ("uint32", "uint64"):
        fits = ops.less_equal(labels, checks.INT32_MAX)
        return where(fits, ops.cast(labels, "int32"), NO_CLASS)
    if "float" not in dtype:
        return ops.cast(labels, "int32")
    labels = ops.cast(labels, sums_dtype(dtype))
    whole = (labels == ops.floor(labels)) & (abs(labels) <= checks.INT32_MAX)
    labels = where(whole, labels, NO_CLASS)
    return ops.cast(labels, "int32")


def distribution(targets, logits, axis):
    """Targets as floats; raises and warns on what are no distributions."""
    targets = checks.array("targets", targets)
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
    return cast(checks.tensor("targets", targets), sums_dtype(logits.dtype))


def _of_distribution(targets, logits, axis, more, focal_gamma):
    """The loss of targets. A target below 0 gives NaN."""
    if BACKEND != "torch":
        return _by_formula(targets, logits, axis, more, focal_gamma)
    return in_place_softmax.dense(
        _last(targets, axis),
        _last(logits, axis),
        more,
        focal_gamma,
        lambda t, x: _by_formula(
            ops.cast(t, sums_dtype(x.dtype)),
            checks.logits(x),
            -1,
            more,
            focal_gamma,
        ),
    )


def _by_formula(targets, logits, axis, more, focal_gamma):
    # Before the smoothing: that would hide a negative or NaN target.
    lowest = extrema.smallest(targets, np.inf, axis=axis)
    if more.class_weight is not None:
        targets = targets * _along(more.class_weight, logits, axis)
    if focal_gamma:
        losses = _focal(targets, logits, axis, more, focal_gamma)
    elif BACKEND == "tensorflow":
        losses = own_softmax.dense(
            _last(targets, axis),
            _last(logits, axis),
            more,
            lambda t, x: _written_out(_of_shares, t, x, -1, more),
        )
    else:
        losses = _written_out(_of_shares, targets, logits, axis, more)
    return where(lowest < 0, np.nan, losses)


def _last(x, axis):
    """A tensor with an axis as its last one."""
    return x if axis == len(x.shape) - 1 else _keras.moveaxis(x, axis, -1)


def _of_class_ids(labels, weight, logits, axis, more, focal_gamma):
    """The loss of labels. A label that is not there gives NaN."""
    if BACKEND != "torch":
        return _of_labels_by_formula(
            labels, weight, logits, axis, more, focal_gamma
        )
    logits = _last(logits, axis)
    existing = labels % logits.shape[-1]
    losses = in_place_softmax.sparse(
        existing,
        logits,
        weight,
        more,
        focal_gamma,
        lambda x: _of_labels_by_formula(
            existing, weight, checks.logits(x), -1, more, focal_gamma
        ),
    )
    return losses.masked_fill(existing != labels, np.nan)


def _of_labels_by_formula(labels, weight, logits, axis, more, focal_gamma):
    if not focal_gamma:
        return _of_one_class(labels, weight, logits, axis, more)
    losses = -_of_one_class(labels, None, logits, axis, More())
    losses = weighted(_surprise(losses, focal_gamma), weight)
    if more.label_smoothing or more.z_loss:
        others = _focal(None, logits, axis, more, focal_gamma)
        losses = (1 - more.label_smoothing) * losses + others
    return losses


def _of_one_class(labels, weight, logits, axis, more):
    """The loss of labels and of `more`. A label that is not there gives NaN."""
    if BACKEND != "tensorflow":
        return _written_out(_of_labels, (labels, weight), logits, axis, more)
    logits = _last(logits, axis)
    plain = not (more.label_smoothing or more.z_loss)
    few = plain and own_softmax.is_written_out(0, logits)
    if few and _all_usual(labels, logits):
        # Of a copy, which has no past, as in `_fused`.
        return weighted(_kernel(labels, ops.copy(logits)), weight)
    count = logits.shape[-1]
    if count is None:
        count = ops.cast(ops.shape(logits)[-1], labels.dtype)
    existing = labels % count
    if few:
        losses = weighted(_fused(existing, logits), weight)
    else:
        losses = own_softmax.sparse(
            existing,
            logits,
            weight,
            more,
            lambda x: _written_out(_of_labels, (existing, weight), x, -1, more),
        )
    return where(existing != labels, np.nan, losses)


def _all_usual(labels, logits):
    """Whether all labels exist and each row has a finite maximum, if seen."""
    if not devices.is_in_sight(logits):
        return False
    labels, logits = map(ops.convert_to_numpy, (labels, logits))
    existing = (labels >= 0) & (labels < logits.shape[-1])
    tops = logits.max(axis=-1, initial=-np.inf)
    return bool(existing.all() and np.isfinite(tops).all())


def _fused(labels, logits):
    """−log softmax(logits) at the labels, or NaN where it does not exist."""
    top = ops.max(logits, axis=-1, keepdims=True, initial=-np.inf)
    top = ops.stop_gradient(top)
    # The kernel's gradient of a row without a finite maximum is NaN, and 0
    # times that is NaN. And behind a softmax Keras takes what the softmax was
    # given, not what it is given itself (as of Keras 3.16 on purpose, with a
    # warning): what comes from `where` has no such past.
    losses = _kernel(labels, where(ops.isfinite(top), logits, 0))
    # Infinity less infinity is NaN, and takes a third of the time of a choice.
    return losses + ops.squeeze(top - top, -1)


def _kernel(labels, logits):
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def _written_out(targets_of, targets, logits, axis, more):
    """The loss by its formula, whose terms are of one sign: none cancel.

    XLA makes each sum in one pass, and writes nothing as large as the logits.
    """
    top, defined = _top(logits, axis)
    # 0 times the derivative at infinity or NaN is NaN.
    below = where(defined, top - logits, 0)
    log_total = ops.log(ops.sum(ops.exp(-below), axis=axis, keepdims=True))
    losses = targets_of(targets, below, log_total, axis)
    log_total = ops.squeeze(log_total, axis)
    if more.label_smoothing:
        finite = logits > -np.inf
        each = ops.cast(finite, logits.dtype)
        number = ops.sum(each, axis=axis)
        if more.class_weight is not None:
            each = each * _along(more.class_weight, logits, axis)
        others = ops.sum(each * where(finite, below, 0), axis=axis)
        others = others + ops.sum(each, axis=axis) * log_total
        losses = (1 - more.label_smoothing) * losses
        losses = losses + more.label_smoothing * others / ops.maximum(number, 1)
    if more.z_loss:
        log_sum = ops.squeeze(top, axis) + log_total
        losses = losses + more.z_loss * log_sum**2
    return where(~ops.squeeze(defined, axis), np.nan, losses)


def _of_shares(targets, below, log_total, axis):
    """Σ_k t_k (−log p_k)."""
    losses = ops.sum(targets * _bounded(below), axis=axis)
    return losses + ops.sum(targets, axis=axis) * ops.squeeze(log_total, axis)


def _of_labels(labels, below, log_total, axis):
    """w_y (−log p_y) for labels y and their weights, or None."""
    labels, weight = labels
    # JAX gathers NaN beyond the end, but counts −1 from there.
    count = below.shape[axis]
    labels = ops.expand_dims(ops.where(labels < 0, count, labels), axis)
    chosen = ops.take_along_axis(below, labels, axis)
    return weighted(ops.squeeze(chosen + log_total, axis), weight)


def _focal(targets, logits, axis, more, focal_gamma):
    """Σ_k w_k t̃_k (1 − p_k)^γ (−log p_k) + z · lse².

    Args:
        targets: w t. None for those of labels, which are left to others.
        logits, axis: The logits and their axis of the classes.
        more: ε, w and z.
        focal_gamma: γ.
    """
    log_p, log_sum = _log_softmax(logits, axis)
    losses = 0
    if more.label_smoothing:
        share = more.label_smoothing * _even_share(logits, axis)
        if more.class_weight is not None:
            share = share * _along(more.class_weight, logits, axis)
        if targets is not None:
            share = share + (1 - more.label_smoothing) * targets
        targets = share
    if targets is not None:
        losses = ops.sum(targets * _surprise(log_p, focal_gamma), axis=axis)
    if more.z_loss:
        losses = losses + more.z_loss * ops.squeeze(log_sum, axis) ** 2
    return losses


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
