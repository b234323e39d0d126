"""Checks of embeddings: all alike, and what a loss of them cannot reach."""

import numpy as np
from keras import ops

from keras_xent.diagnosis import collapse
from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.identities import compares_towers
from keras_xent.diagnosis.report import WARNING, Finding
from keras_xent.layers.cosine_head import CosineHead
from keras_xent.losses.contrastive import ContrastiveLoss, SigmoidContrastive
from keras_xent.losses.hinge import SymmetricKLHinge
from keras_xent.losses.kinds import EMBEDDINGS
from keras_xent.losses.prototypical import PrototypicalCrossentropy
from keras_xent.losses.triplet import TripletHinge
from keras_xent.ops.distance import pairwise_distance
from keras_xent.ops.prototypes import check_prototypes

# Of all pairs no cosine differs from 1 by more: at the start, where bfloat16
# alone makes 1e-5, and of a model that should have learned.
_ALIKE, _ALIKE_LATER = 1e-4, 0.01

# A triplet's margin so far above all distances is that of one point.
_ONE_POINT = 30.0

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


def _towers(output):
    """The embeddings that count, one array `(rows, dim)` for each view."""
    rows = output.counted(output.y_pred)
    return [rows] if rows.ndim == 2 else list(np.moveaxis(rows, 1, 0))


def collapsed(evidence, output):
    """Embeddings that are all the same, as the loss compares them."""
    of_unknown = collapse.at_one_point(evidence, output)
    if of_unknown is not None:
        yield _triplets_at_one_point(evidence, output, *of_unknown)
        return
    distance, triplets = measured(output), isinstance(output.loss, TripletHinge)
    if distance != "cosine" and not triplets:
        return
    for rows in _towers(output):
        distances = between(rows, distance)
        # Zeros have no direction; `zero-initialised` says why they are zero.
        if not distances.size or not np.isfinite(distances).all():
            continue
        if not np.any(rows) and (
            not triplets or collapse.has_zero_kernel(evidence.model)
        ):
            continue
        limit = _ALIKE_LATER if evidence.has_trained else _ALIKE
        if triplets:
            limit = output.loss.margin / _ONE_POINT
            if not evidence.has_trained:
                limit = output.loss.margin * collapse.limit_of(evidence)
        if distances.max() <= limit:
            yield _at_one_point(evidence, output, distances)
            return


def _at_one_point(evidence, output, distances):
    numbers = {
        "pairs": distances.size,
        "distances from": float(distances.min()),
        "to": float(distances.max()),
    }
    triplets = isinstance(output.loss, TripletHinge)
    if triplets:
        numbers["margin"] = float(output.loss.margin)
    numbers["steps"] = evidence.steps
    slower = _slower(evidence)
    normalize = _NORMALIZE
    if not evidence.has_trained and triplets and _is_near_zero(output):
        cause, cure = _BEGIN_AT_ONE_POINT, _begin_apart(output.y_pred.shape[-1])
    elif not evidence.has_trained:
        cause = "The inputs have a large mean that all rows share (they are "
        cause += "not scaled), or they are constant."
        cure = normalize
    elif triplets:
        cause = _PULLED_TOGETHER
        cure = _semi_hard(output.loss.margin) + slower
    else:
        cause = "A learning rate that is too high has thrown them there, "
        cause += "inputs that are not scaled, or ids that do not belong to "
        cause += "their rows (shuffled apart)."
        cure = slower + "\n" + normalize
    return Finding(
        "collapsed-embeddings",
        WARNING,
        output.where,
        "All embeddings are alike: the loss sees hardly a difference between "
        "the rows, and stays where it is.",
        numbers,
        cause,
        cure,
    )


def _slower(evidence):
    optimizer = evidence.model.optimizer
    name = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
    return (
        f"optimizer = keras.optimizers.{name}("
        f"{evidence.learning_rate / 10:.1g})  # from new weights"
    )


_PULLED_TOGETHER = (
    "The hardest triplets pull everything together at first, above all with a "
    "high learning rate."
)

_NORMALIZE = (
    "normalize = keras.layers.Normalization()\n"
    "normalize.adapt(x)  # and make it the first layer"
)

_BEGIN_AT_ONE_POINT = (
    "The embeddings begin at one point: the last layer of the tower is a ReLU "
    "whose units are 0 for all rows, or its first weights are far too small."
)


def _is_near_zero(output):
    """Whether outputs are as small as what they differ by."""
    y_pred = output.y_pred.reshape(len(output.y_pred), -1)
    return np.abs(y_pred).max() <= 2 * np.ptp(y_pred, axis=0).max()


def _begin_apart(size):
    return (
        "# the last layer of the tower: no activation, Keras's first weights\n"
        f"keras.layers.Dense({size})"
    )


def _semi_hard(margin):
    return (
        "# 'hard' once these are learned, if at all; in batches that hold\n"
        "# several rows of each class: keras_xent.data.ClassBalancedBatches\n"
        "loss = keras_xent.losses.TripletHinge(\n"
        f"    margin={margin:.4g}, mining='semi_hard')\n"
    )


def _triplets_at_one_point(evidence, output, views, loss):
    """The finding of a loss that nobody knows but that is one of distances."""
    y_pred = output.y_pred
    size = int(np.prod(y_pred.shape[1:])) // views
    apart = np.ptp(y_pred.reshape(-1, size), axis=0).max()
    cause, cure = _BEGIN_AT_ONE_POINT, _begin_apart(size if size > 1 else 64)
    if not _is_near_zero(output):
        cause = "The inputs have a large mean that all rows share (they are "
        cause += "not scaled), or they are constant."
        cure = _NORMALIZE
    if evidence.has_trained:
        cause, cure = _PULLED_TOGETHER, _slower(evidence)
        if views == 1:
            cure = _semi_hard(loss) + cure
    return Finding(
        "collapsed-embeddings",
        WARNING,
        output.where,
        "All embeddings are alike: the loss is that of a single point, its "
        "margin, and stays where it is.",
        {
            "loss": float(np.mean(output.compute(y_pred))),
            "loss of one point": loss,
            "outputs differ by at most": float(apart),
            "steps": evidence.steps,
        },
        cause,
        cure,
    )


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
        cure = "head = keras_xent.layers.SimilarityHead("
        cure += f"temperature={output.loss.usual})\n"
        cure += f"loss = keras_xent.losses.{kind}()"
    elif isinstance(output.loss, ContrastiveLoss):
        cure = f"loss = keras_xent.losses.{kind}("
        cure += f"temperature={output.loss.usual})"
    else:
        cure = f"loss = keras_xent.losses.{kind}(\n"
        cure += "    distance='cosine', temperature=0.1)"
    yield Finding(
        "temperature-out-of-reach",
        WARNING,
        output.where,
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
    yield Finding(
        "temperature-out-of-reach" if of_scale else "margin-out-of-reach",
        WARNING,
        output.where,
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
        f"keras_xent.layers.CosineHead({n}, scale=30.0)  # 30 to 64 are common"
        if of_scale
        else f"keras_xent.layers.CosineHead({n}, cosine_margin=0.35)",
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
    yield Finding(
        "margin-out-of-reach",
        WARNING,
        output.where,
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
