"""Cures as code that runs: other layers, at the end of a model above all."""

import textwrap

import keras

from keras_xent.diagnosis.activations import final_activation
from keras_xent.diagnosis.calls import activation

# A line of a cure holds so many columns: a report indents it by four of 79.
ROOM = 75

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def linear(output):
    """Code that takes away the last activation; "" where there is none."""
    if final_activation(output) in (None, "linear"):
        return ""
    return with_activation(output, "linear")


def is_comment(code):
    """Whether it says what to do where no code can do it."""
    return code.startswith("#")


def as_comment(code):
    return "\n".join(f"# {line}" for line in code.split("\n"))


def with_activation(output, name, seen=None):
    """Code that exchanges an activation at the end, a line or more.

    Args:
        name: The new one.
        seen: What applies the old one; by default the last layer.
    """
    model, seen = output.model, seen or output.last
    place = None if seen is None else seen.name
    path, layer = found(model, place)
    if isinstance(layer, keras.layers.TimeDistributed):
        path, layer = f"{path}.layer", layer.layer
    recurrent = (keras.layers.RNN, keras.layers.Bidirectional)
    if isinstance(layer, recurrent) and has_single_output(model):
        dense = f"keras.layers.Dense({output.classes}, {name!r})"
        return _model_of([f"{dense}(model.outputs[0])"])
    if not isinstance(layer, recurrent) and callable(
        getattr(layer, "activation", None)
    ):
        line = f"{path}.activation = keras.activations.{name}\n"
        if len(line) <= ROOM:
            return line
        return f"layer = {path}\nlayer.activation = keras.activations.{name}\n"
    chain = _chain(model, place)
    if not chain:
        present = final_activation(output)
        return f"# in the model, {name} in place of {present} at the end\n"
    first, *rest = chain
    new = f"keras.layers.Activation({name!r})(outputs)"
    made = [f"{first}.input", *([] if name == "linear" else [new])]
    return _model_of([*made, *(f"{each}(outputs)" for each in rest)])


def _model_of(steps):
    """Code of a model that ends in other outputs, made in so many steps."""
    lines = [f"outputs = {step}" for step in steps]
    lines.append("model = keras.Model(model.inputs, outputs)")
    return "\n".join(lines) + "\n"


def _chain(model, name):
    """The code of a layer and of the activations that follow it to the end.

    Empty where the model is no graph, or where other things follow.
    """
    if not has_single_output(model):
        return []
    graph = list(getattr(model, "operations", model.layers))
    names = [each.name for each in graph]
    if name not in names:
        return []
    place = names.index(name)
    if any(activation(each) is None for each in graph[place + 1 :]):
        return []
    return [
        f"model.get_layer({each.name!r})"
        if isinstance(each, keras.layers.Layer)
        else f"model.operations[{i}]"
        for i, each in enumerate(graph)
        if i >= place
    ]


def with_axis(output, axis):
    """Code that makes the softmax at the end run over another axis."""
    path, layer = found(output.model, output.last and output.last.name)
    if isinstance(layer, keras.layers.Softmax):
        return f"{path}.axis = {axis}\n"
    if _chain(output.model, output.last and output.last.name):
        softmax = f"keras.layers.Softmax(axis={axis})"
        return _model_of([f"{softmax}(model.operations[-1].input)"])
    return f"# in the model: keras.ops.softmax(scores, axis={axis})\n"


def ending_in_softmax(output):
    """Code that takes away what follows the last softmax."""
    softmax = [s for s in output.before if s.activation == "softmax"][-1]
    path, layer = found(output.model, softmax.name)
    if layer is None or not has_single_output(output.model):
        return "# in the model: nothing behind the softmax\n"
    return _model_of([f"{path}.output"])


def with_units(output, units, keep=True):
    """Code that gives the model another number of units at its end.

    Args:
        keep: Whether to keep the last activation.
    """
    last = _last_dense(output.model)
    name = final_activation(output) if keep else None
    if name == "linear" or (name == "softmax" and units == 1):
        name = None
    shown = "" if name is None else f", activation={name!r}"
    layer = f"keras.layers.Dense({units}{shown})"
    if last is None:
        return f"{layer}  # in place of the last layer\n"
    if not isinstance(last, keras.layers.Dense):
        config = f"'filters': {units}, 'activation': {name or 'linear'!r}"
        layer = f"keras.layers.{type(last).__name__}.from_config(\n"
        layer += "    {**last.get_config(), " + config + "})"
    return f"last = model.get_layer({last.name!r})\n" + _model_of(
        [f"{layer}(last.input)"]
    )


def with_config(model, layer, **changes):
    """Code of a model in which a layer has other arguments; "" without it."""
    if layer not in model.layers or not hasattr(model, "inputs"):
        return ""
    lines = [f"        config[{k!r}] = {v!r}\n" for k, v in changes.items()]
    return (
        "def changed(layer):\n"
        "    config = layer.get_config()\n"
        f"    if layer.name == {layer.name!r}:\n"
        + "".join(lines)
        + "    return type(layer).from_config(config)\n\n"
        "model = keras.models.clone_model(model, clone_function=changed)\n"
        "# then compile it as before\n"
    )


def of_both(model, made):
    """Code of a model that ends in something else made of its two inputs.

    Args:
        made: Code of what takes `[a, b]`.
    """
    place = _of_two(model)
    if place is None:
        line = f"outputs = {made}([a, b])\n"
        return "# in the model, of the outputs of the tower:\n# " + line
    return f"a, b = model.operations[{place}].input\n" + _model_of(
        [f"{made}([a, b])"]
    )


def _of_two(model):
    """The place of the last operation on what two layers return, or None."""
    graph = list(getattr(model, "operations", ()))
    between = {
        id(tensor)
        for each in graph
        if not isinstance(each, keras.layers.Layer)
        for tensor in keras.tree.flatten(each.output)
    }
    for place in reversed(range(len(graph))):
        inner = keras.tree.flatten(graph[place].input)
        if len(inner) == 2 and between.isdisjoint(map(id, inner)):
            return place
    return None


def of_whole_rows(output):
    """Code of a model that answers once for a row, not once for a step."""
    model = output.model
    sequences = [
        each for each in _layers(model) if hasattr(each[1], "return_sequences")
    ]
    each_step = (keras.layers.TimeDistributed, *_CONVOLUTIONS)
    names = [layer for _, layer in _layers(model)]
    if sequences and sequences[-1][1].return_sequences:
        path, layer = sequences[-1]
        after = names[names.index(layer) + 1 :]
        if not any(isinstance(each, each_step) for each in after):
            return _last_step(model, path, layer)
    pooling = f"keras.layers.GlobalAveragePooling{output.y_pred.ndim - 2}D()"
    if not has_single_output(model) or output.y_pred.ndim > 5:
        return f"{pooling}  # or Flatten(), before the last layer"
    last = _last_dense(model)
    if not isinstance(last, keras.layers.Dense):
        return _model_of([f"{pooling}(model.outputs[0])"])
    first, *rest = _chain(model, last.name)
    return f"last = {first}\n" + _model_of(
        [f"last({pooling}(last.input))", *(f"{each}(outputs)" for each in rest)]
    )


def _last_step(model, path, layer):
    """Code that lets a recurrent layer return its last step only."""
    both = hasattr(layer, "forward_layer")
    parts = (".forward_layer", ".backward_layer", "") if both else ("",)
    lines = [f"{path}{part}.return_sequences = False" for part in parts]
    if hasattr(model, "outputs"):  # Its shapes are part of the graph.
        lines.append("model = keras.models.clone_model(model)")
    return "\n".join(lines)


def _layers(model, path="model"):
    """The code of each layer and the layer, those of models within too."""
    for layer in model.layers:
        here = f"{path}.get_layer({layer.name!r})"
        if isinstance(layer, keras.Model):
            yield from _layers(layer, here)
        else:
            yield here, layer


def _last_dense(model):
    """The last layer with weights, if all after it are activations."""
    if not has_single_output(model):
        return None
    for layer in reversed(model.layers):
        if isinstance(layer, (keras.layers.Dense, *_CONVOLUTIONS)):
            return layer
        if layer.weights or activation(layer) is None:
            return None
    return None


def has_single_output(model):
    """Whether it is a graph of layers with one output."""
    outputs = getattr(model, "outputs", None)
    return outputs is not None and len(keras.tree.flatten(outputs)) == 1


def found(model, name):
    """The code of a layer and the layer; None twice if it is not there."""
    for path, layer in _layers(model):
        if layer.name == name:
            return path, layer
    return None, None


def first_weights(paths):
    """Code of first weights as Keras makes them, for layers of these paths."""
    shown = [repr(f"{path}/") for path in paths]
    return (
        joined("paths = [", shown, "]")
        + "\nfor variable in model.trainable_variables:\n"
        "    if variable.path.startswith(tuple(paths)):\n"
        "        first = keras.initializers.Zeros()  # of a bias\n"
        "        if len(variable.shape) > 1:\n"
        "            first = keras.initializers.HeNormal()\n"
        "        variable.assign(first(variable.shape))\n"
    )


def joined(start, parts, end, room=ROOM):
    """Code with commas between the parts: one line, or one for each part."""
    line = start + ", ".join(parts) + end
    if len(line) <= room:
        return line
    lines = [textwrap.indent(f"{part},", "    ") for part in parts]
    return "\n".join([start, *lines, end])
