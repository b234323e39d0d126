"""Sums over a whole epoch that lose nothing on the way."""

import keras
from keras import ops

from keras_xent.metrics.merging import checked_alike
from keras_xent.ops.select import where


class Sums(keras.metrics.Metric):
    """Running sums in two float32 parts, the sum and what it rounded off.

    A float32 sum stops growing at 2**24 ones, and long before that it drops
    the last digits of everything it adds. Here what an addition rounds off is
    computed exactly (Knuth's two-sum) and kept in the second part. Sums of
    whole numbers are exact to 2**48, others right to about 2**-48.

    The state is additive. Parts of several devices that are added one by one
    are rounded once, to a float32. `ScoreHistogram` promises more, the same
    bits in whatever order devices are added, so it keeps its sums in the parts
    of `keras_xent.ops.exact_sum`, which take twice the memory.

    Args:
        shape: The shape of the sums.
        name: The name of the metric.

    Shapes:
        `update_state(amount)`: float32 of that shape. `result()`: the same.
        NaN and infinities stay what they are.

    References:
        Knuth, The Art of Computer Programming, vol. 2, section 4.2.2.

    Example:

    >>> import numpy as np
    >>> from keras_xent.metrics.sums import Sums
    >>> sums = Sums((1,))
    >>> for amount in (2.0**24, 1.0, 1.0):
    ...     sums.update_state(np.array([amount], "float32"))
    >>> sums.exact().tolist() == [2.0**24 + 2]
    True
    """

    def __init__(self, shape, name="sums"):
        super().__init__(name=name, dtype="float32")
        self._high = self._add_part(shape, "high")
        self._low = self._add_part(shape, "low")

    def _add_part(self, shape, name):
        return self.add_variable(
            shape=shape, initializer="zeros", dtype="float32", name=name
        )

    def update_state(self, amount):
        high = ops.convert_to_tensor(self._high)
        low = ops.convert_to_tensor(self._low)
        high, lost = two_sum(high, ops.cast(amount, "float32"))
        high, low = two_sum(high, low + lost)
        self._high.assign(high)
        self._low.assign(low)

    def merge_state(self, others):
        """Adds what other sums of the same shape have added up."""
        for other in others:
            self.update_state(ops.convert_to_tensor(other._high))
            self.update_state(ops.convert_to_tensor(other._low))

    def assign_sum(self, high, low):
        """Takes over what the two parts are in float64, where there is one."""
        total = high + low
        high = ops.cast(total, "float32")
        lost = ops.cast(total - ops.cast(high, "float64"), "float32")
        self._high.assign(high)
        # From an infinity on, the difference would be NaN.
        self._low.assign(where(ops.isfinite(high), lost, 0.0))

    def result(self):
        high = ops.convert_to_tensor(self._high)
        return high + ops.convert_to_tensor(self._low)

    def exact(self):
        """The sums in float64, read on the host."""
        high, low = (
            ops.convert_to_numpy(part).astype("float64")
            for part in (self._high, self._low)
        )
        return high + low


class SummedMetric(keras.metrics.Metric):
    """A metric whose whole state is one `Sums`.

    Args:
        shape: The shape of the sums.
        name, dtype: As in `keras.metrics.Metric`.
    """

    def __init__(self, shape, name, dtype):
        super().__init__(name=name, dtype=dtype)
        self._sums = Sums(shape)

    def merge_state(self, metrics):
        """Adds what other metrics of the same configuration have seen."""
        self._sums.merge_state([m._sums for m in checked_alike(self, metrics)])


def two_sum(a, b):
    """a + b rounded, and what the rounding lost: exactly a + b together.

    No product is in it, so that nothing can be contracted, and no compiler of
    the three backends reorders float additions.
    """
    total = a + b
    shown = total - a
    lost = (a - (total - shown)) + (b - shown)
    # From an infinity on, the difference would be NaN.
    return total, where(ops.isfinite(total), lost, 0.0)
