"""Searches nearest neighbors in validation data after each epoch."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_xent import _keras
from keras_xent._types import Distance
from keras_xent.callbacks.validation_data import (
    check_embedding,
    check_numbers,
    predictions,
    unpacked,
)
from keras_xent.metrics.retrieval import Retrieval, retrieval


class EvaluateRetrieval(keras.callbacks.Callback):
    """Searches the validation data among themselves after each epoch.

    Predicts the embeddings of the validation data and searches the nearest
    neighbors of each, by `metrics.retrieval`, which has the formulas and rules.
    The logs of the epoch get, with k as it is given,

    | key | what |
    | --- | --- |
    | `val_precision_at_1` | share of queries whose nearest entry is a match |
    | `val_recall_at_5` | share with a match among the k nearest, for each k |
    | `val_r_precision` | share of matches among the R nearest, of R matches |
    | `val_map_at_r` | mean average precision at R |
    | `val_ndcg_at_5` | normalized discounted cumulative gain, for each k |

    `History` and the progress bar see them; so do callbacks that come after
    this one in the list (put it before `EarlyStopping` and `ModelCheckpoint`),
    which also learn that more is better (`mode="auto"`). A metric that `fit`
    has for batches sees the pairs of a batch; this sees all of the set.

    The validation data may hold classes that were never trained on: this is
    what retrieval is for. On PyTorch, predicting draws from the global random
    state, so that later epochs are shuffled in another order than without this
    callback.

    Args:
        validation_data: `(x, y)` or `(x, y, sample_weight)`, arrays: the
            gallery. `y` holds class ids `[n]` or `[n, 1]`; the model gives
            embeddings `[n, d]`, or `[n, views, d]`, where each view is an entry
            of its own. What has weight 0 is left out; other weights say
            nothing.
        queries: `None` to search each entry among the others, or data like
            `validation_data` that is searched in it.
        k: How many of the nearest entries count, or several such numbers.
        distance: `"cosine"`, `"euclidean"`, `"symmetric_kl"` (of logits), or a
            callable from embeddings `[n, d]` to scores `[n, n]`, which must
            compare rows two by two, whatever other rows there are.
        similarity: For a callable, which has no default: True if large scores
            mean alike, False if small ones do.
        embedding: A model whose output is compared, made of layers of the one
            that is trained. `None` is that one itself. Behind a `CosineHead`,
            which predicts cosines with the classes:
            `keras.Model(model.inputs, model.layers[-2].output)`.
        batch_size: Batch size of the predictions.
        prefix: What the keys begin with. Give another to each of several such
            callbacks.
        verbose: 1 prints a line after each epoch.

    Attributes:
        result: The `Retrieval` of the last epoch, `None` before.

    Raises:
        ValueError: If an argument is wrong, or the model's output does not fit
            `y`.

    Example:

    >>> import keras, numpy as np
    >>> from keras_xent.callbacks import EvaluateRetrieval
    >>> x, ids = np.eye(6), np.array([0, 0, 1, 1, 2, 2])
    >>> model = keras.Sequential([keras.layers.Input((6,)),
    ...                           keras.layers.Dense(4)])
    >>> model.compile("adam", "mse")
    >>> search = EvaluateRetrieval((x, ids), k=2)
    >>> history = model.fit(x, x[:, :4], epochs=2, verbose=0,
    ...                     callbacks=[search])
    >>> sorted(key for key in history.history if key != "loss")
    ['val_map_at_r', 'val_ndcg_at_2', 'val_precision_at_1',
     'val_r_precision', 'val_recall_at_2']
    >>> search.result.map_at_r == history.history["val_map_at_r"][1]
    True
    """

    def __init__(
        self,
        validation_data: tuple[Any, ...],
        *,
        queries: tuple[Any, ...] | None = None,
        k: int | Sequence[int] = 5,
        distance: Distance = "cosine",
        similarity: bool | None = None,
        embedding: keras.Model | None = None,
        batch_size: int = 32,
        prefix: str = "val_",
        verbose: int = 0,
    ) -> None:
        super().__init__()
        check_embedding(embedding)
        self.embedding = embedding
        self._gallery = _Rows(validation_data, "validation_data")
        self._queries = None if queries is None else _Rows(queries, "queries")
        self._search = functools.partial(
            retrieval, k=k, distance=distance, similarity=similarity
        )
        # Wrong arguments are said here, not after an epoch.
        nothing = self._search(np.zeros((0, 1)), np.zeros(0))
        if not isinstance(prefix, str):
            raise ValueError(
                "`prefix` must be what the keys begin with, a string. "
                f"Received: prefix={prefix!r}"
            )
        self._keys = [prefix + key for key in _logs(nothing)]
        check_numbers(batch_size, verbose)
        self.batch_size = int(batch_size)
        self.verbose = verbose
        self.result: Retrieval | None = None
        self._notice = None

    def on_train_begin(self, logs=None):
        self.result = None
        # Of a training that was broken off.
        _keras.unannounce(self.model, self._notice)
        names = [key.removeprefix("val_") for key in self._keys]
        self._notice = _keras.announce(self.model, dict.fromkeys(names, "up"))

    def on_train_end(self, logs=None):
        _keras.unannounce(self.model, self._notice)

    def on_epoch_end(self, epoch, logs=None):
        gallery = self._gallery.embedded(self)
        queries = None
        if self._queries is not None:
            queries = self._queries.embedded(self)
        self.result = self._search(*gallery, queries=queries)
        found = dict(zip(self._keys, _logs(self.result).values(), strict=True))
        if logs is not None:
            logs.update(found)
        if self.verbose:
            line = ", ".join(f"{key} {found[key]:.4f}" for key in found)
            print(
                f"Epoch {epoch + 1}: {line} ({self.result.queries} queries, "
                f"{self.result.without_match} without a match)"
            )


class _Rows:
    """Data whose embeddings are searched, or searched in."""

    def __init__(self, data, name):
        self._x, self._ids, weight = unpacked(data, name)
        self._kept = None
        if weight is not None:
            self._kept = weight.reshape(len(weight), -1).any(axis=1)

    def embedded(self, callback):
        """Embeddings and ids of what has a weight."""
        rows = predictions(callback, self._x, "embeddings", callback.embedding)
        ids = self._ids
        if self._kept is None or len(rows) != len(ids):
            return rows, ids
        return rows[self._kept], ids[self._kept]


def _logs(result):
    """The figures of a `Retrieval` by the names that they have in logs."""
    return {
        "precision_at_1": result.precision_at_1,
        **{f"recall_at_{k}": x for k, x in result.recall_at_k.items()},
        "r_precision": result.r_precision,
        "map_at_r": result.map_at_r,
        **{f"ndcg_at_{k}": x for k, x in result.ndcg_at_k.items()},
    }
