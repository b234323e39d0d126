"""log(1 + Σ exp x): 0 where nothing counts, the largest x where it is large."""

from keras import ops

from keras_xent.ops import extrema
from keras_xent.ops.select import where


def log_one_plus_sum(x, counted):
    """log(1 + Σ_j exp(x_ij)) over the entries of each row that count.

    Args:
        x: Floats `(n, m)`.
        counted: Booleans `(n, m)`.

    Returns:
        `(n,)`. What does not count has no gradient, whatever it holds.
    """
    x = where(counted, x, 0.0)
    top = extrema.largest(ops.stop_gradient(x), 0.0, axis=1)
    terms = where(counted, ops.exp(x - top[:, None]), 0.0)
    return top + ops.log(ops.exp(-top) + ops.sum(terms, axis=1))
