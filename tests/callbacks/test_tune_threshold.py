"""The tuned threshold belongs to the weights that the model has."""

import keras
import numpy as np
import pytest

from keras_xent.callbacks import TuneThreshold, tune_threshold
from keras_xent.layers import MatchDecision
from keras_xent.metrics import MatchAccuracy
from keras_xent.ops.distance import pairwise_cosine, pairwise_euclidean


class SetScale(keras.callbacks.Callback):
    """Sets the one weight at the start of each epoch: training by script."""

    def __init__(self, *scales):
        super().__init__()
        self.scales = scales

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_weights([np.full((1, 1), self.scales[epoch])])


SCORES = np.array([[0.1], [0.2], [0.3], [0.8], [0.9], [1.0]], "float32")
MATCH = np.array([1, 1, 1, 0, 0, 0])


def tuner_of(match=MATCH, **options):
    return TuneThreshold((SCORES, match), similarity=False, **options)


def scale_model():
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def fit(tuner, scales, *after, model=None):
    model = model or scale_model()
    history = model.fit(
        SCORES,
        MATCH[:, None],
        epochs=len(scales),
        verbose=0,
        callbacks=[SetScale(*scales), tuner, *after],
    )
    return model, history.history


def test_it_tunes_on_validation_data_and_tells_the_history():
    tuner = tuner_of()
    _, history = fit(tuner, [1.0, 10.0])
    assert history["val_match_accuracy"] == [1.0, 1.0]
    first, second = history["threshold"]
    assert 0.3 < first < 0.8
    assert 3.0 < second < 8.0


def test_the_best_epoch_comes_back_with_its_threshold():
    # A negative scale turns the order round: worse. The tie goes to the first.
    tuner = tuner_of()
    model, history = fit(tuner, [-1.0, 2.0, 4.0, -1.0])
    assert history["val_match_accuracy"] == [0.5, 1.0, 1.0, 0.5]
    assert tuner.best_epoch == 1
    assert tuner.best_accuracy == 1.0
    assert tuner.threshold == tuner.best_threshold == history["threshold"][1]
    assert model.get_weights()[0].item() == 2.0


def test_or_the_last_weights_stay_with_theirs():
    tuner = tuner_of(restore_best_weights=False)
    model, history = fit(tuner, [2.0, -1.0])
    assert tuner.best_epoch == 0
    assert tuner.best_threshold == history["threshold"][0]
    assert tuner.threshold == history["threshold"][1]
    assert model.get_weights()[0].item() == -1.0


def test_frozen_at_its_threshold_the_model_decides_as_well():
    tuner = tuner_of()
    model, _ = fit(tuner, [3.0])
    frozen = MatchAccuracy(threshold=tuner.threshold, similarity=False)
    predicted = model.predict(SCORES, verbose=0)
    assert float(frozen(MATCH, predicted)) == tuner.best_accuracy
    decide = MatchDecision(tuner.threshold, similarity=False)
    decision = keras.Sequential([model, decide])
    assert (
        decision.predict(SCORES, verbose=0).ravel().tolist() == MATCH.tolist()
    )


def test_early_stopping_sees_it():
    tuner = tuner_of()
    stop = keras.callbacks.EarlyStopping(
        monitor="val_match_accuracy", patience=1
    )
    model, history = fit(tuner, [1.0, 1.0, 1.0, 1.0, 1.0], stop)
    assert len(history["threshold"]) == 2
    # It learned that more is better, and the model has forgotten it since.
    assert stop.monitor_op is keras.ops.greater
    assert len(model.metrics) == len(scale_model().metrics)


def test_a_second_fit_starts_anew():
    tuner = tuner_of()
    model, _ = fit(tuner, [1.0])
    fit(tuner, [-1.0], model=model)
    assert tuner.best_accuracy == 0.5
    assert tuner.best_epoch == 0


def test_training_goes_on_as_if_it_were_not_there():
    def train(*callbacks):
        keras.utils.set_random_seed(0)
        model = scale_model()
        model.compile(keras.optimizers.Adam(0.1), "mse")
        model.fit(
            SCORES,
            MATCH[:, None],
            epochs=3,
            verbose=0,
            callbacks=list(callbacks),
        )
        return model.get_weights()[0].item()

    tuner = tuner_of(restore_best_weights=False)
    assert train(tuner) == pytest.approx(train(), rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": False},
        {"similarity": False, "balanced": True},
        {"similarity": True},
    ],
)
def test_weights_and_options_reach_the_metric(options):
    weight = np.array([1, 2, 0, 3, 0, 1])
    match = np.array([1, 0, 1, 0, 1, 1])
    tuner = TuneThreshold((SCORES, match, weight), **options)
    fit(tuner, [1.0])
    metric = MatchAccuracy(resolution=9, **options)
    metric.update_state(match, SCORES, weight)
    assert tuner.best_accuracy == float(metric.result())
    assert tuner.threshold == metric.threshold


@pytest.mark.parametrize(
    ("distance", "block"),
    [
        *(("euclidean", block) for block in (1, 3, 4, 100)),
        (pairwise_euclidean, 3),
    ],
)
def test_all_pairs_of_the_whole_set_count(monkeypatch, distance, block):
    monkeypatch.setattr(tune_threshold, "_BLOCK", block)
    rng = np.random.default_rng(0)
    ids, weight = rng.integers(0, 3, (10, 1)), rng.integers(0, 3, 10)
    x = (rng.normal(size=(10, 1)) + ids).astype("float32")
    weight[:2] = 0, 1
    x[weight == 0] = 1e30  # would take all precision from the others
    tuner = TuneThreshold((x, ids, weight), distance=distance, batch_size=4)
    fit(tuner, [1.0])
    metric = MatchAccuracy(distance="euclidean", resolution=9)
    metric.update_state(ids, x, weight)
    assert tuner.best_accuracy == pytest.approx(
        float(metric.result()), abs=1e-6
    )
    assert tuner.threshold == pytest.approx(metric.threshold, rel=1e-2)


def test_without_an_accuracy_nothing_is_best():
    tuner = tuner_of(np.ones(6))
    _, history = fit(tuner, [1.0])
    assert np.isnan(history["val_match_accuracy"][0])
    assert np.isnan(tuner.threshold)
    assert tuner.best_epoch is None


def test_verbose_says_what_it_found(capsys):
    fit(tuner_of(verbose=1), [1.0])
    assert (
        "Epoch 1: match accuracy 1.0000 at threshold" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (SCORES, {}, "\\(x, y\\)"),
        ((SCORES,), {}, "\\(x, y\\)"),
        ((SCORES, MATCH, np.ones(5)), {}, "5 for 6"),
        ((SCORES, MATCH + 1), {"similarity": False}, "match flags"),
        ((SCORES, MATCH), {}, "similarity=True: large scores"),
        (
            (SCORES, MATCH),
            {"distance": lambda rows: rows},
            "similarity=True: large scores",
        ),
        ((SCORES, MATCH), {"distance": "l2"}, "euclidean"),
        (
            (SCORES, MATCH),
            {"distance": "cosine", "similarity": True},
            "similarity=True",
        ),
        ((SCORES, np.ones((6, 2))), {"distance": "cosine"}, "class ids"),
    ],
)
def test_wrong_arguments_raise(data, options, message):
    with pytest.raises(ValueError, match=message):
        TuneThreshold(data, **options)


def test_outputs_that_do_not_fit_raise():
    with pytest.raises(ValueError, match="5 ids"):
        fit(TuneThreshold((SCORES, MATCH[:5]), distance=pairwise_cosine), [1.0])
    with pytest.raises(ValueError, match="one match flag for each score"):
        fit(tuner_of(MATCH[:5]), [1.0])
    inputs = keras.Input((1,))
    outputs = [keras.layers.Dense(1)(inputs) for _ in range(2)]
    model = keras.Model(inputs, outputs)
    tuner = tuner_of()
    tuner.set_model(model)
    with pytest.raises(ValueError, match="one output"):
        tuner.on_epoch_end(0)
