"""Pairs of a target and a score, kept as they are, up to a capacity."""

import keras
from keras import ops

from keras_xent._types import DType
from keras_xent.metrics.alignment import flat_pairs
from keras_xent.metrics.merging import checked_alike
from keras_xent.ops import checks
from keras_xent.ops.select import where

# A float32 counter of pairs is exact so far.
_MOST_PAIRS = 2**24


@keras.saving.register_keras_serializable(package="keras_xent")
class PairBuffer(keras.metrics.Metric):
    """Keeps targets, scores and weights in a buffer of fixed size.

    Pairs of weight 0 or masked take no place. What comes after the buffer is
    full is counted and not kept: `whole()` is False then, and a metric on top
    must not give a number for the part that was kept.

    The state is a list, and lists do not add up: summed over devices, as on
    TensorFlow's `MirroredStrategy`, it is nonsense, which `whole()` notices. On
    JAX's `DataParallel` there is one list, of all pairs. `merge_state` appends,
    and so does `keras_xent.metrics.all_reduce` on PyTorch.

    Args:
        capacity: The number of pairs, 1 to 2**24.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        `update_state(target, score, sample_weight=None)`: real numbers, both of
        one shape up to a last axis of 1, kept in float32. `sample_weight` has
        that shape too, or leaves out trailing axes.
        `result()`: the number of pairs that came, a float32 scalar.

    Raises:
        ValueError: If an argument or a shape is wrong.

    Example:

    >>> from keras_xent.metrics.pair_buffer import PairBuffer
    >>> buffer = PairBuffer(capacity=2)
    >>> for target in (1.0, 2.0, 3.0):
    ...     buffer.update_state([target], [0.5])
    ...     print(int(buffer.result()), bool(buffer.whole()))
    1 True
    2 True
    3 False
    """

    def __init__(
        self, capacity: int, *, name: str = "pair_buffer", dtype: DType = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        checks.whole("capacity", capacity, 1, _MOST_PAIRS)
        self.capacity = int(capacity)
        # One place more, for what is not kept.
        self._pairs = self._add("pairs", (self.capacity + 1, 3))
        self._count = self._add("count", ())
        # 1 once something came: a sum over devices is more.
        self._used = self._add("used", ())

    def _add(self, name, shape):
        return self.add_variable(
            shape=shape, initializer="zeros", dtype="float32", name=name
        )

    def update_state(self, target, score, sample_weight=None):
        self._append(*flat_pairs(target, score, sample_weight))

    def _append(self, target, score, weight):
        counts = weight != 0
        number = ops.cumsum(ops.cast(counts, "int32"))
        count = ops.convert_to_tensor(self._count)
        place = ops.cast(count, "int32") + number - 1
        # Keras tries metrics out on PyTorch, where a state can be garbage then,
        # as of 3.16 (no upstream issue found).
        kept = counts & (place >= 0) & (place < self.capacity)
        place = where(kept, place, self.capacity)
        pairs = ops.stack([target, score, weight], axis=1)
        self._pairs.assign(
            ops.scatter_update(
                ops.convert_to_tensor(self._pairs), place[:, None], pairs
            )
        )
        added = ops.sum(ops.cast(counts, "float32"))
        self._count.assign(count + added)
        self._used.assign(ops.ones((), dtype="float32"))

    def merge_state(self, buffers):
        """Appends what other buffers have kept."""
        for other in checked_alike(self, buffers):
            self._append_all(other._pairs, other._count)

    def assign_all(self, states):
        """Appends to nothing the pairs and the count of each of many states."""
        self.reset_state()
        for pairs, count in states:
            self._append_all(pairs, count)

    def _append_all(self, pairs, count):
        total = self._count + count
        self._append(*self._columns(pairs))
        self._count.assign(total)

    def pairs(self):
        """Targets, scores and weights, `[capacity]` each: 0 in free places."""
        return self._columns(self._pairs)

    def _columns(self, pairs):
        pairs = ops.convert_to_tensor(pairs)
        return ops.unstack(pairs[: self.capacity], 3, axis=1)

    def whole(self):
        """Whether all pairs that came are kept, a boolean scalar tensor."""
        count, used = (
            ops.convert_to_tensor(each) for each in (self._count, self._used)
        )
        return (count <= self.capacity) & (used <= 1)

    def result(self):
        return ops.convert_to_tensor(self._count)

    def get_config(self):
        return {**super().get_config(), "capacity": self.capacity}
