"""Labels and weights that do not fit the loss."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent import losses
from tests.diagnosis.cases import (
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
    flags,
    ids,
    only,
    rows,
    sparse,
    stack,
    twins,
)
from tests.testing import normal

Dense = layers.Dense
NAMES = np.array(["cat", "dog", "owl"])


def keras_sparse(**options):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, **options
    )


@twins(
    {
        "one more": (lambda: ids(np.arange(32) % 4), lambda: ids(IDS)),
        "counted from 1": (
            lambda: ids(IDS + 1, KERAS_SPARSE),
            lambda: ids(IDS, KERAS_SPARSE),
        ),
        "negative": (
            lambda: ids(IDS - 1),
            lambda: ids(IDS - 1, sparse(ignore_class=-1)),
        ),
        "negative, Keras": (
            lambda: ids(IDS - 1, KERAS_SPARSE),
            lambda: ids(IDS - 1, keras_sparse(ignore_class=-1)),
        ),
        "as floats": (
            lambda: ids(IDS + 1.0, KERAS_SPARSE),
            lambda: ids(IDS + 0.0, KERAS_SPARSE),
        ),
        "in a column": (
            lambda: ids(IDS[:, None] + 1),
            lambda: ids(IDS[:, None]),
        ),
        "of probabilities": (
            lambda: stack(
                Dense(3, "softmax"),
                loss="sparse_categorical_crossentropy",
                y=IDS + 1,
            ),
            lambda: stack(
                Dense(3, "softmax"),
                loss="sparse_categorical_crossentropy",
                y=IDS,
            ),
        ),
        "only in rows that count": (
            lambda: ids(np.maximum(IDS, 3)),
            lambda: ids(np.where(IDS == 2, 3, IDS), weight=(IDS < 2) * 1.0),
        ),
        "of a linear head": (
            lambda: stack(*head(), loss=losses.LinearCrossentropy(), y=IDS + 1),
            lambda: stack(*head(), loss=losses.LinearCrossentropy(), y=IDS),
        ),
    }
)
def test_labels_out_of_range(broken, healthy):
    assert codes(*broken()) == ["labels-out-of-range"]
    assert codes(*healthy()) == []


def head():
    from keras_xent.layers import LinearHead

    return [LinearHead(3)]


def test_the_cure_fits_the_labels():
    assert only(*ids(IDS + 1)).cure == "y = y - 1"
    assert "ignore_class=-1" in only(*ids(IDS - 1)).cure
    gaps = only(*ids(IDS * 10))
    assert "return_inverse=True" in gaps.cure
    assert gaps.evidence["for example"] == [10, 20]
    assert gaps.evidence["labels outside"] == np.sum(IDS > 0)


def test_one_wrong_label_among_many_is_found():
    # The batch of 32 rows does not hold it.
    y = np.arange(1000) % 3
    y[501] = 3
    assert codes(*ids(y, x=normal(1000, 4))) == ["labels-out-of-range"]


@twins(
    {
        "names": (
            lambda: ids(NAMES[IDS]),
            lambda: ids(np.unique(NAMES[IDS], return_inverse=True)[1]),
        ),
        "one-hot for ids": (lambda: ids(ONE_HOT), lambda: ids(IDS)),
        "one-hot for ids, Keras": (
            lambda: ids(ONE_HOT, KERAS_SPARSE),
            lambda: rows(ONE_HOT, KERAS_DENSE),
        ),
        "ids for one-hot": (lambda: rows(IDS), lambda: rows(ONE_HOT)),
        "ids for one-hot, Keras": (
            lambda: rows(IDS[:, None], KERAS_DENSE),
            lambda: ids(IDS[:, None], KERAS_SPARSE),
        ),
        "one-hot of other classes": (
            lambda: rows(np.eye(4)[IDS]),
            lambda: rows(np.eye(4)[IDS], units=4),
        ),
        "probabilities for ids": (
            lambda: ids(IDS / 3),
            lambda: ids(np.round(IDS / 3)),
        ),
        "a label that is not a number": (
            lambda: ids(np.where(IDS == 2, np.nan, IDS)),
            lambda: ids(np.where(IDS == 2, 0.0, IDS)),
        ),
        "steps": (
            lambda: stack(
                Dense(3),
                loss=SPARSE,
                x=normal(8, 5, 4),
                y=np.arange(8) % 3,
            ),
            lambda: stack(
                Dense(3),
                loss=SPARSE,
                x=normal(8, 5, 4),
                y=np.arange(40).reshape(8, 5) % 3,
            ),
        ),
        "flags of -1 and 1": (
            lambda: distance(2 * FLAGS - 1),
            lambda: distance(FLAGS),
        ),
    }
)
def test_label_format(broken, healthy):
    assert codes(*broken()) == ["label-format"]
    assert codes(*healthy()) == []


def distance(y):
    positive = Dense(1, "softplus")
    return stack(positive, loss=losses.SoftplusHinge(1.0), y=y)


@pytest.mark.parametrize("y", [list("aab" * 11)[:32], NAMES[IDS].astype("O")])
def test_names_are_no_labels_in_any_container(y):
    model, x, *_ = ids(IDS)
    assert codes(model, x, y) == ["label-format"]


@pytest.mark.parametrize(
    ("y", "cure"),
    [
        (IDS.astype("O"), "y.astype"),
        (IDS.astype("datetime64[D]"), "np.unique"),
        (np.where(IDS == 2, np.nan, IDS), "np.isfinite"),
    ],
)
def test_what_is_nearly_a_number_has_its_own_cure(y, cure):
    model, x, *_ = ids(IDS)
    found = only(model, x, y)
    assert found.code == "label-format"
    assert cure in found.cure


class Squares(keras.losses.Loss):
    """A loss as people write it."""

    def call(self, y_true, y_pred):
        return ops.square(y_pred - ops.cast(y_true, "float32"))


NUMBERS = X[:, 0]


@twins(
    {
        "a class": (
            lambda: flags(NUMBERS, Squares()),
            lambda: flags(NUMBERS[:, None], Squares()),
        ),
        "the other way round": (
            lambda: stack(
                Dense(1),
                layers.Reshape(()),
                loss=Squares(),
                y=NUMBERS[:, None],
            ),
            lambda: stack(
                Dense(1), layers.Reshape(()), loss=Squares(), y=NUMBERS
            ),
        ),
        "several units for a number": (
            lambda: flags(NUMBERS[:, None], "mse", units=3),
            lambda: flags(NUMBERS[:, None], "mse", units=1),
        ),
        "several columns for a unit": (
            lambda: flags(X, "mse"),
            lambda: flags(X, "mse", units=4),
        ),
        "ids for several sigmoids": (
            lambda: flags(IDS, KERAS_YES_NO, units=3),
            lambda: flags(ONE_HOT, KERAS_YES_NO, units=3),
        ),
        "a step for each": (
            lambda: stack(
                Dense(1), loss="mse", x=normal(8, 5, 4), y=normal(8, 1)
            ),
            lambda: stack(
                Dense(1), loss="mse", x=normal(8, 5, 4), y=normal(8, 5)
            ),
        ),
    }
)
def test_shape_broadcast(broken, healthy):
    assert codes(*broken()) == ["shape-broadcast"]
    assert codes(*healthy()) == []


def test_keras_brings_labels_into_shape():
    assert codes(*flags(NUMBERS, "mse")) == []
    assert codes(*flags(NUMBERS, lambda y, p: ops.square(p - y))) == []
    assert codes(*flags(FLAGS[:, 0], KERAS_YES_NO)) == []


@twins(
    {
        "several classes at once": (
            lambda: rows(ONE_HOT + np.roll(ONE_HOT, 1, 1)),
            lambda: rows(ONE_HOT + np.roll(ONE_HOT, 1, 1), YES_NO),
        ),
        "counts": (
            lambda: rows(ONE_HOT * 7 + 1, KERAS_DENSE),
            lambda: rows((ONE_HOT * 7 + 1) / 10, KERAS_DENSE),
        ),
        "negative": (
            lambda: rows(ONE_HOT * 2 - np.roll(ONE_HOT, 1, 1)),
            lambda: rows(ONE_HOT * 0.5 + np.roll(ONE_HOT, 1, 1) * 0.5),
        ),
        "rows of zeros": (
            lambda: rows(ONE_HOT * (np.arange(32)[:, None] > 3)),
            lambda: rows(
                ONE_HOT * (np.arange(32)[:, None] > 3),
                weight=(np.arange(32) > 3) * 1.0,
            ),
        ),
        "-1 and 1": (
            lambda: flags(2 * FLAGS - 1),
            lambda: flags(FLAGS),
        ),
        "1 and 2": (
            lambda: flags(FLAGS + 1, KERAS_YES_NO),
            lambda: flags(FLAGS, KERAS_YES_NO),
        ),
        "class ids": (
            lambda: flags(IDS[:, None]),
            lambda: ids(IDS[:, None]),
        ),
        "pixels": (
            lambda: flags(FLAGS * 255, KERAS_YES_NO),
            lambda: flags(FLAGS * 255 / 255, KERAS_YES_NO),
        ),
        "measurements": (
            lambda: flags(X, units=4),
            lambda: flags(X, "mse", units=4),
        ),
    }
)
def test_targets_not_distribution(broken, healthy):
    assert codes(*broken()) == ["targets-not-distribution"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize(
    ("y", "cure"),
    [
        (2 * FLAGS - 1, "y = (y + 1) / 2"),
        (FLAGS + 1, "y = y - 1"),
        (FLAGS * 255, "y = y / 255"),
        (IDS[:, None], "last = model.get_layer("),
        (X[:, :1], "loss = 'mse'"),
    ],
)
def test_the_cure_of_yes_and_no_fits_the_labels(y, cure):
    assert only(*flags(y)).cure.startswith(cure)


def labels_as(dtype, units):
    y = ops.cast(ops.convert_to_tensor(IDS), dtype)
    return ids(y, units=units)


@twins(
    {
        "bfloat16": (
            lambda: labels_as("bfloat16", 258),
            lambda: labels_as("bfloat16", 257),
        ),
        "float16": (
            lambda: ids(IDS.astype("float16"), units=2050),
            lambda: ids(IDS.astype("float16"), units=2049),
        ),
        "float16, rounded up to a class that does not exist": (
            lambda: ids((IDS + 2049).astype("float16"), units=2052),
            lambda: ids(IDS + 2049, units=2052),
        ),
        "a loss in bfloat16": (
            lambda: ids(IDS, keras_sparse(dtype="bfloat16"), units=258),
            lambda: ids(IDS, sparse(dtype="bfloat16"), units=258),
        ),
        "a loss in float16": (
            lambda: ids(IDS, keras_sparse(dtype="float16"), units=2050),
            lambda: ids(IDS, keras_sparse(), units=2050),
        ),
    }
)
def test_label_precision(broken, healthy):
    assert codes(*broken()) == ["label-precision"]
    assert codes(*healthy()) == []


def masked(x, y):
    return stack(
        layers.Embedding(5, 3, mask_zero=True),
        Dense(3),
        loss=SPARSE,
        x=x,
        y=y,
    )


TOKENS = np.arange(40).reshape(8, 5) % 4
NEXT = TOKENS % 3


@twins(
    {
        "weights": (
            lambda: ids(IDS, weight=np.zeros(32)),
            lambda: ids(IDS, weight=np.ones(32)),
        ),
        "padding": (
            lambda: masked(0 * TOKENS, NEXT),
            lambda: masked(TOKENS, NEXT),
        ),
        "ignored": (
            lambda: ids(0 * IDS - 1, sparse(ignore_class=-1)),
            lambda: ids(IDS - 1, sparse(ignore_class=-1)),
        ),
        "ignored, Keras": (
            lambda: ids(0 * IDS - 1, keras_sparse(ignore_class=-1)),
            lambda: ids(IDS - 1, keras_sparse(ignore_class=-1)),
        ),
    }
)
def test_all_masked(broken, healthy):
    assert codes(*broken()) == ["all-masked"]
    assert codes(*healthy()) == []


def test_one_label_for_many_places_is_told_once():
    broken = stack(
        layers.Conv2D(2, 3),
        Dense(1),
        loss="mse",
        x=normal(8, 5, 5, 1),
        y=X[:8, :1],
    )
    assert only(*broken).code == "shape-broadcast"
