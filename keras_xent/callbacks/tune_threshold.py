"""Tunes the threshold of match decisions after each epoch."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Distance
from keras_xent.callbacks.validation_data import unpacked
from keras_xent.metrics.alignment import check_flags, class_ids
from keras_xent.metrics.match_accuracy import MatchAccuracy
from keras_xent.ops.direction import is_similarity
from keras_xent.ops.distance import pairwise_distance

# Here the result is asked for once an epoch, not in every step, so the bins can
# be four times as fine as the metric's default.
_RESOLUTION = 9

# Rows of embeddings compared at once: a block is 4 MiB of float32 scores.
_BLOCK = 1024


class TuneThreshold(keras.callbacks.Callback):
    """Tunes the threshold on validation data after each epoch.

    Predicts on the validation data, finds the threshold with the best accuracy
    by `MatchAccuracy`, and writes `val_match_accuracy` and `threshold` into the
    logs of the epoch. `History` and the progress bar see them; so do callbacks
    that come after this one in the list (put it before `EarlyStopping`), which
    also learn that more of the accuracy is better (`mode="auto"`). The
    accuracy is optimistic for the validation data, since the threshold was
    chosen on them: report the accuracy on test data at the frozen threshold.

    A threshold belongs to the weights it was tuned for. So, at the end of
    training, the weights of the epoch with the best accuracy come back, and
    `threshold` is theirs. With `restore_best_weights=False` the last weights
    stay, and `threshold` is that of the last epoch. On PyTorch, predicting
    draws from the global random state, so that later epochs are shuffled in
    another order than without this callback. `EarlyStopping` with weights of
    its own to restore should go by `monitor="val_match_accuracy"`, or it puts
    back other weights than the threshold's.

    Args:
        validation_data: `(x, y)` or `(x, y, sample_weight)`, arrays. Without
            `distance`, `y` holds match flags 1/0 and the model gives one score
            for each; with it, `y` holds class ids `[n]` or `[n, 1]` and the
            model gives embeddings `[n, d]`. `model.predict` drops masks: leave
            entries out by a weight of 0.
        distance: `None` if the model gives scores. If it gives embeddings:
            `"symmetric_kl"` (of logits), `"euclidean"`, `"cosine"`, or a
            callable from embeddings `[n, d]` to scores `[n, n]`. Then all pairs
            of the whole validation set count. A callable may be called with two
            blocks of rows at once, and must compare rows two by two, whatever
            other rows there are.
        similarity: True if large scores mean alike, as cosines and logits do;
            False if small ones do, as distances. It has no default where scores
            come in or a callable makes them; a `distance` with a name is known
            to be small for what is alike.
        balanced: Whether to give matches and non-matches equal say.
        batch_size: Batch size of the predictions.
        restore_best_weights: Whether the weights of the best epoch come back
            at the end of training.
        verbose: 1 prints a line after each epoch.

    Attributes:
        threshold: The threshold that belongs to the weights the model has now.
        best_threshold, best_accuracy, best_epoch: Those of the best epoch, the
            first of equally good ones, counted from 0. NaN, NaN and None until
            an epoch had an accuracy that is not NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument is wrong, or
            the model's output does not fit `y`.

    Example:

    >>> import keras, numpy as np
    >>> from keras_xent.callbacks import TuneThreshold
    >>> x = np.array([[0.1], [0.2], [0.8], [0.9]])
    >>> match = np.array([1, 1, 0, 0])
    >>> model = keras.Sequential([keras.layers.Input((1,)),
    ...                           keras.layers.Dense(1, "softplus")])
    >>> model.compile("sgd", "mse")
    >>> tuner = TuneThreshold((x, match), similarity=False)
    >>> history = model.fit(x, match, epochs=2, verbose=0, callbacks=[tuner])
    >>> accuracy = history.history["val_match_accuracy"]
    >>> tuner.best_accuracy == max(accuracy) == accuracy[tuner.best_epoch]
    True
    >>> tuner.threshold == tuner.best_threshold
    True
    """

    def __init__(
        self,
        validation_data: tuple[Any, ...],
        *,
        distance: Distance = None,
        similarity: bool | None = None,
        balanced: bool = False,
        batch_size: int = 32,
        restore_best_weights: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self._x, self._y, self._weight = unpacked(validation_data)
        self._pairwise = None
        if distance is None:
            check_flags(self._y, self._weight)
        else:
            self._pairwise = _rectangular(distance)
            self._y = ops.convert_to_numpy(class_ids(self._y))
        self._metric = MatchAccuracy(
            similarity=is_similarity(similarity, distance),
            balanced=balanced,
            resolution=_RESOLUTION,
        )
        self._notice = None
        self.distance = distance
        self.batch_size = batch_size
        self.restore_best_weights = restore_best_weights
        self.verbose = verbose
        self._forget()

    def _forget(self):
        self.threshold = self.best_threshold = self.best_accuracy = np.nan
        self.best_epoch = self._best_weights = None

    def on_train_begin(self, logs=None):
        self._forget()
        # Of a training that was broken off.
        _keras.unannounce(self.model, self._notice)
        name = self._metric.name
        self._notice = _keras.announce(self.model, name, "up")

    def on_epoch_end(self, epoch, logs=None):
        accuracy = self._tune()
        if logs is not None:
            logs["val_match_accuracy"] = accuracy
            logs["threshold"] = self.threshold
        if self.best_epoch is None or accuracy > self.best_accuracy:
            self._keep(epoch, accuracy)
        if self.verbose:
            print(
                f"Epoch {epoch + 1}: match accuracy {accuracy:.4f} "
                f"at threshold {self.threshold:.6g}"
            )

    def _keep(self, epoch, accuracy):
        if np.isnan(accuracy):
            return
        self.best_epoch, self.best_accuracy = epoch, accuracy
        self.best_threshold = self.threshold
        if self.restore_best_weights:
            self._best_weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        _keras.unannounce(self.model, self._notice)
        if self._best_weights is not None:
            self.model.set_weights(self._best_weights)
            self.threshold = self.best_threshold
            self._best_weights = None

    def _tune(self):
        """Sets the threshold for the weights as they are; its accuracy."""
        predicted = self.model.predict(
            self._x, batch_size=self.batch_size, verbose=0
        )
        if not isinstance(predicted, np.ndarray):
            raise ValueError(
                "TuneThreshold needs a model with one output: scores, or "
                "embeddings with a `distance`. Received: "
                f"{type(predicted).__name__}"
            )
        self._metric.reset_state()
        if self._pairwise is None:
            self._metric.update_state(self._y, predicted, self._weight)
        else:
            self._count_pairs(predicted)
        self.threshold = self._metric.threshold
        return float(ops.convert_to_numpy(self._metric.result()))

    def _count_pairs(self, rows):
        """Feeds all pairs of rows to the metric, block by block."""
        ids = self._y
        if rows.ndim != 2 or len(rows) != len(ids):
            raise ValueError(
                "With a `distance`, expected embeddings [n, d] for class ids "
                f"[n]. Received: shape {rows.shape} for {len(ids)} ids."
            )
        weight = np.ones(len(ids), "float32")
        if self._weight is not None:
            weight = np.asarray(self._weight, "float32").reshape(len(ids))
        # A distance may look at all rows at once, so junk must not reach it.
        rows = np.where(weight[:, None] != 0, rows, np.zeros_like(rows))
        order = np.arange(len(ids))
        blocks = [
            slice(start, start + _BLOCK) for start in range(0, len(ids), _BLOCK)
        ]
        for i, first in enumerate(blocks):
            for second in blocks[i:]:
                once = order[first, None] < order[None, second]
                self._metric.update_state(
                    ids[first, None] == ids[None, second],
                    self._pairwise(rows[first], rows[second]),
                    once * weight[first, None] * weight[None, second],
                )


def _rectangular(distance):
    """A function of two blocks of rows, `[n, d]` and `[m, d]`, to `[n, m]`."""
    pairwise = pairwise_distance(distance)
    if isinstance(distance, str):
        return pairwise

    def corner(a, b):
        n = len(a)
        both = ops.convert_to_tensor(np.concatenate([a, b]))
        return pairwise(both)[:n, n:]

    return corner
