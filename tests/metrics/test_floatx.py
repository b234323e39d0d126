"""Neither Keras's floatx nor autocast changes what a histogram holds."""

import keras
import numpy as np
import pytest

from keras_xent import metrics
from tests.testing import autocast, normal, only_on, to_numpy

SCORE = normal(50, scale=2.0)
MATCH = (SCORE + normal(50, seed=1) > 0).astype("int32")
WEIGHT = np.abs(normal(50, seed=2))
IDS, ROWS = np.arange(9) % 3, normal(9, 4, seed=3)


def figures():
    """All figures, from both kinds of bins and from pairs."""
    found = {}
    for name, limits in {"relative": None, "linear": (-9.0, 9.0)}.items():
        metric = metrics.VerificationMetrics(
            method="convex_hull",
            threshold=0.3,
            similarity=True,
            resolution=1,
            range=limits,
            name=name,
        )
        metric.update_state(MATCH, SCORE, WEIGHT)
        metric.update_state(MATCH, SCORE)
        found |= metric.result()
    pairs = metrics.MatchAccuracy(distance="cosine", resolution=1)
    pairs.update_state(IDS, ROWS)
    histogram = metrics.ScoreHistogram(threshold=0.5)
    broken = np.where(np.arange(50) < 3, np.nan, SCORE)
    histogram.update_state(MATCH, broken, WEIGHT)
    return {**found, "pairs": pairs.result(), **histogram.result()}


@pytest.fixture(scope="module")
def expected():
    return figures()


@pytest.mark.parametrize("floatx", ["float64", "bfloat16", "float16"])
def test_figures_are_the_same_under_every_floatx(expected, floatx):
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        assert_same(figures(), expected)
    finally:
        keras.config.set_floatx(before)


@pytest.mark.device
@only_on("torch", "autocast is PyTorch's")
def test_figures_are_the_same_under_autocast(expected):
    with autocast():
        assert_same(figures(), expected)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert keras.backend.standardize_dtype(value.dtype) == "float32", key
        assert to_numpy(value) == to_numpy(expected[key]), key
