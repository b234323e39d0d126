"""Two histograms of scores, matches and non-matches, over all of float32."""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_xent._types import DType, Tensor, TensorLike
from keras_xent.metrics.alignment import flat_entries
from keras_xent.metrics.merging import checked_alike
from keras_xent.ops import checks, devices, exact_sum
from keras_xent.ops.segments import segment_sum
from keras_xent.ops.select import where

# float32: a sign, 8 bits of exponent, 23 of mantissa. The bits of |score| are
# what is left without the sign, and those of infinity come right before NaN.
_MANTISSA_BITS = 23
_MAGNITUDE = 0x7FFFFFFF
_LEAST = -0x80000000
_INFINITY = 0x7F800000

# Beyond 12 bits of mantissa the two histograms of two parts each pass 32 MiB.
_MOST_RESOLUTION = 12

# One update adds at most this many ones to a bin at once: stays under 2**24.
_LARGEST_BLOCK = 2**23

# So do as many weights, summed digit by digit.
_LARGEST_WEIGHTED_BLOCK = 2**16

# Of linear bins: their number per score must not overflow float32.
_NARROWEST_RANGE = 1e-30

# What follows the bins: NaN scores, and entries that cannot be counted because
# their flag or weight is wrong.
_EXTRA_SLOTS = 2


@keras.saving.register_keras_serializable(package="keras_xent")
class ScoreHistogram(keras.metrics.Metric):
    """Counts match and non-match scores in fixed bins over all of float32.

    The bin of a score x is

        key(x) = bits(|x|) as int32, negated where x < 0
        bin(x) = key(x) >> (23 - resolution)

    Keys are ordered as the scores are, so every bin is half-open, [lo, hi), on
    both sides of 0, and about 2^-resolution wide relative to its scores.
    -0.0 is 0.0, denormals are binned by their bits (never flushed to 0), and
    the last bin holds +inf alone.

    With `range=(lo, hi)` there are 2^(resolution + 9) bins of one width
    from lo to hi, for scores that crowd far from 0; fewer, where float32 has
    not so many numbers. What lies outside is counted in three more bins,
    [-inf, lo), [hi, inf) and +inf alone.

    The state is additive: sums over devices, and `merge_state`, give what one
    pass gives. Counts are exact to 2**36 in a bin. So are sums of weights, up
    to the precision of a float64: every weight from 2**-12 on is added without
    rounding, 65,536 at a time; smaller ones are rounded as float32 rounds the
    lowest part of the sum, which is below 2**-12.

    Args:
        resolution: How fine the bins are, a whole number from 0 to 12: each is
            2^-resolution wide relative to its scores. Finer bins tell more
            scores apart; every step doubles memory and time. 7 gives 65,281
            bins, takes 2 MiB and is for training, 9 is for an evaluation.
        threshold: `None`, or a number. Then there are two bins only, below it
            and from it on, parted at exactly this float32.
        range: `None`, or two finite numbers, between which the bins are linear.
            Not together with `threshold`.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

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
    >>> histogram = ScoreHistogram(resolution=7)
    >>> histogram.update_state([1, 0, 0], [0.25, 3.0, np.nan])
    >>> {k: float(v) for k, v in sorted(histogram.result().items())}
    {'matches': 1.0, 'nan_scores': 1.0, 'non_matches': 1.0, 'unusable': 0.0}
    >>> histogram.edges()[histogram.counts().argmax(axis=1)].tolist()
    [3.0, 0.25]
    """

    def __init__(
        self,
        *,
        resolution: int = 7,
        threshold: float | None = None,
        range: tuple[float, float] | None = None,
        name: str = "score_histogram",
        dtype: DType = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.resolution = _checked_resolution(resolution)
        self.split = None if threshold is None else checks.threshold(threshold)
        self.range = None if range is None else checked_range(range)
        if None not in (self.split, self.range):
            raise ValueError(
                "`threshold` makes two bins and `range` makes many. Expected "
                f"one of them. Received: threshold={threshold!r}, "
                f"range={range!r}"
            )
        self._edges = self._make_edges()
        self.bins = len(self._edges)
        self._slots = 2 * self.bins
        self._parts = [
            self.add_variable(
                shape=(self._slots + _EXTRA_SLOTS,),
                initializer="zeros",
                dtype="float32",
                name=name,
            )
            for name in ("high", "low", "fraction", "rest")
        ]

    @property
    def _shift(self):
        return _MANTISSA_BITS - self.resolution

    @property
    def _middle(self):
        """Number of bins below 0, and from 0 up to infinity."""
        return _INFINITY >> self._shift

    def update_state(
        self,
        match: TensorLike,
        score: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> None:
        """Counts a batch of scores."""
        zero_one = only_zeros_and_ones(sample_weight)
        match, score, weight = flat_entries(match, score, sample_weight)
        self.add_entries(match, score, weight, zero_one)

    def add_entries(self, match, score, weight, zero_one):
        """Adds float32 tensors `[n]`, as `flat_entries` gives them.

        `zero_one` says that no weight is other than 0 and 1, which is quicker.
        """
        size = score.shape[0]
        block = _LARGEST_BLOCK if zero_one else _LARGEST_WEIGHTED_BLOCK
        if size is None or size <= block:
            self._count(match, score, weight, zero_one)
            return
        for start in range(0, size, block):
            part = slice(start, start + block)
            self._count(
                match[part],
                score[part],
                None if weight is None else weight[part],
                zero_one,
            )

    def _count(self, match, score, weight, zero_one):
        is_match = ops.equal(match, 1.0)
        usable = ops.logical_or(is_match, ops.equal(match, 0.0))
        amount = ops.ones_like(score)
        if weight is not None:
            right = ops.logical_and(weight >= 0.0, weight < np.inf)
            usable = ops.logical_and(usable, right)
            amount = where(usable, weight, 1.0)
        slot = self._bin(score)
        slot = ops.where(is_match, slot + self.bins, slot)
        slot = where(ops.isnan(score), self._slots, slot)
        slot = where(usable, slot, self._slots + 1)
        if weight is not None:
            # segment_sum leaves out what has the id -1.
            slot = where(ops.equal(weight, 0.0), -1, slot)
        values = (
            amount if zero_one else ops.stack(exact_sum.digits(amount), axis=1)
        )
        sums = segment_sum(values, slot, self._slots + _EXTRA_SLOTS)
        if zero_one:
            self._add_whole(sums)
            return
        self._add(exact_sum.parts_of_digits(ops.unstack(sums, 6, axis=1)))

    def _bin(self, score):
        """The bin of each score; of NaN any number."""
        key = order_key(score)
        if self.split is not None:
            return ops.cast(key >= _order_key_of_number(self.split), "int32")
        if self.range is None:
            shift = ops.convert_to_tensor(self._shift, "int32")
            return ops.right_shift(key, shift) + self._middle
        lo, hi = self.range
        # A guess that rounding may put one bin off, corrected by the edges: so
        # the bins are the same wherever they are worked out.
        per_score = np.float32((self.bins - 3) / (hi - lo))
        score = where(ops.isnan(score), lo, score)
        guess = (ops.clip(score, lo, hi) - lo) * per_score
        guess = ops.cast(ops.floor(guess), "int32")
        guess = ops.clip(guess + 1, 0, self.bins - 2)
        edge = ops.convert_to_tensor(_order_keys(self._edges), "int32")
        above = key >= ops.take(edge, guess + 1)
        below = key < ops.take(edge, guess)
        return guess + ops.cast(above, "int32") - ops.cast(below, "int32")

    def _add_whole(self, numbers):
        """Adds whole numbers, one for each slot."""
        high, low = self._parts[:2]
        units, rest = exact_sum.carried(low + numbers)
        low.assign(rest)
        high.assign(high + units)

    def _add(self, parts):
        """Adds parts that are carried, so that no sum loses a bit."""
        sums = [a + b for a, b in zip(self._parts, parts, strict=True)]
        for part, total in zip(self._parts, exact_sum.carry(sums), strict=True):
            part.assign(total)

    def merge_state(self, histograms: Iterable["ScoreHistogram"]) -> None:
        """Adds what other histograms of the same bins have counted."""
        for other in checked_alike(self, histograms):
            self._add(other._parts)

    def masses(self) -> Tensor:
        """The weight in each bin, rounded to float32, as a traceable tensor.

        Returns:
            Float32 tensor `[2, bins]`: non-matches, then matches.
        """
        return self.sums()[0]

    def sums(self) -> tuple[Tensor, Tensor]:
        """The `masses()`, and what could not be counted.

        Returns:
            Float32 tensors `[2, bins]` and `[2]`, the weight of NaN scores and
            the number of unusable entries.
        """
        sums = exact_sum.rounded(self._parts)
        masses = ops.reshape(sums[: self._slots], (2, self.bins))
        return masses, sums[self._slots :]

    def result(self) -> dict[str, Tensor]:
        """What was counted, and what could not be."""
        masses, extra = self.sums()
        masses = ops.sum(masses, axis=1)
        return {
            "matches": masses[1],
            "non_matches": masses[0],
            "nan_scores": extra[0],
            "unusable": extra[1],
        }

    def is_on_host(self):
        """Whether the counts can be read without waiting for a device."""
        return devices.is_on_host(ops.convert_to_tensor(self._parts[0]))

    def counts(self) -> np.ndarray:
        """The weight in each bin, to the precision of float64, on the host.

        Returns:
            Float64 NumPy array `[2, bins]`: non-matches, then matches.
        """
        return self.exact_sums()[0]

    def exact_sums(self):
        """What `sums()` gives, to the precision of float64, on the host."""
        sums = np.zeros(self._slots + _EXTRA_SLOTS)
        # From the smallest part on, so that as little as can be is rounded.
        for part, unit in zip(
            self._parts[::-1], exact_sum.UNITS[::-1], strict=True
        ):
            sums += unit * ops.convert_to_numpy(part).astype("float64")
        masses = sums[: self._slots].reshape(2, self.bins)
        return masses, sums[self._slots :]

    def edges(self) -> np.ndarray:
        """The lower edge of each bin, the same bits on every backend.

        Bin i is [edges[i], edges[i + 1]). The first edge is -inf; the last
        bin, from the last edge on, is +inf alone (with a `threshold`:
        everything from it on).

        Returns:
            Float32 NumPy array `[bins]`, strictly increasing.
        """
        return self._edges.copy()

    def _make_edges(self):
        if self.split is not None:
            return np.array([-np.inf, self.split], "float32")
        if self.range is not None:
            inner = _linear_edges(*self.range, 2 ** (self.resolution + 9))
            return np.array([-np.inf, *inner, np.inf], "float32")
        key = np.arange(-self._middle, self._middle + 1) << self._shift
        size = np.abs(key).astype("int32").view("float32")
        return np.where(key < 0, -size, size)

    def get_config(self):
        return {
            **super().get_config(),
            "resolution": self.resolution,
            "threshold": self.split,
            "range": self.range,
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
    # A last axis of known size: Keras's view needs one in a TensorFlow graph,
    # as of 3.16 (no upstream issue found).
    score = ops.expand_dims(score, axis=-1)
    bits = ops.squeeze(ops.view(score, dtype="int32"), axis=-1)
    # Below 0 the bits are `_LEAST` and the size: -size is what is left.
    return ops.where(bits < 0, _LEAST - bits, bits)


def _order_keys(scores):
    """`order_key` of float32 scores on the host."""
    bits = np.asarray(scores, "float32").view("int32")
    size = bits & _MAGNITUDE
    return np.where(bits < 0, -size, size)


def _order_key_of_number(number):
    return int(_order_keys(number))


def only_zeros_and_ones(weight):
    """Whether all weights are known to be 0 or 1; None stands for 1."""
    if weight is None:
        return True
    if not checks.on_host(weight):
        return False
    weight = np.asarray(checks.array("sample_weight", weight))
    return bool(np.all((weight == 0) | (weight == 1)))


def _linear_edges(lo, hi, count):
    """Edges from lo to hi, at least one float32 apart."""
    lo, hi = np.float64(lo), np.float64(hi)
    largest = np.float32(max(abs(lo), abs(hi)))
    spacing = np.spacing(np.nextafter(largest, np.float32(0.0)))
    count = max(1, int(min(count, (hi - lo) / spacing)))
    return np.linspace(lo, hi, count + 1).astype("float32")


def checked_range(limits):
    """Two limits as floats that float32 holds, or an error."""
    limits_of = checks.as_numpy(limits)
    lo = hi = np.nan
    if (
        limits_of is not None
        and limits_of.shape == (2,)
        and limits_of.dtype.kind in "fiu"
    ):
        with np.errstate(over="ignore"):
            lo, hi = (float(limit) for limit in limits_of.astype("float32"))
    if not _NARROWEST_RANGE <= np.float32(hi) - np.float32(lo) < np.inf:
        raise ValueError(
            "`range` holds the two finite numbers (lo, hi) between which the "
            f"bins are linear, at least {_NARROWEST_RANGE} apart. Received: "
            f"range={limits!r}"
        )
    return (lo, hi)


def _checked_resolution(bits):
    checks.whole("resolution", bits, 0, _MOST_RESOLUTION)
    return int(bits)
