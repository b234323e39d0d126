"""Gradients that vanish, explode or never reach a layer."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent import losses
from tests.diagnosis.cases import (
    IDS,
    ONE_HOT,
    SPARSE,
    X,
    codes,
    compiled,
    computed,
    look_at,
    only,
    stack,
    twins,
)

Dense = layers.Dense
NUMBERS = X[:, :1]
SURE = "sparse_categorical_crossentropy"


class Extra(keras.Model):
    """A model with a layer that it makes and does not use."""

    def __init__(self, used):
        super().__init__()
        self.first, self.spare = Dense(3), Dense(3)
        self.used = used

    def build(self, shape):
        self.first.build(shape)
        self.spare.build(shape)

    def call(self, x):
        y = self.first(x)
        return y + self.spare(x) if self.used else y


def extra(used):
    model = Extra(used)
    model(X)
    return compiled(model, SPARSE), X, IDS


def two_ends(loss):
    inputs = keras.Input((4,))
    ends = [Dense(3, name="a")(inputs), Dense(3, name="b")(inputs)]
    return compiled(keras.Model(inputs, ends), loss), X, [IDS, IDS]


def clipped(low):
    inputs = keras.Input((4,))
    outputs = Dense(1)(ops.clip(Dense(5)(inputs), low, 9.0))
    return compiled(keras.Model(inputs, outputs), "mse", "adam"), X, NUMBERS


def hidden(*each):
    return stack(*each, Dense(3), loss=SPARSE)


@twins(
    {
        "argmax": (
            lambda: computed(
                3,
                lambda x: ops.cast(ops.argmax(x, -1, True), "float32"),
                "mse",
                y=NUMBERS,
            ),
            lambda: computed(
                3, lambda x: ops.max(x, -1, True), "mse", y=NUMBERS
            ),
        ),
        "a clip": (lambda: clipped(8.0), lambda: clipped(-9.0)),
        "round": (
            lambda: computed(1, ops.round, "mse", y=NUMBERS),
            lambda: computed(1, lambda x: x, "mse", y=NUMBERS),
        ),
        "a comparison": (
            lambda: computed(
                1,
                lambda x: ops.cast(x > 0, "float32"),
                "mse",
                y=np.clip(NUMBERS, 0, 1),
            ),
            lambda: computed(1, ops.sigmoid, "mse", y=np.clip(NUMBERS, 0, 1)),
        ),
        "stop_gradient": (
            lambda: computed(3, ops.stop_gradient, SPARSE),
            lambda: computed(3, lambda x: x, SPARSE),
        ),
        "an unused layer": (lambda: extra(False), lambda: extra(True)),
        "an output without a loss": (
            lambda: two_ends([SPARSE, None]),
            lambda: two_ends([SPARSE, SPARSE]),
        ),
        "dead ReLU": (
            lambda: hidden(Dense(5, "relu", bias_initializer=minus(100))),
            lambda: hidden(Dense(5, "relu")),
        ),
        "dead ReLU, as a layer": (
            lambda: hidden(
                Dense(5, bias_initializer=minus(100)), layers.ReLU()
            ),
            lambda: hidden(Dense(5), layers.ReLU()),
        ),
        "dead ReLU at the end": (
            lambda: stack(
                Dense(1, "relu", bias_initializer=minus(100)),
                loss="mse",
                y=abs(NUMBERS),
            ),
            lambda: stack(Dense(1, "relu"), loss="mse", y=abs(NUMBERS)),
        ),
    }
)
def test_dead_gradient(broken, healthy):
    assert codes(*broken()) == ["dead-gradient"]
    assert codes(*healthy()) == []


def minus(number):
    return keras.initializers.Constant(-number)


def test_a_dead_model_is_an_error_and_a_dead_layer_a_warning():
    whole = only(*computed(3, ops.stop_gradient, SPARSE))
    assert (whole.severity, whole.where) == ("error", "the whole model")
    part = only(*extra(False))
    assert part.severity == "warning"
    assert part.evidence["layers without a gradient"] == 1
    assert part.evidence["of"] == 2


def test_frozen_layers_need_no_gradient():
    model, x, y, _ = hidden(Dense(5, "relu", name="frozen"))
    model.get_layer("frozen").trainable = False
    assert codes(compiled(model, SPARSE), x, y) == []


def changed(array, value, rows=(3, 30)):
    array = np.array(array, "float32")
    array[list(rows)] = value
    return array


class Logs(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return -ops.log(y_pred)


def length(least):
    """The norm of a vector: its slope at 0 is infinite."""
    return lambda x: ops.sqrt(ops.sum(x * x, -1, keepdims=True) + least)


# On JAX NumPy takes what overflows to 16 bits, and says so.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@twins(
    {
        "NaN in x": (
            lambda: stack(Dense(3), loss=SPARSE, x=changed(X, np.nan)),
            lambda: stack(Dense(3), loss=SPARSE, x=changed(X, 0.0)),
        ),
        "inf in x": (
            lambda: stack(Dense(3), loss=SPARSE, x=changed(X, np.inf)),
            lambda: stack(Dense(3), loss=SPARSE, x=changed(X, 1.0)),
        ),
        "NaN in y": (
            lambda: stack(Dense(1), loss="mse", y=changed(NUMBERS, np.nan)),
            lambda: stack(Dense(1), loss="mse", y=changed(NUMBERS, 0.0)),
        ),
        "NaN in yes and no": (
            lambda: stack(
                Dense(1),
                loss=losses.SigmoidCrossentropy(),
                y=changed(NUMBERS > 0, np.nan),
            ),
            lambda: stack(
                Dense(1),
                loss=losses.SigmoidCrossentropy(),
                y=changed(NUMBERS > 0, 0.5),
            ),
        ),
        "NaN in weights of rows": (
            lambda: stack(
                Dense(1),
                loss="mse",
                y=NUMBERS,
                weight=changed(np.ones(32), np.nan),
            ),
            lambda: stack(
                Dense(1),
                loss="mse",
                y=NUMBERS,
                weight=changed(np.ones(32), 0.0),
            ),
        ),
        "log of a negative": (
            lambda: computed(1, ops.log, "mse", y=NUMBERS),
            lambda: computed(
                1, lambda x: ops.log(ops.maximum(x, 0.01)), "mse", y=NUMBERS
            ),
        ),
        "log of 0 in a loss": (
            lambda: stack(Dense(1, "relu"), loss=Logs(), y=NUMBERS),
            lambda: stack(Dense(1, "softplus"), loss=Logs(), y=NUMBERS),
        ),
        "the slope of a norm": (
            lambda: computed(
                3, length(0.0), "mse", x=changed(X, 0.0), y=NUMBERS
            ),
            lambda: computed(
                3, length(1e-6), "mse", x=changed(X, 0.0), y=NUMBERS
            ),
        ),
        "a mask over a whole row": (
            lambda: attention(-np.inf),
            lambda: attention(-1e9),
        ),
        "broken weights": (
            lambda: broken_weights(np.nan),
            lambda: broken_weights(0.1),
        ),
        "an overflow": (
            lambda: halves(1e5),
            lambda: halves(1.0),
        ),
    }
)
def test_nonfinite_gradient(broken, healthy):
    assert codes(*broken()) == ["nonfinite-gradient"]
    assert codes(*healthy()) == []


def test_a_label_of_nan_is_found_in_any_row():
    model, x, y, _ = stack(
        Dense(1), loss="mse", y=changed(NUMBERS, np.nan, [3])
    )
    (row,) = np.flatnonzero(np.isnan(y))
    order = np.roll(np.arange(32), 1 - row)  # The second: two others are run.
    assert codes(model, x[order], y[order], batch_size=2) == [
        "nonfinite-gradient"
    ]
    model.compile("sgd", known_only)
    assert codes(model, x[order], y[order], batch_size=2) == []


def known_only(y, y_pred):
    """NaN stands for what was not measured."""
    known = ops.logical_not(ops.isnan(y))
    return ops.where(known, ops.square(ops.where(known, y, 0.0) - y_pred), 0.0)


def attention(fill):
    def scores(x):
        barred = np.zeros((1, 3), "float32") + (np.arange(32)[:, None] == 7)
        return ops.softmax(ops.where(barred > 0, fill, x))

    return computed(3, scores, SURE)


def broken_weights(value):
    model, x, y, _ = stack(Dense(5, "relu"), Dense(3), loss=SPARSE)
    model.layers[0].kernel.assign(
        np.where(np.arange(5) == 2, value, model.layers[0].kernel)
    )
    return model, x, y


def halves(scale):
    """65504 is the largest number in float16."""
    policy = keras.dtype_policies.DTypePolicy("float16")
    return stack(
        layers.Rescaling(scale, dtype=policy),
        Dense(3, dtype=policy),
        layers.Activation("linear", dtype="float32"),
        loss=SPARSE,
    )


def test_it_says_where_it_begins():
    x = only(*stack(Dense(3), loss=SPARSE, x=changed(X, np.nan)))
    assert x.where == "the data, x"
    assert x.evidence["rows"] == [3, 30]
    y = only(*stack(Dense(1), loss="mse", y=changed(NUMBERS, np.inf)))
    assert y.where == "the data, y"
    model, *data = broken_weights(np.nan)
    weight = only(model, *data)
    assert weight.where == f"weight {model.layers[0].kernel.path!r}"
    log = layers.Lambda(ops.log, name="log")
    model, *data = computed(1, log, "mse", y=NUMBERS)
    layer = only(model, *data)
    assert layer.where == "layer 'log'"
    values = ops.convert_to_numpy(model.dense(X))[:, 0]
    assert layer.evidence["rows"] == np.flatnonzero(values < 0)[:5].tolist()


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (lambda: computed(1, ops.log, "mse", y=NUMBERS), "in a `call`"),
        (lambda: attention(-np.inf), "in a `call`"),
    ],
)
def test_a_call_whose_operations_are_not_seen_is_named(broken, word):
    assert word in only(*broken()).cause


def wide(activation, scale):
    kernel = keras.initializers.RandomNormal(stddev=scale, seed=1)
    return hidden(
        Dense(50, activation, kernel_initializer=kernel), Dense(5, "tanh")
    )


CONFIDENT = np.eye(3, dtype="float32")[IDS]


def confident(loss, right, scale=200.0):
    """Sure of an answer, after a step: no start any more."""
    activation = None if loss is SPARSE else "softmax"
    model, *_ = stack(Dense(3, activation), loss=loss, x=CONFIDENT)
    model.layers[0].kernel.assign(scale * np.eye(3, dtype="float32"))
    model.optimizer.iterations.assign(1)
    wrong = (IDS + 1) % 3
    y = np.where(np.arange(32) < right, IDS, wrong)
    return model, CONFIDENT, y


@pytest.mark.parametrize("rows", [8, 32])
def test_a_layer_of_few_outputs_is_not_called_saturated(rows):
    """99 % of less than 100 numbers is one of them."""
    model, *data, _ = hidden(Dense(5, "tanh"))
    report = look_at(model, *data, batch_size=rows)
    assert ("saturated" in report.unchecked) == (rows == 8)
    assert ("saturated" in report.checked) == (rows == 32)


@twins(
    {
        "tanh": (lambda: wide("tanh", 300.0), lambda: wide("tanh", 0.5)),
        "sigmoid": (lambda: wide("sigmoid", 1e3), lambda: wide("sigmoid", 0.5)),
        "hard sigmoid": (
            lambda: wide("hard_sigmoid", 300.0),
            lambda: wide("hard_sigmoid", 0.5),
        ),
        "relu6": (lambda: wide("relu6", 300.0), lambda: wide("relu6", 0.5)),
        "wrong and sure, clipped": (
            lambda: confident(SURE, right=0, scale=30.0),
            lambda: confident(SPARSE, right=0, scale=30.0),
        ),
        "a loss that clips": (
            lambda: stack(Dense(3), loss=Clipped(), y=SMOOTH),
            lambda: stack(Dense(3, "softmax"), loss=Clipped(), y=SMOOTH),
        ),
    }
)
def test_saturated(broken, healthy):
    assert codes(*broken()) == ["saturated"]
    assert codes(*healthy()) == []


SMOOTH = 0.7 * ONE_HOT + 0.1


class Clipped(keras.losses.Loss):
    """Made for probabilities: flat outside [0, 1]."""

    def call(self, y_true, y_pred):
        y_pred = ops.clip(y_pred, 1e-7, 1.0)
        return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


class OneEntry(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return -ops.sum(y_true * ops.log(y_pred), axis=-1)


@pytest.mark.parametrize("rows", [1, 2, 32])
@pytest.mark.parametrize(
    ("end", "loss"),
    [("softmax", OneEntry()), (None, keras.losses.CategoricalHinge())],
)
def test_a_loss_of_few_entries_is_not_flat(end, loss, rows):
    y = np.eye(9)[np.arange(rows) % 9]
    assert codes(*stack(Dense(9, end), loss=loss, x=X[:rows], y=y)) == []


@pytest.mark.parametrize(
    "ends",
    [
        [Dense(4, "sigmoid"), layers.Reshape((2, 2)), layers.Flatten()],
        [
            layers.Reshape((1, 4)),
            layers.TimeDistributed(Dense(4, "sigmoid")),
            layers.Flatten(),
        ],
    ],
)
def test_sure_answers_in_another_shape_are_no_saturated_layer(ends):
    model, x, *_ = stack(*ends, loss="binary_crossentropy")
    kernel = 1e6 * np.eye(4, dtype="float32")
    model.trainable_variables[0].assign(kernel)
    assert codes(model, x, x > 0) == []


def test_a_layer_that_begins_at_0_is_not_saturated():
    zeros = Dense(5, "tanh", kernel_initializer="zeros")
    assert codes(*hidden(zeros)) == []


def test_what_is_small_is_not_stuck():
    assert codes(*confident(SURE, right=32)) == []


def equal(kernel, *ends):
    return stack(
        Dense(5, "tanh", kernel_initializer=kernel),
        Dense(5, "tanh", kernel_initializer=kernel),
        Dense(3, kernel_initializer=kernel),
        loss=SPARSE,
    )


@twins(
    {
        "zeros": (lambda: equal("zeros"), lambda: equal("glorot_uniform")),
        "ones": (lambda: equal("ones"), lambda: equal("he_normal")),
        "a filter": (lambda: filters("zeros"), lambda: filters("he_normal")),
    }
)
def test_zero_initialized(broken, healthy):
    assert codes(*broken()) == ["zero-initialized"]
    assert codes(*healthy()) == []


def test_all_layers_of_zeros_are_named():
    model, *case = equal("zeros")
    found = only(model, *case)
    names = [layer.name for layer in model.layers]
    named = [path.rpartition("/")[2] for path in found.evidence["layers"]]
    assert named == names
    assert found.evidence["largest weight"] == 0


def filters(kernel):
    x = X.reshape(8, 4, 4, 1)
    return stack(
        layers.Conv2D(2, 2, activation="tanh", kernel_initializer=kernel),
        layers.Flatten(),
        Dense(3, kernel_initializer="zeros" if kernel == "zeros" else kernel),
        loss=SPARSE,
        x=x,
        y=IDS[:8],
    )
