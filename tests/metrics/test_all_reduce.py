"""States are summed once, and only those that add up.

Real processes are in tests/test_several_devices.py. Here a second process is
thought of, which has the same rows.
"""

import inspect

import keras
import numpy as np
import pytest

from keras_xent import _keras, layers, losses, metrics
from keras_xent.metrics import all_reduce
from keras_xent.metrics.all_reduce import _VARIABLES
from keras_xent.metrics.sums import Sums
from tests.testing import only_on, to_numpy

on_torch = only_on("torch", "there are no such processes elsewhere")


class Twins:
    """What `torch.distributed` does where two processes have the same rows."""

    def __init__(self):
        self.sums = 0

    def get_world_size(self, group=None):
        return 2

    def all_gather_object(self, found, given, group=None):
        found[:] = [given, given]

    def all_gather(self, found, given, group=None):
        for each in found:
            each.copy_(given)

    def all_reduce(self, given, group=None):
        self.sums += 1
        given *= 2


@pytest.fixture
def twins(monkeypatch):
    twins = Twins()
    monkeypatch.setattr(_keras, "processes", lambda group=None: twins)
    return twins


def mean(*values):
    metric = keras.metrics.Mean()
    for value in values:
        metric.update_state(value)
    return metric


class Largest(keras.metrics.Metric):
    def __init__(self, name="largest"):
        super().__init__(name=name)
        self.most = self.add_variable((), "zeros", name="most")


def test_in_one_process_nothing_happens():
    metric = mean(1.0, 3.0)
    assert all_reduce([metric, Largest()]) is None
    metric.update_state(8.0)
    all_reduce({"m": metric})
    assert to_numpy(metric.result()) == 4


@pytest.mark.parametrize("given", [1.0, "accuracy", layers.LinearHead(3)])
def test_what_is_no_metric_is_refused(given):
    with pytest.raises(TypeError, match=r"a keras.metrics.Metric, a keras.Mod"):
        all_reduce([mean(1.0), given])


@on_torch
def test_each_state_is_summed_once(twins):
    metric = metrics.EqualErrorRate(similarity=True, resolution=0)
    metric.update_state([1, 0, 0], [3.0, 5.0, 1.0])
    one = metric.histogram.counts()
    # Reached three times, and called for three times.
    for given in ([metric, metric.histogram, metric], metric, metric.histogram):
        all_reduce(given)
    assert np.array_equal(metric.histogram.counts(), 2 * one)
    assert twins.sums == 1


@on_torch
def test_what_was_not_summed_joins_what_was(twins):
    first, second = mean(1.0, 3.0), mean(5.0)
    all_reduce(first)
    all_reduce([first, second])
    assert to_numpy(first.count) == 4
    assert to_numpy(second.count) == 2


@on_torch
def test_updates_after_a_sum_are_an_error_until_a_reset(twins):
    metric = mean(1.0)
    for _ in range(2):
        all_reduce(metric)
        metric.update_state(1.0)
        with pytest.raises(ValueError, match=r"'mean' .*once, after the last"):
            all_reduce(metric)
        metric.reset_state()
        metric.update_state(3.0)
    all_reduce(metric)
    assert to_numpy(metric.count) == 2
    metric.reset_state()
    assert "reset_state" not in vars(metric)
    assert metric.get_config() == mean().get_config()


@on_torch
@pytest.mark.parametrize(
    "metric",
    [
        keras.metrics.Precision(),
        keras.metrics.AUC(),
        metrics.EqualErrorRate(similarity=True),
        metrics.SpearmanCorrelation(),
        metrics.VerificationMetrics(similarity=True),
    ],
    ids=lambda metric: metric.name,
)
def test_each_metric_is_summed_anew_after_a_reset(twins, metric):
    results = []
    for _ in range(2):
        metric.update_state([1, 0, 1], [0.75, 0.5, 0.25])
        all_reduce(metric)
        results.append([to_numpy(v).copy() for v in metric.variables])
        metric.reset_state()
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
    assert any(np.any(one) for one in results[0])


@on_torch
def test_a_model_gives_all_of_its_metrics(twins):
    head = layers.LinearHead(3, metrics=["accuracy"])
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4), head])
    model = keras.Sequential([keras.Input((2,)), inner])
    model.compile("sgd", loss=losses.LinearCrossentropy(), metrics=["accuracy"])
    rows = np.ones((6, 2), "float32"), np.arange(6) % 3
    for _ in range(2):
        before = model.evaluate(*rows, verbose=0, return_dict=True)
        all_reduce(model)
        counts = [
            to_numpy(variable)
            for variable in model.metrics_variables
            if "count" in variable.path
        ]
        assert len(counts) >= 3
        assert {int(count) for count in counts} == {12}
        after = model.get_metrics_result()
        assert after == pytest.approx(before)


@on_torch
def test_what_is_not_known_to_add_up_is_refused(twins):
    before = mean(1.0)
    with pytest.raises(
        ValueError, match=r"Received: Largest 'largest' .*gather what it has"
    ):
        all_reduce([before, Largest()])
    assert to_numpy(before.count) == 1
    assert twins.sums == 0


class MeanAndLargest(keras.metrics.Mean):
    def __init__(self):
        super().__init__(name="both")
        self.most = self.add_variable((), "zeros", name="most")


class MeanAndNumber(keras.metrics.Mean):
    def __init__(self):
        super().__init__(name="both")
        self.number = keras.metrics.Sum()


@on_torch
def test_more_variables_than_those_of_keras_are_kept_in_metrics(twins):
    with pytest.raises(ValueError, match=r"MeanAndLargest 'both' with var"):
        all_reduce(MeanAndLargest())
    assert twins.sums == 0
    metric = MeanAndNumber()
    metric.update_state(1.0)
    metric.number.update_state(3.0)
    all_reduce(metric)
    assert [to_numpy(v) for v in metric.variables] == [2, 2, 6]


@on_torch
@pytest.mark.parametrize(
    "metric",
    [
        keras.metrics.AUC(),
        keras.metrics.BinaryIoU(),
        keras.metrics.F1Score(),
        keras.metrics.FalsePositives(),
        keras.metrics.MeanSquaredError(),
        keras.metrics.PrecisionAtRecall(0.5),
        keras.metrics.R2Score(),
        keras.metrics.Recall(),
    ],
    ids=lambda metric: metric.name,
)
def test_metrics_of_keras_have_the_variables_that_are_known(twins, metric):
    metric.update_state([[1.0, 0.0]], [[0.6, 0.4]])
    before = [to_numpy(v).copy() for v in metric.variables]
    all_reduce(metric)
    for variable, value in zip(metric.variables, before, strict=True):
        assert np.array_equal(to_numpy(variable), 2 * value)


@on_torch
def test_every_metric_of_keras_is_known():
    of_keras = {
        cls
        for cls in vars(keras.metrics).values()
        if inspect.isclass(cls) and issubclass(cls, keras.metrics.Metric)
    }
    known = tuple(_VARIABLES)
    unknown = {cls for cls in of_keras if not issubclass(cls, known)}
    assert unknown == {keras.metrics.Metric}


@on_torch
def test_sums_in_two_parts_lose_nothing(twins, monkeypatch):
    # Of which a float32 would hold the first alone.
    sums = Sums((2,))
    sums.update_state(np.array([2.0**24, np.inf], "float32"))
    monkeypatch.setattr(twins, "all_reduce", lambda x, group=None: x.add_(0.75))
    all_reduce(sums)
    assert sums.exact().tolist() == [2.0**24 + 1.5, np.inf]


@on_torch
def test_pairs_of_all_processes_are_kept(twins):
    metric = metrics.SpearmanCorrelation(capacity=6)
    target, score = [1.0, 2.0, 3.0], [0.1, 0.3, 0.2]
    metric.update_state(target, score)
    all_reduce([metric, metric.state])
    alone = metrics.SpearmanCorrelation(capacity=6)
    alone.update_state(target * 2, score * 2)
    assert to_numpy(metric.result()) == to_numpy(alone.result())
    full = metrics.SpearmanCorrelation(capacity=5)
    full.update_state(target, score)
    all_reduce(full)
    assert np.isnan(to_numpy(full.result()))


@on_torch
def test_a_model_of_a_keras_that_sums_is_not_summed_again(twins, monkeypatch):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    model.evaluate(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    alone = mean(1.0)
    monkeypatch.setattr(_keras, "model_sums_metrics", lambda: True)
    all_reduce([model, alone])
    counts = [to_numpy(m.count) for m in model.metrics[:1]]
    assert counts == [4]
    assert to_numpy(alone.count) == 2


@on_torch
def test_a_reset_in_one_process_alone_is_an_error(twins, monkeypatch):
    metric = mean(1.0)

    def other(found, given, group=None):
        found[:] = [given, [(*given[0][:3], "summed")]]

    monkeypatch.setattr(twins, "all_gather_object", other)
    with pytest.raises(ValueError, match="by process: not summed, summed"):
        all_reduce(metric)
    assert twins.sums == 0


@on_torch
def test_processes_that_differ_are_told_so(twins, monkeypatch):
    metric = mean(1.0)

    def other(found, given, group=None):
        found[:] = [given, []]

    monkeypatch.setattr(twins, "all_gather_object", other)
    with pytest.raises(
        ValueError, match=r"process 0: mean \(Mean\); in process 1: none"
    ):
        all_reduce(metric)
    assert to_numpy(metric.count) == 1
