"""One look at a model, from the side: nothing is changed by it."""

import random
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_xent import diagnose
from keras_xent.diagnosis import examine
from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    ONE_HOT,
    PAIRS,
    SPARSE,
    YES_NO,
    Computed,
    X,
    codes,
    compiled,
    only,
    stack,
)
from tests.testing import normal, thorough_on

Dense = layers.Dense


class Own(keras.Model):
    """A subclassed model with state of every kind."""

    def __init__(self):
        super().__init__()
        self.dense = Dense(5, "relu")
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.5, seed=3)
        self.noise = layers.GaussianNoise(0.1)
        self.end = Dense(3)

    def call(self, x, training=False):
        x = self.norm(self.dense(x), training=training)
        x = self.noise(x, training=training)
        return self.end(self.dropout(x, training=training))


def each_kind():
    """The same layers in each kind of model, trained for a step."""
    same = Own()
    same(X)
    yield "subclassed", same
    parts = [
        Dense(5, "relu"),
        layers.BatchNormalization(),
        layers.GaussianNoise(0.1),
        layers.Dropout(0.5, seed=3),
        Dense(3),
    ]
    yield "sequential", keras.Sequential([keras.Input((4,)), *parts])
    inputs = outputs = keras.Input((4,))
    for part in parts:
        outputs = type(part).from_config(part.get_config())(outputs)
    yield "functional", keras.Model(inputs, outputs)


KINDS = ["subclassed", "sequential", "functional"]


def kind(name):
    return dict(each_kind())[name]


def fit(model, epochs=1):
    return model.fit(X, IDS, epochs=epochs, batch_size=8, verbose=0)


def state(model):
    """All that a model, its metrics and the generators of numbers hold."""
    values = [
        *model.variables,
        *model.optimizer.variables,
        *(v for metric in model.metrics for v in metric.variables),
    ]
    arrays = [np.array(ops.convert_to_numpy(value)) for value in values]
    return arrays, random.getstate(), repr(np.random.get_state())


def same(one, other):
    return (
        len(one[0]) == len(other[0])
        and all(map(np.array_equal, one[0], other[0]))
        and one[1:] == other[1:]
    )


@pytest.mark.parametrize("name", KINDS)
@thorough_on("jax")
def test_not_a_bit_of_the_state_is_changed(name):
    model = compiled(kind(name), SPARSE, "adam", metrics=["accuracy"])
    fit(model)
    before = state(model)
    report = diagnose(model, X, IDS)
    assert report.findings == ()
    assert same(state(model), before)
    assert model.optimizer.iterations == 4


def test_and_a_training_step_does_change_it():
    """So that the test above can fail."""
    model = compiled(kind("sequential"), SPARSE, "adam")
    fit(model)
    before = state(model)
    model.train_on_batch(X[:8], IDS[:8])
    assert not same(state(model), before)


class Breaks(keras.losses.Loss):
    """Raises once it is differentiated: the model has run by then."""

    def call(self, y_true, y_pred):
        raise RuntimeError("from the loss")


@pytest.mark.parametrize("where", ["loss", "layer"])
def test_nor_is_it_after_an_error(where):
    model = compiled(kind("sequential"), SPARSE, "adam")
    fit(model)
    if where == "loss":
        model.compile(model.optimizer, Breaks())
    else:
        model.layers[-1].call = broken_call
    before = state(model)
    with pytest.raises(RuntimeError, match=f"from the {where}"):
        diagnose(model, X, IDS)
    if where == "layer":
        assert vars(model.layers[-1]).pop("call") is broken_call
    assert not any("call" in vars(layer) for layer in model.layers)
    assert same(state(model), before)


def broken_call(*args, **kwargs):
    raise RuntimeError("from the layer")


@pytest.mark.parametrize("name", KINDS)
def test_the_training_after_it_is_the_one_without_it(name):
    def train(look):
        keras.utils.set_random_seed(7)
        model = compiled(kind(name), SPARSE, "adam")
        if look:
            diagnose(model, X, IDS)
        history = fit(model, 2).history["loss"]
        return history, model.get_weights()

    (loss, weights), (loss_after, weights_after) = train(False), train(True)
    assert loss == loss_after
    for one, other in zip(weights, weights_after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch's tensors hold them"
)
def test_gradients_that_are_being_added_up_stay():
    model, x, y, _ = stack(Dense(3), loss=SPARSE)
    (kernel, bias) = model.trainable_variables
    kernel.value.sum().backward()
    diagnose(model, x, y)
    assert keras.ops.convert_to_numpy(kernel.value.grad).min() == 1.0
    assert bias.value.grad is None


def test_the_model_stays_compiled_as_it_was():
    model, x, y, _ = stack(Dense(3), loss=SPARSE, metrics=["accuracy"])
    optimizer, loss = model.optimizer, model.loss
    diagnose(model, x, y)
    assert (model.optimizer, model.loss) == (optimizer, loss)
    assert model.train_function is None
    assert len(model.evaluate(x, y, verbose=0)) == 2


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_that_of_keras(name):
    model = kind(name)
    for layer in model._flatten_layers():
        if isinstance(layer, (layers.Dropout, layers.GaussianNoise)):
            layer.rate = layer.stddev = 0.0
    model = compiled(model, SPARSE, "sgd")
    report = diagnose(model, X, IDS)
    assert report.loss == pytest.approx(
        float(model.train_on_batch(X, IDS)), rel=1e-5
    )


def test_bad_use_is_said():
    built = keras.Sequential([keras.Input((4,)), Dense(3)])
    with pytest.raises(ValueError, match="not compiled"):
        diagnose(built, X, IDS)
    unbuilt = compiled(keras.Sequential([Dense(3)]), SPARSE)
    with pytest.raises(ValueError, match="not built"):
        diagnose(unbuilt, X, IDS)
    with pytest.raises(ValueError, match="not built"):
        diagnose(compiled(Computed(3, ops.softmax), SPARSE), X, IDS)
    model = compiled(built, SPARSE)
    with pytest.raises(ValueError, match="needs the labels y"):
        diagnose(model, X, None)
    with pytest.raises(ValueError, match=r"x has 32, y has 31"):
        diagnose(model, X, IDS[:31])
    with pytest.raises(ValueError, match=r"sample_weight has 3"):
        diagnose(model, X, IDS, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match="at least 1"):
        diagnose(model, X[:0], IDS[:0])
    with pytest.raises(ValueError, match="must be arrays of rows"):
        diagnose(model, X, IDS[0])
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match="`batch_size` must be"):
            diagnose(model, X, IDS, batch_size=size)
    with pytest.raises(ValueError, match=r"takes a keras\.Model"):
        diagnose(lambda x: x, X, IDS)
    assert codes(model, X, IDS) == []


def test_what_the_loss_raises_comes_through():
    model, x, y, _ = stack(Dense(3), loss=Breaks())
    with pytest.raises(RuntimeError, match="from the loss"):
        diagnose(model, x, y)


def several(container):
    inputs = keras.Input((4,))
    hidden = Dense(5, "tanh")(inputs)
    ends = {
        "who": Dense(3, name="who")(hidden),
        "whether": Dense(1, name="whether")(hidden),
    }
    if container is list:
        ends = list(ends.values())
    return keras.Model(inputs, ends)


LOSSES = {"who": SPARSE, "whether": YES_NO}
LABELS = {"who": IDS, "whether": FLAGS}
WRONG = {"who": IDS, "whether": FLAGS + 1}


@pytest.mark.parametrize(
    ("outputs", "given", "weighted"),
    [
        (list, list, True),
        (dict, dict, True),
        (list, dict, False),
        (dict, list, False),
    ],
)
def test_several_outputs_and_losses(outputs, given, weighted):
    def packed(by_name):
        if given is list and outputs is list:
            return list(by_name.values())
        return by_name

    weights = packed({"who": 0.3, "whether": 2.0}) if weighted else None
    model = compiled(several(outputs), packed(LOSSES), loss_weights=weights)
    report = diagnose(model, X, packed(LABELS))
    assert report.findings == ()
    measured = model.evaluate(X, packed(LABELS), verbose=0)
    assert report.loss == pytest.approx(measured[0], rel=1e-5)
    found = only(model, X, packed(WRONG))
    assert found.code == "targets-not-distribution"
    assert found.where == "output 'whether'"


def test_one_loss_for_several_outputs():
    inputs = keras.Input((4,))
    ends = [Dense(3)(inputs), Dense(3)(inputs)]
    model = compiled(keras.Model(inputs, ends), SPARSE)
    assert codes(model, X, [IDS, IDS]) == []
    assert codes(model, X, [IDS, IDS + 1]) == ["labels-out-of-range"]


@pytest.mark.parametrize("outputs", [list, dict])
def test_an_output_without_a_loss_needs_no_labels(outputs):
    loss, labels = {"who": SPARSE, "whether": None}, {"who": IDS}
    if outputs is list:
        loss, labels = list(loss.values()), [IDS]
    model = compiled(several(outputs), loss)
    report = diagnose(model, X, labels)
    assert {f.where for f in report.findings} == {"layer 'whether'"}
    measured = model.evaluate(X, labels, verbose=0, return_dict=True)
    assert report.loss == pytest.approx(measured["loss"], rel=1e-5)


def test_a_model_without_a_loss_is_told_so():
    model = keras.Sequential([keras.Input((4,)), Dense(3)])
    model.compile("sgd")
    with pytest.raises(ValueError, match="has no loss"):
        diagnose(model, X, IDS)


def test_rows_are_taken_from_those_with_a_weight():
    model, x, y, _ = stack(Dense(3), loss=SPARSE)
    weight = np.zeros(32)
    weight[[1, 2]] = 1
    assert codes(model, x, y, weight, batch_size=4) == []


def test_weights_for_each_output():
    model = compiled(several(list), list(LOSSES.values()))
    labels = list(LABELS.values())
    some = (np.arange(32) > 3) * 1.0
    assert codes(model, X, labels, [some, some]) == []
    none = only(model, X, labels, [some, 0 * some])
    assert (none.code, none.where) == ("all-masked", "output 'whether'")


def test_regularizers_and_add_loss_count():
    class Costly(layers.Layer):
        def call(self, x):
            self.add_loss(3.0 * ops.mean(ops.square(x)))
            return x

    model, x, y, _ = stack(
        Dense(5, kernel_regularizer="l2", bias_regularizer="l1"),
        Costly(),
        Dense(3),
        loss=SPARSE,
        optimizer="adam",
    )
    report = diagnose(model, x, y)
    assert report.findings == ()
    assert report.loss == pytest.approx(
        float(model.train_on_batch(x, y)), rel=1e-5
    )


def test_add_loss_alone():
    class Costly(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = Dense(3)

        def call(self, x):
            y = self.dense(x)
            self.add_loss(ops.mean(ops.square(y)))
            return y

    model = Costly()
    model(X)
    assert codes(compiled(model, None, "adam"), X, IDS) == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("trained", [False, True])
def test_mixed_precision(policy, trained):
    policy = keras.dtype_policies.DTypePolicy(policy)
    model, x, y, _ = stack(
        Dense(5, "relu", dtype=policy),
        layers.BatchNormalization(dtype=policy),
        Dense(3, dtype=policy),
        layers.Activation("linear", dtype="float32"),
        loss=SPARSE,
        optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
        if policy.name == "mixed_float16"
        else "adam",
    )
    if trained:
        fit(model)
    before = state(model)
    assert codes(model, x, y) == []
    assert same(state(model), before)


@thorough_on("jax")
def test_the_rows_of_the_batch_come_from_everywhere():
    seen = []

    class Notes(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = Dense(3)

        def call(self, x):
            seen.append(ops.convert_to_numpy(ops.stop_gradient(x))[:, 0])
            return self.dense(x)

    model = Notes()
    x = np.arange(100.0, dtype="float32")[:, None] / 100
    model(x)
    seen.clear()
    report = diagnose(
        compiled(model, SPARSE), x, np.arange(100) % 3, batch_size=4
    )
    assert (report.rows, report.labels) == (4, 100)
    assert seen[0].tolist() == x[[0, 33, 66, 99], 0].tolist()
    assert all(len(rows) == 4 for rows in seen)


def test_one_row():
    report = diagnose(*stack(Dense(3), loss=SPARSE)[:1], X[:1], IDS[:1])
    assert report.findings == ()
    assert (report.rows, report.labels) == (1, 1)


def test_inputs_in_a_list_or_by_name():
    named = {name: keras.Input((4,), name=name) for name in ("left", "right")}
    outputs = Dense(3)(layers.Concatenate()(list(named.values())))
    by_name = compiled(keras.Model(named, outputs), SPARSE)
    as_list = compiled(keras.Model(list(named.values()), outputs), SPARSE)
    x = dict(zip(named, PAIRS, strict=True))
    assert codes(by_name, x, IDS, batch_size=8) == []
    assert codes(as_list, PAIRS, IDS, batch_size=8) == []
    # An input that the model does not ask for is Keras's business.
    assert codes(by_name, x, IDS + 1) == ["labels-out-of-range"]


def test_plain_numbers_do():
    model, *_ = stack(Dense(3), loss=SPARSE)
    assert codes(model, X.tolist(), IDS.tolist()) == []
    assert codes(model, X, (IDS + 1).tolist()) == ["labels-out-of-range"]
    assert codes(model, X, IDS, [1.0] * 32) == []
    assert codes(model, X, IDS, [0.0] * 32) == ["all-masked"]


def test_tensors_do():
    model, *_ = stack(Dense(3), loss=SPARSE)
    x, y = ops.convert_to_tensor(X), ops.convert_to_tensor(IDS)
    assert codes(model, x, y, batch_size=8) == []
    assert codes(model, x, y + 1, batch_size=8) == ["labels-out-of-range"]


def test_float64_is_cast_as_in_fit():
    model, x, y, _ = stack(Dense(1), loss="mse", y=X[:, :1])
    assert codes(model, x.astype("float64"), y.astype("float64")) == []


def test_columns_of_a_table_do_and_none_is_needed(monkeypatch):
    class Column:
        """What a pandas.Series shows of itself."""

        shape, iloc = (32,), None

        def __array__(self, dtype=None, copy=None):
            return IDS.astype(dtype) if dtype else IDS

        def __len__(self):
            return 32

    monkeypatch.setitem(sys.modules, "pandas", None)
    model, *_ = stack(Dense(3), loss=SPARSE)
    assert codes(model, X, Column()) == []


def test_a_train_step_of_its_own_makes_no_trial_step():
    class Own(Computed):
        def train_step(self, *args):
            return super().train_step(*args)

    model = Own(3, lambda x: x)
    model(X)
    compiled(model, SPARSE, keras.optimizers.SGD(1e6))
    assert codes(model, X, IDS) == []
    model.function = ops.softmax
    assert codes(model, X, IDS) == ["probabilities-as-logits"]


def test_a_compute_loss_of_its_own_is_asked():
    class Own(Computed):
        def compute_loss(
            self, x=None, y=None, y_pred=None, sample_weight=None, **options
        ):
            squares = ops.square(y_pred[:, 0] - ops.cast(y, "float32"))
            return ops.mean(squares)

    model = Own(3, lambda x: x)
    model(X)
    report = diagnose(compiled(model, None, "adam"), X, IDS)
    y_pred = model.predict(X, verbose=0)
    expected = np.mean((y_pred[:, 0] - IDS) ** 2)
    assert report.loss == pytest.approx(expected, rel=1e-5)
    assert report.findings == ()


def test_what_hangs_on_all_labels_is_not_said_of_a_batch():
    model, x, y, _ = stack(Dense(3), loss=SPARSE)
    report, _ = examine.look(model, (x, 0 * y, None))
    assert report.findings == ()
    assert "constant-targets" in report.unchecked
    assert "constant-targets" not in report.checked
    assert codes(model, x, 0 * y) == ["constant-targets"]


def test_every_code_is_looked_for_or_said_not_to_be():
    model, x, y, _ = stack(Dense(3), loss=SPARSE)
    healthy = diagnose(model, x, y)
    assert len(healthy.checked) == len(set(healthy.checked)) == 34
    assert healthy.unchecked == {}
    broken = diagnose(model, x, y + 1)
    both = [*broken.checked, *broken.unchecked]
    assert sorted(both) == sorted(healthy.checked)
    assert "labels-out-of-range" in broken.checked
    assert "step-too-large" in broken.unchecked
    names = diagnose(model, x, np.array(["a"] * 32))
    both = [*names.checked, *names.unchecked]
    assert sorted(both) == sorted(healthy.checked)


def test_findings_of_several_kinds_come_together():
    model = compiled(several(list), [SPARSE, YES_NO], metrics=["mae", "acc"])
    model = compiled(
        several(list),
        [SPARSE, YES_NO],
        keras.optimizers.SGD(1e4),
        metrics=[["accuracy"], ["accuracy"]],
    )
    found = codes(model, X, list(LABELS.values()))
    assert sorted(found) == ["metric-mismatch", "step-too-large"]


def test_one_hot_labels_of_a_sequence_are_counted_by_row():
    x, y = normal(8, 5, 4), ONE_HOT[np.arange(40).reshape(8, 5) % 32]
    model, *_ = stack(
        layers.LSTM(3, return_sequences=True),
        Dense(3),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        x=x,
        y=y,
    )
    assert codes(model, x, y) == []
