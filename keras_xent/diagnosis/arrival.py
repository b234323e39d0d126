"""Checks whether the gradient reaches all layers, and why it does not."""

import keras
import numpy as np

from keras_xent import _keras
from keras_xent.diagnosis import cures, data, ends
from keras_xent.diagnosis.evidence import NAMED, by_layer, host, is_zero
from keras_xent.diagnosis.report import ERROR, WARNING, Finding

# Units are dead when this share of their outputs is 0. ReLU layers of trained
# networks have up to 95 % zeros.
_DEAD = 0.99

# So many layers one behind the other, the gradient of the first below this
# share of the largest, and that of the one in the middle on the way there.
_DEEP = 5
_VANISHED = 1e-5
_ON_THE_WAY = 1e-2

# From one layer to the next it may rise by chance, by less than this factor.
_BY_CHANCE = 10

# The loss of a single row that is compared with nothing.
_NO_LOSS = 1e-6

_RELUS = ("relu", "relu6", "threshold")

# Operations that are flat wherever they have a slope, by the name of their
# class, and those that cut by intention.
_STAIRS = (
    "Round",
    "Floor",
    "Ceil",
    "Trunc",
    "Sign",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "Equal",
    "NotEqual",
)
_CUTS = (*_STAIRS, "Argmax", "Argmin", "StopGradient")

# They hand on what they are given, in another dtype or shape.
_HAND_ON = ("Cast", "ExpandDims", "Reshape", "Squeeze", "Identity")


def nothing_trainable(evidence):
    if evidence.gradients:
        return
    model = evidence.model
    optimizer = cures.optimizer_line(
        model.optimizer, evidence.learning_rate or None
    )
    yield Finding(
        "nothing-trainable",
        ERROR,
        "the whole model",
        "No weight may change, so the loss stays what it is for ever.",
        {"weights": len(model.weights), "of these trainable": 0},
        "All layers are frozen: trainable is False, of the model or of each "
        "layer of it. The last layer, at least, has to learn."
        if model.weights
        else "The model has no layer that has weights.",
        # On TensorFlow a model that is True already does not pass it on.
        "model.trainable = True\n"
        "for layer in model.layers:  # or some of them\n"
        "    layer.trainable = True\n"
        f"{optimizer}  # compile with it"
        if model.weights
        else "model = keras.Sequential(\n"
        "    [model, keras.layers.Flatten(), keras.layers.Dense(64)]\n"
        ")",
    )


def vanishing(evidence):
    """Layers one behind the other, each of which makes the gradient smaller."""
    sizes, largest = {}, 0.0
    for layer, gradients in by_layer(evidence.gradients).items():
        for _, gradient in gradients:
            if gradient is None:
                continue
            size = float(np.abs(gradient).max())
            # A bias has it in full, where a kernel is behind outputs near 0.
            largest = max(largest, size)
            if gradient.ndim > 1:
                sizes[layer] = max(sizes.get(layer, 0.0), size)
    names, values = list(sizes), np.array(list(sizes.values()))
    if len(values) < _DEEP or not largest > 0:
        return
    share = values / largest
    if share[0] >= _VANISHED or share[len(share) // 2] >= _ON_THE_WAY:
        return
    # Behind a layer that scales by next to nothing it comes back at once.
    first = share[: len(share) // 2]
    rises = np.any(first[:-1] > _BY_CHANCE * first[1:])
    if rises and first.max() > _VANISHED:
        return
    if not np.any((share > 0) & (share < _ON_THE_WAY)):
        return  # Cut, not fading.
    kinds = [seen.activation for seen in evidence.layers if seen.activation]
    usual = max(set(kinds), key=kinds.count) if kinds else None
    yield Finding(
        "vanishing-gradient",
        WARNING,
        f"layer {names[0]!r}",
        "The gradient fades on its way back through the layers, and hardly "
        "any of it reaches the first: they do not learn.",
        {
            "layers": len(names),
            "gradient of the first": float(values[0]),
            "of the one in the middle": float(values[len(values) // 2]),
            "largest": largest,
            "activation": usual or "none",
        },
        f"Many layers with {usual}, each of which lets through a quarter of "
        "the gradient or less."
        if usual == "sigmoid"
        else "Many layers one behind the other, each of which makes the "
        "gradient smaller: by its activation, or by small first weights.",
        _repaired_stack(evidence, names),
    )


def _repaired_stack(evidence, names):
    first, last = (names[i].rpartition("/")[2] for i in (0, -1))
    path = ends.found(evidence.model, first)[0] or "model"
    return (
        "# an activation that keeps the size, with its first weights, inside:\n"
        f"stack = {path.rpartition('.')[0] or path}\n"
        "for layer in stack.layers:\n"
        f"    if hasattr(layer, 'kernel') and layer.name != {last!r}:\n"
        "        first = keras.initializers.LecunNormal()\n"
        "        layer.kernel.assign(first(layer.kernel.shape))\n"
        "        layer.activation = keras.activations.selu\n"
        "# or residual connections, x + layer(x), and LayerNormalization"
    )


def dead(evidence):
    later = by_layer(evidence.later_gradients)
    groups = by_layer(evidence.gradients)
    # Zero weights in front of a layer hide it for one step only.
    names = [
        layer
        for layer, gradients in groups.items()
        if is_zero(gradients) and is_zero(later.get(layer, []))
    ]
    if not names:
        return
    numbers = {
        "layers without a gradient": len(names),
        "of": len(groups),
        "namely": names[:NAMED],
    }
    whole = len(names) == len(groups)
    cause, cure = next(_reasons(evidence, names, whole, numbers))
    yield Finding(
        "dead-gradient",
        ERROR if whole else WARNING,
        "the whole model" if whole else f"layer {names[0]!r}",
        "The gradient is exactly 0 for all weights: no step changes anything."
        if whole
        else "Layers get a gradient of exactly 0: they do not learn.",
        numbers,
        cause,
        cure,
    )


def _reasons(evidence, names, whole, numbers):
    """Causes and their cures, the surest first."""
    yield from _normalized_alone(evidence, numbers)
    yield from _dead_units(evidence, names, numbers)
    yield from _compared_with_none(evidence, whole, numbers)
    yield from _zero_inputs(evidence, numbers)
    yield from _clipped(evidence)
    yield from _without_a_loss(evidence, names, whole, numbers)
    yield from _cut(evidence)
    yield (
        "Something between the weights and the loss is flat or cuts the "
        "gradient: argmax, round or a comparison, a clip beyond its bounds, "
        "stop_gradient, or NumPy in the middle.",
        "# train the scores, and round when you predict: in the model and in\n"
        "# the loss, no argmax(scores), round(scores) or scores > 0.5",
    )


def _normalized_alone(evidence, numbers):
    """Batch normalization of one number for each channel gives 0."""
    if evidence.rows > 1:
        return
    channels = {
        layer.name: layer.moving_mean.shape[0]
        for layer in _keras.flat_layers(evidence.model)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and layer.built
    }
    for seen in evidence.layers:
        if channels.get(seen.name) == seen.sample.size:
            numbers["rows"] = 1
            yield (
                f"BatchNormalization ({seen.name!r}) of a single row: the row "
                "less its own mean is 0, whatever the layers before it do.",
                "# more rows at a time: model.fit(x, y, batch_size=32); or, "
                "for single\n# rows, its moving averages:\n"
                "for layer in model.layers:\n"
                "    if isinstance(layer, keras.layers.BatchNormalization):\n"
                "        layer.trainable = False",
            )


def _dead_units(evidence, names, numbers):
    paths = {name.rpartition("/")[2]: name for name in names}
    last = None
    for seen in evidence.layers:
        last = paths.get(seen.name, last)
        if last is None or not seen.sample.size:
            continue
        zeros = float(np.mean(seen.sample == 0))
        if seen.activation in _RELUS and zeros > _DEAD:
            numbers[f"zeros in the output of {seen.name}"] = zeros
        elif seen.name in paths and float(seen.sample.max()) < 0:
            # `ops.relu` in a `call` leaves no layer to look at.
            if not evidence.has_changed or _cuts(evidence.model):
                continue
            numbers[f"largest output of {seen.name}"] = float(seen.sample.max())
        else:
            continue
        yield (
            "The ReLU units are dead: their sum is below 0 for every row, so "
            "that they give 0 and get no gradient. A bias far below 0, a "
            "learning rate that has thrown them there, or inputs that are not "
            "scaled.",
            ends.first_weights([last])
            + (cures.slower(evidence) + "\n" if evidence.steps else "")
            + "# or activation='gelu'",
        )


def _compared_with_none(evidence, whole, numbers):
    if evidence.rows > 1 or not whole or abs(evidence.loss) > _NO_LOSS:
        return
    numbers["rows"] = 1
    yield (
        "The loss compares the rows of a batch with each other, and there is a "
        "single one: it is 0 whatever the model does.",
        "# more rows at a time:\n"
        "report = keras_xent.diagnose(model, x, y, batch_size=32)\n"
        "history = model.fit(x, y, batch_size=32)",
    )


def _zero_inputs(evidence, numbers):
    for name, leaf in data.named(evidence.x, "x"):
        array = host(leaf)
        if array.dtype.kind != "f" or np.any(array):
            continue
        numbers[f"largest entry of {name}"] = 0.0
        yield (
            f"{name} is 0 in all rows, and what is multiplied by 0 has no "
            "gradient.",
            f"# fill {name} from the data as they were read",
        )


def _clipped(evidence):
    for seen in evidence.layers:
        if seen.activation == "clip" and not np.ptp(seen.sample):
            yield (
                f"Everything lies beyond the bounds of {seen.name!r}, which "
                "gives the same number for every row.",
                "# wider bounds, or none in training",
            )


def _without_a_loss(evidence, names, whole, numbers):
    """Layers that the loss does not depend on, whatever their weights are."""
    if whole or evidence.loss_without is None or evidence.has_changed:
        return
    called = {seen.name for seen in evidence.layers}
    unused = [n for n in names if n.rpartition("/")[2] not in called]
    numbers["loss with other weights in these layers"] = evidence.loss_without
    if unused:
        cause = "The model makes layers, and does not call them: "
        cause += ", ".join(unused[:NAMED]) + "."
    else:
        cause = "The loss does not use what they return: an output without a "
        cause += "loss, or a result or an input that is computed and dropped."
    paths = tuple(f"{name}/" for name in names)
    yield (
        cause,
        "# use them in `call` and in the loss; or leave them as they are:\n"
        f"unused = {paths!r}\n"
        "for variable in model.trainable_variables:\n"
        "    if variable.path.startswith(unused):\n"
        "        variable.trainable = False",
    )


def _cuts(model):
    return [
        operation
        for operation in getattr(model, "operations", ())
        if type(operation).__name__ in _CUTS
    ]


def _cut(evidence):
    """An operation of a functional model that cuts the gradient."""
    found = _cuts(evidence.model)
    if not found:
        return
    first = found[0]
    kind = type(first).__name__
    if kind == "StopGradient":
        cause = f"stop_gradient ({first.name!r}) cuts the gradient on purpose."
    else:
        cause = f"The operation {first.name!r} gives steps: flat where it does "
        cause += "not jump, so that it has no gradient."
    at_end = [
        operation
        for operation in evidence.model.operations
        if type(operation).__name__ not in _HAND_ON
    ][-1] is first
    if not at_end:
        cure = f"# train without {first.name!r}, and use it when you predict"
    else:
        cure = (
            "# train what it is made of, and use it when you predict:\n"
            f"cut = [e for e in model.operations if e.name == {first.name!r}]\n"
            "end = cut[0].input\n"
            "end = end[0] if isinstance(end, list) else end\n"
            "model = keras.Model(model.inputs, end)"
        )
        if kind in ("Argmax", "Argmin"):
            cure += (
                "\nloss = keras.losses.SparseCategoricalCrossentropy(\n"
                f"    from_logits={not _ends_in_softmax(evidence)}\n)"
            )
    yield (cause, cure)


def _ends_in_softmax(evidence):
    return any(seen.activation == "softmax" for seen in evidence.layers)
