"""Checks of the size of the loss: at the start, later, and after one step."""

import numpy as np

from keras_xent.diagnosis import cures, data, scale
from keras_xent.diagnosis.evidence import host, is_finite
from keras_xent.diagnosis.expectation import Expectation
from keras_xent.diagnosis.identities import ENOUGH
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.diagnosis.report import LOGITS as LOGITS_IN_WORDS
from keras_xent.layers.cosine_head import CosineHead
from keras_xent.losses import LinearCrossentropy
from keras_xent.losses.contrastive import SigmoidContrastive
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    LOGITS,
    NUMBERS,
    PROBABILITIES,
    YES_NO,
)

# A loss at the start above this multiple of knowing nothing: of ten classes,
# random logits of a standard deviation over 7. A layer on standardized inputs
# gives about 1, EfficientNetV2 4.
_TOO_SURE = 5.0

# The loss within this of the prior's, and answers that tell rows apart by less
# than this share of the entropy of the labels.
_NEAR = 0.02

# A step that moves weights by less than this share of their size needs a
# million like it to matter; float32 has seven digits.
_UNMOVED = 1e-7

# Learning rates in use for anything are larger.
_SMALL_RATE = 1e-6

# The rarest probability that a prior is given, so that its logarithm exists.
_RAREST = 1e-6

# Of the pairs of a batch, as of a column, yes or no: which are matches.
_OF_PAIRS = Expectation(LOGITS, YES_NO)


def findings(evidence):
    found = []
    for output in evidence.outputs:
        if evidence.steps == 0:
            found += _initial_loss(evidence, output)
        elif evidence.has_trained:
            found += _predicts_prior(evidence, output)
    yield from found
    yield from _step_too_small(evidence)
    # Inputs that are too large make steps too large.
    if all(each.code != "unscaled-inputs" for each in found):
        yield from _step_too_large(evidence)


def mean_loss(output, predictions):
    """The mean loss of rows that count; None where the loss fails at them."""
    try:
        # A loss that adds up rows is no mean, whatever it is asked for.
        loss = output.compute(predictions, reduction="mean_with_sample_weight")
    except Exception:
        return None
    return float(loss) if loss.ndim == 0 and np.isfinite(loss) else None


def blind_loss(output):
    """The loss of predictions that know nothing; None if there is none."""
    kind, like = output.expects.outputs, output.y_pred
    if output.head is not None:
        plain = isinstance(output.loss, LinearCrossentropy)
        return float(np.log(output.classes)) if plain else None
    fill = 0.0
    if kind == PROBABILITIES:
        fill = 0.5 if output.expects.labels == YES_NO else 1 / output.classes
    elif kind == NUMBERS:
        fill = float(output.counted(output.y_true).mean())
    return mean_loss(output, np.full(like.shape, fill, "float32"))


def prior(output):
    """The share of each class, or of yes, in all labels; None of others."""
    labels = output.label_rows
    if output.expects.labels == CLASS_IDS:
        ids = labels[~np.isin(labels, output.expects.ignored)].astype(int)
        counts = np.bincount(ids.reshape(-1), minlength=output.classes)
        return counts / max(1, counts.sum())
    if output.expects.labels in (DISTRIBUTION, YES_NO):
        known = output.known(labels)
        labels = np.where(known, labels, 0).astype("float64")
        return labels.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return None


def _prior_loss(output, share):
    """The loss of predicting the prior for every row."""
    return mean_loss(output, one_answer(output, share))


def one_answer(output, share):
    """Outputs by which every row has these probabilities."""
    share = np.clip(share, _RAREST, 1 - _RAREST)
    if output.expects.outputs == LOGITS:
        share = np.log(share) - (
            np.log1p(-share) if output.expects.labels == YES_NO else 0
        )
    shape = output.y_pred.shape
    if len(share) > 1 or len(shape) > 1:
        axis = output.expects.axis % len(shape)
        share = share.reshape(
            [-1 if i == axis else 1 for i in range(len(shape))]
        )
    return np.broadcast_to(share, shape).astype("float32")


def _initial_loss(evidence, output):
    kind = output.expects
    if isinstance(output.loss, SigmoidContrastive):
        yield from _without_bias(output)
    of_classes = kind.is_softmax or kind.labels == YES_NO
    if not (of_classes or kind.outputs == kind.labels == NUMBERS):
        return
    if isinstance(output.head, CosineHead):
        return  # A scale makes it sure, and a margin makes it wrong, by design.
    blind = blind_loss(output)
    if output.head is not None:
        loss = evidence.loss if len(evidence.outputs) == 1 else None
    else:
        loss = mean_loss(output, output.y_pred)
    if not blind or loss is None:
        return
    # A focal loss of equal probabilities is small, because none is far off.
    classes = 2 if kind.labels == YES_NO else output.classes
    least = max(blind, np.log(classes)) if of_classes else abs(blind)
    if loss <= _TOO_SURE * least:
        return
    unscaled = scale.unscaled(evidence)
    numbers = {"loss": loss, "loss of knowing nothing": blind}
    if unscaled:
        yield scale.unscaled_finding(
            unscaled, output.where, numbers, evidence.x
        )
        return
    if not of_classes:
        return  # Numbers far from 0 begin with a large loss, too.
    numbers = {"loss": loss, "loss of equal probabilities": blind}
    if kind.is_softmax:
        numbers["log(classes)"] = float(np.log(output.classes))
    share = prior(output)
    if output.head is None and share is not None:
        numbers["loss of the frequencies"] = _prior_loss(output, share)
    scores = output.y_pred
    numbers["standard deviation of the outputs"] = float(scores.std())
    yield output.warning(
        "initial-loss",
        "The first loss is far above that of equal probabilities for all: the "
        "model is sure of its answers before it has learned any. It will "
        f"spend its first steps on making the {LOGITS_IN_WORDS} smaller.",
        numbers,
        "The first weights are too large, or rows have a few very large "
        "entries.",
        "# smaller first weights, in the last layer at least:\n"
        "for variable in model.trainable_variables[-2:]:\n"
        "    variable.assign(variable * 0.01)",
    )


def _without_bias(output):
    """All pairs of a batch begin as matches by half, and few of them are."""
    bias = output.loss.of_head(output.similarity)["bias"]
    bias, loss = float(host(bias)), mean_loss(output, output.y_pred)
    labels = output.counted(output.y_true).reshape(-1)
    n = len(labels)
    if bias < 0 or loss is None or n < ENOUGH:
        return
    share = np.mean(labels[:, None] == labels)
    best = float(n * _entropy(np.array([share]), _OF_PAIRS))
    if loss <= _TOO_SURE / 2 * best:
        return
    yield output.warning(
        "initial-loss",
        "The first loss is far above that of knowing nothing: most pairs are "
        "no match, and without a negative bias the model begins as if they "
        "were. Its first steps will do nothing but correct that.",
        {
            "loss": loss,
            "loss of the share of matches": best,
            "bias": bias,
            "rows": n,
        },
        "The bias was set to 0. SigLIP begins with -10.",
        "head = keras_xent.layers.SimilarityHead(temperature=0.1, bias=-10.0)\n"
        "# or, where the loss has the bias:\n"
        "loss = keras_xent.losses.SigmoidContrastive()"
        if output.similarity is not None and output.similarity.bias is not None
        else "loss = keras_xent.losses.SigmoidContrastive()  # its bias is -10",
    )


def _predicts_prior(evidence, output):
    kind, share = output.expects, prior(output)
    if share is None or output.head is not None:
        return
    if kind.outputs not in (LOGITS, PROBABILITIES):
        return
    answers = _probabilities(output)
    entropy = _entropy(share, kind)
    told = _entropy(answers.mean(axis=0), kind) - float(
        np.mean([_entropy(row, kind) for row in answers])
    )
    loss, of_prior = (
        mean_loss(output, output.y_pred),
        _prior_loss(output, share),
    )
    if None in (loss, of_prior) or entropy == 0 or len(answers) < 2:
        return
    if told > _NEAR * entropy or loss < (1 - _NEAR) * of_prior:
        return
    yield output.warning(
        "predicts-prior",
        "The model gives every row the same answer, the frequencies of the "
        "labels: it has learned nothing from its inputs.",
        {
            "steps": evidence.steps,
            "loss": loss,
            "loss of the frequencies": of_prior,
            "information in the answers": max(0.0, told),
            "entropy of the labels": entropy,
        },
        "Labels do not belong to their rows (shuffled apart), inputs are "
        "constant or badly scaled, units are dead, or there is nothing to be "
        "learned.",
        "order = np.random.permutation(len(x))\n"
        "x, y = x[order], y[order]  # one order for both",
    )


def _probabilities(output):
    """The answers as probabilities, `(rows, classes or columns)`."""
    scores = output.score_rows.astype("float64")
    if output.expects.outputs == PROBABILITIES:
        return scores
    if output.expects.labels == YES_NO:
        return 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def _entropy(share, kind):
    """In nats; of yes/no columns, their sum."""
    share = np.clip(share, 0, 1)
    if kind.labels == YES_NO:
        share = np.concatenate([share, 1 - share])
    share = share[share > 0]
    return float(-np.sum(share * np.log(share)))


def _step_too_large(evidence):
    before, after = evidence.loss, evidence.loss_after
    if after is None or not np.isfinite(before):
        return
    if not is_finite(evidence.gradients):
        return  # No step of any size helps, and another finding says so.
    blind = [blind_loss(output) for output in evidence.outputs]
    scale = max([abs(before), *(abs(each) for each in blind if each)])
    if np.isfinite(after) and after <= before + scale:
        return
    optimizer, rate = evidence.model.optimizer, evidence.learning_rate
    yield Finding(
        "step-too-large",
        WARNING if np.isfinite(after) else ERROR,
        f"optimizer {optimizer.name!r}",
        "One step of the optimizer makes the loss of the very rows it was made "
        "for rise steeply: the step jumps over the valley.",
        {
            "learning rate": rate,
            "loss before": before,
            "loss after one step": after,
        },
        "The learning rate is too large for this model, or the inputs are not "
        "scaled.",
        data.scaled(evidence.x)
        + cures.optimizer_line(optimizer, rate / 100)
        + "  # then up again",
    )


def _step_too_small(evidence):
    rate, highest = evidence.learning_rate, evidence.later_rate
    if highest is None or evidence.moved is None or highest >= _SMALL_RATE:
        return
    # Where the rate is 0 now, only the steps to come can tell.
    if rate > 0 and evidence.moved * highest / rate >= _UNMOVED:
        return
    optimizer = evidence.model.optimizer
    yield Finding(
        "step-too-small",
        ERROR if highest == 0 else WARNING,
        f"optimizer {optimizer.name!r}",
        "The learning rate is 0: no step changes anything."
        if highest == 0
        else "The learning rate is so small that a step changes nothing: after "
        "a million steps the weights are still about what they are.",
        {
            "learning rate": rate,
            "highest in the steps to come": highest,
            "change of the weights in a step, as a share": evidence.moved,
        },
        "A rate that was mistyped, or a schedule that has come to its end, or "
        "never rises.",
        f"{cures.optimizer_line(optimizer)}  # compile with it",
    )
