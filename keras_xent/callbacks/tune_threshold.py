"""Tunes the threshold of match decisions after each epoch."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Distance
from keras_xent._warnings import warn
from keras_xent.callbacks.validation_data import (
    check_embedding,
    check_numbers,
    predictions,
    unpacked,
)
from keras_xent.metrics.alignment import check_flags, class_ids, flat_views
from keras_xent.metrics.detection_cost import MinDetectionCost
from keras_xent.metrics.equal_error_rate import EqualErrorRate
from keras_xent.metrics.match_accuracy import MatchAccuracy
from keras_xent.ops import checks
from keras_xent.ops.direction import is_similarity
from keras_xent.ops.distance import rectangular

# Here the result is asked for once an epoch, not in every step, so the bins can
# be four times as fine as the metric's default.
_RESOLUTION = 9

# Rows of embeddings compared at once: a block is 4 MiB of float32 scores.
_BLOCK = 1024

# Where either kind has a smaller share of the pairs, the accuracy would hardly
# see its errors.
_RARE = 0.25

_OBJECTIVES = ("accuracy", "balanced", "equal_error")

# What the callbacks after this one learn about its logs.
_DIRECTIONS = {
    "match_accuracy": "up",
    "false_match_rate": "down",
    "false_non_match_rate": "down",
    "equal_error_rate": "down",
}


class _Tuned(NamedTuple):
    """A threshold, and what came of it on the validation data."""

    objective: str | float | None = None
    threshold: float = np.nan
    accuracy: float = np.nan
    false_match_rate: float = np.nan
    false_non_match_rate: float = np.nan
    equal_error_rate: float = np.nan


class TuneThreshold(keras.callbacks.Callback):
    """Tunes the threshold on validation data after each epoch.

    Predicts on the validation data and finds the threshold that is best by the
    `objective`. With FMR the share of non-matches that it calls matches and
    FNMR the share of matches that it misses, the accuracy that is tuned is

        accuracy = 1 - P FNMR - (1 - P) FMR

    | `objective` | P | by |
    | --- | --- | --- |
    | `"accuracy"` | share of matches in the validation data | `MatchAccuracy` |
    | `"balanced"` | 1/2 | `MatchAccuracy(balanced=True)` |
    | a number p | p | `MinDetectionCost(p_target=p)` |
    | `"equal_error"` | any: FNMR = FMR = EER | `EqualErrorRate` |

    With equal errors the accuracy is 1 - EER, on a straight line between two
    thresholds; the threshold is the one at which the two rates are nearest.

    The logs of the epoch get

    | key | what |
    | --- | --- |
    | `val_match_accuracy` | the accuracy that was tuned |
    | `threshold` | the threshold that is best by the objective |
    | `val_false_match_rate`, `val_false_non_match_rate` | FMR, FNMR there |
    | `val_equal_error_rate` | EER, at a threshold of its own |

    in place of what a metric of the same name may have written. `History` and
    the progress bar see them; so do callbacks that come after this one in the
    list (put it before `EarlyStopping`), which also learn that more of the
    accuracy is better, and less of the rates (`mode="auto"`). All are
    optimistic for the validation data, since the threshold was chosen on them:
    report figures on test data at the frozen threshold.

    A threshold belongs to the weights it was tuned for. So, at the end of
    training, the weights of the epoch with the best accuracy by the objective
    come back, and `threshold` is theirs. With `restore_best_weights=False` the
    last weights stay, and `threshold` is that of the last epoch. On PyTorch,
    predicting draws from the global random state, so that later epochs are
    shuffled in another order than without this callback. `EarlyStopping` with
    weights of its own to restore should go by `monitor="val_match_accuracy"`,
    or it puts back other weights than the threshold's.

    Args:
        validation_data: `(x, y)` or `(x, y, sample_weight)`, arrays. Without
            `distance`, `y` holds match flags 1/0 and the model gives one score
            for each; with it, `y` holds class ids `[n]` or `[n, 1]` and the
            model gives embeddings `[n, d]`, or `[n, views, d]`, where each view
            is a row of its own with the id and weight of its example.
            `model.predict` drops masks: leave entries out by a weight of 0.
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
        objective: What the threshold is to be best for. `"accuracy"`: every
            pair has the same say. `"balanced"`: matches and non-matches have.
            `"equal_error"`: false matches are as frequent as misses. A number
            p in (0, 1): the probability of a match where the threshold will be
            used, not its share in the data. Costs of errors fold into it: with
            c_miss and c_false_alarm, as in `MinDetectionCost`, give

                c_miss p / (c_miss p + c_false_alarm (1 - p))

            `None` is `"balanced"` where less than a quarter of the pairs of the
            validation data, by weight, are matches, or less than a quarter are
            not, else `"accuracy"`. Where 1 pair in 20 is a match, 95 % of the
            answers are right if all are "no": the accuracy rewards a threshold
            that finds nothing.
        embedding: A model whose output is compared, made of layers of the one
            that is trained. `None` is that one itself. Behind a `CosineHead`,
            which predicts cosines with the classes:
            `keras.Model(model.inputs, model.layers[-2].output)`.
        batch_size: Batch size of the predictions.
        restore_best_weights: Whether the weights of the best epoch come back
            at the end of training.
        verbose: 1 prints a line after each epoch.

    Attributes:
        threshold: The threshold that belongs to the weights the model has now.
        false_match_rate, false_non_match_rate: Its error rates on the
            validation data. NaN, as it is, where there is no match, no
            non-match or a NaN score.
        best_threshold, best_accuracy, best_epoch: Those of the best epoch, the
            first of equally good ones, counted from 0. NaN, NaN and None until
            an epoch had an accuracy that is not NaN.

    Raises:
        ValueError: If `similarity` is not said, another argument is wrong, or
            the model's output does not fit `y`.

    Warns:
        UserWarning: If the threshold at the end of training calls every pair
            different, or every pair a match.

    Example:

    >>> import keras, numpy as np
    >>> from keras_xent.callbacks import TuneThreshold
    >>> x = np.array([[0.1], [0.2], [0.8], [0.9]])
    >>> match = np.array([1, 1, 0, 0])
    >>> model = keras.Sequential([keras.layers.Input((1,)),
    ...                           keras.layers.Dense(1, "softplus",
    ...                               kernel_initializer="ones")])
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
        objective: str | float | None = None,
        embedding: keras.Model | None = None,
        batch_size: int = 32,
        restore_best_weights: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        check_embedding(embedding)
        self.embedding = embedding
        self._x, self._y, self._weight = unpacked(validation_data)
        self._pairwise = None
        if distance is None:
            check_flags(self._y, self._weight)
        else:
            self._pairwise = rectangular(distance)
            self._y = ops.convert_to_numpy(class_ids(self._y))
            weight = self._weight
            if weight is not None and weight.size != len(self._y):
                raise ValueError(
                    "With a `distance`, `validation_data` needs one "
                    f"sample_weight for each y. Received: shape {weight.shape} "
                    f"for {len(self._y)} ids."
                )
        self._bins = {
            "similarity": is_similarity(similarity, distance),
            "resolution": _RESOLUTION,
        }
        # It is fed; the metric of the objective shares what it has counted.
        self._metric = EqualErrorRate(**self._bins)
        self._notice = None
        self.distance = distance
        self.objective = _checked(objective)
        check_numbers(batch_size, verbose)
        self.batch_size = int(batch_size)
        self.restore_best_weights = checks.flag(
            "restore_best_weights", restore_best_weights
        )
        self.verbose = verbose
        self._forget()

    def _forget(self):
        self._best, self.best_epoch, self._best_weights = _Tuned(), None, None
        self._now = self._best

    @property
    def threshold(self) -> float:
        return self._now.threshold

    @property
    def false_match_rate(self) -> float:
        return self._now.false_match_rate

    @property
    def false_non_match_rate(self) -> float:
        return self._now.false_non_match_rate

    @property
    def best_threshold(self) -> float:
        return self._best.threshold

    @property
    def best_accuracy(self) -> float:
        return self._best.accuracy

    def on_train_begin(self, logs=None):
        self._forget()
        # Of a training that was broken off.
        _keras.unannounce(self.model, self._notice)
        self._notice = _keras.announce(self.model, _DIRECTIONS)

    def on_epoch_end(self, epoch, logs=None):
        self._count()
        now = self._now = self._tuned()
        if logs is not None:
            logs["val_match_accuracy"] = now.accuracy
            logs["threshold"] = now.threshold
            logs["val_false_match_rate"] = now.false_match_rate
            logs["val_false_non_match_rate"] = now.false_non_match_rate
            logs["val_equal_error_rate"] = now.equal_error_rate
        if self.best_epoch is None or now.accuracy > self.best_accuracy:
            self._keep(epoch)
        if self.verbose:
            print(
                f"Epoch {epoch + 1}: match accuracy {now.accuracy:.4f} "
                f"({_said(now.objective)}) at threshold {now.threshold:.6g}, "
                f"false match rate {now.false_match_rate:.4f}, "
                f"false non-match rate {now.false_non_match_rate:.4f}"
            )

    def _keep(self, epoch):
        if np.isnan(self._now.accuracy):
            return
        self.best_epoch, self._best = epoch, self._now
        if self.restore_best_weights:
            self._best_weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        _keras.unannounce(self.model, self._notice)
        if self._best_weights is not None:
            self.model.set_weights(self._best_weights)
            self._now, self._best_weights = self._best, None
        rates = self.false_non_match_rate, self.false_match_rate
        if rates in _ONE_ANSWER:
            warn(_one_answer(*_ONE_ANSWER[rates], self._now.objective))

    def _count(self):
        """Counts the scores that the weights give as they are."""
        predicted = predictions(
            self,
            self._x,
            "scores, or embeddings with a `distance`",
            self.embedding,
        )
        self._metric.reset_state()
        if self._pairwise is None:
            self._metric.update_state(self._y, predicted, self._weight)
        else:
            self._count_pairs(predicted)

    def _tuned(self):
        """The best threshold for what was counted."""
        objective = self.objective
        if objective is None:
            objective = _fitting(self._metric.histogram)
        metric = _metric_of(objective, self._bins)
        metric.histogram.merge_state([self._metric.histogram])
        threshold, figure = metric.threshold, _number(metric.result())
        if np.isnan(threshold):
            return _Tuned(objective)
        curve = self._metric.curve()
        # Of edges with the same rates it has the highest.
        at = np.searchsorted(curve.threshold, threshold)
        false_match = float(curve.false_match[at])
        missed = float(curve.false_non_match[at])
        if objective == "equal_error":
            accuracy = 1.0 - figure
        elif isinstance(objective, str):
            accuracy = figure
        else:
            wrong = objective * missed + (1.0 - objective) * false_match
            accuracy = 1.0 - wrong
        return _Tuned(
            objective=objective,
            threshold=threshold,
            accuracy=accuracy,
            false_match_rate=false_match,
            false_non_match_rate=missed,
            equal_error_rate=_number(self._metric.result()),
        )

    def _count_pairs(self, rows):
        """Feeds all pairs of rows to the metric, block by block."""
        ids = self._y
        if rows.ndim not in (2, 3) or len(rows) != len(ids):
            raise ValueError(
                "With a `distance`, expected embeddings [n, d] or [n, views, "
                f"d] for class ids [n]. Received: shape {rows.shape} for "
                f"{len(ids)} ids."
            )
        weight = np.ones(len(ids), "float32")
        if self._weight is not None:
            weight = np.asarray(self._weight, "float32").reshape(len(ids))
        rows, ids, weight = flat_views(rows, ids, weight)
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


def _checked(objective):
    """The objective: None, a name, or a number as a float."""
    if objective is None:
        return None
    if isinstance(objective, str) and objective in _OBJECTIVES:
        return objective
    number = isinstance(objective, (float, np.floating))
    if not number or not 0.0 < objective < 1.0:
        raise ValueError(
            "`objective` must be 'accuracy', 'balanced', 'equal_error', None "
            "for the one that fits the validation data, or the probability of "
            "a match where the threshold will be used, more than 0 and less "
            f"than 1. Received: objective={objective!r}"
        )
    return float(objective)


def _fitting(histogram):
    """The objective for data with so many matches and others."""
    counts = histogram.counts().sum(axis=1)
    rare = counts.min() < _RARE * counts.sum()
    return "balanced" if rare else "accuracy"


def _metric_of(objective, bins):
    """The metric whose threshold is the best for an objective."""
    if objective == "equal_error":
        return EqualErrorRate(**bins)
    if isinstance(objective, str):
        return MatchAccuracy(balanced=objective == "balanced", **bins)
    return MinDetectionCost(p_target=objective, **bins)


def _number(tensor):
    return float(ops.convert_to_numpy(tensor))


def _said(objective):
    """An objective in a line of print."""
    return objective if isinstance(objective, str) else f"prior {objective:g}"


# What a threshold means that gives one answer to all, by its rates of false
# non-matches and of false matches.
_ONE_ANSWER = {
    (1.0, 0.0): ("different", "all matches are missed"),
    (0.0, 1.0): ("a match", "every other pair is a false match"),
}


def _one_answer(answer, meaning, objective):
    cure = (
        "Run keras_xent.diagnose for what keeps the model from telling them "
        "apart, and check which scores mean alike (`similarity`)."
    )
    if objective not in ("balanced", "equal_error"):
        cure = (
            "objective='balanced' gives matches and others equal say, however "
            f"many there are. {cure}"
        )
    return (
        f"The tuned threshold calls every pair {answer}: {meaning}. For "
        f"objective={objective!r}, the scores of the validation data tell "
        "matches from others no better than always giving this answer does. "
        f"{cure}"
    )
