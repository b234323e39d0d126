"""Pairs of a target and a score, counted in fixed bins of both."""

import keras
import numpy as np
from keras import ops

from keras_xent._types import DType
from keras_xent.metrics.alignment import flat_pairs
from keras_xent.metrics.score_histogram import order_key
from keras_xent.metrics.sums import SummedMetric
from keras_xent.ops import checks
from keras_xent.ops.segments import segment_sum
from keras_xent.ops.select import where

# float32 has 23 bits of mantissa, and 127 stands for the exponent 0.
_MANTISSA_BITS = 23

# Octaves above and below 1 that are told apart: 2e-10 to 4e9.
_OCTAVES = 32
_LOWEST = (127 - _OCTAVES) << _MANTISSA_BITS
_HIGHEST = (127 + _OCTAVES) << _MANTISSA_BITS

# With 5 there are 4099 × 4099 cells, 64 MiB for each part of the counts.
_HIGHEST_RESOLUTION = 5


@keras.saving.register_keras_serializable(package="keras_xent")
class JointHistogram(SummedMetric):
    """Counts pairs of numbers in a square of bins.

    The bins of either number are the same: 2**resolution in each octave from
    2**-32 to 2**32, for both signs, one bin for all that is smaller and one at
    each end for all that is larger, infinity included. They are symmetric
    about 0 and 2**-resolution wide, relative to their numbers.

    The state is additive: sums over devices, and `merge_state`, give what one
    pass gives. It is kept by `Sums`: whole counts are exact to 2**48 in a cell,
    if none gets more than 2**24 in one update.

    Args:
        resolution: How fine the bins are, 0 to 5: each step halves their width
            and takes four times the memory. 3 gives 1027 × 1027 cells, 8 MB, in
            which numbers less than an eighth apart may share a bin.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

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
    >>> histogram = JointHistogram(resolution=0)
    >>> histogram.update_state([1.0, 1.5, -4.0], [0.0, 0.0, 8.0])
    >>> tuple(histogram.masses().shape), float(histogram.result())
    ((131, 131), 3.0)
    >>> max(max(map(float, row)) for row in histogram.masses())
    2.0
    """

    def __init__(
        self,
        *,
        resolution: int = 3,
        name: str = "joint_histogram",
        dtype: DType = None,
    ) -> None:
        check_resolution(resolution)
        self.resolution = int(resolution)
        # Bins on either side of that of 0.
        self._middle = (2 * _OCTAVES << self.resolution) + 1
        self.bins = 2 * self._middle + 1
        self._cells = self.bins**2
        # One number per cell, and one for what cannot be counted.
        super().__init__((self._cells + 1,), name, dtype)

    def _bin(self, number):
        key = order_key(number)
        highest, shift = (
            ops.convert_to_tensor(number, dtype="int32")
            for number in (_HIGHEST, _MANTISSA_BITS - self.resolution)
        )
        size = ops.minimum(ops.abs(key), highest)
        index = ops.right_shift(size - _LOWEST, shift) + 1
        index = ops.where(size < _LOWEST, ops.zeros_like(index), index)
        return self._middle + ops.sign(key) * index

    def update_state(self, target, score, sample_weight=None):
        target, score, weight = flat_pairs(target, score, sample_weight)
        known = ~(ops.isnan(target) | ops.isnan(score))
        usable = known & (weight >= 0) & (weight < np.inf)
        cell = self.bins * self._bin(target) + self._bin(score)
        cell = where(usable, cell, self._cells)
        # segment_sum leaves out what has the id -1.
        cell = where(ops.equal(weight, 0), -1, cell)
        amount = where(usable, weight, 1.0)
        self._sums.update_state(segment_sum(amount, cell, self._cells + 1))

    def masses(self):
        """The weight in each cell, float32 `[bins, bins]`: targets, scores."""
        sums = self._sums.result()[: self._cells]
        return ops.reshape(sums, (self.bins, self.bins))

    def exact(self):
        """The masses in float64, read on the host."""
        sums = self._sums.exact()[: self._cells]
        return sums.reshape(self.bins, self.bins)

    def usable(self):
        """Whether all that came could be counted, a boolean scalar tensor."""
        return ops.equal(self._sums.result()[self._cells], 0)

    def result(self):
        return where(self.usable(), ops.sum(self.masses()), np.nan)

    def get_config(self):
        return {**super().get_config(), "resolution": self.resolution}


def check_resolution(resolution):
    """Raises unless there can be so many bins."""
    checks.whole("resolution", resolution, 0, _HIGHEST_RESOLUTION)
