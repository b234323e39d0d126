"""What can be wrong with a call, drawn one or two places at a time."""

import math
import typing

import keras
import numpy as np

from tests.calls import ROWS
from tests.testing import BACKEND, to_numpy

# What data means that says nothing, or that is another right call.
NOTHING, ANOTHER = "nothing", "another"


class Bad(typing.NamedTuple):
    """A call, and what of it is wrong.

    Attributes:
        given: The data by name.
        means: The same said plainly: arrays, `NOTHING` or `ANOTHER`.
        options: The options that differ.
        rows: In which rows data is wrong.
        far: Whether numbers are so large that float32 may end, or lose others.
        said: What was done.
    """

    call: typing.Any
    given: dict
    means: dict
    options: dict
    rows: set
    far: list
    reshaped: list
    said: list


def drawn(call, pick):
    """A bad call. `pick` chooses one of several things."""
    given = {name: array for name, (_, array) in call.data.items()}
    if "sample_weight" in given and pick([True, False]):
        given["sample_weight"] = None
    bad = Bad(call, given, dict(given), {}, set(), [], [], [])
    # Data three times as often as each of many options.
    places = list(call.data) * 3 + list(call.parameters())
    chosen = [pick(places)]
    if pick([True, False, False]):
        chosen.append(pick(places))
    for name in dict.fromkeys(chosen):
        # A mask is that of right predictions.
        if name == "mask" and bad.said:
            continue
        if name in call.data:
            pick([change_kind, change_shape, change_value])(bad, name, pick)
        else:
            bad.options[name] = pick(OPTIONS)
            bad.said.append(f"{name}={bad.options[name]!r}")
        if name == "mask":
            break
    if call.tensors and pick([True, False]):
        bad.said.append("as tensors")
        for data in (bad.given, bad.means):
            for name, x in data.items():
                if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
                    data[name] = keras.ops.convert_to_tensor(x)
    return bad


def _as(dtype):
    def change(x):
        with np.errstate(invalid="ignore"):
            x = (abs(x) if dtype == "uint8" else x).astype(dtype)
        return x, x.astype("float32" if dtype.startswith("float") else "int32")

    return change


def _rounded(dtype):
    def change(x):
        x = keras.ops.convert_to_tensor(x.astype("float32"), dtype=dtype)
        return x, to_numpy(x).astype("float32")

    return change


def _ragged(x):
    rows = x.tolist()
    rows[1] = rows[1][1:] if isinstance(rows[1], list) else [rows[1]] * 2
    return rows, NOTHING


KINDS = {
    "text": lambda x: (x.astype(str), NOTHING),
    "a word": lambda x: ("x", NOTHING),
    "None": lambda x: (None, NOTHING),
    "objects": lambda x: (x.astype(object), x),
    "an array of None": lambda x: (np.full(x.shape, None), NOTHING),
    "complex": lambda x: (x + 1j, NOTHING),
    "a list": lambda x: (x.tolist(), x),
    "a tuple": lambda x: (tuple(x.tolist()), x),
    "a ragged list": _ragged,
    "a dict": lambda x: ({}, NOTHING),
    "an object": lambda x: (object(), NOTHING),
    "float64": lambda x: (x.astype("float64"), x),
    "float16": _rounded("float16"),
    "bfloat16": _rounded("bfloat16"),
    **{name: _as(name) for name in ("bool", "int8", "int32", "int64", "uint8")},
}
OF_MASKS = ("float64", "float16", "bool", "int32", "None")


def change_kind(bad, name, pick):
    role, x = _right(bad, name)
    kind = pick(OF_MASKS if role == "mask" else list(KINDS))
    bad.given[name], means = KINDS[kind](x)
    if kind == "None" and role in ("weight", "mask"):
        means = None
    if role in ("inputs", "names") and isinstance(bad.given[name], np.ndarray):
        # Whatever can be sorted, or is an array.
        means = ANOTHER
    bad.means[name] = means
    bad.said.append(f"{name} is {kind}")


SHAPES = {
    "without rows": lambda x: x[:0],
    "the first row": lambda x: x[:1],
    "a row less": lambda x: x[1:],
    "a row more": lambda x: np.concatenate([x, x[:1]]),
    "a row without its axis": lambda x: x[0],
    "one number": lambda x: x.flat[0].item(),
    "an empty list": lambda x: [],
    "turned": lambda x: x.T if x.ndim > 1 else x[None],
    "without columns": lambda x: x[..., :0],
    "with an axis before": lambda x: x[None],
    "with an axis behind": lambda x: x[..., None],
    "with two axes behind": lambda x: x[..., None, None],
    "twice": lambda x: np.stack([x, x], axis=-1),
    "a column less": lambda x: x[..., :-1],
    "a column more": lambda x: np.concatenate([x, x[..., :1]], axis=-1),
    "one column": lambda x: x[..., :1],
}
# The same numbers in the same order.
THE_SAME = [name for name in SHAPES if name.startswith("with a")]
THE_SAME += ["with two axes behind"]
# With other columns predictions are those of other classes; with another axis
# behind they are views, or of an axis of their own.
COLUMNS = ["a column less", "a column more", "one column"]
# One weight for all rows.
FOR_ALL = [
    "the first row",
    "a row without its axis",
    "one number",
    "one column",
]


def change_shape(bad, name, pick):
    role, x = _right(bad, name)
    shape = pick(list(SHAPES))
    others = [k for k, y in bad.means.items() if k != name and y is not None]
    if bad.reshaped:
        # Two that have changed may fit each other.
        bad.means[bad.reshaped.pop()] = ANOTHER
        others = []
    bad.reshaped.append(name)
    predictions = role in ("features", "logits", "numbers")
    means = x if shape in THE_SAME else NOTHING
    if (
        not others
        or (shape in COLUMNS and x.ndim > 1)
        or (predictions and shape in [*THE_SAME, "twice"])
    ):
        means = ANOTHER
    elif role in ("inputs", "labels") and shape in THE_SAME:
        means = ANOTHER  # They come back as they are.
    elif shape == "twice" and "Sampled" in bad.call.name:
        means = ANOTHER  # Several true classes.
    elif (
        role in ("weight", "mask") and shape in FOR_ALL and "counts" not in name
    ):
        means = np.full(x.shape, x.flat[0])
    bad.given[name], bad.means[name] = SHAPES[shape](x), means
    bad.said.append(f"{name} is {shape}")


VALUES = [
    np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 1e300, 2.0**31, 2.0**63,
    16777217.0, 300.0, -0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, -1.0, 1e-40,
]  # fmt: skip
FAR = 100
SMALLEST = np.finfo("float32").smallest_normal


def change_value(bad, name, pick):
    role, x = _right(bad, name)
    row, value = pick(range(ROWS)), pick(VALUES)
    if role == "mask":
        change_kind(bad, name, pick)
        return
    # In a dtype that holds it.
    narrow = x.dtype.kind == "f" and not 3e38 < abs(value) < np.inf
    x = x.astype(x.dtype if narrow else "float64")
    x[row] = value
    if BACKEND == "jax" and role == "class ids" and 0 < abs(value) < SMALLEST:
        # XLA takes it for 0. On the host it is an error.
        bad.means[name] = _right(bad, name)[1].copy()
        bad.means[name][row] = 0
    elif not _is_right(bad.call, role, value):
        bad.rows.add(row)
        bad.means[name] = _right(bad, name)[1]
    elif role in ("ids", "names"):
        # Which ids are equal is all that counts.
        bad.means[name] = np.unique(x, return_inverse=True)[1].reshape(x.shape)
    else:
        bad.means[name] = x.astype("float64")
    if role == "weight" and abs(value) == np.inf and "ops" in bad.call.name:
        bad.means[name] = ANOTHER  # Some only ask whether it is 0.
    bad.given[name] = x
    if not 1e-30 < abs(value) < FAR and value:
        bad.far.append(name)
    bad.said.append(f"{name}[{row}] is {value}")


def _right(bad, name):
    role, x = bad.call.data[name]
    if x is None:
        x = np.ones(ROWS, "bool")
        if name == "mask" and "y_pred" not in bad.given:
            x = np.ones(next(iter(bad.call.data.values()))[1].shape, "bool")
    return role, x


def _is_right(call, role, value):
    """Whether a number can stand for a row of a role."""
    whole = math.isfinite(value) and value == math.floor(value)
    if role == "class ids":
        known = value in range(call.classes) or value in call.ignored
        return whole and known
    if role == "flags":
        return value in (0, 1)
    if role == "shares":
        return 0 <= value <= 1 or value in call.ignored
    if role == "targets":
        return 0 <= value < np.inf
    if role == "weight":
        # Losses are multiplied with it, of whatever sign it is.
        signed = call.name.startswith(("losses", "ops"))
        return abs(value) < np.inf and (signed or value >= 0)
    return role == "inputs" or not math.isnan(value)


OPTIONS = [
    None, True, False, -1, 0, 1, 2, 3, 0.5, 1.0, 1.5, 1e9, 1e300, 10**30,
    np.nan, np.inf, -np.inf, 1j, "x", "", "1", "sum", "cosine", "float32", b"x",
    (), [], {}, {"a": 1}, [1, 2], (0.5, 1.0), ["x"], [[1.0], [2.0, 3.0]],
    np.array([1.0, 2.0]), np.array([[1.0]]), np.array(["a", "b"]),
    np.array(0.5), np.float32(0.5), np.float64("nan"), np.int64(2), np.True_,
]  # fmt: skip
