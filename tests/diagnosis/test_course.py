"""The callback reads the curve of a fit: what is broken, and what is not."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_xent
from keras_xent.callbacks import Diagnose
from tests.diagnosis.cases import (
    KERAS_SPARSE,
    KERAS_YES_NO,
    compiled,
    sparse,
    stack,
)
from tests.testing import normal

X = normal(320, 4)  # 10 steps of 32
Y = np.argmax(X[:, :3], axis=1)
SKEWED = (X[:, 0] > 1.2).astype("float32")[:, None]


def fit(model, x, y, epochs=12, **options):
    """The callback after a fit, and what it has said of the curve."""
    watcher = Diagnose()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(
            x, y, epochs=epochs, verbose=0, callbacks=[watcher], **options
        )
    said = [str(each.message) for each in caught]
    return watcher, [each for each in said if "epoch " in each]


def shuffled(y):
    return np.random.default_rng(1).permutation(y)


def mlp(loss, y, units=3, rate=0.01, optimizer="adam", **options):
    hidden = layers.Dense(16, activation="tanh", **options)
    optimizer = keras.optimizers.get(
        {"class_name": optimizer, "config": {"learning_rate": rate}}
    )
    last = layers.Dense(units, kernel_initializer="zeros", name="last")
    return stack(hidden, last, loss=loss, x=X, y=y, optimizer=optimizer)[:3]


def plain(loss, y, units=1):
    last = layers.Dense(units, kernel_initializer="zeros", name="last")
    optimizer = keras.optimizers.Adam(0.05)
    return stack(last, loss=loss, x=X, y=y, optimizer=optimizer)[:3]


def with_head(y):
    head = keras_xent.layers.LinearHead(3, name="last")
    loss = keras_xent.losses.LinearCrossentropy()
    return stack(head, loss=loss, x=X, y=y, optimizer="adam")[:3]


def two_outputs(y):
    keras.utils.clear_session()
    inputs = keras.Input((4,))
    outputs = {
        "first": layers.Dense(3, name="first")(inputs),
        "last": layers.Dense(
            1, activation="sigmoid", kernel_initializer="zeros", name="last"
        )(inputs),
    }
    model = keras.Model(inputs, outputs)
    loss = {"first": KERAS_SPARSE, "last": "binary_crossentropy"}
    optimizer = keras.optimizers.Adam(0.05)
    return compiled(model, loss, optimizer), X, {"first": Y, "last": y}


STAYS = {
    "labels of other rows, class ids": (
        "not-learning",
        lambda: mlp(sparse(), shuffled(Y), rate=1e-4),
        lambda: mlp(sparse(), Y),
    ),
    "one of two outputs, rare": (
        "predicts-prior",
        lambda: two_outputs(shuffled(SKEWED)),
        lambda: two_outputs(SKEWED),
    ),
    "yes and no, rare": (
        "predicts-prior",
        lambda: plain(KERAS_YES_NO, shuffled(SKEWED)),
        lambda: plain(KERAS_YES_NO, SKEWED),
    ),
    "steps that are too small": (
        "not-learning",
        lambda: mlp(KERAS_SPARSE, Y, rate=1e-7, optimizer="sgd"),
        lambda: mlp(KERAS_SPARSE, Y, rate=0.1, optimizer="sgd"),
    ),
    "one-hot rows, smoothed": (
        "not-learning",
        lambda: mlp(
            keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1),
            keras.utils.to_categorical(shuffled(Y)),
            rate=1e-4,
        ),
        lambda: mlp(
            keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1),
            keras.utils.to_categorical(Y),
        ),
    ),
    "a focal loss": (
        "not-learning",
        lambda: mlp(
            keras.losses.CategoricalFocalCrossentropy(from_logits=True),
            keras.utils.to_categorical(shuffled(Y)),
            rate=1e-4,
        ),
        lambda: mlp(
            keras.losses.CategoricalFocalCrossentropy(from_logits=True),
            keras.utils.to_categorical(Y),
        ),
    ),
}


@pytest.mark.parametrize(
    ("code", "broken", "healthy", "validation"),
    [
        # They take turns: the other half is for a thorough run.
        pytest.param(
            *case,
            validation,
            id=f"{name}-{validation}",
            marks=[pytest.mark.thorough] * ((i + j) % 2),
        )
        for i, (name, case) in enumerate(STAYS.items())
        for j, validation in enumerate([0.0, 0.2])
    ],
)
def test_a_loss_that_stays_is_told(code, broken, healthy, validation):
    model, x, y = broken()
    watcher, said = fit(model, x, y, epochs=24, **split(x, y, validation))
    (found,) = watcher.curve
    assert found.code == code
    assert found.where == "output 'last'"
    (line,) = said
    assert "\n" not in line
    assert found.summary in line
    model, x, y = healthy()
    watcher, said = fit(model, x, y, **split(x, y, validation))
    assert watcher.curve == ()
    assert said == []


def split(x, y, share):
    """`validation_split` takes no dictionary."""
    if not share:
        return {}
    n = int(len(x) * share)
    part = keras.tree.map_structure(lambda each: each[:n], (x, y))
    return {"validation_data": part}


@pytest.mark.parametrize(
    ("rate", "cause"),
    [(1e-5, "steps are too small"), (1e-7, "[step-too-small]")],
    ids=["for this model", "for any model"],
)
def test_steps_that_are_too_small_are_the_cause_and_larger_ones_the_cure(
    rate, cause
):
    model, x, y = mlp(KERAS_SPARSE, Y, rate=rate, optimizer="sgd")
    watcher, _ = fit(model, x, y)
    (found,) = watcher.curve
    assert cause in found.cause
    names = {"keras": keras, "model": model, "loss": KERAS_SPARSE}
    exec(found.cure, names)
    if "optimizer" in names:
        names["model"].compile(names["optimizer"], KERAS_SPARSE)
    before = found.evidence["loss"]
    history = names["model"].fit(x, y, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.8 * before


def test_what_the_batch_shows_besides_is_the_cause():
    """Units that are 0 for all rows."""
    dead = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(
                8,
                activation="relu",
                bias_initializer=keras.initializers.Constant(-50.0),
            ),
            layers.Dense(3),
        ]
    )
    watcher, said = fit(compiled(dead, sparse(), "adam"), X, Y, epochs=30)
    (found,) = watcher.curve
    assert "[dead-gradient]" in found.cause or "[saturated]" in found.cause
    assert len(said) == 1


def test_what_the_batch_and_the_curve_show_is_told_once():
    """The end of an epoch comes first, or the batch after 100 steps."""
    model, x, y = plain(KERAS_YES_NO, shuffled(SKEWED))
    for batch_size in (32, 8):  # 10 and 40 steps an epoch
        watcher = Diagnose()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(
                x, y, batch_size, epochs=20, verbose=0, callbacks=[watcher]
            )
        told = [
            each
            for each in caught
            if "redict" in str(each.message) or "earning" in str(each.message)
        ]
        assert len(told) == 1
        # On its way down to the prior it may seem to stay above it.
        (found,) = watcher.curve
        assert found.code in ("predicts-prior", "not-learning")


def test_before_100_steps_nothing_is_told():
    model, x, y = mlp(sparse(), shuffled(Y), rate=1e-7)
    assert fit(model, x, y, epochs=9)[0].curve == ()


def test_epochs_of_one_step_are_put_together():
    many = {"epochs": 110, "batch_size": 320}
    model, x, y = mlp(sparse(), Y, rate=1e-7)
    (found,) = fit(model, x, y, **many)[0].curve
    assert found.code == "not-learning"
    model, x, y = mlp(sparse(), Y)
    assert fit(model, x, y, validation_split=0.2, **many)[0].curve == ()


def test_a_fit_that_starts_trained_is_told_nothing():
    model, x, y = mlp(sparse(), Y)
    model.fit(x, y, epochs=40, verbose=0)
    model.optimizer.learning_rate = 1e-9
    assert fit(model, x, y)[0].curve == ()


def test_regularizers_are_no_part_of_what_is_compared():
    model, x, y = mlp(
        sparse(), Y, activity_regularizer=keras.regularizers.L2(2.0)
    )
    assert fit(model, x, y, epochs=20)[0].curve == ()


def test_a_loss_that_is_no_crossentropy_has_no_prior():
    model, x, y = mlp("mse", shuffled(X[:, :1]), units=1, rate=1e-7)
    watcher, said = fit(model, x, y)
    assert watcher.curve == ()
    assert said == []


def test_class_weights_are_part_of_the_prior():
    """Two classes of one weight in all: the best one answer is one half."""
    share = SKEWED.mean()
    weights = {0: 0.5 / (1 - share), 1: 0.5 / share}
    model, x, y = mlp(KERAS_YES_NO, shuffled(SKEWED), units=1, rate=1e-4)
    watcher, _ = fit(model, x, y, class_weight=weights)
    (found,) = watcher.curve
    seen = found.evidence["loss of the frequencies"]
    np.testing.assert_allclose(seen, np.log(2), rtol=0.01)
    model, x, y = mlp(KERAS_YES_NO, SKEWED, units=1)
    assert fit(model, x, y, class_weight=weights)[0].curve == ()


@pytest.mark.parametrize("loss", ["mse", "crossentropy"])
def test_validation_that_rises_is_told_of_any_loss(loss):
    """Few rows, learned by heart, whose labels say nothing."""
    y, units, loss = (
        (shuffled(X[:, :1]), 1, "mse")
        if loss == "mse"
        else (shuffled(Y), 3, sparse())
    )
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(units),
        ]
    )
    compiled(model, loss, keras.optimizers.Adam(0.01))
    options = {"epochs": 110, "validation_data": (X[32:], y[32:])}
    watcher, said = fit(model, X[:32], y[:32], **options)
    assert "overfitting" in [found.code for found in watcher.curve]
    assert "val_loss" in watcher.curve[-1].cure
    assert len(said) == len(watcher.curve)
    exec(watcher.curve[-1].cure, names := {"keras": keras})
    assert names["stop"].restore_best_weights


def test_a_head_that_holds_the_classes_is_read_too():
    model, x, y = with_head(shuffled(Y))
    model.optimizer.learning_rate = 1e-7
    (found,) = fit(model, x, y)[0].curve
    assert found.code == "not-learning"
    model, x, y = with_head(Y)
    model.optimizer.learning_rate = 0.05
    assert fit(model, x, y)[0].curve == ()
