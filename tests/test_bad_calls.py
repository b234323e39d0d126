"""A wrong call is an error of ours, NaN, or the right number.

Each call of `tests/calls.py` with something else in one place or two: never a
number for what means nothing, and never an error of a framework's.
"""

import linecache
import math
import traceback
import types
import typing

import keras
import numpy as np
import pytest

import keras_xent
from tests.calls import ROWS
from tests.testing import to_numpy

pytestmark = pytest.mark.filterwarnings("ignore")

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
    if not _is_right(bad.call, role, value):
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

# What the docstrings say of numbers; all others are of any finite size.
RANGES = {
    "(0, inf)": "alpha min_temperature scale softcap temperature",
    "[0, inf)": "bytes_per_token c_false_alarm c_miss cosine_margin epsilon "
    "focal_gamma pos_weight power seed softness start z_loss",
    "[0, 1]": "false_match_rate p_target",
    "[0, 1)": "label_smoothing",
    "(0, 1)": "objective",
    "[0, 1.57]": "angular_margin",
    "[1, inf)": "batch_size batches_per_epoch bins block_size capacity epochs k "
    "lora_rank num_sampled sub_centers",
    "[2, inf)": "class_wise classes classes_per_batch examples_per_class units",
    "[0, 12]": "resolution",
    "[-inf, inf]": "threshold ignore_class verbose",
}
RANGES = {name: x for x, names in RANGES.items() for name in names.split()}
BETAS = {"MultiSimilarity": "(0, inf)", "multi_similarity": "(0, inf)"}
WORDS = {"sum": ["reduction"], "cosine": ["distance"], "float32": ["precision"]}
ANY_WORD = ["prefix", "kernel_initializer", "bias_initializer"]
# Containers that are right, of those above.
CONTAINERS = {
    "class_weight": [{}],
    "ignore_class": [(), [], [1, 2], (0.5, 1.0)],
    "k": [[1, 2]],
    "metrics": [(), []],
    "range": [(0.5, 1.0), [1, 2]],
    "rows": [[1, 2]],
}
# Arrays that say as much.
ARRAYS = ["ignore_class", "range"]


def may_be(call, name, value):
    """Whether an option can have the value."""
    annotation = call.parameters()[name]
    kinds = _kinds(annotation)
    if typing.Any in kinds or keras.Initializer in kinds:
        return True
    if value is None:
        return types.NoneType in kinds
    if isinstance(value, bool | np.bool_):
        return bool in kinds or name == "verbose"
    if isinstance(value, str):
        return name in [*WORDS.get(value, []), *ANY_WORD]
    if isinstance(value, np.ndarray):
        return value.ndim == 0 or (value.dtype.kind == "f" and name in ARRAYS)
    if not isinstance(value, int | float | np.number):
        found = CONTAINERS.get(name, [])
        return any(type(x) is type(value) and x == value for x in found)
    whole = isinstance(value, int | np.integer)
    if not (float in kinds or (int in kinds and whole)):
        return False
    return (
        _within(BETAS.get(call.thing.__name__, "[0, 1]"), value)
        if (name == "beta")
        else _within(RANGES.get(name, "(-inf, inf)"), value)
    )


def _kinds(annotation):
    if isinstance(annotation, types.UnionType) or typing.get_origin(
        annotation
    ) in (typing.Union, types.UnionType):
        return {k for x in typing.get_args(annotation) for k in _kinds(x)}
    return {annotation}


def _within(limits, value):
    low, high = map(float, limits[1:-1].split(","))
    above = value > low if limits[0] == "(" else value >= low
    return above and (value < high if limits[-1] == ")" else value <= high)


# Where Keras says what it takes of each of its classes.
OF_KERAS = (
    "keras/src/backend/common/name_scope.py",
    "keras/src/initializers/__init__.py",
    "keras/src/layers/layer.py",
    "keras/src/losses/loss.py",
    "keras/src/random/seed_generator.py",
    "keras/src/saving/serialization_lib.py",
)


# And what numbers it makes the inputs of each of its layers of.
OF_LAYERS = ("keras/src/backend/common/variables.py",)


def is_ours(error, of_keras=OF_KERAS):
    """Whether an error was raised, in words, by us or for an argument."""
    if not isinstance(error, ValueError | TypeError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno)
    file = last.filename.replace("\\", "/")
    ours = file.startswith(keras_xent.__path__[0].replace("\\", "/"))
    return line.strip().startswith("raise") and (
        ours or file.endswith(of_keras)
    )


def check(bad):
    """Fails unless a call ends as it should."""
    call, said = bad.call, f"{bad.call.name}: {', '.join(bad.said)}"
    try:
        results = call.results(bad.given, bad.options)
    except Exception as error:
        layer = call.name.startswith("layers") or "features" in call.data
        if is_ours(error, OF_KERAS + OF_LAYERS * layer):
            return
        raise AssertionError(f"{said}: no error of ours") from error
    for name, value in bad.options.items():
        assert may_be(call, name, value), f"{said}: {name} was accepted"
    means = list(bad.means.values())
    floats = [x for x in results if x.dtype.kind == "f"]
    if any(isinstance(x, str) and x == NOTHING for x in means):
        assert floats, f"{said}: was accepted"
        for result in floats:
            assert np.isnan(result).all(), f"{said}: {result}"
        return
    if any(isinstance(x, str) for x in means):
        return
    expected = call.results(bad.means, bad.options)
    wrong = bad.rows - _without_weight(bad)
    for result, truth in zip(results, expected, strict=True):
        compare(bad, wrong, result, truth, said)


def _without_weight(bad):
    weight = bad.means.get("sample_weight")
    if weight is None:
        return set()
    weight = to_numpy(keras.ops.convert_to_tensor(weight)).reshape(ROWS, -1)
    return set(np.flatnonzero(weight[:, 0] == 0).tolist())


def compare(bad, wrong, result, truth, said):
    said = f"{said}: {result}, not {truth}"
    assert result.shape == truth.shape, said
    if result.dtype.kind != "f":
        return
    of_rows = result.shape[:1] == (ROWS,)
    if wrong and not (of_rows and bad.call.rowwise):
        if bad.call.name == "metrics.ScoreHistogram":
            return  # It counts what is wrong.
        if bad.call.name.startswith("metrics"):
            assert np.isnan(result).all(), said
        elif of_rows:
            for row in wrong:
                assert not np.isfinite(result[row]).all(), said
        return
    for row in wrong if of_rows else ():
        assert not np.isfinite(result[row]).all(), said
    rows = [i for i in range(ROWS) if i not in wrong] if of_rows else ...
    result, truth = result[rows], truth[rows]
    with np.errstate(all="ignore"):
        close = np.isclose(
            result, truth.astype(result.dtype), rtol=1e-3, atol=1e-5,
            equal_nan=True,
        )  # fmt: skip
    if bad.far:
        # Beyond float32 a number is NaN or infinite, and beside one far away
        # the others lose their digits.
        close |= ~np.isfinite(result) | (not bad.call.rowwise)
    assert close.all(), said


@pytest.fixture(autouse=True)
def whole_tracebacks():
    shown = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    yield
    if shown:
        keras.config.enable_traceback_filtering()
