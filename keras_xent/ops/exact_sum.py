"""Sums of float32 numbers without rounding, in float32.

float64 is not to be had everywhere, and compilers reorder sums. Whole numbers
below 2**24 float32 adds exactly in any order: so weights are split into digits,
sums of digits into parts, and a part hands on what is too large for it.
"""

import numpy as np
from keras import ops

# A sum of weights is kept in parts, of 4096, 1, 1/4096 and 1/4096**2 each.
# float32 holds whole numbers to 2**24, so the parts of 2**12 states can be
# summed before one is lost, and the first part reaches 2**36. The last part may
# be fractional: what is left of a float32 weight there is a few bits.
_RATIO = 4096.0
UNITS = (_RATIO, 1.0, 1 / _RATIO, 1 / _RATIO**2)

# Weights that are not just 0 and 1 are summed digit by digit, 8 bits each, so
# that 2**16 of them stay under 2**24, too.
_DIGIT = 256.0
DIGIT_UNITS = np.array([2**8, 1, 2**-8, 2**-16, 2**-24, 2**-24], "float32")


def carry(parts):
    """Moves whole units of each part to the part before it.

    A unit of a part is worth `4096` of the next, a power of two, so nothing is
    rounded, and 0 <= part < 4096 afterwards for all but the first. Added part
    by part, such sums stay exact.

    Args:
        parts: List of tensors of one shape, the largest unit first.

    Returns:
        The parts of the same sum, a list.
    """
    parts, units = list(parts), 0.0
    for i in range(len(parts) - 1, 0, -1):
        units, parts[i] = carried(parts[i] + units)
    return [parts[0] + units, *parts[1:]]


def rounded(parts):
    """The sum that the four parts stand for, rounded to float32."""
    high, low, fraction, rest = parts
    # From the smallest part on, so that as little as can be is rounded.
    small = (rest / _RATIO + fraction) / _RATIO
    return small + low + high * _RATIO


def digits(weight):
    """The digits of weights, to be summed each on its own.

    Args:
        weight: Float32 tensor, not negative and finite.

    Returns:
        Six tensors of its shape, in `DIGIT_UNITS`: whole numbers, below 256
        but for the first, and what is left, below 1.
    """
    found, rest = [], weight / _DIGIT
    for _ in range(5):
        digit = ops.floor(rest)
        found.append(digit)
        rest = (rest - digit) * _DIGIT
    return [*found, rest / _DIGIT]


def parts_of_digits(sums):
    """The four parts, all but the first carried, of six sums of `digits`."""
    # A digit is 1/16 of the unit of one part, and 256 units of the next.
    (high, b), (c, d), (e, f), (g, h), (k, m), (n, rest) = (
        split(part, ratio)
        for part, ratio in zip(
            sums, (16.0, _RATIO, 256.0, 16.0, _RATIO, _RATIO), strict=True
        )
    )
    o, m = carried(256.0 * h + m)
    return carry(
        [high + c, 256.0 * b + d + e, 16.0 * f + g + k + n + o, m + rest]
    )


def carried(part):
    """What a part hands on to the part before it, and what it keeps."""
    return split(part, _RATIO)


def split(x, unit):
    """Whole units in x, and what is left; exact for a power of two."""
    units = ops.floor(x / unit)
    return units, x - unit * units
