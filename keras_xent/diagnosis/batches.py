"""Rows taken from a dataset: as many as a diagnosis needs, in memory."""

import itertools

import keras
import numpy as np
from keras import tree

# Batches and bytes that are taken at most, for their labels: enough to see each
# of a hundred classes, and a second or so of reading.
_BATCHES = 32
_BYTES = 2**28


def is_dataset(x):
    """Whether it gives batches, as `tf.data`, a DataLoader or a generator."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    if isinstance(x, (list, tuple, dict, str)):
        return False
    is_array = hasattr(x, "shape") or hasattr(x, "__array__")
    return hasattr(x, "__iter__") and not is_array


def take(dataset, rows):
    """`(x, y, sample_weight)` of the first batches, and whether that is all.

    Args:
        dataset: What `is_dataset`.
        rows: So many are needed. Of a generator, from which a batch can be
            taken once only, no more batches are taken than that needs.
    """
    taken, found, size = [], 0, 0
    once = hasattr(dataset, "__next__")
    for batch in _batches(dataset):
        is_full = len(taken) >= _BATCHES or size >= _BYTES
        if found >= rows and is_full:
            return _joined(taken), False
        parts = keras.utils.unpack_x_y_sample_weight(batch)
        parts = tree.map_structure(_array, parts)
        if taken and not _go_together(taken[0], parts):
            return _joined(taken), False  # Padded to another length, say.
        taken.append(parts)
        leaves = [leaf for leaf in tree.flatten(parts) if leaf is not None]
        found += len(leaves[0])
        size += sum(leaf.nbytes for leaf in leaves)
        if once and found >= rows:
            return _joined(taken), False
    if not taken:
        raise ValueError("The dataset holds no batch.")
    return _joined(taken), True


def _batches(dataset):
    if not isinstance(dataset, keras.utils.PyDataset):
        return iter(dataset)
    number = dataset.num_batches
    indices = itertools.count() if number is None else range(number)
    return (dataset[index] for index in indices)


def _array(leaf):
    """A leaf in NumPy, of whichever framework it is."""
    if leaf is None:
        return None
    if hasattr(leaf, "detach"):  # PyTorch's
        leaf = leaf.detach().cpu()
    leaf = np.asarray(leaf)
    if not leaf.ndim:
        raise ValueError(
            "diagnose(model, dataset) takes batches of rows, of shape (n, "
            "...). Received one number: give the dataset a batch size, as in "
            "dataset.batch(32)."
        )
    return leaf


def _go_together(one, other):
    one, other = tree.flatten(one), tree.flatten(other)
    return len(one) == len(other) and all(
        (a is None) == (b is None) and (a is None or a.shape[1:] == b.shape[1:])
        for a, b in zip(one, other, strict=True)
    )


def _joined(taken):
    def join(*leaves):
        return None if leaves[0] is None else np.concatenate(leaves)

    return tree.map_structure(join, *taken)
