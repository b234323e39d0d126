"""How a loss finds the head, and the features, behind a model's output.

In training the output of a head is its features, and the loss needs the weights
as well. A loss that held the layer could not be saved: loaded again it would
hold a second one, which does not train. So the head leaves a note on the tensor
that it returns, as Keras does with masks.
"""

import typing

import keras

from keras_xent import _keras
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
    """

    head: object
    matrix: dict
    logits: object = LinearLogits(None)
    features: object = None
    seed: object = None


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


def leave_note(tensor, note):
    """Ties a note to this very tensor, not to its value."""
    _keras.set_tensor_attr(tensor, NOTE, note)


def read_note(tensor, kind=Note):
    """The note of a kind of head on a tensor, None if there is none."""
    note = _keras.get_tensor_attr(tensor, NOTE)
    return note if isinstance(note, kind) else None
