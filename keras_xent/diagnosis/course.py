"""What a fit has shown so far: its losses and its labels, and what they say."""

import dataclasses

import keras
import numpy as np
from keras import tree

from keras_xent.diagnosis import curve
from keras_xent.diagnosis.evidence import NAMED, STEPS, by_layer, host
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.diagnosis.start import (
    blind_loss,
    mean_loss,
    one_answer,
    prior,
)
from keras_xent.layers.cosine_head import CosineHead
from keras_xent.losses.kinds import (
    CLASS_IDS,
    FEATURES,
    LOGITS,
    PROBABILITIES,
    YES_NO,
)

# Rows whose labels are kept, and numbers that one answer for all of them has.
_ROWS, _NUMBERS = 4096, 2**20

# How much of the frequencies is mixed with equal probabilities: of a loss with
# label smoothing, or of a focal one, the best answer lies between the two.
_MIXED = (0.0, 0.1, 0.3, 1.0)

# The batch that is looked at may be so much better than one answer for all.
_OF_A_BATCH = 0.05

# A step that lowers the loss by a smaller share gets nowhere in a thousand.
_SMALL_STEP = 1e-4

# The next look at a loss that stays is after so many times the steps.
_RARER = 1.5

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class _Labels:
    """The labels of an output: how frequent each is, and a sample of them."""

    def __init__(self, output, place, places):
        # Without what holds on to the activations of the first batch.
        self._output = dataclasses.replace(output, last=None, before=())
        self._place, self._places = place, places
        size = max(1, output.y_pred[:1].size)
        self._limit = int(np.clip(_NUMBERS // size, 1, _ROWS))
        self._share, self._rows, self._every = 0.0, 0, 1
        self._kept, self._weights = [], []

    def add(self, batch):
        _, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        labels, weight = self._at(y), self._at(weight)
        share = prior(
            dataclasses.replace(
                self._output, labels=labels, all_weights=None, y_true=labels
            )
        )
        rows, before = len(labels), self._rows
        self._share = (self._share * before + share * rows) / (before + rows)
        self._rows += rows
        keep = slice(-before % self._every, None, self._every)
        self._kept.extend(labels[keep])
        if weight is not None:
            self._weights.extend(weight[keep])
        while len(self._kept) > self._limit:
            self._kept, self._weights = self._kept[::2], self._weights[::2]
            self._every *= 2

    def _at(self, structure):
        leaves = [
            leaf
            for leaf in tree.flatten(structure)
            if leaf is not None and hasattr(leaf, "shape")
        ]
        if not leaves:
            return None
        shared = len(leaves) != self._places
        return host(leaves[0 if shared else self._place])

    def loss_of_one_answer(self, output=None):
        """The lowest loss of one answer for all rows, and of equal chances.

        Args:
            output: The rows to take it of, those that were kept if None.
        """
        if self._output.head is not None:
            share = self._share[self._share > 0]
            blind = blind_loss(self._output)
            return min(blind, float(-np.sum(share * np.log(share)))), blind
        reduction = "mean_with_sample_weight"
        if output is None:
            output, reduction = self._all(), self._output.loss.reduction
        share = self._share
        equal = 0.5 if output.expects.labels == YES_NO else 1 / len(share)
        losses = [
            float(
                output.compute(
                    one_answer(output, (1 - part) * share + part * equal),
                    reduction=reduction,
                )
            )
            for part in _MIXED
        ]
        return min(losses), losses[-1]

    def _all(self):
        labels = np.stack(self._kept)
        output = self._output
        shape = (len(labels), *output.y_pred.shape[1:])
        return dataclasses.replace(
            output,
            y_true=labels,
            y_pred=np.zeros(shape, "float32"),
            weight=np.stack(self._weights) if self._weights else None,
        )


class _Of:
    """The course of one output.

    Attributes:
        key: By which name Keras logs its loss.
        where: The output, as findings name it.
        labels: A `_Labels`; None if it has no loss of one answer for all rows.
    """

    def __init__(self, output, key, labels):
        self.name, self.key, self.labels = output.name, key, labels
        self.where = output.where
        self.steps = curve.Steps()
        self.losses, self.validation = [], []
        self._mean = self._rows = 0.0

    def add(self, mean, rows):
        """The loss of a step, by the mean over the rows of the epoch so far."""
        mean = float(host(mean))
        before, self._rows = self._rows, self._rows + rows
        self.steps.add((mean * self._rows - self._mean * before) / rows)
        self._mean = mean

    def end_epoch(self, logs):
        self._mean = self._rows = 0.0
        if f"val_{self.key}" in logs and self.key in logs:
            self.losses.append(float(host(logs[self.key])))
            self.validation.append(float(host(logs[f"val_{self.key}"])))


class Course:
    """The losses of a fit, step by step and epoch by epoch.

    Args:
        evidence: That of its first batch.
    """

    def __init__(self, evidence):
        several = len(evidence.outputs) > 1
        leaves = [
            host(leaf)
            for leaf in tree.flatten(evidence.y)
            if hasattr(leaf, "shape")
        ]
        taken = []
        self._outputs = []
        for output in evidence.outputs:
            key = f"{output.name}_loss" if several else "loss"
            place = _place(output, leaves, taken)
            labels = None
            if place is not None and _has_one_answer(output):
                taken.append(place)
                labels = _Labels(output, place, len(leaves))
            self._outputs.append(_Of(output, key, labels))
        self._steps, self._next, self._epochs = 0, STEPS, 0

    def add(self, logs, batches):
        rows = sum(len(tree.flatten(batch)[0]) for batch in batches)
        self._steps += len(batches)
        for each in self._outputs:
            if each.key in logs:
                each.add(logs[each.key], rows)
            # The first epoch has shown all labels.
            if each.labels is not None and not self._epochs:
                for batch in batches:
                    each.labels.add(batch)

    def end_epoch(self, logs):
        """Pairs of an output and what its curve says, if it says anything."""
        self._epochs += 1
        for each in self._outputs:
            each.end_epoch(logs)
        if self._steps < STEPS:
            return []
        due = self._steps >= self._next
        if due:  # After 100 steps or the first epoch, then ever more rarely.
            self._next = _RARER * self._steps
        read = [(each, _read(each, due)) for each in self._outputs]
        return [pair for pair in read if pair[1] is not None]


def _place(output, leaves, taken):
    """Which of the arrays of labels is that of an output, or None."""
    for place, leaf in enumerate(leaves):
        if place not in taken and np.array_equal(leaf, output.labels):
            return place
    return None


def _has_one_answer(output):
    """Whether it is a cross-entropy of which the frequencies are an answer."""
    kind, loss = output.expects, output.loss
    if not (kind.is_softmax or kind.labels == YES_NO):
        return False
    if output.mask is not None or isinstance(output.head, CosineHead):
        return False  # Other batches have other masks; margins are by design.
    if output.head is not None:
        plain = kind.labels == CLASS_IDS and output.weight is None
        return plain and kind.outputs == FEATURES and bool(blind_loss(output))
    is_mean = getattr(loss, "reduction", None) in _MEANS
    return is_mean and kind.outputs in (LOGITS, PROBABILITIES)


def _read(each, due):
    """What the curve of an output says now, a `curve.Reading` or None."""
    steps, validation = each.steps.means, each.validation
    of_one, blind = None, 0.0
    if each.labels is not None and (due or validation):
        of_one, blind = each.labels.loss_of_one_answer()
    if due and of_one is not None:
        now = validation[-1] if validation else None
        reading = curve.stuck(steps, of_one, blind, now)
        if reading is not None:
            return reading
    scale = abs(each.losses[0]) if each.losses else 0.0
    return curve.overfits(each.losses, validation, max(scale, of_one or 0.0))


def confirms(each, evidence):
    """Whether a batch shows it too: the loss may hold more than this output.

    That of regularizers is no sign of anything.
    """
    for output in evidence.outputs:
        if output.name != each.name:
            continue
        if output.head is not None:
            of_one, _ = each.labels.loss_of_one_answer()
            loss = evidence.loss if len(evidence.outputs) == 1 else of_one
        else:
            of_one, _ = each.labels.loss_of_one_answer(output)
            loss = mean_loss(output, output.y_pred)
        return loss is not None and loss >= (1 - _OF_A_BATCH) * of_one
    return False


def finding(each, reading, evidence=None, others=()):
    """A `Finding` of what a curve says.

    Args:
        each: The output.
        reading: The `curve.Reading`.
        evidence: Of a batch, where one was looked at.
        others: What else was found in that batch, which explains it.
    """
    if reading.code == curve.OVERFITTING:
        cause, cure = _learned_by_heart(each)
    elif others:
        first = others[0]
        cause = f"[{first.code}] at {first.where}: {first.cause}"
        cure = first.cure
    else:
        cause, cure = _why_stuck(reading, evidence)
    return Finding(
        reading.code,
        WARNING,
        each.where,
        reading.summary,
        reading.evidence,
        cause,
        cure,
    )


def _learned_by_heart(each):
    return (
        "The model learns these rows by heart: it is large for so few, or "
        "trains for too long.",
        "stop = keras.callbacks.EarlyStopping(\n"
        f"    'val_{each.key}', mode='min', patience=3,\n"
        "    restore_best_weights=True)  # fit(..., callbacks=[stop])\n"
        "# more data, or a smaller model; else, between its layers:\n"
        "keras.layers.Dropout(0.5)",
    )


def _why_stuck(reading, evidence):
    optimizer = evidence.model.optimizer
    name = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
    rate, numbers = evidence.learning_rate, reading.evidence
    before, after = evidence.loss, evidence.loss_after
    new = (
        "model = keras.models.clone_model(model)  # new weights\n"
        "model.compile(keras.optimizers.{}, loss)"
    )
    if after is not None and abs(after - before) < _SMALL_STEP * abs(before):
        return (
            "The steps are too small: one changes the loss by less than a ten "
            "thousandth. Or no gradient arrives at the weights.",
            new.format("Adam(0.001)"),
        )
    lowest = numbers["loss of the frequencies"]
    if numbers["loss"] > lowest * (1 + curve.SAME):
        return (
            "The learning rate is too large: the steps jump over what there "
            "is to be learned, or have thrown the weights where they are.",
            new.format(f"{name}({rate / 100:.1g})"),
        )
    return (
        "Labels do not belong to their rows (shuffled apart), the inputs do "
        "not hold what makes the classes or are not scaled, or the learning "
        "rate is far too small or too large.",
        "# Can the model learn a few rows by heart? Then model and loss are\n"
        "# in order, and the data are not.\n"
        "few, labels = keras.tree.map_structure(lambda a: a[:32], (x, y))\n"
        "model.fit(few, labels, epochs=200, verbose=0)\n"
        "print(keras_xent.diagnose(model, few, labels))",
    )


def diverged(model, evidence, loss, usual):
    """The finding of a loss that is many times what it was."""
    norms = {
        layer: float(
            np.sqrt(
                sum(np.sum(np.square(g)) for _, g in group if g is not None)
            )
        )
        for layer, group in by_layer(evidence.gradients).items()
    }
    numbers = {"loss": loss, "largest loss of the first steps": usual}
    where = "the whole model"
    if norms:
        layer = max(norms, key=norms.get)
        where = f"layer {layer!r}"
        numbers["norm of its gradient, the largest"] = norms[layer]
    for output in evidence.outputs:
        rows = output.compute(output.y_pred) if output.head is None else None
        if rows is not None and rows.ndim:
            rows = rows.reshape(len(rows), -1).sum(axis=1)
            numbers["rows of the largest loss"] = np.argsort(-rows)[
                :NAMED
            ].tolist()
    rate = numbers["learning rate"] = evidence.learning_rate
    return Finding(
        "step-too-large",
        ERROR,
        where,
        "The training diverges: the loss is many times what it was at the "
        "start.",
        numbers,
        "The learning rate is too large, or these rows are unlike all others.",
        f"keras.optimizers.{type(model.optimizer).__name__}({rate / 10:.1g}, "
        "clipnorm=1.0)",
    )
