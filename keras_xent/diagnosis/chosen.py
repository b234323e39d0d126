"""Which rows a model is run on, where there are more than it needs."""

import keras
import numpy as np
from keras import tree

from keras_xent import _keras
from keras_xent.diagnosis import data, inputs
from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.identities import with_partners
from keras_xent.losses.kinds import IDENTITIES

# With more ids than this share of the rows, few rows have another of their id.
_FEW_MATCHES = 0.5

# So many rows that are not finite are among those that the model is run on.
_UNUSUAL = 4


def indices(model, arrays, rows, number):
    """So many indices of the rows of `(x, y, sample_weight)`, in order."""
    _, y, sample_weight = arrays
    index = _with_weight(sample_weight, rows)
    index = _with_matches(model, y, index, number)
    return _with_unusual(model, arrays, index)


def take(arrays, index):
    """Rows of a structure of arrays; None stays None."""
    return tree.map_structure(lambda leaf: _take(leaf, index), arrays)


def _with_weight(sample_weight, rows):
    """The rows that have a weight, or all if none has."""
    has_weight = np.zeros(rows, bool)
    for leaf in tree.flatten(sample_weight):
        if leaf is not None:
            has_weight |= (host(leaf) != 0).reshape(rows, -1).any(axis=1)
    return np.flatnonzero(has_weight) if has_weight.any() else np.arange(rows)


def _spread(rows, number):
    """So many of the rows, at equal distances."""
    if len(rows) <= number:
        return rows
    return rows[np.linspace(0, len(rows) - 1, number).round().astype(int)]


def _with_matches(model, y, rows, number):
    """So many of the rows, among them matches if the loss is one of ids."""
    spread, losses = _spread(rows, number), _keras.compiled_losses(model)
    given = tree.flatten(losses.given if losses is not None else None)
    kinds = [getattr(loss, "label_kind", None) for loss in given]
    if kinds != [IDENTITIES] or tree.is_nested(y):
        return spread
    labels = host(y).reshape(len(y), -1)
    if labels.shape[1] != 1 or labels.dtype.kind not in "iuf":
        return spread
    labels = labels[:, 0]
    few = len(np.unique(labels[spread])) > _FEW_MATCHES * len(spread)
    balanced = with_partners(labels, rows, number) if few else None
    return spread if balanced is None else balanced


def _with_unusual(model, arrays, rows):
    """The rows of a batch, some of them replaced by unusual ones.

    One row in a million that is NaN breaks all weights, and one id that is
    outside the table of an `Embedding` ends the training.
    """
    bad = [data.not_finite(leaf) for _, leaf in data.arrays(*arrays)]
    bad = np.unique(np.concatenate([*bad, []]).astype(int))
    number = min(_UNUSUAL, max(1, len(rows) // 2))
    bad = _spread(bad, number)
    if inputs.has_embeddings(model):
        rare = [data.extreme_rows(x) for _, x in data.named(arrays[0], "x")]
        rare = np.unique(np.concatenate([*rare, []]).astype(int))
        bad = np.union1d(bad, rare)[: max(1, len(rows) // 2)]
    if not len(bad):
        return rows
    kept = _spread(np.setdiff1d(rows, bad), len(rows) - len(bad))
    return np.sort(np.concatenate([kept, bad]))


def _take(leaf, index):
    if leaf is None or isinstance(leaf, np.ndarray):
        return None if leaf is None else leaf[index]
    return keras.ops.take(leaf, index, axis=0)
