"""No false alarm on models as they are: Keras's classifiers, our examples."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_xent import losses
from tests.diagnosis.cases import SPARSE, codes, compiled
from tests.testing import BACKEND, normal

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import language_model
import speaker_pairs
import speaker_tower
import word_window
from utterances import Utterances

# The arguments that make it small, and the module of its `preprocess_input`.
ZOO = {
    "MobileNetV3Small": ("mobilenet_v3", {"alpha": 0.75}),
    "MobileNet": ("mobilenet", {"alpha": 0.25}),
    "MobileNetV2": ("mobilenet_v2", {"alpha": 0.35}),
    "EfficientNetB0": ("efficientnet", {}),
    "EfficientNetV2B0": ("efficientnet_v2", {}),
    "ResNet50": ("resnet", {}),
    "ResNet50V2": ("resnet_v2", {}),
    "DenseNet121": ("densenet", {}),
    "ConvNeXtTiny": ("convnext", {}),
    "Xception": ("xception", {"input_shape": (71, 71, 3)}),
    "InceptionV3": ("inception_v3", {"input_shape": (75, 75, 3)}),
    "VGG16": ("vgg16", {}),
}
SLOW = ("DenseNet121", "Xception", "InceptionV3", "VGG16")

# The others take minutes each where all operations are compiled.
NAMES = ZOO if BACKEND == "torch" else ["MobileNetV3Small"]


def classifier(name, end):
    module, options = ZOO[name]
    options = {"input_shape": (32, 32, 3), **options}
    model = getattr(keras.applications, name)(
        weights=None, classes=10, classifier_activation=end, **options
    )
    loss = "sparse_categorical_crossentropy" if end else SPARSE
    compiled(model, loss, keras.optimizers.Adam(1e-4), metrics=["accuracy"])
    pixels = np.random.default_rng(0).uniform(
        0, 255, (8, *options["input_shape"])
    )
    prepare = getattr(keras.applications, module).preprocess_input
    return model, prepare(pixels.astype("float32")), np.arange(8)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        pytest.param(name, end, marks=[pytest.mark.thorough] * (name in SLOW))
        for i, name in enumerate(NAMES)
        for end in [None, "softmax"][: 2 if i < 3 else 1]
    ],
)
def test_a_classifier_of_keras(name, end):
    assert codes(*classifier(name, end)) == []


SPEAKER = np.arange(16) % 5
VOICE = normal(5, 1, 12, seed=1)
SEGMENTS = VOICE[SPEAKER] + normal(16, 6, 12)


def tower(units=8):
    data = Utterances(SEGMENTS, np.arange(16), SPEAKER)
    recipe = dataclasses.replace(speaker_tower.RECIPES["cepstrum"], units=units)
    return speaker_tower.build_tower(data, recipe), recipe


def test_speakers_by_the_batch():
    model, recipe = tower()
    loss = losses.SymmetricKLHinge(recipe.margin, softness=recipe.softness)
    compiled(model, loss, keras.optimizers.Adam(recipe.learning_rate))
    assert codes(model, SEGMENTS, SPEAKER) == []


def test_speakers_who_start_all_alike():
    """As the example would be with the usual first weights."""
    model, recipe = tower()
    model.layers[-1].kernel.assign(model.layers[-1].kernel / np.sqrt(10))
    loss = losses.SymmetricKLHinge(recipe.margin, softness=recipe.softness)
    compiled(model, loss, keras.optimizers.Adam(recipe.learning_rate))
    assert codes(model, SEGMENTS, SPEAKER) == ["margin-out-of-reach"]


def test_speakers_by_pairs():
    model, recipe = tower()
    model = speaker_pairs.pair_model(model)
    loss = losses.SoftplusHinge(recipe.margin, softness=recipe.softness)
    compiled(model, loss, keras.optimizers.Adam(recipe.learning_rate))
    pairs = [SEGMENTS, np.roll(SEGMENTS, 1, 0)]
    match = np.arange(16)[:, None] % 2
    assert codes(model, pairs, match) == []


def test_the_naive_way_is_called_wrong():
    model, _ = tower()
    model = speaker_pairs.naive_model(model)
    compiled(model, speaker_pairs.naive_hinge, "adam", metrics=["accuracy"])
    pairs = [SEGMENTS, np.roll(SEGMENTS, 1, 0)]
    match = np.arange(16)[:, None] % 2
    # Its accuracy counts a distance above one half as a match.
    assert codes(model, pairs, match) == ["metric-mismatch", "not-a-distance"]


@pytest.mark.parametrize("fused", [True, False])
def test_a_language_model(fused, monkeypatch):
    monkeypatch.setattr(language_model, "WIDTH", 8)
    monkeypatch.setattr(language_model, "BLOCKS", 1)
    monkeypatch.setattr(language_model, "HEADS", 2)
    model = language_model.build_model(20, 5, fused=fused)
    language_model.compile_model(model, 100, fused=fused)
    words = np.arange(40).reshape(8, 5) % 19 + 1
    assert codes(model, words, np.roll(words, -1)) == []


@pytest.mark.parametrize("name", word_window.LOSSES)
def test_a_window_of_words(name):
    options = SimpleNamespace(vocabulary=20, width=4, seed=0, sampled=5)
    head, loss = word_window.make(name, options)
    model = word_window.build_model(options, head)
    rate = keras.optimizers.Adam(word_window.LEARNING_RATE)
    words = np.arange(32 * 4).reshape(32, 4) % 19
    assert codes(compiled(model, loss, rate), words, np.arange(32) % 20) == []
