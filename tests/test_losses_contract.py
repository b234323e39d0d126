"""What every loss owes its user, asked of every loss."""

import json

import keras
import numpy as np
import pytest

from tests.contract import HOWS, LOSSES
from tests.testing import (
    BACKEND,
    compiled,
    gradient,
    gradients,
    normal,
    quick,
    to_numpy,
    with_mask,
)

each_loss = pytest.mark.parametrize("case", LOSSES, ids=str)
REDUCTIONS = [
    "sum_over_batch_size",
    "sum",
    "mean",
    "mean_with_sample_weight",
    "none",
    None,
]


def call(case, labels, predictions, weight=None, **kwargs):
    loss = case.loss(**kwargs)

    def of_predictions(predictions):
        return loss(labels, predictions, weight)

    # Seven rows run op by op; other sizes would compile all those ops anew.
    how = of_predictions if len(predictions) == 7 else quick(of_predictions)
    return to_numpy(how(predictions))


def fit_and_evaluate(case, weight=None, **compile_args):
    """Seven rows in batches of four: the batch size is never a constant."""
    x, y = normal(7, 4), case.labels(7)
    model = case.model(loss=case.make(), **compile_args)

    def evaluate():
        return model.evaluate(
            x, y, sample_weight=weight, batch_size=7, verbose=0
        )

    before = evaluate()
    # A NumPy array is logits to a head's loss, as the predictions are.
    expected = to_numpy(case.make()(y, to_numpy(model(x)), weight))
    np.testing.assert_allclose(before, expected, rtol=1e-5)
    # JAX compiles every op anew for each size where it runs op by op.
    eager = BACKEND == "jax" and not compile_args
    # A triplet of the whole batch may be in no batch of four.
    whole = eager or case.mates
    model.fit(
        x, y, sample_weight=weight, batch_size=7 if whole else 4, epochs=8,
        verbose=0,
    )  # fmt: skip
    assert evaluate() < before


@each_loss
@pytest.mark.parametrize("how", [how for how in HOWS if how != "graph"])
def test_trains_and_evaluates_in_compile(case, how):
    if how == "jit_compile" and BACKEND == "torch" and not case.torch_compile:
        pytest.skip("PyTorch compiles for too long: one class of each kind")
    fit_and_evaluate(case, **{how: True})


@each_loss
def test_trains_and_evaluates_with_sample_weights_in_a_graph(case):
    fit_and_evaluate(case, np.array([1, 2, 0, 1, 0, 3, 1]))


@each_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_are_those_of_keras(case, reduction, weighted):
    y, z = case.labels(7), case.predictions(7)
    weight = np.array([1, 2, 0, 1, 0.5, 3, 1], "float32")
    weight = weight if weighted else None
    rows = call(case, y, z, weight, reduction="none")
    assert rows.shape == (case.losses(7),)
    # Rows that a loss ignores by itself count in no mean.
    counted = case.counted(y, weight) if len(rows) == 7 else np.ones(1)
    # In a list, weights are parts of the loss and do not scale it.
    plain = weight is None or case.is_list
    ones = np.ones(len(rows)) if plain else weight
    expected = {
        "sum": rows.sum(),
        "sum_over_batch_size": rows.sum() / counted.sum(),
        "mean": rows.sum() / counted.sum(),
        "mean_with_sample_weight": rows.sum() / (ones * counted).sum(),
        "none": rows,
        None: rows,
    }[reduction]
    if reduction in ("none", None):
        assert (
            rows.tolist() == call(case, y, z, weight, reduction=None).tolist()
        )
        return
    result = call(case, y, z, weight, reduction=reduction)
    assert result.shape == ()
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@each_loss
def test_a_mask_is_as_good_as_taking_the_rows_out(case):
    y, z = case.labels(7), case.predictions(7)
    mask = np.array([True, True, False, True, False, True, True])
    result = to_numpy(case.loss()(y, with_mask(z, mask)))
    expected = call(case, y[mask], z[mask])
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert not np.isclose(result, call(case, y, z))


@each_loss
def test_weight_zero_is_as_good_as_taking_the_rows_out(case):
    y, z = case.labels(7), case.predictions(7)
    weight = np.array([1, 2, 0, 1, 0, 3, 1], "float32")
    keep = weight > 0
    result = call(case, y, z, weight, reduction="mean_with_sample_weight")
    expected = call(
        case,
        y[keep],
        z[keep],
        weight[keep],
        reduction="mean_with_sample_weight",
    )
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@each_loss
@pytest.mark.parametrize("how", ["weight", "mask"])
def test_nothing_in_a_row_that_does_not_count_matters(case, how):
    y, z = case.labels(7), case.predictions(7)
    counts = np.array([True, True, False, True, False, True, True])
    loss = case.loss()

    def evaluate(predictions):
        if how == "weight":
            return loss(y, predictions, counts.astype("float32"))
        return loss(y, with_mask(predictions, counts))

    expected_grad, expected = gradient(evaluate, z)
    for value in (np.nan, np.inf, -np.inf):
        broken = np.where(counts[:, None], z, np.float32(value))
        grad, result = gradient(evaluate, broken)
        np.testing.assert_allclose(result, expected, rtol=1e-5)
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=1e-7)
        assert np.all(grad[~counts] == 0)
        assert np.any(grad[counts] != 0)


@each_loss
def test_a_weight_of_one_changes_nothing(case):
    y, z = case.labels(7), case.predictions(7)
    for ones in (np.ones(7), np.ones((7, 1)), 1.0):
        np.testing.assert_allclose(
            call(case, y, z, ones), call(case, y, z), rtol=1e-6
        )


@each_loss
def test_a_row_more_of_it_equals_weight_two(case):
    if case.pairs:
        pytest.skip("a row twice makes a new pair, with itself")
    y, z = case.labels(5), case.predictions(5)
    twice = [0, 1, 1, 2, 3, 3, 4]
    weight = np.array([1, 2, 1, 2, 1], "float32")
    np.testing.assert_allclose(
        call(case, y, z, weight, reduction="sum"),
        call(case, y[twice], z[twice], reduction="sum"),
        rtol=1e-5,
    )


@each_loss
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_predictions_are_summed_in_float32(case, dtype):
    y, z = case.labels(7), case.predictions(7)
    low = keras.ops.cast(z, dtype)
    grad, result = gradient(lambda x: case.loss()(y, x), low)
    expected_grad, expected = gradient(
        lambda x: case.loss()(y, x), to_numpy(keras.ops.cast(low, "float32"))
    )
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, expected_grad, rtol=2e-2, atol=2e-3)


@each_loss
def test_dtype_is_the_dtype_of_the_result(case):
    y, z = case.labels(7), case.predictions(7)
    loss = case.loss(dtype="bfloat16")
    result = loss(y, z)
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    np.testing.assert_allclose(to_numpy(result), call(case, y, z), rtol=1e-2)


@each_loss
def test_configuration_survives_the_round_trip(case):
    loss = case.make(reduction="sum", name="mine", dtype="float16")
    config = json.loads(json.dumps(loss.get_config()))
    assert type(loss).from_config(config).get_config() == loss.get_config()
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    assert saved["registered_name"] == f"keras_xent>{case.cls.__name__}"
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == loss.get_config()
    assert (again.name, again.reduction, again.dtype) == (
        "mine", "sum", "float16",
    )  # fmt: skip
    for key, value in case.kwargs.items():
        assert getattr(again, key) == value


@each_loss
def test_a_saved_model_goes_on_training_where_it_stopped(case, tmp_path):
    if case.random:
        pytest.skip("a loaded model draws other samples")
    x, y = normal(7, 4), case.labels(7)
    model = case.model(loss=case.make())
    expected = to_numpy(case.make()(y, to_numpy(model(x))))
    history = model.fit(x, y, batch_size=7, verbose=0).history
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(x, y, batch_size=7, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@each_loss
def test_a_batch_of_one_row_or_none_is_finite(case):
    for rows in (0, 1):
        y, z = case.labels(rows), case.predictions(rows)
        (grad,), value = gradients(lambda x, y=y: case.loss()(y, x), z)
        grad, value = to_numpy(grad), to_numpy(value)
        assert value.shape == ()
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
        rows_alone = call(case, y, z, reduction="none")
        assert rows_alone.shape == (case.losses(rows),)


@each_loss
def test_all_weights_zero_is_zero(case):
    y, z = case.labels(7), case.predictions(7)
    grad, value = gradient(
        lambda x: case.loss()(y, x, np.zeros(7, "float32")), z
    )
    assert value == 0
    assert np.all(grad == 0)


@each_loss
def test_compiles_under_xla_with_the_same_result(case):
    y, z = case.labels(7), case.predictions(7)
    result = compiled(case.loss())(
        keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(z)
    )
    np.testing.assert_allclose(to_numpy(result), call(case, y, z), rtol=1e-5)


@each_loss
def test_the_batch_size_may_be_unknown(case):
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow traces with an unknown batch size")
    import tensorflow as tf

    y, z = case.labels(7), case.predictions(7)
    loss = case.loss()
    for jit_compile in (False, True):
        traced = tf.function(
            loss,
            jit_compile=jit_compile,
            input_signature=[
                tf.TensorSpec((None, *y.shape[1:]), tf.as_dtype(y.dtype)),
                tf.TensorSpec((None, *z.shape[1:]), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ],
        )
        weight = np.ones(7, "float32")
        np.testing.assert_allclose(traced(y, z, weight), loss(y, z), rtol=1e-5)


@each_loss
def test_integer_predictions_are_an_error(case):
    y, z = case.labels(4), case.predictions(4).astype("int32")
    with pytest.raises(ValueError, match="floating point"):
        case.loss()(y, z)


@each_loss
def test_labels_for_other_rows_are_an_error(case):
    y, z = case.labels(4), case.predictions(3)
    with pytest.raises(ValueError, match="shape"):
        case.loss()(y, z)


@each_loss
@pytest.mark.parametrize("shape", [(3,), (4, 2), (4, 1, 1, 2)])
def test_weights_for_other_rows_are_an_error(case, shape):
    y, z = case.labels(4), case.predictions(4)
    with pytest.raises(ValueError, match=r"`sample_weight`.*per row"):
        case.loss()(y, z, np.ones(shape, "float32"))
