"""Every class under each `floatx`, as Keras's own classes are.

Constants and ranges without a dtype take Keras's floatx: where that is not
float32, they meet float32 numbers and fail, or count wrong.
"""

import ast
import pathlib

import keras
import numpy as np
import pytest

import keras_xent
from keras_xent import layers, losses, ops
from tests.contract import LOSSES, METRICS
from tests.testing import BACKEND, normal, only_on, to_numpy

SOURCE = pathlib.Path(keras_xent.__file__).parent
MAKERS = {"arange": 3, "eye": 3, "full": 2, "ones": 1, "zeros": 1}

# One step of a PyTorch model is quick. The others compile it: bfloat16 is what
# most things break under, float64 and float16 have some of their own.
FLOATX = ["bfloat16"]
if BACKEND == "torch":
    FLOATX += ["float16", "float64"]


@pytest.fixture(params=FLOATX)
def floatx(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(before)


def number(x):
    return float(to_numpy(keras.ops.convert_to_tensor(x)))


def fit(model, x, y):
    """The logs of one step, as numbers."""
    history = model.fit(x, y, batch_size=len(x), verbose=0).history
    return [number(value) for [value] in history.values()]


@pytest.mark.parametrize("case", LOSSES + METRICS, ids=str)
def test_trains_under_each_floatx(case, floatx):
    if issubclass(case.cls, keras.losses.Loss):
        model = case.model(loss=case.make())
    else:
        model = case.model(
            loss=lambda y, z: keras.ops.mean(keras.ops.square(z), axis=-1),
            metrics=[case.make(name="metric")],
        )
    assert np.isfinite(fit(model, normal(7, 4), case.labels(7))).all()


@pytest.mark.parametrize("case", METRICS, ids=str)
def test_a_metric_counts_the_same_under_each_floatx(case, floatx):
    y, z = case.labels(14), case.predictions(14)
    values = []
    for each in (floatx, "float32"):
        keras.config.set_floatx(each)
        metric = case.make()
        metric.update_state(y, keras.ops.convert_to_tensor(z, dtype="float32"))
        values.append([number(x) for x in keras.tree.flatten(metric.result())])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_a_temperature_is_fitted_under_each_floatx(floatx):
    labels, logits = np.arange(24) % 3, 4 * normal(24, 3)
    found = number(ops.fit_temperature(labels, logits))
    keras.config.set_floatx("float32")
    assert found == number(ops.fit_temperature(labels, logits))


def test_a_head_is_trained_and_measured_under_each_floatx(floatx):
    head = layers.LinearHead(3, metrics=["accuracy", "perplexity"])
    model = keras.Sequential([keras.Input((4,)), head])
    model.compile("sgd", loss=losses.LinearCrossentropy())
    x, y = normal(7, 4), np.arange(7) % 3
    assert np.isfinite(fit(model, x, y)).all()
    assert to_numpy(model(x)).shape == (7, 3)


def dtype_is_missing(call):
    """Whether a call, as syntax, makes what takes floatx."""
    name = ast.unparse(call.func)
    if not name.startswith(("ops.", "keras.ops.", "keras_ops.", "xp.")):
        return False
    name = name.rsplit(".", 1)[1]
    if name == "where":
        return len(call.args) == 3 and all(map(is_number, call.args[1:]))
    if name not in MAKERS or len(call.args) > MAKERS[name]:
        return False
    return "dtype" not in [keyword.arg for keyword in call.keywords]


def is_number(node):
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    known = isinstance(node, ast.Constant) or ast.unparse(node).isupper()
    return known or ast.unparse(node) in ("np.nan", "np.inf")


@only_on("torch", "source is the same on each backend")
def test_no_constant_and_no_range_is_without_a_dtype():
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and dtype_is_missing(node)
    ]
    assert not found


@only_on("torch", "source is the same on each backend")
@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("ops.arange(n)", True),
        ("ops.arange(n, dtype='int32')", False),
        ("keras.ops.zeros((2,))", True),
        ("ops.zeros((2,), x.dtype)", False),
        ("ops.where(x > 0, 1.0, -np.inf)", True),
        ("ops.where(x > 0, NO_CLASS, 0)", True),
        ("ops.where(x > 0, x, 0.0)", False),
        ("np.arange(n)", False),
    ],
)
def test_a_missing_dtype_is_seen(code, missing):
    assert dtype_is_missing(ast.parse(code).body[0].value) == missing
