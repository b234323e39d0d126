"""The language models of KerasHub train without logits, as with them."""

import keras
import numpy as np
import pytest

from keras_xent.layers import LinearHead
from keras_xent.losses import LinearCrossentropy, SparseSoftmaxCrossentropy

WORDS, STEPS, ROWS = 1000, 8, 2
TOKENS = np.random.default_rng(0).integers(1, WORDS, (ROWS, STEPS))
INPUTS = {"token_ids": TOKENS, "padding_mask": np.ones((ROWS, STEPS), int)}
# The last position has no next word.
NEXT = np.where(np.arange(STEPS) < STEPS - 1, np.roll(TOKENS, -1, axis=1), -1)


def models():
    """Imported where it is used: it brings all of TensorFlow."""
    reason = "pip install --no-deps keras-hub"
    return pytest.importorskip("keras_hub", reason=reason).models


def gpt2():
    return models().GPT2Backbone(
        vocabulary_size=WORDS,
        num_layers=1,  # with more, only compiling takes longer
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        dropout=0.0,
        max_sequence_length=16,
    )


def gemma2():
    return models().GemmaBackbone(
        vocabulary_size=WORDS,
        num_layers=1,  # with more, only compiling takes longer
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=32,
        intermediate_dim=64,
        head_dim=16,
        final_logit_soft_cap=0.1,
        attention_logit_soft_cap=20.0,
    )


def language_model(make, fused=True):
    keras.utils.set_random_seed(0)
    backbone = make()
    hidden = backbone(backbone.input)
    if fused:
        head = LinearHead(tied_to=backbone.token_embedding)
        outputs = head(hidden)
    else:
        outputs = backbone.token_embedding(hidden, reverse=True)
    return keras.Model(backbone.input, outputs)


def fit(model, loss):
    model.compile(keras.optimizers.SGD(0.1), loss(ignore_class=-1))
    history = model.fit(INPUTS, NEXT, epochs=3, verbose=0)
    return history.history["loss"]


@pytest.mark.parametrize("make", [gpt2, gemma2])
def test_a_backbone_trains_as_it_does_with_logits(make, tmp_path):
    model, truth = language_model(make), language_model(make, fused=False)
    logits = model.predict(INPUTS, verbose=0)
    assert logits.shape == (ROWS, STEPS, WORDS)
    np.testing.assert_allclose(
        logits, truth.predict(INPUTS, verbose=0), rtol=1e-4, atol=1e-5
    )
    losses = fit(model, LinearCrossentropy)
    np.testing.assert_allclose(
        losses, fit(truth, SparseSoftmaxCrossentropy), rtol=1e-5
    )
    assert losses[-1] < losses[0]
    assert len(model.weights) == len(truth.weights)
    for a, b in zip(model.get_weights(), truth.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_allclose(
        loaded.predict(INPUTS, verbose=0),
        model.predict(INPUTS, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )
    for each in (model, loaded):
        each.fit(INPUTS, NEXT, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
