import numpy as np
import pytest

from keras_xent.metrics.pair_buffer import PairBuffer
from tests.testing import normal, to_numpy


def kept(buffer):
    """The pairs in the buffer, one a row."""
    pairs = np.stack([to_numpy(x) for x in buffer.pairs()], axis=1)
    return pairs[pairs[:, 2] != 0].tolist()


def test_pairs_are_kept_in_order_and_those_without_weight_are_not():
    buffer = PairBuffer(capacity=5)
    buffer.update_state([1, 2, 3], [[10.0], [20.0], [30.0]], [1, 0, 0.5])
    buffer.update_state([4], [40.0])
    assert kept(buffer) == [[1, 10, 1], [3, 30, 0.5], [4, 40, 1]]
    assert to_numpy(buffer.result()) == 3
    assert bool(buffer.whole())


def test_what_comes_beyond_the_capacity_is_counted_and_not_kept():
    buffer = PairBuffer(capacity=2)
    buffer.update_state([1, 2, 3], [10.0, 20.0, 30.0])
    assert kept(buffer) == [[1, 10, 1], [2, 20, 1]]
    assert to_numpy(buffer.result()) == 3
    assert not bool(buffer.whole())
    buffer.reset_state()
    assert kept(buffer) == []
    assert bool(buffer.whole())


@pytest.mark.parametrize("sizes", [(2, 3), (3, 3), (1, 6)])
def test_merging_appends_and_knows_when_it_is_too_much(sizes):
    one, two = PairBuffer(capacity=5), PairBuffer(capacity=5)
    for buffer, size, seed in ((one, sizes[0], 0), (two, sizes[1], 1)):
        buffer.update_state(normal(size), normal(size, seed=seed))
    expected = kept(one) + kept(two)
    one.merge_state([two])
    assert kept(one) == expected[:5]
    assert to_numpy(one.result()) == sum(sizes)
    assert bool(one.whole()) == (sum(sizes) <= 5)


def test_a_sum_of_two_buffers_is_known_to_be_none():
    """What a strategy that runs on several devices makes of the state."""
    one, two = PairBuffer(capacity=9), PairBuffer(capacity=9)
    for buffer in (one, two):
        buffer.update_state([1, 2], [3.0, 4.0])
    for mine, theirs in zip(one.variables, two.variables, strict=True):
        mine.assign(mine + theirs)
    assert not bool(one.whole())


@pytest.mark.parametrize("capacity", [0, -1, 2**24 + 1, 2.0, "9", True])
def test_a_capacity_out_of_range_is_an_error(capacity):
    with pytest.raises(ValueError, match="`capacity`"):
        PairBuffer(capacity)
