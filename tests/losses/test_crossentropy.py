import json

import keras
import numpy as np
import pytest

import keras_xent
from keras_xent import losses
from tests.testing import normal, to_numpy


def number(tensor):
    return float(to_numpy(tensor))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("label", [257, 1000])
def test_labels_are_not_cast_to_the_dtype_of_the_loss(dtype, label):
    """Keras casts them: in bfloat16 class 257 trains as class 256."""
    logits = np.zeros((1, 1001), "float32")
    logits[0, label] = 50.0
    loss = losses.SparseSoftmaxCrossentropy(dtype=dtype)
    assert number(loss(np.array([label]), logits)) == pytest.approx(0, abs=1e-6)
    assert number(loss(np.array([label - 1]), logits)) > 49


def test_a_mixed_precision_model_trains_classes_above_256():
    keras.utils.set_random_seed(0)
    x, y = np.eye(4, dtype="float32"), np.array([0, 257, 258, 299])
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(300, dtype="mixed_bfloat16")]
    )
    model.compile(
        keras.optimizers.Adam(0.5),
        losses.SparseSoftmaxCrossentropy(),
    )
    model.fit(x, y, epochs=20, verbose=0)
    assert model.predict(x, verbose=0).argmax(axis=1).tolist() == y.tolist()


@pytest.mark.parametrize("axis", [1, -1])
def test_the_classes_of_an_image_may_lie_on_any_axis(axis):
    logits = np.moveaxis(normal(2, 3, 4, 5), -1, axis)
    labels = np.arange(24).reshape(2, 3, 4) % 5
    targets = np.moveaxis(np.eye(5, dtype="float32")[labels], -1, axis)
    last = number(
        losses.SparseSoftmaxCrossentropy()(labels, normal(2, 3, 4, 5))
    )
    sparse = losses.SparseSoftmaxCrossentropy(axis=axis)
    dense = losses.SoftmaxCrossentropy(axis=axis)
    assert number(sparse(labels, logits)) == pytest.approx(last, rel=1e-6)
    assert number(dense(targets, logits)) == pytest.approx(last, rel=1e-6)


def test_flat_labels_beside_a_column_of_logits_are_the_same_rows():
    logits, labels = normal(4, 1), np.array([1, 0, 1, 1])
    loss = losses.SigmoidCrossentropy()
    expected = number(loss(labels[:, None], logits))
    assert number(loss(labels, logits)) == expected
    assert number(loss(labels[:, None], logits[:, 0])) == expected
    assert number(loss(labels.tolist(), logits)) == expected


def test_sigmoid_losses_of_a_row_are_averaged():
    logits, targets = normal(4, 3), (normal(4, 3, seed=1) > 0).astype("float32")
    rows = to_numpy(losses.SigmoidCrossentropy(reduction=None)(targets, logits))
    elements = to_numpy(keras_xent.ops.sigmoid_crossentropy(targets, logits))
    np.testing.assert_allclose(rows, elements.mean(axis=1), rtol=1e-6)


def test_ignored_rows_do_not_count_in_the_mean():
    logits, labels = normal(4, 3), np.array([0, -1, 2, -1])
    loss = losses.SparseSoftmaxCrossentropy(ignore_class=-1)
    kept = losses.SparseSoftmaxCrossentropy()(labels[[0, 2]], logits[[0, 2]])
    assert number(loss(labels, logits)) == pytest.approx(number(kept), rel=1e-6)
    weight = np.array([1.0, 5.0, 3.0, 5.0])
    expected = losses.SparseSoftmaxCrossentropy()(
        labels[[0, 2]], logits[[0, 2]], weight[[0, 2]]
    )
    result = number(loss(labels, logits, weight))
    assert result == pytest.approx(number(expected), rel=1e-6)


def test_a_weight_per_sequence_holds_for_its_time_steps():
    logits, labels = normal(2, 3, 4), np.array([[0, 1, 2], [3, 2, 1]])
    loss = losses.SparseSoftmaxCrossentropy(reduction="sum")
    expected = number(loss(labels[:1], logits[:1]))
    result = loss(labels, logits, np.array([1.0, 0.0]))
    assert number(result) == pytest.approx(expected, rel=1e-6)


def test_a_label_that_does_not_exist_may_have_weight_zero():
    logits, labels = normal(2, 3), np.array([1, -1])
    loss = losses.SparseSoftmaxCrossentropy(reduction="sum")
    expected = number(loss(labels[:1], logits[:1]))
    result = number(loss(labels, logits, np.array([1.0, 0.0])))
    assert result == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (losses.SoftmaxCrossentropy, "class_weight"),
        (losses.SparseSoftmaxCrossentropy, "class_weight"),
        (losses.SigmoidCrossentropy, "pos_weight"),
    ],
)
def test_weights_may_be_arrays_and_are_saved_as_numbers(cls, name):
    loss = cls(**{name: np.array([1.0, 2.5], "float32")})
    assert loss.get_config()[name] == [1.0, 2.5]


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (losses.SoftmaxCrossentropy, {"label_smoothing": 1.5}),
        (losses.SoftmaxCrossentropy, {"class_weight": [-1.0, 1.0]}),
        (losses.SparseSoftmaxCrossentropy, {"ignore_class": "pad"}),
        (losses.SigmoidCrossentropy, {"pos_weight": -1.0}),
        (losses.SigmoidCrossentropy, {"focal_gamma": None}),
    ],
)
def test_options_out_of_range_are_an_error_at_once(cls, kwargs):
    with pytest.raises(ValueError, match=f"`{next(iter(kwargs))}`"):
        cls(**kwargs)


def test_an_option_changed_later_is_obeyed_and_saved():
    loss = losses.SparseSoftmaxCrossentropy()
    labels, logits = np.array([0, 1]), normal(2, 3)
    loss.label_smoothing = 0.5
    expected = losses.SparseSoftmaxCrossentropy(label_smoothing=0.5)
    assert number(loss(labels, logits)) == number(expected(labels, logits))
    assert loss.get_config()["label_smoothing"] == 0.5


def test_numpy_numbers_are_saved_as_numbers():
    loss = losses.SoftmaxCrossentropy(focal_gamma=np.float32(2))
    assert json.dumps(loss.get_config()["focal_gamma"]) == "2.0"


@pytest.mark.parametrize("axis", [5, "last", True])
def test_an_axis_that_is_none_is_an_error_with_weights_too(axis):
    loss = losses.SparseSoftmaxCrossentropy(axis=axis)
    with pytest.raises(ValueError, match="`axis`"):
        loss(np.array([0, 1]), normal(2, 3), np.ones(2))
