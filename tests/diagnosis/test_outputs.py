"""Logits and probabilities, each where the other is expected."""

import keras
import numpy as np
from keras import layers, ops

from keras_xent import losses
from tests.diagnosis.cases import (
    DENSE,
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
    computed,
    only,
    stack,
    twins,
)
from tests.testing import normal

Dense = layers.Dense


def functional(end, loss, y=IDS, units=3):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, end(Dense(units)(inputs)))
    return compiled(model, loss), X, y


def nested(activation):
    inner = keras.Sequential([keras.Input((4,)), Dense(3, activation)])
    return stack(inner, loss=SPARSE)


def steps(activation):
    """A class for each step of a sequence."""
    x = normal(8, 5, 4)
    y = np.arange(40).reshape(8, 5) % 3
    return stack(Dense(3, activation), loss=SPARSE, x=x, y=y)


def channels_first(end):
    x = normal(8, 4, 5)
    y = np.arange(40).reshape(8, 5) % 3
    loss = losses.SparseSoftmaxCrossentropy(axis=1)
    return stack(Dense(5), *end, loss=loss, x=x, y=y)


def half(activation, dtype):
    policy = keras.dtype_policies.DTypePolicy(dtype)
    return stack(
        Dense(3, dtype=policy),
        layers.Activation(activation, dtype="float32"),
        loss=SPARSE,
    )


SEQUENCES = normal(8, 5, 4)


@twins(
    {
        "by the activation": (
            lambda: stack(Dense(3, "softmax"), loss=SPARSE),
            lambda: stack(Dense(3), loss=SPARSE),
        ),
        "by a layer": (
            lambda: stack(Dense(3), layers.Softmax(), loss=KERAS_SPARSE),
            lambda: stack(Dense(3), loss=KERAS_SPARSE),
        ),
        "by an activation layer": (
            lambda: stack(
                Dense(3),
                layers.Activation("softmax"),
                loss=KERAS_DENSE,
                y=ONE_HOT,
            ),
            lambda: stack(
                Dense(3),
                layers.Activation("linear"),
                loss=KERAS_DENSE,
                y=ONE_HOT,
            ),
        ),
        "by an operation in the graph": (
            lambda: functional(ops.softmax, DENSE, ONE_HOT),
            lambda: functional(lambda x: x, DENSE, ONE_HOT),
        ),
        "in the model's own call": (
            lambda: computed(3, ops.softmax, KERAS_SPARSE),
            lambda: computed(3, ops.log_softmax, KERAS_SPARSE),
        ),
        "by a function without a name": (
            lambda: stack(Dense(3, lambda x: ops.softmax(x)), loss=SPARSE),
            lambda: stack(Dense(3, lambda x: 2 * x), loss=SPARSE),
        ),
        "before the layer that casts to float32": (
            lambda: stack(
                Dense(3, "softmax"), layers.Activation("linear"), loss=SPARSE
            ),
            lambda: stack(Dense(3), layers.Activation("linear"), loss=SPARSE),
        ),
        "in a model within": (lambda: nested("softmax"), lambda: nested(None)),
        "at each step": (lambda: steps("softmax"), lambda: steps(None)),
        "along another axis": (
            lambda: channels_first([layers.Softmax(axis=1)]),
            lambda: channels_first([]),
        ),
        "in bfloat16": (
            lambda: half("softmax", "mixed_bfloat16"),
            lambda: half("linear", "mixed_bfloat16"),
        ),
        "softmax after softmax": (
            lambda: stack(
                Dense(3, "softmax"),
                layers.Softmax(),
                loss="sparse_categorical_crossentropy",
            ),
            lambda: stack(
                Dense(3, "softmax"), loss="sparse_categorical_crossentropy"
            ),
        ),
        "focal": (
            lambda: stack(
                Dense(3, "softmax"),
                loss=keras.losses.CategoricalFocalCrossentropy(
                    from_logits=True
                ),
                y=ONE_HOT,
            ),
            lambda: stack(
                Dense(3, "softmax"),
                loss=keras.losses.CategoricalFocalCrossentropy(),
                y=ONE_HOT,
            ),
        ),
        "sigmoid": (
            lambda: stack(Dense(1, "sigmoid"), loss=YES_NO, y=FLAGS),
            lambda: stack(Dense(1), loss=YES_NO, y=FLAGS),
        ),
        "sigmoid, Keras": (
            lambda: stack(Dense(1, "sigmoid"), loss=KERAS_YES_NO, y=FLAGS),
            lambda: stack(
                Dense(1, "sigmoid"), loss="binary_crossentropy", y=FLAGS
            ),
        ),
        "sigmoid at each step": (
            lambda: stack(
                layers.TimeDistributed(Dense(1, "sigmoid")),
                loss=YES_NO,
                x=SEQUENCES,
                y=SEQUENCES[..., :1] > 0,
            ),
            lambda: stack(
                layers.TimeDistributed(Dense(1)),
                loss=YES_NO,
                x=SEQUENCES,
                y=SEQUENCES[..., :1] > 0,
            ),
        ),
        "sigmoid in the model's own call": (
            lambda: computed(1, ops.sigmoid, YES_NO, y=FLAGS),
            lambda: computed(1, lambda x: x, YES_NO, y=FLAGS),
        ),
        "sigmoid before the layer that casts to float32": (
            lambda: stack(
                Dense(1, "sigmoid"),
                layers.Activation("linear"),
                loss=YES_NO,
                y=FLAGS,
            ),
            lambda: stack(
                Dense(1, "sigmoid"),
                layers.Activation("linear"),
                loss="binary_crossentropy",
                y=FLAGS,
            ),
        ),
        "sigmoid after sigmoid": (
            lambda: stack(
                Dense(1, "sigmoid"),
                layers.Activation("sigmoid"),
                loss="binary_crossentropy",
                y=FLAGS,
            ),
            lambda: stack(
                Dense(1),
                layers.Activation("sigmoid"),
                loss="binary_crossentropy",
                y=FLAGS,
            ),
        ),
        "several answers": (
            lambda: stack(Dense(3, "sigmoid"), loss=YES_NO, y=ONE_HOT),
            lambda: stack(Dense(3), loss=YES_NO, y=ONE_HOT),
        ),
        "embeddings": (
            lambda: stack(
                Dense(3, "softmax"), loss=losses.SymmetricKLHinge(0.5)
            ),
            lambda: stack(Dense(3), loss=losses.SymmetricKLHinge(0.5)),
        ),
        "distillation": (
            lambda: stack(
                Dense(3, "softmax"),
                loss=losses.KLDivergence(),
                y=normal(32, 3),
            ),
            lambda: stack(
                Dense(3), loss=losses.KLDivergence(), y=normal(32, 3)
            ),
        ),
    }
)
def test_probabilities_as_logits(broken, healthy):
    assert codes(*broken()) == ["probabilities-as-logits"]
    assert codes(*healthy()) == []


SUMMED = "sparse_categorical_crossentropy"


@twins(
    {
        "no activation": (
            lambda: stack(Dense(3), loss=SUMMED),
            lambda: stack(Dense(3, "softmax"), loss=SUMMED),
        ),
        "one-hot": (
            lambda: stack(Dense(3), loss="categorical_crossentropy", y=ONE_HOT),
            lambda: stack(
                Dense(3, "softmax"), loss="categorical_crossentropy", y=ONE_HOT
            ),
        ),
        "yes or no": (
            lambda: stack(Dense(1), loss="binary_crossentropy", y=FLAGS),
            lambda: stack(
                Dense(1, "sigmoid"), loss="binary_crossentropy", y=FLAGS
            ),
        ),
        "tanh": (
            lambda: stack(
                Dense(1, "tanh"), loss="binary_crossentropy", y=FLAGS
            ),
            lambda: stack(
                Dense(1, lambda x: (ops.tanh(x) + 1) / 2),
                loss="binary_crossentropy",
                y=FLAGS,
            ),
        ),
        "relu": (
            lambda: stack(Dense(3, "relu"), loss=SUMMED),
            lambda: stack(Dense(3), layers.Softmax(), loss=SUMMED),
        ),
        "in the model's own call": (
            lambda: computed(3, lambda x: x, SUMMED),
            lambda: computed(3, ops.softmax, SUMMED),
        ),
        "focal": (
            lambda: stack(Dense(1), loss="binary_focal_crossentropy", y=FLAGS),
            lambda: stack(
                Dense(1, "sigmoid"), loss="binary_focal_crossentropy", y=FLAGS
            ),
        ),
        "a sigmoid for each class": (
            lambda: stack(Dense(3, "sigmoid"), loss=SUMMED),
            lambda: stack(
                Dense(3, "sigmoid"), loss="binary_crossentropy", y=ONE_HOT
            ),
        ),
        "log-probabilities": (
            lambda: stack(Dense(3, "log_softmax"), loss=SUMMED),
            lambda: stack(Dense(3, "log_softmax"), loss=KERAS_SPARSE),
        ),
        "KL divergence": (
            lambda: stack(Dense(3), loss="kl_divergence", y=ONE_HOT),
            lambda: stack(Dense(3, "softmax"), loss="kl_divergence", y=ONE_HOT),
        ),
        "before the layer that casts to float32": (
            lambda: stack(Dense(3), layers.Activation("linear"), loss=SUMMED),
            lambda: stack(
                Dense(3, "softmax"), layers.Activation("linear"), loss=SUMMED
            ),
        ),
    }
)
def test_logits_as_probabilities(broken, healthy):
    assert codes(*broken()) == ["logits-as-probabilities"]
    assert codes(*healthy()) == []


@twins(
    {
        "softmax and class ids": (
            lambda: stack(Dense(1, "softmax"), loss=SUMMED, y=FLAGS),
            lambda: stack(Dense(2, "softmax"), loss=SUMMED, y=FLAGS),
        ),
        "logits and class ids": (
            lambda: stack(Dense(1), loss=SPARSE, y=FLAGS),
            lambda: stack(Dense(1), loss=YES_NO, y=FLAGS),
        ),
        "softmax and yes or no": (
            lambda: stack(
                Dense(1, "softmax"), loss="binary_crossentropy", y=FLAGS
            ),
            lambda: stack(
                Dense(1, "sigmoid"), loss="binary_crossentropy", y=FLAGS
            ),
        ),
        "one column": (
            lambda: stack(
                Dense(1, "softmax"), loss="categorical_crossentropy", y=FLAGS
            ),
            lambda: stack(
                Dense(1, "sigmoid"), loss="binary_crossentropy", y=FLAGS
            ),
        ),
        "softmax and a square": (
            lambda: stack(Dense(1, "softmax"), loss="mse", y=FLAGS),
            lambda: stack(Dense(1, "sigmoid"), loss="mse", y=FLAGS),
        ),
    }
)
def test_single_class(broken, healthy):
    assert codes(*broken()) == ["single-class"]
    assert codes(*healthy()) == []


@twins(
    {
        "relu on logits": (
            lambda: stack(Dense(3, "relu"), loss=SPARSE),
            lambda: stack(Dense(3), loss=SPARSE),
        ),
        "relu before a softmax": (
            lambda: stack(
                Dense(3, "relu"),
                layers.Softmax(),
                loss="sparse_categorical_crossentropy",
            ),
            lambda: stack(
                Dense(3),
                layers.Softmax(),
                loss="sparse_categorical_crossentropy",
            ),
        ),
        "relu on a logit": (
            lambda: stack(Dense(1), layers.ReLU(), loss=YES_NO, y=FLAGS),
            lambda: stack(Dense(1), loss=YES_NO, y=FLAGS),
        ),
    }
)
def test_bounded_logits(broken, healthy):
    assert codes(*broken()) == ["bounded-logits"]
    assert codes(*healthy()) == []


def own_error(y_true, y_pred):
    squares = ops.square(ops.cast(y_true, y_pred.dtype) - y_pred)
    return ops.sqrt(ops.mean(squares, axis=-1) + 1e-9)


@twins(
    {
        "sigmoid": (
            lambda: stack(Dense(1, "sigmoid"), loss="mse", y=3 * X[:, :1]),
            lambda: stack(Dense(1), loss="mse", y=3 * X[:, :1]),
        ),
        "tanh": (
            lambda: stack(Dense(1, "tanh"), loss="mse", y=2 * X[:, :1]),
            lambda: stack(Dense(1, "tanh"), loss="mse", y=np.tanh(X[:, :1])),
        ),
        "a loss of one's own": (
            lambda: stack(Dense(1, "tanh"), loss=own_error, y=2 * X[:, :1]),
            lambda: stack(Dense(1), loss=own_error, y=2 * X[:, :1]),
        ),
        "flags for a sigmoid, and a loss of one's own": (
            lambda: stack(Dense(1, "sigmoid"), loss=own_error, y=2 * FLAGS - 1),
            lambda: stack(Dense(1, "sigmoid"), loss=own_error, y=FLAGS),
        ),
    }
)
def test_unreachable_targets(broken, healthy):
    assert codes(*broken()) == ["unreachable-targets"]
    assert codes(*healthy()) == []


def test_the_least_loss_of_a_double_softmax_is_told():
    # Of one-hot probabilities, taken for logits: log(1 + (n − 1) / e).
    found = only(*stack(Dense(3, "softmax"), loss=SPARSE))
    one_hot = ops.convert_to_tensor(ONE_HOT)
    least = float(KERAS_SPARSE(IDS, one_hot))
    assert f"never falls below {least:.4g}" in found.summary
