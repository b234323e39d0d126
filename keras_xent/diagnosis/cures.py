"""Cures as code that runs: losses, last layers and metrics that fit."""

import inspect

import keras
import numpy as np

from keras_xent.diagnosis import ends
from keras_xent.diagnosis.activations import NORMALIZING, final_activation
from keras_xent.losses.base import RowLoss
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    NUMBERS,
    UNKNOWN,
    YES_NO,
)

# The loss of logits, the loss of probabilities, and what makes the latter.
_LOSSES = {
    CLASS_IDS: ("SparseSoftmax", "SparseCategorical", "softmax"),
    DISTRIBUTION: ("Softmax", "Categorical", "softmax"),
    YES_NO: ("Sigmoid", "Binary", "sigmoid"),
}

# What Keras wraps a function in that was given as a loss, or its name.
_OF_FUNCTIONS = {
    keras.losses.sparse_categorical_crossentropy: (
        keras.losses.SparseCategoricalCrossentropy
    ),
    keras.losses.binary_crossentropy: keras.losses.BinaryCrossentropy,
}

# Sums of float32 probabilities over many classes miss 1 by far less.
SUM_ERROR = 1e-3


def loss_line(output, code):
    """`loss = ...`, among the losses of a model that has several."""
    container = _container(output)
    if container is None:
        return f"loss = {code}"
    is_shared = not isinstance(output.model.loss, (dict, list, tuple))
    if container is dict and not is_shared:
        parts = ["**model.loss", f"{output.name!r}: {code}"]
        return ends.joined("loss = {", parts, "}")
    key = repr(output.name) if container is dict else output.index
    if not is_shared:
        every = "list(model.loss)"
    elif container is dict:
        every = f"dict.fromkeys({list(output.names)}, model.loss)"
    else:
        every = f"[model.loss] * {len(output.names)}"
    return f"loss = {every}\nloss[{key}] = {code}"


def metrics_line(output, *codes):
    """`metrics = [...]`, for its output in a model that has several."""
    container = _container(output)
    if container is None:
        return ends.joined("metrics = [", codes, "]")
    if container is dict:
        return ends.joined(f"metrics = {{{output.name!r}: [", codes, "]}")
    given = output.model.loss
    number = len(given if isinstance(given, (list, tuple)) else output.names)
    before, after = output.index, number - 1 - output.index
    start = f"metrics = [{'[], ' * before}["
    return ends.joined(start, codes, f"]{', []' * after}]")


def _container(output):
    """What holds the losses of several outputs: `dict` or `list`, else None."""
    given = getattr(output.model, "loss", None)
    if isinstance(given, dict):
        return dict
    if isinstance(given, (list, tuple)):
        return list
    if len(output.names) < 2:
        return None
    # One loss for all of them.
    return dict if len(set(output.names)) == len(output.names) else list


def loss_of(labels, output):
    """Code of a loss of such labels that fits the last activation.

    Args:
        labels: The kind: class ids, a distribution, or yes and no.
    """
    _, keras_name, wanted = _LOSSES[labels]
    present = final_activation(output)
    if present not in NORMALIZING:
        return _of_logits(labels, output)
    swap = "" if present == wanted else ends.with_activation(output, wanted)
    return swap + loss_line(output, f"keras.losses.{keras_name}Crossentropy()")


def _of_logits(labels, output):
    return ends.linear(output) + loss_line(
        output, f"keras_xent.losses.{_LOSSES[labels][0]}Crossentropy()"
    )


def from_logits(output):
    """Code of a loss that is finite and has a gradient wherever outputs lie."""
    kind = kind_of_labels(output, output.expects.labels)
    if kind not in _LOSSES:
        return loss_line(output, "'mse'") + "  # numbers"
    if (
        ends.is_comment(ends.linear(output))
        and final_activation(output) in NORMALIZING
    ):
        return loss_of(kind, output) + "  # it clips, no log(0)"
    return _of_logits(kind, output)


def kind_of_labels(output, known):
    """What the labels are: as the loss says, or else by themselves."""
    if known != UNKNOWN:
        return known
    labels = output.counted(output.labels, whole=True)
    if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all():
        return NUMBERS
    scores, units = output.y_pred.shape, output.y_pred.shape[-1]
    whole = bool(np.all(labels == np.floor(labels)))
    if labels.shape[1:] in (scores[1:-1], (*scores[1:-1], 1)) and units > 1:
        inside = labels.min() >= 0 and labels.max() < units
        return CLASS_IDS if whole and inside else NUMBERS
    if labels.min() < 0 or labels.max() > 1:
        return NUMBERS
    sums = labels.sum(axis=-1) if units > 1 else np.zeros(1)
    is_distribution = np.all(np.abs(sums - 1) < SUM_ERROR)
    return DISTRIBUTION if is_distribution else YES_NO


def optimizer_line(optimizer, rate=None):
    """`optimizer = ...`, one of the same kind with another learning rate.

    Args:
        rate: That of the kind if None; not more than that.
    """
    kind = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
    kind = kind if hasattr(keras.optimizers, kind) else "Adam"
    # Not of a new one: in a step on JAX no variable can be made.
    of_kind = inspect.signature(getattr(keras.optimizers, kind)).parameters
    usual = of_kind["learning_rate"].default
    shown = usual if rate is None else min(usual, rate)
    return f"optimizer = keras.optimizers.{kind}({float(f'{shown:.2g}')!r})"


def slower(evidence):
    """Code of a tenth of the learning rate."""
    rate = evidence.learning_rate / 10
    return f"{optimizer_line(evidence.model.optimizer, rate)}  # compile anew"


def changed_loss(output, **changes):
    """Code of the loss of an output, with some arguments changed."""
    loss = output.loss
    return loss_line(output, again(loss, _kind_of(loss), **changes))


def _kind_of(loss):
    return _OF_FUNCTIONS.get(getattr(loss, "fn", None), type(loss))


def leaving_out(output, values):
    """Code of the loss that leaves out labels of these values.

    Keras's sparse loss takes one such value, and the others none: the losses
    of keras_xent, which take several, want logits.
    """
    loss, several = output.loss, sorted({*output.expects.ignored, *values})
    shown = several if len(several) > 1 else several[0]
    kind = _kind_of(loss)
    known = "ignore_class" in inspect.signature(kind).parameters
    if known and (isinstance(loss, RowLoss) or len(several) == 1):
        return loss_line(output, again(loss, kind, ignore_class=shown))
    if known and final_activation(output) == "softmax":
        merged = several[0]
        return (
            f"y = np.where(np.isin(y, {several}), {merged}, y)\n"
            "# for the loss takes one number:\n"
            + loss_line(output, again(loss, kind, ignore_class=merged))
        )
    if output.expects.labels not in _LOSSES:
        return (
            f"sample_weight = (~np.isin(y, {several})).astype('float32')\n"
            "y = np.where(sample_weight, y, 0)"
        )
    ours = _LOSSES[output.expects.labels][0]
    return ends.linear(output) + loss_line(
        output, f"keras_xent.losses.{ours}Crossentropy(ignore_class={shown})"
    )


def again(loss, kind, **changes):
    """Code of a loss or a metric like another, some arguments changed."""
    config = loss.get_config()
    package = "keras_xent" if isinstance(loss, RowLoss) else "keras"
    group = "metrics" if isinstance(loss, keras.Metric) else "losses"
    arguments = {
        name: config[name]
        for name, argument in inspect.signature(kind).parameters.items()
        if name in config
        and name not in ("name", "dtype")
        and config[name] != argument.default
    }
    arguments |= changes
    shown = [f"{key}={value!r}" for key, value in arguments.items()]
    start = f"{package}.{group}.{kind.__name__}("
    return ends.joined(start, shown, ")", ends.ROOM - len("loss = "))


def as_regression(output):
    """Code of a last layer and a loss for numbers of any size."""
    if output.y_pred.shape[1:] not in ((), (1,)):
        change = ends.with_units(output, 1, keep=False)
    else:
        change = ends.linear(output)
    return change + loss_line(output, "'mse'")


def as_classes(output, classes):
    """Code of a last layer and a loss for class ids."""
    return ends.with_units(output, classes, keep=False) + loss_line(
        output, "keras_xent.losses.SparseSoftmaxCrossentropy()"
    )
