"""Where NaN begins, in which row, and what helps."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent import diagnose
from tests.diagnosis.cases import (
    FLAGS,
    SPARSE,
    YES_NO,
    X,
    codes,
    compiled,
    look_at,
    only,
    run_cure,
    stack,
    twins,
)
from tests.testing import normal

Dense = layers.Dense
MANY = normal(256, 4, seed=3)
CLASSES = np.arange(256) % 3
YES = (MANY[:, :1] > 0).astype("float32")
COUNTS = np.random.default_rng(0).poisson(3, 256).astype("float32")


def log_loss(y, p):
    return -ops.mean(y * ops.log(p) + (1 - y) * ops.log(1 - p))


def log_loss_by_row(y, p):
    return -ops.mean(y * ops.log(p) + (1 - y) * ops.log(1 - p), axis=-1)


class LogLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return log_loss(y_true, y_pred)


def likelihood(y, p):
    return -ops.mean(ops.sum(y * ops.log(p), axis=-1))


def likelihood_of_ids(y, p):
    one_hot = ops.one_hot(ops.cast(ops.reshape(y, (-1,)), "int32"), 3)
    return -ops.mean(ops.sum(one_hot * ops.log(p), axis=-1))


def relative(y, p):
    """0 / 0 where a label is 0 and met."""
    return ops.mean(ops.abs(y - p) / ops.abs(y))


def root(y, p):
    """The slope of a root is infinite at 0."""
    return ops.mean(ops.sqrt(ops.square(y - p)))


def functional(end, loss, y, x=MANY):
    inputs = keras.Input((4,))
    outputs = end(Dense(8, "tanh")(inputs))
    return compiled(keras.Model(inputs, outputs), loss, "adam"), x, y


def with_(row, value, array=MANY):
    array = np.array(array, "float32")
    array[row] = value
    return array


BROKEN_LOSSES = {
    "of relu": lambda: functional(Dense(1, "relu"), log_loss, YES),
    "of a sure sigmoid": lambda: functional(
        Dense(1, "sigmoid", kernel_initializer=large()), log_loss, YES
    ),
    "a class of one's own": lambda: functional(
        Dense(1, "relu"), LogLoss(), YES
    ),
    "a loss for each row": lambda: functional(
        Dense(1, "relu"), log_loss_by_row, YES
    ),
    "labels of one axis": lambda: functional(
        Dense(1, "relu"), lambda y, p: log_loss(ops.reshape(y, (-1, 1)), p), YES
    ),
    "one-hot rows": lambda: functional(
        Dense(3, "relu"), likelihood, np.eye(3, dtype="float32")[CLASSES]
    ),
    "class ids": lambda: functional(
        Dense(3, "relu"), likelihood_of_ids, CLASSES
    ),
    "class ids and a sure softmax": lambda: functional(
        Dense(3, "softmax", kernel_initializer=large()),
        likelihood_of_ids,
        CLASSES,
    ),
    "a division by 0": lambda: functional(
        Dense(1), relative, np.where(YES > 0, MANY[:, :1], 0.0)
    ),
    "the log of a negative": lambda: functional(
        Dense(1), "poisson", COUNTS[:, None]
    ),
}


def large():
    return keras.initializers.RandomNormal(stddev=300.0, seed=2)


@pytest.mark.parametrize(
    "case",
    BROKEN_LOSSES.values(),
    ids=list(BROKEN_LOSSES),
)
def test_a_loss_that_is_not_finite_is_named_and_cured(case):
    model, x, y = case()
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.code == "nonfinite-gradient"
    assert found.where == f"the loss of output {model.layers[-1].name!r}"
    assert "the loss makes NaN" in found.cause
    assert found.evidence["rows"]
    after = run_cure(report, {"model": model, "x": x, "y": y})
    assert not np.isnan(after.loss)
    assert "nonfinite-gradient" not in [each.code for each in after.findings]


@pytest.mark.parametrize("loss", [log_loss, LogLoss(), log_loss_by_row])
def test_the_same_losses_are_healthy_where_they_are_finite(loss):
    assert codes(*functional(Dense(1, "sigmoid"), loss, YES)) == []


def test_rows_are_those_of_a_loss_of_one_number():
    model, x, y = functional(Dense(1, "relu"), log_loss, YES)
    found = only(model, x[:32], y[:32])
    p = ops.convert_to_numpy(model(x[:32]))
    with np.errstate(all="ignore"):
        each = y[:32] * np.log(p) + (1 - y[:32]) * np.log(1 - p)
    bad = np.flatnonzero(~np.isfinite(each[:, 0]))
    assert found.evidence["rows"] == bad[:5].tolist()


def test_the_slope_of_a_loss_may_be_infinite_where_it_is_finite():
    zeros = np.zeros((32, 1), "float32")
    model, x, y, _ = stack(
        Dense(1, kernel_initializer="zeros"), loss=root, y=zeros
    )
    found = only(model, x, y)
    assert found.where.startswith("the loss of output")
    assert "a root" in found.cause
    counts = np.arange(1, 33, dtype="float32")[:, None]
    assert codes(model, x, y + counts) == []


def overflow(scale, y, end=None):
    end = end or Dense(1, "exponential")
    return functional(end, "poisson", y, scale * MANY)


class Exp(layers.Layer):
    def call(self, x):
        return ops.exp(x)


@pytest.mark.parametrize("y", [COUNTS, COUNTS[:, None]])
def test_an_overflow_is_no_broadcast(y):
    model, x, y = overflow(1.0, y)
    assert codes(model, x, y) == []
    model.layers[-1].kernel.assign(1e3 + 0 * model.layers[-1].kernel)
    found = only(model, x, y)
    assert found.code == "nonfinite-gradient"
    assert found.where == f"layer {model.layers[-1].name!r}"
    assert "exp(x) overflows" in found.cause


def test_inputs_that_make_exp_overflow_are_scaled():
    wide = Dense(1, "exponential", kernel_initializer="ones")
    model, x, y, _ = stack(wide, loss="poisson", x=1e3 * MANY, y=COUNTS)
    report = look_at(model, x, y)
    assert [found.code for found in report.findings] == ["nonfinite-gradient"]
    assert "not scaled" in report.findings[0].cause
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names).findings == ()


class Broadcasts(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.exp(ops.abs(y_true - y_pred)))


def test_only_finite_numbers_tell_a_broadcast():
    model, x, *_ = stack(Dense(1), loss=Broadcasts())
    assert codes(model, x, X[:, 0]) == ["shape-broadcast"]
    assert codes(model, x, 1e6 * X[:, 0]) == ["nonfinite-gradient"]


@twins(
    {
        "NaN in x": (
            lambda: stack(
                Dense(3), loss=SPARSE, x=with_(17, np.nan), y=CLASSES
            ),
            lambda: stack(Dense(3), loss=SPARSE, x=with_(17, 0.0), y=CLASSES),
        ),
        "inf in x": (
            lambda: stack(
                Dense(3), loss=SPARSE, x=with_((17, 2), np.inf), y=CLASSES
            ),
            lambda: stack(Dense(3), loss=SPARSE, x=MANY, y=CLASSES),
        ),
        "NaN in a weight": (
            lambda: weighted(np.nan),
            lambda: weighted(0.5),
        ),
        "inf in a weight": (
            lambda: weighted(np.inf),
            lambda: weighted(0.0),
        ),
        "inf in y": (
            lambda: stack(
                Dense(1), loss="mse", x=MANY, y=with_(99, np.inf, YES)
            ),
            lambda: stack(Dense(1), loss="mse", x=MANY, y=YES),
        ),
        "NaN in a tensor": (
            lambda: stack_of_tensor(with_(17, np.nan)),
            lambda: stack_of_tensor(MANY),
        ),
        "NaN in float16": (
            lambda: stack_of_half(with_(17, np.nan)),
            lambda: stack_of_half(MANY),
        ),
    }
)
def test_one_row_outside_the_sample_is_found(broken, healthy):
    assert codes(*broken()) == ["nonfinite-gradient"]
    assert codes(*healthy()) == []


def weighted(value):
    weight = with_(100, value, np.ones(256))
    return stack(Dense(3), loss=SPARSE, x=MANY, y=CLASSES, weight=weight)


def stack_of_tensor(x):
    model, *_ = stack(Dense(3), loss=SPARSE, x=MANY)
    return model, ops.convert_to_tensor(x), ops.convert_to_tensor(CLASSES)


def stack_of_half(x):
    model, *_ = stack(Dense(3), loss=SPARSE, x=MANY)
    return model, x.astype("float16"), CLASSES


@pytest.mark.parametrize("size", [1, 2, 32, 256])
def test_the_rows_are_numbered_as_in_the_data(size):
    model, *_ = stack(Dense(3), loss=SPARSE, x=MANY)
    x = with_([17, 100], np.nan)
    found = only(model, x, CLASSES, batch_size=size)
    assert found.where == "the data, x"
    assert found.evidence["rows"] == [17, 100]


def test_the_rows_of_a_layer_are_too():
    model, x, y, _ = stack(
        layers.Lambda(lambda x: ops.log(ops.abs(x)), name="log"),
        Dense(3),
        loss=SPARSE,
        x=with_(np.arange(0, 256, 3), 0.0),
        y=CLASSES,
    )
    found = only(model, x, y, batch_size=16)
    assert found.where == "layer 'log'"
    assert all(row % 3 == 0 for row in found.evidence["rows"])


def test_a_model_may_take_nan_for_what_is_missing():
    """As long as it replaces it."""
    x = with_((17, 2), np.nan)
    model, *_ = stack(
        layers.Lambda(lambda x: ops.where(ops.isnan(x), 0.0, x)),
        Dense(3),
        loss=SPARSE,
        x=MANY,
    )
    assert codes(model, x, CLASSES) == []


def two_inputs(names=("a", "b"), container=dict, ends=1):
    inputs = {name: keras.Input((4,), name=name) for name in names}
    joint = layers.Concatenate()(list(inputs.values()))
    outputs = [Dense(3, name=f"end_{i}")(joint) for i in range(ends)]
    given = inputs if container is dict else list(inputs.values())
    model = keras.Model(given, outputs if ends > 1 else outputs[0])
    return compiled(model, SPARSE, "adam")


@pytest.mark.parametrize("size", [32, 256])
@pytest.mark.parametrize(
    ("x", "where"),
    [
        ({"a": MANY, "b": with_(5, np.nan)}, "the data, x['b']"),
        ([MANY, with_(5, np.inf)], "the data, x[1]"),
        ((with_(5, np.nan), MANY), "the data, x[0]"),
        (
            {"a": with_(7, np.nan), "b": with_(5, np.nan)},
            "the data, x['a'] and x['b']",
        ),
    ],
    ids=["dictionary", "list", "tuple", "both"],
)
def test_the_input_with_nan_is_named_and_cured(x, where, size):
    model = two_inputs(container=type(x))
    report = look_at(model, x, CLASSES, batch_size=size)
    (found,) = report.findings
    assert (found.code, found.where) == ("nonfinite-gradient", where)
    names = {"model": model, "x": x, "y": CLASSES}
    exec(found.cure, {"np": np, **names})  # With nothing else.
    assert run_cure(report, names).findings == ()
    assert len(names["y"]) == 256 - (2 if "and" in where else 1)


def test_weights_and_several_outputs_lose_the_rows_too():
    model = two_inputs(ends=2)
    x, y = {"a": MANY, "b": with_(5, np.nan)}, [CLASSES, CLASSES]
    weights = [np.ones(256), np.ones(256)]
    report = look_at(model, x, y, weights)
    names = {"model": model, "x": x, "y": y, "sample_weight": weights}
    assert run_cure(report, names).findings == ()
    assert [len(each) for each in names["sample_weight"]] == [255, 255]


def test_labels_of_one_of_several_outputs_are_named():
    model = two_inputs(ends=2)
    model.compile("adam", ["mse", SPARSE])
    y = [with_(5, np.nan, normal(256, 3)), CLASSES]
    x = {"a": MANY, "b": MANY}
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.where == "the data, y[0]"
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names).findings == ()


@pytest.mark.parametrize("container", [list, dict])
def test_an_output_without_a_loss_may_have_none_for_labels(container):
    inputs = keras.Input((4,))
    hidden = Dense(8, "relu", name="hidden")(inputs)
    ends = {"who": Dense(3, name="who")(hidden), "hidden": hidden}
    loss, y = {"who": SPARSE, "hidden": None}, {"who": CLASSES, "hidden": None}
    if container is list:
        ends, loss, y = (list(each.values()) for each in (ends, loss, y))
    model = compiled(keras.Model(inputs, ends), loss)
    assert codes(model, MANY, y) == []
    key = 0 if container is list else "who"
    wrong = y.copy()
    wrong[key] = CLASSES + 1
    assert codes(model, MANY, wrong) == ["labels-out-of-range"]
    report = look_at(model, with_(5, np.nan), y)
    assert [found.code for found in report.findings] == ["nonfinite-gradient"]
    names = {"model": model, "x": with_(5, np.nan), "y": y}
    assert run_cure(report, names).findings == ()


def test_weights_may_be_given_by_position_as_to_fit():
    model, x, y, _ = stack(Dense(1), loss=YES_NO, y=FLAGS)
    nothing = diagnose(model, x, y, np.zeros(32))
    assert [found.code for found in nothing.findings] == ["all-masked"]
    assert diagnose(model, x, y, np.ones(32)).findings == ()
