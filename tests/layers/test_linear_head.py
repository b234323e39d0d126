"""The head: logits in inference, features and a note in training."""

import contextlib
import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import heads
from keras_xent._keras import get_mask
from keras_xent.layers import LinearHead
from keras_xent.losses import (
    LinearCrossentropy,
    SampledSoftmaxCrossentropy,
    SparseSoftmaxCrossentropy,
)
from tests.testing import BACKEND, normal, only_on, to_numpy, with_mask

WORDS, SIZE, STEPS, ROWS = 12, 4, 3, 7
TOKENS = np.random.default_rng(0).integers(1, WORDS, (ROWS, STEPS))
NEXT = np.roll(TOKENS, -1, axis=1)


def embedding(cls=layers.Embedding, **kwargs):
    keras.utils.set_random_seed(0)
    layer = cls(WORDS, SIZE, name="words", **kwargs)
    layer.build((None, STEPS))
    return layer


def language_model(words=None, name=None, **kwargs):
    words = embedding() if words is None else words
    keras.utils.set_random_seed(1)
    inputs = keras.Input((STEPS,), dtype="int32")
    hidden = layers.Dense(SIZE, activation="tanh")(words(inputs))
    outputs = LinearHead(tied_to=words, name=name, **kwargs)(hidden)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 1)])
def test_inference_gives_logits_and_training_features(shape):
    x = normal(*shape, SIZE)
    head = LinearHead(WORDS)
    logits, features = head(x), head(x, training=True)
    assert tuple(logits.shape) == (*shape, WORDS)
    np.testing.assert_array_equal(to_numpy(features), x)
    note = heads.read_note(features)
    assert (note.head, note.features) == (head, None)
    note = heads.read_note(logits)
    assert note.head is head
    np.testing.assert_array_equal(to_numpy(note.features), x)


def test_the_symbolic_output_is_logits():
    output = LinearHead(WORDS)(keras.Input((STEPS, SIZE)))
    assert output.shape == (None, STEPS, WORDS)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 0.5])
def test_its_logits_are_those_of_a_dense_layer(use_bias, softcap):
    x = normal(ROWS, SIZE)
    head = LinearHead(
        WORDS, use_bias=use_bias, softcap=softcap, bias_initializer="normal"
    )
    dense = layers.Dense(WORDS, use_bias=use_bias)
    for each in (head, dense):
        each.build(x.shape)
    dense.set_weights(head.get_weights())
    expected = to_numpy(dense(x))
    if softcap:
        expected = softcap * np.tanh(expected / softcap)
    np.testing.assert_allclose(
        to_numpy(head(x)), expected, rtol=1e-5, atol=1e-6
    )


def test_initializers_are_those_of_a_dense_layer():
    weights = []
    for cls in (layers.Dense, LinearHead):
        keras.utils.set_random_seed(3)
        layer = cls(WORDS, use_bias=True)
        layer.build((None, SIZE))
        weights.append(layer.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_tied_to_a_reversible_embedding_it_gives_its_logits(tie_weights, cap):
    words = embedding(
        layers.ReversibleEmbedding, tie_weights=tie_weights, logit_soft_cap=cap
    )
    head, x = LinearHead(tied_to=words), normal(ROWS, STEPS, SIZE)
    expected = to_numpy(words(x, reverse=True))
    np.testing.assert_allclose(
        to_numpy(head(x)), expected, rtol=1e-5, atol=1e-6
    )
    assert head.softcap == cap
    assert head.units == WORDS
    truth = SparseSoftmaxCrossentropy()(NEXT, expected)
    result = LinearCrossentropy()(NEXT, head(x, training=True))
    np.testing.assert_allclose(to_numpy(result), to_numpy(truth), rtol=1e-5)


def test_its_own_soft_cap_goes_before_that_of_the_embedding():
    words = embedding(layers.ReversibleEmbedding, logit_soft_cap=0.5)
    assert LinearHead(tied_to=words, softcap=2.0).softcap == 2.0


@pytest.mark.parametrize("use_bias", [False, True])
def test_tied_to_an_embedding_it_has_no_weights_but_the_bias(use_bias):
    words = embedding()
    model = language_model(words, use_bias=use_bias)
    head = model.layers[-1]
    assert head._trainable_variables == ([head.bias] if use_bias else [])
    assert len(model.weights) == 3 + use_bias
    if use_bias:
        head.bias.assign(normal(WORDS))
    x = normal(ROWS, SIZE)
    expected = x @ words.get_weights()[0].T
    expected = expected + normal(WORDS) if use_bias else expected
    np.testing.assert_allclose(
        to_numpy(head(x)), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("training", [True, False])
def test_a_mask_passes(training):
    mask = np.arange(ROWS * STEPS).reshape(ROWS, STEPS) % 2 == 0
    x = with_mask(normal(ROWS, STEPS, SIZE), mask)
    result = get_mask(LinearHead(WORDS)(x, training=training))
    np.testing.assert_array_equal(to_numpy(result), mask)


def test_low_precision_logits_have_the_dtype_of_the_policy():
    head = LinearHead(WORDS, use_bias=True, dtype="mixed_bfloat16")
    for training in (True, False):
        output = head(normal(ROWS, SIZE), training=training)
        assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"


def test_configuration_survives_the_round_trip():
    head = LinearHead(
        WORDS,
        use_bias=True,
        softcap=2.0,
        precision="float32",
        metrics=["accuracy", "top_5_accuracy"],
        lora_rank=2,
        lora_alpha=3.5,
        kernel_initializer="he_normal",
        bias_initializer="ones",
        name="mine",
        dtype="mixed_bfloat16",
    )
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(head)))
    assert saved["registered_name"] == "keras_xent>LinearHead"
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == head.get_config()
    assert again.kernel_initializer.get_config() == (
        head.kernel_initializer.get_config()
    )
    assert (again.units, again.softcap, again.name) == (WORDS, 2.0, "mine")
    assert again.precision == "float32"


def test_a_head_and_losses_of_before_there_was_a_precision_load():
    for thing in (
        LinearHead(WORDS),
        LinearCrossentropy(),
        SampledSoftmaxCrossentropy(3),
    ):
        config = thing.get_config()
        del config["precision"]
        assert type(thing).from_config(config).precision is None


@pytest.mark.parametrize("precision", [None, "float32"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_predict_and_evaluate_agree_with_soft_cap_and_masked_class(
    policy, precision
):
    keras.utils.set_random_seed(0)
    head = LinearHead(
        WORDS,
        use_bias=True,
        softcap=0.5,
        precision=precision,
        metrics=["accuracy"],
        dtype=policy,
    )
    model = keras.Sequential([keras.Input((SIZE,)), head])
    bias = normal(WORDS).copy()
    bias[3] = -np.inf
    head.bias.assign(bias)
    x, labels = normal(ROWS, SIZE, seed=1), np.array([0, 1, 2, 4, 5, 6, 7])
    kernel = to_numpy(head._kernel)
    if policy == "mixed_bfloat16":
        # The features are rounded in any case.
        x = to_numpy(keras.ops.cast(x, "bfloat16"))
        if precision is None:
            kernel = to_numpy(keras.ops.cast(kernel, "bfloat16"))
    exact = 0.5 * np.tanh((x @ kernel + bias) / 0.5)
    exact[:, 3] = -np.inf
    model.compile(loss=LinearCrossentropy())
    loss, accuracy = model.evaluate(x, labels, verbose=0)
    expected = SparseSoftmaxCrossentropy()(labels, exact)
    exactly = policy == "float32" or precision is not None
    rel = 1e-6 if exactly else 5e-3
    assert loss == pytest.approx(float(expected), rel=rel)
    logits = model.predict(x, verbose=0)
    tolerance = 1e-5 if policy == "float32" else 2**-8
    np.testing.assert_allclose(
        logits.astype("float32"), exact, rtol=tolerance, atol=tolerance
    )
    top = np.mean(exact.argmax(1) == labels)
    assert accuracy == pytest.approx(top, abs=1e-6)


@only_on("torch", "autocast is PyTorch's")
@pytest.mark.parametrize("precision", [None, "float32"])
def test_autocast_reaches_logits_unless_they_have_a_precision(precision):
    import torch

    head = LinearHead(WORDS, precision=precision)
    x = normal(ROWS, SIZE)
    expected = to_numpy(head(x).detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = head(x).detach()
    assert result.dtype == torch.float32
    same = np.array_equal(to_numpy(result), expected)
    assert same == (precision is not None)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "`units`.*units=None"),
        ({"units": 1}, "`units`.*from 2.*units=1"),
        ({"units": 2.5}, "`units`.*2.5"),
        ({"tied_to": 3}, "`tied_to` must be the Embedding.*3"),
        ({"units": 2, "metrics": ["top5"]}, "accuracy.*perplexity.*'top5'"),
        ({"units": 9, "metrics": "top_0_accuracy"}, "from 1.*'top_0_acc"),
        ({"units": 9, "metrics": ["top_9_accuracy"]}, "below.* 9;"),
        ({"units": 9, "metrics": 2 * ["entropy"]}, "each once"),
        ({"units": 9, "metrics": [5]}, "'top_k_accuracy'.*5"),
        ({"units": 9, "lora_rank": 0}, "`lora_rank`"),
        ({"units": 2, "softcap": 0}, "`softcap`"),
        ({"units": 2, "precision": "high"}, "`precision` must be .*'float32'"),
    ],
)
def test_wrong_arguments_are_an_error(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LinearHead(**kwargs)


def test_a_layer_that_is_no_embedding_is_an_error():
    with pytest.raises(ValueError, match="`tied_to` must be the Embedding"):
        LinearHead(WORDS, tied_to=layers.Dense(WORDS))


def test_another_number_of_classes_than_vectors_is_an_error():
    with pytest.raises(ValueError, match=r"12 vectors.*units=5.*Leave `units`"):
        LinearHead(5, tied_to=embedding())


@pytest.mark.parametrize("training", [True, False])
def test_features_that_do_not_fit_the_embedding_are_an_error(training):
    head = LinearHead(tied_to=embedding())
    with pytest.raises(ValueError, match=r"vectors of its embedding, 4.*Dense"):
        head(normal(ROWS, SIZE + 1), training=training)


def test_an_embedding_that_is_not_on_the_way_is_an_error():
    head = LinearHead.from_config(language_model().layers[-1].get_config())
    with pytest.raises(ValueError, match=r"'words'.*on the way"):
        head(layers.Dense(SIZE)(keras.Input((STEPS, SIZE))))
    with pytest.raises(ValueError, match=r"'words'.*tied_to=self.embedding"):
        head(normal(ROWS, SIZE))


# Metrics of the head

ALL = ["accuracy", "perplexity", "entropy", "z_loss", "top_3_accuracy"]


def expected_metrics(logits, labels, weight):
    """The metrics of logits, row by row in float64."""
    x = logits.astype("float64")
    log_sum = np.log(np.exp(x).sum(axis=-1, keepdims=True))
    log_p = x - log_sum
    safe = np.where(weight == 0, 0, labels)
    nll = -np.take_along_axis(log_p, safe[..., None], axis=-1)[..., 0]
    top = np.argsort(-x, axis=-1)
    right = top == labels[..., None]
    rows = {
        "accuracy": right[..., 0],
        "perplexity": nll,
        "entropy": -(np.exp(log_p) * log_p).sum(axis=-1),
        "z_loss": log_sum[..., 0] ** 2,
        "top_3_accuracy": right[..., :3].any(axis=-1),
    }
    weight = np.broadcast_to(weight, nll.shape)
    means = {k: np.average(v, weights=weight) for k, v in rows.items()}
    return {**means, "perplexity": np.exp(means["perplexity"])}


def test_no_metrics_may_be_said_by_none():
    head = LinearHead(WORDS, metrics=None)
    assert head.get_config()["metrics"] == []
    assert not head.needs_all_terms


@pytest.mark.parametrize("case", ["plain", "weighted", "masked", "ignored"])
def test_metrics_are_those_of_the_logits_over_all_batches(case):
    labels, tokens = NEXT.copy(), TOKENS.copy()
    weight, counts = None, np.ones((ROWS, STEPS))
    if case == "weighted":
        weight = np.arange(ROWS, dtype="float32")
        counts = counts * weight[:, None]
    if case == "masked":
        tokens[::2, 1:] = 0
        counts = (tokens != 0) * 1.0
    if case == "ignored":
        labels[::2, 1:] = -1
        counts = (labels != -1) * 1.0
    model = language_model(embedding(mask_zero=case == "masked"), metrics=ALL)
    # The same numbers on every backend.
    model.set_weights(
        [3 * normal(WORDS, SIZE), normal(SIZE, SIZE), normal(SIZE)]
    )
    # What changes the loss does not change the metrics.
    loss = LinearCrossentropy(
        ignore_class=-1, label_smoothing=0.1, z_loss=1e-2, block_size=5
    )
    model.compile(keras.optimizers.SGD(0.0), loss)
    logits = model.predict(tokens, verbose=0)
    # Some are right.
    labels[1::3, 0] = logits.argmax(axis=-1)[1::3, 0]
    expected = expected_metrics(logits, labels, counts)
    assert 0 < expected["accuracy"] < expected["top_3_accuracy"] < 1
    logs = model.evaluate(
        tokens, labels, sample_weight=weight, batch_size=3, verbose=0,
        return_dict=True,
    )  # fmt: skip
    history = model.fit(
        tokens, labels, sample_weight=weight, batch_size=3, epochs=2,
        verbose=0, shuffle=False,
    ).history  # fmt: skip
    for name in ALL:
        assert logs[name] == pytest.approx(expected[name], rel=1e-5)
        # Reset between epochs: the weights do not move.
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-5)


def test_callbacks_know_which_way_is_better():
    model = language_model(metrics=ALL)
    model.compile("sgd", LinearCrossentropy())
    stops = [keras.callbacks.EarlyStopping(f"val_{name}") for name in ALL]
    model.fit(
        TOKENS, NEXT, validation_data=(TOKENS, NEXT), callbacks=stops, verbose=0
    )
    better = {s.monitor: s.monitor_op is keras.ops.greater for s in stops}
    assert [name for name in ALL if better[f"val_{name}"]] == [
        "accuracy",
        "top_3_accuracy",
    ]


# Models


def fit(model, labels, loss, inputs=TOKENS, **compile_args):
    model.compile(keras.optimizers.SGD(0.5), loss, **compile_args)
    model.fit(
        inputs, labels, batch_size=len(inputs), epochs=3, shuffle=False,
        verbose=0,
    )  # fmt: skip
    return model.get_weights()


def same_weights(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_two_heads_on_the_same_features_train_as_two_dense_layers():
    labels = [TOKENS[:, 0], TOKENS[:, 1] % 5]
    results = []
    for cls, loss in (
        (layers.Dense, SparseSoftmaxCrossentropy),
        (LinearHead, LinearCrossentropy),
    ):
        keras.utils.set_random_seed(2)
        inputs = keras.Input((5,))
        hidden = layers.Dense(SIZE)(inputs)
        outputs = [cls(units, use_bias=False)(hidden) for units in (WORDS, 5)]
        model = keras.Model(inputs, outputs)
        losses = [loss(), loss(label_smoothing=0.1)]
        results.append(fit(model, labels, losses, normal(ROWS, 5)))
    same_weights(*results)


def test_a_clone_has_an_embedding_of_its_own():
    model = language_model()
    clone = keras.models.clone_model(model)
    words = clone.get_layer("words")
    assert clone.layers[-1].tied_to is words
    assert words is not model.get_layer("words")
    assert len(clone.weights) == len(model.weights)
    clone.set_weights(model.get_weights())
    before = model.get_weights()
    trained = fit(clone, NEXT, LinearCrossentropy())
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    same_weights(trained, fit(model, NEXT, LinearCrossentropy()))


def test_a_sequential_model_trains_is_cloned_and_loaded(tmp_path):
    words = embedding()
    model = keras.Sequential(
        [
            keras.Input((STEPS,), dtype="int32"),
            words,
            layers.Dense(SIZE, activation="tanh"),
            LinearHead(tied_to=words, metrics=["accuracy"]),
        ]
    )
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    model.compile(loss=LinearCrossentropy())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    weights = fit(model, NEXT, LinearCrossentropy())
    for copy in (clone, loaded):
        assert copy.layers[-1].tied_to is copy.layers[0]
        assert len(copy.trainable_weights) == len(model.trainable_weights)
        same_weights(weights, fit(copy, NEXT, LinearCrossentropy()))


class Subclassed(keras.Model):
    def __init__(self, fused=True):
        super().__init__()
        keras.utils.set_random_seed(1)
        self.words = layers.ReversibleEmbedding(WORDS, SIZE)
        self.hidden = layers.Dense(SIZE, activation="tanh")
        self.head = LinearHead(tied_to=self.words) if fused else None

    def call(self, tokens):
        hidden = self.hidden(self.words(tokens))
        if self.head is None:
            return self.words(hidden, reverse=True)
        return self.head(hidden)


def test_a_subclassed_model_trains_as_one_with_logits():
    model = Subclassed()
    result = fit(model, NEXT, LinearCrossentropy())
    expected = fit(Subclassed(False), NEXT, SparseSoftmaxCrossentropy())
    same_weights(result, expected)
    assert model.predict(TOKENS, verbose=0).shape == (ROWS, STEPS, WORDS)


def test_a_tied_head_with_a_bias_can_be_cloned():
    model = language_model(use_bias=True)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.predict(TOKENS), model.predict(TOKENS))


def test_two_embeddings_of_the_name_that_a_clone_looks_for_are_an_error():
    def tower(name):
        inputs = keras.Input((STEPS,), dtype="int32")
        words = layers.Embedding(WORDS, SIZE, name="words")
        return keras.Model(inputs, words(inputs), name=name), words

    (first, words), (second, _) = tower("first"), tower("second")
    inputs = keras.Input((STEPS,), dtype="int32")
    head = LinearHead(tied_to=words)
    model = keras.Model(inputs, head(first(inputs) + second(inputs)))
    with pytest.raises(ValueError, match="2 layers of that name"):
        keras.models.clone_model(model)


def test_a_quantized_embedding_is_an_error():
    model = language_model()
    model.get_layer("words").quantize("int8")
    head = LinearHead(tied_to=model.get_layer("words"))
    with pytest.raises(ValueError, match="quantized"):
        head(normal(ROWS, SIZE))


def test_integer_features_are_cast_as_by_a_dense_layer():
    x = np.arange(ROWS * SIZE, dtype="int32").reshape(ROWS, SIZE)
    head = LinearHead(WORDS)
    np.testing.assert_array_equal(
        to_numpy(head(x)), to_numpy(head(x.astype("float32")))
    )


def test_a_label_that_does_not_exist_makes_the_metrics_nan():
    head = LinearHead(WORDS, metrics=["accuracy", "perplexity"])
    features = head(normal(2, SIZE), training=True)
    labels = keras.ops.convert_to_tensor(np.array([0, WORDS], "int32"))
    assert np.isnan(to_numpy(LinearCrossentropy()(labels, features)))
    for metric in head._trackers.metrics:
        assert np.isnan(to_numpy(metric.result()))


# Low rank


def low_rank(cls, **kwargs):
    """A model whose last layer has a kernel, a bias and a low rank."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,))
    layer = cls(WORDS, use_bias=True, name="last", **kwargs)
    model = keras.Model(inputs, layer(layers.Dense(SIZE)(inputs)))
    layer.enable_lora(2, lora_alpha=3)
    # b as well: a has no gradient while it is 0.
    layer.lora_kernel_a.assign(normal(SIZE, 2))
    layer.lora_kernel_b.assign(normal(2, WORDS))
    return model


@pytest.mark.parametrize("sampled", [False, True])
def test_lora_trains_as_that_of_a_dense_layer(sampled):
    x, y = normal(ROWS, 5), TOKENS[:, 0]
    model = low_rank(LinearHead, sampled=sampled)
    dense = low_rank(layers.Dense)
    head, last = model.layers[-1], dense.layers[-1]
    frozen = to_numpy(last._kernel)
    head._kernel.assign(frozen.T if sampled else frozen)
    model.layers[1].set_weights(dense.layers[1].get_weights())
    np.testing.assert_allclose(
        model.predict(x, verbose=0), dense.predict(x, verbose=0), rtol=1e-5
    )
    fit(model, y, LinearCrossentropy(block_size=5), x)
    fit(dense, y, SparseSoftmaxCrossentropy(), x)
    same_weights(
        [to_numpy(w) for w in model.trainable_variables],
        [to_numpy(w) for w in dense.trainable_variables],
    )
    kernel = to_numpy(head._kernel)
    np.testing.assert_array_equal(kernel.T if sampled else kernel, frozen)


def test_a_kernel_with_a_low_rank_stays_frozen_when_the_model_thaws():
    model = low_rank(LinearHead)
    model.trainable = False
    assert not model.layers[-1].trainable_variables
    model.trainable = True
    names = [w.name for w in model.layers[-1].trainable_variables]
    assert names == ["bias", "lora_kernel_a", "lora_kernel_b"]


def test_lora_through_a_loss_over_a_sample_trains_the_low_rank_alone():
    model = low_rank(LinearHead, sampled=True)
    head = model.layers[-1]
    before = to_numpy(head._kernel)
    a, b = to_numpy(head.lora_kernel_a), to_numpy(head.lora_kernel_b)
    fit(model, TOKENS[:, 0], SampledSoftmaxCrossentropy(4), normal(ROWS, 5))
    np.testing.assert_array_equal(to_numpy(head._kernel), before)
    assert np.all(to_numpy(head.lora_kernel_a) != a)
    assert np.any(to_numpy(head.lora_kernel_b) != b)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_saved_low_rank_is_merged_and_goes_on_training(sampled, tmp_path):
    x, y = normal(ROWS, 5), TOKENS[:, 0]
    model = low_rank(LinearHead, sampled=sampled)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    plain = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(SIZE),
            LinearHead(WORDS, use_bias=True, sampled=sampled),
        ]
    )
    plain.load_weights(tmp_path / "model.weights.h5")
    for each in (loaded, plain):
        np.testing.assert_allclose(
            each.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6
        )
    head = loaded.layers[-1]
    assert (head.lora_rank, head.lora_alpha) == (2, 3)
    frozen, a = to_numpy(head._kernel), to_numpy(head.lora_kernel_a)
    fit(loaded, y, LinearCrossentropy(), x)
    np.testing.assert_array_equal(to_numpy(head._kernel), frozen)
    assert np.all(to_numpy(head.lora_kernel_b) != 0)
    # Keras's own layers load a 0 for both, and never learn again.
    assert np.all(to_numpy(head.lora_kernel_a) != a)


def test_a_head_follows_the_low_rank_of_its_embedding():
    weights = []
    for fused in (True, False):
        model = Subclassed(fused)
        model(TOKENS)
        model.words.enable_lora(2, lora_alpha=3)
        model.words.lora_embeddings_a.assign(normal(WORDS, 2))
        model.words.lora_embeddings_b.assign(normal(2, SIZE))
        loss = LinearCrossentropy() if fused else SparseSoftmaxCrossentropy()
        fit(model, NEXT, loss)
        weights.append([to_numpy(w) for w in model.trainable_variables])
        assert len(weights[-1]) == 4
    same_weights(*weights)


def test_where_there_is_no_kernel_to_adapt_lora_is_an_error():
    head = language_model().layers[-1]
    with pytest.raises(ValueError, match="`enable_lora` on its embedding"):
        head.enable_lora(2)
    with pytest.raises(ValueError, match="`enable_lora` on its embedding"):
        LinearHead(tied_to=embedding(), lora_rank=2)
    with pytest.raises(ValueError, match="`lora_alpha` belongs to"):
        LinearHead(WORDS, lora_alpha=2.0)
    head = LinearHead(WORDS)
    with pytest.raises(ValueError, match=r"LinearHead\(12, lora_rank=2\)"):
        head.enable_lora(2)
    head.build((None, SIZE))
    head.enable_lora(2)
    with pytest.raises(ValueError, match="low rank already"):
        head.enable_lora(2)


# What Keras does to layers


def test_a_quantized_model_keeps_its_head():
    inputs = keras.Input((5,))
    head = LinearHead(WORDS)
    model = keras.Model(inputs, head(layers.Dense(SIZE)(inputs)))
    with pytest.raises(NotImplementedError, match="A LinearHead is not quant"):
        head.quantize("int8")
    before = to_numpy(head._kernel)
    # Keras 3.16 names the layers that it has left out, and not why.
    with pytest.warns(UserWarning, match="LinearHead is not|linear_head"):
        model.quantize("int8")
    np.testing.assert_array_equal(to_numpy(head._kernel), before)
    assert model.predict(normal(ROWS, 5), verbose=0).shape == (ROWS, WORDS)


@pytest.mark.skipif(
    BACKEND == "tensorflow", reason="Keras's own layers fail in the scope"
)
def test_a_head_in_a_remat_scope_trains_as_outside():
    def model(scope):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((5,))
        with scope:
            hidden = layers.Dense(SIZE)(inputs)
            outputs = LinearHead(WORDS, metrics=["accuracy"])(hidden)
        return keras.Model(inputs, outputs)

    x, y = normal(ROWS, 5), TOKENS[:, 0]
    same_weights(
        fit(model(keras.RematScope("full")), y, LinearCrossentropy(), x),
        fit(model(contextlib.nullcontext()), y, LinearCrossentropy(), x),
    )


def test_a_model_in_a_remat_scope_is_an_error_where_the_head_is_lost():
    if BACKEND != "jax":
        pytest.skip("JAX makes a tensor of `training`")
    with keras.RematScope("full"):
        model = language_model()
    with pytest.raises(Exception, match="make the model outside of the scope"):
        fit(model, NEXT, LinearCrossentropy())
