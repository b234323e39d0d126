"""Labels that are all the same, and classes that never occur."""

import numpy as np
import pytest

from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    ONE_HOT,
    X,
    codes,
    flags,
    ids,
    rows,
    sparse,
    twins,
)
from tests.testing import normal

NUMBERS = X[:, 0]


@twins(
    {
        "ids": (lambda: ids(0 * IDS + 1), lambda: ids(IDS)),
        "one-hot": (lambda: rows(0 * ONE_HOT + 1 / 3), lambda: rows(ONE_HOT)),
        "yes": (lambda: flags(0 * FLAGS + 1), lambda: flags(FLAGS)),
        "a number": (
            lambda: flags(0 * NUMBERS + 2.5, "mse"),
            lambda: flags(NUMBERS, "mse"),
        ),
        "in the rows that count": (
            lambda: ids(IDS, weight=np.repeat(IDS == 0, 1) * 1.0, x=X),
            lambda: ids(IDS, weight=(IDS > 0) * 1.0),
        ),
    }
)
def test_constant_targets(broken, healthy):
    model, x, y, weight = broken()
    repeat = 2  # 16 rows at least must count
    x, y = np.repeat(x, repeat, 0), np.repeat(y, repeat, 0)
    weight = None if weight is None else np.repeat(weight, repeat, 0)
    assert codes(model, x, y, weight) == ["constant-targets"]
    assert codes(*healthy()) == []


def test_a_few_equal_labels_say_nothing():
    assert codes(*ids(IDS[:15] * 0, x=X[:15])) == []


MANY = normal(400, 4)
MANY_IDS = np.arange(400) % 3


@twins(
    {
        "ids": (
            lambda: ids(MANY_IDS, x=MANY, units=4),
            lambda: ids(MANY_IDS, x=MANY, units=3),
        ),
        "in the middle": (
            lambda: ids(MANY_IDS * 1 + (MANY_IDS > 0), x=MANY, units=4),
            lambda: ids(np.arange(400) % 4, x=MANY, units=4),
        ),
        "one-hot": (
            lambda: rows(np.eye(4)[MANY_IDS], x=MANY, units=4),
            lambda: rows(np.eye(3)[MANY_IDS], x=MANY, units=3),
        ),
        "yes or no, several": (
            lambda: flags(np.eye(4)[MANY_IDS], x=MANY, units=4),
            lambda: flags(np.eye(3)[MANY_IDS], x=MANY, units=3),
        ),
        "but for the ignored one": (
            lambda: ids(MANY_IDS + 1, x=MANY, units=4),
            lambda: ids(MANY_IDS + 1, sparse(ignore_class=0), x=MANY, units=4),
        ),
    }
)
def test_missing_class(broken, healthy):
    assert codes(*broken()) == ["missing-class"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize("shades", [1, 2])
def test_a_pixel_that_is_always_dark_is_not_missing(shades):
    pixels = np.eye(4, dtype="float32")[MANY_IDS] / shades
    assert codes(*flags(pixels, x=pixels, units=4)) == []


def test_a_rare_class_is_not_missing():
    y = np.zeros(400, int)
    y[7], y[300] = 1, 2
    assert codes(*ids(y, x=MANY)) == []
