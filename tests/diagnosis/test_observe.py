"""What one batch shows."""

import keras
import numpy as np
from keras import layers

from keras_xent.diagnosis.observe import Observer
from tests.diagnosis.cases import IDS, KERAS_SPARSE, X, compiled
from tests.testing import to_numpy


def observed(model, y=IDS, stop=False):
    observer = Observer(model, (X, y, None), (y, None), lambda _: stop)
    observer.run()
    return observer.evidence


def model(optimizer="sgd", **options):
    stack = [keras.Input((4,)), layers.Dense(3, name="last")]
    return compiled(keras.Sequential(stack), KERAS_SPARSE, optimizer, **options)


def test_the_loss_is_that_of_the_model_before_and_after_a_step_of_fit():
    twin, one = (
        model(keras.optimizers.SGD(0.1)),
        model(keras.optimizers.SGD(0.1)),
    )
    one.set_weights(twin.get_weights())
    evidence = observed(one)
    before = twin.evaluate(X, IDS, batch_size=32, verbose=0)
    twin.fit(X, IDS, batch_size=32, verbose=0)
    after = twin.evaluate(X, IDS, batch_size=32, verbose=0)
    np.testing.assert_allclose(evidence.loss, before, rtol=1e-5)
    np.testing.assert_allclose(evidence.loss_after, after, rtol=1e-5)
    assert evidence.learning_rate == np.float32(0.1)
    assert evidence.steps == 0


def test_an_optimizer_goes_on_from_where_it_is():
    """Momentum of steps before makes the trial step another one."""
    steady = keras.optimizers.SGD(0.1, momentum=0.9)
    one, twin = model(steady), model(keras.optimizers.SGD(0.1, momentum=0.9))
    twin.set_weights(one.get_weights())
    for each in (one, twin):
        each.fit(X, IDS, batch_size=32, epochs=2, verbose=0)
    moments = [to_numpy(v) for v in steady.variables]
    evidence = observed(one)
    assert evidence.steps == 2
    for variable, moment in zip(steady.variables, moments, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), moment)
    twin.fit(X, IDS, batch_size=32, verbose=0)
    after = twin.evaluate(X, IDS, batch_size=32, verbose=0)
    np.testing.assert_allclose(evidence.loss_after, after, rtol=1e-5)


def test_it_stops_before_the_loss_where_it_is_told_to():
    evidence = observed(model(), y=IDS + 100, stop=True)
    assert evidence.loss is None
    assert [output.name for output in evidence.outputs] == ["last"]
    assert evidence.outputs[0].last.activation == "linear"


def test_metrics_are_found_with_their_outputs():
    evidence = observed(model(metrics=["accuracy"]))
    ((output, metric),) = evidence.metrics
    assert output is evidence.outputs[0]
    assert isinstance(metric, keras.metrics.SparseCategoricalAccuracy)
