"""Metrics that cannot be right for the output that they are given."""

import keras
import numpy as np
import pytest
from keras import layers, metrics

import keras_xent
from keras_xent import losses
from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    ONE_HOT,
    SPARSE,
    YES_NO,
    X,
    codes,
    compiled,
    cured,
    look_at,
    one_tower,
    only,
    run_cure,
    stack,
    twins,
    two_towers,
)

Dense = layers.Dense
CROSSENTROPY = "sparse_categorical_crossentropy"


def distances(*metrics):
    return stack(
        Dense(1, "softplus"),
        loss=losses.SoftplusHinge(0.5),
        y=FLAGS,
        metrics=list(metrics),
    )


def embeddings(*metrics):
    return stack(
        Dense(3), loss=losses.SymmetricKLHinge(0.5), metrics=list(metrics)
    )


def logits(*metrics):
    return stack(Dense(1), loss=YES_NO, y=FLAGS, metrics=list(metrics))


def chances(*metrics):
    return stack(
        Dense(1, "sigmoid"),
        loss="binary_crossentropy",
        y=FLAGS,
        metrics=list(metrics),
    )


def classes(*metrics, units=3):
    return stack(Dense(units), loss=SPARSE, metrics=list(metrics))


def one_hot(*metrics):
    return stack(
        Dense(3),
        loss=losses.SoftmaxCrossentropy(),
        y=ONE_HOT,
        metrics=list(metrics),
    )


def numbers(*metrics):
    return stack(Dense(1), loss="mse", y=X[:, :1], metrics=list(metrics))


def head(metrics_of_head=(), **options):
    end = keras_xent.layers.LinearHead(3, metrics=metrics_of_head)
    return stack(end, loss=losses.LinearCrossentropy(), **options)


@twins(
    {
        "accuracy of distances": (
            lambda: distances("accuracy"),
            lambda: distances(
                keras_xent.metrics.MatchAccuracy(similarity=False)
            ),
        ),
        "AUC of distances": (
            lambda: distances(metrics.AUC()),
            lambda: distances(keras_xent.metrics.MatchAUC(similarity=False)),
        ),
        "accuracy of embeddings": (
            lambda: embeddings("accuracy"),
            lambda: embeddings(
                keras_xent.metrics.MatchAccuracy(distance="symmetric_kl")
            ),
        ),
        "accuracy of logits": (
            lambda: logits("accuracy"),
            lambda: logits(metrics.BinaryAccuracy(threshold=0.0)),
        ),
        "AUC of logits": (
            lambda: logits(metrics.AUC()),
            lambda: logits(metrics.AUC(from_logits=True)),
        ),
        "precision of logits": (
            lambda: logits(metrics.Precision()),
            lambda: logits(metrics.Precision(thresholds=0.0)),
        ),
        "recall of logits": (
            lambda: logits(metrics.Recall()),
            lambda: chances(metrics.Recall()),
        ),
        "F1 of logits": (
            lambda: one_hot(metrics.F1Score(threshold=0.5)),
            lambda: one_hot(metrics.F1Score()),
        ),
        "F1, the largest of one": (
            lambda: logits(metrics.F1Score()),
            lambda: chances(metrics.F1Score(threshold=0.5)),
        ),
        "the best 1 of logits": (
            lambda: one_hot(metrics.Precision()),
            lambda: one_hot(metrics.Precision(top_k=1)),
        ),
        "cross-entropy of logits": (
            lambda: logits(metrics.BinaryCrossentropy()),
            lambda: logits(metrics.BinaryCrossentropy(from_logits=True)),
        ),
        "cross-entropy of probabilities": (
            lambda: chances(metrics.BinaryCrossentropy(from_logits=True)),
            lambda: chances(metrics.BinaryCrossentropy()),
        ),
        "cross-entropy of several logits": (
            lambda: classes(metrics.SparseCategoricalCrossentropy()),
            lambda: classes(
                metrics.SparseCategoricalCrossentropy(from_logits=True)
            ),
        ),
        "the exact kind": (
            lambda: classes(metrics.Accuracy()),
            lambda: classes("accuracy"),
        ),
        "one-hot metric of ids": (
            lambda: classes(metrics.CategoricalAccuracy()),
            lambda: classes(metrics.SparseCategoricalAccuracy()),
        ),
        "metric of ids, one-hot": (
            lambda: one_hot(metrics.SparseCategoricalAccuracy()),
            lambda: one_hot(metrics.CategoricalAccuracy()),
        ),
        "the largest of one": (
            lambda: chances(metrics.CategoricalAccuracy()),
            lambda: chances("accuracy"),
        ),
        "the best 5 of 3": (
            lambda: classes(metrics.SparseTopKCategoricalAccuracy()),
            lambda: classes(metrics.SparseTopKCategoricalAccuracy(k=2)),
        ),
        "yes or no of classes": (
            lambda: stack(
                Dense(3, "softmax"),
                loss="categorical_crossentropy",
                y=ONE_HOT,
                metrics=["binary_accuracy"],
            ),
            lambda: stack(
                Dense(3, "softmax"),
                loss="categorical_crossentropy",
                y=ONE_HOT,
                metrics=["accuracy"],
            ),
        ),
        "accuracy of numbers": (
            lambda: numbers("accuracy"),
            lambda: numbers("mae"),
        ),
        "accuracy of features": (
            lambda: head(metrics=["accuracy"]),
            lambda: head(metrics_of_head=["accuracy"]),
        ),
        "a weighted metric": (
            lambda: stack(
                Dense(1), loss=YES_NO, y=FLAGS, weighted_metrics=["accuracy"]
            ),
            lambda: stack(
                Dense(1),
                loss=YES_NO,
                y=FLAGS,
                weighted_metrics=[metrics.AUC(from_logits=True)],
            ),
        ),
    }
)
def test_metric_mismatch(broken, healthy):
    assert codes(*broken()) == ["metric-mismatch"]
    assert codes(*healthy()) == []


@pytest.mark.parametrize(
    "name",
    [
        "accuracy",
        metrics.AUC(),
        metrics.F1Score(threshold=0.5),
        metrics.PrecisionAtRecall(0.5),
        metrics.MeanSquaredError(),
    ],
)
def test_probabilities_suit_all_metrics_of_them(name):
    assert codes(*chances(name)) == []


def test_each_output_has_its_own():
    inputs = keras.Input((4,))
    ends = {
        "first": Dense(1, name="first")(inputs),
        "second": Dense(3, name="second")(inputs),
    }
    model = compiled(
        keras.Model(inputs, ends),
        {"first": YES_NO, "second": SPARSE},
        metrics={"first": ["accuracy"], "second": ["accuracy"]},
    )
    found = only(model, X, {"first": FLAGS, "second": IDS})
    assert found.where == "metric 'accuracy' of output 'first'" or (
        "of output 'first'" in found.where
    )


def test_the_cure_of_logits_counts_as_it_says():
    cure = only(*logits("accuracy")).cure.split("\n")[0]
    (metric,) = eval(cure.removeprefix("metrics = "), {"keras": keras})
    metric.update_state([1, 0, 1], np.array([[2.0], [-1.0], [-3.0]]))
    assert float(metric.result()) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("loss", "distance"),
    [
        (losses.SymmetricKLHinge(1.0), "symmetric_kl"),
        (losses.TripletHinge(1.0), "euclidean"),
        (losses.MultiSimilarity(), "cosine"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_embeddings_are_measured_by_the_distance_of_their_loss(loss, distance):
    found = only(*stack(Dense(3), loss=loss, metrics=["accuracy"]))
    assert f"distance='{distance}'" in found.cure


LOSSES = [
    losses.PairHinge(0.5),
    losses.TripletHinge(0.2, distance="squared_euclidean"),
    losses.MultiSimilarity(),
    losses.PrototypicalCrossentropy(),
    losses.SupervisedContrastive(),
    losses.InfoNCE(),
    losses.SigmoidContrastive(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("towers", [False, True])
def test_embeddings_have_no_accuracy_and_the_cure_is_a_metric(loss, towers):
    if towers and not isinstance(loss, tuple(map(type, LOSSES[-3:]))):
        pytest.skip("It takes no views.")
    model, x, y, *_ = (two_towers if towers else one_tower)(loss)
    model.compile("adam", loss, metrics=["accuracy"])
    found = only(model, x, y)
    assert found.code == "metric-mismatch"
    assert "embeddings" in found.summary
    metric = cured(found)["metrics"]
    model.compile("adam", loss, metrics=metric)
    model.fit(x, y, verbose=0)
    assert codes(model, x, y) == []


def test_the_head_is_called_by_its_name():
    head = keras_xent.layers.CosineHead(3)
    model, x, y, _ = stack(head, loss=losses.LinearCrossentropy())
    model.compile("sgd", losses.LinearCrossentropy(), metrics=["accuracy"])
    found = only(model, x, y)
    assert "the CosineHead keeps the classes" in found.summary
    fixed = eval(found.cure, {"keras_xent": keras_xent})
    assert isinstance(fixed, keras_xent.layers.CosineHead)
    assert codes(*stack(fixed, loss=losses.LinearCrossentropy())) == []


def test_a_cure_of_two_metrics_is_said_once():
    model, x, y, _ = classes(metrics.Precision(), metrics.Recall())
    report = look_at(model, x, y)
    assert [each.code for each in report.findings] == ["metric-mismatch"] * 2
    assert report.findings[1].cure == "# as above"
    assert run_cure(report, {"model": model, "x": x, "y": y}).findings == ()
