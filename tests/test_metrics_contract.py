"""What every metric owes its user, asked of every metric."""

import json

import keras
import numpy as np
import pytest

from keras_xent.metrics import ScoreHistogram
from tests.contract import HOWS, METRICS
from tests.testing import BACKEND, autocast, normal, to_numpy, with_mask

each_metric = pytest.mark.parametrize("case", METRICS, ids=str)

# PyTorch compiles for more than a minute; a loss does so in each run.
COMPILED_LATER = [pytest.mark.thorough] if BACKEND == "torch" else []

# Fourteen rows, of which seven count: JAX compiles all anew for other sizes.
WEIGHT = np.array([1, 2, 0, 1, 0, 3, 0, 0, 1, 0, 2, 0, 3, 0], "float32")
COUNTS = WEIGHT > 0
ROWS = len(WEIGHT)

CASE_LOSS = {
    "class ids": "sparse_categorical_crossentropy",
    "distances": "mse",
    "numbers": "mse",
    "yes or no": "mse",
}


def value(metric):
    return numbers(metric.result())


def numbers(result):
    """The one number of a result, or all those of a dict, sorted by key."""
    if not isinstance(result, dict):
        return float(to_numpy(result))
    return np.array([float(to_numpy(result[key])) for key in sorted(result)])


def logged(logs, name):
    """What Keras has logged for the metric of that name, as `value` has it."""
    keys = [key for key in logs if key == name or key.startswith(f"{name}_")]
    values = np.array([logs[key] for key in sorted(keys)])
    return values[0] if keys == [name] else values


def measure(case, labels, predictions, weight=None, **kwargs):
    metric = case.make(**kwargs)
    metric.update_state(labels, predictions, weight)
    return value(metric)


@each_metric
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=COMPILED_LATER) if how == "jit_compile" else how
        for how in HOWS
    ],
)
def test_is_evaluated_and_trained_along_in_compile(case, how):
    if how == "jit_compile" and BACKEND == "torch" and not case.torch_compile:
        pytest.skip("PyTorch compiles for too long: one class of each kind")
    x, y = normal(7, 4), case.labels(7)
    weight = np.array([1, 2, 0, 1, 0, 3, 1], "float32")
    model = case.model(
        loss=lambda y, z: keras.ops.mean(keras.ops.square(z), axis=-1),
        metrics=[case.make(name="plain")],
        weighted_metrics=[case.make(name="weighted")],
        **({} if how == "graph" else {how: True}),
    )
    # One shape only where each is compiled: slowly, or op by op.
    slow = [("torch", "jit_compile"), ("jax", "graph")]
    batch_size = 7 if (BACKEND, how) in slow else 4
    history = model.fit(
        x, y, sample_weight=weight, batch_size=batch_size, verbose=0
    ).history
    for name in ("plain", "weighted"):
        assert np.isfinite(logged(history, name)).all()
    logs = model.evaluate(
        x, y, sample_weight=weight, batch_size=7, verbose=0, return_dict=True
    )
    predictions = model.predict(x, verbose=0)
    assert logged(logs, "plain") == pytest.approx(
        measure(case, y, predictions), rel=1e-5
    )
    assert logged(logs, "weighted") == pytest.approx(
        measure(case, y, predictions, weight), rel=1e-5
    )


@each_metric
def test_a_mask_is_as_good_as_taking_the_rows_out(case):
    y, z = case.labels(ROWS), case.predictions(ROWS).copy()
    z[2] = np.nan
    assert measure(case, y, with_mask(z, COUNTS)) == pytest.approx(
        measure(case, y[COUNTS], z[COUNTS]), rel=1e-5
    )


@each_metric
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_weight_zero_is_as_good_as_taking_the_rows_out(case, shape):
    y, z = case.labels(ROWS), case.predictions(ROWS).copy()
    z[2] = np.nan
    assert measure(case, y, z, WEIGHT.reshape(shape)) == pytest.approx(
        measure(case, y[COUNTS], z[COUNTS], WEIGHT[COUNTS]), rel=1e-5
    )


@each_metric
def test_updates_add_up_and_reset_forgets(case):
    y, z = case.labels(ROWS), case.predictions(ROWS)
    one, two, both = case.make(), case.make(), case.make()
    for part, metric in ((slice(0, 7), one), (slice(7, ROWS), two)):
        metric.update_state(y[part], z[part])
        both.update_state(y[part], z[part])
    one.merge_state([two])
    assert value(one) == pytest.approx(value(both), rel=1e-6)
    if not case.pairs:
        assert value(both) == pytest.approx(measure(case, y, z), rel=1e-6)
    both.reset_state()
    assert np.isnan(value(both)).all()
    both.update_state(y, z)
    assert value(both) == pytest.approx(measure(case, y, z), rel=1e-6)


@each_metric
def test_a_metric_of_another_class_is_not_merged(case):
    with pytest.raises(ValueError, match=r"configured alike.*Received Score"):
        case.make().merge_state([ScoreHistogram()])


@each_metric
def test_configuration_survives_the_round_trip(case):
    metric = case.make(name="mine", dtype="float32")
    config = json.loads(json.dumps(metric.get_config()))
    assert case.cls.from_config(config).get_config() == metric.get_config()
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
    assert saved["registered_name"] == f"keras_xent>{case.cls.__name__}"
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == metric.get_config()
    y, z = case.labels(ROWS), case.predictions(ROWS)
    again.update_state(y, z)
    assert np.array_equal(value(again), measure(case, y, z))


@each_metric
def test_a_saved_model_measures_the_same(case, tmp_path):
    x, y = normal(7, 4), case.labels(7)
    model = case.model(loss=CASE_LOSS[case.data], metrics=[case.make()])
    before = model.evaluate(x, y, batch_size=7, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    after = loaded.evaluate(x, y, batch_size=7, verbose=0)
    assert after == pytest.approx(before, rel=1e-6)


@each_metric
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_scores_are_measured_in_float32(case, dtype):
    y, low = case.labels(ROWS), keras.ops.cast(case.predictions(ROWS), dtype)
    high = to_numpy(keras.ops.cast(low, "float32"))
    assert measure(case, y, low) == pytest.approx(
        measure(case, y, high), rel=1e-6
    )


@each_metric
@pytest.mark.device
def test_autocast_rounds_nothing(case):
    if BACKEND != "torch":
        pytest.skip("autocast is PyTorch's")
    y, z = case.labels(ROWS), case.predictions(ROWS)
    expected = measure(case, y, z)
    with autocast():
        found = measure(case, y, z)
    assert np.array_equal(found, expected, equal_nan=True)


@each_metric
def test_too_few_rows_to_measure_are_nan(case):
    for rows in (0, 1):
        result = measure(case, case.labels(rows), case.predictions(rows))
        assert np.isnan(result).all() == (rows < case.least)


@each_metric
def test_the_stateless_interface_gives_the_same(case):
    if BACKEND != "jax":
        pytest.skip("stateless metrics are JAX's way")
    import jax

    y, z = case.labels(ROWS), case.predictions(ROWS)
    metric = case.make()
    state = [v.value for v in metric.variables]
    state = jax.jit(metric.stateless_update_state)(state, y, z)
    result = jax.jit(metric.stateless_result)(state)
    assert numbers(result) == pytest.approx(measure(case, y, z), rel=1e-6)


@each_metric
def test_labels_for_other_rows_are_an_error(case):
    with pytest.raises(ValueError, match="shape"):
        measure(case, case.labels(4), case.predictions(3))


@each_metric
def test_weights_for_other_rows_are_an_error(case):
    with pytest.raises(ValueError, match="sample_weight"):
        measure(
            case, case.labels(4), case.predictions(4), np.ones(3, "float32")
        )
