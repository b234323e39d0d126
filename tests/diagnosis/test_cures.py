"""Cures that are printed as code repair the model as they stand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent import losses
from keras_xent.layers import CosineHead
from tests.diagnosis.cases import (
    DENSE,
    FLAGS,
    IDS,
    ONE_HOT,
    SPARSE,
    YES_NO,
    X,
    compiled,
    computed,
    look_at,
    repaired,
    stack,
)
from tests.testing import normal

Dense = layers.Dense
SEVERAL = (X[:, :3] > 0).astype("float32")
SEQUENCES = normal(32, 5, 4)
CE = "sparse_categorical_crossentropy"
BCE = "binary_crossentropy"
VOID = np.where(np.arange(32) % 4 == 3, 255, IDS)


SOME = ONE_HOT * (np.arange(32)[:, None] % 4 > 0)
LARGE = keras.initializers.RandomNormal(stddev=300.0, seed=1)


def clipped():
    """Sure of another class, after a step: no start any more."""
    eye = keras.initializers.Constant(30 * np.eye(3))
    model, x, *_ = stack(
        Dense(3, "softmax", kernel_initializer=eye), loss=CE, x=ONE_HOT
    )
    model.optimizer.iterations.assign(1)
    return model, x, (IDS + 1) % 3


def contrastive(y, d):
    return ops.mean(
        y * ops.square(d) + (1 - y) * ops.square(ops.maximum(1 - d, 0))
    )


def axis_0():
    inputs = keras.Input((4,))
    outputs = layers.Softmax(axis=0)(Dense(3)(inputs))
    return compiled(keras.Model(inputs, outputs), CE), X, IDS


def of_metric(layer, loss, y, name):
    metric = getattr(keras.metrics, name)() if name != "accuracy" else name
    return stack(layer, loss=loss, y=y, metrics=[metric])


def sequences(*ends, loss=BCE, y=FLAGS[:, 0]):
    return stack(*ends, loss=loss, x=SEQUENCES, y=y)


CASES = {
    "distances": (
        "metric-mismatch",
        lambda: stack(
            Dense(1, "softplus"),
            loss=contrastive,
            y=FLAGS * 1.0,
            metrics=["accuracy"],
        ),
    ),
    "void": (
        "labels-out-of-range",
        lambda: stack(Dense(3), loss=SPARSE, y=VOID),
    ),
    "void of probabilities": (
        "labels-out-of-range",
        lambda: stack(Dense(3, "softmax"), loss=CE, y=VOID),
    ),
    "two voids of probabilities": (
        "labels-out-of-range",
        lambda: stack(
            Dense(3, "softmax"), loss=CE, y=np.where(VOID == 1, -1, VOID)
        ),
    ),
    "unknown answers": (
        "targets-not-distribution",
        lambda: stack(
            Dense(3), loss=YES_NO, y=np.where(IDS[:, None] == 1, -1, SEVERAL)
        ),
    ),
    "void in a metric": (
        "metric-mismatch",
        lambda: stack(
            Dense(3),
            loss=losses.SparseSoftmaxCrossentropy(ignore_class=255),
            y=VOID,
            metrics=["accuracy"],
        ),
    ),
    "ids for softmax": (
        "label-format",
        lambda: stack(
            Dense(3, "softmax"), loss="categorical_crossentropy", y=IDS
        ),
    ),
    "several for softmax": (
        "targets-not-distribution",
        lambda: stack(
            Dense(3, "softmax"), loss="categorical_crossentropy", y=SEVERAL
        ),
    ),
    "softmax for several": (
        "targets-not-distribution",
        lambda: stack(Dense(3), layers.Softmax(), loss=BCE, y=SEVERAL),
    ),
    "argmax of several": (
        "metric-mismatch",
        lambda: stack(
            Dense(3, "sigmoid"), loss=BCE, y=SEVERAL, metrics=["accuracy"]
        ),
    ),
    "argmax of several logits": (
        "metric-mismatch",
        lambda: stack(Dense(3), loss=YES_NO, y=SEVERAL, metrics=["accuracy"]),
    ),
    "out of reach": (
        "unreachable-targets",
        lambda: stack(Dense(1, "tanh"), loss="mse", y=2 * X[:, :1]),
    ),
    "relu on logits": (
        "bounded-logits",
        lambda: stack(Dense(3, "relu"), layers.Softmax(), loss=CE),
    ),
    "relu on a logit": (
        "bounded-logits",
        lambda: stack(Dense(1), layers.ReLU(), loss=YES_NO, y=FLAGS),
    ),
    "classes as numbers": (
        "metric-mismatch",
        lambda: stack(Dense(1), loss="mse", metrics=["accuracy"]),
    ),
    "sequences": (
        "shape-broadcast",
        lambda: sequences(
            layers.GRU(3, return_sequences=True), Dense(1, "sigmoid")
        ),
    ),
    "places": (
        "label-format",
        lambda: sequences(
            layers.Conv1D(3, 2), Dense(3, "softmax"), loss=CE, y=IDS
        ),
    ),
    "softmax over the batch": ("logits-as-probabilities", axis_0),
    "measurements for a softmax": (
        "single-class",
        lambda: stack(
            Dense(1), loss="categorical_crossentropy", y=X[:, :1] * 3
        ),
    ),
    "precision of ids": (
        "metric-mismatch",
        lambda: stack(
            Dense(3, "softmax"), loss=CE, metrics=[keras.metrics.Recall()]
        ),
    ),
    "precision of ids and logits": (
        "metric-mismatch",
        lambda: stack(
            Dense(3), loss=SPARSE, metrics=[keras.metrics.Precision()]
        ),
    ),
    "precision of a logit": (
        "metric-mismatch",
        lambda: stack(
            Dense(1),
            loss=YES_NO,
            y=FLAGS,
            metrics=[keras.metrics.Precision()],
        ),
    ),
    "several units": (
        "shape-broadcast",
        lambda: stack(Dense(3), loss="mse", y=X[:, :1]),
    ),
    "a column for each unit": (
        "shape-broadcast",
        lambda: stack(Dense(1), loss="mse", y=X),
    ),
    "ids for several sigmoids": (
        "shape-broadcast",
        lambda: stack(Dense(3, "sigmoid"), loss=BCE, y=IDS),
    ),
    "rows of zeros": (
        "targets-not-distribution",
        lambda: stack(Dense(3), loss=losses.SoftmaxCrossentropy(), y=SOME),
    ),
    "counts": (
        "targets-not-distribution",
        lambda: stack(
            Dense(3), loss=losses.SoftmaxCrossentropy(), y=1 + 4 * ONE_HOT
        ),
    ),
    "scores of a teacher": (
        "targets-not-distribution",
        lambda: stack(Dense(3), loss=losses.SoftmaxCrossentropy(), y=X[:, :3]),
    ),
    "softmax, sigmoid and several": (
        "probabilities-as-logits",
        lambda: stack(Dense(3, "softmax"), loss=YES_NO, y=SEVERAL),
    ),
    "weights of 0": (
        "all-masked",
        lambda: stack(Dense(3), loss=SPARSE, weight=np.zeros(32)),
    ),
    "only what is ignored": (
        "all-masked",
        lambda: stack(
            Dense(3),
            loss=losses.SparseSoftmaxCrossentropy(ignore_class=[0, 1, 2]),
        ),
    ),
    "zeros": (
        "zero-initialized",
        lambda: stack(
            Dense(5, "tanh", kernel_initializer="zeros"),
            Dense(3, kernel_initializer="zeros"),
            loss=SPARSE,
        ),
    ),
    "the ends of tanh": (
        "saturated",
        lambda: stack(
            Dense(50, "tanh", kernel_initializer=LARGE),
            Dense(5, "tanh"),
            Dense(3),
            loss=SPARSE,
        ),
    ),
    "a clip": ("saturated", clipped),
    "a unit for nothing": (
        "missing-class",
        lambda: stack(
            Dense(3, "softmax"),
            loss=CE,
            x=np.tile(X, (10, 1)),
            y=np.tile(IDS % 2, 10),
        ),
    ),
    "sigmoids of which some are not known": (
        "targets-not-distribution",
        lambda: stack(
            Dense(3, "sigmoid"),
            loss=BCE,
            y=np.where(IDS[:, None] == 1, -1, SEVERAL),
        ),
    ),
    "ids for one-hot rows in a metric": (
        "metric-mismatch",
        lambda: of_metric(Dense(3, "softmax"), CE, IDS, "CategoricalAccuracy"),
    ),
    "one-hot rows for ids in a metric": (
        "metric-mismatch",
        lambda: of_metric(
            Dense(3), DENSE, ONE_HOT, "SparseCategoricalAccuracy"
        ),
    ),
    "the largest of one logit": (
        "metric-mismatch",
        lambda: of_metric(Dense(1), YES_NO, FLAGS, "CategoricalAccuracy"),
    ),
    "the largest of one probability": (
        "metric-mismatch",
        lambda: of_metric(
            Dense(1, "sigmoid"), BCE, FLAGS, "CategoricalAccuracy"
        ),
    ),
    "among the five best of three": (
        "metric-mismatch",
        lambda: of_metric(
            Dense(3), SPARSE, IDS, "SparseTopKCategoricalAccuracy"
        ),
    ),
    "an accuracy of several numbers": (
        "metric-mismatch",
        lambda: of_metric(Dense(3), "mse", X[:, :3], "accuracy"),
    ),
    "two classes as numbers": (
        "metric-mismatch",
        lambda: of_metric(Dense(1), "mse", FLAGS, "accuracy"),
    ),
    "an accuracy of embeddings": (
        "metric-mismatch",
        lambda: of_metric(
            Dense(3),
            losses.SupervisedContrastive(),
            IDS,
            "SparseCategoricalAccuracy",
        ),
    ),
    "a threshold for each of several classes": (
        "metric-mismatch",
        lambda: of_metric(Dense(3), DENSE, ONE_HOT, "BinaryAccuracy"),
    ),
    "a threshold for numbers": (
        "metric-mismatch",
        lambda: of_metric(Dense(1), "mse", X[:, :1], "BinaryAccuracy"),
    ),
    "ids from 1 and a void": (
        "labels-out-of-range",
        lambda: stack(
            Dense(3), loss=SPARSE, y=np.where(VOID == 255, -1, IDS + 1)
        ),
    ),
    "ids with gaps and a void": (
        "labels-out-of-range",
        lambda: stack(
            Dense(3), loss=SPARSE, y=np.where(VOID == 255, -1, IDS * 10)
        ),
    ),
    "-1 for a class": (
        "labels-out-of-range",
        lambda: stack(Dense(4), loss=SPARSE, y=IDS - 1),
    ),
    "counts of less than none": (
        "nonfinite-gradient",
        lambda: stack(Dense(1), loss="poisson", y=abs(X[:, :1])),
    ),
    "the logarithm of any number": (
        "nonfinite-gradient",
        lambda: stack(
            Dense(1), loss=lambda y, p: -y * ops.log(p), y=FLAGS * 1.0
        ),
    ),
    "one unit for classes": (
        "single-class",
        lambda: stack(Dense(1, "softmax"), loss=CE),
    ),
    "one unit for numbers of each step": (
        "single-class",
        lambda: sequences(
            Dense(1, "softmax"),
            loss="categorical_crossentropy",
            y=3 * normal(32, 5, 1),
        ),
    ),
    "a scale of 1": (
        "temperature-out-of-reach",
        lambda: stack(
            CosineHead(8, scale=1.0),
            loss=losses.LinearCrossentropy(),
            y=np.arange(32) % 8,
        ),
    ),
}


@pytest.mark.parametrize(("code", "broken"), CASES.values(), ids=list(CASES))
def test_the_cure_repairs_the_model(code, broken):
    assert repaired(code, *broken()) == ()


def two(first, second, losses, y, **options):
    """Two outputs, in what contains the labels: a dictionary or a list."""
    inputs = keras.Input((4,))
    hidden = first(inputs)
    outputs = [hidden, second(hidden)]
    if isinstance(y, dict):
        outputs = dict(zip(y, outputs, strict=True))
    return compiled(keras.Model(inputs, outputs), losses, **options), X, y


def shared():
    """One layer, called twice: two outputs of one name."""
    inputs, dense = [keras.Input((4,)) for _ in range(2)], Dense(3)
    model = keras.Model(inputs, list(map(dense, inputs)))
    return compiled(model, [SPARSE, SPARSE]), [X, X], [IDS, IDS + 1]


def in_another_order(outputs, given):
    """`fit` takes a list of labels by the names in their order."""
    inputs = keras.Input((4,))
    made = {name: Dense(3, name=name)(inputs) for name in outputs}
    model = keras.Model(inputs, made)
    return compiled(model, dict.fromkeys(given, SPARSE)), X, [IDS, IDS + 1]


def nested(y):
    inputs = keras.Input((4,))
    a, b, c = (Dense(n)(inputs) for n in (4, 3, 3))
    model = keras.Model(inputs, [{"a": a, "b": b}, c])
    return compiled(model, [{"a": "mse", "b": SPARSE}, SPARSE]), X, y


SOME_IDS = np.where(IDS == 2, 5, IDS)
WITH_NAN = np.where(IDS == 2, np.nan, IDS)
OF_SEVERAL = {
    "a loss by name": (
        "logits-as-probabilities",
        lambda: two(
            Dense(4), Dense(3), {"a": "mse", "b": CE}, {"a": X, "b": IDS}
        ),
    ),
    "a loss in a list": (
        "logits-as-probabilities",
        lambda: two(Dense(4), Dense(3), ["mse", CE], [X, IDS]),
    ),
    "labels by name": (
        "labels-out-of-range",
        lambda: two(
            Dense(4),
            Dense(3),
            {"a": "mse", "b": SPARSE},
            {"a": X, "b": SOME_IDS},
        ),
    ),
    "labels in a list": (
        "labels-out-of-range",
        lambda: two(Dense(4), Dense(3), ["mse", SPARSE], [X, SOME_IDS]),
    ),
    "labels without a loss": (
        "labels-out-of-range",
        lambda: two(Dense(4), Dense(3), [None, SPARSE], [X, SOME_IDS]),
    ),
    "labels of the loss that there is": (
        "labels-out-of-range",
        lambda: two(Dense(4), Dense(3), [None, SPARSE], [SOME_IDS]),
    ),
    "labels that are NaN": (
        "nonfinite-gradient",
        lambda: two(
            Dense(4),
            Dense(3),
            {"a": "mse", "b": SPARSE},
            {"a": np.where(IDS[:, None] == 2, np.nan, X), "b": IDS},
        ),
    ),
    "one loss for a list": (
        "label-format",
        lambda: two(Dense(3), Dense(3), DENSE, [ONE_HOT, IDS]),
    ),
    "one loss for names": (
        "label-format",
        lambda: two(Dense(3), Dense(3), DENSE, {"a": ONE_HOT, "b": IDS}),
    ),
    "one loss for what has no names": (
        "label-format",
        lambda: computed(3, lambda x: [x, 2 * x], DENSE, X, [ONE_HOT, IDS]),
    ),
    "one loss, a metric of one": (
        "metric-mismatch",
        lambda: two(
            Dense(3, "softmax"),
            Dense(3, "softmax"),
            CE,
            [IDS, IDS],
            metrics=[[], [keras.metrics.Recall()]],
        ),
    ),
    "one layer twice": ("labels-out-of-range", shared),
    "outputs in another order": (
        "labels-out-of-range",
        lambda: in_another_order("ba", "ba"),
    ),
    "losses in another order": (
        "labels-out-of-range",
        lambda: in_another_order("ab", "ba"),
    ),
    "the first of a nest": (
        "labels-out-of-range",
        lambda: nested([{"a": X, "b": IDS + 1}, IDS]),
    ),
    "the last of a nest": (
        "labels-out-of-range",
        lambda: nested([{"a": X, "b": IDS}, IDS + 1]),
    ),
    "an output whose name is y": (
        "logits-as-probabilities",
        lambda: two(
            Dense(4), Dense(3), {"a": "mse", "y": CE}, {"a": X, "y": IDS}
        ),
    ),
    "one output in a list": (
        "labels-out-of-range",
        lambda: stack(Dense(3), loss=SPARSE, y=[IDS + 1]),
    ),
    "ids that are NaN, by name": (
        "label-format",
        lambda: two(
            Dense(4),
            Dense(3),
            {"a": "mse", "b": SPARSE},
            {"a": X, "b": WITH_NAN},
        ),
    ),
    "ids that are NaN, in a tuple": (
        "label-format",
        lambda: two(Dense(4), Dense(3), ["mse", SPARSE], (X, WITH_NAN)),
    ),
    "names of classes": (
        "label-format",
        lambda: two(
            Dense(4), Dense(3), ["mse", SPARSE], [X, np.array([*"abc"])[IDS]]
        ),
    ),
    "one-hot rows for ids of embeddings": (
        "label-format",
        lambda: two(
            Dense(4),
            Dense(3),
            {"a": losses.SupervisedContrastive(), "b": SPARSE},
            {"a": ONE_HOT, "b": IDS},
        ),
    ),
    "a metric by name": (
        "metric-mismatch",
        lambda: two(
            Dense(4),
            Dense(3, "softmax"),
            {"a": "mse", "b": CE},
            {"a": X, "b": IDS},
            metrics={"b": [keras.metrics.Recall()]},
        ),
    ),
    "a metric in a list, labels in a tuple": (
        "metric-mismatch",
        lambda: two(
            Dense(4),
            Dense(3, "softmax", name="b"),
            ["mse", CE],
            (X, IDS),
            metrics=[[], [keras.metrics.Recall()]],
        ),
    ),
}


@pytest.mark.parametrize(
    ("code", "broken"), OF_SEVERAL.values(), ids=list(OF_SEVERAL)
)
def test_the_cure_repairs_one_of_several_outputs(code, broken):
    assert repaired(code, *broken()) == ()


@pytest.mark.parametrize("container", [list, tuple])
def test_labels_of_one_output_may_be_in_a_list(container):
    model, x, *_ = stack(Dense(3), loss=SPARSE)
    assert look_at(model, x, container([IDS])).findings == ()


HEALTHY = {
    "one-hot and several sigmoids": lambda: stack(
        Dense(3, "sigmoid"), loss=BCE, y=ONE_HOT, metrics=["accuracy"]
    ),
    "numbers within reach": lambda: stack(
        Dense(1, "relu", bias_initializer="ones"), loss="mse", y=X[:, :1] ** 2
    ),
    "a custom loss of probabilities": lambda: stack(
        Dense(1, "sigmoid"),
        loss=lambda y, p: keras.ops.square(p - y),
        y=FLAGS * 1.0,
        metrics=["accuracy"],
    ),
    "one-hot rows and a softmax": lambda: stack(
        Dense(3, "softmax"), loss=BCE, y=ONE_HOT
    ),
}


@pytest.mark.parametrize("healthy", HEALTHY.values(), ids=list(HEALTHY))
def test_what_looks_alike_and_is_right(healthy):
    assert look_at(*healthy()).findings == ()
