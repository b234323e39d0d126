"""No false alarm: nothing is found where nothing is wrong."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import losses
from keras_xent.layers import CosineHead, LinearHead, SimilarityHead
from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    KERAS_DENSE,
    KERAS_SPARSE,
    KERAS_YES_NO,
    ONE_HOT,
    SPARSE,
    YES_NO,
    X,
    codes,
    compiled,
    one_tower,
    stack,
    two_towers,
)
from tests.testing import normal

Dense = layers.Dense
CROSSENTROPY = "sparse_categorical_crossentropy"


def test_mixed_precision_in_all_layers():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Sequential(
            [
                keras.Input((4,)),
                Dense(8, "relu"),
                layers.BatchNormalization(),
                Dense(3, dtype="float32"),
            ]
        )
        compiled(model, SPARSE, "adam")
        assert codes(model, X, IDS) == []
    finally:
        keras.config.set_dtype_policy("float32")


RARE = np.arange(400) % 50 == 0  # 2 %
MANY = normal(400, 4) + RARE[:, None]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    ("end", "loss"),
    [
        (Dense(1, "sigmoid"), "binary_crossentropy"),
        (Dense(1), YES_NO),
        (Dense(2), SPARSE),
        (Dense(2, "softmax"), CROSSENTROPY),
    ],
    ids=["chances", "logits", "two logits", "two chances"],
)
def test_one_yes_in_50(end, loss, trained):
    end = type(end).from_config(end.get_config())
    y = RARE.astype("int32")[:, None]
    model, x, y, _ = stack(
        end, loss=loss, x=MANY, y=y, optimizer=keras.optimizers.Adam(0.1)
    )
    if trained:
        often = [np.tile(each, (100, 1)) for each in (x, y)]
        model.fit(*often, batch_size=400, verbose=0)
        assert model.optimizer.iterations >= 100
    assert codes(model, x, y) == []


def learned(end, loss, y, scale):
    """A model that is right about everything, and sure of it."""
    model, *_ = stack(end, loss=loss, x=ONE_HOT, y=y, optimizer="adam")
    kernel, *_ = model.weights
    kernel.assign(scale)
    model.optimizer.iterations.assign(500)
    return model, ONE_HOT, y


EYE = np.eye(3, dtype="float32")
ONE = (IDS == 1).astype("int32")[:, None]
TO_ONE = 2.0 * EYE[:, 1:2] - 1

CONVERGED = {
    "logits": (lambda: Dense(3), SPARSE, IDS, 16 * EYE),
    "logits, Keras": (lambda: Dense(3), KERAS_SPARSE, IDS, 200 * EYE),
    "one-hot": (lambda: Dense(3), KERAS_DENSE, ONE_HOT, 200 * EYE),
    "probabilities": (
        lambda: Dense(3, "softmax"),
        CROSSENTROPY,
        IDS,
        200 * EYE,
    ),
    "yes or no": (lambda: Dense(1), YES_NO, ONE, 200 * TO_ONE),
    "yes or no, Keras": (lambda: Dense(1), KERAS_YES_NO, ONE, 16 * TO_ONE),
    "chances": (
        lambda: Dense(1, "sigmoid"),
        "binary_crossentropy",
        ONE,
        200 * TO_ONE,
    ),
    "squares": (lambda: Dense(3, use_bias=False), "mse", ONE_HOT, EYE),
    "pairs of a batch": (
        lambda: Dense(3),
        losses.SymmetricKLHinge(2.0, softness=0.1),
        IDS,
        9 * EYE,
    ),
    "pairs of a batch, hard": (
        lambda: Dense(3),
        losses.SymmetricKLHinge(2.0, softness=0.0),
        IDS,
        9 * EYE,
    ),
}


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("name", CONVERGED)
def test_converged(name, loaded, tmp_path):
    end, loss, y, scale = CONVERGED[name]
    model, x, y = learned(end(), loss, y, scale)
    assert model.evaluate(x, y, verbose=0) < 1e-6
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        compiled(model, loss, "adam")
    assert codes(model, x, y) == []


@pytest.mark.parametrize("softness", [0.0, 0.1])
@pytest.mark.parametrize("iterations", [0, 500])
def test_converged_distances(softness, iterations):
    """Matches at 0, all others beyond the margin."""
    model, x, y, _ = stack(
        Dense(1, "relu", use_bias=False),
        loss=losses.SoftplusHinge(2.0, softness=softness),
        x=9.0 * FLAGS.astype("float32"),
        y=1 - FLAGS,
    )
    model.layers[0].kernel.assign([[1.0]])
    model.optimizer.iterations.assign(iterations)
    assert model.evaluate(x, y, verbose=0) < 1e-6
    assert codes(model, x, y) == []


class Residual(layers.Layer):
    """A block that starts as the identity."""

    def __init__(self):
        super().__init__()
        self.dense = Dense(4, "relu")
        self.norm = layers.BatchNormalization(gamma_initializer="zeros")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build(shape)

    def call(self, x, training=False):
        return x + self.norm(self.dense(x), training=training)


def lora():
    model, x, y, _ = stack(Dense(5, "tanh", name="base"), Dense(3), loss=SPARSE)
    model.get_layer("base").enable_lora(2)
    return compiled(model, SPARSE, "adam"), x, y


TOKENS = np.arange(40).reshape(8, 5) % 4
SEQUENCES = normal(8, 5, 4)
NEXT = TOKENS % 3


def attention():
    inputs = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 2)(inputs, inputs, use_causal_mask=True)
    x = layers.LayerNormalization()(x + inputs)
    model = keras.Model(inputs, Dense(3)(x))
    return compiled(model, SPARSE), SEQUENCES, NEXT


def heads(loss, sampled=False):
    y = np.arange(32) % 20
    return stack(
        Dense(5, "tanh"), LinearHead(20, sampled=sampled), loss=loss, y=y
    )


def tied():
    words = keras.Input((5,), dtype="int32")
    embedding = layers.ReversibleEmbedding(4, 6)
    outputs = embedding(embedding(words), reverse=True)
    return compiled(keras.Model(words, outputs), SPARSE), TOKENS, TOKENS


class Placed(layers.Layer):
    """Adds to each step what stands for its place, zeros at the start."""

    def build(self, shape):
        self.place = self.add_weight(shape=shape[1:], initializer="zeros")

    def call(self, x):
        return x + self.place


def no_step_yet(**options):
    """Zero weights that the first step of the optimizer leaves in place."""
    return stack(
        Dense(5, "tanh"),
        Dense(3, kernel_initializer="zeros"),
        loss=SPARSE,
        **options,
    )


class OwnStep(keras.Sequential):
    def train_step(self, *arguments, **options):
        return super().train_step(*arguments, **options)


def own_step():
    model, x, y, _ = no_step_yet()
    return compiled(OwnStep([keras.Input((4,)), *model.layers]), SPARSE), x, y


class Halved(keras.Model):
    """The layers of one model within another's call."""

    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential([keras.Input((4,)), Dense(5, "gelu")])
        self.end = Dense(3)

    def call(self, x):
        return self.end(self.inner(x))


def within():
    model = Halved()
    model(X)
    return compiled(model, SPARSE), X, IDS


SOME_KNOWN = losses.SigmoidCrossentropy(ignore_class=[-1, float("nan")])

WELL = {
    "a last layer of zeros": lambda: stack(
        Dense(5, "tanh"), Dense(3, kernel_initializer="zeros"), loss=SPARSE
    ),
    "only a layer of zeros": lambda: stack(
        Dense(3, kernel_initializer="zeros"), loss=SPARSE
    ),
    "a layer of zeros, yes or no": lambda: stack(
        Dense(5, "relu"),
        Dense(1, kernel_initializer="zeros"),
        loss=YES_NO,
        y=FLAGS,
    ),
    "yes or no, in part unknown": lambda: stack(
        Dense(3), loss=SOME_KNOWN, y=np.where(FLAGS == 0, ONE_HOT, [1, -1, 0])
    ),
    "yes or no, in part NaN": lambda: stack(
        Dense(3), loss=SOME_KNOWN, y=np.where(FLAGS, ONE_HOT, [0, 1, np.nan])
    ),
    "yes or no, some without weight": lambda: stack(
        Dense(3), loss=YES_NO, y=ONE_HOT, weight=np.where(FLAGS, [1, 0, 2], 1.0)
    ),
    "a residual block of zeros": lambda: stack(
        Residual(), Residual(), Dense(3), loss=SPARSE
    ),
    "zeros before a last layer of zeros": lambda: stack(
        Placed(),
        layers.Flatten(),
        Dense(3, kernel_initializer="zeros"),
        loss=SPARSE,
        x=SEQUENCES,
        y=IDS[:8],
    ),
    "a rate that starts at 0": lambda: no_step_yet(
        optimizer=keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(
                0.0, 100, warmup_target=0.1, warmup_steps=50
            )
        )
    ),
    "gradients of several batches": lambda: no_step_yet(
        optimizer=keras.optimizers.Adam(gradient_accumulation_steps=4)
    ),
    "a step of its own": own_step,
    "LoRA": lora,
    "LSTM": lambda: stack(
        layers.LSTM(3), Dense(3), loss=SPARSE, x=SEQUENCES, y=IDS[:8]
    ),
    "GRU": lambda: stack(
        layers.GRU(3, return_sequences=True),
        Dense(3),
        loss=SPARSE,
        x=SEQUENCES,
        y=NEXT,
    ),
    "bidirectional": lambda: stack(
        layers.Bidirectional(layers.SimpleRNN(3)),
        Dense(3),
        loss=SPARSE,
        x=SEQUENCES,
        y=IDS[:8],
    ),
    "padding": lambda: stack(
        layers.Embedding(4, 3, mask_zero=True),
        layers.LSTM(3, return_sequences=True),
        Dense(3),
        loss=SPARSE,
        x=TOKENS,
        y=NEXT,
    ),
    "padding, Keras": lambda: stack(
        layers.Embedding(4, 3, mask_zero=True),
        Dense(3),
        loss=KERAS_SPARSE,
        x=TOKENS,
        y=NEXT,
    ),
    "attention": attention,
    "convolution": lambda: stack(
        layers.Conv1D(4, 3, activation="relu", padding="same"),
        layers.MaxPooling1D(),
        layers.Flatten(),
        layers.Dropout(0.3),
        Dense(3),
        loss=SPARSE,
        x=SEQUENCES,
        y=IDS[:8],
    ),
    "normalization": lambda: stack(
        layers.Rescaling(0.1),
        layers.UnitNormalization(),
        layers.GroupNormalization(2),
        Dense(3),
        loss=SPARSE,
    ),
    "a linear head": lambda: heads(losses.LinearCrossentropy()),
    "a sampled head": lambda: heads(
        losses.SampledSoftmaxCrossentropy(8), sampled=True
    ),
    "noise contrast": lambda: heads(
        losses.NoiseContrastiveEstimation(8), sampled=True
    ),
    "a tied embedding": tied,
    "an ignored class": lambda: stack(
        Dense(3),
        loss=losses.SparseSoftmaxCrossentropy(ignore_class=255),
        y=np.where(IDS == 2, 255, IDS),
    ),
    "a focal loss": lambda: stack(
        Dense(3, "softmax"),
        loss=keras.losses.CategoricalFocalCrossentropy(),
        y=ONE_HOT,
    ),
    "a balanced focal loss": lambda: stack(
        Dense(1, "sigmoid"),
        loss=keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True),
        y=FLAGS,
    ),
    "label smoothing": lambda: stack(
        Dense(3),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=0.1
        ),
        y=ONE_HOT,
    ),
    "smooth labels": lambda: stack(
        Dense(3), loss=KERAS_DENSE, y=0.7 * ONE_HOT + 0.1
    ),
    "weights of rows": lambda: stack(
        Dense(3), loss=SPARSE, weight=(np.arange(32) > 20) * 3.0
    ),
    "weights of steps": lambda: stack(
        Dense(3), loss=SPARSE, x=SEQUENCES, y=NEXT, weight=(NEXT > 0) * 1.0
    ),
    "negative labels of rows that do not count": lambda: stack(
        Dense(3), loss=SPARSE, y=IDS - 1, weight=(IDS > 0) * 1.0
    ),
    "a model within": within,
    "several yes and no": lambda: stack(
        Dense(3), loss=KERAS_YES_NO, y=ONE_HOT + np.roll(ONE_HOT, 1, 1)
    ),
    "an autoencoder": lambda: stack(
        Dense(2, "tanh"), Dense(4), loss="mse", y=X
    ),
    "absolute errors": lambda: stack(Dense(1), loss="mae", y=X[:, :1]),
    "large numbers": lambda: stack(
        Dense(1), loss="mse", y=1e4 * X[:, :1], optimizer="adam"
    ),
    "cosine similarity": lambda: stack(Dense(4), loss="cosine_similarity", y=X),
    "Keras's hinge": lambda: stack(
        Dense(1, "tanh"), loss="hinge", y=2 * FLAGS - 1
    ),
    "correlation": lambda: stack(
        Dense(1), loss=losses.PearsonLoss(), y=X[:, :1]
    ),
    "rank correlation": lambda: stack(
        Dense(1), loss=losses.SpearmanLoss(), y=X[:, :1]
    ),
    "distillation": lambda: stack(
        Dense(3), loss=losses.JensenShannonDivergence(), y=normal(32, 3, seed=2)
    ),
    "Poisson": lambda: stack(
        Dense(1, "exponential"), loss="poisson", y=IDS[:, None]
    ),
    "a yes and no of tanh": lambda: stack(
        Dense(1, "tanh"), loss="mse", y=2 * FLAGS - 1
    ),
}


@pytest.mark.parametrize("name", WELL)
def test_well(name):
    assert codes(*WELL[name]()) == []


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    "name", ["LoRA", "a linear head", "a focal loss", "absolute errors"]
)
def test_few_rows(name, rows):
    model, x, y, *_ = WELL[name]()
    assert codes(model, x[:rows], y[:rows]) == []


def cosines(loss, **options):
    head = CosineHead(20, **options)
    return stack(Dense(8, "relu"), head, loss=loss, y=np.arange(32) % 20)


# Losses that compare rows, as they are given and as papers give them.
OF_ROWS = {
    "pairs": lambda: one_tower(losses.PairHinge(1.0)),
    "squared pairs": lambda: one_tower(
        losses.PairHinge(2.0, softness=0.0, squared=True)
    ),
    "pairs of cosines": lambda: one_tower(
        losses.PairHinge(0.5, distance="cosine")
    ),
    "hard triplets": lambda: one_tower(losses.TripletHinge(0.2)),
    "triplets with a soft margin": lambda: one_tower(
        losses.TripletHinge(0.0, softness=1.0)
    ),
    "semi-hard triplets": lambda: one_tower(
        losses.TripletHinge(0.2, mining="semi_hard"), layers.UnitNormalization()
    ),
    "multi-similarity": lambda: one_tower(losses.MultiSimilarity()),
    "hard pairs": lambda: one_tower(losses.MultiSimilarity(epsilon=0.1)),
    "prototypes": lambda: one_tower(losses.PrototypicalCrossentropy()),
    "GE2E": lambda: one_tower(
        losses.PrototypicalCrossentropy(distance="cosine")
    ),
    "SupCon": lambda: one_tower(losses.SupervisedContrastive()),
    "SupCon, one example left": lambda: one_tower(
        losses.SupervisedContrastive(), y=np.maximum(np.arange(32) % 12, 3)
    ),
    "SimCLR": lambda: two_towers(
        losses.SupervisedContrastive(temperature=0.5), Views()
    ),
    "CLIP": lambda: two_towers(losses.InfoNCE()),
    "one-sided": lambda: two_towers(losses.InfoNCE(symmetric=False)),
    "SigLIP": lambda: two_towers(
        losses.SigmoidContrastive(), SimilarityHead(temperature=0.1, bias=-10.0)
    ),
    "SigLIP without a bias of the head": lambda: two_towers(
        losses.SigmoidContrastive()
    ),
    "NormFace": lambda: cosines(losses.LinearCrossentropy()),
    "a learned scale": lambda: cosines(
        losses.LinearCrossentropy(), scale=10.0, learn_scale=True
    ),
    "CosFace": lambda: cosines(
        losses.LinearCrossentropy(), scale=64.0, cosine_margin=0.35
    ),
    "ArcFace": lambda: cosines(
        losses.LinearCrossentropy(),
        scale=64.0,
        angular_margin=0.5,
        sub_centers=3,
    ),
    "a margin for each class": lambda: cosines(
        losses.LinearCrossentropy(), angular_margin=np.linspace(0.1, 0.6, 20)
    ),
    "Partial FC": lambda: cosines(
        losses.SampledSoftmaxCrossentropy(8, batch_classes=True),
        sampled=True,
        angular_margin=0.2,
    ),
}


class Views(layers.Layer):
    """Puts embeddings side by side, without a temperature."""

    def call(self, towers):
        return keras.ops.stack(towers, axis=1)


@pytest.mark.parametrize("name", OF_ROWS)
def test_losses_of_rows(name):
    assert codes(*OF_ROWS[name]()) == []


@pytest.mark.parametrize(
    "loss",
    [
        losses.PairHinge(1.0),
        losses.TripletHinge(0.2, mining="semi_hard"),
        losses.MultiSimilarity(),
        losses.PrototypicalCrossentropy(),
        losses.SupervisedContrastive(),
    ],
    ids=lambda loss: loss.name,
)
@pytest.mark.parametrize(
    "epochs", [25, pytest.param(400, marks=pytest.mark.thorough)]
)
def test_rows_that_have_been_learned(loss, epochs):
    """After 100 steps, and when nothing is left to learn."""
    y = np.arange(128) % 4
    x = (4 * np.eye(4)[y] + normal(128, 4)).astype("float32")
    model, *_ = one_tower(loss, x=x, y=y, optimizer=keras.optimizers.Adam(0.01))
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    assert codes(model, x, y) == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    "loss", [losses.InfoNCE(), losses.SigmoidContrastive()]
)
def test_towers_that_have_learned(loss):
    model, (x, _), y = two_towers(loss)
    pairs = [x, x + 0.1 * normal(32, 4, seed=3)]
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(pairs, y, epochs=1000, verbose=0)
    assert codes(model, pairs, y) == []
