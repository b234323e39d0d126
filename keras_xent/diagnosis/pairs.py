"""Checks of distances and of the pairs they are taken between."""

import numpy as np
from keras import ops, tree

from keras_xent.diagnosis import embeddings
from keras_xent.diagnosis.activations import final_activation
from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.identities import ENOUGH, compares_towers, one_kind
from keras_xent.diagnosis.observe import as_tensor
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.losses.kinds import (
    DISTANCES,
    EMBEDDINGS,
    IDENTITIES,
    MATCHES,
    UNKNOWN,
)
from keras_xent.losses.triplet import TripletHinge
from keras_xent.ops import roc
from keras_xent.ops.distance import pairwise_cosine

CODES = (
    "not-a-distance",
    "one-kind-of-pairs",
    "margin-out-of-reach",
    "temperature-out-of-reach",
    "collapsed-embeddings",
    "pairs-not-separated",
)

# Distances in float32 may miss by this share of the largest one.
_NOISE = 1e-3

# A margin above all distances is normal at the start, when others still lie
# close together: 5 to 20 times is usual for embeddings that start large. This
# far above, hardly anything pulls them apart.
_OUT_OF_REACH = 30.0

# The area under the ROC curve, the chance that a match lies closer than
# another pair, is compared with the areas of shuffled labels, in their standard
# deviations. Of these, 1 in 20 lies so far above one half, and 1 in 30,000 so
# far below it. A model whose area in truth is `_LEARNED` comes out so far below
# that in 1 of 40 batches.
_ABOVE_CHANCE, _BELOW_CHANCE, _BELOW_LEARNED = 1.645, 4.0, 2.0
_LEARNED = 0.65
_SHUFFLES = 100

# Two towers begin with nothing in common, and often with a small learning rate:
# what one tower has learned in 100 steps, they need not have learned.
_STEPS_OF_TOWERS = 1000

# Fewer pairs of one kind say nothing of where such pairs lie.
_OF_EACH_KIND = 8

# Embeddings whose distances have a median below this share of the margin lie
# near one point, as seen from it.
_NEAR_ONE_POINT = 0.1


def findings(evidence):
    for output in evidence.outputs:
        wrong = list(_wrong_kind(evidence, output))
        yield from wrong
        if any(found.code == "one-kind-of-pairs" for found in wrong):
            continue  # Margins are about pairs that differ, beside others.
        # What explains another, or is explained by it, is not said beside it.
        for check in [_margin] if wrong else _IN_ORDER:
            found = list(check(evidence, output))
            yield from found
            if found:
                break


def _wrong_kind(evidence, output):
    """Outputs that are no distances, or pairs that are all alike."""
    kind = output.expects
    if kind.outputs == DISTANCES:
        yield from _negative(output)
    if kind.outputs == DISTANCES or _may_be_distances(output):
        yield from _asymmetric(evidence, output)
    if kind.labels in (MATCHES, IDENTITIES):
        yield from one_kind(output, evidence.is_all)


def _may_be_distances(output):
    """Whether a loss that nobody knows takes distances: scores have a sign."""
    return (
        output.expects.outputs == UNKNOWN
        and bool(np.all(output.y_pred >= 0))
        and final_activation(output) != "sigmoid"
    )


def _negative(output):
    scores = output.counted(output.y_pred)
    # NaN is not less: `nonfinite-gradient` says where it comes from.
    if not np.any(scores < -_NOISE * np.abs(scores).max()):
        return
    yield Finding(
        "not-a-distance",
        ERROR,
        output.where,
        "The loss takes distances, 0 for equal things and never negative, but "
        "outputs are negative.",
        {
            "smallest": float(scores.min()),
            "largest": float(scores.max()),
            "share below 0": float(np.mean(scores < 0)),
        },
        "A similarity (cosine, dot product) or a plain Dense layer stands for "
        "the distance, or a KL divergence of vectors that are no "
        "distributions.",
        "distance = keras_xent.layers.SymmetricKLDistance()([a, b])\n"
        "# of embeddings as they leave a Dense layer without activation",
    )


def _asymmetric(evidence, output):
    """The model with its two inputs exchanged."""
    x, model = evidence.x, evidence.model
    leaves = tree.flatten(x)
    flags = np.isin(output.y_true, (0, 1)).all()
    if len(leaves) != 2 or len(evidence.outputs) != 1 or not flags:
        return
    if leaves[0].shape != leaves[1].shape or output.y_pred.size != len(
        output.y_pred
    ):
        return

    def distance(a, b):
        leaves = [ops.convert_to_tensor(each) for each in (a, b)]
        return host(model(tree.pack_sequence_as(x, leaves), training=False))

    there, back = distance(*leaves), distance(*reversed(leaves))
    scale = np.abs(there).max()
    if not np.isfinite(scale) or np.allclose(there, back, atol=_NOISE * scale):
        return
    yield Finding(
        "not-a-distance",
        ERROR if output.expects.outputs == DISTANCES else WARNING,
        output.where,
        "The distance from a to b is another than that from b to a, so that "
        "the answer depends on which of the two comes first.",
        {
            "a to b": float(there.reshape(-1)[0]),
            "b to a": float(back.reshape(-1)[0]),
            "largest difference": float(np.abs(there - back).max()),
        },
        "KL divergence in one direction only, or towers that do not share "
        "their weights.",
        "distance = keras_xent.layers.SymmetricKLDistance()([a, b])\n"
        "a, b = tower(first), tower(second)  # one tower for both",
    )


def _has_margin(output):
    """Whether the loss wants others at a margin, in a distance that is known.

    The margin of triplets is one between two distances.
    """
    loss = output.loss
    if getattr(loss, "margin", None) is None or isinstance(loss, TripletHinge):
        return False
    flags = output.expects.outputs == DISTANCES
    return flags or embeddings.measured(output) is not None


def _margin(evidence, output):
    if not _has_margin(output):
        return
    margin = output.loss.margin
    distances, others = _with_others(output)
    others = others[np.isfinite(distances)]
    distances = distances[np.isfinite(distances)]
    if others.sum() < min(_OF_EACH_KIND, len(distances)):
        return  # A margin is for them: matches say nothing of it.
    low, high = float(distances.min()), float(distances.max())
    if low <= margin <= _OUT_OF_REACH * high or high < 0:
        return
    below, median = margin < low, float(np.median(distances[others]))
    yield Finding(
        "margin-out-of-reach",
        WARNING,
        output.where,
        "The margin lies below every distance: the loss asks nothing of pairs "
        "that differ."
        if below
        else "The margin lies far above all distances: pairs that differ would "
        "have to move very far, and near 0 the distance is flat.",
        {"margin": float(margin), "distances from": low, "to": high},
        "The margin was taken from another distance or another model."
        if below
        else "The embeddings are nearly alike at the start, or the distance "
        "cannot be as large as the margin.",
        f"margin = {median:.2g}  # the median distance now"
        + (
            ""
            if below
            else "\n# or larger logits at the start (scores of any size, before"
            "\n# softmax or sigmoid):\n"
            "keras.layers.Dense(\n    16, kernel_initializer="
            "keras.initializers.VarianceScaling(10.0))"
        ),
    )


def _with_others(output):
    """The distances of the pairs, and which of them are no matches."""
    distances = output.counted(output.y_pred)
    labels = output.counted(output.y_true).reshape(-1)
    if output.expects.outputs == EMBEDDINGS:
        distances = embeddings.between(distances, output.loss.distance)
        first, second = np.triu_indices(len(labels), 1)
        return distances, labels[first] != labels[second]
    distances = distances.reshape(-1)
    if len(labels) != len(distances):
        return distances, np.ones(len(distances), bool)
    return distances, labels != 1


class _Pairs:
    """The distances of pairs, and which of these are matches.

    Args:
        distances: Of each pair.
        labels: One for each row.
        is_match: A function of the labels: whether each pair is a match.
    """

    def __init__(self, distances, labels, is_match):
        self.distances, self.matches = distances, is_match(labels)
        self._labels, self._is_match = labels, is_match
        self._order = np.unique(distances, return_inverse=True)[1]
        self.curve = self._curve(self.matches)
        self.area = float(roc.match_auc(self.curve))

    def _curve(self, matches):
        """The ROC curve, on which pairs of one distance are one step."""
        size = self._order.max() + 1
        kinds = [self._order[kind] for kind in (~matches, matches)]
        return roc.Curve(*(np.bincount(kind, None, size) for kind in kinds), np)

    def by_chance(self):
        """The standard deviation of the area of labels that know nothing.

        Rows are shuffled, not pairs, for the pairs of one row go together.
        """
        rng = np.random.default_rng(0)
        areas = []
        for _ in range(_SHUFFLES):
            matches = self._is_match(rng.permutation(self._labels))
            areas.append(roc.match_auc(self._curve(matches)))
        return float(np.std(areas))


def _pairs(output, y_pred):
    """The pairs of an output; None where they are too few to say anything."""
    scores = output.counted(y_pred)
    labels = output.counted(output.y_true).reshape(-1)
    if len(labels) != len(scores) or len(labels) < ENOUGH:
        return None
    if output.expects.outputs == DISTANCES:
        distances = scores.reshape(-1)
        if len(distances) != len(labels):
            return None

        def is_match(flags):
            return flags == 1
    elif compares_towers(output):
        first, second = (
            ops.convert_to_tensor(scores[:, tower]) for tower in (0, 1)
        )
        distances = host(pairwise_cosine(first, second)).reshape(-1)

        def is_match(ids):
            return (labels[:, None] == ids).reshape(-1)
    else:
        views = output.views
        rows = scores.reshape(len(scores) * views, -1)
        distances = embeddings.between(rows, output.loss.distance)
        first, second = np.triu_indices(len(rows), 1)

        def is_match(ids):
            ids = np.repeat(ids, views)
            return ids[first] == ids[second]

    matches = is_match(labels).sum()
    enough = _OF_EACH_KIND <= matches <= len(distances) - _OF_EACH_KIND
    # Where all are the same, no gradient tells them apart: other codes say so.
    differ = np.isfinite(distances).all() and np.ptp(distances) > 0
    return _Pairs(distances, labels, is_match) if enough and differ else None


def _not_separated(evidence, output):
    flags = output.expects.outputs == DISTANCES
    if not (flags or embeddings.measured(output)):
        return
    # Flags may be the wrong way round before the first step.
    if not (flags or evidence.has_trained):
        return
    if compares_towers(output) and evidence.steps < _STEPS_OF_TOWERS:
        return
    margin = getattr(output.loss, "margin", None)
    # Dropout in training, or moving averages that have not arrived, may hide
    # from one of the two what the other shows.
    for look in (lambda: output.y_pred, lambda: _inferred(evidence, output)):
        pairs = _pairs(output, look())
        if pairs is None or pairs.area >= _LEARNED:
            return
        if _has_margin(output) and margin < pairs.distances.min():
            return  # It asks nothing, which `_margin` says.
        deviation = pairs.by_chance()
        chance = 0.5 + _ABOVE_CHANCE * deviation
        reverse = flags and pairs.area < 0.5 - _BELOW_CHANCE * deviation
        alike = evidence.has_trained and pairs.area <= min(
            chance, _LEARNED - _BELOW_LEARNED * deviation
        )
        if not (reverse or alike):
            return
    distances, matches = pairs.distances, pairs.matches
    apart, together = (
        float(np.median(distances[kind])) for kind in (~matches, matches)
    )
    near = margin and float(np.median(distances)) < _NEAR_ONE_POINT * margin
    numbers = {
        "area under the ROC curve": pairs.area,
        "by chance up to": chance,
        "equal error rate": float(roc.equal_error_rate(pairs.curve)),
        "median distance of matches": together,
        "of others": apart,
        **({} if margin is None else {"margin": float(margin)}),
        "matches": int(matches.sum()),
        "others": int((~matches).sum()),
        "steps": evidence.steps,
    }
    summary, cause, cure = _reversed() if reverse else _alike(flags, near)
    yield Finding(
        "pairs-not-separated",
        WARNING,
        output.where,
        summary,
        numbers,
        cause,
        cure,
    )


def _inferred(evidence, output):
    """What the model returns as it is, not in training."""
    x = tree.map_structure(
        lambda leaf: None if leaf is None else as_tensor(leaf), evidence.x
    )
    return host(tree.flatten(evidence.model(x, training=False))[output.index])


def _reversed():
    return (
        "The distances are the wrong way round: matches lie further apart than "
        "others.",
        "The flags are reversed (here 1 stands for a pair that is alike, 0 for "
        "one that is not), or the output is a similarity. Where the pairs were "
        "chosen as the hardest, it is meant so.",
        "y = 1 - y  # 1: alike\n"
        "# or, of a similarity from 0 to 1:\n"
        "distance = 1 - similarity",
    )


def _alike(flags, near):
    few, ordered = "x[:32]", "x[order]"
    if flags:
        few, ordered = "[a[:32] for a in x]", "[a[order] for a in x]"
    cause = (
        "Labels do not belong to their rows (shuffled apart), the inputs do "
        "not hold what makes the classes, or the learning rate is far too "
        "small or too large."
    )
    cure = (
        "order = np.random.permutation(len(y))  # shuffles both alike\n"
        f"x, y = {ordered}, y[order]\n"
        "# Can the model learn a few rows by heart? Then model and loss are\n"
        "# in order, and the data are not.\n"
        f"few, labels = {few}, y[:32]\n"
        "model.fit(few, labels, epochs=200, verbose=0)\n"
        "print(keras_xent.diagnose(model, few, labels))"
    )
    if near:
        cause = (
            "All embeddings lie near one point, as seen from the margin. The "
            "distance is flat there and hardly pulls them apart: they started "
            "too close together. Or labels that do not belong to their rows "
            "(shuffled apart) have drawn them there."
        )
        cure = (
            "keras.layers.Dense(  # embeddings that start further apart\n"
            "    16, kernel_initializer=keras.initializers.VarianceScaling(\n"
            "        10.0, 'fan_avg', 'uniform'))\n" + cure
        )
    elif not flags:
        cure += (
            "\n# Can a plain classifier tell the classes by these inputs?"
            "\nloss = keras_xent.losses.SparseSoftmaxCrossentropy()"
        )
    return (
        "Matches lie no closer together than others, as far as these rows can "
        "tell: after all its steps the model knows nothing of the labels.",
        cause,
        cure,
    )


_IN_ORDER = [
    embeddings.temperature,
    embeddings.margin_too_large,
    embeddings.collapsed,
    _not_separated,
    _margin,
]
