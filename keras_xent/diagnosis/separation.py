"""Whether matches lie closer together than others, once a model has trained."""

import numpy as np
from keras import ops, tree

from keras_xent.diagnosis import embeddings
from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.identities import ENOUGH, compares_towers
from keras_xent.diagnosis.observe import as_tensors
from keras_xent.losses.kinds import DISTANCES
from keras_xent.losses.triplet import TripletHinge
from keras_xent.ops import roc
from keras_xent.ops.distance import pairwise_cosine

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
OF_EACH_KIND = 8

# Embeddings whose distances have a median below this share of the margin lie
# near one point, as seen from it.
_NEAR_ONE_POINT = 0.1


def has_margin(output):
    """Whether the loss wants others at a margin, in a distance that is known.

    The margin of triplets is one between two distances.
    """
    loss = output.loss
    if getattr(loss, "margin", None) is None or isinstance(loss, TripletHinge):
        return False
    flags = output.expects.outputs == DISTANCES
    return flags or embeddings.measured(output) is not None


def not_separated(evidence, output):
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
        if has_margin(output) and margin < pairs.distances.min():
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
    summary, cause, cure = (
        _reversed() if reverse else _alike(flags, output.inputs > 1, near)
    )
    yield output.warning(
        "pairs-not-separated",
        summary,
        numbers,
        cause,
        cure,
    )


def _inferred(evidence, output):
    """What the model returns as it is, not in training."""
    y_pred = evidence.model(as_tensors(evidence.x), training=False)
    return host(tree.flatten(y_pred)[output.index])


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


def _alike(flags, several, near):
    few, ordered = "x[:32]", "x[order]"
    if several:
        each = "keras.tree.map_structure(lambda a: a[{}], x)"
        few, ordered = each.format(":32"), each.format("order")
    cause = (
        "Labels do not belong to their rows (shuffled apart), the inputs do "
        "not hold what makes the classes, or the learning rate is far too "
        "small or too large."
    )
    cure = (
        "order = np.random.permutation(len(y))  # shuffles both alike\n"
        f"x = {ordered}\n"
        "y = y[order]\n"
        "# Can the model learn a few rows by heart? Then model and loss are\n"
        "# in order, and the data are not.\n"
        f"few = {few}\n"
        "labels = y[:32]\n"
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
            "# embeddings that start further apart, in the last layer:\n"
            "# kernel_initializer=keras.initializers.VarianceScaling(10.0)\n"
            + cure
        )
    elif not flags:
        cure += (
            "\n# Can a plain classifier tell the classes by these inputs?"
            "\n# loss = keras_xent.losses.SparseSoftmaxCrossentropy()"
        )
    return (
        "Matches lie no closer together than others, as far as these rows can "
        "tell: after all its steps the model knows nothing of the labels.",
        cause,
        cure,
    )


class Pairs:
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
    enough = OF_EACH_KIND <= matches <= len(distances) - OF_EACH_KIND
    # Where all are the same, no gradient tells them apart: other codes say so.
    differ = np.isfinite(distances).all() and np.ptp(distances) > 0
    return Pairs(distances, labels, is_match) if enough and differ else None
