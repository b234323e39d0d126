"""Pairs of a target and a score, counted in fixed bins of both."""

import keras
import numpy as np
from keras import ops

from keras_xent.metrics.alignment import flat_pairs
from keras_xent.metrics.score_histogram import order_key
from keras_xent.ops import checks, exact_sum

# float32 has 23 bits of mantissa, and 127 stands for the exponent 0.
_MANTISSA_BITS = 23

# Octaves above and below 1 that are told apart: 2e-10 to 4e9.
_OCTAVES = 32
_LOWEST = (127 - _OCTAVES) << _MANTISSA_BITS
_HIGHEST = (127 + _OCTAVES) << _MANTISSA_BITS

# With 5 bits there are 4099 × 4099 cells, 64 MiB for each part of the counts.
_MOST_MANTISSA_BITS = 5


@keras.saving.register_keras_serializable(package="keras_xent")
class JointHistogram(keras.metrics.Metric):
    """Counts pairs of numbers in a square of bins.

    The bins of either number are the same: 2**mantissa_bits in each octave from
    2**-32 to 2**32, for both signs, one bin for all that is smaller and one at
    each end for all that is larger, infinity included. They are symmetric
    about 0 and 2**-mantissa_bits wide, relative to their numbers.

    The state is additive: sums over devices, and `merge_state`, give what one
    pass gives. Whole counts are exact to 2**36 in a cell, if none gets more
    than 2**23 in one update; fractional weights are summed in float32.

    Args:
        mantissa_bits: Bits of mantissa that tell bins apart, 0 to 5. 3 gives
            1027 × 1027 cells.
        name: Name of the metric.
        dtype: Dtype policy of the metric. The state is float32 whatever it is.

    Shapes:
        `update_state(target, score, sample_weight=None)`: real numbers, both of
        one shape up to a last axis of 1, compared in float32. `sample_weight`
        has that shape too, or leaves out trailing axes; what weighs 0 or is
        masked by Keras is not counted.
        `result()`: the weight counted, a float32 scalar; NaN if a number is NaN
        or a weight negative, infinite or NaN.

    Raises:
        ValueError: If an argument or a shape is wrong.

    Example:

    >>> from keras_xent.metrics.joint_histogram import JointHistogram
    >>> histogram = JointHistogram(mantissa_bits=0)
    >>> histogram.update_state([1.0, 1.5, -4.0], [0.0, 0.0, 8.0])
    >>> tuple(histogram.masses().shape), float(histogram.result())
    ((131, 131), 3.0)
    >>> max(max(map(float, row)) for row in histogram.masses())
    2.0
    """

    def __init__(self, mantissa_bits=3, name="joint_histogram", dtype=None):
        super().__init__(name=name, dtype=dtype)
        checks.whole("mantissa_bits", mantissa_bits)
        if not 0 <= mantissa_bits <= _MOST_MANTISSA_BITS:
            raise ValueError(
                "`mantissa_bits` sets how fine the bins are. Expected 0 to "
                f"{_MOST_MANTISSA_BITS}. Received: {mantissa_bits}"
            )
        self.mantissa_bits = int(mantissa_bits)
        # Bins on either side of that of 0.
        self._middle = (2 * _OCTAVES << self.mantissa_bits) + 1
        self.bins = 2 * self._middle + 1
        self._cells = self.bins**2
        self._low = self._add("low")
        self._high = self._add("high")

    def _add(self, name):
        """One number per cell, and one for what cannot be counted."""
        return self.add_variable(
            shape=(self._cells + 1,),
            initializer="zeros",
            dtype="float32",
            name=name,
        )

    def _bin(self, number):
        key = order_key(number)
        size = ops.minimum(ops.abs(key), _HIGHEST)
        shift = _MANTISSA_BITS - self.mantissa_bits
        index = ops.right_shift(size - _LOWEST, shift) + 1
        index = ops.where(size < _LOWEST, 0, index)
        return self._middle + ops.sign(key) * index

    def update_state(self, target, score, sample_weight=None):
        target, score, weight = flat_pairs(target, score, sample_weight)
        known = ~(ops.isnan(target) | ops.isnan(score))
        usable = known & (weight >= 0) & (weight < np.inf)
        cell = self.bins * self._bin(target) + self._bin(score)
        cell = ops.where(usable, cell, self._cells)
        # segment_sum leaves out what has the id -1.
        cell = ops.where(ops.equal(weight, 0), -1, cell)
        amount = ops.where(usable, weight, 1.0)
        added = ops.segment_sum(amount, cell, num_segments=self._cells + 1)
        self._assign(self._low + added, self._high)

    def _assign(self, low, high):
        high, low = exact_sum.carry([high, low])
        self._low.assign(low)
        self._high.assign(high)

    def merge_state(self, histograms):
        """Adds what other histograms of the same bins have counted."""
        for other in histograms:
            self._assign(self._low + other._low, self._high + other._high)

    def masses(self):
        """The weight in each cell, float32 `[bins, bins]`: targets, scores."""
        sums = self._sums()[: self._cells]
        return ops.reshape(sums, (self.bins, self.bins))

    def usable(self):
        """Whether all that came could be counted, a boolean scalar tensor."""
        return ops.equal(self._sums()[self._cells], 0)

    def result(self):
        return ops.where(self.usable(), ops.sum(self.masses()), np.nan)

    def _sums(self):
        low = ops.convert_to_tensor(self._low)
        high = ops.convert_to_tensor(self._high)
        return low + exact_sum.UNITS[0] * high

    def get_config(self):
        return {**super().get_config(), "mantissa_bits": self.mantissa_bits}
