"""The tuned threshold belongs to the weights that the model has."""

import warnings

import keras
import numpy as np
import pytest

from keras_xent.callbacks import TuneThreshold, tune_threshold
from keras_xent.layers import MatchDecision
from keras_xent.metrics import MatchAccuracy
from keras_xent.ops.distance import pairwise_cosine, pairwise_euclidean
from tests.testing import thorough_on


class SetScale(keras.callbacks.Callback):
    """Sets the one weight at the start of each epoch: training by script."""

    def __init__(self, *scales):
        super().__init__()
        self.scales = scales

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_weights([np.full((1, 1), self.scales[epoch])])


SCORES = np.array([[0.1], [0.2], [0.3], [0.8], [0.9], [1.0]], "float32")
MATCH = np.array([1, 1, 1, 0, 0, 0])


# Of a model that got it the wrong way round.
says_one_answer = pytest.mark.filterwarnings("ignore:The tuned threshold")


def tuner_of(match=MATCH, **options):
    return TuneThreshold((SCORES, match), similarity=False, **options)


def scale_model(run_eagerly=True):
    """Eager, which is quicker than to compile it for each test."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=run_eagerly)
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


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_it_tunes_on_validation_data_and_tells_the_history(run_eagerly):
    tuner, model = tuner_of(), scale_model(run_eagerly)
    _, history = fit(tuner, [1.0, 10.0], model=model)
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


@says_one_answer
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


@says_one_answer
def test_a_second_fit_starts_anew():
    tuner = tuner_of()
    model, _ = fit(tuner, [1.0])
    fit(tuner, [-1.0], model=model)
    assert tuner.best_accuracy == 0.5
    assert tuner.best_epoch == 0


@says_one_answer
def test_training_goes_on_as_if_it_were_not_there():
    def train(*callbacks):
        keras.utils.set_random_seed(0)
        model = scale_model()
        model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
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


# Scores that rise one after the other, with some of both kinds everywhere, and
# another best threshold for each objective.
MIXED = np.arange(1.0, 15.0, dtype="float32")[:, None]
MIXED_MATCH = np.array([1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0])
MIXED_WEIGHT = np.array([1, 3, 4, 1, 4, 2, 2, 3, 3, 3, 1, 1, 4, 2])


def mixed_tuner(similarity=False, **options):
    """All of it, with distances or with similarities."""
    match = MIXED_MATCH[::-1] if similarity else MIXED_MATCH
    weight = MIXED_WEIGHT[::-1] if similarity else MIXED_WEIGHT
    data = (MIXED, match, weight)
    return TuneThreshold(data, similarity=similarity, **options)


def mixed_rates():
    """FMR and FNMR where the first 0, 1, ... scores are called matches."""
    match = MIXED_WEIGHT * MIXED_MATCH
    other = MIXED_WEIGHT * (1 - MIXED_MATCH)
    called = np.tri(len(match) + 1, len(match), -1)
    return called @ other / other.sum(), 1 - called @ match / match.sum()


def mixed_equal_error():
    """Where straight lines between the points of the curve cross."""
    false_match, missed = mixed_rates()
    x = np.linspace(0, len(false_match) - 1, 1_400_001)
    lines = [
        np.interp(x, range(len(rate)), rate) for rate in (false_match, missed)
    ]
    return lines[0][np.argmin(np.abs(lines[0] - lines[1]))]


def logs_of(tuner, scale=1.0):
    _, history = fit(tuner, [scale])
    return {
        key.removeprefix("val_"): values[0]
        for key, values in history.items()
        if key != "loss"
    }


@pytest.mark.parametrize("similarity", [False, True])
@pytest.mark.parametrize(
    ("objective", "prior"),
    [("accuracy", 13 / 34), ("balanced", 0.5), (0.1, 0.1), (0.9, 0.9)],
)
def test_the_best_threshold_for_an_objective(objective, prior, similarity):
    tuner = mixed_tuner(similarity, objective=objective)
    logs = logs_of(tuner)
    false_match, missed = mixed_rates()
    right = 1 - prior * missed - (1 - prior) * false_match
    best = np.argmax(right)
    assert logs["match_accuracy"] == pytest.approx(right[best], abs=1e-6)
    assert logs["false_match_rate"] == pytest.approx(false_match[best])
    assert logs["false_non_match_rate"] == pytest.approx(missed[best])
    below = np.sum(logs["threshold"] > MIXED)
    assert best == (len(MIXED) - below if similarity else below)
    assert tuner.false_match_rate == logs["false_match_rate"]
    assert tuner.false_non_match_rate == logs["false_non_match_rate"]
    assert logs["equal_error_rate"] == pytest.approx(
        mixed_equal_error(), abs=1e-5
    )


@pytest.mark.parametrize("similarity", [False, True])
def test_the_threshold_of_equal_errors(similarity):
    logs = logs_of(mixed_tuner(similarity, objective="equal_error"))
    false_match, missed = mixed_rates()
    nearest = np.argmin(np.abs(false_match - missed))
    assert logs["false_match_rate"] == pytest.approx(false_match[nearest])
    assert logs["false_non_match_rate"] == pytest.approx(missed[nearest])
    assert logs["equal_error_rate"] == pytest.approx(
        mixed_equal_error(), abs=1e-5
    )
    assert logs["match_accuracy"] == 1 - logs["equal_error_rate"]


@pytest.mark.parametrize(
    ("weight_of_matches", "weight_of_others", "objective"),
    [
        (1, 1, "accuracy"),
        (1, 3, "accuracy"),
        (1, 3.125, "balanced"),
        (3, 1, "accuracy"),
        (3.125, 1, "balanced"),
    ],
)
def test_by_default_the_rarer_kind_keeps_its_say(
    weight_of_matches, weight_of_others, objective
):
    # Three scores of each kind, not in order: one of each is on the wrong side.
    match = np.array([1, 1, 0, 1, 0, 0])
    weight = np.where(match, weight_of_matches, weight_of_others)
    data = (SCORES, match, weight)
    found = {
        name: logs_of(TuneThreshold(data, similarity=False, objective=name))
        for name in (None, "accuracy", "balanced")
    }
    assert found[None] == found[objective]
    if weight_of_matches != weight_of_others:
        assert found["accuracy"] != found["balanced"]


def test_by_default_all_pairs_say_which_kind_is_rare(capsys):
    # 2 of the 6 pairs match; with weights 8 of 33.
    x, ids = SCORES[[0, 1, 4, 5]], np.array([0, 0, 1, 1])
    for weight, said in (
        ([1, 1, 1, 1], "accuracy"),
        ([1, 4, 4, 1], "balanced"),
    ):
        data = (x, ids, np.array(weight))
        fit(TuneThreshold(data, distance="euclidean", verbose=1), [1.0])
        assert f"({said})" in capsys.readouterr().out


def test_the_best_epoch_is_that_of_the_objective():
    # By the first column a few matches stand out, and one is lost among the
    # others; by the second a few of the others stand out.
    match = np.array([1, 1, 1, 0, 0, 0])
    first, second = [1, 2, 6, 3, 4, 5], [2, 3, 4, 1, 5, 6]
    x = np.stack([first, second], axis=1).astype("float32")
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False)]
    )
    for objective, epoch in ((0.05, 0), (0.95, 1)):
        tuner = TuneThreshold((x, match), similarity=False, objective=objective)
        tuner.set_model(model)
        tuner.on_train_begin()
        for i, kernel in enumerate([[[1.0], [0.0]], [[0.0], [1.0]]]):
            model.set_weights([np.array(kernel)])
            tuner.on_epoch_end(i)
        tuner.on_train_end()
        assert tuner.best_epoch == epoch
        assert tuner.false_match_rate == (1 / 3 if epoch else 0)
        assert tuner.false_non_match_rate == (0 if epoch else 1 / 3)


@pytest.mark.parametrize(
    ("monitor", "better"),
    [
        ("val_match_accuracy", "greater"),
        ("val_false_match_rate", "less"),
        ("val_false_non_match_rate", "less"),
        ("val_equal_error_rate", "less"),
    ],
)
def test_callbacks_learn_which_way_is_better(monitor, better):
    stop = keras.callbacks.EarlyStopping(monitor=monitor)
    fit(tuner_of(), [1.0], stop)
    assert stop.monitor_op is getattr(keras.ops, better)


ONE_IN_SIX = np.array([0, 0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("match", "options", "answer", "balanced_is_a_cure"),
    [
        (ONE_IN_SIX, {"objective": "accuracy"}, "different: all", True),
        (1 - ONE_IN_SIX, {"objective": "accuracy"}, "a match: every", True),
        (ONE_IN_SIX, {"objective": 0.01}, "different: all", True),
        (1 - MATCH, {"objective": "balanced"}, "different: all", False),
        (1 - MATCH, {}, "different: all", True),
    ],
)
def test_a_threshold_that_gives_one_answer_warns(
    match, options, answer, balanced_is_a_cure
):
    with pytest.warns(UserWarning, match=f"every pair {answer}") as caught:
        fit(tuner_of(match, **options), [1.0, 1.0])
    found = [w for w in caught if "every pair" in str(w.message)]
    assert len(found) == 1
    text = str(found[0].message)
    assert found[0].filename == __file__
    assert f"objective={options.get('objective', 'accuracy')!r}," in text
    assert ("objective='balanced' gives" in text) == balanced_is_a_cure
    assert "keras_xent.diagnose" in text


@pytest.mark.parametrize(
    ("match", "scales", "options"),
    [
        (ONE_IN_SIX, [1.0], {}),  # balanced
        (MATCH, [-1.0, 1.0], {}),  # the last
        (MATCH, [1.0, -1.0], {}),  # the best
        (np.ones(6), [1.0], {}),  # none
    ],
)
def test_no_other_threshold_warns(match, scales, options):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The tuned threshold")
        fit(tuner_of(match, **options), scales)


@pytest.mark.parametrize(
    ("distance", "block"),
    [
        *(("euclidean", block) for block in (1, 4, 100)),
        (pairwise_euclidean, 4),
    ],
)
@thorough_on("jax")
def test_all_pairs_of_the_whole_set_count(monkeypatch, distance, block):
    monkeypatch.setattr(tune_threshold, "_BLOCK", block)
    rng = np.random.default_rng(0)
    ids, weight = rng.integers(0, 3, (10, 1)), rng.integers(0, 3, 10)
    x = (rng.normal(size=(10, 1)) + ids).astype("float32")
    weight[:2] = 0, 1
    x[weight == 0] = 1e30  # would take all precision from the others
    tuner = TuneThreshold(
        (x, ids, weight), distance=distance, objective="accuracy", batch_size=4
    )
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
    for key in ("match_accuracy", "false_match_rate", "equal_error_rate"):
        assert np.isnan(history[f"val_{key}"][0])
    assert np.isnan(tuner.threshold)
    assert tuner.best_epoch is None


@pytest.mark.parametrize(
    ("objective", "said"),
    [(None, "accuracy"), ("equal_error", "equal_error"), (0.25, "prior 0.25")],
)
def test_verbose_says_what_it_found(objective, said, capsys):
    tuner = tuner_of(
        np.array([1, 1, 0, 1, 0, 0]), objective=objective, verbose=1
    )
    _, history = fit(tuner, [1.0])
    accuracy = history["val_match_accuracy"][0]
    false_match, missed = tuner.false_match_rate, tuner.false_non_match_rate
    assert (
        f"Epoch 1: match accuracy {accuracy:.4f} ({said}) at threshold "
        f"{tuner.threshold:.6g}, false match rate {false_match:.4f}, false "
        f"non-match rate {missed:.4f}\n"
    ) in capsys.readouterr().out


def test_balanced_is_an_objective():
    with pytest.raises(TypeError, match="balanced"):
        tuner_of(balanced=True)


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
        *(
            (
                (SCORES, MATCH),
                {"similarity": False, "objective": objective},
                "`objective` must be 'accuracy'",
            )
            for objective in ("eer", 0.0, 1.0, 2, True, np.nan, np.ones(2))
        ),
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


def test_each_view_of_an_embedding_is_a_row():
    # Six examples of two numbers, as pairs of views of one number.
    x = np.array([[1, 2], [1, 3], [2, 2], [7, 8], [8, 8], [5, 7]], "float32")
    ids = np.array([0, 0, 0, 1, 1, 2])
    weight = np.array([1.0, 1.0, 2.0, 1.0, 1.0, 0.0])
    as_rows = x.reshape(12, 1), np.repeat(ids, 2), np.repeat(weight, 2)
    logs = []
    for shape, data in [((2, 1), (x, ids, weight)), ((1,), as_rows)]:
        tuner = TuneThreshold(data, distance="euclidean", objective="accuracy")
        width = data[0].shape[1]
        tuner.set_model(
            keras.Sequential(
                [keras.Input((width,)), keras.layers.Reshape(shape)]
            )
        )
        logs.append({})
        tuner.on_epoch_end(0, logs[-1])
    assert logs[0] == logs[1]
    assert logs[0]["val_match_accuracy"] == 1.0
