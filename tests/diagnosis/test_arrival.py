"""Whether the gradient reaches all layers, and why it does not."""

import types

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent.diagnosis import arrival
from tests.diagnosis.cases import (
    IDS,
    SPARSE,
    X,
    codes,
    compiled,
    computed,
    look_at,
    only,
    run_cure,
    stack,
    twins,
)
from tests.diagnosis.test_flow import NUMBERS, clipped, extra, minus, two_ends

Dense = layers.Dense


def frozen(*each):
    model, x, y, _ = stack(Dense(5, "tanh"), Dense(3), loss=SPARSE)
    for layer in each or [model]:
        layer = model if layer is model else model.layers[layer]
        layer.trainable = False
    return model, x, y


@twins(
    {
        "the model": (frozen, lambda: frozen(0)),
        "each layer": (lambda: frozen(0, 1), lambda: frozen(0)),
    }
)
def test_nothing_trainable(broken, healthy):
    model, x, y = broken()
    report = look_at(model, x, y)
    (found,) = report.findings
    assert (found.code, found.where) == ("nothing-trainable", "the whole model")
    assert run_cure(report, {"model": model, "x": x, "y": y}).findings == ()
    assert codes(*healthy()) == []


def deep(activation, count=12):
    many = [Dense(16, activation) for _ in range(count)]
    return stack(*many, Dense(3), loss=SPARSE, optimizer="adam")


def within(activation):
    """The same layers in a model within a model."""
    body = keras.Sequential([Dense(16, activation) for _ in range(12)])
    return stack(body, Dense(3), loss=SPARSE, optimizer="adam")


@twins(
    {
        "sigmoid": (lambda: deep("sigmoid"), lambda: deep("selu")),
        "nested": (lambda: within("sigmoid"), lambda: within("selu")),
        "many": (lambda: deep("sigmoid", 70), lambda: deep("sigmoid", 2)),
        "hard": (lambda: deep("hard_sigmoid"), lambda: deep("relu")),
    }
)
def test_vanishing_gradient(broken, healthy):
    model, x, y, _ = broken()
    report = look_at(model, x, y)
    assert [each.code for each in report.findings] == ["vanishing-gradient"]
    assert run_cure(report, {"model": model, "x": x, "y": y}).findings == ()
    assert codes(*healthy()) == []


def test_small_first_weights_leave_the_gradient_to_the_last_bias():
    small = [keras.initializers.RandomNormal(0, 0.01, seed=i) for i in range(9)]
    inner = [Dense(4, "tanh", kernel_initializer=each) for each in small]
    broken = stack(*inner, Dense(3), loss=SPARSE)
    assert codes(*broken) == ["vanishing-gradient"]


def with_gradients(*sizes):
    """What is seen of a stack whose kernels have gradients of these sizes."""
    model, *_ = deep("sigmoid", len(sizes) - 1)
    kernels = [layer.kernel for layer in model.layers]
    gradients = [
        (kernel, np.full(kernel.shape, size))
        for kernel, size in zip(kernels, sizes, strict=True)
    ]
    return types.SimpleNamespace(model=model, gradients=gradients, layers=[])


@pytest.mark.parametrize(
    ("first", "second", "is_found"),
    [(1e-8, 3e-8, True), (5e-8, 3e-8, True), (1e-6, 1e-3, False)],
)
def test_a_gradient_that_fades_may_rise_a_little(first, second, is_found):
    seen = with_gradients(first, second, 2e-5, 1e-3, 1e-2, 0.1, 1.0)
    assert bool([*arrival.vanishing(seen)]) is is_found


def rounded(function, y=NUMBERS, units=1, end="sigmoid", loss="mse"):
    inputs = keras.Input((4,))
    outputs = function(Dense(units, end)(inputs))
    return compiled(keras.Model(inputs, outputs), loss), X, y


def dead():
    return stack(
        Dense(5, "relu", bias_initializer=minus(100)), Dense(3), loss=SPARSE
    )


def normalized(rows):
    case = stack(Dense(5), layers.BatchNormalization(), Dense(3), loss=SPARSE)
    return case[0], X[:rows], IDS[:rows]


# The broken model and a word of the cause.
CAUSES = {
    "batch normalization": (lambda: normalized(1), "BatchNormalization"),
    "dead units": (dead, "ReLU units are dead"),
    "dead units in a call": (
        lambda: computed(3, lambda x: Dense(3)(ops.relu(x - 100)), SPARSE),
        "",
    ),
    "a layer that is not called": (lambda: extra(False), "does not call"),
    "an output without a loss": (
        lambda: two_ends([SPARSE, None]),
        "does not use",
    ),
    "round": (lambda: rounded(ops.round, (X[:, :1] > 0) * 1.0), "'round'"),
    "argmax": (
        lambda: rounded(
            lambda x: ops.cast(ops.argmax(x, -1, True), "float32"),
            IDS[:, None].astype("float32"),
            3,
            None,
        ),
        "'argmax'",
    ),
    "stop_gradient": (
        lambda: rounded(ops.stop_gradient, (X[:, :1] > 0) * 1.0),
        "on purpose",
    ),
}
del CAUSES["dead units in a call"]


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_of_no_gradient(name):
    case, word = CAUSES[name]
    model, x, y, *_ = case()
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.code == "dead-gradient"
    assert word in found.cause
    assert run_cure(report, {"model": model, "x": x, "y": y}).findings == ()


def test_a_clip_that_nothing_gets_through_is_named():
    assert "beyond the bounds of 'clip" in only(*clipped(8.0)).cause


def towers(rows):
    tower = Dense(8)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    left, right = map(tower, inputs)
    model = keras.Model(inputs, ops.matmul(left, ops.transpose(right)))

    def loss(_, scores):
        return keras.losses.sparse_categorical_crossentropy(
            ops.arange(ops.shape(scores)[0]), scores, from_logits=True
        )

    x = [X[:rows], X[:rows]]
    return compiled(model, loss), x, np.zeros((rows, 1))


def test_a_single_row_has_nothing_to_be_compared_with():
    (found,) = look_at(*towers(1)).findings
    assert "compares the rows" in found.cause
    assert codes(*towers(8)) == []


def test_what_is_multiplied_by_0_has_no_gradient():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    ends = [Dense(3, use_bias=False)(each) for each in inputs]
    model = compiled(keras.Model(inputs, layers.Add()(ends)), SPARSE)
    (found,) = look_at(model, [X, 0 * X], IDS).findings
    assert "x[1] is 0" in found.cause
    assert codes(model, [X, X], IDS) == []
