"""Two histograms of scores, matches and non-matches, over all of float32."""

import keras
import numpy as np
from keras import ops

from keras_xent.metrics.alignment import flat_entries
from keras_xent.ops import checks

# float32: a sign, 8 bits of exponent, 23 of mantissa. The bits of |score| are
# what is left without the sign, and those of infinity come right before NaN.
_MANTISSA_BITS = 23
_MAGNITUDE = 0x7FFFFFFF
_INFINITY = 0x7F800000

# Beyond 12 bits the two histograms of two parts each pass 32 MiB.
_MOST_MANTISSA_BITS = 12

# A count is `high * _UNIT + low`. float32 holds whole numbers to 2**24, so the
# low parts of 2**12 states can be summed before one is lost, and the high part
# reaches 2**36. A smaller unit would hold fractions better and count less far.
_UNIT = 4096.0

# One update adds at most this many entries to a bin at once: stays under 2**24.
_LARGEST_BLOCK = 2**23

# What follows the bins: NaN scores of non-matches, of matches, and entries that
# cannot be counted because their flag or weight is wrong.
_EXTRA_SLOTS = 3


@keras.saving.register_keras_serializable(package="keras_xent")
class ScoreHistogram(keras.metrics.Metric):
    """Counts match and non-match scores in fixed bins over all of float32.

    The bin of a score x is

        key(x) = bits(|x|) as int32, negated where x < 0
        bin(x) = key(x) >> (23 - mantissa_bits)

    Keys are ordered as the scores are, so every bin is half-open, [lo, hi), on
    both sides of 0, and about 2**-mantissa_bits wide relative to its scores.
    -0.0 is 0.0, denormals are binned by their bits (never flushed to 0), and
    the last bin holds +inf alone.

    The state is additive: sums over devices, and `merge_state`, give what one
    pass gives. Whole counts are exact to 2**36 in a bin; fractional weights
    are summed in float32.

    Args:
        mantissa_bits: Bits of mantissa that tell bins apart, 0 to 12. 7 gives
            65,281 bins.
        threshold: If a number, there are two bins only, below it and from it
            on, parted at exactly this float32.
        name: Name of the metric.
        dtype: Dtype policy of the metric. The state is float32 whatever it is.

    Shapes:
        `update_state(match, score, sample_weight=None)`: `match` holds flags
        1/0 of any dtype, `score` numbers of any real dtype (compared in
        float32), both of one shape up to a last axis of 1. `sample_weight` has
        that shape too, or leaves out trailing axes. Entries of weight 0, or
        masked by Keras, are not counted.
        `result()`: a dict of float32 scalars: the weight of `matches` and of
        `non_matches` in the bins, of `nan_scores`, and the number of
        `unusable` entries (a flag that is neither 0 nor 1; a weight that is
        negative, infinite or NaN).

    Raises:
        ValueError: If an argument or a shape is wrong, or a flag is neither 0
            nor 1 and this can be seen without reading device memory.

    Example:

    >>> import numpy as np
    >>> from keras_xent.metrics import ScoreHistogram
    >>> histogram = ScoreHistogram(mantissa_bits=7)
    >>> histogram.update_state([1, 0, 0], [0.25, 3.0, np.nan])
    >>> {k: float(v) for k, v in sorted(histogram.result().items())}
    {'matches': 1.0, 'nan_scores': 1.0, 'non_matches': 1.0, 'unusable': 0.0}
    >>> histogram.edges()[histogram.counts().argmax(axis=1)].tolist()
    [3.0, 0.25]
    """

    def __init__(
        self,
        mantissa_bits=7,
        threshold=None,
        name="score_histogram",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.mantissa_bits = _checked_mantissa_bits(mantissa_bits)
        self.split = None if threshold is None else checks.threshold(threshold)
        self.bins = 2 if self.split is not None else 2 * self._middle + 1
        self._slots = 2 * self.bins + _EXTRA_SLOTS
        self._low = self._add_part("low")
        self._high = self._add_part("high")

    @property
    def _shift(self):
        return _MANTISSA_BITS - self.mantissa_bits

    @property
    def _middle(self):
        """Number of bins below 0, and from 0 up to infinity."""
        return _INFINITY >> self._shift

    def _add_part(self, name):
        return self.add_variable(
            shape=(self._slots,),
            initializer="zeros",
            dtype="float32",
            name=name,
        )

    def update_state(self, match, score, sample_weight=None):
        match, score, weight = flat_entries(match, score, sample_weight)
        size = score.shape[0]
        if size is None or size <= _LARGEST_BLOCK:
            self._count(match, score, weight)
            return
        for start in range(0, size, _LARGEST_BLOCK):
            part = slice(start, start + _LARGEST_BLOCK)
            self._count(
                match[part],
                score[part],
                None if weight is None else weight[part],
            )

    def _count(self, match, score, weight):
        is_match = ops.equal(match, 1.0)
        usable = ops.logical_or(is_match, ops.equal(match, 0.0))
        amount = ops.ones_like(score)
        if weight is not None:
            right = ops.logical_and(weight >= 0.0, weight < np.inf)
            usable = ops.logical_and(usable, right)
            amount = ops.where(usable, weight, 1.0)
        key = order_key(score)
        row = ops.cast(is_match, "int32")
        slot = ops.where(
            ops.abs(key) > _INFINITY,
            row + 2 * self.bins,
            row * self.bins + self._bin(key),
        )
        slot = ops.where(usable, slot, self._slots - 1)
        if weight is not None:
            # segment_sum leaves out what has the id -1.
            slot = ops.where(ops.equal(weight, 0.0), -1, slot)
        added = ops.segment_sum(amount, slot, num_segments=self._slots)
        self._assign(self._low + added, self._high)

    def _bin(self, key):
        if self.split is not None:
            return ops.cast(key >= _order_key_of_number(self.split), "int32")
        return ops.right_shift(key, self._shift) + self._middle

    def _assign(self, low, high):
        low, high = carry(low, high)
        self._low.assign(low)
        self._high.assign(high)

    def merge_state(self, histograms):
        """Adds what other histograms of the same bins have counted."""
        histograms = list(histograms)
        for other in histograms:
            mine = (self.mantissa_bits, self.split)
            theirs = (other.mantissa_bits, other.split)
            if mine != theirs:
                raise ValueError(
                    "Histograms can be merged if they have the same bins. "
                    "Expected (mantissa_bits, threshold) to be "
                    f"{mine}, got {theirs}. Create them alike."
                )
            self._assign(self._low + other._low, self._high + other._high)

    def masses(self):
        """The weight in each bin, rounded to float32, as a traceable tensor.

        Returns:
            Float32 tensor `[2, bins]`: non-matches, then matches.
        """
        return ops.reshape(self._sums()[: 2 * self.bins], (2, self.bins))

    def result(self):
        sums = self._sums()
        masses = ops.sum(self.masses(), axis=1)
        extra = sums[2 * self.bins :]
        return {
            "matches": masses[1],
            "non_matches": masses[0],
            "nan_scores": extra[0] + extra[1],
            "unusable": extra[2],
        }

    def uncounted(self):
        """Weight of NaN scores plus number of unusable entries, a tensor."""
        return ops.sum(self._sums()[2 * self.bins :])

    def _sums(self):
        low = ops.convert_to_tensor(self._low)
        return low + _UNIT * ops.convert_to_tensor(self._high)

    def counts(self):
        """The weight in each bin, exactly, read on the host.

        Returns:
            Float64 NumPy array `[2, bins]`: non-matches, then matches.
        """
        low, high = (
            ops.convert_to_numpy(part)[: 2 * self.bins].astype("float64")
            for part in (self._low, self._high)
        )
        return (low + _UNIT * high).reshape(2, self.bins)

    def edges(self):
        """The lower edge of each bin, the same bits on every backend.

        Bin i is [edges[i], edges[i + 1]). The first edge is -inf; the last
        bin, from the last edge on, is +inf alone (with a `threshold`:
        everything from it on).

        Returns:
            Float32 NumPy array `[bins]`, strictly increasing.
        """
        if self.split is not None:
            return np.array([-np.inf, self.split], "float32")
        key = np.arange(-self._middle, self._middle + 1) << self._shift
        size = np.abs(key).astype("int32").view("float32")
        return np.where(key < 0, -size, size)

    def get_config(self):
        return {
            **super().get_config(),
            "mantissa_bits": self.mantissa_bits,
            "threshold": self.split,
        }


def order_key(score):
    """The int32 whose order is that of the float32 scores.

    Only integer operations touch the bits, so denormals keep their value on
    hardware that flushes them to 0. The key of NaN is beyond that of infinity
    on either side.

    Args:
        score: Float32 tensor of any shape.

    Returns:
        Int32 tensor of the same shape.
    """
    # A last axis of known size: Keras's view needs one in a TensorFlow graph.
    score = ops.expand_dims(score, axis=-1)
    bits = ops.squeeze(ops.view(score, dtype="int32"), axis=-1)
    size = ops.bitwise_and(bits, _MAGNITUDE)
    return ops.where(bits < 0, -size, size)


def _order_key_of_number(number):
    size = int(np.abs(np.float32(number)).view("int32"))
    return -size if number < 0 else size


def carry(low, high):
    """Moves whole units from the low to the high part of `high * unit + low`.

    The unit is a power of two, so nothing is rounded, and 0 <= low < unit
    afterwards. Added part by part, such sums stay exact.
    """
    units = ops.floor(low / _UNIT)
    return low - units * _UNIT, high + units


def _checked_mantissa_bits(bits):
    whole = isinstance(bits, int | np.integer) and not isinstance(bits, bool)
    if not whole or not 0 <= bits <= _MOST_MANTISSA_BITS:
        raise ValueError(
            "`mantissa_bits` sets how fine the bins are. Expected a whole "
            f"number from 0 to {_MOST_MANTISSA_BITS}, got {bits!r}."
        )
    return int(bits)
