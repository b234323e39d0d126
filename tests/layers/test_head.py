"""What all heads do with weights that are spread over devices."""

import types

import keras
import numpy as np
import pytest

from keras_xent import layers, losses
from keras_xent.layers.head import class_shards, spread_alike
from tests.testing import BACKEND, normal


@pytest.fixture
def spread(monkeypatch):
    """A distribution in which all variables have one layout."""
    mesh = types.SimpleNamespace(shape=(2, 4), axis_names=["data", "model"])
    found = types.SimpleNamespace(device_mesh=mesh, axes=(None, None))
    found.get_variable_layout = lambda variable: found
    monkeypatch.setattr(keras.distribution, "distribution", lambda: found)
    return found


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ((None, None), (1, 1)),
        ((None, "model"), (1, 4)),
        (("model", None), (4, 1)),
        (("model", "data"), (4, 2)),
        (("model",), (4, 1)),
    ],
)
def test_shards_are_those_of_the_layout_of_the_variable(axes, expected, spread):
    spread.axes = axes
    found = tuple(class_shards("a variable", axis) for axis in (0, 1))
    assert found == (expected if BACKEND == "jax" else (1, 1))


def test_without_a_distribution_nothing_is_spread(monkeypatch):
    monkeypatch.setattr(keras.distribution, "distribution", lambda: None)
    assert class_shards("a variable", 1) == 1
    assert spread_alike("a tensor", 0, "a variable", 1) == "a tensor"


@pytest.mark.parametrize(
    "head", [layers.LinearHead(7), layers.CosineHead(7, sub_centers=2)]
)
def test_classes_that_cannot_be_spread_evenly_say_how_to(head, monkeypatch):
    def refuse(**options):
        raise ValueError("the tiling factors should evenly divide the shape")

    monkeypatch.setattr(head, "add_weight", refuse)
    with pytest.raises(ValueError, match="round `units` up"):
        head(normal(2, 3))


def test_other_errors_of_a_weight_stay_as_they_are(monkeypatch):
    def refuse(**options):
        raise ValueError("no such initializer")

    head = layers.LinearHead(7)
    monkeypatch.setattr(head, "add_weight", refuse)
    with pytest.raises(ValueError, match="no such initializer"):
        head(normal(2, 3))


def test_a_class_of_no_label_with_a_bias_of_minus_infinity_changes_nothing():
    """The way round classes that the devices cannot share evenly."""
    x, y = normal(8, 4), np.arange(8) % 3

    def trained(units):
        """The losses of three steps, and the weights of the first 3 classes."""
        kernel = np.pad(normal(4, 3, seed=1), [(0, 0), (0, units - 3)])
        bias = np.where(np.arange(units) < 3, 0.0, -np.inf)
        head = layers.LinearHead(units, use_bias=True)
        model = keras.Sequential([keras.Input((4,)), head])
        model.set_weights([kernel, bias])
        model.compile("adam", losses.LinearCrossentropy())
        logs = model.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False)
        kernel, bias = model.get_weights()
        assert np.all(bias[3:] == -np.inf)
        return logs.history["loss"], kernel[:, :3], bias[:3]

    for found, expected in zip(trained(4), trained(3), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LinearHead(3),
        lambda: layers.CosineHead(3),
        layers.SimilarityHead,
        layers.Temperature,
        lambda: layers.MatchDecision(0.5, similarity=True),
    ],
)
def test_inputs_that_are_no_real_numbers_are_an_error(make):
    complex_numbers = np.ones((2, 3), "complex64")
    for wrong in (None, complex_numbers, complex_numbers.astype(object), []):
        with pytest.raises(ValueError, match="real numbers"):
            make()(wrong)
