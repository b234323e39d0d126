"""Checks of distances and of the pairs they are taken between."""

import numpy as np
from keras import ops, tree

from keras_xent.diagnosis import collapse, cures, embeddings, ends, separation
from keras_xent.diagnosis.activations import final_activation
from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.identities import one_kind
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.losses.kinds import (
    DISTANCES,
    EMBEDDINGS,
    IDENTITIES,
    MATCHES,
    UNKNOWN,
)

# Distances in float32 may miss by this share of the largest one.
_NOISE = 1e-3

# A margin above all distances is normal at the start, when others still lie
# close together: 5 to 20 times is usual for embeddings that start large. This
# far above, hardly anything pulls them apart.
_OUT_OF_REACH = 30.0


_DISTANCE = "keras_xent.layers.SymmetricKLDistance()"

_LARGER = """
# or larger logits at the start (scores of any size, before softmax
# or sigmoid), in the last layer:
# kernel_initializer=keras.initializers.VarianceScaling(10.0)"""


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
        yield from one_kind(evidence, output)


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
    yield output.error(
        "not-a-distance",
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
        ends.of_both(output.model, _DISTANCE)
        + "# of embeddings as they leave a Dense layer without activation",
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
        ends.of_both(output.model, _DISTANCE)
        + "# of one tower for both inputs",
    )


def _margin(evidence, output):
    if not separation.has_margin(output):
        return
    margin = output.loss.margin
    distances, others = _with_others(output)
    others = others[np.isfinite(distances)]
    distances = distances[np.isfinite(distances)]
    if others.sum() < min(separation.OF_EACH_KIND, len(distances)):
        return  # A margin is for them: matches say nothing of it.
    low, high = float(distances.min()), float(distances.max())
    if low <= margin <= _OUT_OF_REACH * high or high < 0:
        return
    below, median = margin < low, float(np.median(distances[others]))
    yield output.warning(
        "margin-out-of-reach",
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
        f"# {median:.2g} is the median distance now:\n"
        + cures.changed_loss(output, margin=float(f"{median:.2g}"))
        + ("" if below else _LARGER),
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


_IN_ORDER = [
    embeddings.temperature,
    embeddings.margin_too_large,
    collapse.collapsed,
    separation.not_separated,
    _margin,
]
