"""Checks of ids: which rows of a batch belong together."""

import numpy as np
from keras import tree

from keras_xent.diagnosis import ends
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.losses.contrastive import (
    ContrastiveLoss,
    InfoNCE,
    SigmoidContrastive,
)
from keras_xent.losses.kinds import MATCHES

# Of two equally frequent kinds, 16 pairs of one come about by chance once in
# 30,000 batches.
ENOUGH = 16

# How many rows a class has in the batches that a cure makes.
_OF_A_CLASS = 4


def not_ids(output):
    """Labels that name no rows: one-hot rows, measurements, match flags."""
    labels = output.labels
    if labels.ndim != 1 and labels.shape[1:] != (1,):
        yield _not_one_each(output)
        return
    counted = output.counted(labels, whole=True).reshape(-1)
    # NaN makes the loss NaN: `nonfinite-gradient`.
    known = counted[np.isfinite(counted)]
    broken = known[known != np.floor(known)]
    if broken.size:
        yield output.error(
            "label-format",
            "The loss takes ids, whole numbers that are equal where rows "
            "belong together, but the labels are not whole numbers.",
            {"labels": counted.size, "a label": float(broken[0])},
            "These are measurements or probabilities, not numbers of classes "
            "or examples.",
            "# classes by size\n"
            "y = np.digitize(y, np.quantile(y, [0.25, 0.5, 0.75]))",
        )
    elif len(counted) >= ENOUGH and _are_flags(output, counted):
        yield output.warning(
            "label-format",
            "The loss takes ids: each example is the match of its own "
            "embeddings, and of all examples with its id. Here ids are 0 and "
            "1 only, so half of the batch is called a match.",
            {"rows": counted.size, "of them 1": int((counted == 1).sum())},
            "These are match flags, 1 for a pair that is alike. This loss "
            "takes only pairs that are, and makes the others of them.",
            "match = y.reshape(-1) == 1  # the pairs that are alike\n"
            "x = keras.tree.map_structure(lambda each: each[match], x)\n"
            "y = np.arange(match.sum())  # each is its own",
        )


def compares_towers(output):
    """Whether the first embeddings of rows are compared with the second."""
    towers = isinstance(output.loss, (InfoNCE, SigmoidContrastive))
    return towers and output.views > 1


def _are_flags(output, labels):
    return compares_towers(output) and np.array_equal(np.unique(labels), [0, 1])


def _not_one_each(output):
    labels = output.labels
    flat = labels.reshape(len(labels), -1)
    one_hot = bool(
        np.isin(flat, (0, 1)).all() and (flat.sum(axis=1) == 1).all()
    )
    repeated = bool(np.all(flat == flat[:, :1]))
    if one_hot:
        cause = "to_categorical or one_hot was applied to them."
        cure = "y = np.argmax(y, axis=-1)"
    elif repeated:
        cause = "The id stands once for each view; views share the id of "
        cause += "their example."
        cure = "y = y.reshape(len(y), -1)[:, 0]"
    else:
        cause = "Several attributes of a row, or labels of another task."
        cure = "# one number for each combination\n"
        cure += "y = np.unique(y, axis=0, return_inverse=True)[1].reshape(-1)"
    return output.error(
        "label-format",
        "The loss takes ids, one whole number for each row, but the labels "
        + ("are one-hot rows." if one_hot else "have another shape."),
        {"shape of the labels": labels.shape, "rows": len(labels)},
        cause,
        cure,
    )


def one_kind(evidence, output):
    """Only matches, or none: of flags or of ids, of all or of a batch."""
    is_all = evidence.is_all
    labels = output.counted(output.labels, whole=True).reshape(-1)
    n = len(labels)
    if n < ENOUGH:
        return
    if output.expects.labels == MATCHES:
        if is_all and len(np.unique(labels)) == 1:
            alike = int((labels == 1).sum())
            yield _flags_of_one_kind(evidence, output, n, alike)
        return
    if any(not_ids(output)):
        return  # It explains why they are all different.
    counts = np.unique(labels, return_counts=True)[1]
    alike = int(np.sum(counts * (counts - 1)) // 2)
    # Views of an example are each other's matches.
    if alike == n * (n - 1) // 2:
        yield _all_alike(output, n, labels, is_all)
    elif alike == 0 and output.views == 1:
        yield _none_alike(output, n, is_all)


def _flags_of_one_kind(evidence, output, pairs, alike):
    kind = "alike" if alike else "different"
    return output.error(
        "one-kind-of-pairs",
        f"All pairs are {kind}. The loss then has a trivial answer: the same "
        "embedding for everything, or ever larger ones.",
        {"pairs": pairs, "alike": alike},
        "The pairs were drawn from one kind only.",
        _other_pairs(evidence, bool(alike)),
    )


def _other_pairs(evidence, alike):
    """Code that adds as many pairs of the other kind."""
    leaves = tree.flatten(evidence.x)
    note = "of two classes, y: 0" if alike else "of one class, y: 1"
    if len(leaves) != 2 or leaves[0].shape != leaves[1].shape:
        return f"# add as many pairs {note}"
    other = "np.roll(b, 1, axis=0)  # the partner of another row"
    if not alike:
        other = "a + 0.1 * np.std(a) * np.random.normal(size=np.shape(a))"
        note += "; or, where classes are\n# not known, a row and a noisy copy"
    weight = "sample_weight = np.concatenate([sample_weight, sample_weight])\n"
    return (
        f"# as many pairs {note}:\n"
        "a, b = keras.tree.flatten(x)\n"
        f"other = {other}\n"
        "pairs = [np.concatenate([a, a]), np.concatenate([b, other])]\n"
        "x = keras.tree.pack_sequence_as(x, pairs)\n"
        + (weight if evidence.sample_weight is not None else "")
        + "y = np.concatenate([y, 1 - np.asarray(y)])"
    )


def _numbers(output, rows, classes):
    return {"rows": rows, "ids": classes, "embeddings of a row": output.views}


def _all_alike(output, n, labels, is_all):
    views = output.views > 1
    return Finding(
        "one-kind-of-pairs",
        ERROR if is_all or views else WARNING,
        output.where,
        "All rows have the same id, so all pairs are matches. The loss then "
        "has a trivial answer: the same embedding for everything.",
        _numbers(output, n, 1) | {"the id": float(labels[0])},
        "The labels say that each pair matches (1 for all), or nothing (0 for "
        "all). But they are ids: each example is the match of its own "
        "embeddings, and of others with its id."
        if views
        else "The rows are sorted by class and these are the first, or the "
        "labels say something else than who is who.",
        "y = np.arange(len(y))  # each example is its own"
        if views
        else _balanced(n, is_all),
    )


def _none_alike(output, n, is_all):
    takes_views = isinstance(output.loss, ContrastiveLoss)
    joined = takes_views and output.inputs > 1
    if joined:
        cause = "Two towers were joined along the features, to one embedding "
        cause += "of each row. The loss takes them side by side, "
        cause += "(batch, towers, dim)."
    elif is_all:
        cause = "Each row has a number of its own instead of its class."
        if takes_views:
            cause += " Without classes the loss needs two views of each row."
    else:
        cause = "Of many classes, rows drawn at random hold hardly any match."
    cure = "" if joined else _balanced(n, is_all)
    if joined:
        head = "keras_xent.layers.SimilarityHead()"
        cure = ends.of_both(output.model, head) + "# (batch, 2, dim)"
    elif is_all and takes_views:
        cure += (
            "\n# or, without classes, two views of each row:\n"
            "# head = keras_xent.layers.SimilarityHead()\n"
            "# outputs = head([tower(first), tower(second)])"
        )
    return Finding(
        "one-kind-of-pairs",
        ERROR if is_all else WARNING,
        output.where,
        "All ids are different, so no row has a match. The loss then has a "
        "trivial answer, ever larger distances, or is 0 and teaches nothing."
        if is_all
        else "This batch holds no match: all ids are different. There is "
        "nothing that it can bring together, and most losses of embeddings "
        "are 0.",
        _numbers(output, n, n),
        cause,
        cure,
    )


def _balanced(rows, is_all):
    """Code of batches with several rows of a class.

    Args:
        is_all: Whether `y` is known to hold no classes to make them of.
    """
    classes = max(2, rows // _OF_A_CLASS)
    code = (
        "batches = keras_xent.data.ClassBalancedBatches(\n"
        f"    x, y, {classes}, {_OF_A_CLASS})\n"
        "model.fit(batches)"
    )
    if not is_all:
        return code
    return f"# with the class of each row in y:\n{ends.as_comment(code)}"


def with_partners(labels, index, number):
    """So many rows of a batch in which rows have others of their class.

    Args:
        labels: The ids of all rows, `(n,)`.
        index: The rows to choose from, in order.
        number: How many to choose.

    Returns:
        The indices in order; None where hardly any rows share an id.
    """
    _, place, counts = np.unique(
        labels[index], return_inverse=True, return_counts=True
    )
    several = np.flatnonzero(counts > 1)
    if len(several) < 2:
        return None
    size = min(_OF_A_CLASS, int(np.median(counts[several])))
    wanted = min(len(several), max(2, number // size))
    each = max(2, number // wanted)
    spread = np.linspace(0, len(several) - 1, wanted).round().astype(int)
    chosen = several[spread]
    order = np.argsort(place.reshape(-1), kind="stable")
    starts = np.cumsum(counts) - counts
    rows = [order[starts[c] : starts[c] + each] for c in chosen]
    return np.sort(index[np.concatenate(rows)[:number]])
