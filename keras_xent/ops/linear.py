"""Cross-entropy of a linear classifier, without its logits."""

import keras
import numpy as np
from keras import ops

from keras_xent._types import ClassIds, ClassWeight, Tensor, TensorLike
from keras_xent.ops import blockwise, checks, crossentropy
from keras_xent.ops.public import public_op


@public_op
def linear_softmax_crossentropy(
    labels: TensorLike,
    features: TensorLike,
    *,
    kernel: TensorLike | None = None,
    class_vectors: TensorLike | None = None,
    bias: TensorLike | None = None,
    ignore_class: ClassIds = None,
    label_smoothing: float = 0.0,
    class_weight: ClassWeight = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    block_size: int | None = None,
) -> Tensor:
    """Cross-entropy of integer labels and the softmax of features · kernel.

    ```
    x    = features · kernel + bias,   x ← c · tanh(x / c) with a soft cap c
    loss = Σ_k w_k t̃_k (−log p_k) + z · lse²
    p    = softmax(x),   lse = log Σ_k exp(x_k)
    t̃_k  = (1 − ε) [k = label] + ε / K   over the K classes with a finite bias
    ```

    It equals `sparse_softmax_crossentropy(labels, x)`, but the logits x never
    exist as a whole, neither forwards nor backwards: they are made block by
    block, twice. Memory beyond the inputs and their gradients is a few blocks.

    Args:
        labels: Integer tensor `(...)` of class ids from 0. Floats that hold
            whole numbers are accepted.
        features: Float tensor `(..., d)`.
        kernel: Float tensor `(d, v)`: one column per class, as in a Dense
            layer. Either this or `class_vectors`.
        class_vectors: Float tensor `(v, d)`: one row per class, as in an
            Embedding. It is not transposed in memory.
        bias: Float tensor `(v,)`, or None. A class with a bias of −inf is
            masked out.
        ignore_class: A class id, or a list of them, in the range of the
            classes or not: examples with such a label have loss and gradient 0.
        label_smoothing: ε in [0, 1).
        class_weight: w, one non-negative number per class, or a dict from
            class ids to such numbers; a class that is not in it weighs 1.
        z_loss: z ≥ 0, keeps log Σ exp(x) near 0.
        softcap: c > 0 keeps the logits within ±c; None leaves them.
        block_size: The number of classes in a block. `None` chooses it so that
            a block of logits takes 8 MB, but not fewer than 256 classes.

    Returns:
        The loss of every example in nats: the shape of `features` without its
        last axis, float32, or float64 for float64 factors. Factors in float16
        or bfloat16 are multiplied and summed in float32; their gradients come
        back in their own dtype. A label that does not exist gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the factors are not floating
            point, there is one class only, an option is out of range, not
            exactly one of `kernel` and `class_vectors` is given, or `labels`
            in host memory hold a number that is no class id.

    References:
        [Wijmans et al., 2024](https://arxiv.org/abs/2411.09009), Cut
        Cross-Entropy; [Milakov and Gimelshein, 2018](
        https://arxiv.org/abs/1805.02867), the online softmax; [Gemma 2, 2024](
        https://arxiv.org/abs/2408.00118), soft caps.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> features = np.array([[1.0, 2.0], [0.0, 1.0]], "float32")
    >>> kernel = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]], "float32")
    >>> loss = ops.linear_softmax_crossentropy(
    ...     [1, 0], features, kernel=kernel
    ... )
    >>> print([f"{float(value):.4f}" for value in loss])
    ['0.3490', '1.5514']
    """
    losses, _ = losses_and_terms(
        labels,
        features,
        kernel=kernel,
        class_vectors=class_vectors,
        bias=bias,
        ignore_class=ignore_class,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        z_loss=z_loss,
        softcap=softcap,
        block_size=block_size,
    )
    return losses


def losses_and_terms(
    labels,
    features,
    *,
    kernel=None,
    class_vectors=None,
    bias=None,
    ignore_class=None,
    label_smoothing=0.0,
    class_weight=None,
    z_loss=0.0,
    softcap=None,
    block_size=None,
    all_terms=False,
):
    """As `linear_softmax_crossentropy`, with the `blockwise.Terms` as well.

    Of the terms `entropy` and `above` are there with `all_terms` only.
    """
    features, matrix, columns, count = factors(features, kernel, class_vectors)
    bias = checked_bias(bias, count)
    class_weight = check_options(
        label_smoothing, class_weight, z_loss, softcap, count
    )
    check_block_size(block_size)
    ignored = checks.id_tuple("ignore_class", ignore_class)
    checks.label_range(labels, count, ignored)

    shape = (*features.shape[:-1], count)
    labels = crossentropy.integer_labels(labels, shape, len(shape) - 1)
    labels = fold(labels)
    rows = ops.shape(features)[:-1]
    features = ops.reshape(features, (-1, features.shape[-1]))
    labels = ops.reshape(labels, (-1,))
    counted = crossentropy.is_counted(labels, ignored)
    exists = (labels >= 0) & (labels < count)
    known = ops.where(exists, labels, 0)
    if counted is not None:
        features = ops.where(counted[:, None], features, 0)
        exists = exists | ~counted

    shares = None
    if label_smoothing:
        dtype = checks.logits(features).dtype
        shares = _shares(count, bias, class_weight, dtype)
    description = blockwise.SoftmaxLogits(labels, softcap, shares)
    if all_terms:
        description.bar = _own_logits(
            known, features, matrix, columns, bias, description
        )
    terms = blockwise.crossentropy_terms(
        features,
        matrix,
        bias,
        description,
        columns=columns,
        block_size=block_size,
    )
    losses = terms.nll
    if class_weight is not None:
        weight = ops.take(ops.cast(class_weight, losses.dtype), known)
        losses = ops.where(weight == 0, 0, weight * losses)
    losses = (1 - label_smoothing) * losses if label_smoothing else losses
    if label_smoothing:
        losses = losses + label_smoothing * terms.spread
    if z_loss:
        losses = losses + z_loss * ops.square(terms.log_sum)
    losses = ops.where(exists, losses, np.nan)
    terms = terms._replace(nll=ops.where(exists, terms.nll, np.nan))
    if counted is not None:
        losses = ops.where(counted, losses, 0)
    terms = blockwise.Terms(
        *(None if x is None else ops.reshape(x, rows) for x in terms)
    )
    return ops.reshape(losses, rows), terms


def _own_logits(labels, features, matrix, columns, bias, description):
    """The logit of each row's label, without a gradient."""
    features = checks.logits(features)
    vectors = ops.cast(ops.take(matrix, labels, axis=columns), features.dtype)
    if columns == 1:
        vectors = ops.transpose(vectors)
    # As a block of one row: a column has its own bias.
    products = ops.sum(features * vectors, axis=1)[None, :]
    if bias is not None:
        bias = ops.cast(ops.take(bias, labels), features.dtype)
    return ops.stop_gradient(description.logits(products, bias, 0)[0])


def factors(features, kernel, class_vectors):
    """Checks and converts the factors of the logits.

    Returns:
        The features, the matrix of the classes, the axis of its classes, and
        how many there are.
    """
    if (kernel is None) == (class_vectors is None):
        raise ValueError(
            "Give the weights of the classes once: either `kernel` of shape "
            "(features, classes) or `class_vectors` of shape (classes, "
            f"features). Received kernel={_shown(kernel)}, "
            f"class_vectors={_shown(class_vectors)}."
        )
    columns = 1 if class_vectors is None else 0
    name = "class_vectors" if kernel is None else "kernel"
    matrix = _floats(class_vectors if kernel is None else kernel, name)
    features = _floats(features, "features")
    count = _check_shapes(features, matrix, columns, name)
    return features, matrix, columns, count


def checked_bias(bias, count):
    """The bias as a tensor of one number per class, or None."""
    if bias is None:
        return None
    bias = _floats(bias, "bias")
    if not checks.fits(bias.shape, (count,)):
        raise ValueError(
            f"`bias` must hold one number per class, shape ({count},). "
            f"Received shape {tuple(bias.shape)}."
        )
    return bias


def check_options(label_smoothing, class_weight, z_loss, softcap, classes=None):
    """Raises on an option that is out of range. Returns the class weights."""
    check_softcap(softcap)
    return crossentropy.check_options(
        label_smoothing, class_weight, 0.0, z_loss, classes
    )


def check_softcap(softcap):
    """Raises unless the soft cap is None or a positive number."""
    if softcap is None:
        return
    checks.number("softcap", softcap, -np.inf)
    if softcap <= 0:
        raise ValueError(
            "`softcap` must be above 0: it keeps the logits within ±softcap. "
            f"Received {softcap}; pass None for no cap."
        )


def check_block_size(block_size):
    """Raises unless the block size is None or a whole number from 1."""
    if block_size is not None:
        checks.whole("block_size", block_size, 1)


def _floats(x, name):
    """`x` as a float tensor of its own dtype."""
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"`{name}` must be floating point. Received dtype {dtype}."
        )
    return x


def _check_shapes(features, matrix, columns, name):
    """Raises unless the factors fit. Returns the number of classes."""
    if len(matrix.shape) != 2 or len(features.shape) < 1:
        raise ValueError(
            f"`features` must have shape (..., d) and `{name}` two axes. "
            f"Received shapes {tuple(features.shape)} and "
            f"{tuple(matrix.shape)}."
        )
    if not checks.fits(features.shape[-1:], (matrix.shape[1 - columns],)):
        expected = "(d, classes)" if columns else "(classes, d)"
        raise ValueError(
            f"`{name}` must have shape {expected} for features of shape "
            f"(..., d). Received {name} of shape {tuple(matrix.shape)}, "
            f"features of shape {tuple(features.shape)}. A (classes, d) "
            "matrix goes into `class_vectors`, a (d, classes) matrix into "
            "`kernel`."
        )
    return checks.classes(matrix.shape, columns)


def fold(labels):
    """int64 labels as int32; those too large for it as no class."""
    if keras.backend.standardize_dtype(labels.dtype) == "int32":
        return labels
    fits = abs(labels) <= checks.INT32_MAX
    return ops.where(fits, ops.cast(labels, "int32"), crossentropy.NO_CLASS)


def _shares(count, bias, class_weight, dtype):
    """s_k = w_k / K over the K classes with a finite bias."""
    shares = np.ones(count) if class_weight is None else class_weight
    shares = ops.convert_to_tensor(shares, dtype=dtype)
    if bias is None:
        return shares / count
    finite = ops.cast(bias > -np.inf, dtype)
    return shares * finite / ops.sum(finite)


def _shown(x):
    return None if x is None else f"a tensor of shape {tuple(np.shape(x))}"
