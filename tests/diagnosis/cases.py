"""Small models, broken and healthy, and how a report is asked about them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_xent
from keras_xent import diagnose, losses
from keras_xent.layers import SimilarityHead
from tests.testing import normal

X = normal(32, 4)
IDS = np.arange(32) % 3
ONE_HOT = np.eye(3, dtype="float32")[IDS]
FLAGS = np.arange(32)[:, None] % 2
PAIRS = [X, normal(32, 4, seed=1)]

# Losses by what they take: class ids, one-hot rows or yes and no, and logits
# or probabilities.
SPARSE = losses.SparseSoftmaxCrossentropy()
KERAS_SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DENSE = losses.SoftmaxCrossentropy()
KERAS_DENSE = keras.losses.CategoricalCrossentropy(from_logits=True)
YES_NO = losses.SigmoidCrossentropy()
KERAS_YES_NO = keras.losses.BinaryCrossentropy(from_logits=True)


class Computed(keras.Model):
    """A model with a `call` of its own: a function of a Dense layer."""

    def __init__(self, units, function):
        super().__init__()
        self.dense = layers.Dense(units)
        self.function = function

    def call(self, x):
        return self.function(self.dense(x))


def compiled(model, loss, optimizer="sgd", **options):
    model.compile(optimizer, loss, **options)
    return model


def stack(*each, loss, x=X, y=IDS, weight=None, **options):
    """Layers upon each other, compiled: `(model, x, y, weight)`."""
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), *each])
    return compiled(model, loss, **options), x, y, weight


def ids(y, loss=SPARSE, units=3, **options):
    return stack(layers.Dense(units), loss=loss, y=y, **options)


def rows(y, loss=DENSE, units=3, **options):
    return stack(layers.Dense(units), loss=loss, y=y, **options)


def flags(y, loss=YES_NO, units=1, **options):
    return stack(layers.Dense(units), loss=loss, y=y, **options)


def sparse(**options):
    return losses.SparseSoftmaxCrossentropy(**options)


def computed(units, function, loss, x=X, y=IDS, weight=None, **options):
    """A function in the `call` of a model: `(model, x, y, weight)`."""
    model = Computed(units, function)
    model(x[:1])
    return compiled(model, loss, **options), x, y, weight


def look_at(model, x, y, weight=None, **options):
    return diagnose(model, x, y, sample_weight=weight, **options)


def codes(*case, **options):
    return [finding.code for finding in look_at(*case, **options).findings]


def only(*case, **options):
    """The one finding that there is."""
    (finding,) = look_at(*case, **options).findings
    return finding


def twins(cases):
    """One test for each: the broken model, and the smallest repair of it."""
    return pytest.mark.parametrize(
        ("broken", "healthy"), cases.values(), ids=list(cases)
    )


def cured(finding, **names):
    """The names that a cure leaves behind, given those of the user."""
    names = {"keras": keras, "keras_xent": keras_xent, "np": np, **names}
    exec(finding.cure, names)
    return names


def run_cure(report, namespace, epochs=5):
    """The report on a model after its cures and a few epochs of training.

    The cures run one after the other with the names of the user. What they
    leave behind is used as a user would use it: a new `loss`, `optimizer`,
    `metrics` or `model` is compiled (with what is not new as it was), `x`, `y`
    and `sample_weight` are trained on, with `callbacks` if there are any.

    Args:
        report: Of `diagnose`, with one finding or more.
        namespace: `model`, `x`, `y`, and what else the user has, by name. It
            holds afterwards what the cures have made of it.
        epochs: How long the model then trains; its loss must stay finite.
    """
    given = dict(namespace)
    old = namespace["model"]
    names = {"keras": keras, "keras_xent": keras_xent, "np": np, **namespace}
    for finding in report.findings:
        exec(finding.cure, names)
    namespace.update({k: v for k, v in names.items() if k != "__builtins__"})
    model = namespace["model"]
    compiled_anew = ("loss", "optimizer", "metrics")
    is_new = any(names.get(k) is not given.get(k) for k in compiled_anew)
    if is_new or not model.compiled:
        config = old.get_compile_config() or {}
        optimizer = type(old.optimizer).from_config(old.optimizer.get_config())
        metrics = keras.saving.deserialize_keras_object(config.get("metrics"))
        model.compile(
            names.get("optimizer", optimizer),
            names.get("loss", old.loss),
            metrics=names.get("metrics", metrics),
            loss_weights=config.get("loss_weights"),
        )
    x, y, weight = (names.get(k) for k in ("x", "y", "sample_weight"))
    history = model.fit(
        x,
        y,
        sample_weight=weight,
        epochs=epochs,
        verbose=0,
        callbacks=names.get("callbacks"),
    )
    assert np.isfinite(history.history["loss"]).all()
    return diagnose(model, x, y, sample_weight=weight)


def repaired(code, model, x, y, *weight):
    """What is found after the cure of the one finding, which has this code."""
    report = look_at(model, x, y, *weight)
    assert [found.code for found in report.findings] == [code]
    names = {"model": model, "x": x, "y": y}
    if weight:
        (names["sample_weight"],) = weight
    return run_cure(report, names, epochs=1).findings


def two_towers(loss, head=None, x=PAIRS, y=None):
    """Two inputs, a tower for both, and a head that puts them side by side."""
    inputs = [keras.Input((4,)), keras.Input((4,))]
    tower = layers.Dense(8)
    outputs = (head or SimilarityHead())([tower(each) for each in inputs])
    model = keras.Model(inputs, outputs)
    y = np.arange(32) if y is None else y
    return compiled(model, loss, "adam"), x, y


def one_tower(loss, *before, x=X, y=None, steps=0, **options):
    """Embeddings of single rows, of eight classes, after so many steps."""
    y = np.arange(len(x)) % 8 if y is None else y
    options = {"optimizer": "adam", **options}
    model, *case = stack(
        *before, layers.Dense(8), loss=loss, x=x, y=y, **options
    )
    model.optimizer.iterations.assign(steps)
    return model, *case


def measured(distances, y, margin=2.0, steps=100, before=(), **options):
    """A model that returns the distances it is given, after so many steps."""
    distances = np.asarray(distances, "float32").reshape(-1, 1)
    end = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    loss = losses.SoftplusHinge(margin)
    model, *case = stack(*before, end, loss=loss, x=distances, y=y, **options)
    model.optimizer.iterations.assign(steps)
    return model, *case
