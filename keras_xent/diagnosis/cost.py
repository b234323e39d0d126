"""How many rows a model is run on, so that large ones do not take long."""

import math

import keras
from keras import tree

from keras_xent import _keras
from keras_xent.diagnosis.expectation import expectation
from keras_xent.losses.kinds import CLASS_IDS, DISTRIBUTION, NUMBERS, YES_NO

# Of a small model.
ROWS = 32

# Of a large one. The backward pass costs two forward passes, and the loss after
# the trial step another: eight rows cost what one forward pass of 32 does.
FEW_ROWS = 8

# A model is large with more multiplications for a row: 32 rows of it take
# seconds on two cores. ResNet50 has 0.3e9 on 64² pixels and 4e9 on 224².
_LARGE = 1e9

# What compares rows with each other, and so needs many, has other labels.
_BY_THE_ROW = (CLASS_IDS, DISTRIBUTION, YES_NO, NUMBERS)


def rows(model, x):
    """How many rows to look at where nobody says it."""
    given = _keras.compiled_losses(model)
    losses = [] if given is None else tree.flatten(given.given)
    if not losses or not all(map(_is_by_the_row, losses)):
        return ROWS
    return FEW_ROWS if multiplications(model, x) > _LARGE else ROWS


def _is_by_the_row(loss):
    loss = keras.losses.get(loss)  # It may be a name.
    return loss is None or expectation(loss).labels in _BY_THE_ROW


def multiplications(model, x):
    """About how many a forward pass needs for one row.

    Each weight of a Dense layer or a convolution is used once at each position
    of the output. Where its shape is not known, as in a model with a `call` of
    its own, the positions of the input stand for it.
    """
    leaves = [leaf for leaf in tree.flatten(x) if leaf is not None]
    positions, counted, number = max(map(_positions, leaves)), set(), 0
    # A layer comes before those in it, which its weights are of.
    for layer in reversed(_keras.flat_layers(model)):
        own = [v for v in layer.variables if id(v) not in counted]
        counted.update(map(id, own))
        # An Embedding reads its weights, and a bias is added.
        if not isinstance(layer, keras.layers.Embedding):
            size = sum(math.prod(v.shape) for v in own if len(v.shape) > 1)
            number += size * (_output_positions(layer) or positions)
    return number


def _positions(leaf):
    """Of an input: pixels or steps. Whole numbers have no axis of features."""
    is_float = "float" in str(leaf.dtype)
    return math.prod(leaf.shape[1:-1] if is_float else leaf.shape[1:])


def _output_positions(layer):
    """Of the output of a layer in a functional model; None of others."""
    try:
        shape = tuple(layer.output.shape[1:])
    except (AttributeError, ValueError):
        return None  # It has not been called on symbolic tensors.
    is_first = getattr(layer, "data_format", None) == "channels_first"
    shape = shape[1:] if is_first else shape[:-1]
    return None if None in shape else math.prod(shape)
