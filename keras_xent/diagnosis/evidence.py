"""What a model, its loss and one batch have shown: plain data."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_xent import _keras, heads
from keras_xent.diagnosis.expectation import Expectation
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.losses.kinds import DISTRIBUTION, EMBEDDINGS
from keras_xent.ops import checks
from keras_xent.ops.dtypes import dtype_of

# How many rows, classes or labels a finding names.
NAMED = 5

# Steps after which a model should have learned more than it knew at the start.
STEPS = 100

# Sums in another order differ by less, as a share of the sum.
_ROUNDING = 1e-6


def host(x):
    """A tensor or an array in host memory, low precision as float32."""
    if isinstance(x, np.ndarray) or not hasattr(x, "shape"):
        return np.asarray(x)
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    if dtype_of(x) in ("bfloat16", "float16"):
        x = ops.cast(x, "float32")
    return ops.convert_to_numpy(x)


@dataclasses.dataclass
class Seen:
    """What a layer, or an operation of a functional model, has returned.

    Attributes:
        name: Its name.
        activation: The name of its activation, None if it is not known to
            have one.
        sample: Some entries of its output.
        values: All of them, where it has the shape of an output of the model.
        bad_rows: The rows that are NaN or infinite, looked for where the loss
            is.
        nan_rows: Those of them that are NaN.
        masked_rows: The rows in which all entries along the last axis are
            minus infinity, at one place or more: softmax makes NaN of them.
    """

    name: str
    activation: str | None
    sample: np.ndarray
    values: np.ndarray | None = None
    bad_rows: tuple = ()
    nan_rows: tuple = ()
    masked_rows: tuple = ()


@dataclasses.dataclass
class Output:
    """One loss of a model with its output and its labels, in host memory.

    Attributes:
        name: The name of the output.
        loss, expects: The loss object, and what it expects.
        y_true: The labels of the rows that the model has seen.
        labels: All labels that were given.
        label_dtype: The dtype in which they were given.
        y_pred: What the model returned, in training.
        weight: The sample weights of the rows, or None.
        mask: The Keras mask of the rows, or None.
        all_weights: The weights of all labels, or None.
        head: The `LinearHead` or `CosineHead` behind the output, or None.
        similarity: The note of a `SimilarityHead`, NumPy, or None.
        last: The layer that returned it, or None.
        before: Other layers whose outputs have its shape.
        index: Its place among all outputs of the model.
        inputs: How many inputs the model has.
        model: The model, for cures that change it.
        labels_name: How the user writes its labels: `y`, or a part of that.
        names: Those of all outputs that have a loss; not always different.
    """

    name: str
    loss: object
    expects: Expectation
    y_true: np.ndarray
    labels: np.ndarray
    label_dtype: str
    y_pred: np.ndarray
    weight: np.ndarray | None = None
    mask: np.ndarray | None = None
    all_weights: np.ndarray | None = None
    head: object = None
    similarity: object = None
    last: Seen | None = None
    before: tuple = ()
    index: int = 0
    inputs: int = 1
    model: object = None
    labels_name: str = "y"
    names: tuple = ()

    @property
    def where(self):
        place = f"output {self.name!r}"
        if self.names.count(self.name) > 1:
            place += f" with the labels {self.labels_name}"
        return place

    def error(self, code, summary, evidence, cause, cure):
        """A `Finding` of severity "error" at this output."""
        return Finding(code, ERROR, self.where, summary, evidence, cause, cure)

    def warning(self, code, summary, evidence, cause, cure):
        return Finding(
            code, WARNING, self.where, summary, evidence, cause, cure
        )

    @property
    def views(self):
        """How many embeddings a row has."""
        several = self.expects.outputs == EMBEDDINGS and self.y_pred.ndim == 3
        return self.y_pred.shape[1] if several else 1

    @property
    def classes(self):
        """How many entries there are along the axis of the classes."""
        if self.head is not None:
            return self.head.units
        return self.y_pred.shape[self.expects.axis] if self.y_pred.ndim else 1

    def counted(self, array, whole=False):
        """The rows of an array that have a weight and no mask.

        Args:
            array: One entry or several for each row.
            whole: Whether it is about all labels, not the rows of the batch.
        """
        weight = self.all_weights if whole else self.weight
        keep = np.ones(len(array), bool)
        for each in (weight, None if whole else self.mask):
            if each is not None and len(each) == len(array):
                each = np.asarray(each) != 0
                if each.shape == array.shape[: each.ndim]:
                    keep = keep & each if keep.ndim == each.ndim else each
        return array[keep]

    def known(self, labels):
        """Which labels are none of those that the loss leaves out."""
        keep = np.ones(labels.shape, bool)
        for value in self.expects.ignored:
            keep &= checks.differs(labels, value)
        return keep

    @property
    def label_rows(self):
        """All labels that count, `(rows, classes)` or `(rows, columns)`."""
        # Class ids have no axis of the classes.
        one_hot = self.expects.labels == DISTRIBUTION
        axis = self.expects.axis if one_hot else -1
        return self._rows(self.labels, axis, whole=True)

    @property
    def score_rows(self):
        """The outputs that count, `(rows, classes)`."""
        return self._rows(self.y_pred, self.expects.axis)

    def _rows(self, array, axis, whole=False):
        if array.ndim > 1:
            array = np.moveaxis(array, axis, -1)
        array = self.counted(array, whole)
        return array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)

    def as_returned(self, y_pred):
        """Predictions as a tensor that has what is tied to the output."""
        y_pred = ops.convert_to_tensor(y_pred)
        if self.similarity is not None:
            head, *numbers = self.similarity
            note = heads.SimilarityNote(
                head,
                *(
                    x if x is None else ops.convert_to_tensor(x)
                    for x in numbers
                ),
            )
            heads.leave_note(y_pred, note)
        if self.mask is not None:
            _keras.set_mask(y_pred, ops.convert_to_tensor(self.mask))
        return y_pred

    def compute(self, y_pred, y_true=None, reduction="none"):
        """The loss of other predictions or labels, as NumPy."""
        loss = _shallow_copy(self.loss)
        loss.reduction = reduction
        y_true = self.y_true if y_true is None else y_true
        y_true, y_pred = ops.convert_to_tensor(y_true), self.as_returned(y_pred)
        return host(loss(y_true, y_pred, self.weight))


@dataclasses.dataclass
class Evidence:
    """What was seen.

    Attributes:
        model: The model.
        x, y, sample_weight: The batch.
        is_all: Whether all labels are known, or those of this batch.
        data: `(x, y, sample_weight)` of which the batch is a part, or None.
        index: The rows of the batch in it, or None if it is all of it.
        ids: Pairs of an `Embedding` and its ids.
        outputs: An `Output` for each loss.
        metrics: Pairs of an `Output` and a metric of it.
        layers: A `Seen` for each call of a layer, in the order of the calls.
        loss: The loss in training; None if it was not reached.
        bad_weights: The paths of the weights that are NaN or infinite.
        learning_rate: That of the optimizer.
        steps: How many steps the optimizer has made.
        gradients: Variables with their gradients, NumPy, or None for one on
            which the loss does not depend.
        later_gradients: The same after a small step against them, looked at
            where one of the first is zero.
        loss_after: The loss after that step; None where it is not known.
        later_rate: The highest learning rate of the steps to come; None where
            it is not known.
        moved: The largest change of a weight in a step, as a share of the size
            of all weights; None where there was no step.
        loss_without: The loss with other weights in all layers that have no
            gradient; None where there is no such layer.
    """

    model: object
    x: object
    y: object
    sample_weight: object
    is_all: bool = True
    data: tuple | None = None
    index: np.ndarray | None = None
    ids: list = dataclasses.field(default_factory=list)
    outputs: list = dataclasses.field(default_factory=list)
    metrics: list = dataclasses.field(default_factory=list)
    layers: list = dataclasses.field(default_factory=list)
    loss: float | None = None
    bad_weights: list = dataclasses.field(default_factory=list)
    learning_rate: float = 0.0
    steps: int = 0
    gradients: list = dataclasses.field(default_factory=list)
    later_gradients: list = dataclasses.field(default_factory=list)
    loss_after: float | None = None
    later_rate: float | None = None
    moved: float | None = None
    loss_without: float | None = None

    @property
    def everything(self):
        """All that is known: the data, or the batch."""
        return self.data or (self.x, self.y, self.sample_weight)

    def of_data(self, rows):
        """Rows of the batch as they are numbered in the data."""
        if self.index is None:
            return list(rows)
        return self.index[list(rows)].tolist()

    @property
    def rows(self):
        return len(keras.tree.flatten(self.x)[0])

    @property
    def has_trained(self):
        """Whether the model should have learned something by now."""
        return self.steps >= STEPS

    @property
    def has_changed(self):
        """Whether the loss is another with other weights in dead layers."""
        if self.loss_without is None or self.loss is None:
            return False
        return bool(
            abs(self.loss_without - self.loss) > _ROUNDING * abs(self.loss)
        )

    @property
    def has_own_step(self):
        """Whether the model trains in another way than Keras's."""
        return type(self.model).train_step is not keras.Model.train_step


def by_layer(gradients):
    """Gradients in groups by the path of their layer, in order."""
    groups = {}
    for variable, gradient in gradients:
        layer = variable.path.rpartition("/")[0] or variable.path
        groups.setdefault(layer, []).append((variable, gradient))
    return groups


def bad_rows(array):
    """The rows of an array that are NaN or infinite, a list of indices."""
    if array.dtype.kind != "f" or not array.ndim:
        return []
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    return np.flatnonzero(~finite).tolist()


def is_finite(gradients):
    """Whether no gradient of a group is NaN or infinite."""
    return all(g is None or np.isfinite(g).all() for _, g in gradients)


def is_zero(gradients):
    """Whether all gradients of a group are zero or missing."""
    return all(g is None or not np.any(g) for _, g in gradients)


def _shallow_copy(loss):
    """A loss with the attributes of another.

    `copy.copy` of a Keras loss writes it to a file in memory and reads it
    again: 5 ms, an import of TensorFlow on every backend, and an error for a
    loss without a configuration.
    """
    copied = object.__new__(type(loss))
    vars(copied).update(vars(loss))
    return copied
