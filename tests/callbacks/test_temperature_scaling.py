"""After training, the model's confidence is what the callback made it."""

import keras
import numpy as np
import pytest
from scipy.special import softmax

from keras_xent import callbacks, layers, losses, metrics, ops
from tests.testing import normal, to_numpy

N, K = 256, 3
# The model multiplies by 1: its outputs are the logits that come in. The labels
# are drawn from them at temperature 3.
X = normal(N, K, scale=4.0)
DRAWS = np.random.default_rng(0).random((N, 1))
Y = (softmax(X.astype("float64") / 3, axis=1).cumsum(axis=1) < DRAWS).sum(
    axis=1
)
WEIGHT = np.arange(N) % 3


def identity_model(*after):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(K, kernel_initializer="identity", use_bias=False)
    after = after or [layers.Temperature(name="calibrated")]
    model = keras.Sequential([keras.Input((K,)), dense, *after])
    loss = losses.SparseSoftmaxCrossentropy()
    model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def model():
    return identity_model()


def fit(model, *args, **kwargs):
    scaling = callbacks.TemperatureScaling(*args, **kwargs)
    model.fit(X, Y, batch_size=N, verbose=0, callbacks=[scaling])
    return scaling


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_it_puts_the_fitted_temperature_into_the_layer(model, weight):
    scaling = fit(model, (X, Y) if weight is None else (X, Y, weight))
    expected = float(to_numpy(ops.fit_temperature(Y, X, sample_weight=weight)))
    assert scaling.temperature == pytest.approx(expected, rel=1e-5)
    assert model.get_layer("calibrated").temperature == np.float32(
        scaling.temperature
    )
    loss = losses.SparseSoftmaxCrossentropy(reduction="mean_with_sample_weight")
    for logits, value in (
        (X, scaling.loss_before),
        (model.predict(X, verbose=0), scaling.loss_after),
    ):
        assert float(to_numpy(loss(Y, logits, weight))) == pytest.approx(
            value, rel=1e-5
        )
    assert scaling.loss_after < scaling.loss_before


def test_it_is_saved_and_the_loaded_model_is_calibrated(model, tmp_path):
    def error(model):
        metric = metrics.ExpectedCalibrationError(bins=5)
        metric.update_state(Y, model.predict(X, verbose=0))
        return float(to_numpy(metric.result()))

    model.get_layer("calibrated").temperature = 1.0
    before = error(model)
    fit(model, (X, Y))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert error(loaded) == pytest.approx(error(model), rel=1e-6)
    assert error(loaded) < before / 2


def test_a_second_fit_starts_from_the_logits_again(model):
    first = fit(model, (X, Y)).temperature
    assert first > 1.5
    assert fit(model, (X, Y)).temperature == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "temperature", "message"),
    [
        (X.argmax(axis=1), 0, "right about every"),
        (X.argmin(axis=1), np.inf, "even guess"),
        (np.full(N, K), np.nan, "nothing could be measured"),
    ],
)
def test_without_a_best_temperature_the_layer_keeps_one_and_says_why(
    model, labels, temperature, message
):
    weight = np.ones(N)
    with pytest.warns(UserWarning, match=message) as caught:
        scaling = fit(model, (X, labels, weight))
    (ours,) = [each for each in caught if message in str(each.message)]
    assert ours.filename == __file__  # the user's line
    np.testing.assert_equal(scaling.temperature, temperature)
    assert model.get_layer("calibrated").temperature == 1
    np.testing.assert_equal(scaling.loss_after, scaling.loss_before)


def test_verbose_says_what_it_found(model, capsys):
    scaling = fit(model, (X, Y), verbose=1)
    said = capsys.readouterr().out
    assert f"Temperature {scaling.temperature:.4g}" in said
    assert f"-> {scaling.loss_after:.4f} nats" in said


def test_models_that_it_cannot_calibrate_raise():
    bare = identity_model(keras.layers.Identity())
    with pytest.raises(ValueError, match="0 of them: add one"):
        fit(bare, (X, Y))
    two = identity_model(layers.Temperature(), layers.Temperature())
    with pytest.raises(ValueError, match="2 of them"):
        fit(two, (X, Y))
    fit(two, (X, Y), layer=two.layers[-1])
    assert two.layers[-1].temperature > 1.5
    softmax = identity_model(layers.Temperature(), keras.layers.Softmax())
    with pytest.raises(ValueError, match="Leave out the softmax"):
        fit(softmax, (X, Y))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (X, {}, "\\(x, y\\)"),
        ((X, Y, WEIGHT[:3]), {}, "3 for 256"),
        ((X, Y), {"layer": keras.layers.Identity()}, "`layer`"),
    ],
)
def test_wrong_arguments_raise(data, options, message):
    with pytest.raises(ValueError, match=message):
        callbacks.TemperatureScaling(data, **options)
