"""Checks whether outputs are what the loss expects: logits, probabilities."""

import numpy as np
from keras import ops

from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.diagnosis.report import LOGITS as LOGITS_IN_WORDS
from keras_xent.losses.kinds import (
    DISTRIBUTION,
    EMBEDDINGS,
    LOGITS,
    PROBABILITIES,
    YES_NO,
)

CODES = ("single-class", "probabilities-as-logits", "logits-as-probabilities")

# Sums of bfloat16 probabilities (8 bits) stay within this of 1.
_SUM_ERROR = 0.02

# What makes probabilities of logits.
_NORMALIZING = ("softmax", "sigmoid")

# Rows by chance within the error of 1: one in 25 or so. So many never are.
_ROWS = 4


def findings(evidence):
    for output in evidence.outputs:
        found = next(_wrong(output), None)
        if found:
            yield found


def _wrong(output):
    expects, n = output.expects, output.classes
    activation = final_activation(output)
    if (expects.is_softmax or activation == "softmax") and n == 1:
        yield _single_class(output, activation)
        return
    if not len(_rows(output)):
        return  # Not one row is finite.
    distance = getattr(output.loss, "distance", None)
    softmax_follows = (
        expects.outputs == EMBEDDINGS and distance == "symmetric_kl"
    )
    if expects.outputs == LOGITS or softmax_follows:
        if activation in _NORMALIZING or (
            expects.outputs == LOGITS
            and expects.labels != YES_NO
            and _are_distributions(output)
        ):
            # Of a function without a name the values have told it.
            known = activation in _NORMALIZING
            yield _twice(output, activation if known else "softmax")
    elif expects.outputs == PROBABILITIES:
        inner = _activation_before(output, activation)
        if activation in _NORMALIZING and inner == activation:
            yield _twice(output, activation)
        else:
            yield from _not_probabilities(output, activation)


def final_activation(output):
    """The name of the last activation, by the layer or by the values."""
    # A last layer that only casts to float32 hands on what another has done.
    for seen in output.before:
        if seen.activation in _NORMALIZING and np.array_equal(
            seen.values, output.y_pred
        ):
            return seen.activation
    activation = output.last.activation if output.last is not None else None
    if activation not in (None, "linear"):
        return activation
    # `ops.softmax` in a model's own `call` leaves no layer to look at.
    for name in _NORMALIZING:
        if any(_follows(output, name, seen) for seen in output.before):
            return name
    return activation


def _follows(output, name, seen):
    """Whether the output is the activation of what a layer has returned."""
    if name == "softmax" and output.y_pred.shape[-1:] == (1,):
        return False
    function = getattr(ops, name)
    applied = host(function(ops.convert_to_tensor(seen.values)))
    # float16 activations in float32 outputs, and nothing by chance.
    return np.allclose(applied, output.y_pred, rtol=0.01, atol=1e-3) and (
        not np.allclose(seen.values, output.y_pred, rtol=0.01, atol=1e-3)
    )


def _activation_before(output, activation):
    """The activation of the layer before the last softmax or sigmoid."""
    if activation not in _NORMALIZING:
        return None
    for seen in output.before:
        if seen.activation == activation and _follows(output, activation, seen):
            return activation
    return None


def _are_distributions(output):
    rows = _rows(output)
    return (
        len(rows) >= _ROWS
        and bool(np.all(rows >= 0))
        and bool(np.all(np.abs(rows.sum(axis=-1) - 1) < _SUM_ERROR))
    )


def _rows(output):
    """The outputs that count and are finite, `(rows, classes)`."""
    scores = output.score_rows
    return scores[np.isfinite(scores).all(axis=-1)]


def _numbers(output):
    rows = _rows(output).astype("float64")
    return {
        "smallest output": float(rows.min()),
        "largest output": float(rows.max()),
        "smallest sum of a row": float(rows.sum(axis=-1).min()),
        "largest sum of a row": float(rows.sum(axis=-1).max()),
    }


def _single_class(output, activation):
    return Finding(
        "single-class",
        ERROR,
        output.where,
        "The softmax runs over one class. It is always 1, whatever the "
        "weights: the loss is always 0, or never changes.",
        {"classes": 1, "activation": activation or "none"},
        "A yes/no answer of one unit was given the loss or the activation of "
        "several classes.",
        "# no activation: a logit, a score of any size, before the sigmoid\n"
        "keras.layers.Dense(1)\n"
        "loss = keras_xent.losses.SigmoidCrossentropy()",
    )


def _twice(output, activation):
    expects = output.expects
    one = "sigmoid" if expects.labels == YES_NO else "softmax"
    if expects.outputs == PROBABILITIES:
        where = "The model applies it to what has been through it before"
        cure = "# one activation, in the last layer only:\n"
        cure += f"keras.layers.Dense({output.classes}, activation='{one}')"
    else:
        where = f"The loss expects {LOGITS_IN_WORDS} and applies it again"
        cure = f"keras.layers.Dense({output.classes})  # no activation"
    if one == "softmax":
        n = output.classes
        bound = float(np.log(1 + (n - 1) / np.e))
        effect = (
            f" Probabilities differ by 1 at most, so with {n} classes the loss "
            f"never falls below {bound:.4g}."
        )
    else:
        effect = " No answer can be surer than sigmoid(0) = 0.5 to "
        effect += "sigmoid(1) = 0.73."
    return Finding(
        "probabilities-as-logits",
        ERROR,
        output.where,
        f"{activation.capitalize()} is applied twice. {where}.{effect}",
        {"last activation": activation, **_numbers(output)},
        f"The last layer has activation='{activation}', and the loss "
        "from_logits=True or a loss of keras_xent, which always takes logits."
        if expects.outputs != PROBABILITIES
        else f"A {activation} layer follows one with activation="
        f"'{activation}'.",
        cure,
    )


def _not_probabilities(output, activation):
    rows = _rows(output)
    outside = np.mean((rows < 0) | (rows > 1 + _SUM_ERROR))
    yes_no = output.expects.labels == YES_NO
    one = "sigmoid" if yes_no else "softmax"
    linear = activation == "linear" and not _are_distributions(output)
    if not outside and not linear:
        sums = np.abs(rows.sum(axis=-1) - 1)
        if yes_no or np.all(sums < _SUM_ERROR):
            return
        severity = WARNING
        summary = "The loss expects probabilities that sum to 1 over the "
        summary += "classes, but rows of the output sum to something else. "
        summary += "Keras divides them by their sum without a word."
        cause = "The classes were given a sigmoid each, as if several could "
        cause += "be true."
    else:
        severity = ERROR
        summary = "The loss expects probabilities, but the outputs are "
        summary += f"{LOGITS_IN_WORDS}. Keras clips them to [0, 1], where "
        summary += "they have no gradient."
        cause = f"The last layer has no {one}, and the loss was not told: "
        cause += "from_logits is False by default."
    name = "Binary" if yes_no else "Categorical"
    if output.expects.labels not in (YES_NO, DISTRIBUTION):
        name = "SparseCategorical"
    yield Finding(
        "logits-as-probabilities",
        severity,
        output.where,
        summary,
        {
            "last activation": activation or "none",
            **_numbers(output),
            "share outside [0, 1]": float(outside),
        },
        cause,
        f"loss = keras.losses.{name}Crossentropy(from_logits=True)\n"
        f"# or: keras.layers.Dense({output.classes}, activation='{one}')",
    )
