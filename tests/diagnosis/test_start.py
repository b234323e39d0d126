"""The size of the loss: at the start, later, after one step."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import losses
from keras_xent.layers import CosineHead, LinearHead, SimilarityHead
from tests.diagnosis.cases import (
    DENSE,
    FLAGS,
    IDS,
    KERAS_SPARSE,
    ONE_HOT,
    SPARSE,
    YES_NO,
    X,
    codes,
    cured,
    look_at,
    one_tower,
    only,
    run_cure,
    stack,
    twins,
    two_towers,
)
from tests.testing import normal

Dense = layers.Dense
CROSSENTROPY = "sparse_categorical_crossentropy"
SMALL = "adam"  # does not jump, whatever the size of the inputs


def start(scale, end, loss, y):
    """First weights that are so many times larger than usual."""
    model, *case = stack(end, loss=loss, y=y, optimizer=SMALL)
    kernel = model.trainable_variables[0]
    kernel.assign(scale * kernel)
    return model, *case


@twins(
    {
        "logits": (
            lambda: start(50, Dense(3), SPARSE, IDS),
            lambda: start(1, Dense(3), SPARSE, IDS),
        ),
        "logits, Keras": (
            lambda: start(50, Dense(3), KERAS_SPARSE, IDS),
            lambda: start(1, Dense(3), KERAS_SPARSE, IDS),
        ),
        "probabilities": (
            lambda: start(50, Dense(3, "softmax"), CROSSENTROPY, IDS),
            lambda: start(1, Dense(3, "softmax"), CROSSENTROPY, IDS),
        ),
        "one-hot": (
            lambda: start(50, Dense(3), DENSE, ONE_HOT),
            lambda: start(1, Dense(3), DENSE, ONE_HOT),
        ),
        "yes or no": (
            lambda: start(50, Dense(1), YES_NO, FLAGS),
            lambda: start(1, Dense(1), YES_NO, FLAGS),
        ),
        "pairs without a bias": (
            lambda: two_towers(losses.SigmoidContrastive(bias=0.0)),
            lambda: two_towers(losses.SigmoidContrastive()),
        ),
        "a linear head": (
            lambda: start(50, LinearHead(3), losses.LinearCrossentropy(), IDS),
            lambda: start(1, LinearHead(3), losses.LinearCrossentropy(), IDS),
        ),
        "a focal loss": (
            lambda: start(
                50, Dense(1, "sigmoid"), "binary_focal_crossentropy", FLAGS
            ),
            lambda: start(
                1, Dense(1, "sigmoid"), "binary_focal_crossentropy", FLAGS
            ),
        ),
        "label smoothing": (
            lambda: start(
                50,
                Dense(3),
                losses.SoftmaxCrossentropy(label_smoothing=0.1),
                ONE_HOT,
            ),
            lambda: start(
                1,
                Dense(3),
                losses.SoftmaxCrossentropy(label_smoothing=0.1),
                ONE_HOT,
            ),
        ),
    }
)
def test_initial_loss(broken, healthy):
    assert "initial-loss" in codes(*broken())
    assert set(codes(*broken())) <= {"initial-loss", "saturated"}
    assert codes(*healthy()) == []


def test_the_loss_is_compared_with_the_logarithm_of_the_classes():
    model, x, y, _ = start(50, Dense(3), SPARSE, IDS)
    found = only(model, x, y)
    assert found.severity == "warning"
    assert found.evidence["log(classes)"] == pytest.approx(np.log(3))
    measured = model.evaluate(x, y, verbose=0)
    assert found.evidence["loss"] == pytest.approx(measured, rel=1e-5)
    p = np.bincount(IDS) / 32
    entropy = -np.sum(p * np.log(p))
    assert found.evidence["loss of the frequencies"] == pytest.approx(entropy)


def test_after_the_first_step_it_is_no_start():
    model, x, y, _ = start(50, Dense(3), SPARSE, IDS)
    model.optimizer.iterations.assign(1)
    assert codes(model, x, y) == []


def trained(end, loss, x, y, kernel=0.01):
    """100 steps later: what they lead to, or the kernel as it is given."""
    model, *_ = stack(end, loss=loss, x=x, y=y)
    share = np.mean(ONE_HOT if len(y.shape) == 1 else y, axis=0)
    bias = np.log(share / (1 - share) if len(share) == 1 else share)
    small = kernel * normal(4, len(share)) if np.isscalar(kernel) else kernel
    model.set_weights([small, bias])
    model.optimizer.iterations.assign(100)
    return model, x, y


RARE = np.array([[1], [0], [0], [0]] * 8)
SEEN = np.eye(4, dtype="float32")[IDS]
RARE_SEEN = np.eye(4, dtype="float32")[1 - RARE[:, 0]]
RIGHT = 3 * np.eye(4, 3)
TO_RARE = 3 * np.eye(4, 1)


@twins(
    {
        "ids": (
            lambda: trained(Dense(3), SPARSE, X, IDS),
            lambda: trained(Dense(3), SPARSE, SEEN, IDS, RIGHT),
        ),
        "probabilities": (
            lambda: trained(Dense(3, "softmax"), CROSSENTROPY, X, IDS),
            lambda: trained(
                Dense(3, "softmax"), CROSSENTROPY, SEEN, IDS, RIGHT
            ),
        ),
        "one-hot": (
            lambda: trained(Dense(3), DENSE, X, ONE_HOT),
            lambda: trained(Dense(3), DENSE, SEEN, ONE_HOT, RIGHT),
        ),
        "yes or no": (
            lambda: trained(Dense(1), YES_NO, X, RARE),
            lambda: trained(Dense(1), YES_NO, RARE_SEEN, RARE, TO_RARE),
        ),
        "yes or no, of probabilities": (
            lambda: trained(
                Dense(1, "sigmoid"), "binary_crossentropy", X, RARE
            ),
            lambda: trained(
                Dense(1, "sigmoid"),
                "binary_crossentropy",
                RARE_SEEN,
                RARE,
                TO_RARE,
            ),
        ),
    }
)
def test_predicts_prior(broken, healthy):
    assert codes(*broken()) == ["predicts-prior"]
    assert codes(*healthy()) == []


def test_the_loss_of_the_prior_is_its_entropy():
    x, y = np.tile(0 * X + 1, (100, 1)), np.tile(RARE, (100, 1))
    model, *_ = stack(Dense(1), loss=YES_NO, y=RARE, optimizer=sgd(0.5))
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    found = only(model, X / 1000 + 1, RARE)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert found.code == "predicts-prior"
    assert found.evidence["entropy of the labels"] == pytest.approx(entropy)
    assert found.evidence["loss"] == pytest.approx(entropy, rel=1e-3)
    assert found.evidence["steps"] == 100


def test_before_100_steps_a_prior_is_no_wonder():
    model, x, y = trained(Dense(3), SPARSE, X, IDS)
    model.optimizer.iterations.assign(99)
    assert codes(model, x, y) == []


def with_rate(optimizer, rate, loss=SPARSE):
    return stack(Dense(3), loss=loss, optimizer=optimizer(rate))


@twins(
    {
        "SGD": (
            lambda: with_rate(keras.optimizers.SGD, 1000.0),
            lambda: with_rate(keras.optimizers.SGD, 0.1),
        ),
        "Adam": (
            lambda: with_rate(keras.optimizers.Adam, 100.0),
            lambda: with_rate(keras.optimizers.Adam, 0.01),
        ),
        "a schedule": (
            lambda: with_rate(
                lambda rate: keras.optimizers.Adam(
                    keras.optimizers.schedules.CosineDecay(rate, 100)
                ),
                100.0,
            ),
            lambda: with_rate(
                lambda rate: keras.optimizers.Adam(
                    keras.optimizers.schedules.CosineDecay(rate, 100)
                ),
                0.01,
            ),
        ),
        "squares": (
            lambda: stack(
                Dense(1), loss="mse", y=X[:, :1], optimizer=sgd(100.0)
            ),
            lambda: stack(Dense(1), loss="mse", y=X[:, :1], optimizer=sgd(0.1)),
        ),
        "infinitely far": (
            lambda: stack(
                Dense(1), loss="mse", y=X[:, :1], optimizer=sgd(1e30)
            ),
            lambda: stack(Dense(1), loss="mse", y=X[:, :1], optimizer=sgd(0.1)),
        ),
        "a sum over rows": (
            lambda: with_rate(
                keras.optimizers.SGD,
                30.0,
                losses.SparseSoftmaxCrossentropy(reduction="sum"),
            ),
            lambda: with_rate(
                keras.optimizers.SGD,
                0.01,
                losses.SparseSoftmaxCrossentropy(reduction="sum"),
            ),
        ),
    }
)
def test_step_too_large(broken, healthy):
    assert codes(*broken()) == ["step-too-large"]
    assert codes(*healthy()) == []


sgd = keras.optimizers.SGD
schedules = keras.optimizers.schedules


def warm_up(highest):
    return keras.optimizers.Adam(
        schedules.CosineDecay(0.0, 100, warmup_target=highest, warmup_steps=50)
    )


@twins(
    {
        "0": (lambda: with_rate(sgd, 0.0), lambda: with_rate(sgd, 0.01)),
        "next to 0": (
            lambda: with_rate(keras.optimizers.Adam, 1e-9),
            lambda: with_rate(keras.optimizers.Adam, 1e-5),
        ),
        "a warm-up that never rises": (
            lambda: with_rate(warm_up, 0.0),
            lambda: with_rate(warm_up, 0.01),
        ),
        "of a large gradient": (
            lambda: stack(
                Dense(1), loss="mse", y=X[:, :1], optimizer=sgd(1e-12)
            ),
            lambda: stack(
                Dense(1), loss="mse", y=1e6 * X[:, :1], optimizer=sgd(1e-8)
            ),
        ),
    }
)
def test_step_too_small(broken, healthy):
    model, x, y, *_ = broken()
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.code == "step-too-small"
    assert found.where.startswith("optimizer")
    assert run_cure(report, {"model": model, "x": x, "y": y}).findings == ()
    assert codes(*healthy()) == []


def towers(x, scaled=False):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    seen = inputs
    if scaled:
        seen = [layers.BatchNormalization()(each) for each in inputs]
    model = keras.Model(inputs, Dense(3)(layers.Concatenate()(seen)))
    model.compile(SMALL, SPARSE)
    return model, [X, x], IDS


PIXELS = np.random.RandomState(0).randint(0, 256, (32, 6, 6, 1))
TABLE = X * np.array([1, 1, 1, 5000], "float32")


def pixels(x, *before):
    return stack(
        *before, layers.Flatten(), Dense(3), loss=SPARSE, x=x, optimizer=SMALL
    )


@twins(
    {
        "pixels": (
            lambda: pixels(PIXELS),
            lambda: pixels(PIXELS, layers.Rescaling(1 / 255)),
        ),
        "one large column": (
            lambda: stack(Dense(3), loss=SPARSE, x=TABLE, optimizer=SMALL),
            lambda: stack(
                layers.BatchNormalization(),
                Dense(3),
                loss=SPARSE,
                x=TABLE,
                optimizer=SMALL,
            ),
        ),
        "one of two inputs": (
            lambda: towers(50 * X),
            lambda: towers(50 * X, scaled=True),
        ),
        "squares": (
            lambda: stack(
                Dense(1), loss="mse", x=TABLE, y=X[:, :1], optimizer=SMALL
            ),
            lambda: stack(
                layers.BatchNormalization(),
                Dense(1),
                loss="mse",
                x=TABLE,
                y=X[:, :1],
                optimizer=SMALL,
            ),
        ),
        "numbers": (
            lambda: stack(Dense(3), loss=SPARSE, x=50 * X, optimizer="sgd"),
            lambda: stack(Dense(3), loss=SPARSE, optimizer="sgd"),
        ),
    }
)
def test_unscaled_inputs(broken, healthy):
    model, x, y, *_ = broken()
    report = look_at(model, x, y)
    assert [found.code for found in report.findings] == ["unscaled-inputs"]
    assert run_cure(report, {"model": model, "x": x, "y": y}).findings == ()
    assert codes(*healthy()) == []


def test_it_names_the_rate_and_the_losses_of_a_real_step():
    model, x, y, _ = with_rate(sgd, 1000.0)
    found = only(model, x, y)
    assert found.evidence["learning rate"] == 1000.0
    assert "SGD(0.01)" in found.cure
    before = model.evaluate(x, y, verbose=0)
    assert found.evidence["loss before"] == pytest.approx(before, rel=1e-5)
    model.train_on_batch(x, y)
    after = model.evaluate(x, y, verbose=0)
    assert found.evidence["loss after one step"] == pytest.approx(
        after, rel=1e-4
    )


def test_the_cure_of_pairs_without_a_bias():
    found = only(*two_towers(losses.SigmoidContrastive(bias=0.0)))
    assert codes(*two_towers(cured(found)["loss"])) == []
    head = SimilarityHead(temperature=0.1, bias=0.0)
    found = only(*two_towers(losses.SigmoidContrastive(), head))
    head = cured(found)["head"]
    assert codes(*two_towers(losses.SigmoidContrastive(), head)) == []


def test_half_of_the_pairs_may_begin_as_matches_where_half_of_them_are():
    loss = losses.SigmoidContrastive(temperature=1.0, bias=0.0)
    assert codes(*one_tower(loss, y=np.arange(32) % 2)) == []
    found = only(*one_tower(loss, y=np.arange(32) // 2))
    assert found.code == "initial-loss"
    share = 1 / 16
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert found.evidence["loss of the share of matches"] == pytest.approx(
        32 * entropy
    )


@pytest.mark.parametrize(
    "margin", [{}, {"angular_margin": 0.5}, {"cosine_margin": 0.35}]
)
def test_a_cosine_head_is_sure_by_design(margin):
    """Its scale makes a loss far above log(3), whatever the inputs."""
    loss = losses.LinearCrossentropy()
    case = stack(
        Dense(2), CosineHead(3, scale=64.0, **margin), loss=loss, x=50 * X
    )
    assert case[0].evaluate(50 * X, IDS, verbose=0) > 5 * np.log(3)
    assert codes(*case) == []
