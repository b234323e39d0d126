"""Calls of the public interface that are wrong in one place or two.

A `Subject` is a public name with a call of it that is right. A mutation puts
something else in the place of one argument, and says what that means: an array
that says the same (`"1"` for 1 says nothing, and 1.0 says 1), or that it means
nothing; and which rows are wrong.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable

import keras
import numpy as np

from keras_xent._keras import set_mask
from keras_xent import callbacks, data, layers, losses, metrics, ops
from tests import contract
from tests.testing import BACKEND, normal, to_numpy

ROWS = 6
# What a mutated argument means: nothing, or something that is not known here.
NOTHING, UNKNOWN = "nothing", "unknown"

FLOATS = ("logits", "features", "scores", "distances", "numbers")
WEIGHT = np.array([1, 2, 0.5, 1, 3, 1], "float32")
MASK = np.ones(ROWS, "bool")


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A public name, and a call of it that is right.

    Attributes:
        name: Such as "losses.InfoNCE".
        thing: What has the options, a class or a function.
        data: The arguments that hold data: name -> (role, array).
        call: What calls it, given data and options by name.
        rowwise: Whether a row of the result is of one row of the data.
        options: The options that the right call has.
    """

    name: str
    thing: Callable
    data: dict
    call: Callable
    rowwise: bool = False
    options: dict = dataclasses.field(default_factory=dict)
    ignored: tuple = ()

    def parameters(self):
        """The options that can be given by name: name -> annotation."""
        parameters = inspect.signature(self.thing).parameters.values()
        return {
            x.name: x.annotation
            for x in parameters
            if x.name not in self.data
            and x.kind is not x.VAR_KEYWORD
            and not (self.name, x.name) in NOT_OPTIONS
        }

    def results(self, given, options):
        found = self.call(given, {**self.options, **options})
        return [
            to_numpy(x) if keras.ops.is_tensor(x) else np.asarray(x)
            for x in keras.tree.flatten(found)
        ]


# Data of other names, which `data` has.
NOT_OPTIONS = {
    ("callbacks.EvaluateRetrieval", "validation_data"),
    ("callbacks.TemperatureScaling", "validation_data"),
    ("callbacks.TuneThreshold", "validation_data"),
    ("metrics.all_reduce", "metrics_or_model"),
}


def role_of(case, name):
    """What the labels or predictions of a case of the contract are."""
    if name == "y_pred":
        return {"distances": "distances", "numbers": "numbers"}.get(
            case.data, "logits" if not case.pairs else "features"
        )
    if case.cls is losses.SigmoidCrossentropy or case.data == "yes or no":
        return "shares"
    if case.cls is losses.PearsonLoss:
        return "numbers"
    return {
        "distributions": "targets",
        "logits pairs": "logits",
        "class ids": "ids" if case.pairs else "class ids",
        "distances": "flags",
        "numbers": "numbers",
    }[case.data]


def case_data(case):
    return {
        "y_true": (role_of(case, "y_true"), case.labels(ROWS)),
        "y_pred": (role_of(case, "y_pred"), case.predictions(ROWS)),
        "sample_weight": ("weight", WEIGHT),
        "mask": ("mask", None),
    }


def masked(given):
    """Predictions with the mask, if there is one, as Keras has it."""
    x, mask = given["y_pred"], given.get("mask")
    if mask is None:
        return x
    x = keras.ops.convert_to_tensor(x)
    set_mask(x, mask)
    return x


def loss_subject(case):
    def call(given, options):
        loss = case.cls(**{**case.kwargs, "reduction": "none", **options})
        return loss(given["y_true"], masked(given), given["sample_weight"])

    rowwise = not (case.pairs or case.is_list)
    return Subject(
        f"losses.{case.cls.__name__}", case.cls, case_data(case), call, rowwise,
        ignored=ignored_by(case),
    )


def metric_subject(case):
    signature = inspect.signature(case.cls).parameters

    def call(given, options):
        coarse = {"resolution": 1} if "resolution" in signature else {}
        metric = case.cls(**{**coarse, **case.kwargs, **options})
        metric.update_state(
            given["y_true"], masked(given), given["sample_weight"]
        )
        return metric.result()

    return Subject(
        f"metrics.{case.cls.__name__}", case.cls, case_data(case), call,
        ignored=ignored_by(case),
    )


def ignored_by(case):
    ignored = case.kwargs.get("ignore_class", ())
    return tuple(ignored) if isinstance(ignored, list | tuple) else (ignored,)


OP_ROLES = {"yes or no": "shares", "scores": "numbers", "counts": "weight"}
IDS = ("info_nce", "multi_similarity", "pair_hinge", "supervised_contrastive",
       "prototypical_crossentropy", "sigmoid_contrastive", "symmetric_kl_hinge",
       "triplet_hinge")  # fmt: skip
ROWWISE_OPS = ("average_rank", "brier_score", "entropy", "jensen_shannon",
               "kl_divergence", "linear_softmax_crossentropy", "nce_loss",
               "sampled_softmax_crossentropy", "sigmoid_crossentropy",
               "soft_rank", "softmax_crossentropy", "softplus_hinge",
               "sparse_softmax_crossentropy", "symmetric_kl",
               "log_uniform_sample", "uniform_sample", "unigram_sample",
               "pearson_correlation", "pearson_loss", "spearman_correlation",
               "spearman_loss")  # fmt: skip


def op_subject(op):
    name = str(op)
    parameters = list(inspect.signature(op.function).parameters)
    sampled = name in ("nce_loss", "sampled_softmax_crossentropy")
    names = ["counts", *parameters] if sampled else parameters
    given_roles = {}
    for argument, kind, array in zip(
        names, op.data, op.arrays(ROWS), strict=False
    ):
        role = OP_ROLES.get(kind, kind)
        if kind == "class ids" and name in IDS:
            role = "ids"
        if kind == "logits" and (name in IDS or sampled or "pairwise" in name):
            role = "features"
        if name == "sigmoid_crossentropy" and kind == "targets":
            role = "shares"
        given_roles[argument] = role, array
    names = list(given_roles)
    for extra in ("sample_weight", "mask"):
        if extra in parameters:
            given_roles[extra] = extra.removeprefix("sample_"), None
    if "sample_weight" in given_roles:
        lists = name in ("average_rank", "soft_rank") or "axis" in parameters
        size = given_roles[names[0]][1].shape
        weight = WEIGHT
        if lists and name != "fit_temperature":
            weight = np.ones(size, "float32") * WEIGHT[:, None]
        given_roles["sample_weight"] = "weight", weight

    def call(given, options):
        given = dict(given)
        by_position = [given.pop(x) for x in names]
        return op.function(*by_position, **{**op.kwargs, **given, **options})

    return Subject(
        f"ops.{name}", op.function, given_roles, call, name in ROWWISE_OPS
    )


def layer_subject(cls, call, options, **given):
    return Subject(
        f"layers.{cls.__name__}", cls, given, call, True, options
    )


def of_one(cls, argument="x"):
    def call(given, options):
        return cls(**options)(given[argument])

    return call


def of_two(cls):
    def call(given, options):
        return cls(**options)([given["a"], given["b"]])

    return call


INITIALIZER = keras.initializers.RandomNormal(seed=0)
FEATURES = "features", normal(ROWS, 3)
HEADS = {"units": 3, "kernel_initializer": INITIALIZER}


def headed_subject():
    """A loss behind its head, in training."""

    def call(given, options):
        head = layers.LinearHead(3, kernel_initializer=INITIALIZER)
        features = head(given["features"], training=True)
        loss = losses.LinearCrossentropy(reduction="none", **options)
        return loss(given["y_true"], features, given["sample_weight"])

    given = {
        "y_true": ("class ids", np.arange(ROWS) % 3),
        "features": FEATURES,
        "sample_weight": ("weight", WEIGHT),
    }
    return Subject(
        "losses.LinearCrossentropy", losses.LinearCrossentropy, given, call,
        True,
    )  # fmt: skip


class Models:
    """A model for each callback, made once."""

    made: typing.ClassVar = {}

    @classmethod
    def of(cls, last):
        if last not in cls.made:
            layer = {
                "scores": lambda: keras.layers.Dense(1),
                "embeddings": lambda: keras.layers.Dense(3),
                "temperature": lambda: layers.Temperature(),
                "margin": lambda: layers.CosineHead(3, angular_margin=0.1),
            }[last]()
            before = keras.layers.Dense(3, kernel_initializer=INITIALIZER)
            model = keras.Sequential([keras.Input((3,)), before, layer])
            model.compile("sgd", "mse")
            cls.made[last] = model
        return cls.made[last]


def callback_subject(cls, last, role, labels, **options):
    def call(given, options):
        if role is not None:
            x = normal(ROWS, 3, seed=3)
            parts = x, given["y"], given["sample_weight"]
            options = {"validation_data": parts, **options}
        callback = cls(**options)
        callback.set_model(Models.of(last))
        logs = {}
        callback.on_train_begin()
        callback.on_epoch_begin(0)
        callback.on_epoch_end(0, logs)
        callback.on_train_end()
        return {k: v for k, v in logs.items() if not isinstance(v, str)}

    given = {}
    if role is not None:
        given = {"y": (role, labels), "sample_weight": ("weight", WEIGHT)}
    return Subject(
        f"callbacks.{cls.__name__}", cls, given, call, False, options
    )


def data_subject():
    def call(given, options):
        with_defaults = {"classes_per_batch": 2, "examples_per_class": 2}
        batches = data.ClassBalancedBatches(
            **given, **{**with_defaults, **options}
        )
        return batches[0]

    given = {
        "x": ("numbers", normal(ROWS, 3)),
        "y": ("ids", np.arange(ROWS) % 3),
        "sample_weight": ("weight", WEIGHT),
    }
    return Subject(
        "data.ClassBalancedBatches", data.ClassBalancedBatches, given, call,
        False, {"seed": 0},
    )  # fmt: skip


def function_subject(function, **given):
    def call(given, options):
        return function(**given, **options)

    return Subject(
        f"metrics.{function.__name__}", function, given, call
    )


def all_reduced(given, options):
    metric = metrics.MatchAUC(similarity=False)
    metrics.all_reduce(given.get("metrics_or_model", metric), **options)
    return 0.0


OF_DISTANCES = [
    metrics.AveragePrecision, metrics.Cllr, metrics.DPrime,
    metrics.EqualErrorRate, metrics.MatchAUC, metrics.MinCllr,
    metrics.MinDetectionCost, metrics.TrueMatchRateAt,
]  # fmt: skip
MORE_METRICS = [
    *(
        contract.Case(cls, {"similarity": False}, "distances")
        for cls in OF_DISTANCES
    ),
    contract.Case(metrics.ScoreHistogram, {}, "distances"),
    contract.Case(metrics.ReliabilityDiagram, {}, "class ids"),
]

SUBJECTS = [
    *map(loss_subject, contract.LOSSES),
    headed_subject(),
    *map(metric_subject, contract.METRICS + MORE_METRICS),
    function_subject(
        metrics.retrieval, embeddings=FEATURES, ids=("ids", np.arange(ROWS) % 3)
    ),
    function_subject(
        metrics.cluster_misclassification_rate,
        labels=("ids", np.arange(ROWS) % 3),
        clusters=("ids", np.arange(ROWS) % 2),
    ),
    Subject("metrics.all_reduce", metrics.all_reduce, {}, all_reduced),
    *map(op_subject, contract.OPS),
    layer_subject(
        layers.LinearHead, of_one(layers.LinearHead), HEADS, x=FEATURES
    ),
    layer_subject(
        layers.CosineHead, of_one(layers.CosineHead), HEADS, x=FEATURES
    ),
    layer_subject(
        layers.SimilarityHead, of_one(layers.SimilarityHead), {}, x=FEATURES
    ),
    layer_subject(
        layers.Temperature, of_one(layers.Temperature), {"temperature": 2.0},
        x=("logits", normal(ROWS, 3)),
    ),
    layer_subject(
        layers.MatchDecision, of_one(layers.MatchDecision),
        {"threshold": 0.5, "similarity": False},
        x=("distances", np.abs(normal(ROWS))),
    ),
    layer_subject(
        layers.SymmetricKLDistance, of_two(layers.SymmetricKLDistance), {},
        a=("logits", normal(ROWS, 3)), b=("logits", normal(ROWS, 3, seed=1)),
    ),
    callback_subject(
        callbacks.TuneThreshold, "scores", "flags", np.arange(ROWS) % 2,
        similarity=True,
    ),
    callback_subject(
        callbacks.TuneThreshold, "embeddings", "ids", np.arange(ROWS) % 3,
        distance="euclidean",
    ),
    callback_subject(
        callbacks.EvaluateRetrieval, "embeddings", "ids", np.arange(ROWS) % 3
    ),
    callback_subject(
        callbacks.TemperatureScaling, "temperature", "class ids",
        np.arange(ROWS) % 3,
    ),
    callback_subject(callbacks.MarginSchedule, "margin", None, None, epochs=2),
    callback_subject(callbacks.Diagnose, "scores", None, None),
    data_subject(),
]  # fmt: skip


# Mutations of data.


def _tensor(x, dtype):
    return keras.ops.convert_to_tensor(x, dtype=dtype)


def _rounded(dtype):
    def mutate(x):
        tensor = _tensor(x.astype("float32"), dtype)
        return tensor, to_numpy(tensor).astype("float32")

    return mutate


def _cast(dtype):
    def mutate(x):
        with np.errstate(invalid="ignore"):
            low = (np.abs(x) if dtype == "uint8" else x).astype(dtype)
        return low, low.astype("float32" if x.dtype.kind == "f" else "int32")

    return mutate


def _ragged(x):
    rows = x.tolist()
    rows[1] = rows[1][:-1] if isinstance(rows[1], list) else [rows[1]] * 2
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
    "an empty list": lambda x: ([], NOTHING),
    "one number": lambda x: (x.flat[0].item(), NOTHING),
    "a number without axes": lambda x: (x.flat[0], NOTHING),
    "bool": _cast("bool"),
    "int8": _cast("int8"),
    "int32": _cast("int32"),
    "int64": _cast("int64"),
    "uint8": _cast("uint8"),
    "float16": _rounded("float16"),
    "bfloat16": _rounded("bfloat16"),
    "float64": lambda x: (x.astype("float64"), x),
}

SHAPES = {
    "no rows": lambda x: (x[:0], NOTHING),
    "the first row": lambda x: (x[:1], NOTHING),
    "a row less": lambda x: (x[:-1], NOTHING),
    "a row more": lambda x: (np.concatenate([x, x[:1]]), NOTHING),
    "one row, no axis": lambda x: (x[0], NOTHING),
    "an axis before": lambda x: (x[None], x),
    "an axis behind": lambda x: (x[..., None], x),
    "two axes behind": lambda x: (x[..., None, None], x),
    "turned": lambda x: (x.T if x.ndim > 1 else x[None], NOTHING),
    "a column less": lambda x: (x[..., :-1], UNKNOWN),
    "a column more": lambda x: (
        np.concatenate([x, x[..., :1]], axis=-1), UNKNOWN,
    ),
    "one column": lambda x: (x[..., :1], UNKNOWN),
    "no column": lambda x: (x[..., :0], NOTHING),
    "twice": lambda x: (np.stack([x, x], axis=-1), NOTHING),
}  # fmt: skip

MASKS = {*SHAPES, "None", "bool", "int32", "float16", "float64"}

VALUES = [
    np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 1e300, -0.0, 1e-40, 0, 1, -1, 2,
    3, 1.5, 0.5, 2.0**31, 2.0**63, 16777217, 300,
]  # fmt: skip


def meaning(subject, role, x, value, row):
    """What `x` with another number in a row means, and whether it is wrong."""
    whole = np.isfinite(value) and value == np.floor(value)
    if role == "class ids":
        ids = range(classes_of(subject))
        fine = whole and (value in ids or value in ignored_of(subject))
    elif role == "ids":
        fine = not np.isnan(value)
        if fine:
            # A class of its own, or one that is there.
            names = {name: i for i, name in enumerate(np.unique(x))}
            number = names.get(value, len(names))
            means = np.array([names[each] for each in x.flat], "int32")
            means = means.reshape(x.shape)
            means[row] = number
            return means, False
    elif role in ("shares", "flags"):
        fine = 0 <= value <= 1 or value in ignored_of(subject)
        fine = fine and (role == "shares" or whole)
    elif role == "targets":
        fine = 0 <= value < np.inf
    elif role == "weight":
        fine = 0 <= value < np.inf or (
            -np.inf < value < 0 and subject.name.startswith("losses.")
        )
    elif role == "mask":
        return x, True
    else:
        fine = not np.isnan(value)
    means = x.astype("float64")
    means[row] = value
    return (means if fine else x), not fine


def classes_of(subject):
    return 4 if "sample" in subject.name and "ops." in subject.name else 3


def ignored_of(subject):
    return subject.ignored


# Options.

OPTIONS = [
    None, "x", "", "1", -1, 0, 1, 2, 3, 0.5, 1.0, np.nan, np.inf, -np.inf, 1e9,
    1e300, 10**30, True, False, (), [], {}, {"a": 1}, [1, 2], (0.5, 1.0),
    np.array([1.0, 2.0]), np.array(0.5), np.float32(0.5), np.int64(2), 1j,
    np.float64("nan"), b"x", ["x"], [[1.0], [2.0, 3.0]],
    np.array(["a", "b"]), np.array([[1.0]]),
]  # fmt: skip
WORDS = ["euclidean", "cosine", "sum", "float16", "float99", "none"]


@dataclasses.dataclass
class Bad:
    """One call that is wrong in a place or two."""

    subject: Subject
    given: dict
    means: dict
    options: dict
    wrong_rows: set
    said: list

    def __str__(self):
        return f"{self.subject.name}: " + "; ".join(self.said)


def draw(pick, subject):
    """A bad call. `pick(sequence)` chooses."""
    arrays = {k: v for k, v in subject.data.items() if v[1] is not None}
    bad = Bad(
        subject,
        {k: v[1] for k, v in subject.data.items()},
        {k: v[1] for k, v in subject.data.items()},
        {}, set(), [],
    )  # fmt: skip
    if pick([True, False]):
        for key in ("sample_weight",):
            if key in arrays:
                bad.given[key] = bad.means[key] = None
                del arrays[key]
    as_tensors = pick([False, True])
    options = list(subject.parameters())
    places = [("data", k) for k in subject.data] * 3
    places += [("option", k) for k in options]
    first = pick(places)
    chosen = [first]
    if pick([False, False, True]):
        chosen.append(pick([p for p in places if p != first] or [first]))
    for kind, name in dict.fromkeys(chosen):
        if kind == "option":
            value = pick(OPTIONS + WORDS)
            bad.options[name] = value
            bad.said.append(f"{name}={value!r}")
        else:
            _mutate(bad, name, pick)
    if as_tensors:
        for key, value in bad.given.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
                bad.given[key] = keras.ops.convert_to_tensor(value)
        bad.said.append("as tensors")
    return bad


def _mutate(bad, name, pick):
    role, x = bad.subject.data[name]
    if x is None:
        x = MASK if role == "mask" else WEIGHT
    how = pick(["kind", "shape", "value"])
    if how == "value":
        row, value = pick(range(ROWS)), pick(VALUES)
        if role == "mask":
            how = "kind"
        else:
            dtype = "float64" if abs(value) > 3e38 or x.dtype.kind != "f" else x.dtype
            given = x.astype(dtype)
            given[row] = value
            means, wrong = meaning(bad.subject, role, x, value, row)
            bad.given[name], bad.means[name] = given, means
            if wrong:
                bad.wrong_rows.add(row)
            bad.said.append(f"{name}[{row}] is {value}")
            return
    table = KINDS if how == "kind" else SHAPES
    if role == "mask":
        table = {k: v for k, v in {**KINDS, **SHAPES}.items() if k in MASKS}
        bad.given["y_pred" if "y_pred" in bad.given else name] = x if "y_pred" not in bad.given else bad.subject.data["y_pred"][1]
    key = pick(list(table))
    given, means = table[key](x)
    if given is None and role in ("weight", "mask"):
        means = None
    bad.given[name], bad.means[name] = given, means
    bad.said.append(f"{name} is {key}")


# Verdicts.

RANGES = {
    "alpha": "(0, inf)", "angular_margin": "[0, 1.57]", "axis": "[-9, 9]",
    "base": "(-inf, inf)", "batch_size": "[1, inf)",
    "batches_per_epoch": "[1, inf)", "beta": "[0, 1]", "bias": "(-inf, inf)",
    "bins": "[1, inf)", "block_size": "[1, inf)", "c_false_alarm": "[0, inf)",
    "c_miss": "[0, inf)", "capacity": "[1, 16777216]",
    "class_wise": "[2, inf)", "classes": "[2, inf)",
    "classes_per_batch": "[2, 3]", "cosine_margin": "[0, inf)",
    "epochs": "[1, inf)", "epsilon": "[0, inf)",
    "examples_per_class": "[2, inf)", "false_match_rate": "[0, 1]",
    "focal_gamma": "[0, inf)", "k": "[1, inf)", "label_smoothing": "[0, 1)",
    "lora_alpha": "(-inf, inf)", "lora_rank": "[1, inf)",
    "margin": "(-inf, inf)", "max_queue_size": "[1, inf)",
    "min_temperature": "(0, inf)", "num_sampled": "[1, inf)",
    "objective": "(0, 1)", "p_target": "[0, 1]", "power": "[0, inf)",
    "resolution": "[0, 12]", "scale": "(0, inf)", "seed": "[0, inf)",
    "softcap": "(0, inf)", "softness": "[0, inf)", "start": "[0, inf)",
    "sub_centers": "[1, inf)", "temperature": "(0, inf)",
    "threshold": "[-inf, inf]", "units": "[2, inf)", "verbose": "[0, 2]",
    "workers": "[1, inf)", "z_loss": "[0, inf)", "pos_weight": "[0, inf)",
    "bytes_per_token": "[0, inf)",
}  # fmt: skip
OWN_RANGES = {
    ("losses.MultiSimilarity", "beta"): "(0, inf)",
    ("ops.multi_similarity", "beta"): "(0, inf)",
}


def within(text, value):
    low, high = (float(x) for x in text[1:-1].split(","))
    above = value > low if text[0] == "(" else value >= low
    below = value < high if text[-1] == ")" else value <= high
    return above and below


def is_legal(subject, name, value):
    """Whether an option may have the value; None where Keras says so."""
    annotation = str(subject.parameters()[name])
    if name in ("name", "dtype", "reduction", "kernel_initializer",
                "bias_initializer", "group", "kwargs", "max_queue_size",
                "workers", "use_multiprocessing", "verbose", "batch_size"):
        return None
    if value is None:
        return "None" in annotation or "Any" in annotation
    kind = annotation.split("[")[0] if "Literal" in annotation else annotation
    if isinstance(value, (bool, np.bool_)):
        return "bool" in kind
    number = isinstance(value, (int, float, np.number)) and not isinstance(
        value, complex
    )
    text = OWN_RANGES.get((subject.name, name), RANGES.get(name))
    if number:
        real = "float" in kind or "Any" in kind
        whole = "int" in kind and isinstance(value, (int, np.integer))
        if not (real or whole):
            return False
        return None if text is None else within(text, value)
    if text is not None and kind in ("<class 'int'>", "<class 'float'>", "int | None", "float | None"):
        return False
    if isinstance(value, str):
        return None if "str" in kind or "Literal" in kind else False
    if kind == "<class 'bool'>" or kind == "bool | None":
        return False
    if "Sequence" in kind or "ndarray" in kind or "Any" in kind or "Mapping" in kind or "tuple" in kind:
        return None
    return False


KERAS_CHECKS = ()


def of_error(error):
    """What is wrong with an error, or None."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    import linecache

    line = linecache.getline(file, trace.tb_lineno).strip()
    where = f"{file.split('site-packages/')[-1].split('w-calls/')[-1]}:{trace.tb_lineno}"
    if not isinstance(error, (ValueError, TypeError)):
        return f"raw {type(error).__name__} at {where}: {str(error)[:150]}"
    if not line.startswith("raise"):
        return f"raw {type(error).__name__} by {where}: {str(error)[:150]}"
    if "/keras_xent/" in file:
        if "eceived" not in str(error):
            return f"unsaid {where}: {str(error)[:200]}"
        return None
    return f"foreign {type(error).__name__} {where}: {str(error)[:200]}"


def verdict(bad):
    """None if it is as it should be, else what is wrong."""
    legal = {k: is_legal(bad.subject, k, v) for k, v in bad.options.items()}
    try:
        results = bad.subject.results(bad.given, bad.options)
    except Exception as error:
        return of_error(error)
    for k, v in legal.items():
        if v is False:
            return f"option accepted: {k}={bad.options[k]!r}"
    none = all(np.all(np.isnan(x)) for x in results if x.dtype.kind == "f")
    if any(isinstance(x, str) and x == NOTHING for x in bad.means.values()):
        return None if none and results else f"data accepted: {results}"
    if any(isinstance(x, str) and x == UNKNOWN for x in bad.means.values()):
        return None
    try:
        expected = bad.subject.results(bad.means, bad.options)
    except Exception as error:
        if none:
            return None
        return f"accepted, and its meaning is not: {type(error).__name__} {str(error)[:100]}"
    extreme = any("is " in x and any(w in x for w in ("nan", "inf", "e+", "1e30", "3e38", "1e-40", "e300")) for x in bad.said)
    wrong = set(bad.wrong_rows)
    weight = bad.means.get("sample_weight")
    if isinstance(weight, np.ndarray) and weight.shape[:1] == (ROWS,):
        wrong -= set(np.flatnonzero(weight.reshape(ROWS, -1)[:, 0] == 0).tolist())
    for a, b in zip(results, expected, strict=True):
        if a.shape != b.shape:
            return f"shape {a.shape}, not {b.shape}"
        if a.dtype.kind not in "f":
            continue
        if not bad.subject.rowwise:
            if wrong:
                if bad.subject.name.startswith("metrics") and not np.isnan(a).all():
                    return f"metric not nan: {a}"
                if a.shape[:1] == (ROWS,) and not np.isnan(a[list(wrong)]).all():
                    return f"row not nan {a}"
                continue
            if np.isnan(a).any() and extreme:
                continue
        else:
            for row in wrong:
                if not np.isnan(a[row]).any():
                    return f"row {row} not nan: {a}"
        rows = [i for i in range(len(a)) if i not in wrong] if a.ndim and bad.subject.rowwise else ...
        x, y = a[rows], b[rows]
        with np.errstate(all="ignore"):
            y = y.astype("float32")
        close = np.isclose(x, y, rtol=1e-3, atol=1e-5, equal_nan=True)
        if extreme:
            close |= np.isnan(x)
        if not close.all():
            return f"another number {x}, not {y}"
    return None
