"""Checks of how often each label occurs, where the labels are in order."""

import numpy as np
from keras import tree

from keras_xent.diagnosis import ends
from keras_xent.diagnosis.evidence import NAMED, host
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    IDENTITIES,
    MATCHES,
    UNKNOWN,
    YES_NO,
)

# Fewer equal labels say nothing: of two equally frequent classes, 16 labels of
# one kind come about once in 30,000 batches.
_CONSTANT = 16

# A class with a hundredth of its fair share is absent from this many labels
# per class in a third of all samples (e⁻¹); rarer ones are taken for missing.
_PER_CLASS = 100


def findings(evidence):
    for output in evidence.outputs:
        # Flags are looked at as pairs.
        if output.expects.labels not in (MATCHES, IDENTITIES):
            yield from _constant_or_missing(output, evidence.x)


def _constant_or_missing(output, x):
    kind, labels = output.expects.labels, output.label_rows
    if len(labels) >= _CONSTANT and np.all(labels == labels[0]):
        if kind == UNKNOWN and _may_be_dummies(output):
            return
        yield output.warning(
            "constant-targets",
            "All labels are the same: a model that ignores its input is right.",
            {"labels": len(labels), "each of them": labels[0].tolist()},
            "The data are sorted by class and these are the first, or the "
            "wrong column was taken.",
            "# rows of all classes, and the column that names them:\n"
            "print(np.unique(y, axis=0))",
        )
        return
    if kind == CLASS_IDS:
        counts = np.bincount(
            labels[(labels >= 0) & output.known(labels)].astype(int),
            minlength=output.classes,
        )
        # Some of them have a column of their own.
        ignored = [i for i in output.expects.ignored if 0 <= i < len(counts)]
        counts = np.delete(counts, ignored)
    elif kind == DISTRIBUTION or _are_flags(output, labels, x):
        counts = labels.sum(axis=0)
    else:
        return
    missing = np.flatnonzero(counts == 0)
    if (
        len(counts) > 1
        and len(missing)
        and (len(labels) >= _PER_CLASS * len(counts))
    ):
        yield output.warning(
            "missing-class",
            "Classes of the output never occur in the labels: the model will "
            "learn that they do not exist.",
            {
                "labels": len(labels),
                "classes": len(counts),
                "missing": len(missing),
                "for example": missing[:NAMED].tolist(),
            },
            "Part of the data was left out, or the last layer has more units "
            "than there are classes (one for a background, say).",
            _cure(output, kind, missing, len(counts)),
        )


def _may_be_dummies(output):
    """Whether equal labels of an unknown loss are 0, or leave it as it is."""
    if not np.all(output.y_true):
        return True
    try:
        loss, without = (
            output.compute(output.y_pred, labels)
            for labels in (output.y_true, 0 * output.y_true)
        )
    except Exception:
        # It may refuse labels that are not the model's own.
        return True
    return np.array_equal(loss, without)


def _cure(output, kind, missing, classes):
    """Fewer units, if it is the last classes that never occur."""
    kept = classes - len(missing)
    if kind == CLASS_IDS and not output.expects.ignored and missing[0] == kept:
        return ends.with_units(output, kept)
    if kind == CLASS_IDS:
        return f"print(np.bincount(np.ravel(y), minlength={classes}))"
    return "print(np.sum(y, axis=0))  # look for zeros"


def _are_flags(output, labels, x):
    """Whether columns of yes or no are classes, not pixels to be restored."""
    return (
        output.expects.labels == YES_NO
        and bool(np.isin(labels, (0, 1)).all())
        and not any(
            np.array_equal(host(leaf), output.y_true)
            for leaf in tree.flatten(x)
        )
    )
