"""Sums over the first of many numbers are those of float64."""

import numpy as np
import pytest
from keras import ops

from keras_xent.ops import prefix
from tests.testing import compiled, to_numpy

WAYS = [compiled, lambda function: function]


@pytest.mark.parametrize("n", [1, 15, 16, 17, 300, 70_000])
def test_prefix_sums_of_whole_numbers_are_exact(n):
    x = np.random.default_rng(n).integers(0, 200, n)
    sums = compiled(prefix.prefix_sums)(ops.convert_to_tensor(x, "float32"))
    assert np.array_equal(to_numpy(sums), np.append(0, np.cumsum(x)))


@pytest.mark.parametrize("way", [compiled, lambda function: function])
def test_many_fractional_weights_are_summed_to_a_millionth(way):
    # One after the other in float32, tenths lose 6e-4 on the way.
    x = np.full(65_281, 0.1, "float32")
    expected = np.cumsum(x.astype("float64"))
    sums = to_numpy(way(prefix.prefix_sums)(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(sums[1:], expected, rtol=1e-6)
    total = way(prefix.total)(ops.convert_to_tensor(x))
    assert float(total) == pytest.approx(expected[-1], rel=1e-6)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 2000])
@pytest.mark.parametrize("way", WAYS)
def test_pairs_are_counted_in_their_order(n, way):
    x, y = np.random.default_rng(n).random((2, n)).astype("float32")
    places = np.arange(n)
    share = np.where(places[:, None] < places, 1.0, 0.0) + np.eye(n) / 2
    expected = x.astype("float64") @ share @ y
    found = way(prefix.pairs_in_order)(*map(ops.convert_to_tensor, (x, y)))
    assert float(found) == pytest.approx(expected, rel=2e-6)
    on_host = prefix.pairs_in_order(x.astype("float64"), y, np)
    assert on_host == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [2, 31, 32, 33, 34, 2000])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_the_largest_prefix_sum_lies_between_the_ends(n, way, shift):
    x = np.random.default_rng(n).normal(shift, 1, n).astype("float32")
    sums = np.append(0, np.cumsum(x.astype("float64")))
    for ends in ((0, n), (1, n), (0, n - 1), (1, 1)):
        expected = sums[ends[0] : ends[1] + 1].max()
        found = way(lambda x, e=ends: prefix.largest_prefix_sum(x, e))(
            ops.convert_to_tensor(x)
        )
        assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)
