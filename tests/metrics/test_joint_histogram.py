import numpy as np
import pytest

from keras_xent.metrics.joint_histogram import JointHistogram
from tests.testing import to_numpy


def bins_of(numbers, resolution=0):
    """The bin of each number, counted from that of 0."""
    found = []
    for number in numbers:
        histogram = JointHistogram(resolution=resolution)
        histogram.update_state([number], [0.0])
        row, column = np.argwhere(to_numpy(histogram.masses()))[0]
        assert column == histogram.bins // 2
        found.append(int(row) - histogram.bins // 2)
    return found


def test_every_octave_is_a_bin_and_the_ends_take_the_rest():
    numbers = [1.0, 1.99, 2.0, 2.0**-32, 2.0**-33, 0.0, 1e-45, 2.0**31, 2.0**32]
    expected = [33, 33, 34, 1, 0, 0, 0, 64, 65]
    assert bins_of(numbers) == expected
    assert bins_of([-x for x in numbers]) == [-x for x in expected]
    assert bins_of([1e38, np.inf, -np.inf]) == [65, 65, -65]


def test_bits_of_mantissa_part_an_octave():
    numbers = np.array([1.0, 1.2, 1.25, 1.5, 1.75, 2.0])
    found = np.array(bins_of(numbers, resolution=2))
    assert (found - found[0]).tolist() == [0, 0, 1, 2, 3, 4]


def test_pairs_are_counted_in_a_square():
    histogram = JointHistogram(resolution=0)
    histogram.update_state([1, -2, 1], [4.0, 0.0, 5.0], [2, 1, 0.5])
    masses, middle = to_numpy(histogram.masses()), histogram.bins // 2
    assert masses.sum() == to_numpy(histogram.result()) == 3.5
    assert masses[middle + 33, middle + 35] == 2.5
    assert masses[middle - 34, middle] == 1


def test_counts_go_on_beyond_float32():
    histogram = JointHistogram(resolution=0)
    for _ in range(4):
        histogram.update_state([1.0], [1.0], [2.0**23])
        histogram.update_state([1.0], [1.0])
    assert histogram.exact().max() == 4 * (2**23 + 1)


@pytest.mark.parametrize(
    ("target", "score", "weight"),
    [(np.nan, 1, 1), (1, np.nan, 1), (1, 1, -1), (1, 1, np.inf)],
)
def test_what_cannot_be_counted_makes_the_result_nan(target, score, weight):
    histogram = JointHistogram(resolution=0)
    histogram.update_state([1, target], [1, score], [1, weight])
    assert np.isnan(to_numpy(histogram.result()))
    assert to_numpy(histogram.masses()).sum() == 1


@pytest.mark.parametrize("bits", [-1, 6, 1.5, None, True])
def test_bits_out_of_range_are_an_error(bits):
    with pytest.raises(ValueError, match="`resolution`"):
        JointHistogram(resolution=bits)
