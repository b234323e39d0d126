"""A right call of every public name, by the data and the options that it takes.

`tests/test_bad_calls.py` makes wrong ones of them.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable

import keras
import numpy as np

from keras_xent import callbacks, data, layers, losses, metrics
from keras_xent._keras import set_mask
from tests import contract
from tests.testing import normal, to_numpy

ROWS = 6
IDS = np.arange(ROWS, dtype="int32") % 3
WEIGHT = np.array([1, 2, 0.5, 1, 3, 1], "float32")

# What is not drawn as an option, and why.
NOT_OPTIONS = {
    "name": "Keras compares it as it is, in each of its classes",
    "dtype": "Keras compares it as it is, in each of its classes",
    "group": "is PyTorch's, and looked at in several processes only",
    "candidates": "is made by the contract, beside the counts that are data",
    "class_vectors": "is made by the contract, beside the counts that are data",
    "validation_data": "is made of the data here",
    "embedding": "is a model of Keras's",
    "layer": "is a layer of a model",
    "tied_to": "is a layer of a model",
    "use_multiprocessing": "is Keras's, for which it starts processes",
    "workers": "is Keras's, for which it starts threads",
    "max_queue_size": "is Keras's, read once there are workers",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A public name and what it is rightly called with.

    Attributes:
        thing: A class or a function, which has the options.
        data: What it measures: name -> (role, array or None).
        run: What calls it, given data and options by name.
        options: Those that the right call has.
        rowwise: Whether each row of the result is of one row of the data.
        ignored: The labels that do not count.
        classes: How many classes there are.
        tensors: Whether it takes tensors: the loss of a head takes no others
            than that of the head.
    """

    thing: Callable
    data: dict
    run: Callable
    options: dict = dataclasses.field(default_factory=dict)
    rowwise: bool = False
    ignored: tuple = ()
    classes: int = 3
    tensors: bool = True

    @property
    def name(self):
        package = self.thing.__module__.split(".")[1]
        return f"{package}.{self.thing.__name__}"

    def parameters(self):
        """The options: name -> annotation."""
        return {
            x.name: x.annotation
            for x in inspect.signature(self.thing).parameters.values()
            if x.name not in {*self.data, *NOT_OPTIONS}
            and x.kind is not x.VAR_KEYWORD
        }

    def results(self, given, options):
        """What comes out, as NumPy arrays."""
        found = self.run(given, {**self.options, **options})
        return [
            to_numpy(x) if keras.ops.is_tensor(x) else np.asarray(x)
            for x in keras.tree.flatten(found)
        ]


def of_case(case):
    """The call of a loss or a metric under contract."""
    # Of logits, without their head, it draws nothing.
    pairs = case.pairs and not case.head
    labels = {
        "distributions": "targets",
        "logits pairs": "logits",
        "class ids": "ids" if pairs else "class ids",
        "yes or no": "shares",
        "distances": "flags" if case.cls in METRICS else "shares",
        "numbers": "numbers",
    }[case.data]
    special = {
        losses.SigmoidCrossentropy: "shares",
        losses.PearsonLoss: "numbers",
    }
    predictions = "features" if case.pairs else "logits"
    given = {
        "y_true": (special.get(case.cls, labels), case.labels(ROWS)),
        "y_pred": (predictions, case.predictions(ROWS)),
        "sample_weight": ("weight", WEIGHT),
        "mask": ("mask", None),
    }
    ignored = case.kwargs.get("ignore_class", ())
    return Call(
        case.cls,
        given,
        functools.partial(_measure if case.cls in METRICS else _lose, case.cls),
        _options(case),
        rowwise=not (case.cls in METRICS or pairs or case.is_list),
        ignored=tuple(np.atleast_1d(ignored)),
        tensors=not case.head,
    )


def _options(case):
    if case.cls not in METRICS:
        return {**case.kwargs, "reduction": "none"}
    coarse = "resolution" in inspect.signature(case.cls).parameters
    # A few bins take no time.
    return {**({"resolution": 1} if coarse else {}), **case.kwargs}


def _lose(cls, given, options):
    loss = cls(**options)
    return loss(given["y_true"], _masked(given), given["sample_weight"])


def _measure(cls, given, options):
    metric = cls(**options)
    metric.update_state(given["y_true"], _masked(given), given["sample_weight"])
    return metric.result()


def _masked(given):
    x, mask = given["y_pred"], given["mask"]
    if mask is None:
        return x
    x = keras.ops.convert_to_tensor(x)
    set_mask(x, mask)
    return x


METRICS = [getattr(metrics, name) for name in metrics.__all__]
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

# Where labels are ids of any kind: rows with the same one belong together.
OF_IDS = {
    "info_nce", "multi_similarity", "pair_hinge", "prototypical_crossentropy",
    "sigmoid_contrastive", "supervised_contrastive", "symmetric_kl_hinge",
    "triplet_hinge",
}  # fmt: skip
# Those take a matrix of four classes.
WITH_MATRIX = {"nce_loss", "linear_softmax_crossentropy",
               "sampled_softmax_crossentropy"}  # fmt: skip
SAMPLED = WITH_MATRIX - {"linear_softmax_crossentropy"}
OF_ALL_ROWS = {
    "fit_temperature", "pairwise_cosine", "pairwise_euclidean", "pairwise_kl",
    "pairwise_squared_euclidean", "pairwise_symmetric_kl",
}  # fmt: skip


def of_op(op):
    """The call of an operation under contract."""
    name, op = str(op), op.exact()
    parameters = list(inspect.signature(op.function).parameters)
    names = ["counts", *parameters] if name in SAMPLED else parameters
    names = names[: len(op.data)]
    given = {
        argument: (_role(name, kind), array)
        for argument, kind, array in zip(
            names, op.data, op.arrays(ROWS), strict=True
        )
    }
    if "sample_weight" in parameters:
        # One for each entry of a list, or for each row.
        entries = "mask" in parameters
        like = given[names[0]][1] if entries else WEIGHT
        weight = np.ones_like(like) * WEIGHT.reshape(
            (-1,) + (1,) * (like.ndim - 1)
        )
        given["sample_weight"] = "weight", weight
    if "mask" in parameters:
        given["mask"] = "mask", None

    def run(given, options):
        given = dict(given)
        by_position = [given.pop(x) for x in names]
        return op.function(*by_position, **given, **options)

    return Call(
        op.function,
        given,
        run,
        op.kwargs,
        rowwise=not (name in OF_IDS or name in OF_ALL_ROWS),
        classes=4 if "sample" in name or name in WITH_MATRIX else 3,
    )


def _role(op, kind):
    if op in OF_IDS and kind == "class ids":
        return "ids"
    if kind == "logits" and (op in OF_IDS | SAMPLED or "pairwise" in op):
        return "features"
    if op == "sigmoid_crossentropy" and kind == "targets":
        return "shares"
    roles = {"yes or no": "shares", "scores": "numbers", "counts": "weight"}
    return roles.get(kind, kind)


FEATURES = "features", normal(ROWS, 3)
LOGITS = "logits", normal(ROWS, 3)
INITIALIZER = keras.initializers.RandomNormal(seed=0)
HEAD = {"units": 3, "kernel_initializer": INITIALIZER}


def of_layer(cls, options=None, **given):
    def run(given, options):
        inputs = list(given.values())
        return cls(**options)(inputs if len(inputs) > 1 else inputs[0])

    return Call(cls, given, run, options or {}, rowwise=True)


def behind_a_head():
    """A loss of what its head returns in training."""

    def run(given, options):
        features = layers.LinearHead(**HEAD)(given["features"], training=True)
        loss = losses.LinearCrossentropy(**options)
        return loss(given["y_true"], features, given["sample_weight"])

    given = {
        "y_true": ("class ids", IDS),
        "features": FEATURES,
        "sample_weight": ("weight", WEIGHT),
    }
    return Call(
        losses.LinearCrossentropy, given, run, {"reduction": "none"}, True
    )


@functools.cache
def model(last):
    """A model whose output a callback of that kind looks at."""
    layer = {
        "scores": lambda: keras.layers.Dense(1),
        "embeddings": lambda: keras.layers.Dense(3),
        "temperature": layers.Temperature,
        "margin": lambda: layers.CosineHead(3, angular_margin=0.1),
    }[last]()
    before = keras.layers.Dense(3, kernel_initializer=INITIALIZER)
    made = keras.Sequential([keras.Input((3,)), before, layer])
    made.compile("sgd", "mse")
    return made


def of_callback(cls, last, role=None, labels=None, **options):
    """An epoch of a callback, without training."""

    def run(given, options):
        if given:
            rows = normal(ROWS, 3, seed=3)
            parts = rows, given["y"], given["sample_weight"]
            options = {"validation_data": parts, **options}
        callback, logs = cls(**options), {}
        callback.set_model(model(last))
        callback.on_train_begin()
        callback.on_epoch_begin(0)
        callback.on_epoch_end(0, logs)
        callback.on_train_end()
        return logs

    given = {"y": (role, labels), "sample_weight": ("weight", WEIGHT)}
    return Call(cls, given if role else {}, run, options)


def of_function(function, **given):
    def run(given, options):
        return function(**given, **options)

    return Call(function, given, run)


def batches(given, options):
    return data.ClassBalancedBatches(**given, **options)[0]


BATCHES = {
    "x": ("inputs", normal(ROWS, 3)),
    "y": ("labels", IDS),
    "sample_weight": ("weight", WEIGHT),
}
OF_BATCHES = {"classes_per_batch": 2, "examples_per_class": 2, "seed": 0}


def diagnose_callback(given, options):
    callbacks.Diagnose(**options)
    return []


def all_reduce(given, options):
    metric = metrics.MatchAUC(similarity=False, resolution=0)
    metrics.all_reduce(**{"metrics_or_model": metric, **options})
    return []


CALLS = [
    *map(of_case, contract.LOSSES),
    behind_a_head(),
    *map(of_case, contract.METRICS + MORE_METRICS),
    of_function(metrics.retrieval, embeddings=FEATURES, ids=("names", IDS)),
    of_function(
        metrics.cluster_misclassification_rate,
        labels=("names", IDS),
        clusters=("names", IDS // 2),
    ),
    Call(metrics.all_reduce, {}, all_reduce),
    *map(of_op, contract.OPS),
    of_layer(layers.LinearHead, HEAD, x=FEATURES),
    of_layer(layers.CosineHead, HEAD, x=FEATURES),
    of_layer(layers.SimilarityHead, x=FEATURES),
    of_layer(layers.Temperature, {"temperature": 2.0}, x=LOGITS),
    of_layer(
        layers.MatchDecision,
        {"threshold": 0.5, "similarity": False},
        x=("logits", normal(ROWS)),
    ),
    of_layer(layers.SymmetricKLDistance, a=LOGITS, b=LOGITS),
    of_callback(
        callbacks.TuneThreshold, "scores", "flags", IDS % 2, similarity=True
    ),
    of_callback(
        callbacks.TuneThreshold, "embeddings", "ids", IDS, distance="cosine"
    ),
    of_callback(callbacks.EvaluateRetrieval, "embeddings", "names", IDS),
    of_callback(
        callbacks.TemperatureScaling, "temperature", "class ids", IDS
    ),
    of_callback(callbacks.MarginSchedule, "margin", epochs=2),
    Call(callbacks.Diagnose, {}, diagnose_callback),
    Call(data.ClassBalancedBatches, BATCHES, batches, OF_BATCHES),
]  # fmt: skip
