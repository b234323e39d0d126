"""A wrong call is an error of ours, NaN, or the right number.

Each call of `tests/calls.py` with something else in one place or two: never a
number for what means nothing, and never an error of a framework's.
"""

import inspect
import linecache
import traceback
import types
import typing

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

import keras_xent
from keras_xent import callbacks, data, layers, losses, metrics, ops
from keras_xent.callbacks import tune_threshold
from tests.bad_calls import NOTHING, drawn
from tests.calls import CALLS, ROWS
from tests.testing import BACKEND, to_numpy

pytestmark = pytest.mark.filterwarnings("ignore")

# What the docstrings say of numbers; all others are of any finite size.
RANGES = {
    "(0, inf)": "alpha min_temperature scale softcap temperature",
    "[0, inf)": "bytes_per_token c_false_alarm c_miss cosine_margin epsilon "
    "focal_gamma pos_weight power seed softness start z_loss",
    "[0, 1]": "false_match_rate p_target",
    "[0, 1)": "label_smoothing",
    "(0, 1)": "objective",
    "[0, 1.57]": "angular_margin",
    "[1, inf)": "batch_size batches_per_epoch bins block_size capacity epochs "
    "k lora_rank num_sampled sub_centers",
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
    # One for each class of the head, which is not here.
    "distribution": [(0.5, 1.0), [1, 2]],
    "ignore_class": [(), [], [1, 2], (0.5, 1.0)],
    "k": [[1, 2]],
    "metrics": [(), []],
    "range": [(0.5, 1.0), [1, 2]],
    "rows": [[1, 2]],
}
# Arrays that say as much.
ARRAYS = ["distribution", "ignore_class", "range"]


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
    if value != value and name == "ignore_class":
        return float in kinds
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
    if "ignore_class" in bad.options:
        return  # Other rows count.
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
def as_it_is_raised(monkeypatch):
    """Whole tracebacks, and few bins where there are a quarter of a million."""
    monkeypatch.setattr(tune_threshold, "_RESOLUTION", 1)
    hidden = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    yield
    if hidden:
        keras.config.enable_traceback_filtering()


def test_all_public_names_are_called():
    public = {
        getattr(package, name)
        for package in (callbacks, data, layers, losses, metrics, ops)
        for name in package.__all__
    }
    called = {inspect.unwrap(call.thing) for call in CALLS}
    assert set(map(inspect.unwrap, public)) == called


def test_the_right_calls_are_right():
    for call in CALLS:
        given = {name: array for name, (_, array) in call.data.items()}
        for result in call.results(given, {}):
            assert result.dtype.kind != "f" or np.isfinite(result).all(), call


def fuzz(calls, count, **options):
    @hypothesis.given(st.data())
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        **options,
    )
    def run(source):
        def pick(things):
            return source.draw(st.sampled_from(list(things)))

        check(drawn(pick(calls), pick))

    run()


# How many calls a plain run makes on each backend, which compiles for some.
PLAIN = {"torch": 200, "tensorflow": 50, "jax": 25}[BACKEND]
THOROUGH = {"torch": 10_000, "tensorflow": 2_000, "jax": 2_000}[BACKEND]


@pytest.mark.parametrize("package", ["losses", "metrics", "ops"])
def test_some_wrong_calls_are_an_error_nan_or_right(package):
    calls = [call for call in CALLS if call.name.startswith(package)]
    fuzz(calls, PLAIN, derandomize=True)


def test_some_wrong_layers_callbacks_and_batches_are_an_error_or_right():
    rest = ("losses", "metrics", "ops")
    calls = [call for call in CALLS if not call.name.startswith(rest)]
    fuzz(calls, PLAIN // 2, derandomize=True)


@pytest.mark.thorough
def test_many_wrong_calls_are_an_error_nan_or_right():
    fuzz(CALLS, THOROUGH, print_blob=True)
