"""A model trained on samples of its classes, and measured on all of them."""

import keras
import numpy as np
import pytest

from keras_xent import losses, ops
from keras_xent.layers import LinearHead
from tests.testing import BACKEND, gradient, normal, thorough_on, to_numpy

CLASSES, SIZE, ROWS = 40, 16, 16
LABELS = (np.arange(ROWS) ** 2) % CLASSES
SAMPLED = [losses.SampledSoftmaxCrossentropy, losses.NoiseContrastiveEstimation]
each_loss = pytest.mark.parametrize("cls", SAMPLED)


def model(cls, metrics=(), head=None, num_sampled=8, **compile_args):
    keras.utils.set_random_seed(3)
    head = head or LinearHead(
        CLASSES, use_bias=True, sampled=True, metrics=metrics
    )
    result = keras.Sequential([keras.Input((SIZE,)), head])
    result.compile(keras.optimizers.Adam(0.1), cls(num_sampled), **compile_args)
    return result


def fit(model, epochs=1, **options):
    options = {"batch_size": ROWS, "shuffle": False, "verbose": 0, **options}
    x = normal(ROWS, SIZE, seed=5)
    return model.fit(x, LABELS, epochs=epochs, **options).history


@keras.saving.register_keras_serializable(package="tests")
class Fingerprint(losses.SampledSoftmaxCrossentropy):
    """A number that tells samples apart, with a gradient of 0."""

    def sampled_losses(
        self, labels, features, *, class_vectors, candidates, **options
    ):
        ids = keras.ops.cast(candidates[0], "float32")
        fingerprint = keras.ops.sum(ids * keras.ops.sqrt(1.0 + ids))
        zero = keras.ops.sum(0.0 * class_vectors)
        return fingerprint + zero + 0.0 * keras.ops.sum(features, axis=-1)


# The loss is made of the classes that were drawn, and has no gradient.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}], ids=str)
def test_every_step_of_a_fit_draws_a_sample_of_its_own(how):
    """Not the one that was there when the step was traced."""
    prints = fit(model(Fingerprint, **how), epochs=6)["loss"]
    assert len(set(prints)) == 6


def test_the_seed_of_the_head_decides_on_the_samples():
    def prints(seed):
        head = LinearHead(CLASSES, sampled=True, seed=seed)
        return fit(model(Fingerprint, head=head), epochs=2)["loss"]

    first, same, other = prints(1), prints(1), prints(2)
    assert first == same
    assert first != other


@each_loss
def test_training_lowers_the_loss_over_all_classes(cls):
    trained = model(cls)
    x = normal(ROWS, SIZE, seed=5)
    before = trained.evaluate(x, LABELS, verbose=0)
    history = fit(trained, epochs=30, validation_data=(x, LABELS))
    logits = trained.predict(x, verbose=0)
    assert logits.shape == (ROWS, CLASSES)
    full = to_numpy(ops.sparse_softmax_crossentropy(LABELS, logits)).mean()
    assert history["val_loss"][-1] == pytest.approx(full, rel=1e-5)
    assert full < before - 0.5


@each_loss
def test_a_head_measures_all_classes_in_evaluation_and_nothing_on_a_sample(cls):
    measured = model(cls, metrics=["accuracy", "perplexity"])
    x = normal(ROWS, SIZE, seed=5)
    history = fit(measured, validation_data=(x, LABELS))
    assert np.isnan([history["accuracy"][0], history["perplexity"][0]]).all()
    logits = measured.predict(x, verbose=0)
    right = np.mean(logits.argmax(1) == LABELS)
    assert history["val_accuracy"][0] == pytest.approx(right, abs=1e-6)
    assert history["val_perplexity"][0] == pytest.approx(
        np.exp(history["val_loss"][0]), rel=1e-5
    )


@each_loss
def test_several_true_classes_share_a_row(cls):
    labels = np.stack([LABELS, (LABELS + 1) % CLASSES], axis=1)
    trained = model(cls, metrics=["accuracy"])
    x = normal(ROWS, SIZE, seed=5)
    trained.fit(x, labels, epochs=2, batch_size=ROWS, verbose=0)
    logits = trained.predict(x, verbose=0)
    each = [
        to_numpy(ops.sparse_softmax_crossentropy(labels[:, i], logits))
        for i in (0, 1)
    ]
    result, accuracy = trained.evaluate(x, labels, verbose=0)
    assert result == pytest.approx(np.mean(each), rel=1e-5)
    top = logits.argmax(1)[:, None]
    assert accuracy == pytest.approx(np.mean((top == labels).any(1)), abs=1e-6)
    of_logits = cls(8)(labels.tolist(), logits)
    assert float(of_logits) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("unique", [True, False])
def test_hits_stay_where_a_sample_is_drawn_with_replacement(unique):
    """There log E of a frequent class is positive, and grows without end."""
    head = LinearHead(CLASSES, sampled=True, seed=0)
    features = head(np.zeros((4, SIZE), "float32"), training=True)
    labels = np.zeros(4, "int32")
    size = 30 if unique else 20_000

    def value(**options):
        loss = losses.SampledSoftmaxCrossentropy(size, unique=unique, **options)
        return float(loss(labels, features))

    assert value() == value(remove_accidental_hits=unique)
    assert value() != value(remove_accidental_hits=not unique)
    if unique:
        assert value() == pytest.approx(np.log(CLASSES), abs=0.2)


@thorough_on("jax")
def test_with_replacement_the_optimum_is_the_distribution_of_the_labels():
    """Three classes and a bias alone; all samples, each with its chance."""
    shares, size = np.array([0.7, 0.2, 0.1]), 3
    ids = np.array(list(np.ndindex(3, 3, 3)))
    chances = shares[ids].prod(axis=1)
    counts = (size * shares).astype("float32")

    def slope(remove):
        total = 0
        for label, share in enumerate(shares):
            for sample, chance in zip(ids, chances, strict=True):
                grad, _ = gradient(
                    lambda x, label=label, sample=sample: (
                        ops.sampled_softmax_crossentropy(
                            [label],
                            x,
                            class_vectors=np.eye(3, dtype="float32"),
                            candidates=(
                                sample.astype("int32"),
                                counts[[label]],
                                counts[sample],
                            ),
                            remove_accidental_hits=remove,
                        )
                    ),
                    np.log(shares)[None].astype("float32"),
                )
                total = total + share * chance * grad
        return np.abs(total).max()

    assert slope(remove=False) < 1e-6
    assert slope(remove=True) > 0.01


@each_loss
@pytest.mark.parametrize("where", ["head", "loss", None])
@thorough_on("jax")
def test_the_precision_of_head_or_loss_is_that_of_the_products(cls, where):
    """On the sample in training, and on all classes otherwise."""

    def value(precision, training, policy):
        keras.utils.set_random_seed(4)
        head = LinearHead(
            CLASSES,
            sampled=True,
            seed=0,
            dtype=policy,
            precision=precision if where == "head" else None,
        )
        # Both policies have the same, in bfloat16 and in float32.
        x = keras.ops.cast(normal(ROWS, SIZE), "bfloat16")
        x = x if policy == "mixed_bfloat16" else keras.ops.cast(x, "float32")
        loss = cls(8, precision=precision if where == "loss" else None)
        return float(to_numpy(loss(LABELS, head(x, training=training))))

    for training in (True, False):
        exact = value(None, training, "float32")
        result = value("float32", training, "mixed_bfloat16")
        low = value(None, training, "mixed_bfloat16")
        assert low == pytest.approx(exact, rel=1e-2)
        assert low != pytest.approx(exact, rel=1e-6)
        assert result == pytest.approx(exact if where else low, rel=1e-6)


def test_a_tied_head_takes_the_rows_of_its_embedding():
    keras.utils.set_random_seed(0)
    words = keras.Input((3,), dtype="int32")
    embedding = keras.layers.Embedding(CLASSES, SIZE, mask_zero=True)
    head = LinearHead(tied_to=embedding, sampled=True)
    language = keras.Model(words, head(embedding(words)))
    language.compile("sgd", losses.SampledSoftmaxCrossentropy(8))
    x = np.random.default_rng(0).integers(1, CLASSES, (ROWS, 3))
    x[:, -1] = 0  # masked
    result = language.fit(x, np.roll(x, 1, axis=1), verbose=0).history["loss"]
    assert np.isfinite(result).all()


def test_a_saved_model_loads_and_draws(tmp_path):
    trained = model(losses.SampledSoftmaxCrossentropy)
    fit(trained)
    trained.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = normal(ROWS, SIZE, seed=5)
    assert loaded.evaluate(x, LABELS, verbose=0) == pytest.approx(
        trained.evaluate(x, LABELS, verbose=0), rel=1e-6
    )
    assert loaded.layers[-1].sampled
    assert np.isfinite(fit(loaded)["loss"]).all()


def test_on_jax_a_loop_of_ones_own_draws_anew_in_each_step():
    if BACKEND != "jax":
        pytest.skip("stateless calls are JAX's way")
    import jax

    head = LinearHead(CLASSES, sampled=True, seed=1)
    net = keras.Sequential([keras.Input((SIZE,)), head])
    loss = Fingerprint(8)

    @jax.jit
    def step(trainable, other, x, y):
        features, other = net.stateless_call(trainable, other, x, training=True)
        return loss(y, features), other

    trainable = [v.value for v in net.trainable_variables]
    other = [v.value for v in net.non_trainable_variables]
    prints = []
    for _ in range(4):
        value, other = step(trainable, other, normal(ROWS, SIZE), LABELS)
        prints.append(float(value))
    assert len(set(prints)) == 4


def test_ignored_rows_have_no_loss_and_no_gradient_even_where_they_are_nan():
    features = normal(3, SIZE).copy()
    features[1] = np.nan
    head = LinearHead(CLASSES, sampled=True, seed=0)
    loss = losses.SampledSoftmaxCrossentropy(8, ignore_class=-1, reduction=None)
    result = to_numpy(loss(np.array([3, -1, 4]), head(features, training=True)))
    assert result[1] == 0
    assert np.isfinite(result).all()


@each_loss
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sampled": 0}, "`num_sampled`"),
        (
            {"num_sampled": 5, "distribution": "zipf"},
            "'log_uniform', 'uniform'",
        ),
        ({"num_sampled": 5, "distribution": None}, "'log_uniform'"),
        ({"num_sampled": 5, "distribution": [1, -1]}, "non-negative"),
        ({"num_sampled": 5, "power": -1}, "`power`"),
        ({"num_sampled": 2, "distribution": [1, 1]}, "fewer classes"),
        ({"num_sampled": 1, "distribution": [1, 1], "power": -1}, "`power`"),
        ({"num_sampled": 1, "ignore_class": 0.5}, "`ignore_class`"),
        ({"num_sampled": 1, "precision": "bfloat16"}, "`precision`"),
    ],
    ids=str,
)
def test_wrong_options_are_an_error(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


@each_loss
@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({"num_sampled": CLASSES}, LABELS, "fewer classes can be drawn"),
        ({"distribution": [1, 2, 3], "num_sampled": 2}, LABELS, "40 classes"),
        ({}, LABELS + CLASSES, "Received the label"),
        ({}, LABELS[:3], "shape"),
        ({}, np.eye(CLASSES)[LABELS], "one-hot"),
        ({}, np.zeros((ROWS, 0), "int32"), "at least 1"),
        (
            {"ignore_class": 0},
            np.stack([LABELS, LABELS], axis=1),
            "one label per row",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_the_head_is_an_error(cls, options, labels, message):
    head = LinearHead(CLASSES, sampled=True, seed=0)
    features = head(normal(ROWS, SIZE), training=True)
    loss = cls(**{"num_sampled": 8, **options})
    with pytest.raises(ValueError, match=message):
        loss(labels, features)
    if "one" in message:
        with pytest.raises(ValueError, match=message):
            loss(labels, head(normal(ROWS, SIZE)))


@each_loss
def test_a_head_without_a_seed_is_an_error_that_says_the_cure(cls):
    features = LinearHead(CLASSES)(normal(ROWS, SIZE), training=True)
    with pytest.raises(ValueError, match=r"LinearHead\(40, sampled=True\)"):
        cls(8)(LABELS, features)
    with pytest.raises(ValueError, match=cls.__name__):
        cls(8)(LABELS, features + 0)
