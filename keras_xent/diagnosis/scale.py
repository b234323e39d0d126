"""Checks of the inputs: do rows differ, and are they of a size to learn by?"""

import keras
import numpy as np

from keras_xent import _keras
from keras_xent.diagnosis import data, inputs
from keras_xent.diagnosis.evidence import host
from keras_xent.diagnosis.report import ERROR, WARNING, Finding

# Fewer rows may well be the same by chance.
_ROWS = 4

# Of one batch alone, rows of so few entries may be the same by chance.
_WIDE = 8

# Entries that differ by less than this share of the largest are the same.
_ROUNDING = 1e-6

# Pixels that were divided by 255 as integers: 0, and 1 where they were 255.
# Drawings in black and white have a larger share of ones.
_ONES = 0.02

# A column of standardized numbers has a root of its mean square of 1. One above
# this is not scaled.
_LARGE = 10.0

_LARGEST_PIXEL = 255

# How many channels an image has.
_CHANNELS = (1, 3, 4)

# Rows of fewer columns are a table, not the pixels of an image.
_FEWEST_PIXELS = 16

_READ_AGAIN = "# from the data as they were read:\n"
_READ_AGAIN += "# x = pixels / 255, not pixels // 255"

_SCALING = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.UnitNormalization,
)


def findings(evidence):
    if evidence.rows < _ROWS:
        return
    leaves = _leaves(evidence.x)
    if leaves and all(_are_alike(leaf) for _, leaf in leaves):
        if any(_is_all_padding(output) for output in evidence.outputs):
            return  # `all-masked` says of what.
        yield from _alike(evidence, leaves)
        return
    for name, leaf in leaves:
        if _is_divided(leaf):
            yield _divided(name, leaf)


def _is_all_padding(output):
    return output.mask is not None and not np.any(output.mask)


def _leaves(x):
    """The names of the arrays of numbers in `x`, as code, and the arrays."""
    arrays = [(name, host(leaf)) for name, leaf in data.named(x, "x")]
    return [
        (name, array)
        for name, array in arrays
        if array.dtype.kind in "biuf" and array.size
    ]


def _are_alike(array):
    """Whether all rows are the first one."""
    if array.dtype.kind in "bi":
        return bool(np.all(array == array[:1]))
    size = float(np.abs(array).max())
    if not np.isfinite(size):
        return False
    return bool(np.all(np.abs(array - array[:1]) <= _ROUNDING * size))


def _alike(evidence, leaves):
    rows = evidence.rows
    if evidence.data is not None:
        # What a few rows have shown may be no more than a rare feature.
        every = _leaves(evidence.data[0])
        if not all(_are_alike(leaf) for _, leaf in every):
            return
        rows = len(every[0][1])
    elif sum(leaf[0].size for _, leaf in leaves) < _WIDE:
        return
    low = min(float(leaf.min()) for _, leaf in leaves)
    high = max(float(leaf.max()) for _, leaf in leaves)
    numbers = {"rows": rows, "smallest entry": low, "largest entry": high}
    if low == high == 0:
        cause = "All is 0: whole numbers from 0 to 255 were divided by 256, or "
        cause += "by 255, with //, or cast to whole numbers after it; or an "
        cause += "array was made and never filled."
        cure = _READ_AGAIN
    else:
        cause = "One row was repeated, or something before the model (a mean "
        cause += "over the wrong axis, a clip) makes them the same."
        cure = "# make x anew from the data as they were read"
    yield Finding(
        "constant-inputs",
        ERROR,
        "the data, x",
        "All rows of the inputs are the same. No model can tell them apart: it "
        "learns the mean of the labels, and no more.",
        numbers,
        cause,
        cure,
    )


def _is_image(array):
    if array.ndim == 4:
        return array.shape[-1] in _CHANNELS or array.shape[1] in _CHANNELS
    return array.ndim == 3 and array.shape[1] == array.shape[2] > max(_CHANNELS)


def _is_divided(array):
    if not _is_image(array) or not np.isin(array, (0, 1)).all():
        return False
    return bool(0 < array.mean() < _ONES)


def _divided(name, array):
    return Finding(
        "constant-inputs",
        WARNING,
        f"the data, {name}",
        "Nearly all pixels are 0, and the rest 1: the images are all alike.",
        {"share of ones": float(array.mean()), "values": [0, 1]},
        "Whole numbers from 0 to 255 were divided by 255 with //, or cast to "
        "whole numbers after it.",
        _READ_AGAIN,
    )


def unscaled(evidence):
    """Names of the inputs that are not scaled, by array; none if one cares.

    A dictionary of the root mean squares of the columns of each.
    """
    if _is_scaled_within(evidence):
        return {}
    has_ids = inputs.has_embeddings(evidence.model)
    found = {}
    for name, array in _leaves(evidence.x):
        array = array.astype("float64")
        if has_ids and not _is_image(array) and np.all(array == np.rint(array)):
            continue
        axes = tuple(range(array.ndim - 1)) if array.ndim > 1 else 0
        sizes = np.atleast_1d(np.sqrt(np.mean(np.square(array), axis=axes)))
        if np.isfinite(sizes).all() and sizes.max() > _LARGE:
            found[name] = (array, sizes)
    return found


def _is_scaled_within(evidence):
    names = {
        layer.name
        for layer in _keras.flat_layers(evidence.model)
        if isinstance(layer, _SCALING)
    }
    # A `Normalization` that has not been adapted changes nothing.
    return any(
        seen.name in names
        and np.sqrt(np.mean(np.square(seen.sample.astype("float64")))) <= _LARGE
        for seen in evidence.layers
    )


def unscaled_finding(found, where, numbers, x):
    """The finding of a first loss that is large because inputs are."""
    cures, causes = [], []
    if isinstance(x, tuple):
        cures.append("x = list(x)")
    for name, (array, sizes) in found.items():
        numbers[f"smallest of {name}"] = float(array.min())
        numbers[f"largest of {name}"] = float(array.max())
        if len(sizes) > 1:
            numbers["sizes of its columns from, to"] = [
                float(sizes.min()),
                float(sizes.max()),
            ]
        if _are_pixels(array):
            causes.append(f"{name} holds pixels from 0 to 255.")
            cures.append(f'{name} = np.asarray({name}, "float32") / 255')
        else:
            spread = sizes.max() > _LARGE * max(sizes.min(), 1e-12)
            causes.append(
                f"The columns of {name} are of very different size: the "
                "largest drowns the others."
                if spread
                else f"The numbers in {name} were not scaled."
            )
            cures.append(data.standardized([], [name]).rstrip())
    return Finding(
        "unscaled-inputs",
        WARNING,
        where,
        "The first loss is far above that of knowing nothing, because the "
        "inputs are large. Layers are made for numbers of about 1: their first "
        "weights, and the learning rates in use.",
        numbers,
        " ".join(causes),
        "\n".join(cures),
    )


def _are_pixels(array):
    low, high = array.min(), array.max()
    whole = np.all(array == np.rint(array))
    return bool(low >= 0 and 1 < high <= _LARGEST_PIXEL and whole) and (
        _is_image(array) or array.shape[-1] >= _FEWEST_PIXELS
    )
