"""The head that makes unit vectors and owns a temperature."""

import json

import keras
import numpy as np
import pytest

from keras_xent import heads
from keras_xent._keras import get_mask
from keras_xent.layers import SimilarityHead
from keras_xent.losses import InfoNCE
from tests.testing import BACKEND, normal, to_numpy, with_mask

ROWS, SIZE = 5, 3


def units(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_a_tower_becomes_unit_vectors():
    x = normal(ROWS, SIZE)
    np.testing.assert_allclose(
        to_numpy(SimilarityHead()(x)), units(x), rtol=1e-5
    )


def test_towers_are_stacked_in_their_order():
    a, b = normal(ROWS, SIZE), normal(ROWS, SIZE, seed=1)
    hard = normal(ROWS, 2, SIZE, seed=2)
    result = to_numpy(SimilarityHead()([a, b, hard]))
    expected = np.concatenate([a[:, None], b[:, None], hard], axis=1)
    np.testing.assert_allclose(result, units(expected), rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_output_is_the_same_in_training(training):
    x = normal(ROWS, SIZE)
    np.testing.assert_array_equal(
        to_numpy(SimilarityHead()(x, training=training)),
        to_numpy(SimilarityHead()(x)),
    )


@pytest.mark.parametrize("shape", [(None, SIZE), (None, 4, SIZE)])
def test_a_functional_model_knows_the_shapes(shape):
    inputs = [keras.Input(shape[1:]) for _ in range(2)]
    assert SimilarityHead()(inputs[0]).shape == shape
    views = 2 * (shape[1] if len(shape) == 3 else 1)
    assert SimilarityHead()(inputs).shape == (None, views, SIZE)


def test_it_leaves_its_numbers_to_the_loss():
    head = SimilarityHead(temperature=0.5, bias=-2.0)
    note = heads.read_note(head(normal(ROWS, SIZE)), heads.SimilarityNote)
    assert note.head is head
    assert float(note.log_scale) == pytest.approx(np.log(2))
    assert float(note.bias) == -2
    note = heads.read_note(
        SimilarityHead()(normal(ROWS, SIZE)), heads.SimilarityNote
    )
    assert note.bias is None


def test_numbers_are_weights_that_are_trained_or_not():
    assert len(SimilarityHead().trainable_weights) == 1
    head = SimilarityHead(bias=-10.0)
    assert len(head.trainable_weights) == 2
    assert (head.temperature, head.bias) == (pytest.approx(0.07), -10)
    head = SimilarityHead(bias=-10.0, learn=False)
    assert len(head.trainable_weights) == 0
    assert len(head.weights) == 2


@pytest.mark.parametrize(
    ("limit", "end"), [(0.05, 0.05), (None, 0.1 * np.exp(-5))]
)
def test_a_step_does_not_take_the_temperature_below_its_limit(limit, end):
    # Whatever the gradient: an optimizer asks the constraint.
    head = SimilarityHead(temperature=0.1, min_temperature=limit)
    [weight] = head.trainable_weights
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([weight])
    optimizer.apply([keras.ops.convert_to_tensor(np.float32(-5.0))])
    assert head.temperature == pytest.approx(end, rel=1e-5)


def test_configuration_survives_the_round_trip():
    head = SimilarityHead(
        temperature=0.3, bias=-1.0, learn=False, min_temperature=None, name="h"
    )
    again = SimilarityHead.from_config(head.get_config())
    assert again.get_config() == head.get_config()
    assert again.temperature == pytest.approx(0.3)


def test_numbers_of_numpy_are_saved_as_numbers():
    numbers = {"temperature": 0.3, "bias": -1.0, "min_temperature": 0.02}
    head = SimilarityHead(**{k: np.float32(x) for k, x in numbers.items()})
    saved = json.loads(json.dumps(head.get_config()))
    assert {k: saved[k] for k in numbers} == pytest.approx(numbers)


def test_masks_of_the_towers_meet():
    x, head = normal(3, SIZE), SimilarityHead()
    a = with_mask(x, np.array([True, True, False]))
    b = with_mask(x, np.array([True, False, True]))
    assert to_numpy(get_mask(head([a, b]))).tolist() == [True, False, False]
    c = keras.ops.convert_to_tensor(normal(3, SIZE, seed=3))
    assert to_numpy(get_mask(head([a, c]))).tolist() == [True, True, False]
    assert get_mask(head(c)) is None


def test_gradients_of_a_compiled_step_reach_all_weights():
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    head = SimilarityHead()
    model = keras.Model(
        inputs, head([keras.layers.Dense(SIZE)(x) for x in inputs])
    )
    model.compile("sgd", InfoNCE(), jit_compile=BACKEND != "torch")
    before = model.get_weights()
    model.fit(
        [normal(6, 4), normal(6, 4, seed=1)], np.arange(6), verbose=0,
        batch_size=6,
    )  # fmt: skip
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.any(old != new)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": 0}, "`temperature`"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"bias": np.inf}, "`bias`"),
        ({"min_temperature": 0}, "`temperature`"),
        ({"temperature": 0.001}, "`min_temperature`"),
    ],
)
def test_a_wrong_number_is_an_error(options, match):
    with pytest.raises(ValueError, match=match):
        SimilarityHead(**options)


def test_towers_that_do_not_fit_are_an_error():
    x = normal(ROWS, SIZE)
    for wrong in (normal(ROWS, SIZE + 1), normal(ROWS + 1, SIZE)):
        with pytest.raises(ValueError, match="towers"):
            SimilarityHead()([x, wrong])
    with pytest.raises(ValueError, match=r"\(batch, views, dim\)"):
        SimilarityHead()(normal(ROWS))
    for wrong in ([], {"image": x, "text": x}):
        with pytest.raises(ValueError, match="a list of them"):
            SimilarityHead()(wrong)
    with pytest.raises(ValueError, match="floating point"):
        SimilarityHead(dtype="float32")(np.ones((2, 3), "int32"))
