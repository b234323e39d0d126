"""The logs of an epoch hold what its embeddings retrieve."""

import keras
import numpy as np
import pytest

from keras_xent.callbacks import EvaluateRetrieval
from keras_xent.metrics import retrieval
from tests.testing import normal

CLASSES = np.repeat(np.arange(5), 6)
# The first two entries tell the class, the others do not.
X = normal(30, 4).copy()
X[:, :2] += 3.0 * normal(5, 2, seed=1)[CLASSES]

GOOD = np.eye(4)[:, :3]
BAD = np.eye(4)[:, 1:]
NOTHING = np.zeros((4, 3))


class Script(keras.callbacks.Callback):
    """Sets the weights at the start of each epoch: training by script."""

    def __init__(self, *kernels):
        super().__init__()
        self.kernels = kernels

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_weights([self.kernels[epoch]])


def tower(*layers):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, use_bias=False), *layers]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    return model


def products(a):
    return keras.ops.matmul(a, keras.ops.transpose(a))


def fit(model, kernels, *callbacks):
    target = np.zeros((30, *model.output_shape[1:]))
    history = model.fit(
        X,
        target,
        epochs=len(kernels),
        verbose=0,
        callbacks=[Script(*kernels), *callbacks],
    )
    return history.history


def logged(found, k):
    return {
        "val_precision_at_1": found.precision_at_1,
        f"val_recall_at_{k}": found.recall_at_k[k],
        "val_r_precision": found.r_precision,
        "val_map_at_r": found.map_at_r,
        f"val_ndcg_at_{k}": found.ndcg_at_k[k],
    }


def test_the_history_holds_each_epoch():
    search = EvaluateRetrieval((X, CLASSES))
    assert search.result is None
    history = fit(tower(), [GOOD, BAD, NOTHING], search)
    del history["loss"]
    truth = [
        logged(retrieval(X @ kernel, CLASSES), 5)
        for kernel in (GOOD, BAD, NOTHING)
    ]
    assert history.keys() == truth[0].keys()
    for key, values in history.items():
        np.testing.assert_allclose(values, [each[key] for each in truth], 1e-6)
    assert history["val_map_at_r"][0] > history["val_map_at_r"][1] > 0
    assert history["val_precision_at_1"][2] == 0.0
    assert search.result.queries == 30


def test_early_stopping_and_checkpoints_go_by_it(tmp_path):
    search = EvaluateRetrieval((X, CLASSES))
    stop = keras.callbacks.EarlyStopping(
        monitor="val_map_at_r", patience=1, restore_best_weights=True
    )
    save = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_recall_at_5", save_best_only=True
    )
    model = tower()
    names = [metric.name for metric in model.metrics]
    history = fit(model, [BAD, GOOD, NOTHING, GOOD], search, save, stop)
    assert len(history["loss"]) == 3
    np.testing.assert_allclose(model.get_weights()[0], GOOD)
    saved = keras.saving.load_model(tmp_path / "best.keras")
    best = np.argmax(history["val_recall_at_5"])
    np.testing.assert_allclose(saved.get_weights()[0], [BAD, GOOD][best])
    # The model has forgotten that it was told which way is better.
    assert [metric.name for metric in model.metrics] == names


def test_queries_options_and_weights():
    # Junk of weight 0 is neither searched nor found.
    x, weight = X.copy(), np.ones(30)
    x[::7], weight[::7] = np.nan, 0
    kept = weight != 0
    gallery = (x, CLASSES[:, None], weight)
    alone = EvaluateRetrieval(gallery, k=3, distance="euclidean")
    both = EvaluateRetrieval(
        gallery,
        queries=(X[:9], CLASSES[:9]),
        k=(1, 2),
        distance=products,
        similarity=True,
        batch_size=7,
        prefix="val_searched_",
    )
    history = fit(tower(), [GOOD], alone, both)
    rows = (X @ GOOD).astype("float32")
    found = retrieval(rows[kept], CLASSES[kept], k=3, distance="euclidean")
    for key, value in logged(found, 3).items():
        assert history[key] == [pytest.approx(value)]
    found = retrieval(
        rows[kept],
        CLASSES[kept],
        queries=(rows[:9], CLASSES[:9]),
        k=(1, 2),
        distance=products,
        similarity=True,
    )
    assert history["val_searched_map_at_r"] == [pytest.approx(found.map_at_r)]
    for k in (1, 2):
        assert history[f"val_searched_recall_at_{k}"] == [found.recall_at_k[k]]


def test_views_are_rows():
    search = EvaluateRetrieval((X, CLASSES))
    model = tower(keras.layers.Reshape((3, 1)), keras.layers.Dense(2))
    model.fit(X, np.zeros((30, 3, 2)), verbose=0, callbacks=[search])
    rows = model.predict(X, verbose=0)
    assert rows.shape == (30, 3, 2)
    found = retrieval(rows.reshape(90, 2), np.repeat(CLASSES, 3))
    assert search.result == found
    assert found.queries == 90


def test_a_line_is_printed(capsys):
    fit(tower(), [GOOD], EvaluateRetrieval((X, CLASSES), k=2, verbose=1))
    line = capsys.readouterr().out
    assert "Epoch 1: val_precision_at_1 0." in line
    assert "(30 queries, 0 without a match)" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_data": X}, "`validation_data` must be"),
        ({"queries": X}, "`queries` must be"),
        ({"k": 0}, "`k` must be a whole number"),
        ({"distance": "manhattan"}, "`distance` must be one of"),
        ({"distance": lambda a: a}, "similarity=True"),
    ],
)
def test_what_is_wrong_is_said_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        EvaluateRetrieval(**{"validation_data": (X, CLASSES)} | options)


def test_outputs_that_are_no_embeddings_raise():
    inputs = keras.Input((4,))
    two = keras.Model(inputs, [keras.layers.Dense(2)(inputs)] * 2)
    two.compile("sgd", ["mse", "mse"], run_eagerly=True)
    search = EvaluateRetrieval((X, CLASSES))
    with pytest.raises(ValueError, match="EvaluateRetrieval needs a model"):
        two.fit(X, [np.zeros((30, 2))] * 2, verbose=0, callbacks=[search])
    flat = tower(keras.layers.Dense(1), keras.layers.Reshape(()))
    with pytest.raises(ValueError, match=r"\(30,\) and \(30,\)"):
        flat.fit(X, np.zeros(30), verbose=0, callbacks=[search])
