"""The temperature divides logits, and travels with the model."""

import keras
import numpy as np
import pytest

from keras_xent.layers import LinearHead, Temperature
from keras_xent.losses import LinearCrossentropy
from tests.testing import normal, to_numpy

LOGITS = normal(4, 3)


def model_with(temperature):
    inputs = keras.Input((3,))
    outputs = Temperature(temperature=temperature, name="calibrated")(inputs)
    return keras.Model(inputs, outputs)


def test_it_divides_but_not_in_training():
    layer = Temperature(temperature=2.0)
    logits = keras.ops.convert_to_tensor(LOGITS)
    np.testing.assert_allclose(to_numpy(layer(logits)), LOGITS / 2)
    assert layer(logits, training=True) is logits
    assert not layer.trainable_weights


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_a_low_precision_policy_rounds_neither_logits_nor_temperature(dtype):
    layer = Temperature(temperature=1.001, dtype=dtype)
    result = layer(keras.ops.convert_to_tensor(LOGITS))
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(
        to_numpy(result), LOGITS / np.float32(1.001), rtol=1e-6
    )


def test_it_is_saved_with_the_model_and_needs_no_compilation(tmp_path):
    model = model_with(1.0)
    before = model.predict(LOGITS, verbose=0)
    np.testing.assert_allclose(before, LOGITS)
    model.get_layer("calibrated").temperature = 2.5
    after = model.predict(LOGITS, verbose=0)
    np.testing.assert_allclose(after, LOGITS / 2.5, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("calibrated").temperature == 2.5
    np.testing.assert_allclose(loaded.predict(LOGITS, verbose=0), after)
    clone = keras.models.clone_model(model)
    assert clone.get_layer("calibrated").temperature == 2.5


def test_a_head_without_logits_trains_through_it():
    inputs = keras.Input((3,))
    outputs = Temperature(temperature=2.0)(LinearHead(5)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", LinearCrossentropy())
    labels = np.array([0, 1, 2, 4])
    history = model.fit(LOGITS, labels, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert model.predict(LOGITS, verbose=0).shape == (4, 5)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf, np.nan, None, "1", 1e-60])
def test_what_is_no_temperature_raises(wrong):
    with pytest.raises(ValueError, match="`temperature`"):
        Temperature(temperature=wrong)
    layer = Temperature()
    with pytest.raises(ValueError, match="`temperature`"):
        layer.temperature = wrong
    with pytest.raises(ValueError, match="floating point"):
        layer(np.arange(3))
