"""Unit vectors: what cosines are made of."""

from keras import ops

from keras_xent.ops import extrema
from keras_xent.ops.select import where


def unit_rows(x, axis=-1):
    """x / |x| along an axis; a vector of zeros stays one, with gradient.

    Args:
        x: A float tensor, in the dtype to compute in.
        axis: The axis of the entries of a vector.
    """
    unit, _ = _unit_and_length(x, axis)
    return unit


def unit_rows_back(gradient, x, axis=-1):
    """From the gradient of `unit_rows(x, axis)` to that of x.

    ```
    (g − u (u · g)) / |x|,     u = x / |x|
    ```
    """
    unit, length = _unit_and_length(x, axis)
    along = ops.sum(unit * gradient, axis=axis, keepdims=True)
    return (gradient - unit * along) / length


def _unit_and_length(x, axis):
    """Of a vector of zeros the length is given as 1."""
    # Divided by their largest entry first: squares neither overflow nor vanish.
    largest = ops.stop_gradient(
        extrema.largest(ops.abs(x), 0, axis=axis, keepdims=True)
    )
    zero = ops.equal(largest, 0.0)
    largest = where(zero, 1.0, largest)
    x = x / largest
    square = ops.sum(ops.square(x), axis=axis, keepdims=True)
    length = ops.sqrt(where(zero, 1.0, square))
    return x / length, length * largest
