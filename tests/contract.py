"""The classes and operations under contract: one line each.

A case is a class, its arguments, and the kind of data that it takes:

- "distributions": targets (n, 3), logits (n, 3)
- "logits pairs": logits (n, 3) of a teacher, logits (n, 3)
- "class ids": labels (n,), logits or embeddings (n, 3)
- "yes or no": labels (n, 1), logits (n, 1)
- "distances": match flags (n, 1), distances (n, 1)
- "numbers": targets (n, 1), scores (n, 1)
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np

from keras_xent import heads, layers, losses, metrics, ops
from tests.testing import BACKEND, normal


@dataclasses.dataclass(frozen=True)
class Case:
    cls: type
    kwargs: dict
    data: str
    # PyTorch compiles for 12 to 25 s a model: one class of each kind.
    torch_compile: bool = False
    # Whether rows meet each other, so that a batch is more than its rows.
    pairs: bool = False
    # Whether a row counts only beside another of its class (1), and of another
    # class as well (2).
    mates: int = 0
    # How many rows a metric needs to measure anything.
    least: int = 2
    # Whether the batch is one list, with one loss for all rows.
    is_list: bool = False
    # Whether predictions are what a `LinearHead` returned.
    head: bool = False
    # Whether it draws in training. A seed is not saved with a model.
    random: bool = False

    def __str__(self):
        shown = ",".join(f"{k}={v}" for k, v in self.kwargs.items())
        return f"{self.cls.__name__}({shown})"

    def make(self, **kwargs):
        return self.cls(**{**self.kwargs, **kwargs})

    def loss(self, **kwargs):
        """A loss to be called on `predictions`, which no model has made."""
        loss = self.make(**kwargs)
        if not self.head:
            return loss
        # Its products are the features themselves: both are `predictions`.
        kernel = np.eye(self.units, dtype="float32")
        head = layers.LinearHead(self.units)
        note = heads.Note(head, {"kernel": kernel}, seed=0)

        def of_head(labels, features, weight=None):
            if not keras.ops.is_tensor(features):
                features = keras.ops.convert_to_tensor(features)
            heads.leave_note(features, note)
            return loss(labels, features, weight)

        return of_head

    def labels(self, rows, seed=0):
        """Targets of `rows` examples."""
        if self.data == "distributions":
            return np.eye(3, dtype="float32")[self._ids(rows, seed)]
        if self.data == "logits pairs":
            return normal(rows, 3, seed=seed + 2)
        if self.data == "class ids":
            return self._ids(rows, seed)
        if self.data == "numbers":
            return normal(rows, 1, seed=seed)
        return (self._ids(rows, seed)[:, None] > 0).astype("int32")

    def predictions(self, rows, seed=1):
        """Model outputs for `rows` examples."""
        x = normal(rows, self.units, seed=seed)
        return np.abs(x) if self.data == "distances" else x

    def model(self, jit_compile=False, run_eagerly=False, **compile_args):
        activation = "softplus" if self.data == "distances" else None
        keras.utils.set_random_seed(0)
        last = keras.layers.Dense(self.units, activation=activation)
        if self.head:
            last = layers.LinearHead(
                self.units, use_bias=True, sampled=self.random
            )
        model = keras.Sequential([keras.Input((4,)), last])
        model.compile(
            optimizer=keras.optimizers.SGD(0.1),
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            **compile_args,
        )
        return model

    @property
    def units(self):
        one = ("yes or no", "distances", "numbers")
        return 1 if self.data in one else 3

    def counted(self, labels, weight=None):
        """Which rows count in a mean, none being masked."""
        labels = labels.reshape(len(labels), -1)[:, 0]
        if not self.mates:
            return ~np.isin(labels, self.kwargs.get("ignore_class", []))
        there = np.ones(len(labels)) if weight is None else weight != 0
        same = labels[:, None] == labels
        apart = ~np.eye(len(labels), dtype=bool) & (there * there[:, None] > 0)
        counted = (same & apart).any(axis=1)
        if self.mates == 2:
            counted &= (~same & apart).any(axis=1)
        return counted | (there == 0)

    def losses(self, rows):
        """How many losses `rows` examples have."""
        return 1 if self.is_list else rows

    def _ids(self, rows, seed):
        ids = np.random.default_rng(seed).integers(0, 3, rows)
        ids[:2] = [0, 1][:rows]
        return ids.astype("int32")


# How a model can be compiled. Without `jit_compile` JAX and PyTorch run eagerly
# in any case.
HOWS = ["graph", "jit_compile"]
if BACKEND == "tensorflow":
    HOWS += ["run_eagerly"]

LOSSES = [
    Case(losses.SoftmaxCrossentropy, {}, "distributions"),
    Case(losses.SoftmaxCrossentropy, {"label_smoothing": 0.1, "class_weight": [1.0, 2.0, 0.5], "focal_gamma": 2.0, "z_loss": 1e-3}, "distributions"),
    Case(losses.SparseSoftmaxCrossentropy, {}, "class ids", torch_compile=True),
    Case(losses.SparseSoftmaxCrossentropy, {"label_smoothing": 0.1, "class_weight": {1: 2.0, 2: 0.5}, "focal_gamma": 2.0, "z_loss": 1e-3, "ignore_class": [2]}, "class ids"),
    Case(losses.LinearCrossentropy, {}, "class ids", head=True),
    Case(losses.LinearCrossentropy, {"label_smoothing": 0.1, "class_weight": [1.0, 2.0, 0.5], "z_loss": 1e-3, "ignore_class": [2], "softcap": 5.0, "precision": "float32", "block_size": 2}, "class ids", head=True),
    Case(losses.SampledSoftmaxCrossentropy, {"num_sampled": 2}, "class ids", head=True, random=True),
    Case(losses.SampledSoftmaxCrossentropy, {"num_sampled": 2, "batch_classes": True, "distribution": "uniform", "subtract_log_q": False}, "class ids", head=True, random=True, pairs=True),
    Case(losses.NoiseContrastiveEstimation, {"num_sampled": 4, "unique": False, "distribution": [3.0, 2.0, 1.0], "ignore_class": [2]}, "class ids", head=True, random=True),
    Case(losses.SigmoidCrossentropy, {"pos_weight": 2.0, "focal_gamma": 1.0, "label_smoothing": 0.1}, "yes or no"),
    Case(losses.SigmoidCrossentropy, {"ignore_class": -1}, "distributions"),
    Case(losses.SoftplusHinge, {"margin": 1.0, "softness": 0.5}, "distances"),
    Case(losses.SymmetricKLHinge, {"margin": 2.0}, "class ids", pairs=True),
    Case(losses.SymmetricKLHinge, {"margin": 2.0, "softness": 0.0, "balanced": False, "directed": True}, "class ids", pairs=True),
    Case(losses.SoftplusHinge, {"margin": 1.0, "softness": 0.0, "squared": True}, "distances"),
    Case(losses.PairHinge, {"margin": 2.0}, "class ids", pairs=True),
    Case(losses.PairHinge, {"margin": 2.0, "distance": "cosine", "softness": 0.0, "squared": True, "balanced": False}, "class ids", pairs=True),
    Case(losses.TripletHinge, {"margin": 2.0}, "class ids", pairs=True, mates=2),
    Case(losses.TripletHinge, {"margin": 0.5, "mining": "all", "softness": 0.5}, "class ids", pairs=True, mates=2),
    Case(losses.MultiSimilarity, {}, "class ids", pairs=True, mates=1),
    Case(losses.PrototypicalCrossentropy, {"distance": "cosine", "temperature": 0.2}, "class ids", pairs=True, mates=1),
    Case(losses.SupervisedContrastive, {"temperature": 0.5, "block_size": 2, "precision": "float32"}, "class ids", pairs=True, mates=1),
    Case(losses.InfoNCE, {"symmetric": False, "precision": "float32"}, "class ids", pairs=True, mates=1),
    Case(losses.SigmoidContrastive, {"bias": -1.0, "precision": "float32"}, "class ids", pairs=True),
    Case(losses.KLDivergence, {"temperature": 2.0}, "logits pairs"),
    Case(losses.KLDivergence, {"beta": 1.0, "axis": -1}, "logits pairs"),
    Case(losses.JensenShannonDivergence, {"beta": 0.3, "temperature": 2.0}, "logits pairs"),
    Case(losses.SpearmanLoss, {}, "numbers", is_list=True),
    Case(losses.PearsonLoss, {"axis": 1}, "distributions"),
]  # fmt: skip

METRICS = [
    Case(metrics.MatchAccuracy, {"similarity": False}, "distances", torch_compile=True),
    Case(metrics.MatchAccuracy, {"threshold": 0.7, "balanced": True, "similarity": False}, "distances"),
    Case(metrics.MatchAccuracy, {"similarity": True, "resolution": 5}, "yes or no"),
    Case(metrics.MatchAccuracy, {"distance": "symmetric_kl"}, "class ids", pairs=True),
    Case(metrics.MatchAccuracy, {"distance": "euclidean", "threshold": 1.0}, "class ids", pairs=True),
    Case(metrics.DetectionCost, {"threshold": 0.5, "p_target": 0.05, "similarity": False}, "distances"),
    Case(metrics.VerificationMetrics, {"p_target": 0.5, "method": "convex_hull", "similarity": True, "resolution": 2, "range": (-8.0, 8.0)}, "yes or no"),
    Case(metrics.CrossentropyRate, {"unit": "bits_per_byte", "bytes_per_token": [1, 4, 2], "ignore_class": [2]}, "class ids", least=1),
    Case(metrics.Perplexity, {}, "class ids", least=1),
    Case(metrics.ExpectedCalibrationError, {}, "yes or no", least=1),
    Case(metrics.ExpectedCalibrationError, {"bins": 4, "binning": "equal_mass", "class_wise": 3, "norm": "l2"}, "class ids", least=1),
    Case(metrics.BrierScore, {}, "class ids", least=1),
    Case(metrics.SpearmanCorrelation, {"capacity": 32}, "numbers"),
    Case(metrics.SpearmanCorrelation, {"capacity": None, "resolution": 1}, "numbers"),
]  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """A public operation, the data that it takes by position, and the rest.

    Each kind of data has one entry a row, and the batch may be unknown.
    """

    function: Callable
    data: list[str]
    kwargs: dict = dataclasses.field(default_factory=dict)
    # Whether its result has a gradient by the last of its data.
    gradient: bool = True
    # Whether it is written with a gradient of its own.
    own_gradient: bool = False
    # Whether it multiplies factors in the dtype that they have.
    products: bool = False

    def __str__(self):
        return self.function.__name__

    def arrays(self, rows, dtype="float32", seed=0):
        """One NumPy array for each argument by position."""
        return [
            DATA[kind](rows, seed + i).astype(dtype)
            if kind in FLOATS + NUMBERS
            else DATA[kind](rows, seed + i)
            for i, kind in enumerate(self.data)
        ]

    def exact(self):
        """The operation with its products in float32 at least."""
        if not self.products:
            return self
        kwargs = {**self.kwargs, "precision": "float32"}
        return dataclasses.replace(self, kwargs=kwargs)

    def __call__(self, *tensors):
        return self.function(*tensors, **self.kwargs)


# What is floats, and what may be integers as well.
FLOATS = ["logits", "distances", "scores"]
NUMBERS = ["numbers"]
DATA = {
    "logits": lambda rows, seed: normal(rows, 3, seed=seed),
    "scores": lambda rows, seed: normal(rows, 5, seed=seed),
    "numbers": lambda rows, seed: normal(rows, 5, seed=seed),
    "distances": lambda rows, seed: np.abs(normal(rows, seed=seed)),
    "targets": lambda rows, seed: np.eye(3, dtype="float32")[_ids(rows, seed)],
    "class ids": lambda rows, seed: _ids(rows, seed),
    "yes or no": lambda rows, seed: _ids(rows, seed) % 2,
    "counts": lambda rows, seed: np.full(rows, 0.5, "float32"),
}


def _ids(rows, seed):
    return (np.arange(rows, dtype="int32") + seed) % 3


_MATRIX = normal(4, 3, seed=9)


def _sampled(function):
    """Over two sampled classes of four, given the counts of the labels."""

    @functools.wraps(function)
    def of_counts(counts, labels, features, **options):
        ids, half = np.array([1, 3]), np.full(2, 0.5, "float32")
        candidates = (ids, counts, half)
        return function(
            labels,
            features,
            class_vectors=_MATRIX,
            candidates=candidates,
            **options,
        )

    return of_counts


OPS = [
    Op(ops.average_rank, ["numbers"], gradient=False),
    Op(ops.brier_score, ["targets", "logits"]),
    Op(ops.entropy, ["logits"]),
    Op(ops.fit_temperature, ["class ids", "logits"], gradient=False),
    Op(ops.info_nce, ["class ids", "logits"], own_gradient=True, products=True),
    Op(ops.jensen_shannon, ["logits", "logits"]),
    Op(ops.kl_divergence, ["logits", "logits"]),
    Op(ops.linear_softmax_crossentropy, ["class ids", "logits"], {"kernel": _MATRIX.T}, own_gradient=True, products=True),
    Op(ops.log_uniform_sample, ["class ids"], {"num_sampled": 2, "classes": 4, "seed": 0}, gradient=False),
    Op(ops.multi_similarity, ["class ids", "logits"], {"beta": 10.0}),
    Op(_sampled(ops.nce_loss), ["counts", "class ids", "logits"], products=True),
    Op(ops.pair_hinge, ["class ids", "logits"], {"margin": 1.0}),
    Op(ops.pairwise_cosine, ["logits"]),
    Op(ops.pairwise_euclidean, ["logits"]),
    Op(ops.pairwise_kl, ["logits"]),
    Op(ops.pairwise_squared_euclidean, ["logits"]),
    Op(ops.pairwise_symmetric_kl, ["logits"]),
    Op(ops.pearson_correlation, ["numbers", "numbers"]),
    Op(ops.pearson_loss, ["numbers", "scores"]),
    Op(ops.prototypical_crossentropy, ["class ids", "logits"]),
    Op(_sampled(ops.sampled_softmax_crossentropy), ["counts", "class ids", "logits"], products=True),
    Op(ops.sigmoid_contrastive, ["class ids", "logits"], own_gradient=True, products=True),
    Op(ops.sigmoid_crossentropy, ["targets", "logits"]),
    Op(ops.soft_rank, ["scores"], own_gradient=True),
    Op(ops.softmax_crossentropy, ["targets", "logits"]),
    Op(ops.softplus_hinge, ["yes or no", "distances"], {"margin": 1.0}),
    Op(ops.sparse_softmax_crossentropy, ["class ids", "logits"]),
    Op(ops.spearman_correlation, ["numbers", "numbers"], gradient=False),
    Op(ops.spearman_loss, ["numbers", "scores"], own_gradient=True),
    Op(ops.supervised_contrastive, ["class ids", "logits"], own_gradient=True, products=True),
    Op(ops.symmetric_kl, ["logits", "logits"]),
    Op(ops.symmetric_kl_hinge, ["class ids", "logits"], {"margin": 1.0}),
    Op(ops.triplet_hinge, ["class ids", "logits"], {"margin": 9.0, "mining": "all"}),
    Op(ops.uniform_sample, ["class ids"], {"num_sampled": 2, "classes": 4, "seed": 0}, gradient=False),
    Op(ops.unigram_sample, ["class ids"], {"num_sampled": 2, "counts": [4, 3, 2, 1], "seed": 0}, gradient=False),
]  # fmt: skip
