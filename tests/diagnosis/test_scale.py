"""Rows that are all alike."""

import numpy as np
from keras import layers

from tests.diagnosis.cases import IDS, SPARSE, X, codes, only, stack, twins
from tests.testing import normal

Dense = layers.Dense
IMAGES = np.random.RandomState(0).randint(0, 256, (32, 6, 6, 1))


def images(x):
    return stack(layers.Flatten(), Dense(3), loss=SPARSE, x=x)


def table(x, y=IDS):
    return stack(Dense(3), loss=SPARSE, x=x, y=y)


@twins(
    {
        "zeros": (lambda: table(0 * X), lambda: table(X)),
        "one row": (lambda: table(0 * X + X[:1]), lambda: table(X)),
        "divided by 256": (
            lambda: images(IMAGES // 256),
            lambda: images(IMAGES / 256),
        ),
        "divided by 255": (
            lambda: images(IMAGES // 255),
            lambda: images((IMAGES > 127) * 1.0),
        ),
        "divided by 255, as floats": (
            lambda: images((IMAGES // 255).astype("float32")),
            lambda: images((IMAGES / 255).astype("float32")),
        ),
    }
)
def test_constant_inputs(broken, healthy):
    found = only(*broken())
    assert found.code == "constant-inputs"
    assert found.where == "the data, x"
    assert codes(*healthy()) == []


def test_a_rare_feature_is_no_constant():
    x = np.zeros((3200, 4), "float32")
    x[5::99, 1] = 1
    y = np.arange(3200) % 3
    assert codes(*table(x, y)) == []
    x[:, 1] = 0
    assert "constant-inputs" in codes(*table(x, y))


def test_an_input_that_is_constant_beside_one_that_is_not():
    x = np.concatenate([0 * X, normal(32, 4)], axis=1)
    assert codes(*table(x)) == []
