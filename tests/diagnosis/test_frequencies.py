"""Labels that are all the same, and classes that never occur."""

import keras
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
from tests.testing import normal, only_on

NUMBERS = X[:, 0]


def near_if_alike(y, d):
    """The contrastive loss of distances, as most write it."""
    far = keras.ops.maximum(1 - d, 0)
    return keras.ops.mean(y * d**2 + (1 - y) * far**2)


@twins(
    {
        "ids": (lambda: ids(0 * IDS + 1), lambda: ids(IDS)),
        "one-hot": (lambda: rows(0 * ONE_HOT + 1 / 3), lambda: rows(ONE_HOT)),
        "yes": (lambda: flags(0 * FLAGS + 1), lambda: flags(FLAGS)),
        "a number": (
            lambda: flags(0 * NUMBERS + 2.5, "mse"),
            lambda: flags(NUMBERS, "mse"),
        ),
        "of a loss of one's own": (
            lambda: flags(0 * FLAGS + 1, near_if_alike),
            lambda: flags(FLAGS, near_if_alike),
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


def refused(y, p):
    if not keras.ops.all(y):
        raise ValueError("These are no labels.")
    return keras.ops.mean((y - p) ** 2)


@pytest.mark.parametrize(
    ("labels", "loss"),
    [
        (1, lambda y, p: keras.ops.mean(p**2)),
        (1, lambda y, p: keras.ops.mean(0 * y + p**2)),
        (0, lambda y, p: keras.ops.mean((y - p) ** 2)),
        pytest.param(
            1, refused, marks=only_on("torch", "only there a loss may ask")
        ),
    ],
    ids=["not read", "times 0", "zeros", "refused"],
)
def test_dummies_of_a_loss_of_ones_own_are_no_labels(labels, loss):
    model, x, _, weight = flags(FLAGS, loss)
    y = np.full(FLAGS.shape, labels, "float32")
    assert codes(model, x, y, weight) == []


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
