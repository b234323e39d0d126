"""What the layers of a model return, seen from outside."""

import contextlib

import keras
import numpy as np
from keras import tree

from keras_xent import _keras
from keras_xent.diagnosis import inputs
from keras_xent.diagnosis.evidence import Seen, bad_rows, host
from keras_xent.diagnosis.probe import Stopped

# Entries of a layer's output that are looked at: a share of them is known to
# 1 % or so, and all of them would take seconds in a large model.
_SAMPLE = 10_000

# Larger outputs are not kept as a whole.
_KEPT = 1_000_000


@contextlib.contextmanager
def watched(model):
    """Two lists that fill: with layers and the tensors that they return, and
    with each `Embedding` and its ids.

    Operations in the graph of a functional model count as layers.
    """
    calls, ids = [], []
    watched = list(_layers_and_operations(model))
    for layer in watched:
        vars(layer)["call"] = _noted(layer, calls, ids)
    try:
        yield calls, ids
    finally:
        for layer in watched:
            del vars(layer)["call"]


def _layers_and_operations(model):
    found, hidden = {}, set()
    for layer in _keras.flat_layers(model):
        # A container returns what one of its layers returns.
        if not isinstance(layer, keras.Model):
            found[id(layer)] = layer
        # It calls its layer for each step, and returns what that returns.
        if isinstance(layer, keras.layers.TimeDistributed):
            hidden.add(id(layer.layer))
        for operation in getattr(layer, "operations", ()):
            if not isinstance(operation, keras.Model):
                found[id(operation)] = operation
    return [
        each
        for key, each in found.items()
        if key not in hidden and "call" not in vars(each)
    ]


def _noted(layer, calls, ids):
    call = layer.call
    looks_up = isinstance(layer, keras.layers.Embedding)

    def noted(*args, **kwargs):
        if looks_up:
            _note_ids(layer, ids, *args, **kwargs)
        result = call(*args, **kwargs)
        calls.extend((layer, x) for x in tree.flatten(result))
        return result

    return noted


def _note_ids(layer, ids, inputs_=None, reverse=False, **_):
    """Stops before an id that has no row: on a GPU that is an end of all."""
    values = None if reverse or inputs_ is None else _host(inputs_)
    if values is None or values.dtype.kind not in "iuf":
        return
    if np.all(values == np.floor(values)):
        ids.append((layer, values))
        if inputs.is_outside(layer, values):
            raise Stopped


def seen(calls, outputs):
    """A `Seen` and its tensor for each call with a float result.

    Args:
        calls: What `watched` has collected.
        outputs: The outputs of the model: what has their shape is kept whole.
    """
    shapes = {tuple(x.shape) for x in outputs}
    result = []
    for layer, tensor in calls:
        values = _concrete(tensor)
        if values is None:
            continue
        keep = values.shape in shapes and values.size <= _KEPT
        # Not reshaped: PyTorch's images are views, which that would copy.
        sample = values.flat[:: max(1, values.size // _SAMPLE)]
        name = activation(layer)
        one = Seen(layer.name, name, sample, values.copy() if keep else None)
        result.append((one, tensor))
    return result


def mark_bad_rows(pairs):
    """Finds the rows that are not finite in what `seen` has returned."""
    for one, tensor in pairs:
        values = host(tensor)
        one.bad_rows = tuple(bad_rows(values))
        if one.bad_rows and values.ndim > 1:
            one.nan_rows = _rows_with(np.isnan(values))
            one.masked_rows = _rows_with(np.isneginf(values).all(axis=-1))


def _rows_with(flags):
    rows = flags.reshape(len(flags), -1).any(axis=1)
    return tuple(np.flatnonzero(rows).tolist())


def activation(layer):
    """The name of what a layer applies at its end; None if not known."""
    if isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    function = getattr(layer, "activation", None)
    if callable(function):
        return getattr(function, "__name__", type(function).__name__).lower()
    # Layers and operations that are activations: Softmax, ReLU, Sigmoid, Clip.
    name = type(layer).__name__.lower()
    return name if name in _ACTIVATIONS else None


_ACTIVATIONS = {
    "softmax",
    "sigmoid",
    "hardsigmoid",
    "tanh",
    "hardtanh",
    "relu",
    "relu6",
    "clip",
}


def _concrete(tensor):
    """The values of a float tensor; None of others."""
    values = _host(tensor)
    return values if values is not None and values.dtype.kind == "f" else None


def _host(tensor):
    """The values of a tensor; None where it has none.

    Inside a compiled part, such as the loop of an RNN, a tensor has no values,
    and each backend says so by another exception.
    """
    try:
        return host(tensor)
    except Exception:
        return None
