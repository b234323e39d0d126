"""What the layers of a model return, seen from outside."""

import contextlib

import keras
from keras import tree

from keras_xent import _keras
from keras_xent.diagnosis.evidence import Seen, bad_rows, host

# Entries of a layer's output that are looked at: a share of them is known to
# 1 % or so, and all of them would take seconds in a large model.
_SAMPLE = 10_000

# Larger outputs are not kept as a whole.
_KEPT = 1_000_000


@contextlib.contextmanager
def watched(model):
    """A list that fills with layers and the tensors that they return.

    Operations in the graph of a functional model count as layers.
    """
    calls = []
    watched = list(_layers_and_operations(model))
    for layer in watched:
        vars(layer)["call"] = _noted(layer, calls)
    try:
        yield calls
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


def _noted(layer, calls):
    call = layer.call

    def noted(*args, **kwargs):
        result = call(*args, **kwargs)
        calls.extend((layer, x) for x in tree.flatten(result))
        return result

    return noted


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
        one.bad_rows = tuple(bad_rows(host(tensor)))


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
    """The values of a float tensor; None of others.

    Inside a compiled part, such as the loop of an RNN, a tensor has no values,
    and each backend says so by another exception.
    """
    try:
        values = host(tensor)
    except Exception:
        return None
    return values if values.dtype.kind == "f" else None
