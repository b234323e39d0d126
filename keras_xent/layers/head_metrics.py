"""What a head measures in the pass that its loss makes anyway."""

import re

import keras
from keras import ops

from keras_xent import _keras

TOP = re.compile(r"top_([1-9]\d*)_accuracy")


class HeadMetric(keras.metrics.Mean):
    """The mean of what the `ops.reductions.Terms` of a pass say of each row.

    Attributes:
        direction: Whether "up" or "down" is better.
        needs_all_terms: Whether a pass has to give `entropy` and `above`.
    """

    direction = "down"
    needs_all_terms = False

    def __init__(self, name):
        super().__init__(name=name, dtype="float32")
        _keras.set_direction(self, self.direction)

    def of_rows(self, terms):
        raise NotImplementedError

    def update(self, terms, weight):
        """Adds the rows of a pass. What has no loss, has no other value."""
        value = ops.cast(self.of_rows(terms), terms.nll.dtype)
        value = ops.where(ops.isnan(terms.nll), terms.nll, value)
        self.update_state(ops.stop_gradient(value), weight)


class Accuracy(HeadMetric):
    direction = "up"

    def of_rows(self, terms):
        return terms.gap <= 0


class TopAccuracy(HeadMetric):
    direction = "up"
    needs_all_terms = True

    def __init__(self, name):
        super().__init__(name)
        self.k = int(TOP.fullmatch(name)[1])

    def of_rows(self, terms):
        return terms.above < self.k


class Perplexity(HeadMetric):
    def of_rows(self, terms):
        return terms.nll

    def result(self):
        return ops.exp(super().result())


class Entropy(HeadMetric):
    needs_all_terms = True

    def of_rows(self, terms):
        return terms.entropy


class ZLoss(HeadMetric):
    def of_rows(self, terms):
        return ops.square(terms.log_sum)


KINDS = {
    "accuracy": Accuracy,
    "perplexity": Perplexity,
    "entropy": Entropy,
    "z_loss": ZLoss,
}


def head_metrics(names, units):
    """The metrics of these names, for a head of so many classes."""
    given = names
    if isinstance(names, str):
        names = [names]
    elif names is None:
        names = []
    elif not isinstance(names, list | tuple):
        names = [None]
    tops = [TOP.fullmatch(x) if isinstance(x, str) else None for x in names]
    good = [
        int(top[1]) < units if top else name in KINDS
        for name, top in zip(names, tops, strict=True)
    ]
    if len(set(names)) < len(names) or not all(good):
        raise ValueError(
            f"`metrics` is a list of {', '.join(map(repr, KINDS))} and "
            "'top_k_accuracy' with a number for the k, from 1 and below the "
            f"number of classes, {units}; each once at most. Received: "
            f"metrics={given!r}"
        )
    return [KINDS.get(name, TopAccuracy)(name) for name in names]
