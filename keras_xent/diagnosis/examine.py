"""`keras_xent.diagnose`: one batch, looked at from all sides."""

import dataclasses

import keras
import numpy as np
from keras import tree

from keras_xent import _keras
from keras_xent._types import TensorLike
from keras_xent.diagnosis import (
    batches,
    chosen,
    codes,
    cost,
    data,
    flow,
    frequencies,
    inputs,
    labels,
    metrics,
    outputs,
    pairs,
    probe,
    scale,
    shapes,
    start,
)
from keras_xent.diagnosis.observe import Observer
from keras_xent.diagnosis.report import ERROR, Report
from keras_xent.losses.kinds import IDENTITIES

# The checks in their order. What is wrong with labels and outputs explains a
# wrong loss, so it is looked at first, and the rest only if it is in order.
_CAUSES = (inputs, labels, shapes, outputs, pairs, scale)
_REST = (frequencies, metrics, start, flow)


def diagnose(
    model: keras.Model,
    x: TensorLike,
    y: TensorLike = None,
    sample_weight: TensorLike = None,
    *,
    batch_size: int | None = None,
) -> Report:
    """Says what is wrong with a model, its loss or its labels.

    Runs one batch forwards and backwards and makes one trial step, all of it
    to the side: weights, state, optimizer and Keras's seeds are afterwards
    what they were. Looks for what goes wrong most often with cross-entropy, at
    two levels of severity: `"error"`, training cannot be right like this, and
    `"warning"`.

    | code | what it means |
    | --- | --- |
    | `input-format` | inputs of a shape or a type that the model cannot take |
    | `ids-out-of-range` | an id that an `Embedding` has no row for |
    | `all-masked` | no row counts |
    | `label-format` | class ids for one-hot rows or the other way round |
    | `shape-broadcast` | (n,) beside (n, 1) becomes (n, n) |
    | `labels-out-of-range` | a label names a class that does not exist |
    | `targets-not-distribution` | targets are no probabilities |
    | `label-precision` | a float type that cannot hold the labels |
    | `single-class` | the softmax of one class, which is always 1 |
    | `probabilities-as-logits` | softmax or sigmoid is applied twice |
    | `logits-as-probabilities` | a softmax or sigmoid is missing |
    | `bounded-logits` | scores cut off before softmax or sigmoid |
    | `unreachable-targets` | numbers that the last activation cannot give |
    | `not-a-distance` | negative, or different from a to b and from b to a |
    | `one-kind-of-pairs` | only matches, or none |
    | `margin-out-of-reach` | a margin far from all distances |
    | `temperature-out-of-reach` | one, or a scale, that cosines cannot use |
    | `collapsed-embeddings` | all embeddings are alike |
    | `pairs-not-separated` | trained, and matches lie no closer |
    | `constant-inputs` | all rows of the inputs are the same |
    | `constant-targets` | all labels are the same |
    | `missing-class` | a class never occurs |
    | `metric-mismatch` | a metric that cannot be right for the output |
    | `initial-loss` | the loss is far above that of knowing nothing |
    | `unscaled-inputs` | so it is, because the inputs are too large |
    | `predicts-prior` | the model gives every row the same answer |
    | `step-too-large` | one step of the optimizer makes the loss rise |
    | `step-too-small` | a learning rate of 0, or one that moves nothing |
    | `nonfinite-gradient` | a loss or a gradient is NaN or infinite |
    | `nothing-trainable` | no weight may change |
    | `dead-gradient` | a layer gets no gradient |
    | `vanishing-gradient` | the first of many layers get hardly any |
    | `saturated` | outputs or losses lie where nothing changes them |
    | `zero-initialized` | units that are equal and stay equal |

    Args:
        model: A compiled and built model: functional, sequential or subclassed,
            with any losses. One with a `train_step` of its own is looked at by
            its `compute_loss`, and makes no trial step.
        x: Inputs, an array or a structure of arrays of shape `(n, ...)`. Or a
            dataset of batches `(x, y)` or `(x, y, sample_weight)`, as `fit`
            takes it: `tf.data`, a `PyDataset`, a PyTorch `DataLoader` or a
            generator. Up to 32 batches are taken; of a generator so many as
            give `batch_size` rows, which are then gone from it.
        y: Labels, an array or one for each output. None of a dataset.
        sample_weight: Weights as `fit` takes them, or None.
        batch_size: How many rows the model is run on, 1 or more; None for 32,
            or 8 where the model is large (as ResNet50 on 224² pixels is) and
            its loss compares no rows with each other. If there are more, they
            are taken at equal distances, of those that have a weight. All
            labels are looked at in full, so pass all of them: a class that is
            missing from a few rows is no finding.

    Returns:
        A `keras_xent.diagnosis.Report`: it prints as text, holds `findings`
        as data, and has `raise_if_errors()`. Its numbers are in the unit of
        the loss, nats for a cross-entropy.

    Raises:
        ValueError: If the model is not compiled or not built, if there are no
            labels, or if labels and inputs differ in length. What the model or
            the loss raises comes through, unless a finding explains it.

    References:
        [Karpathy, 2019, A recipe for training neural networks](
        https://karpathy.github.io/2019/04/25/recipe/), for the loss at the
        start and the prior.

    Example:

    >>> import keras, numpy as np
    >>> import keras_xent
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 2, 3])
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss)
    >>> report = keras_xent.diagnose(model, x, y)
    >>> [finding.code for finding in report.findings]
    ['labels-out-of-range']
    """
    is_all = True
    _check_model(model, batch_size)
    if batches.is_dataset(x):
        _check_dataset_alone(y, sample_weight)
        (x, y, sample_weight), is_all = batches.take(x, batch_size or cost.ROWS)
    _check_data(y, sample_weight)
    x, y, sample_weight = map(_arrays, (x, y, sample_weight))
    rows = _check_lengths(x, y, sample_weight)
    if batch_size is None:
        batch_size = cost.rows(model, x)
    batch, index = (x, y, sample_weight), None
    if batch_size < rows:
        index = chosen.indices(model, batch, rows, batch_size)
        batch = chosen.take(batch, index)
    return look(model, batch, (x, y, sample_weight), index, is_all)[0]


def look(model, batch, everything=None, index=None, is_all=True):
    """The report on a batch `(x, y, sample_weight)`, and the `Evidence`.

    Args:
        everything: All data, `(x, y, sample_weight)`, of which the batch is a
            part; None if they are not known: what a batch of rare labels may
            show by chance is then no finding.
        index: The rows of the batch in these; None if it is all of them.
        is_all: Whether there are no labels but these.
    """
    is_known = everything is not None
    checks = _Checks(is_all and is_known)
    observer = Observer(
        model,
        batch,
        everything[1:] if is_known else None,
        lambda seen: checks.run(_CAUSES, codes.CAUSES, seen),
    )
    evidence = observer.evidence
    evidence.data, evidence.index = everything, index
    evidence.is_all = checks.is_all
    given = everything if is_known else batch
    checks.add(labels.not_numbers(*given))
    checks.add(inputs.not_numbers(batch[0], model))
    if checks.findings:
        checks.looked_for.update(codes.INPUTS, codes.LABELS)
    else:
        checks.run_all(observer)
    unchecked = checks.unchecked(evidence)
    report = Report(
        checks.findings,
        [code for code in codes.LOOKED_FOR if code not in unchecked],
        unchecked,
        rows=evidence.rows,
        labels=len(data.named(given[1], "y")[0][1]),
        loss=evidence.loss,
    )
    return report, evidence


class _Checks:
    """The findings so far, and the codes that were looked for.

    Args:
        is_all: Whether all labels are known.
    """

    def __init__(self, is_all):
        self.is_all = is_all
        self.findings, self.looked_for, self.too_few = [], set(), ()

    def add(self, findings):
        self.findings.extend(
            found
            for found in findings
            if self.is_all or found.code not in codes.OF_ALL_LABELS
        )

    def run(self, modules, looked_for, evidence):
        """Runs the checks of some modules; whether there is an error."""
        for module in modules:
            self.add(_addressed(module.findings(evidence), evidence))
        self.looked_for.update(looked_for)
        return any(found.severity == ERROR for found in self.findings)

    def run_all(self, observer):
        evidence = observer.evidence
        # Another process may look at other rows, or at none.
        try:
            with probe.unchanged(evidence.model), _keras.alone():
                observer.run()
                if evidence.loss is not None:
                    self.run(_REST, codes.REST, evidence)
                    if not self.findings:
                        self.too_few = flow.too_few(evidence)
        except Exception as error:
            self.add(_explained(evidence, error))
            if not self.findings:
                raise
            if not evidence.outputs:
                self.looked_for.update(codes.INPUTS)
        if not evidence.outputs and not self.findings:
            self.run([inputs], codes.INPUTS, evidence)

    def unchecked(self, evidence):
        """The codes that could not be looked for, each with why."""
        why = {
            code: "the errors above come first"
            for code in codes.LOOKED_FOR
            if code not in self.looked_for
        }
        why |= dict.fromkeys(
            self.too_few, "a layer has too few outputs in this batch"
        )
        if not self.is_all:
            few = codes.OF_ALL_LABELS
            if all(
                each.expects.labels != IDENTITIES for each in evidence.outputs
            ):
                few = (*few, "one-kind-of-pairs")
            why |= dict.fromkeys(few, "one batch is too few labels")
        return why


def _explained(evidence, error):
    """Findings on the shapes that have made the model or a loss raise."""
    if evidence.outputs:
        return list(shapes.of_error(evidence))
    return list(inputs.of_error(evidence, error))


def _addressed(findings, evidence):
    """Findings whose cures name the labels of an output as the user does."""
    for found in findings:
        for output in evidence.outputs:
            if found.where.endswith(output.where):
                code = data.cure_of_labels(
                    found.cure, output.labels_name, *evidence.everything
                )
                found = dataclasses.replace(found, cure=code)
        yield found


def _check_model(model, batch_size):
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"diagnose(model, x, y) takes a keras.Model. Received: {model!r}"
        )
    if not model.compiled:
        raise ValueError(
            "The model is not compiled, so it has no loss to look at. Call "
            "model.compile(optimizer, loss) before diagnose(model, x, y)."
        )
    if not model.built:
        raise ValueError(
            "The model is not built: it has no weights yet. Start it with "
            "keras.Input(shape), or call it once, as in model(x[:1]), before "
            "diagnose(model, x, y)."
        )
    if batch_size is not None and (
        not isinstance(batch_size, (int, np.integer)) or batch_size < 1
    ):
        raise ValueError(
            "`batch_size` must be a whole number of at least 1. Received: "
            f"batch_size={batch_size!r}"
        )


def _check_dataset_alone(y, sample_weight):
    if y is not None or sample_weight is not None:
        raise ValueError(
            "diagnose(model, dataset) takes labels and weights from the "
            "dataset, as fit does. Leave out y and sample_weight."
        )


def _check_data(y, sample_weight):
    if y is None:
        raise ValueError(
            "diagnose(model, x, y) needs the labels y. A dataset has them in "
            "its batches, (x, y) or (x, y, sample_weight): diagnose(model, "
            "dataset)."
        )
    if isinstance(sample_weight, dict) and any(
        isinstance(key, (int, np.integer)) for key in sample_weight
    ):
        raise ValueError(
            "`sample_weight` takes a weight for each row. Received weights of "
            f"classes: {sample_weight!r}. Give each row that of its class: "
            "np.array([class_weight[label] for label in y])."
        )


def _arrays(x):
    """Leaves as arrays; tensors stay tensors, and a list of numbers is one."""
    if isinstance(x, (list, tuple)) and not any(
        hasattr(leaf, "shape") for leaf in tree.flatten(x)
    ):
        return np.asarray(x)
    return tree.map_structure(_array, x)


def _array(leaf):
    is_tensor = hasattr(leaf, "shape") and not hasattr(leaf, "iloc")
    return leaf if leaf is None or is_tensor else np.asarray(leaf)


def _check_lengths(x, y, sample_weight):
    leaves = tree.flatten([x, y])
    if any(hasattr(leaf, "to_tensor") for leaf in leaves):
        raise ValueError(
            "x and y must be arrays whose rows have one length. Received a "
            "ragged tensor: pad it, as in x.to_tensor()."
        )
    if not all(leaf is None or np.ndim(leaf) for leaf in leaves):
        raise ValueError(
            "x and y must be arrays of rows, of shape (n, ...). Received one "
            "number."
        )
    lengths = {
        name: sorted(
            {len(leaf) for leaf in tree.flatten(each) if leaf is not None}
        )
        for name, each in (("x", x), ("y", y), ("sample_weight", sample_weight))
    }
    found = {length for each in lengths.values() for length in each}
    if len(found) != 1 or 0 in found:
        shown = ", ".join(
            f"{name} has {' and '.join(map(str, each))}"
            for name, each in lengths.items()
            if each
        )
        raise ValueError(
            "x, y and sample_weight must have the same number of rows, at "
            f"least 1. Received: {shown}."
        )
    return found.pop()
