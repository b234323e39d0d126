"""Cross-entropy of a linear classifier, without its logits."""

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import ClassIds, ClassWeight, Tensor, TensorLike
from keras_xent.ops import blockwise, checks, crossentropy, devices, rows
from keras_xent.ops.description import COLUMNS
from keras_xent.ops.dtypes import dtype_of, sums_dtype
from keras_xent.ops.logits import LinearLogits
from keras_xent.ops.public import product_op
from keras_xent.ops.reductions import OnlineSoftmax, SoftmaxLoss, Terms
from keras_xent.ops.select import where
from keras_xent.ops.sharded import ShardedPass
from keras_xent.ops.targets import OneTarget

BACKEND = keras.backend.backend()


@product_op
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
    sample_weight: TensorLike | None = None,
    reduction: str | None = None,
    precision: str | None = None,
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
    block. Memory beyond the inputs and their gradients is a few blocks. With a
    `reduction` the weight of each row is known at once, and on a GPU the
    gradients are made in the forward pass, which saves one of four products.

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
        sample_weight: One number per example, which its loss is multiplied
            with; 0 leaves it out, even where it is infinite.
        reduction: `None` for one loss per example, `"sum"`, or `"mean"`, over
            the number of examples that are not ignored.
        precision: In what the products are made. `None` is the dtype of the
            features, or that of `torch.autocast` where it is on; `"float32"`
            makes all of them in float32 at least. Sums, exponentials and their
            gradients are in float32 at least with either.
        block_size: The number of classes in a block, or of rows where the
            gradients are made in the forward pass. `None` chooses it: 8 MB of
            logits on a CPU, but not fewer than 256 classes, and a few hundred
            on a GPU.

    Returns:
        The loss of every example in nats: the shape of `features` without its
        last axis, or one number with a `reduction`; float32, or float64 for
        float64 features. The gradients come back in the dtypes of the factors.
        A label that does not exist gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the factors are not floating
            point, there is one class only, an option is out of range or
            unknown, not exactly one of `kernel` and `class_vectors` is given,
            or `labels` in host memory hold a number that is no class id.

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
    checks.choice("reduction", reduction, (None, "sum", "mean"))
    check_softcap(softcap)
    row_weights = None
    if sample_weight is not None or reduction is not None:
        features, *_ = factors(features, kernel, class_vectors)
        counted = crossentropy.rows_counted(
            labels, features.shape, len(features.shape) - 1, ignore_class
        )
        row_weights, keep = _row_weights(
            features, sample_weight, counted, reduction == "mean"
        )
        features = features if keep is None else rows.blank(features, keep, -1)
    losses, _ = losses_and_terms(
        labels,
        features,
        kernel=kernel,
        class_vectors=class_vectors,
        logits=LinearLogits(bias, softcap),
        ignore_class=ignore_class,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        z_loss=z_loss,
        row_weights=row_weights,
        summed=reduction is not None,
        precision=precision,
        block_size=block_size,
    )
    return losses


def _row_weights(features, sample_weight, counted, mean):
    """What the loss of each row is multiplied with, and which rows count."""
    dtype = sums_dtype(features.dtype)
    weights, keep = ops.ones_like(features[..., 0], dtype=dtype), None
    number = weights if counted is None else ops.cast(counted, dtype)
    if sample_weight is not None:
        given = checks.tensor("sample_weight", sample_weight)
        if not checks.fits(given.shape, features.shape[:-1]):
            raise ValueError(
                "`sample_weight` must hold one number per example, shape "
                f"{tuple(features.shape[:-1])}. Received shape "
                f"{tuple(given.shape)}."
            )
        weights = ops.cast(given, dtype)
        keep = weights != 0
    if mean:
        weights = weights / ops.maximum(ops.sum(number), 1)
    return weights, keep


def losses_and_terms(
    labels,
    features,
    *,
    kernel=None,
    class_vectors=None,
    logits,
    ignore_class=None,
    label_smoothing=0.0,
    class_weight=None,
    z_loss=0.0,
    row_weights=None,
    summed=False,
    precision=None,
    block_size=None,
    all_terms=False,
    shards=1,
):
    """The losses of the rows, or their sum, and the `reductions.Terms`.

    Args:
        labels, features, **options: As in `linear_softmax_crossentropy`.
        logits: What the product is made to, as `logits.LinearLogits`.
        row_weights: One number per row, which its loss is multiplied with.
        summed: Whether to return the sum. Its terms have no gradient.
        all_terms: Whether to give `entropy` and `above` as well.
        shards: Over how many devices the classes are spread.
    """
    features, matrix, columns, count = factors(
        features, kernel, class_vectors, logits.vectors_per_column
    )
    logits = checked_logits(logits, count)
    class_weight = crossentropy.check_options(
        label_smoothing, class_weight, 0.0, z_loss, count
    )
    check_block_size(block_size)
    ignored = checks.id_tuple("ignore_class", ignore_class)
    checks.label_range(labels, count, ignored)
    dtype = products_dtype(features, precision)

    shape = (*features.shape[:-1], count)
    labels = crossentropy.integer_labels(labels, shape, len(shape) - 1)
    labels = fold(labels)
    leading = ops.shape(features)[:-1]
    features = ops.reshape(features, (-1, features.shape[-1]))
    labels = ops.reshape(labels, (-1,))
    counted = crossentropy.is_counted(labels, ignored)
    exists = (labels >= 0) & (labels < count)
    known = where(exists, labels, 0)
    if counted is not None:
        features = where(counted[:, None], features, 0)
        exists = exists | ~counted

    wide = sums_dtype(dtype)
    if row_weights is None:
        weights = ops.ones_like(labels, dtype=wide)
    else:
        weights = ops.reshape(ops.cast(row_weights, wide), (-1,))
    if counted is not None:
        weights = where(counted, weights, 0)
    # A label that does not exist has a loss of NaN, and no gradient.
    missing = ~exists & (weights != 0)
    weights = where(exists, weights, 0)

    features = logits.features(features)
    shares, bar = None, None
    if label_smoothing:
        shares = _shares(count, logits, class_weight, wide)
    if all_terms:
        # Rounded as the products of the blocks are, and without a margin.
        bar = _own_logits(known, features, matrix, columns, logits, dtype)
        bar = ops.stop_gradient(bar)
    own = None
    if logits.needs_own:
        # Its gradient is made in the pass, which needs no graph for it.
        fixed = [ops.stop_gradient(x) for x in (features, matrix)]
        own = _own_logits(known, *fixed, columns, logits, wide)
    logits = logits.trained(known, own)
    own = weights * (1 - label_smoothing)
    if class_weight is not None:
        own = own * ops.take(ops.cast(class_weight, wide), known)
    what = blockwise.What(
        logits,
        OneTarget(labels),
        OnlineSoftmax(shares, bar),
        SoftmaxLoss(
            own,
            weights * label_smoothing if label_smoothing else None,
            weights * z_loss if z_loss else None,
        ),
    )
    how = {"columns": columns, "block_size": block_size, "dtype": dtype}
    if summed and _gradients_forwards(features, matrix, logits, dtype):
        losses, terms = blockwise.weighted_sum(features, matrix, what, **how)
        broken = where(missing, np.nan, ops.zeros_like(weights))
        losses = losses + ops.sum(broken)
    else:
        if shards > 1:
            both = ShardedPass(features, matrix, what, shards=shards, **how)
            terms = both.terms()
        else:
            terms = blockwise.row_terms(features, matrix, what, **how)
        losses = where(missing, np.nan, what.loss.of(terms))
        losses = ops.sum(losses) if summed else ops.reshape(losses, leading)
    terms = Terms(*terms)
    terms = terms._replace(
        nll=where(exists, terms.nll, np.nan), gap=logits.gap(terms.gap)
    )
    terms = Terms(
        *(None if x is None else ops.reshape(x, leading) for x in terms)
    )
    return losses, terms


def _gradients_forwards(features, matrix, logits, dtype):
    """Whether to make the gradients in the forward pass."""
    # It wants the vectors as a whole, in the dtype of the products. In the one
    # that they are stored in, those that are prepared would be a copy.
    stored = dtype_of(matrix)
    copied = logits.prepares and stored == dtype
    return not copied and blockwise.gradients_forwards(features)


def _own_logits(labels, features, matrix, columns, logits, dtype):
    """The logit of each row's label, from a product in that dtype."""
    wide = sums_dtype(dtype)
    features = ops.cast(ops.cast(features, dtype), wide)
    vectors = vectors_of(labels, matrix, columns, logits, dtype)
    vectors = ops.cast(vectors, wide)
    vectors = ops.reshape(
        vectors, (-1, logits.vectors_per_column, features.shape[-1])
    )
    products = ops.sum(features[:, None, :] * vectors, axis=-1)
    products = ops.cast(ops.cast(products, dtype), wide)
    labels = labels[:, None]
    return logits.take(labels).dense(products)[:, 0]


def vectors_of(ids, matrix, columns, logits, dtype):
    """The vectors of chosen columns, `(ids · vectors_per_column, d)`."""
    each = logits.vectors_per_column
    if each > 1:
        ids = ids[:, None] * each + ops.arange(each, dtype=ids.dtype)
        ids = ops.reshape(ids, (-1,))
    vectors = ops.take(matrix, ids, axis=columns)
    if dtype == "float16" and BACKEND == "tensorflow":
        vectors = _keras.own_gradient(_overflows_as_one)(vectors)
    if columns == 1:
        vectors = ops.transpose(vectors)
    return ops.cast(logits.vectors(vectors, 1), dtype)


def _overflows_as_one(vectors):
    """The vectors; a gradient that is not finite in one is so in all.

    Keras skips a step of float16 whose gradients have overflown. On TensorFlow
    the gradient of a gather names a class as often as it was gathered, and
    `ops.isfinite` sees only the last of them (Keras 3.15, no upstream issue
    found).
    """

    def grad(*arguments, upstream=None):
        if upstream is None:
            (upstream,) = arguments
        # 0, or NaN.
        return upstream + ops.sum(upstream * 0)

    return ops.copy(vectors), grad


def products_dtype(features, precision):
    """The dtype in which products with these features are made."""
    check_precision(precision)
    dtype = dtype_of(features)
    if dtype == "float64":
        return dtype
    if precision is not None:
        return "float32"
    dtype = _keras.autocast_dtype(features) or dtype
    if dtype == "float16" and devices.slow_float16(features):
        return "float32"
    return dtype


def factors(features, kernel, class_vectors, each=1):
    """Checks and converts the factors of the logits.

    Args:
        features, kernel, class_vectors: As in `linear_softmax_crossentropy`.
        each: How many vectors a class has.

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
    count = None if count is None else count // each
    return features, matrix, columns, count


def checked_logits(logits, count):
    """The description with tensors of one number per class."""
    checked = {}
    for name, x in logits.tensors().items():
        checked[name] = x = _floats(x, name)
        each = logits.kind(name) == COLUMNS
        if each and not checks.fits(x.shape, (count,)):
            raise ValueError(
                f"`{name}` must hold one number per class, shape ({count},). "
                f"Received shape {tuple(x.shape)}."
            )
    return logits.holding(checked)


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


def check_precision(precision):
    """Raises unless the precision is None or "float32"."""
    checks.choice("precision", precision, (None, "float32"))


def check_block_size(block_size):
    """Raises unless the block size is None or a whole number from 1."""
    if block_size is not None:
        checks.whole("block_size", block_size, 1)


def _floats(x, name):
    """`x` as a float tensor of its own dtype."""
    x = checks.tensor(name, x)
    dtype = dtype_of(x)
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
    if dtype_of(labels) == "int32":
        return labels
    fits = abs(labels) <= checks.INT32_MAX
    return where(fits, ops.cast(labels, "int32"), crossentropy.NO_CLASS)


def _shares(count, logits, class_weight, dtype):
    """s_k = w_k / K over the K classes that are not masked out."""
    shares = np.ones(count) if class_weight is None else class_weight
    shares = ops.convert_to_tensor(shares, dtype=dtype)
    masked = logits.masked()
    if masked is None:
        return shares / count
    finite = ops.cast(~masked, dtype)
    return shares * finite / ops.sum(finite)


def _shown(x):
    if x is None:
        return None
    return f"a tensor of shape {tuple(checks.array('the other', x).shape)}"
