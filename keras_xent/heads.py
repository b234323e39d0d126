"""How a loss finds the head, and the features, behind a model's output.

In training the output of a head is its features, and the loss needs the weights
as well. A loss that held the layer could not be saved: loaded again it would
hold a second one, which does not train. So the head leaves a note on the tensor
that it returns, as Keras does with masks.
"""

import contextlib
import threading
import typing

import keras
import numpy as np

from keras_xent import _keras
from keras_xent.ops import checks
from keras_xent.ops.logits import LinearLogits

NOTE = "_keras_xent_head"


class Note(typing.NamedTuple):
    """What a head says of its output.

    The weights are those that the call has read: in JAX's stateless calls they
    are arguments of the step, and the layer's own are gone when the loss runs.

    Attributes:
        head: The layer.
        matrix: The weights of its classes, by their name in
            `ops.linear_softmax_crossentropy`: "kernel" or "class_vectors".
        logits: What it makes of their product with the features, as
            `ops.logits.LinearLogits`.
        features: What it multiplied; None where that is the output itself.
        seed: A `DrawnSeed` of this call's own for a loss that draws, or None.
            A generator of the loss would not do: Keras keeps the state of
            those in layers only, and the compiled steps of JAX would draw the
            same sample for ever.
        shards: Over how many devices the classes are spread.
    """

    head: object
    matrix: dict
    logits: object = LinearLogits(None)
    features: object = None
    seed: object = None
    shards: int = 1


class SimilarityNote(typing.NamedTuple):
    """What a `SimilarityHead` says of the unit vectors that it returns.

    Attributes:
        head: The layer.
        log_scale: The logarithm of 1 / temperature.
        bias: What is added to a similarity, or None.
    """

    head: object
    log_scale: object
    bias: object = None


class DrawnSeed(keras.random.SeedGenerator):
    """A seed that was drawn before, in the form that `keras.random` takes."""

    def __init__(self, seed):
        self._seed = seed

    def next(self, ordered=True):
        return self._seed


class LayerOfNumbers(keras.layers.Layer):
    """A layer that is called with real numbers, or says what it is not."""

    def __call__(self, *args, **kwargs):
        if args:
            _check_numbers(self, args[0])
        return super().__call__(*args, **kwargs)


class NotingLayer(LayerOfNumbers):
    """A layer that leaves a note on its output in `call`.

    A `keras.distribution.LayoutMap` may have a layout for the output of a
    layer. Keras lays the output out after `call`, by making another tensor,
    which gets the note again. The output of a model that the layer is in is
    out of reach: a layout for that is an error.
    """

    def __call__(self, *args, **kwargs):
        _check_layouts_around(self)
        with _notes_left() as notes:
            output = super().__call__(*args, **kwargs)
        if notes and _keras.get_tensor_attr(output, NOTE) is None:
            leave_note(output, notes[-1])
        return output


def _check_numbers(layer, inputs):
    """Raises on what Keras would make other numbers of, or none."""
    for x in keras.tree.flatten(inputs) or [None]:
        dtype = getattr(x, "dtype", None)
        is_complex = dtype is not None and "complex" in str(dtype)
        if isinstance(x, np.ndarray):
            checks.array("inputs", x)
        if x is None or is_complex:
            raise ValueError(
                f"The {type(layer).__name__} {layer.name!r} takes a tensor of "
                "real numbers, or a list of them where it has several inputs. "
                f"Received: {x!r}"
            )


def _check_layouts_around(layer):
    """Raises if Keras lays out the output of what a layer is called in."""
    distribution = keras.distribution.distribution()
    if distribution is None or _keras.in_symbolic_scope():
        return
    for path in _keras.enclosing_paths():
        path = f"{path}/output"
        if distribution.get_tensor_layout(path) is None:
            continue
        raise ValueError(
            f"The {type(layer).__name__} {layer.name!r} is called in a layer "
            f"whose output, {path!r}, has a layout in the LayoutMap. Keras "
            "lays it out by making another tensor, in which the loss does not "
            "find the head. Narrow the key: a layout for the output of the "
            f"head itself, '.*{layer.name}/output', is kept."
        )


class _Left(threading.local):
    notes: list | None = None


_LEFT = _Left()


@contextlib.contextmanager
def _notes_left():
    """A scope, and a list of the notes that are left in it."""
    before, _LEFT.notes = _LEFT.notes, []
    try:
        yield _LEFT.notes
    finally:
        _LEFT.notes = before


def leave_note(tensor, note):
    """Ties a note to this very tensor, not to its value."""
    _keras.set_tensor_attr(tensor, NOTE, note)
    if _LEFT.notes is not None:
        _LEFT.notes.append(note)


def read_note(tensor, kind=Note):
    """The note of a kind of head on a tensor, None if there is none."""
    note = _keras.get_tensor_attr(tensor, NOTE)
    return note if isinstance(note, kind) else None


def check_not_copied(tensor, loss, *, otherwise=""):
    """Raises if a tensor is a copy of one on which a head may have left a note.

    Args:
        tensor: What a loss was given.
        loss: The loss.
        otherwise: What else the user can do, as a further sentence.
    """
    if not _keras.copied_by_ddp(tensor):
        return
    raise ValueError(
        f"{type(loss).__name__} expects the very tensor that a head of "
        "keras_xent.layers has returned: it finds the head by it. Received a "
        "copy, which DistributedDataParallel makes with "
        "find_unused_parameters=True and with static_graph=True. Leave both "
        "off; or put the model and the loss into one torch.nn.Module whose "
        "forward returns the loss, and give that to DistributedDataParallel."
        f"{otherwise}"
    )
