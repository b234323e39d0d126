"""Cross-entropy over a sample of the classes, for a linear classifier.

The logits of the true classes and of the sample are made from the rows of
`class_vectors` that belong to them. Nothing else of the matrix is read; only
its gradient, where a backend has no sparse ones, is as large as it is.
"""

import typing

import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, crossentropy, linear, sigmoid
from keras_xent.ops.dtypes import sums_dtype
from keras_xent.ops.logits import LinearLogits
from keras_xent.ops.public import product_op
from keras_xent.ops.select import where

# Class ids, and the expected counts of the labels and of those ids.
Candidates: typing.TypeAlias = tuple[TensorLike, TensorLike, TensorLike]


@product_op
def sampled_softmax_crossentropy(
    labels: TensorLike,
    features: TensorLike,
    *,
    candidates: Candidates,
    kernel: TensorLike | None = None,
    class_vectors: TensorLike | None = None,
    bias: TensorLike | None = None,
    remove_accidental_hits: bool = True,
    subtract_log_q: bool = True,
    batch_classes: bool = False,
    softcap: float | None = None,
    precision: str | None = None,
) -> Tensor:
    """Softmax cross-entropy over the true classes and a sample of the others.

    ```
    x_k  = features · class_vectors_k + bias_k,  with a soft cap c · tanh(x / c)
    z_k  = x_k − log E_k,                        E_k the expected count of k
    loss = −(1 / T) Σ_t log (exp(z_t) / (Σ_true exp(z) + Σ_sample exp(z)))
    ```

    t goes over the T true classes of a row. Taking log E off makes up for what
    the sample leaves out: for a sample without replacement the gradient
    approaches that of the full softmax as the sample grows, and for one with
    replacement if hits are not removed.

    Args:
        labels: Integer tensor `(...)` of class ids from 0, or `(..., T)` for
            T true classes per row.
        features: Float tensor `(..., d)`.
        candidates: `(ids, true_expected_count, sampled_expected_count)`: what
            `keras_xent.ops.log_uniform_sample` and its like return, or
            TensorFlow's `sampled_values`. Integers `(s,)`, floats of the shape
            of `labels`, floats `(s,)`.
        kernel: Float tensor `(d, v)`: one column per class, as in a Dense
            layer. Its columns are far apart in memory. Either this or
            `class_vectors`.
        class_vectors: Float tensor `(v, d)`: one row per class, as in an
            Embedding. On TensorFlow its gradient is sparse.
        bias: Float tensor `(v,)`, or None.
        remove_accidental_hits: Whether a class of the sample that is a true
            class of the row is left out of its sum. Pass False for a sample
            with replacement, where log E of a frequent class is positive:
            without its hits it would be learned as more frequent than it is.
        subtract_log_q: Whether log E is taken off.
        batch_classes: Whether the sum also has the classes of the other rows,
            each once. Their E is 1, and hits are removed. It goes with one
            label per row. With `subtract_log_q=False` it is Partial FC.
        softcap: c > 0 keeps the logits within ±c; None leaves them.
        precision: In what the products with the sample are made, as in
            `linear_softmax_crossentropy`.

    Returns:
        The loss of every row in nats: the shape of `features` without its last
        axis, float32, or float64 for float64 features. The gradients come back
        in the dtypes of the factors. A label that does not exist, or that the
        distribution never draws, gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the factors are not floating
            point, there is one class only, `softcap` is out of range, not
            exactly one of `kernel` and `class_vectors` is given, or `labels` or
            `ids` in host memory hold a number that is no class id.

    References:
        [Jean et al., 2015](https://arxiv.org/abs/1412.2007);
        `tf.nn.sampled_softmax_loss`, which gives the same for the same
        candidates, except that it removes a hit once that was drawn twice;
        [An et al., 2022](https://arxiv.org/abs/2203.15565), Partial FC.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> features = np.ones((1, 2), "float32")
    >>> class_vectors = np.zeros((1000, 2), "float32")
    >>> candidates = ops.uniform_sample([7], 10, classes=1000, seed=0)
    >>> loss = ops.sampled_softmax_crossentropy(
    ...     [7], features, class_vectors=class_vectors, candidates=candidates
    ... )
    >>> print(f"{float(loss[0]):.2f}, full: {np.log(1000):.2f}")
    2.40, full: 6.91
    """
    return softmax_losses(
        labels,
        features,
        candidates=candidates,
        kernel=kernel,
        class_vectors=class_vectors,
        logits=_linear(bias, softcap),
        remove_accidental_hits=remove_accidental_hits,
        subtract_log_q=subtract_log_q,
        batch_classes=batch_classes,
        precision=precision,
    )


@product_op
def nce_loss(
    labels: TensorLike,
    features: TensorLike,
    *,
    candidates: Candidates,
    kernel: TensorLike | None = None,
    class_vectors: TensorLike | None = None,
    bias: TensorLike | None = None,
    remove_accidental_hits: bool = False,
    subtract_log_q: bool = True,
    softcap: float | None = None,
    precision: str | None = None,
) -> Tensor:
    """Noise-contrastive estimation: tell the true class from a sample.

    ```
    loss = Σ_t H(1 / T, z_t) + Σ_sample H(0, z_k),      z_k = x_k − log E_k
    H(p, z) = p softplus(−z) + (1 − p) softplus(z)
    ```

    One yes/no question per class, is this a true one or noise, instead of a
    softmax over them. The logits x learn to be log-probabilities by themselves,
    given enough samples and time.

    Args:
        labels: Integer tensor `(...)` of class ids from 0, or `(..., T)` for
            T true classes per row.
        features: Float tensor `(..., d)`.
        candidates: `(ids, true_expected_count, sampled_expected_count)`: what
            `keras_xent.ops.log_uniform_sample` and its like return, or
            TensorFlow's `sampled_values`. Integers `(s,)`, floats of the shape
            of `labels`, floats `(s,)`.
        kernel: Float tensor `(d, v)`: one column per class, as in a Dense
            layer. Its columns are far apart in memory. Either this or
            `class_vectors`.
        class_vectors: Float tensor `(v, d)`: one row per class, as in an
            Embedding. On TensorFlow its gradient is sparse.
        bias: Float tensor `(v,)`, or None.
        remove_accidental_hits: Whether a class of the sample that is a true
            class of the row is no noise to it. NCE proper leaves it in.
        subtract_log_q: Whether log E is taken off.
        softcap: c > 0 keeps the logits within ±c; None leaves them.
        precision: In what the products with the sample are made, as in
            `linear_softmax_crossentropy`.

    Returns:
        The loss of every row in nats: the shape of `features` without its last
        axis, float32, or float64 for float64 features. A label that does not
        exist, or that the distribution never draws, gives NaN.

    Raises:
        ValueError: if the shapes do not fit, the factors are not floating
            point, there is one class only, `softcap` is out of range, not
            exactly one of `kernel` and `class_vectors` is given, or `labels` or
            `ids` in host memory hold a number that is no class id.

    References:
        [Gutmann and Hyvärinen, 2010](
        https://proceedings.mlr.press/v9/gutmann10a.html);
        [Mnih and Teh, 2012](https://arxiv.org/abs/1206.6426);
        `tf.nn.nce_loss`, which gives the same for the same candidates.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> features, class_vectors = np.ones((1, 2)), np.zeros((4, 2))
    >>> loss = ops.nce_loss(
    ...     [0],
    ...     features,
    ...     class_vectors=class_vectors,
    ...     candidates=([1, 2], [0.5], [0.5, 0.5]),
    ... )
    >>> print(f"{float(loss[0]):.4f}")
    2.6027
    """
    return nce_losses(
        labels,
        features,
        candidates=candidates,
        kernel=kernel,
        class_vectors=class_vectors,
        logits=_linear(bias, softcap),
        remove_accidental_hits=remove_accidental_hits,
        subtract_log_q=subtract_log_q,
        precision=precision,
    )


def softmax_losses(labels, features, **options):
    """`sampled_softmax_crossentropy`, with `logits` for bias and soft cap."""
    true, sampled, possible, rows = _logits(labels, features, **options)
    logits = ops.concatenate([true, sampled], axis=-1)
    several = true.shape[-1]
    if several == 1:
        losses = crossentropy.sparse_softmax_crossentropy(
            ops.zeros_like(logits[:, 0], dtype="int32"), logits
        )
    else:
        share = np.zeros(logits.shape[-1])
        share[:several] = 1 / several
        share = ops.convert_to_tensor(share, dtype=logits.dtype)
        losses = crossentropy.softmax_crossentropy(
            share * ops.ones_like(logits), logits
        )
    losses = where(ops.all(possible, axis=-1), losses, np.nan)
    return ops.reshape(losses, rows)


def nce_losses(labels, features, **options):
    """`nce_loss`, with `logits` for bias and soft cap."""
    true, sampled, possible, rows = _logits(labels, features, **options)
    yes = ops.ones_like(true) / true.shape[-1]
    losses = ops.sum(
        sigmoid.sigmoid_crossentropy(yes, true), axis=-1
    ) + ops.sum(
        sigmoid.sigmoid_crossentropy(ops.zeros_like(sampled), sampled),
        axis=-1,
    )
    losses = where(ops.all(possible, axis=-1), losses, np.nan)
    return ops.reshape(losses, rows)


def _linear(bias, softcap):
    linear.check_softcap(softcap)
    return LinearLogits(bias, softcap)


def _logits(
    labels,
    features,
    *,
    candidates,
    kernel,
    class_vectors,
    logits,
    remove_accidental_hits,
    subtract_log_q,
    precision,
    batch_classes=False,
):
    """Logits of the true classes `(n, T)` and of the sample `(n, s)`.

    Also which labels are possible, `(n, T)`, and the shape of the rows before
    they were folded into n.
    """
    features, matrix, columns, count = linear.factors(
        features, kernel, class_vectors, logits.vectors_per_column
    )
    logits = linear.checked_logits(logits, count)
    dtype = linear.products_dtype(features, precision)
    wide = sums_dtype(dtype)
    labels = true_classes(labels, features.shape, count)
    ids, exist, *expected = _checked_candidates(candidates, labels.shape, count)
    rows = ops.shape(features)[:-1]
    features = ops.reshape(features, (-1, features.shape[-1]))
    features = ops.cast(logits.features(features), dtype)
    several = labels.shape[-1]
    labels = ops.reshape(labels, (-1, several))
    exists = (labels >= 0) & (labels < count)
    labels = where(exists, labels, 0)

    # One gather for both: on JAX and PyTorch its gradient is a whole matrix.
    chosen = ops.concatenate([ops.reshape(labels, (-1,)), ids])
    vectors = linear.vectors_of(chosen, matrix, columns, logits, dtype)
    each = logits.vectors_per_column
    first = (ops.shape(chosen)[0] - ids.shape[0]) * each
    own = ops.reshape(vectors[:first], (-1, several * each, features.shape[-1]))
    true = ops.cast(features, wide)[:, None, :] * ops.cast(own, wide)
    true = ops.sum(true, axis=-1)
    true = logits.take(labels).dense(true)
    true = logits.with_margin(labels, true)
    true_count, sampled_count = (ops.cast(counts, wide) for counts in expected)
    true_count = ops.reshape(true_count, (-1, several))
    if batch_classes:
        _check_one_label(several)
        batch = labels[:, 0]
        new = ~ops.any(batch[:, None] == ids[None, :], axis=0)
        # A class of the batch is there for certain, and counts once.
        ids = chosen
        exist = ops.concatenate([ops.ones_like(batch, dtype="bool"), exist])
        counted = ops.concatenate([_first_of_its_kind(batch), new])
        true_count = ops.ones_like(true_count)
        sampled_count = ops.concatenate([true_count[:, 0], sampled_count])
        remove_accidental_hits = True
    else:
        vectors = vectors[first:]
    with _keras.full_precision():
        sampled = features @ ops.transpose(vectors)
    sampled = ops.cast(sampled, wide)
    sampled = logits.take(ids).dense(sampled)
    sampled = where(exist, sampled, np.nan)
    # Neither a class that does not exist nor one that is never drawn.
    possible = exists & (true_count > 0)
    if subtract_log_q:
        true = true - ops.log(where(possible, true_count, 1))
        sampled = sampled - ops.log(sampled_count)
    if batch_classes:
        sampled = where(exist & ~counted, -np.inf, sampled)
    if remove_accidental_hits:
        hit = ops.any(labels[:, :, None] == ids[None, None, :], axis=1)
        sampled = where(hit & exist, -np.inf, sampled)
    return true, sampled, possible, rows


def _first_of_its_kind(ids):
    """Which ids have none like them before them."""
    index = ops.arange(ops.shape(ids)[0], dtype="int32")
    same = ids[:, None] == ids[None, :]
    before = index[:, None] < index[None, :]
    return ~ops.any(same & before, axis=0)


def true_classes(labels, shape, count):
    """Labels as int32 `(..., T)`, for features of some shape."""
    checks.label_range(labels, count)
    labels = checks.array("labels", labels)
    rows, last = tuple(shape[:-1]), len(shape) - 1
    if len(labels.shape) == len(shape):
        check_several(labels.shape[-1], count)
        rows, last = (*rows, labels.shape[-1]), last + 1
    labels = crossentropy.integer_labels(labels, (*rows, count), last)
    labels = linear.fold(labels)
    return labels if last == len(shape) else labels[..., None]


def _check_one_label(several):
    if several > 1:
        raise ValueError(
            "`batch_classes` goes with one label per row. Received "
            f"{several}: leave it out, or give each row one of its classes."
        )


def check_several(several, count):
    """Raises unless a row of `count` classes can have so many true ones."""
    if several == 0 or (count is not None and several >= count):
        raise ValueError(
            "Labels of the rank of the features hold the T true classes of "
            f"each row, at least 1 and fewer than the {count} classes there "
            f"are. Received T = {several}. If these are one-hot, pass the "
            "class ids: argmax of the last axis."
        )


def _checked_candidates(candidates, shape, count):
    """Ids as int32, which exist, the expected counts of labels and ids."""
    if len(candidates) != 3:
        raise ValueError(
            "`candidates` must be (ids, true_expected_count, "
            "sampled_expected_count), as keras_xent.ops.log_uniform_sample "
            f"returns them. Received {len(candidates)} things."
        )
    ids, true_count, sampled_count = candidates
    _check_ids(ids, count)
    ids = checks.tensor("candidates[0]", ids)
    ids = crossentropy.integer_labels(ids, (*ids.shape, count), len(ids.shape))
    ids = linear.fold(ids)
    true_count = checks.tensor("candidates[1]", true_count)
    sampled_count = checks.tensor("candidates[2]", sampled_count)
    # A class that does not exist: NaN, whatever its logit would be.
    exist = (ids >= 0) & (ids < count)
    rows = shape[:-1] if shape[-1] == 1 else shape
    if (
        len(ids.shape) != 1
        or not checks.fits(sampled_count.shape, ids.shape)
        or not (
            checks.fits(true_count.shape, shape)
            or checks.fits(true_count.shape, rows)
        )
    ):
        raise ValueError(
            "`candidates` must hold ids of shape (s,), the expected count of "
            f"each label, shape {tuple(rows)}, and that of each id, shape "
            f"(s,). Received shapes {tuple(ids.shape)}, "
            f"{tuple(true_count.shape)} and {tuple(sampled_count.shape)}."
        )
    return where(exist, ids, 0), exist, true_count, sampled_count


def _check_ids(ids, count):
    """Raises on ids in host memory that are no class ids."""
    array = checks.host_array(ids)
    if array is None or count is None:
        return
    wrong = (array != np.floor(array)) | (array < 0) | (array >= count)
    if np.any(wrong):
        raise ValueError(
            f"The ids of `candidates` must be class ids, from 0 to {count - 1} "
            f"for {count} classes. Received the id {array[wrong].flat[0]}: "
            "draw them for this number of classes, as by "
            f"keras_xent.ops.uniform_sample(…, classes={count})."
        )
