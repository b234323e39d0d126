"""Checks of what goes into a model: shapes, types, and ids of embeddings."""

import re

import keras
import numpy as np
from keras import tree

from keras_xent import _keras
from keras_xent.diagnosis import data, ends
from keras_xent.diagnosis.evidence import NAMED, host
from keras_xent.diagnosis.report import ERROR, Finding

# Ids above this multiple of the table are no vocabulary with a few tokens more,
# but numbers from elsewhere.
_FAR_OUTSIDE = 2

# How Keras says that an input does not fit a layer.
_MISFIT = re.compile(
    r"Input \d+ (with name .*? )?of layer [\"'](?P<layer>[^\"']+)[\"'] is "
    r"incompatible with the layer: (?P<why>[^\x1b\n]+)"
)


def findings(evidence):
    """Ids that an `Embedding` has no row for."""
    for layer, ids in evidence.ids:
        if is_outside(layer, ids):
            yield _out_of_range(evidence, layer, ids)
            return


def not_numbers(x, model):
    """Findings on inputs that no tensor can hold, before there are any."""
    takes_text = any(t.dtype == "string" for t in _inputs(model))
    for name, leaf in data.named(x, "x"):
        kind = leaf.dtype.kind if isinstance(leaf, np.ndarray) else "f"
        if kind not in "USOMmc" or (takes_text and kind in "USO"):
            continue
        plain = kind in "USO" and (
            data.numbers_in(leaf) or data.numbers_with_holes(leaf)
        )
        yield Finding(
            "input-format",
            ERROR,
            name,
            "The inputs are not numbers.",
            {"dtype": str(leaf.dtype), "first entry": leaf.flat[0]},
            "Numbers lie in an array of Python objects or of text, as those of "
            "a table do whose columns are of several types."
            if plain
            else "A column holds names, dates or text.",
            f"{name} = {name}.astype('float32')" if plain else _numbered(name),
        )


def _numbered(name):
    return (
        f"columns = np.reshape({name}, (len({name}), -1)).T\n"
        "def numbers(column):\n"
        "    try:\n"
        "        return column.astype('float32')\n"
        "    except (TypeError, ValueError):  # names become 0, 1, 2\n"
        "        return np.unique(\n"
        "            column.astype(str), return_inverse=True\n"
        "        )[1]\n\n"
        f"{name} = np.stack(\n"
        "    [numbers(column) for column in columns], axis=1\n"
        f").reshape(np.shape({name})).astype('float32')"
    )


def is_outside(layer, ids):
    """Whether an `Embedding` has no row for one of the ids."""
    return bool(ids.size) and (
        ids.min() < 0 or np.floor(ids.max()) >= layer.input_dim
    )


def of_error(evidence, error):
    """Findings that explain what the model has raised."""
    wanted = _inputs(evidence.model)
    given = data.named(evidence.x, "x")
    if wanted and len(wanted) != len(given):
        yield _another_number(wanted, given)
        return
    ordered = _ordered(wanted, evidence.x) if wanted else [None] * len(given)
    for (name, leaf), tensor in zip(given, ordered, strict=True):
        if tensor is None:
            continue
        if not _fits(leaf.shape[1:], tensor.shape[1:]):
            yield _another_shape(evidence, name, leaf, tensor)
            return
    misfit = _MISFIT.search(str(error))
    if misfit and isinstance(error, ValueError):
        yield _misfit(evidence, misfit)


def _inputs(model):
    """The inputs of a functional or sequential model; () of others."""
    try:
        return list(tree.flatten(model.inputs))
    except AttributeError:
        return []


def _ordered(wanted, x):
    """The inputs in the order of the arrays: dictionaries go by name."""
    by_name = {tensor.name: tensor for tensor in wanted}
    if isinstance(x, dict) and set(by_name) == set(x):
        names = [path[0] for path, _ in tree.flatten_with_path(x)]
        return [by_name[name] for name in names]
    return wanted


def _fits(given, wanted):
    """Whether Keras takes a shape: a last axis of 1 comes or goes."""
    given, wanted = list(given), list(wanted)
    if len(given) == len(wanted) + 1 and given[-1] == 1:
        given = given[:-1]
    if len(given) + 1 == len(wanted) and wanted[-1] in (1, None):
        given = [*given, 1]
    return len(given) == len(wanted) and all(
        b is None or a == b for a, b in zip(given, wanted, strict=True)
    )


def _another_number(wanted, given):
    names = [tensor.name for tensor in wanted]
    each = ", ".join(f"{name!r}: x[{i}]" for i, name in enumerate(names))
    return Finding(
        "input-format",
        ERROR,
        "x",
        f"The model has {len(names)} inputs, but x holds {len(given)} arrays.",
        {
            "inputs of the model": names,
            "shapes given": [tuple(leaf.shape) for _, leaf in given],
        },
        "An input is missing, or x has one too many.",
        f"x = {{{each}}}  # one array for each input, by name",
    )


def _another_shape(evidence, name, leaf, tensor):
    given, wanted = tuple(leaf.shape[1:]), tuple(tensor.shape[1:])
    cause, cure = _reshaped(evidence, name, given, wanted)
    return Finding(
        "input-format",
        ERROR,
        name,
        "The model was made for inputs of another shape.",
        {
            "shape of a row": given,
            f"shape that input {tensor.name!r} takes": wanted,
        },
        cause,
        cure,
    )


def _reshaped(evidence, name, given, wanted):
    """The likely cause of another shape, and code."""
    if None not in wanted and np.prod(given) == np.prod(wanted):
        if sorted(given) == sorted(wanted) and len(given) > 1:
            order = _order(given, wanted)
            return (
                "The axes are in another order, as with channels first.",
                f"{name} = np.transpose({name}, {(0, *order)})",
            )
        return (
            "The rows have the right numbers in another shape: images that "
            "were to be flattened, or the other way round.",
            f"{name} = np.reshape({name}, {(-1, *wanted)})",
        )
    if (
        len(given) == len(wanted) + 1
        and given[-1] in (3, 4)
        and (wanted[-1:] != (3,))
    ):
        return (
            "Color images for a model of gray ones.",
            f"{name} = {name}[..., :3].mean(axis=-1)",
        )
    if (
        len(given) == len(wanted)
        and given[:-1] == wanted[:-1]
        and (given[-1:] == (1,) and wanted[-1:] == (3,))
    ):
        return (
            "Gray images for a model of colors.",
            f"{name} = np.repeat({name}, 3, axis=-1)",
        )
    cause = "keras.Input was given another shape than the data have: a column "
    cause += "too many or too few, such as the labels, an index or a step."
    if tree.is_nested(evidence.x):
        return cause, f"{name}_input = keras.Input({given})  # in the model"
    return cause, (
        "# if x is as it should be, the same layers for its shape:\n"
        f"inputs = keras.Input({given})\n"
        "model = keras.models.clone_model(model, input_tensors=inputs)\n"
        "# then compile it as before"
    )


def _order(given, wanted):
    """For each axis that is wanted, where it is among those that are given."""
    free = list(range(len(given)))
    order = []
    for size in wanted:
        axis = next(axis for axis in free if given[axis] == size)
        free.remove(axis)
        order.append(axis + 1)
    return order


def _misfit(evidence, misfit):
    why = " ".join(misfit["why"].split())
    shapes = [tuple(leaf.shape[1:]) for _, leaf in data.named(evidence.x, "x")]
    return Finding(
        "input-format",
        ERROR,
        f"layer {misfit['layer']!r}",
        f"What goes into this layer does not fit it: {why}",
        {"shape of a row of x": shapes[0] if len(shapes) == 1 else shapes},
        "The model was built for rows of another shape than these, or a layer "
        "before this one is missing (Flatten, Reshape, a pooling).",
        "# a model of the same kind, made anew: its layers take their sizes\n"
        "# from the first rows that they see\n"
        "model = type(model).from_config(model.get_config())\n"
        "model(x[:1])  # then compile it as before",
    )


def _out_of_range(evidence, layer, ids):
    size = layer.input_dim
    name, leaf = _where_from(evidence, ids)
    everything = ids if leaf is None else host(leaf)
    bad = (everything < 0) | (everything >= size)
    numbers = {
        "rows of its table": size,
        "smallest id": int(everything.min()),
        "largest id": int(everything.max()),
        "ids outside": int(bad.sum()),
    }
    if bad.shape[:1] == (len(everything),) and leaf is not None:
        rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
        numbers["rows of the data"] = rows[:NAMED].tolist()
    cause, cure = _cure_of_ids(evidence, layer, name, everything)
    return Finding(
        "ids-out-of-range",
        ERROR,
        f"layer {layer.name!r}",
        f"Ids have no row in this Embedding, which has the rows 0 to {size - 1}"
        ". Depending on the backend it raises, or gives NaN or another row.",
        numbers,
        cause,
        cure,
    )


def _where_from(evidence, ids):
    """The input that holds the ids, `(name, all of it)`, or `(None, None)`."""
    every = dict(data.named(evidence.everything[0], "x"))
    for name, leaf in data.named(evidence.x, "x"):
        if tuple(leaf.shape) == ids.shape and np.array_equal(host(leaf), ids):
            return name, every.get(name)
    return None, None


def _cure_of_ids(evidence, layer, name, ids):
    size, low, high = layer.input_dim, int(ids.min()), int(ids.max())
    if low < 0 and name:
        return (
            "A negative number, such as -1, marks padding or what is unknown.",
            f"{name} = np.where({name} < 0, 0, {name})  # 0 is padding",
        )
    if low >= 1 and high == size and name and not layer.mask_zero:
        return (
            "The ids count from 1; the rows of an Embedding from 0.",
            f"{name} = {name} - 1",
        )
    few = name and len(np.unique(ids)) <= size
    if high >= _FAR_OUTSIDE * size and few:
        return (
            "The ids have gaps: they are not numbered from 0 on.",
            f"{name} = np.unique({name}, return_inverse=True)[1].reshape(\n"
            f"    {name}.shape\n"
            ")",
        )
    cause = "The table is as large as the vocabulary without its special "
    cause += "tokens (padding, unknown, start, end), or the data have more "
    cause += "tokens or steps than it was made for."
    larger = ends.with_config(evidence.model, layer, input_dim=high + 1)
    if larger:
        return cause, larger
    if name:
        return cause, (
            f"{name} = np.where({name} < {size}, {name}, 0)  # unknown\n"
            f"# or a larger table: "
            f"keras.layers.Embedding({high + 1}, {layer.output_dim})"
        )
    return cause, f"keras.layers.Embedding({high + 1}, {layer.output_dim})"


def has_embeddings(model):
    return any(
        isinstance(layer, keras.layers.Embedding)
        for layer in _keras.flat_layers(model)
    )
