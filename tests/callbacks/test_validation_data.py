"""Embeddings may be those of a part of the model that is trained."""

import keras
import numpy as np
import pytest

from keras_xent import callbacks, layers, losses, metrics
from tests.testing import normal, thorough_on

# Numbers at random, which no threshold parts.
pytestmark = pytest.mark.filterwarnings("ignore:The tuned threshold")

X, IDS = normal(12, 4), np.arange(12) % 3


def classifier():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5),
            layers.CosineHead(3, angular_margin=0.2),
        ]
    )
    loss = losses.LinearCrossentropy()
    model.compile(keras.optimizers.Adam(0.05), loss, run_eagerly=True)
    return model, keras.Model(model.inputs[0], model.layers[-2].output)


def fit(model, callback):
    history = model.fit(X, IDS, epochs=2, verbose=0, callbacks=[callback])
    return history.history


def test_behind_a_cosine_head_the_embeddings_are_searched():
    model, embedding = classifier()
    history = fit(
        model, callbacks.EvaluateRetrieval((X, IDS), embedding=embedding)
    )
    found = metrics.retrieval(embedding.predict(X, verbose=0), IDS)
    assert history["val_map_at_r"][-1] == pytest.approx(found.map_at_r)
    of_cosines = metrics.retrieval(model.predict(X, verbose=0), IDS)
    assert found.map_at_r != pytest.approx(of_cosines.map_at_r)


@thorough_on("jax")
def test_behind_a_cosine_head_the_threshold_is_that_of_embeddings():
    model, embedding = classifier()
    tuner = callbacks.TuneThreshold(
        (X, IDS),
        distance="cosine",
        embedding=embedding,
        restore_best_weights=False,
    )
    fit(model, tuner)
    alone = callbacks.TuneThreshold((X, IDS), distance="cosine")
    sgd = keras.optimizers.SGD(0.0)
    keras.Model.compile(embedding, sgd, "mse", run_eagerly=True)
    embedding.fit(X, np.zeros((12, 5)), verbose=0, callbacks=[alone])
    assert tuner.threshold == pytest.approx(alone.threshold)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: callbacks.EvaluateRetrieval((X, IDS), **kw),
        lambda **kw: callbacks.TuneThreshold((X, IDS), distance="cosine", **kw),
    ],
    ids=["retrieval", "threshold"],
)
def test_what_is_no_model_raises(make):
    with pytest.raises(ValueError, match="`embedding` must be a model"):
        make(embedding="dense")
