"""The arrays of a batch or of all data: their names, and what is in them."""

import io
import re
import tokenize

import numpy as np
from keras import ops, tree

from keras_xent.diagnosis import evidence as of
from keras_xent.ops.dtypes import dtype_of

# Entries that are looked at in one go: 4 MB, which a processor's cache holds.
_CHUNK = 1_000_000


# With so many columns at most, each may be of an `Embedding` of its own.
_COLUMNS = 4


def named(structure, name):
    """Pairs of a name, as in `x['left']`, and an array; None is left out."""
    return [
        (_written(name, path), leaf)
        for path, leaf in tree.flatten_with_path(structure)
        if leaf is not None
    ]


def _written(name, path):
    return name + "".join(f"[{key!r}]" for key in path)


def arrays(x, y, sample_weight):
    """All arrays with their names, as the user would write them."""
    parts = {"x": x, "y": y, "sample_weight": sample_weight}
    return [pair for name, part in parts.items() for pair in named(part, name)]


def not_finite(leaf):
    """The rows that are NaN or infinite, in an array of any size in memory."""
    if isinstance(leaf, np.memmap) or not np.ndim(leaf) or not len(leaf):
        return []  # A file would be read from end to end.
    if not isinstance(leaf, np.ndarray):
        return _not_finite_in_tensor(leaf)
    if leaf.dtype.kind != "f":
        return []
    rows, step = [], max(1, _CHUNK * len(leaf) // max(1, leaf.size))
    for start in range(0, len(leaf), step):
        part = leaf[start : start + step]
        # The sum is not finite where an entry is not, and is had in a third
        # of the time; that of large numbers may overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            is_finite = np.isfinite(part.sum())
        if not is_finite:
            rows += [start + row for row in of.bad_rows(part)]
    return rows


def _not_finite_in_tensor(leaf):
    """Where the tensor is: only flags come to the host."""
    if "float" not in dtype_of(leaf):
        return []
    finite = ops.isfinite(ops.convert_to_tensor(leaf))
    finite = of.host(finite).reshape(len(leaf), -1)
    return np.flatnonzero(~finite.all(axis=1)).tolist()


def numbers_in(array):
    """Whether all entries are numbers, as objects or as text."""
    try:
        floats = array.astype("float64")
    except (TypeError, ValueError):
        return False
    # None becomes NaN without an error.
    return not (array.dtype.kind == "O" and np.isnan(floats).any())


def numbers_with_holes(array):
    """Whether entries are numbers or None."""
    there = np.array([each is not None for each in array.reshape(-1)], bool)
    kept = array.reshape(-1)[there]
    try:
        return bool(len(kept)) and np.isfinite(kept.astype("float64")).any()
    except (TypeError, ValueError):
        return False


def extreme_rows(leaf):
    """The rows of the largest and the smallest number of each column."""
    values = of.host(leaf)
    if values.dtype.kind not in "iuf" or isinstance(leaf, np.memmap):
        return []
    values = values.reshape(len(values), -1)
    if not 0 < values.shape[1] <= _COLUMNS:
        values = np.stack([values.min(axis=1), -values.max(axis=1)], axis=1)
        return np.argmin(values, axis=0)
    return [*np.argmax(values, axis=0), *np.argmin(values, axis=0)]


def names(structure, name):
    """The structure with the name of each array, as in `y[0]`, in its place."""
    paths = [path for path, _ in tree.flatten_with_path(structure)]
    leaves = [_written(name, path) for path in paths]
    return tree.pack_sequence_as(structure, leaves)


# Takes the rows that are `good`, as code.
GOOD_ROWS = "x, y = x[good], y[good]"


def cure_of_labels(code, name, x, y, sample_weight):
    """A cure of the labels `y` as one of those that the user calls `name`."""
    before, rows, after = code.partition(GOOD_ROWS)
    several = tree.is_nested(x) or tree.is_nested(y)
    if rows and (several or sample_weight is not None):
        rows = _good_rows(x, y, sample_weight)
    before, after = (_renamed(part, name) for part in (before, after))
    if isinstance(y, tuple) and f"\n{name}" in f"\n{before}":
        before = f"y = list(y)\n{before}"
    return before + rows + after


def _renamed(code, name):
    """Code in which `y` has another name, but not within strings."""
    if name == "y" or name in code:
        return code
    lines = code.split("\n")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (SyntaxError, tokenize.TokenError):
        return code  # No code that runs: words.
    for token in reversed(tokens):
        row, start = token.start
        new = token.string
        if token.type == tokenize.COMMENT:
            new = name.join(re.split(r"\by\b", new))
        elif token.type == tokenize.NAME and new == "y":
            new = name
        if new != token.string:
            line = lines[row - 1]
            lines[row - 1] = line[:start] + new + line[token.end[1] :]
    return "\n".join(lines)


def without_bad_rows(names, x, y, sample_weight):
    """Code that leaves out the rows in which one of these is not finite."""
    if len(names) == 1:
        code = f"rows = np.reshape({names[0]}, (len({names[0]}), -1))\n"
        code += "good = np.isfinite(rows).all(axis=1)\n"
    else:
        code = f"good = np.ones(len({names[0]}), bool)\n"
        code += f"for each in ({', '.join(names)}):\n"
        code += "    rows = np.reshape(each, (len(each), -1))\n"
        code += "    good &= np.isfinite(rows).all(axis=1)\n"
    return code + _good_rows(x, y, sample_weight)


def _good_rows(x, y, sample_weight):
    """Code that takes the good rows of all arrays."""
    parts = {"x": x, "y": y, "sample_weight": sample_weight}
    parts = {name: part for name, part in parts.items() if part is not None}
    if any(tree.is_nested(part) for part in parts.values()):
        return "".join(
            f"{name} = {_kept(name, part)}\n" for name, part in parts.items()
        )
    kept = ", ".join(f"{name}[good]" for name in parts)
    note = "" if "sample_weight" in parts else "  # and sample_weight"
    return f"{', '.join(parts)} = {kept}{note}"


def _kept(name, structure):
    """Code for the good rows of an array or of a structure of arrays."""
    if not tree.is_nested(structure):
        return f"{name}[good]"
    has_none = any(leaf is None for leaf in tree.flatten(structure))
    each = "a if a is None else a[good]" if has_none else "a[good]"
    if isinstance(structure, dict):
        leaves, kept = structure.values(), f"{{k: {each} for k, a in"
        kept = f"{kept} {name}.items()}}"
    else:
        leaves, kept = structure, f"[{each} for a in {name}]"
    if any(tree.is_nested(leaf) for leaf in leaves):
        return f"keras.tree.map_structure(lambda a: {each}, {name})"
    return kept


def scaled(x):
    """Code that brings inputs to one size; "" if all of them are of it."""
    large = []
    for name, leaf in named(x, "x"):
        values = of.host(leaf)
        with np.errstate(invalid="ignore", over="ignore"):
            if values.dtype.kind in "fiu" and np.nanstd(values) > _UNSCALED:
                large.append(name)
    return standardized(x, large)


def standardized(x, names=None):
    """Code that brings each column of inputs to one size.

    Args:
        names: The names of these inputs; by default all numbers that are no
            ids.
    """
    if names is None:
        names = [
            name
            for name, leaf in named(x, "x")
            if of.host(leaf).dtype.kind == "f"
        ]
    code = "x = list(x)\n" if isinstance(x, tuple) and names else ""
    return code + "".join(map(_standardized, names))


def _standardized(name):
    return (
        f'{name} = np.asarray({name}, "float32")\n'
        f"mean, size = {name}.mean(axis=0), {name}.std(axis=0)\n"
        f"{name} = ({name} - mean) / (size + 1e-6)  # new data, too\n"
    )


# The standard deviation of inputs that have not been scaled. Standardized ones
# have 1; pixels 70.
_UNSCALED = 30.0
