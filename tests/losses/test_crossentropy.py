import json

import keras
import numpy as np
import pytest

import keras_xent
from keras_xent import losses
from keras_xent.ops import devices, own_softmax
from tests.testing import (
    BACKEND,
    gradient,
    normal,
    quick,
    to_numpy,
    with_mask,
)


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


# Three rows of four outputs; the second row is not known at all.
KNOWN = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
OUTPUTS = normal(3, 4)
FLAGS = (normal(3, 4, seed=1) > 0).astype("float32")
BROKEN = np.where(KNOWN, OUTPUTS, [np.nan, np.inf, -np.inf, 1e9])
BROKEN = BROKEN.astype("float32")


def of_known(weight=None):
    """The mean loss of each row over the outputs that are known."""
    losses = to_numpy(keras_xent.ops.sigmoid_crossentropy(FLAGS, OUTPUTS))
    losses = losses if weight is None else losses * weight
    count = KNOWN.sum(axis=1)
    return np.where(KNOWN, losses, 0).sum(axis=1) / np.maximum(count, 1)


def unknown(how, reduction="sum_over_batch_size", weight=None):
    """A loss of logits in which some outputs are not known."""
    value = {"-1": -1, "nan": float("nan")}.get(how)
    loss = losses.SigmoidCrossentropy(ignore_class=value, reduction=reduction)
    labels = FLAGS if value is None else np.where(KNOWN, FLAGS, value)

    def of_logits(logits):
        if how == "mask":
            return loss(labels, with_mask(logits, KNOWN), weight)
        if how == "weight":
            given = KNOWN if weight is None else KNOWN * weight
            return loss(labels, logits, given)
        return loss(labels, logits, weight)

    return of_logits


@pytest.mark.parametrize("how", ["-1", "nan", "mask", "weight"])
def test_the_loss_of_a_row_is_the_mean_over_what_is_known(how):
    rows = to_numpy(quick(unknown(how, "none"))(OUTPUTS))
    expected = of_known()
    # As in all of Keras: a row of weight 0 counts, a masked one does not.
    count = 3 if how == "weight" else 2
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    grad, mean = gradient(unknown(how), BROKEN)
    assert mean == pytest.approx(expected.sum() / count, rel=1e-6)
    assert np.all(grad[~KNOWN] == 0)
    assert np.all(grad[KNOWN] != 0)
    mean = unknown(how, "mean_with_sample_weight")(BROKEN)
    assert number(mean) == pytest.approx(expected.sum() / 2, rel=1e-6)


@pytest.mark.parametrize("how", ["-1", "nan", "mask", "weight"])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 4), (3, 4)])
def test_weights_of_outputs_go_with_those_that_are_known(how, shape):
    weight = np.abs(normal(*shape, seed=3)) + 0.5
    full = weight[:, None] if shape == (3,) else weight
    full = np.broadcast_to(full, (3, 4))
    expected = of_known(full)
    given = full if how == "weight" else weight
    rows = to_numpy(unknown(how, "none", given)(OUTPUTS))
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    divisor = np.where(KNOWN, full, 0).sum(axis=1) / KNOWN.sum(axis=1).clip(1)
    mean = unknown(how, "mean_with_sample_weight", given)(OUTPUTS)
    wanted = expected.sum() / divisor.sum()
    assert number(mean) == pytest.approx(wanted, rel=1e-6)


def test_weights_of_a_row_that_cancel_are_no_good_number():
    loss = losses.SigmoidCrossentropy()
    weight = np.array([[1.0, -1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert np.isnan(number(loss(FLAGS, OUTPUTS, weight)))
    assert np.isfinite(number(loss(FLAGS, OUTPUTS, abs(weight))))


def of_each_row(targets, logits, weight, options, reduction):
    """Σ weight · mean loss of a row, row by row, over what Keras divides by."""
    total, rows = 0.0, list(np.ndindex(logits.shape[:-1]))
    for row in rows:
        terms = [
            keras_xent.ops.sigmoid_crossentropy([t], np.array([x]), **options)
            for t, x in zip(targets[row], logits[row], strict=True)
        ]
        if weight[row]:
            total += weight[row] * np.mean([to_numpy(x) for x in terms])
    return total / {"sum": 1, "mean": len(rows)}[reduction]


@pytest.fixture(params=["few", "in blocks"])
def rows_in_blocks(request, monkeypatch):
    """Few numbers never are in blocks by themselves."""
    if request.param == "in blocks":
        monkeypatch.setattr(own_softmax, "SMALL_SIZE", 0)
        monkeypatch.setattr(devices, "CPU_CHUNK_BYTES", 2 * 4 * 3)


@pytest.mark.usefixtures("rows_in_blocks")
@pytest.mark.parametrize("time", [(), (3,)])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("options", [{}, {"focal_gamma": 2.0}])
def test_a_weight_of_a_row_is_one_of_its_mean(time, column, reduction, options):
    shape = (5, *time, 3)
    logits, targets = normal(*shape), (normal(*shape, seed=1) > 0) * 1.0
    weight = abs(normal(*shape[:-1], seed=2))
    weight[1] = 0
    loss = losses.SigmoidCrossentropy(reduction=reduction, **options)
    given = weight[..., None] if column else weight
    broken = logits.copy()
    broken[1] = np.inf
    broken[1, ..., 0] = np.nan
    grad, value = gradient(lambda x: loss(targets, x, given), broken)
    expected = of_each_row(targets, logits, weight, options, reduction)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert np.all(grad[1] == 0)
    assert np.all(grad[[0, 2, 3, 4]] != 0)


@pytest.mark.usefixtures("rows_in_blocks")
def test_a_mask_of_rows_leaves_them_out_of_the_mean():
    logits, targets = normal(2, 4, 3), (normal(2, 4, 3, seed=1) > 0) * 1.0
    mask = np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool)
    loss = losses.SigmoidCrossentropy()
    expected = of_each_row(targets, logits, mask, {}, "sum") / mask.sum()
    broken = np.where(mask[..., None], logits, np.float32("inf"))
    grad, value = gradient(lambda x: loss(targets, with_mask(x, mask)), broken)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert np.all(grad[~mask] == 0)
    assert np.all(grad[mask] != 0)


def test_a_weight_of_a_row_is_as_one_of_all_its_outputs():
    targets, weight = FLAGS, np.array([2.0, 0.0, 0.5])
    for ignored in (None, 1):
        loss = losses.SigmoidCrossentropy(ignore_class=ignored)
        each = np.repeat(weight[:, None], 4, axis=1)
        expected = number(loss(targets, OUTPUTS, each))
        result = number(loss(targets, OUTPUTS, weight))
        assert result == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_learns_from_the_labels_that_are_known(jit_compile):
    if jit_compile and BACKEND == "torch":
        pytest.skip("the contract test compiles one class of each kind")
    x = normal(64, 6)
    truth = (x[:, :3] > 0).astype("float32")
    known = normal(64, 3, seed=2) > 0
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    for how in ("weight", "ignore_class"):
        keras.utils.set_random_seed(0)
        ignored = how == "ignore_class"
        model.compile(
            keras.optimizers.Adam(0.1),
            losses.SigmoidCrossentropy(ignore_class=-1 if ignored else None),
            jit_compile=jit_compile,
        )
        labels = np.where(known, truth, -1 if ignored else 0.5)
        weight = None if ignored else known.astype("float32")
        before = model.evaluate(x, labels, sample_weight=weight, verbose=0)
        model.fit(x, labels, sample_weight=weight, epochs=5, verbose=0)
        after = model.evaluate(x, labels, sample_weight=weight, verbose=0)
        assert after < before


def test_unknown_values_survive_a_configuration():
    loss = losses.SigmoidCrossentropy(ignore_class=[-1, float("nan")])
    config = json.loads(json.dumps(loss.get_config()))
    again = losses.SigmoidCrossentropy.from_config(config)
    assert again.ignore_class[0] == -1
    assert np.isnan(again.ignore_class[1])
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(saved)
    labels = np.where(KNOWN, FLAGS, np.nan)
    assert number(again(labels, BROKEN)) == number(unknown("nan")(BROKEN))


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


@pytest.mark.parametrize("time", [3, 2])
@pytest.mark.parametrize("how", ["weight", "mask"])
def test_weights_and_masks_have_the_leading_axes_of_the_rows(time, how):
    """Keras's losses lay a vector along the last axis, its metrics do not."""
    logits, labels = normal(2, time, 4), np.arange(2 * time).reshape(2, -1) % 4
    metric = keras_xent.metrics.CrossentropyRate()
    loss = losses.SparseSoftmaxCrossentropy(reduction="none")
    rows = to_numpy(loss(labels, logits))

    def check(weight, full):
        expected = np.where(np.broadcast_to(full, rows.shape), rows, 0)
        mean = expected.sum() / np.broadcast_to(full, rows.shape).sum()
        x, w = logits, weight
        if how == "mask":
            x, w = with_mask(logits, weight != 0), None
        sums = losses.SparseSoftmaxCrossentropy(reduction="sum")
        assert number(sums(labels, x, w)) == pytest.approx(expected.sum())
        metric.reset_state()
        metric.update_state(labels, x, w)
        assert number(metric.result()) == pytest.approx(mean, rel=1e-5)

    example, step = np.array([1.0, 0.0]), np.eye(time)[0]
    check(example, example[:, None])
    check(example[:, None], example[:, None])
    check(step[None], step[None])
    check(np.outer(example, step), np.outer(example, step))
    if time == 2:
        check(step, step[:, None])
    else:
        with pytest.raises(
            ValueError, match=r"Received.*\(3,\).*pass \(1, 3\)"
        ):
            check(step, step[None])


def test_labels_of_two_ranks_in_one_compiled_step_are_named():
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow traces an unknown rank")
    logits, labels = normal(2, 3, 4), np.zeros((2, 3), "int32")
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(4)])
    model.compile("sgd", losses.SparseSoftmaxCrossentropy())
    model.fit(logits, labels, verbose=0)
    with pytest.raises(ValueError, match="unknown number of axes"):
        model.fit(logits, labels[..., None], verbose=0)


def test_a_warning_is_at_the_users_line():
    targets, logits = np.ones((2, 3), "float32"), normal(2, 3)
    loss = losses.SoftmaxCrossentropy()
    with pytest.warns(UserWarning, match="sum to 1") as caught:
        loss(targets, logits)
    assert caught[0].filename == __file__


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
    "cls", [losses.SoftmaxCrossentropy, losses.SparseSoftmaxCrossentropy]
)
def test_class_weights_may_be_those_of_fit(cls):
    loss = cls(class_weight={0: 1, 2: np.float32(0.5)})
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(saved)
    assert again.class_weight == {0: 1.0, 2: 0.5}
    labels = np.array([0, 1, 2, 2])
    if cls is losses.SoftmaxCrossentropy:
        labels = np.eye(3, dtype="float32")[labels]
    expected = cls(class_weight=[1, 1, 0.5])(labels, normal(4, 3))
    assert number(again(labels, normal(4, 3))) == number(expected)
    with pytest.raises(ValueError, match="keys of `class_weight`"):
        cls(class_weight={-1: 1.0})


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (losses.SigmoidCrossentropy, {"ignore_class": "unknown"}),
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


def test_what_is_known_is_counted_in_each_row_of_each_example():
    x, targets = normal(3, 3, 2), np.zeros((3, 3, 2))
    targets[0, 1:] = targets[2, 0, 0] = -1
    loss = losses.SigmoidCrossentropy(ignore_class=-1, reduction="none")
    flat = to_numpy(loss(targets.reshape(9, 2), x.reshape(9, 2)))
    found = to_numpy(loss(targets, x))
    np.testing.assert_allclose(found, flat.reshape(3, 3), rtol=1e-6)


def test_predictions_that_are_no_numbers_are_an_error_with_weights_too():
    loss = losses.SoftmaxCrossentropy()
    for weight in (None, [1.0, 1.0]):
        for wrong in (normal(2, 3).astype(str), [[1.0, 2.0], [3.0]]):
            with pytest.raises(ValueError, match="real numbers"):
                loss(np.eye(3)[:2], wrong, weight)
