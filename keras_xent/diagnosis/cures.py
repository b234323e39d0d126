"""Cures as code that runs: losses, last layers and metrics that fit."""

import inspect
import textwrap

import keras

from keras_xent.diagnosis.activations import NORMALIZING, final_activation
from keras_xent.diagnosis.calls import activation
from keras_xent.losses.base import RowLoss
from keras_xent.losses.kinds import CLASS_IDS, DISTRIBUTION, YES_NO

# The loss of logits, the loss of probabilities, and what makes the latter.
_LOSSES = {
    CLASS_IDS: ("SparseSoftmax", "SparseCategorical", "softmax"),
    DISTRIBUTION: ("Softmax", "Categorical", "softmax"),
    YES_NO: ("Sigmoid", "Binary", "sigmoid"),
}

# What Keras wraps a function in that was given as a loss, or its name.
_OF_FUNCTIONS = {
    keras.losses.sparse_categorical_crossentropy: (
        keras.losses.SparseCategoricalCrossentropy
    ),
    keras.losses.binary_crossentropy: keras.losses.BinaryCrossentropy,
}

# A line of a cure holds so many columns: a report indents it by four of 79.
_ROOM = 75

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def loss_line(output, code):
    """`loss = ...`, among the losses of a model that has several."""
    given = getattr(output.model, "loss", None)
    if isinstance(given, dict):
        parts = ["**model.loss", f"{output.name!r}: {code}"]
        return _joined("loss = {", parts, "}")
    if isinstance(given, (list, tuple)):
        return f"loss = list(model.loss)\nloss[{output.index}] = {code}"
    return f"loss = {code}"


def _joined(start, parts, end, room=_ROOM):
    """Code with commas between the parts: one line, or one for each part."""
    line = start + ", ".join(parts) + end
    if len(line) <= room:
        return line
    lines = [textwrap.indent(f"{part},", "    ") for part in parts]
    return "\n".join([start, *lines, end])


def metrics_line(output, code):
    """`metrics = [...]`, for its output in a model that has several."""
    if isinstance(getattr(output.model, "loss", None), (dict, list, tuple)):
        return f"metrics = {{{output.name!r}: [{code}]}}"
    return f"metrics = [{code}]"


def loss_of(labels, output):
    """Code of a loss of such labels that fits the last activation.

    Args:
        labels: The kind: class ids, a distribution, or yes and no.
    """
    ours, keras_name, wanted = _LOSSES[labels]
    present = final_activation(output)
    if present in NORMALIZING:
        swap = "" if present == wanted else with_activation(output, wanted)
        return swap + loss_line(
            output, f"keras.losses.{keras_name}Crossentropy()"
        )
    bare = present in (None, "linear")
    swap = "" if bare else with_activation(output, "linear")
    return swap + loss_line(output, f"keras_xent.losses.{ours}Crossentropy()")


def leaving_out(output, values):
    """Code of the loss that leaves out labels of these values.

    Keras's sparse loss takes one such value, and the others none: the losses
    of keras_xent, which take several, want logits.
    """
    loss, several = output.loss, sorted({*output.expects.ignored, *values})
    shown = several if len(several) > 1 else several[0]
    kind = _OF_FUNCTIONS.get(getattr(loss, "fn", None), type(loss))
    known = "ignore_class" in inspect.signature(kind).parameters
    if known and (isinstance(loss, RowLoss) or len(several) == 1):
        return loss_line(output, _again(loss, kind, ignore_class=shown))
    if known and final_activation(output) == "softmax":
        merged = several[0]
        return (
            f"y = np.where(np.isin(y, {several}), {merged}, y)\n"
            "# for the loss takes one number:\n"
            + loss_line(output, _again(loss, kind, ignore_class=merged))
        )
    if output.expects.labels not in _LOSSES:
        return (
            f"sample_weight = (~np.isin(y, {several})).astype('float32')\n"
            "y = np.where(sample_weight, y, 0)"
        )
    ours = _LOSSES[output.expects.labels][0]
    bare = final_activation(output) in (None, "linear")
    return ("" if bare else with_activation(output, "linear")) + loss_line(
        output, f"keras_xent.losses.{ours}Crossentropy(ignore_class={shown})"
    )


def _again(loss, kind, **changes):
    """Code of a loss like another, with some arguments changed."""
    config = loss.get_config()
    package = "keras_xent" if isinstance(loss, RowLoss) else "keras"
    arguments = {
        name: config[name]
        for name, argument in inspect.signature(kind).parameters.items()
        if name in config
        and name not in ("name", "dtype")
        and config[name] != argument.default
    }
    arguments |= changes
    shown = [f"{key}={value!r}" for key, value in arguments.items()]
    start = f"{package}.losses.{kind.__name__}("
    return _joined(start, shown, ")", _ROOM - len("loss = "))


def with_activation(output, name, seen=None):
    """Code that exchanges an activation at the end, a line or more.

    Args:
        name: The new one.
        seen: What applies the old one; by default the last layer.
    """
    model, seen = output.model, seen or output.last
    path, layer = _found(model, seen)
    if isinstance(layer, keras.layers.TimeDistributed):
        path, layer = f"{path}.layer", layer.layer
    recurrent = (keras.layers.RNN, keras.layers.Bidirectional)
    if isinstance(layer, recurrent) and _single_output(model):
        dense = f"keras.layers.Dense({output.classes}, {name!r})"
        return _model_of([f"{dense}(model.outputs[0])"])
    if not isinstance(layer, recurrent) and callable(
        getattr(layer, "activation", None)
    ):
        line = f"{path}.activation = keras.activations.{name}\n"
        if len(line) <= _ROOM:
            return line
        return f"layer = {path}\nlayer.activation = keras.activations.{name}\n"
    chain = _chain(model, None if seen is None else seen.name)
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
    if not _single_output(model):
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
    path, layer = _found(output.model, output.last)
    if isinstance(layer, keras.layers.Softmax):
        return f"{path}.axis = {axis}\n"
    if _chain(output.model, output.last.name if output.last else None):
        softmax = f"keras.layers.Softmax(axis={axis})"
        return _model_of([f"{softmax}(model.operations[-1].input)"])
    return f"# in the model: keras.ops.softmax(scores, axis={axis})\n"


def ending_in_softmax(output):
    """Code that takes away what follows the last softmax."""
    softmax = [s for s in output.before if s.activation == "softmax"][-1]
    path, layer = _found(output.model, softmax)
    if layer is None or not _single_output(output.model):
        return "# in the model: nothing behind the softmax\n"
    return _model_of([f"{path}.output"])


def with_units(output, units, name):
    """Code that gives the model another number of units at its end.

    Args:
        name: The activation that goes with them, or None.
    """
    last = _last_dense(output.model)
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


def as_regression(output):
    """Code of a last layer and a loss for numbers of any size."""
    change = ""
    if output.y_pred.shape[1:] not in ((), (1,)):
        change = with_units(output, 1, None)
    elif final_activation(output) not in (None, "linear"):
        change = with_activation(output, "linear")
    return change + loss_line(output, "'mse'")


def as_classes(output, classes):
    """Code of a last layer and a loss for class ids."""
    return with_units(output, classes, None) + loss_line(
        output, "keras_xent.losses.SparseSoftmaxCrossentropy()"
    )


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
    if not _single_output(model) or output.y_pred.ndim > 5:
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
    if not _single_output(model):
        return None
    for layer in reversed(model.layers):
        if isinstance(layer, (keras.layers.Dense, *_CONVOLUTIONS)):
            return layer
        if layer.weights or activation(layer) is None:
            return None
    return None


def _single_output(model):
    """Whether it is a graph of layers with one output."""
    outputs = getattr(model, "outputs", None)
    return outputs is not None and len(keras.tree.flatten(outputs)) == 1


def _found(model, seen):
    """The code of a layer and the layer; None twice if it is not there."""
    for path, layer in _layers(model):
        if seen is not None and layer.name == seen.name:
            return path, layer
    return None, None
