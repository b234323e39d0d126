"""The decision is exact, and its threshold travels with the model."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_xent.layers import MatchDecision
from keras_xent.metrics import MatchAccuracy

ABOVE = np.nextafter(np.float32(0.1), np.float32(1))
BELOW = np.nextafter(np.float32(0.1), np.float32(0))
SCORES = np.array([[BELOW, 0.1, ABOVE], [-np.inf, np.inf, np.nan]], "float32")


def decide(layer, scores):
    return np.asarray(ops.convert_to_numpy(layer(scores)))


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [(False, [[1, 0, 0], [1, 0, 0]]), (True, [[0, 1, 1], [0, 1, 0]])],
)
def test_it_compares_exactly_and_nan_is_never_a_match(similarity, expected):
    result = decide(MatchDecision(0.1, similarity=similarity), SCORES)
    assert result.tolist() == expected
    assert result.dtype == np.int32


@pytest.mark.parametrize("similarity", [False, True])
def test_it_decides_as_the_metric_does(similarity):
    scores = SCORES[:, :2]
    layer = MatchDecision(0.1, similarity=similarity)
    metric = MatchAccuracy(threshold=0.1, similarity=similarity)
    assert float(metric(decide(layer, scores), scores)) == 1.0


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float16"])
def test_a_low_precision_policy_does_not_round_first(dtype):
    layer = MatchDecision(1.001, similarity=False, dtype=dtype)
    # 257/256 is 1 in bfloat16.
    assert decide(layer, np.array([1.0, 257 / 256])).tolist() == [1, 0]
    assert layer.threshold == np.float32(1.001)


def model_with(threshold):
    inputs = keras.Input((1,))
    outputs = MatchDecision(threshold, similarity=False, name="match")(inputs)
    return keras.Model(inputs, outputs)


def test_a_tuned_threshold_is_saved_with_the_model(tmp_path):
    model = model_with(0.5)
    before = model.predict(np.array([[0.6]]), verbose=0)
    model.get_layer("match").threshold = 0.7
    after = model.predict(np.array([[0.6]]), verbose=0)
    assert (before.item(), after.item()) == (0, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("match").threshold == np.float32(0.7)
    assert loaded.predict(np.array([[0.6]]), verbose=0).item() == 1


def test_clones_and_weights_carry_the_threshold_of_now():
    model = model_with(0.5)
    model.get_layer("match").threshold = 0.75
    assert keras.models.clone_model(model).get_layer("match").threshold == 0.75
    other = model_with(0.5)
    other.set_weights(model.get_weights())
    assert other.get_layer("match").threshold == 0.75


def test_the_threshold_is_not_trained():
    assert not MatchDecision(0.5, similarity=False).trainable_weights


def test_the_symbolic_output_is_int32_of_the_same_shape():
    output = MatchDecision(0.5, similarity=False)(keras.Input((3, 1)))
    assert output.shape == (None, 3, 1)
    assert output.dtype == "int32"


@pytest.mark.parametrize("wrong", [float("nan"), None, "0.5", [1.0, 2.0]])
def test_what_is_no_threshold_raises(wrong):
    with pytest.raises(ValueError, match="threshold"):
        MatchDecision(wrong, similarity=False)
    layer = MatchDecision(0.5, similarity=False)
    with pytest.raises(ValueError, match="threshold"):
        layer.threshold = wrong


def test_the_direction_is_asked_for_and_saved():
    with pytest.raises(ValueError, match="similarity=True: large scores"):
        MatchDecision(0.5)
    layer = MatchDecision(0.5, similarity=True)
    assert MatchDecision.from_config(layer.get_config()).similarity is True
