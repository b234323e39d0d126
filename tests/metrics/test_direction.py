"""Which scores mean alike is asked for; which way is better is told."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_xent import layers, losses, metrics
from keras_xent.ops.direction import is_similarity
from tests.testing import normal

SCORED = [
    metrics.AveragePrecision,
    metrics.Cllr,
    metrics.DPrime,
    metrics.EqualErrorRate,
    metrics.MatchAUC,
    metrics.MatchAccuracy,
    metrics.MinCllr,
    metrics.MinDetectionCost,
    metrics.TrueMatchRateAt,
    metrics.VerificationMetrics,
]


@pytest.mark.parametrize("cls", SCORED, ids=lambda cls: cls.__name__)
def test_a_metric_asks_which_scores_mean_alike(cls):
    for options in ({}, {"distance": lambda rows: rows @ rows.T}):
        with pytest.raises(ValueError, match="similarity=True: large scores"):
            cls(**options)
    for similarity in (True, False):
        config = cls(similarity=similarity).get_config()
        assert cls.from_config(config).similarity is similarity
    assert cls(distance="euclidean").similarity is False
    with pytest.raises(ValueError, match="similarity=True"):
        cls(distance="euclidean", similarity=True)


def test_a_cost_at_a_threshold_asks_too():
    with pytest.raises(ValueError, match="similarity=False: small ones do"):
        metrics.DetectionCost(0.5)


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_only_yes_or_no_will_do(wrong):
    with pytest.raises(ValueError, match=f"Received: similarity={wrong!r}"):
        is_similarity(wrong)


UP, DOWN = ops.greater, ops.less
SCORES = {"similarity": True, "resolution": 0}
# What `fit` logs for each metric, with the better direction.
TOLD = [
    (metrics.AveragePrecision, SCORES, UP),
    (metrics.BrierScore, {}, DOWN),
    (metrics.Cllr, SCORES, DOWN),
    (metrics.CrossentropyRate, {}, DOWN),
    (metrics.DPrime, SCORES, UP),
    (metrics.DetectionCost, {"threshold": 0.0, "similarity": True}, DOWN),
    (metrics.EqualErrorRate, SCORES, DOWN),
    (metrics.ExpectedCalibrationError, {}, DOWN),
    (metrics.MatchAUC, SCORES, UP),
    (metrics.MatchAccuracy, SCORES, UP),
    (metrics.MinCllr, SCORES, DOWN),
    (metrics.MinDetectionCost, SCORES, DOWN),
    (metrics.Perplexity, {}, DOWN),
    (metrics.SpearmanCorrelation, {"capacity": 8}, UP),
    (metrics.TrueMatchRateAt, SCORES, UP),
]
TOLD_OF_A_DICT = {
    "all_average_precision": UP,
    "all_cllr": DOWN,
    "all_d_prime": UP,
    "all_detection_cost": DOWN,
    "all_equal_error_rate": DOWN,
    "all_match_auc": UP,
    "all_min_cllr": DOWN,
    "all_min_detection_cost": DOWN,
    "all_true_match_rate": UP,
}


def directions(model, names, x, y):
    """What callbacks in `mode="auto"` take for better, once a fit is over."""
    stops = [keras.callbacks.EarlyStopping(f"val_{name}") for name in names]
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=stops)
    return [stop.monitor_op for stop in stops]


def test_every_metric_and_every_key_of_a_dict_tells_its_direction():
    made = [cls(**options) for cls, options, _ in TOLD]
    every = metrics.VerificationMetrics(
        similarity=True, threshold=0.0, resolution=0, name="all"
    )
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(loss="mse", metrics=[*made, every], run_eagerly=True)
    expected = {
        metric.name: direction
        for metric, (*_, direction) in zip(made, TOLD, strict=True)
    }
    expected |= TOLD_OF_A_DICT
    y = (np.arange(8) % 2)[:, None]
    found = directions(model, expected, normal(8, 4), y)
    assert dict(zip(expected, found, strict=True)) == expected
    # Of what it does not log, it tells nothing.
    with pytest.raises(ValueError, match="mode='max'"):
        directions(model, ["all_of_it"], normal(8, 4), y)


def test_no_metric_is_left_out():
    undirected = {
        "ReliabilityDiagram",
        "ScoreHistogram",
        "all_reduce",
        "cluster_misclassification_rate",
        "retrieval",
    }
    told = {cls.__name__ for cls, *_ in TOLD} | {"VerificationMetrics"}
    assert told | undirected == set(metrics.__all__)


def test_the_metrics_of_a_head_tell_their_direction():
    head = layers.LinearHead(3, metrics=["accuracy", "perplexity"])
    model = keras.Sequential([keras.Input((4,)), head])
    model.compile(loss=losses.LinearCrossentropy(), jit_compile=False)
    names = ["accuracy", "perplexity"]
    found = directions(model, names, normal(8, 4), np.arange(8) % 3)
    assert found == [UP, DOWN]


def test_a_name_that_knows_its_keys_is_as_any_other():
    one, two = (
        metrics.VerificationMetrics(similarity=True, resolution=0, name=name)
        for name in ("one", "two")
    )
    assert one.name != two.name
    assert {one.name: 1} == {"one": 1}
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(one)
    )
    assert again.get_config() == one.get_config()
