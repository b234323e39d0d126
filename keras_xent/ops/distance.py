"""Distances between all pairs of rows, and the names they go by."""

import keras
import numpy as np
from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import blocks, checks, pairwise_divergence
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where
from keras_xent.ops.unit import unit_rows


@public_op
def pairwise_euclidean(a: TensorLike, b: TensorLike | None = None) -> Tensor:
    """Euclidean distance between all pairs of rows, by one matrix product.

    ```
    d_ij = sqrt(|a_i|² + |b_j|² − 2 a_i · b_j)
    ```

    The mean of `a` is taken off all rows first, which changes no distance and
    keeps the cancellation small: the absolute error of d² is about 1e-6 of the
    largest squared distance from that mean, so that of d is about 1e-3 of the
    largest distance for rows that are nearly equal. Computed in float32 at
    least, for entries up to about 1e18 in size.

    Args:
        a: Float tensor `(n, d)`.
        b: Float tensor `(m, d)`. `None` compares `a` with itself.

    Returns:
        The distances `(n, m)`, float32, or float64 for float64 inputs, never
        negative. Without `b` the diagonal is exactly 0. Where a distance is 0,
        so is its gradient. A row that is not finite is at NaN or inf from all
        others.

    Raises:
        ValueError: if `a` and `b` are not matrices of the same width, or not
            floating point.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> d = ops.pairwise_euclidean([[0.0, 0.0], [3.0, 4.0]])
    >>> np.round(np.asarray(d), 4).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    square = pairwise_squared_euclidean(a, b)
    # `<= 0` and not `> 0`: NaN must pass. The inner `where` keeps the infinite
    # slope of the root at 0 out of the gradient.
    none = square <= 0.0
    return where(none, 0.0, ops.sqrt(where(none, 1.0, square)))


@public_op
def pairwise_squared_euclidean(
    a: TensorLike, b: TensorLike | None = None
) -> Tensor:
    """Squared Euclidean distance between all pairs of rows.

    ```
    d_ij = |a_i|² + |b_j|² − 2 a_i · b_j
    ```

    The square of `pairwise_euclidean`, made by the same matrix product: the
    absolute error is about 1e-6 of the largest squared distance from the mean
    of `a`.

    Args:
        a: Float tensor `(n, d)`.
        b: Float tensor `(m, d)`. `None` compares `a` with itself.

    Returns:
        The squared distances `(n, m)`, float32, or float64 for float64 inputs,
        never negative. Without `b` the diagonal is exactly 0. A row that is not
        finite is at NaN or inf from all others.

    Raises:
        ValueError: if `a` and `b` are not matrices of the same width, or not
            floating point.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> d = ops.pairwise_squared_euclidean([[0.0, 0.0], [3.0, 4.0]])
    >>> np.round(np.asarray(d), 4).tolist()
    [[0.0, 25.0], [25.0, 0.0]]
    """
    a, b = _matrices(a, b)
    # Without what is not finite, so that such a row spoils no other.
    finite = where(ops.isfinite(a), a, 0.0)
    rows = ops.cast(ops.shape(a)[0], a.dtype)
    center = ops.sum(finite, axis=0, keepdims=True) / rows
    center = ops.stop_gradient(center)
    a = a - center
    if b is None:
        gram = a @ ops.transpose(a)
        # From the product itself, so that equal rows cancel.
        a_square = b_square = ops.diagonal(gram)
    else:
        b = b - center
        gram = a @ ops.transpose(b)
        a_square = ops.sum(ops.square(a), axis=1)
        b_square = ops.sum(ops.square(b), axis=1)
    square = a_square[:, None] + b_square[None, :] - 2.0 * gram
    if b is None:
        square = _zero_diagonal(square)
    # Rounding errors below 0; NaN must pass.
    return where(square <= 0.0, 0.0, square)


@public_op
def pairwise_cosine(a: TensorLike, b: TensorLike | None = None) -> Tensor:
    """Cosine distance between all pairs of rows, by one matrix product.

    ```
    d_ij = 1 − (a_i · b_j) / (|a_i| |b_j|)
    ```

    Absolute error about 1e-6, for rows of any scale but denormal ones.
    Computed in float32 at least.

    Args:
        a: Float tensor `(n, d)`.
        b: Float tensor `(m, d)`. `None` compares `a` with itself.

    Returns:
        The distances `(n, m)`, float32, or float64 for float64 inputs, between
        0 and 2. Without `b` the diagonal is exactly 0. A row of zeros has no
        direction; its cosine with others is taken as 0, its distance as 1, as
        scikit-learn does. A row that is not finite is at distance NaN from all
        others.

    Raises:
        ValueError: if `a` and `b` are not matrices of the same width, or not
            floating point.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> d = ops.pairwise_cosine([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    >>> np.asarray(d).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
    """
    a, b = _matrices(a, b)
    a = unit_rows(a)
    other = a if b is None else unit_rows(b)
    distance = 1.0 - a @ ops.transpose(other)
    distance = ops.clip(distance, 0.0, 2.0)
    return _zero_diagonal(distance) if b is None else distance


_BY_NAME = {
    "symmetric_kl": pairwise_divergence.pairwise_symmetric_kl,
    "euclidean": pairwise_euclidean,
    "squared_euclidean": pairwise_squared_euclidean,
    "cosine": pairwise_cosine,
}


def pairwise_distance(distance):
    """The function that a name stands for.

    Args:
        distance: `"symmetric_kl"` (rows are logits), `"euclidean"`,
            `"squared_euclidean"`, `"cosine"`, or a callable, which is returned
            as it is.

    Returns:
        A callable from rows `[n, d]` to distances `[n, n]`. Those with a name
        also take a second set of rows `[m, d]`, and then give `[n, m]`.

    Raises:
        ValueError: if it is neither a known name nor callable.

    Example:

    >>> from keras_xent.ops.distance import pairwise_distance
    >>> pairwise_distance("cosine").__name__
    'pairwise_cosine'
    """
    if callable(distance):
        return distance
    if not isinstance(distance, str) or distance not in _BY_NAME:
        names = ", ".join(repr(name) for name in _BY_NAME)
        raise ValueError(
            f"`distance` must be one of {names}, or a callable from "
            f"embeddings [n, d] to distances [n, n]. Received: {distance!r}."
        )
    return _BY_NAME[distance]


def distances_of(embeddings, distance, rows=None):
    """The distances of rows from all others, or an error that says what came.

    Args:
        embeddings: `(n, d)`.
        distance: As in `pairwise_distance`. A callable makes all pairs.
        rows: `(start, size)`, the rows whose distances are wanted; None for
            all.

    Returns:
        `(size, n)`.
    """
    n = embeddings.shape[0]
    found = distances_to_all(embeddings, distance, rows)
    size = n if rows is None else None
    if not checks.fits(found.shape, (size, n)):
        raise ValueError(
            f"`distance` must return one distance per pair of rows, ({n}, {n}) "
            f"for embeddings of shape {tuple(embeddings.shape)}. Received "
            f"shape {tuple(found.shape)}."
        )
    return ops.cast(found, embeddings.dtype)


def distances_to_all(embeddings, distance, rows=None):
    """As `distances_of`, in the dtype and of the shape that come."""
    pairwise = pairwise_distance(distance)
    if rows is not None and isinstance(name_of(distance), str):
        # From all rows: what they are measured from is the mean of the first.
        some = pairwise(embeddings, blocks.some_rows(embeddings, rows))
        return ops.transpose(some)
    return blocks.some_rows(pairwise(embeddings), rows)


def saved(distance):
    """A distance as a configuration holds it: a callable must be registered."""
    if distance is None or isinstance(distance, str):
        return distance
    return keras.saving.serialize_keras_object(distance)


def loaded(config):
    """A configuration whose `distance` is a name or a callable again."""
    config = dict(config)
    if isinstance(config.get("distance"), dict):
        config["distance"] = keras.saving.deserialize_keras_object(
            config["distance"]
        )
    return config


def rectangular(distance):
    """A function of two blocks of NumPy rows, `[n, d]` and `[m, d]`.

    Args:
        distance: What `pairwise_distance` takes.

    Returns:
        A callable to a tensor `[n, m]`.
    """
    pairwise = pairwise_distance(distance)
    if isinstance(name_of(distance), str):
        return pairwise

    def corner(a, b):
        n = len(a)
        both = ops.convert_to_tensor(np.concatenate([a, b]))
        return pairwise(both)[:n, n:]

    return corner


def name_of(distance):
    """The name of one of our own functions, which can be saved; or itself."""
    for name, function in _BY_NAME.items():
        if distance is function:
            return name
    return distance


def _matrices(a, b):
    why = "distances of integers have no gradient."
    a = checks.floats(a, "a", why)
    b = None if b is None else checks.floats(b, "b", why)
    other = a if b is None else b
    shapes = tuple(a.shape), tuple(other.shape)
    widths = {shape[-1] for shape in shapes if shape} - {None}
    if any(len(shape) != 2 for shape in shapes) or len(widths) > 1:
        raise ValueError(
            "Expected rows of one width, [n, d] and [m, d]. Received shapes "
            f"{shapes[0]} and {shapes[1]}. Flatten what belongs to a row."
        )
    return a, b


def _zero_diagonal(x):
    index = ops.arange(ops.shape(x)[0], dtype="int32")
    return where(index[:, None] == index[None, :], 0.0, x)
