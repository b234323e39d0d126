"""Checks of distances and of the pairs they are taken between."""

import numpy as np
from keras import ops, tree

from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.outputs import final_activation
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.losses.kinds import (
    DISTANCES,
    EMBEDDINGS,
    IDENTITIES,
    MATCHES,
    UNKNOWN,
)
from keras_xent.ops import pairwise_symmetric_kl

CODES = ("not-a-distance", "one-kind-of-pairs", "margin-out-of-reach")

# Distances in float32 may miss by this share of the largest one.
_NOISE = 1e-3

# Of two equally frequent kinds, 16 pairs of one come about by chance once in
# 30,000 batches.
_ENOUGH = 16

# A margin above all distances is normal at the start, when others still lie
# close together: 5 to 20 times is usual for embeddings that start large. This
# far above, hardly anything pulls them apart.
_OUT_OF_REACH = 30.0


def findings(evidence):
    for output in evidence.outputs:
        kind = output.expects
        if kind.outputs == DISTANCES:
            yield from _negative(output)
        if kind.outputs == DISTANCES or _may_be_distances(output):
            yield from _asymmetric(evidence, output)
        if kind.labels in (MATCHES, IDENTITIES):
            yield from _one_kind(output)
        if kind.outputs in (DISTANCES, EMBEDDINGS):
            yield from _margin(output)


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


def _one_kind(output):
    labels = output.counted(output.labels, whole=True).reshape(-1)
    if len(labels) < _ENOUGH:
        return
    if output.expects.labels == MATCHES:
        one = len(np.unique(labels)) == 1
        kind = "alike" if labels[0] else "different"
        numbers = {"pairs": len(labels), "alike": int((labels == 1).sum())}
    else:
        labels = output.counted(output.y_true).reshape(-1)
        n, counts = len(labels), np.unique(labels, return_counts=True)[1]
        alike = int(np.sum(counts * (counts - 1)) // 2)
        one = n > 1 and alike in (0, n * (n - 1) // 2)
        kind = "alike" if alike else "different"
        numbers = {"rows": n, "classes": len(counts), "pairs alike": alike}
    if not one:
        return
    yield Finding(
        "one-kind-of-pairs",
        ERROR,
        output.where,
        f"All pairs are {kind}. The loss then has a trivial answer: the same "
        "embedding for everything, or ever larger ones.",
        numbers,
        "The rows are sorted by class, each batch holds one row of each class, "
        "or the pairs were drawn from one kind only.",
        "first = rng.integers(0, len(x), n)  # pairs at random, and as many\n"
        "second = [rng.choice(same_class[i]) for i in first]  # of one class",
    )


def _margin(output):
    margin = output.loss.margin
    distances = output.counted(output.y_pred)
    if output.expects.outputs == EMBEDDINGS:
        if len(distances) < 2:
            return
        n = len(distances)
        pairwise = host(pairwise_symmetric_kl(ops.convert_to_tensor(distances)))
        distances = pairwise[np.triu_indices(n, 1)]
    distances = distances[np.isfinite(distances)]
    if not distances.size:
        return
    low, high = float(distances.min()), float(distances.max())
    if low <= margin <= _OUT_OF_REACH * high or high < 0:
        return
    below = margin < low
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
        f"margin = {float(np.median(distances)):.2g}  # the median distance now"
        + (
            ""
            if below
            else "\n# or larger logits at the start (scores of any size, before"
            "\n# softmax or sigmoid):\n"
            "keras.layers.Dense(\n    16, kernel_initializer="
            "keras.initializers.VarianceScaling(10.0))"
        ),
    )
