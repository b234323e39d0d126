"""Nothing is lost on the way from weights to digits to parts."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_xent.ops.exact_sum import (
    DIGIT_UNITS,
    UNITS,
    carry,
    digits,
    parts_of_digits,
    rounded,
)
from tests.testing import compiled, to_numpy

quick = settings(max_examples=25, deadline=None)


def worth(parts, units):
    return sum(
        Fraction(float(unit)) * Fraction(float(part))
        for part, unit in zip(parts, units, strict=True)
    )


@quick
@given(st.floats(0, 2**24 - 1, width=32), st.integers(0, 2**20))
def test_the_carry_loses_nothing(low, high):
    new_high, new_low = carry([ops.array([float(high)]), ops.array([low])])
    new_low, new_high = float(new_low[0]), float(new_high[0])
    assert 0 <= new_low < 4096
    assert new_low + 4096 * new_high == low + 4096 * high


@quick
@given(st.lists(st.integers(0, 4095), min_size=4, max_size=4))
def test_the_parts_are_rounded_as_their_sum_is(parts):
    # Of whatever size: the largest may be 0.
    found = rounded([ops.array([float(part)]) for part in parts])
    exact = worth(parts, UNITS)
    assert abs(Fraction(float(found[0])) - exact) <= exact / 2**23


@pytest.mark.parametrize("exponent", [-30, -12, -1, 0, 7, 30])
def test_digits_are_worth_the_weight_and_small(exponent):
    weight = np.float32(2.0**exponent * 1.2345678)
    found = [to_numpy(d)[0] for d in compiled(digits)(ops.array([weight]))]
    assert worth(found, DIGIT_UNITS) == Fraction(float(weight))
    assert all(0 <= d < 256 for d in found[1:5])
    assert all(d == int(d) for d in found[:5])
    assert 0 <= found[5] < 1


@quick
@given(
    st.lists(st.integers(0, 2**24 - 1), min_size=5, max_size=5),
    st.integers(0, 2**12 - 1),
)
def test_parts_are_worth_the_digits(sums, rest):
    sums = [*map(float, sums), rest / 4096]
    found = [
        to_numpy(part)[0]
        for part in parts_of_digits([ops.array([x]) for x in sums])
    ]
    assert worth(found, UNITS) == worth(sums, DIGIT_UNITS)
    assert all(0 <= part < 4096 for part in found[1:])
