import keras
import numpy as np
import pytest

import keras_xent
from keras_xent.layers import SymmetricKLDistance
from tests.testing import normal, to_numpy


def two_towers(dtype=None, **kwargs):
    tower = keras.layers.Dense(5, dtype=dtype)
    a, b = keras.Input((4,)), keras.Input((4,))
    layer = SymmetricKLDistance(dtype=dtype, **kwargs)
    return keras.Model([a, b], layer([tower(a), tower(b)]))


def test_gives_one_distance_per_pair():
    a, b = normal(3, 5), normal(3, 5, seed=1)
    distance = to_numpy(SymmetricKLDistance()([a, b]))
    expected = to_numpy(keras_xent.ops.symmetric_kl(a, b))
    assert distance.shape == (3, 1)
    np.testing.assert_array_equal(distance[:, 0], expected)


def test_activations_need_no_softmax():
    a, b = np.exp(normal(3, 5)), np.exp(normal(3, 5, seed=1))
    distance = to_numpy(SymmetricKLDistance(from_logits=False)([a, b]))
    expected = to_numpy(keras_xent.ops.symmetric_kl(a, b, from_logits=False))
    np.testing.assert_array_equal(distance[:, 0], expected)


def test_the_distance_is_float32_in_a_mixed_precision_model():
    model = two_towers("mixed_bfloat16")
    assert model.output.dtype == "float32"
    assert model.predict([normal(3, 4)] * 2, verbose=0).dtype == np.float32


def test_two_towers_train_save_and_load(tmp_path):
    keras.utils.set_random_seed(0)
    model = two_towers()
    model.compile("adam", keras_xent.losses.SoftplusHinge(margin=1.0))
    x, y = [normal(8, 4), normal(8, 4, seed=1)], np.arange(8) % 2
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6
    )


def test_anything_but_two_embeddings_is_an_error():
    with pytest.raises(ValueError, match="two embeddings"):
        SymmetricKLDistance()(normal(3, 5))
    with pytest.raises(ValueError, match="same shape"):
        SymmetricKLDistance()([normal(3, 5), normal(1, 5)])


def test_float32_embeddings_are_not_rounded_by_a_mixed_policy():
    p = np.array([[1.001, 2.002, 3.003]], "float32")
    q = np.array([[1.0, 2.0, 3.01]], "float32")
    mixed = SymmetricKLDistance(dtype="mixed_bfloat16")([p, q])
    exact = SymmetricKLDistance()([p, q])
    np.testing.assert_array_equal(to_numpy(mixed), to_numpy(exact))
