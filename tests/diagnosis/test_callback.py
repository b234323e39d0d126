"""The callback sees the first batch and the step that breaks a training."""

import warnings

import keras
import numpy as np
import pytest

import keras_xent
from keras_xent.callbacks import Diagnose
from keras_xent.diagnosis import callback
from tests.testing import BACKEND, normal

X = normal(64, 4)
Y = np.argmax(X[:, :3], axis=1)
HOWS = [{}]
if BACKEND != "torch":
    HOWS += [{"steps_per_execution": 2}]
if BACKEND == "tensorflow":  # JAX compiles in any case, PyTorch for 20 s.
    HOWS += [{"jit_compile": True}]


def make(optimizer="sgd", activation=None, loss=None, **compile_args):
    """A model that draws, and has state besides its weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dropout(0.5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, activation=activation),
        ]
    )
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **compile_args)
    return model


def fit(model, callbacks, x=X, y=Y, **fit_args):
    """The history, and what was warned of by this package."""
    keras.utils.set_random_seed(1)
    fit_args = {"epochs": 2, "batch_size": 16, "verbose": 0, **fit_args}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = model.fit(x, y, callbacks=callbacks, **fit_args)
    ours = [each for each in caught if "keras_xent" in str(each.message)]
    assert all(each.filename == __file__ for each in ours)  # the user's line
    return history.history, [str(each.message) for each in ours]


def codes(report):
    return [finding.code for finding in report.findings]


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_the_training_is_what_it_is_without(how):
    plain, watched = make("adam", **how), make("adam", **how)
    expected, _ = fit(plain, [])
    watcher = Diagnose()
    history, said = fit(watched, [watcher])
    assert history == expected
    for weight, other in zip(
        watched.get_weights(), plain.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weight, other)
    assert said == []
    assert watcher.report.findings == ()
    assert watcher.report.rows == 16
    assert watcher.trouble is None
    assert watcher.step is None


def unbuilt():
    """A model that has no weights before it meets the data."""
    keras.utils.clear_session()  # The same names for all.
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model, X, Y


def with_head():
    """A sparse gradient, a mask, and a metric that lives in a layer."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    words = np.random.default_rng(0).integers(1, 9, (64, 3))
    head = keras_xent.layers.LinearHead(9, metrics=["perplexity"])
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(9, 4, mask_zero=True),
            head,
        ]
    )
    model.compile("sgd", keras_xent.losses.LinearCrossentropy())
    return model, words, words


@pytest.mark.parametrize("build", [unbuilt, with_head])
def test_so_is_that_of_a_model_with(build):
    results = []
    for callbacks in ([], [Diagnose()]):
        model, x, y = build()
        history, said = fit(model, callbacks, x=x, y=y)
        assert said == []
        results.append((history, [v.path for v in model.variables]))
    (plain, paths), (watched, watched_paths) = results
    assert plain == watched
    assert paths == watched_paths


def test_the_model_trains_by_its_own_function_afterwards():
    model = make()
    for watch in (True, False):
        fit(model, [Diagnose(watch=watch)])
        assert "Diagnose" not in repr(model.train_function)


def test_a_fault_in_the_first_batch_is_warned_of_once():
    watcher = Diagnose()
    _, said = fit(make(activation="softmax"), [watcher])
    assert codes(watcher.report) == ["probabilities-as-logits"]
    assert said == [str(watcher.report)]


def test_what_a_batch_of_rare_labels_shows_by_chance_is_no_fault():
    y = np.zeros(64, "int32")
    y[-1] = 1
    watcher = Diagnose()
    fit(make(), [watcher], y=y, shuffle=False)
    assert watcher.report.findings == ()
    assert "constant-targets" in watcher.report.unchecked


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_bad_data_later_are_named_by_step_and_row(how):
    x = X.copy()
    x[37] = np.nan  # the sixth row of the third batch
    watcher = Diagnose()
    _, said = fit(make(**how), [watcher], x=x, shuffle=False)
    assert watcher.report.findings == ()
    assert watcher.step == 3
    (finding,) = watcher.trouble.findings
    assert finding.code == "nonfinite-gradient"
    assert finding.where == "the data, x"
    assert finding.evidence["rows"] == [5]
    assert len(said) == 1
    assert said[0].startswith("Step 3: the loss has become")


class RootOfSum(keras.layers.Layer):
    """Not differentiable where the sum is 0, but finite there."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.sum(x**2, axis=-1, keepdims=True))


def test_a_gradient_that_breaks_the_weights_is_found_one_step_back():
    """The loss of that step is still finite; that of the next is not."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, use_bias=False),
            RootOfSum(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    x, y = X.copy(), X[:, :1]
    x[16] = 0  # in the second batch
    watcher = Diagnose()
    fit(model, [watcher], x=x, y=y, shuffle=False)
    assert watcher.report.findings == ()
    assert watcher.step == 2
    assert np.isfinite(watcher.trouble.loss)
    assert codes(watcher.trouble) == ["nonfinite-gradient"]
    assert "dense" in str(watcher.trouble.findings[0].evidence)


def test_a_loss_that_runs_away_is_named_with_its_layer_and_rows():
    x = normal(70, 4)
    y = x[:, 0].copy()
    y[66] = 1e4  # the third row of the last batch, which is a short one
    watcher = Diagnose()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(model, [watcher], x=x, y=y, shuffle=False)
    assert watcher.step == 5
    finding = watcher.trouble.findings[0]
    assert finding.code == "step-too-large"
    assert "dense" in finding.where
    assert finding.evidence["rows of the largest loss"][0] == 2
    squared = np.mean((y[64:] - model.predict(x[64:], verbose=0)[:, 0]) ** 2)
    np.testing.assert_allclose(finding.evidence["loss"], squared, rtol=0.1)


def test_it_says_so_once():
    x = np.where(np.arange(64)[:, None] < 16, X, np.nan)
    _, said = fit(make(), [Diagnose()], x=x, shuffle=False)
    assert len(said) == 1


def of_pairs(optimizer=0.01, **how):
    """Embeddings of rows, 32 a batch."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    hinge = keras_xent.losses.SymmetricKLHinge(margin=1.0)
    model.compile(keras.optimizers.Adam(optimizer), hinge, **how)
    return model


MANY = normal(1600, 4)  # 50 steps of 32
SORTED = np.argmax(MANY[:, :3], axis=1)
SHUFFLED = np.random.default_rng(0).permutation(SORTED)
LONG = {"batch_size": 32, "epochs": 3, "x": MANY}


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_what_is_not_learned_in_100_steps_is_warned_of_once(how):
    plain, model, watcher = of_pairs(**how), of_pairs(**how), Diagnose()
    expected, _ = fit(plain, [], y=SHUFFLED, **LONG)
    history, (said,) = fit(model, [watcher], y=SHUFFLED, **LONG)
    assert watcher.report.findings == ()
    assert codes(watcher.later) == ["pairs-not-separated"]
    assert watcher.later.findings[0].evidence["steps"] == 100
    assert said == f"After 100 steps:\n{watcher.later}"
    assert history == expected
    assert watcher.trouble is None


def test_what_is_learned_in_100_steps_is_not():
    watcher = Diagnose()
    _, said = fit(of_pairs(), [watcher], y=SORTED, **LONG)
    assert said == []
    assert watcher.later.findings == ()
    assert watcher.later.checked == (
        "collapsed-embeddings",
        "pairs-not-separated",
        "predicts-prior",
    )


def test_before_100_steps_it_does_not_look_again():
    watcher = Diagnose()
    fit(of_pairs(), [watcher], y=SHUFFLED, **{**LONG, "epochs": 2})
    assert watcher.later is None
    fit(of_pairs(), [watcher], y=SHUFFLED, **LONG)
    assert watcher.later is not None
    fit(make(), [watcher])
    assert watcher.later is None


def test_what_the_first_batch_has_shown_is_not_said_again():
    model, watcher = of_pairs(), Diagnose()
    fit(model, [], y=SHUFFLED, **LONG)
    _, said = fit(model, [watcher], y=SHUFFLED, **LONG)
    assert codes(watcher.report) == ["pairs-not-separated"]
    assert codes(watcher.later) == ["pairs-not-separated"]
    assert said == [str(watcher.report)]


def test_without_watching_it_looks_at_the_first_batch_only():
    x = X.copy()
    x[37] = np.nan
    watcher = Diagnose(watch=False)
    _, said = fit(make(), [watcher], x=x, shuffle=False)
    assert said == []
    assert watcher.report is not None
    assert watcher.trouble is None


def test_an_error_in_the_step_comes_through_and_leaves_the_model_as_it_was():
    def loss(y_true, y_pred):
        raise KeyError("mine")

    model = make(loss=loss)
    with pytest.raises(KeyError, match="mine"):
        fit(model, [Diagnose()])
    assert "Diagnose" not in repr(model.train_function)


def test_a_training_goes_on_where_it_cannot_look(monkeypatch):
    def fail(*_):
        raise RuntimeError("cannot")

    monkeypatch.setattr(callback, "look", fail)
    watcher = Diagnose()
    history, (said,) = fit(make(), [watcher])
    assert "could not look" in said
    assert "cannot" in said
    assert len(history["loss"]) == 2
    assert watcher.report is None


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyError("another's")


def failing():
    yield X[:16], Y[:16]
    raise KeyError("of the data")


@pytest.mark.parametrize("x", [X, failing()], ids=["callback", "data"])
def test_a_fit_that_is_cut_off_does_not_go_on_in_the_next(x):
    model, watcher = make(), Diagnose()
    y, others = (Y, [Fails()]) if x is X else (None, [])
    # TensorFlow has its own error for what a generator raises.
    with pytest.raises(Exception, match=r"another's|of the data"):
        fit(model, [watcher, *others], x=x, y=y, batch_size=None)
    assert fit(model, [], x=np.full_like(X, np.nan))[1] == []
    assert "Diagnose" not in repr(model.train_function)


def test_two_of_them_do_not_get_in_each_others_way():
    model, watchers = make(activation="softmax"), [Diagnose(), Diagnose()]
    _, said = fit(model, watchers)
    assert len(said) == 2
    assert "Diagnose" not in repr(model.train_function)
    fit(model, [])


class Recompiles(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.compile("sgd", self.model.loss)
            self.model.make_train_function(force=True)
            self.made = self.model.train_function


def test_a_function_that_another_has_made_since_stays():
    model, other = make(), Recompiles()
    fit(model, [Diagnose(), other])
    assert model.train_function is other.made


def test_a_loss_that_falls_without_end_does_not_diverge():
    def critic(y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1)

    _, said = fit(
        make(loss=critic, optimizer=keras.optimizers.SGD(0.5)),
        [watcher := Diagnose()],
        epochs=20,
    )
    assert said == []
    assert watcher.trouble is None


def test_it_can_be_used_twice():
    watcher = Diagnose()
    fit(make(activation="softmax"), [watcher])
    fit(make(), [watcher])
    assert watcher.report.findings == ()


def test_watch_is_yes_or_no():
    with pytest.raises(ValueError, match="`watch` must be True or False"):
        Diagnose(watch=3)
