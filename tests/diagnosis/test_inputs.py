"""What goes into a model: ids without a row, and rows of another shape."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.diagnosis.cases import (
    IDS,
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
TOKENS = np.random.default_rng(0).integers(0, 20, (64, 6))
TOKENS[0, 0], TOKENS[0, 1] = 0, 19
FLAGS = (np.arange(64) % 2)[:, None]


def with_id(value, row=33, tokens=TOKENS):
    tokens = tokens.copy()
    tokens[row, 2] = value
    return tokens


def reader(x, rows=20, dtype="int32", **options):
    inputs = keras.Input((6,), dtype=dtype)
    y = layers.Embedding(rows, 4, name="words", **options)(inputs)
    y = Dense(1)(layers.GlobalAveragePooling1D()(y))
    return compiled(keras.Model(inputs, y), YES_NO, "adam"), x, FLAGS


class Reader(keras.Model):
    def __init__(self, rows):
        super().__init__()
        self.words = layers.Embedding(rows, 4, name="words")
        self.end = Dense(1)

    def call(self, x):
        return self.end(ops.mean(self.words(x), axis=1))


def subclassed(x, rows=20):
    model = Reader(rows)
    model(TOKENS[:1] * 0)
    return compiled(model, YES_NO, "adam"), x, FLAGS


@pytest.mark.parametrize(
    ("case", "cause"),
    [
        (lambda: reader(with_id(20)), "special tokens"),
        (lambda: reader(with_id(25)), "special tokens"),
        (lambda: reader(TOKENS + 1), "count from 1"),
        (lambda: reader(with_id(-1)), "padding"),
        (lambda: reader(TOKENS // 2 * 100), "gaps"),
        (lambda: reader(with_id(20.0), dtype="float32"), "special tokens"),
        (lambda: subclassed(with_id(20)), "special tokens"),
    ],
    ids=["one", "more", "from 1", "-1", "gaps", "floats", "subclassed"],
)
def test_an_id_without_a_row_is_found_and_cured(case, cause):
    model, x, y = case()
    report = look_at(model, x, y)
    (found,) = report.findings
    assert (found.code, found.where) == ("ids-out-of-range", "layer 'words'")
    assert cause in found.cause
    assert found.evidence["rows of its table"] == 20
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names, epochs=1).findings == ()


@twins(
    {
        "one": (lambda: reader(with_id(20)), lambda: reader(with_id(20), 21)),
        "from 1": (lambda: reader(TOKENS + 1), lambda: reader(TOKENS)),
        "padding": (lambda: reader(with_id(-1)), lambda: reader(with_id(0))),
        "gaps": (
            lambda: reader(TOKENS // 2 * 100),
            lambda: reader(TOKENS // 2),
        ),
    }
)
def test_ids_out_of_range(broken, healthy):
    assert codes(*broken()) == ["ids-out-of-range"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize("make", [reader, subclassed])
def test_ids_that_have_a_row_are_no_finding(make):
    assert codes(*make(TOKENS)) == []
    assert codes(*make(with_id(20), rows=21)) == []


def test_the_row_is_found_wherever_it_is():
    found = only(*reader(with_id(20)), batch_size=4)
    assert found.evidence["rows of the data"] == [33]
    assert found.evidence["ids outside"] == 1


def test_the_input_of_several_is_named():
    words, numbers = keras.Input((6,), name="t"), keras.Input((4,), name="n")
    y = layers.Embedding(20, 4, name="words")(words)
    y = layers.Concatenate()([layers.GlobalAveragePooling1D()(y), numbers])
    model = keras.Model({"t": words, "n": numbers}, Dense(1)(y))
    compiled(model, YES_NO, "adam")
    x = {"t": with_id(-1), "n": normal(64, 4)}
    report = look_at(model, x, FLAGS)
    assert "x['t'] = " in report.findings[0].cure
    names = {"model": model, "x": x, "y": FLAGS}
    assert run_cure(report, names, epochs=1).findings == ()
    assert codes(model, {**x, "t": TOKENS}, FLAGS) == []


IMAGES = normal(32, 8, 8, 3)


def convolved(shape):
    return stack(
        layers.Conv2D(4, 3),
        layers.GlobalAveragePooling2D(),
        Dense(3),
        loss=SPARSE,
        x=np.zeros((1, *shape), "float32"),
    )[0]


def wide(width=4):
    return stack(Dense(3), loss=SPARSE, x=np.zeros((1, width), "float32"))[0]


@pytest.mark.parametrize(
    ("make", "x", "cause"),
    [
        (lambda: wide(5), X, "a column too"),
        (lambda: wide(3), X, "a column too"),
        (lambda: wide(192), IMAGES, "flattened"),
        (lambda: convolved((8, 8, 3)), IMAGES.reshape(32, -1), "other way"),
        (lambda: convolved((8, 8, 3)), IMAGES.transpose(0, 3, 1, 2), "axes"),
        (lambda: convolved((8, 8, 3)), IMAGES[..., :1], "Gray"),
    ],
    ids=["narrow", "wide", "images", "rows", "channels first", "gray"],
)
def test_inputs_of_another_shape_are_found_and_cured(make, x, cause):
    model = make()
    report = look_at(model, x, IDS)
    (found,) = report.findings
    assert (found.code, found.where) == ("input-format", "x")
    assert cause in found.cause
    names = {"model": model, "x": x, "y": IDS}
    assert run_cure(report, names, epochs=1).findings == ()


@twins(
    {
        "narrow": (
            lambda: (wide(5), X, IDS),
            lambda: (wide(4), X, IDS),
        ),
        "images": (
            lambda: (wide(192), IMAGES, IDS),
            lambda: (wide(192), IMAGES.reshape(32, -1), IDS),
        ),
        "channels first": (
            lambda: (convolved((8, 8, 3)), IMAGES.transpose(0, 3, 1, 2), IDS),
            lambda: (convolved((8, 8, 3)), IMAGES, IDS),
        ),
        "text": (
            lambda: (wide(4), X.astype(str), IDS),
            lambda: (wide(4), X, IDS),
        ),
    }
)
def test_input_format(broken, healthy):
    assert codes(*broken()) == ["input-format"]
    assert codes(*healthy()) == []


def test_axes_go_where_they_belong():
    model = convolved((8, 8, 3))
    found = only(model, IMAGES.transpose(0, 3, 1, 2), IDS)
    names = {"np": np, "x": IMAGES.transpose(0, 3, 1, 2)}
    exec(found.cure, names)
    assert names["x"].shape == IMAGES.shape


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.end = Dense(3, name="end")

    def call(self, x):
        return self.end(x)


def test_a_layer_that_does_not_fit_is_named():
    model = Own()
    model(normal(1, 5))
    found = only(compiled(model, SPARSE), X, IDS)
    assert (found.code, found.where) == ("input-format", "layer 'end'")
    assert codes(model, normal(32, 5), IDS) == []


def test_a_number_of_inputs_that_does_not_fit_is_said():
    ends = [keras.Input((4,), name=name) for name in ("a", "b")]
    model = keras.Model(ends, Dense(3)(layers.Concatenate()(ends)))
    compiled(model, SPARSE)
    found = only(model, X, IDS)
    assert found.code == "input-format"
    assert found.evidence["inputs of the model"] == ["a", "b"]
    assert codes(model, [X, X], IDS) == []


class Squares(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.square(ops.cast(y_true, "float32") - y_pred)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", Squares()])
@pytest.mark.parametrize("units", [3, 5])
def test_a_number_for_each_row_and_several_units(loss, units):
    model, x, *_ = stack(Dense(4, "tanh"), Dense(units), loss=loss)
    y = X[:, 0]
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.code == "label-format"
    names = {"model": model, "x": x, "y": y}
    after = run_cure(report, names, epochs=1)
    assert "label-format" not in [each.code for each in after.findings]


@pytest.mark.parametrize("loss", ["mse", "mae", Squares()])
@pytest.mark.parametrize("activation", [None, "softmax"])
def test_class_ids_for_a_loss_of_numbers(loss, activation):
    model, x, *_ = stack(Dense(3, activation), loss=loss)
    report = look_at(model, x, IDS)
    (found,) = report.findings
    assert found.code == "label-format"
    assert "Class ids" in found.cause
    names = {"model": model, "x": x, "y": IDS}
    assert run_cure(report, names, epochs=1).findings == ()


PRICES = (12.5 + 3 * X[:, 0]).astype("O")


@pytest.mark.parametrize(
    "y",
    [PRICES, PRICES.astype(str), np.where(np.arange(32) == 3, None, PRICES)],
    ids=["objects", "text", "a hole"],
)
def test_numbers_in_objects_stay_the_numbers_that_they_are(y):
    model, x, *_ = stack(Dense(1), loss="mse", optimizer="adam")
    report = look_at(model, x, y)
    (found,) = report.findings
    assert found.code == "label-format"
    assert "unique" not in found.cure
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names).findings == ()
    assert names["y"].max() == pytest.approx(PRICES.max(), rel=1e-6)


TABLE = X.astype("O")
NAMED = np.where(np.arange(4) == 2, np.array(["a", "b"] * 16)[:, None], TABLE)


@pytest.mark.parametrize(
    "x", [TABLE, X.astype(str), NAMED], ids=["objects", "text", "names"]
)
def test_inputs_that_are_no_numbers_are_found_and_cured(x):
    model, *_ = stack(Dense(3), loss=SPARSE)
    report = look_at(model, x, IDS)
    (found,) = report.findings
    assert (found.code, found.where) == ("input-format", "x")
    names = {"model": model, "x": x, "y": IDS}
    assert run_cure(report, names).findings == ()
    np.testing.assert_allclose(names["x"][:, 0], X[:, 0], rtol=1e-5)
