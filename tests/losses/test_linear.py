"""A model trained without logits equals one trained with them."""

import functools
import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import ops
from keras_xent.layers import LinearHead
from keras_xent.losses import LinearCrossentropy, SparseSoftmaxCrossentropy
from tests.testing import (
    BACKEND,
    gradient,
    normal,
    only_on,
    thorough_on,
    to_numpy,
)

WORDS, SIZE, STEPS, ROWS = 20, 4, 3, 8
TOKENS = np.random.default_rng(0).integers(1, WORDS, (ROWS, STEPS))
TOKENS[::2, -1] = 0  # what mask_zero leaves out
NEXT = np.roll(TOKENS, -1, axis=1)
KINDS = ["own", "tied", "reversible", "mask_zero"]
OPTIONS = [
    {},
    {"ignore_class": [0, -1]},
    {"label_smoothing": 0.1},
    {"class_weight": np.linspace(0, 2, WORDS)},
    {"z_loss": 1e-2},
]


class Logits(layers.Layer):
    """What a user writes by hand for an Embedding used twice."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding
        self.supports_masking = True

    def call(self, x):
        kernel = keras.ops.transpose(self.embedding.embeddings)
        return keras.ops.matmul(x, keras.ops.cast(kernel, x.dtype))


def language_model(kind, fused=True):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((STEPS,), dtype="int32")
    if kind == "reversible":
        embedding = layers.ReversibleEmbedding(WORDS, SIZE, name="words")
    else:
        masked = kind == "mask_zero"
        embedding = layers.Embedding(
            WORDS, SIZE, mask_zero=masked, name="words"
        )
    hidden = layers.Dense(SIZE, activation="gelu")(embedding(inputs))
    if fused and kind == "own":
        outputs = LinearHead(WORDS, use_bias=True)(hidden)
    elif fused:
        outputs = LinearHead(tied_to=embedding)(hidden)
    elif kind == "own":
        outputs = layers.Dense(WORDS)(hidden)
    elif kind == "reversible":
        outputs = embedding(hidden, reverse=True)
    else:
        outputs = Logits(embedding)(hidden)
    return keras.Model(inputs, outputs)


def train(model, loss, epochs=3, batch_size=3, **compile_args):
    model.compile(keras.optimizers.SGD(0.5), loss, **compile_args)
    history = model.fit(
        TOKENS, NEXT, batch_size, epochs=epochs, shuffle=False, verbose=0
    )
    return history.history["loss"]


@functools.cache
def unfused(kind, batch_size=3):
    """Losses and weights of the model with logits, once for all tests."""
    model = language_model(kind, fused=False)
    before = model.get_weights()
    losses = train(model, SparseSoftmaxCrossentropy(), batch_size=batch_size)
    return before, losses, model.get_weights()


def same_weights(a, b, rtol=1e-5, atol=1e-6):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, {}) for kind in KINDS),
        ("tied", {"run_eagerly": True}),
        ("tied", {"jit_compile": False}),
        pytest.param(
            "tied",
            {"jit_compile": True},
            # A minute on PyTorch.
            marks=[pytest.mark.thorough] if BACKEND == "torch" else [],
        ),
    ],
    ids=str,
)
def test_a_fit_ends_where_the_fit_with_logits_ends(kind, how):
    # PyTorch compiles for minutes where the last batch is smaller.
    slow = BACKEND == "torch" and "jit_compile" in how
    batch_size = ROWS if slow else 3
    before, losses, after = unfused(kind, batch_size)
    model = language_model(kind)
    same_weights(model.get_weights(), before, rtol=0, atol=0)
    loss = LinearCrossentropy(block_size=8)
    result = train(model, loss, batch_size=batch_size, **how)
    np.testing.assert_allclose(result, losses, rtol=1e-5)
    same_weights(model.get_weights(), after, rtol=1e-4)


@pytest.mark.parametrize("kind", ["own", "tied"])
def test_a_mixed_precision_fit_ends_near_it(kind):
    _, losses, after = unfused(kind)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = language_model(kind)
        result = train(model, LinearCrossentropy())
        assert model.predict(TOKENS, verbose=0).shape == (ROWS, STEPS, WORDS)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert {w.dtype for w in model.weights} == {"float32"}
    np.testing.assert_allclose(result, losses, rtol=1e-2)
    same_weights(model.get_weights(), after, rtol=5e-2, atol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_goes_on_training_with_its_one_head(kind, tmp_path):
    model = language_model(kind)
    train(model, LinearCrossentropy(), epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    heads = [x for x in loaded._flatten_layers() if isinstance(x, LinearHead)]
    assert len(heads) == 1
    if kind != "own":
        assert heads[0].tied_to is loaded.get_layer("words")
    same_weights(model.get_weights(), loaded.get_weights(), rtol=0, atol=0)
    for each in (model, loaded):
        each.fit(TOKENS, NEXT, batch_size=8, shuffle=False, verbose=0)
    same_weights(model.get_weights(), loaded.get_weights())


@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate_is_the_loss_of_the_logits_of_predict(weighted):
    model = language_model("own")
    loss = LinearCrossentropy(z_loss=1e-2)
    model.compile(loss=loss)
    weight = np.arange(ROWS, dtype="float32") if weighted else None
    result = model.evaluate(
        TOKENS, NEXT, sample_weight=weight, batch_size=ROWS, verbose=0
    )
    logits = model.predict(TOKENS, verbose=0)
    assert logits.shape == (ROWS, STEPS, WORDS)
    truth = SparseSoftmaxCrossentropy(z_loss=1e-2)
    expected = float(to_numpy(truth(NEXT, logits, weight)))
    assert result == pytest.approx(expected, rel=1e-5)
    expected = float(to_numpy(loss(NEXT, logits, weight)))
    assert result == pytest.approx(expected, rel=1e-5)


def built_head(**kwargs):
    keras.utils.set_random_seed(2)
    head = LinearHead(WORDS, use_bias=True, **kwargs)
    head.build((None, SIZE))
    head.bias.assign(normal(WORDS))
    return head


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@thorough_on("jax")
def test_every_option_is_that_of_the_loss_of_logits(options, weighted):
    head, x = built_head(), normal(ROWS, STEPS, SIZE)
    weight = np.arange(ROWS, dtype="float32")[:, None] if weighted else None

    def linear(x):
        loss = LinearCrossentropy(block_size=8, **options)
        return loss(NEXT, head(x, training=True), weight)

    def of_logits(x):
        loss = SparseSoftmaxCrossentropy(**options)
        return loss(NEXT, head(x), weight)

    grad, value = gradient(linear, x)
    expected_grad, expected = gradient(of_logits, x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-4, atol=1e-6)
    # The same from logits that the head made, and from plain ones.
    logits = head(x)
    loss = LinearCrossentropy(block_size=8, **options)
    for given in (logits, to_numpy(logits)):
        result = to_numpy(loss(NEXT, given, weight))
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("where", ["head", "loss", "both"])
def test_a_soft_cap_may_be_the_heads_or_the_losses(where):
    x, labels = normal(ROWS, SIZE), TOKENS[:, 0]
    head = built_head(softcap=None if where == "loss" else 0.5)
    loss = LinearCrossentropy(softcap=None if where == "head" else 0.5)
    capped = 0.5 * np.tanh(to_numpy(built_head()(x)) / 0.5)
    expected = to_numpy(SparseSoftmaxCrossentropy()(labels, capped))
    for training in (True, False):
        result = to_numpy(loss(labels, head(x, training=training)))
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_integers_are_no_logits_with_a_soft_cap_either():
    logits = np.arange(2 * WORDS).reshape(2, WORDS)
    with pytest.raises(ValueError, match="floating point"):
        LinearCrossentropy(softcap=5.0)(np.array([0, 1]), logits)


def test_two_soft_caps_are_an_error():
    features = built_head(softcap=0.5)(normal(ROWS, SIZE), training=True)
    loss = LinearCrossentropy(softcap=0.75)
    with pytest.raises(ValueError, match=r"softcap=0.5.*softcap=0.75.*head"):
        loss(TOKENS[:, 0], features)


@pytest.mark.parametrize("training", [True, False])
def test_what_no_head_returned_is_an_error(training):
    outputs = built_head()(normal(ROWS, SIZE), training=training)
    for other in (outputs + 0, keras.ops.ones((ROWS, WORDS))):
        with pytest.raises(ValueError, match="the head the last layer"):
            LinearCrossentropy()(TOKENS[:, 0], other)


def test_a_layer_after_the_head_is_an_error():
    model = keras.Sequential(
        [
            keras.Input((SIZE,)),
            LinearHead(WORDS),
            layers.Activation("softmax"),
        ]
    )
    model.compile(loss=LinearCrossentropy())
    with pytest.raises(ValueError, match="the head the last layer"):
        model.fit(normal(ROWS, SIZE), TOKENS[:, 0], verbose=0)


def test_a_dense_layer_as_the_head_is_an_error():
    model = keras.Sequential([keras.Input((SIZE,)), layers.Dense(WORDS)])
    model.compile(loss=LinearCrossentropy())
    with pytest.raises(ValueError, match="SparseSoftmaxCrossentropy"):
        model.fit(normal(ROWS, SIZE), TOKENS[:, 0], verbose=0)


def test_a_step_serializes_nothing():
    """`copy.copy` of a Keras loss does: 5 ms in each eager step."""

    class Loss(LinearCrossentropy):
        def get_config(self):
            raise AssertionError("the loss was serialized")

    model = keras.Sequential([keras.Input((SIZE,)), LinearHead(WORDS)])
    x, y = normal(ROWS, SIZE), TOKENS[:, 0]
    expected = LinearCrossentropy()(y, model(x, training=True))
    result = Loss()(y, model(x, training=True))
    np.testing.assert_allclose(to_numpy(result), to_numpy(expected))


def test_one_loss_may_serve_several_heads():
    loss = LinearCrossentropy()
    x, labels = normal(ROWS, SIZE), TOKENS[:, 0]
    keras.utils.set_random_seed(0)
    for head in (LinearHead(WORDS), LinearHead(WORDS, softcap=1.0)):
        result = to_numpy(loss(labels, head(x, training=True)))
        expected = SparseSoftmaxCrossentropy()(labels, head(x))
        np.testing.assert_allclose(result, to_numpy(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label_smoothing", 1.5),
        ("class_weight", [-1.0, 1.0]),
        ("z_loss", -1.0),
        ("softcap", 0),
        ("precision", "bfloat16"),
        ("block_size", 0),
        ("ignore_class", "pad"),
    ],
)
def test_options_out_of_range_are_an_error_at_once(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        LinearCrossentropy(**{name: value})


def test_a_stateless_call_outside_the_model_trains_the_head_as_well():
    if BACKEND != "jax":
        pytest.skip("only JAX has stateless loops")
    import jax

    inputs = keras.Input((SIZE,))
    model = keras.Model(inputs, LinearHead(WORDS)(layers.Dense(3)(inputs)))
    x, labels = normal(ROWS, SIZE), np.arange(ROWS)
    weights = [v.value for v in model.trainable_variables]

    def fused(weights):
        features, _ = model.stateless_call(weights, [], x, training=True)
        return LinearCrossentropy()(labels, features)

    def unfused(weights):
        logits, _ = model.stateless_call(weights, [], x, training=False)
        return SparseSoftmaxCrossentropy()(labels, logits)

    for result, expected in zip(
        jax.jit(jax.grad(fused))(weights),
        jax.grad(unfused)(weights),
        strict=True,
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)


def test_a_dict_of_class_weights_is_saved_and_weighs():
    head, x, labels = built_head(), normal(ROWS, SIZE), TOKENS[:, 0]
    weights = np.ones(WORDS)
    weights[[3, 5]] = 0.5, 2
    loss = LinearCrossentropy(class_weight={3: 0.5, 5: 2})
    loss = LinearCrossentropy.from_config(
        json.loads(json.dumps(loss.get_config()))
    )
    expected = LinearCrossentropy(class_weight=weights)
    for y_pred in (head(x, training=True), head(x), to_numpy(head(x))):
        np.testing.assert_array_equal(
            to_numpy(loss(labels, y_pred)), to_numpy(expected(labels, y_pred))
        )


@only_on("torch", "autocast is PyTorch's")
@pytest.mark.parametrize("where", ["head", "loss", None])
def test_autocast_makes_the_products_in_its_dtype(where):
    """Unless head or loss have a precision, which leaves nothing to it."""
    import torch

    exact = where is not None
    head = built_head(precision="float32" if where == "head" else None)
    loss = LinearCrossentropy(precision="float32" if where == "loss" else None)
    labels = TOKENS[:, 0]

    def step(enabled):
        x = torch.tensor(normal(ROWS, SIZE), requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = loss(labels, head(x, training=True))
            value.backward()
        gradients = [head._kernel.value.grad, head.bias.value.grad, x.grad]
        for weight in head.weights:
            weight.value.grad = None
        return [value.detach(), *gradients]

    def rounded():
        x, kernel, bias = (
            torch.tensor(x, requires_grad=True)
            for x in (normal(ROWS, SIZE), *head.get_weights())
        )
        value = ops.linear_softmax_crossentropy(
            labels, x.bfloat16(), kernel=kernel, bias=bias, reduction="mean"
        )
        value.backward()
        return [value.detach(), kernel.grad, bias.grad, x.grad]

    results = step(True)
    expected = step(False) if exact else rounded()
    # To the last digit but that of the features: the one who rounded them has
    # rounded their gradient as well.
    for result, truth in zip(results[:3], expected, strict=False):
        assert result.dtype == torch.float32
        assert torch.equal(result, truth)
    assert results[3].dtype == torch.float32
    np.testing.assert_allclose(
        results[3], expected[3], rtol=0 if exact else 2**-8
    )
    assert torch.equal(results[0], step(False)[0]) == exact


@pytest.mark.parametrize("where", ["head", "loss", None])
def test_the_precision_of_head_or_loss_is_that_of_the_products(where):
    policy = "mixed_bfloat16"
    head = built_head(
        precision="float32" if where == "head" else None, dtype=policy
    )
    loss = LinearCrossentropy(precision="float32" if where == "loss" else None)
    x = keras.ops.cast(normal(ROWS, SIZE), "bfloat16")
    labels = TOKENS[:, 0]
    kernel, bias = (to_numpy(w) for w in head.weights)
    if where is None:
        kernel = to_numpy(keras.ops.cast(kernel, "bfloat16"))
    exact = to_numpy(x) @ kernel + bias
    expected = float(to_numpy(SparseSoftmaxCrossentropy()(labels, exact)))
    result = float(to_numpy(loss(labels, head(x, training=True))))
    # Rounded products or, of a float32 kernel, not even that.
    rel = 1e-6 if where else 5e-3
    assert result == pytest.approx(expected, rel=rel)
    logits = to_numpy(head(x))
    np.testing.assert_allclose(logits, exact, rtol=2**-6, atol=2**-6)
    if where == "head":
        # Rounded once, at the end.
        once = to_numpy(keras.ops.cast(exact, "bfloat16"))
        assert np.mean(logits == once) > 0.99
