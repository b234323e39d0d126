"""Checks of embeddings: all alike, and what a loss of them cannot reach."""

import numpy as np
from keras import ops

from keras_xent.diagnosis import cures, ends
from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.identities import compares_towers
from keras_xent.layers.cosine_head import CosineHead
from keras_xent.losses.contrastive import ContrastiveLoss, SigmoidContrastive
from keras_xent.losses.hinge import SymmetricKLHinge
from keras_xent.losses.kinds import EMBEDDINGS
from keras_xent.losses.prototypical import PrototypicalCrossentropy
from keras_xent.losses.triplet import TripletHinge
from keras_xent.ops.distance import pairwise_distance
from keras_xent.ops.prototypes import check_prototypes

# With a temperature above the first, no pair can be e times as likely as
# another; below the second, a cosine larger by 0.01 is 7 times as likely. From
# 0.01 to 1 is what is used.
_FLAT, _STEEP = 2.0, 0.005

# The lowest loss that a scale allows, as a share of knowing nothing: with a
# scale of log(classes) it is 6 % for 100,000 classes.
_OUT_OF_REACH = 0.25

# Lengths of unit vectors in bfloat16 stay within this of 1.
_UNIT_ERROR = 0.01


def measured(output):
    """The distance of the loss between embeddings; None if it has none."""
    if output.expects.outputs != EMBEDDINGS:
        return None
    return getattr(output.loss, "distance", None)


def between(embeddings, distance):
    """The distances of all pairs of rows, in the order of `triu_indices`."""
    if len(embeddings) < 2:
        return np.zeros(0)
    pairwise = pairwise_distance(distance)
    pairwise = pairwise(ops.convert_to_tensor(embeddings))
    return host(pairwise)[np.triu_indices(len(embeddings), 1)]


def temperature(evidence, output):
    """A temperature or a scale that no training can make up for."""
    if isinstance(output.head, CosineHead):
        yield from _scale(output)
        return
    t = _temperature_of(output)
    if t is None or _STEEP <= t < _FLAT:
        return
    flat = t >= _FLAT
    numbers = {"temperature": t, "scores from": -1 / t, "to": 1 / t}
    summary = "The temperature is so low that a cosine larger by 0.01 makes a "
    summary += f"pair {np.exp(min(0.01 / t, 700)):.3g} times as likely: the "
    summary += "loss sees only the nearest pair."
    if flat:
        summary = "The temperature is so high that cosines, between -1 and 1, "
        summary += "make hardly a difference: no pair can be more than "
        summary += f"{np.exp(2 / t):.3g} times as likely as another."
        if not isinstance(output.loss, SigmoidContrastive):
            matches, others = _candidates(output)
            for name, apart in (
                ("lowest possible loss", np.exp(-2 / t)),
                ("loss of knowing nothing", 1.0),
            ):
                rows = np.log(matches + others * apart)
                numbers[name] = float(rows.mean()) if rows.size else 0.0
    kind = type(output.loss).__name__
    if output.similarity is not None:
        cure = _changed_head(
            output, output.similarity.head, temperature=output.loss.usual
        ) + cures.loss_line(output, f"keras_xent.losses.{kind}()")
    elif isinstance(output.loss, ContrastiveLoss):
        cure = f"loss = keras_xent.losses.{kind}("
        cure += f"temperature={output.loss.usual})"
    else:
        cure = f"loss = keras_xent.losses.{kind}(\n"
        cure += "    distance='cosine', temperature=0.1)"
    yield output.warning(
        "temperature-out-of-reach",
        summary,
        numbers,
        "A scale, 1 / temperature, was given for the temperature."
        if flat
        else "A temperature was taken from another kind of scores, or a "
        "learned one was not kept from falling.",
        cure,
    )


def _candidates(output):
    """How many matches and others each row that has a match is asked among."""
    ids, views = output.counted(output.y_true).reshape(-1), output.views
    same = np.sum(ids[:, None] == ids, axis=1)
    if isinstance(output.loss, PrototypicalCrossentropy):
        matches, total = np.minimum(same - 1, 1), len(np.unique(ids))
    elif compares_towers(output):
        matches, total = same, len(ids) * (views - 1)
    else:
        matches, total = same * views - 1, len(ids) * views - 1
    matches = matches[matches > 0]
    return matches, total - matches


def _temperature_of(output):
    """That by which cosines are divided, or None."""
    loss = output.loss
    if isinstance(loss, ContrastiveLoss):
        return float(host(loss.of_head(output.similarity)["temperature"]))
    if isinstance(loss, PrototypicalCrossentropy) and loss.distance == "cosine":
        return check_prototypes(loss.distance, loss.temperature)
    return None


def _scale(output):
    """Whether the scale and the margins of a `CosineHead` can be reached."""
    head, n = output.head, output.classes
    config = head.get_config()
    if config["learn_scale"]:
        return
    angular, cosine = (
        float(np.max(config[name]))
        for name in ("angular_margin", "cosine_margin")
    )

    def lowest(angular, cosine):
        # All features on their class, the others as far as n vectors can be.
        gap = np.cos(angular) - cosine + 1 / (n - 1)
        return float(np.logaddexp(0, np.log(n - 1) - head.scale * gap))

    blind = float(np.log(n))
    without, best = lowest(0.0, 0.0), lowest(angular, cosine)
    if best <= _OUT_OF_REACH * blind:
        return
    numbers = {
        "scale": float(head.scale),
        "classes": n,
        "lowest possible loss": best,
        "log(classes)": blind,
    }
    of_scale = without > _OUT_OF_REACH * blind
    if not of_scale:
        numbers |= {"angular_margin": angular, "cosine_margin": cosine}
    yield output.warning(
        "temperature-out-of-reach" if of_scale else "margin-out-of-reach",
        "The scale is too small: cosines times it hardly differ, and even "
        f"perfect features leave a loss of {best:.3g}."
        if of_scale
        else "The margin is larger than cosines can make up for: even perfect "
        f"features leave a loss of {best:.3g}.",
        numbers,
        "The scale was left out, or 1 was taken for no scale."
        if of_scale
        else "The margin was meant for scores of any size: cosines lie between "
        "-1 and 1.",
        _changed_head(output, head, scale=30.0) + "# 30 to 64 are common"
        if of_scale
        else _changed_head(
            output, head, angular_margin=0.0, cosine_margin=0.35
        ),
    )


def _changed_head(output, head, **changes):
    """Code of a model in which a head has other arguments."""
    name = type(head).__name__
    shown = ", ".join(f"{key}={value}" for key, value in changes.items())
    return ends.with_config(output.model, head, **changes) or (
        f"# in the model: keras_xent.layers.{name}(..., {shown})\n"
    )


def margin_too_large(evidence, output):
    """A margin that no distance can reach, because there is a largest one."""
    margin = getattr(output.loss, "margin", None)
    distance = measured(output)
    if margin is None or distance is None or output.views > 1:
        return
    largest, of_unit = _largest(output, distance)
    if margin <= largest:
        return
    distances = between(output.counted(output.y_pred), distance)
    triplets = isinstance(output.loss, TripletHinge)
    kind = type(output.loss).__name__
    if isinstance(output.loss, SymmetricKLHinge) or distance == "symmetric_kl":
        kind = "TripletHinge" if triplets else "PairHinge"
        distance = "cosine"
    usual = 0.2 if triplets else 0.5 if distance == "cosine" else 1.0
    yield output.warning(
        "margin-out-of-reach",
        "The margin lies above every distance that there can be. "
        + (
            "Others are never so much farther than partners"
            if triplets
            else "Pairs that differ are never so far apart"
        )
        + ", and pay for ever.",
        {
            "margin": float(margin),
            "largest possible distance": largest,
            "distances from": float(distances.min()),
            "to": float(distances.max()),
        },
        "The embeddings are unit vectors, and the margin is one for "
        "embeddings of any length."
        if of_unit
        else "A cosine distance, 1 - cosine, lies between 0 and 2.",
        f"loss = keras_xent.losses.{kind}({usual}, distance={distance!r})",
    )


def _largest(output, distance):
    """The largest possible distance, and whether because lengths are 1."""
    if distance == "cosine":
        return 2.0, False
    rows = output.counted(output.y_pred).astype("float64")
    lengths = np.sqrt(np.sum(rows * rows, axis=-1))
    if len(rows) < 2 or not np.all(np.abs(lengths - 1) < _UNIT_ERROR):
        return np.inf, False
    largest = {"euclidean": 2.0, "squared_euclidean": 4.0}
    if distance == "symmetric_kl":
        return _largest_divergence(rows.shape[-1]), True
    return largest.get(distance, np.inf), True


def _largest_divergence(dim):
    """A bound of the symmetric divergence of unit vectors.

    It is the difference of the gradients of log-sum-exp times that of the
    vectors, which are 2 apart, and its Hessian is at most 1/2, and at most the
    largest probability.
    """
    rest = (dim - 1) * np.exp(-1 / np.sqrt(max(dim - 1, 1)))
    return float(4 * min(0.5, np.e / (np.e + rest)))
