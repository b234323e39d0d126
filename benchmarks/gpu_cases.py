"""What `gpu.py` measures on one backend, a line of JSON for each figure.

Data is made on the device. A loss that is not installed is left out, and one
that fails is reported and left out, so that the others are measured.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import contrastive
import crossentropy
import harness
import linear_crossentropy
import metrics
import ranking

MODES = {
    "torch": "PyTorch",
    "jax": "JAX",
    # As `fit` compiles unless told otherwise.
    "tensorflow": "TensorFlow XLA",
}
MODE = MODES.get(os.environ.get("KERAS_BACKEND"))
# Rows, features and classes; rows and classes; rows and columns; numbers.
USUAL = {
    "heads": [(8192, 2304, 256_000), (8192, 4096, 128_256)],
    "logits": (8192, 32_768),
    "contrastive": (65_536, 768),
    "pairs": (8192, 128),
    "histogram": 1_000_000,
    "ranks": 5000,
}
SMALL = {
    "heads": [(16, 8, 96), (8, 16, 64)],
    "logits": (16, 32),
    "contrastive": (16, 8),
    "pairs": (16, 8),
    "histogram": 1000,
    "ranks": 50,
}
LAYOUTS = ("class_vectors", "kernel")
MIXED = "bfloat16 features, float32 weights"
OURS, PER_ROW, COMPILED = "keras_xent", "keras_xent, per row", "torch.compile"
# The peers that take the weights in this layout.
PEERS = {
    ("PyTorch", "class_vectors"): ["Liger", "CCE"],
    ("JAX", "kernel"): ["tokamax"],
}


class Table(NamedTuple):
    """Losses on the same data, differentiated by its first `count` arrays.

    `losses` has, by name, what makes a function of the data.
    """

    part: str
    title: str
    data: Callable
    losses: dict
    count: int = 1


def title(size, dtype, layout):
    n, d, v = size
    return f"{n:,} × {d:,} × {v:,}, {dtype}, `{layout}`"


def tables(sizes):
    """All tables; what bars are about comes first."""
    heads = sizes["heads"]
    for size in heads:
        for layout in LAYOUTS:
            yield head_table(size, "bfloat16", layout)
    yield head_table(heads[0], "float32", "class_vectors")
    yield head_table(heads[0], MIXED, "kernel")
    for kind in ("sparse", "dense", "sigmoid"):
        for dtype in ("float32", "bfloat16"):
            yield logits_table(kind, dtype, sizes["logits"])
    for name in contrastive.LOSSES:
        yield contrastive_table(name, sizes["contrastive"])
    yield pairs_table(sizes["pairs"])
    yield histogram_table(sizes["histogram"])
    yield ranks_table(sizes["ranks"])
    if MODE == "PyTorch":  # It takes its time, so it comes last.
        for size in heads:
            yield head_table(size, "bfloat16", "class_vectors", [COMPILED])


# Linear classifiers ----------------------------------------------------------


def head_table(size, dtype, layout, names=(OURS, PER_ROW, "Keras")):
    if dtype == "bfloat16" and OURS in names:
        names = [*names, *PEERS.get((MODE, layout), [])]
    return Table(
        "linear",
        title(size, dtype, layout),
        functools.partial(head_data, size, dtype, layout),
        {name: functools.partial(head_loss, name, layout) for name in names},
        2,
    )


def head_data(size, dtype, layout):
    """Features, weights, labels."""
    import keras

    n, d, v = size
    of_features = "bfloat16" if dtype == MIXED else dtype
    of_weights = "float32" if dtype == MIXED else dtype
    shape = (v, d) if layout == "class_vectors" else (d, v)
    normal = keras.random.normal
    return (
        normal((n, d), dtype=of_features, seed=0),
        normal(shape, stddev=d**-0.5, dtype=of_weights, seed=1),
        keras.random.randint((n,), 0, v, dtype="int32", seed=2),
    )


def head_loss(name, layout):
    import keras
    from keras import ops

    import keras_xent

    if name in (OURS, COMPILED):
        return lambda x, w, y: keras_xent.ops.linear_softmax_crossentropy(
            y, x, **{layout: w}, reduction="mean"
        )
    if name == PER_ROW:
        return lambda x, w, y: ops.mean(
            keras_xent.ops.linear_softmax_crossentropy(y, x, **{layout: w})
        )
    if name != "Keras":
        return linear_crossentropy.peer(name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def dense(x, w, y):
        # As a Dense layer, which casts its kernel under a mixed policy.
        w = ops.cast(w, x.dtype)
        w = ops.transpose(w) if layout == "class_vectors" else w
        return loss(y, ops.matmul(x, w))

    return dense


# The others ------------------------------------------------------------------


def logits_table(kind, dtype, size):
    make = crossentropy.make_loss

    def of(name):
        loss = make(kind, name, MODE)
        return lambda logits, targets: loss(targets, logits)

    return Table(
        "losses",
        f"{kind}, {size[0]:,} × {size[1]:,}, {dtype}",
        functools.partial(logits_data, kind, dtype, size),
        {
            name: functools.partial(of, name)
            for name in (OURS, "Keras", "native")
        },
    )


def logits_data(kind, dtype, size):
    import keras
    from keras import ops

    logits = keras.random.normal(size, dtype=dtype, seed=0)
    if kind == "sigmoid":
        flags = keras.random.uniform(size, seed=1) < 0.5
        return logits, ops.cast(flags, dtype)
    labels = keras.random.randint(size[:1], 0, size[1], dtype="int32", seed=1)
    if kind == "sparse":
        return logits, labels
    targets = 0.9 * ops.one_hot(labels, size[1], dtype=dtype) + 0.1 / size[1]
    return logits, ops.cast(targets, dtype)


def contrastive_table(name, size):
    """Blocks of pairs beside all pairs, of which there are 4 billion."""
    import keras
    from keras import ops

    n, dim = size
    views = 1 if name == "supervised" else 2

    def data():
        x = keras.random.normal((n, views, dim), dtype="bfloat16", seed=0)
        return x, ops.arange(n, dtype="int32") // (3 - views)

    return Table(
        "contrastive",
        contrastive_title(name, size),
        data,
        {
            loss: functools.partial(contrastive.make_loss, name, loss)
            for loss in (OURS, contrastive.DENSE)
        },
    )


def contrastive_title(name, size):
    return f"{name}, {size[0]:,} × {size[1]:,}, bfloat16"


def pairs_table(size):
    import keras
    from keras import ops

    import keras_xent

    def products(x):
        """Short, and not exact for rows that are nearly equal."""
        p, log_p = ops.softmax(x), ops.log_softmax(x)
        own = ops.sum(p * log_p, axis=1)
        across = ops.matmul(p, ops.transpose(log_p))
        return own[:, None] + own[None] - across - ops.transpose(across)

    def mean(pairwise):
        return lambda x: ops.mean(pairwise(x))

    return Table(
        "pairs",
        f"symmetric KL of all pairs, {size[0]:,} × {size[1]:,}, float32",
        lambda: (keras.random.normal(size, seed=0),),
        {
            OURS: lambda: mean(keras_xent.ops.pairwise_symmetric_kl),
            "by one product, inexact": lambda: mean(products),
        },
    )


def histogram_table(count):
    import keras

    import keras_xent

    def data():
        flags = keras.random.uniform((count,), seed=0) < 0.5
        scores = keras.random.uniform((count,), seed=1)
        return keras.ops.cast(flags, "int32"), scores

    losses = {
        OURS: keras_xent.metrics.ScoreHistogram,
        "Keras AUC(200)": keras.metrics.AUC,
    }
    if MODE == "PyTorch":
        losses["BinaryAUROC(200)"] = functools.partial(
            metrics.make, "BinaryAUROC(200)"
        )
    return Table(
        "histogram",
        f"update of a metric, {count:,} scores in [0, 1]",
        data,
        losses,
        0,
    )


def ranks_table(count):
    import keras
    from keras import ops

    def squares(name):
        ranks = ranking.make_ranks(name)
        return lambda x: ops.mean(ops.square(ranks(x)))

    names = [OURS, "pairwise", *["torchsort"] * (MODE == "PyTorch")]
    return Table(
        "ranks",
        f"soft ranks of {count:,} scores, float32",
        lambda: (keras.random.normal((count,), seed=0),),
        {name: functools.partial(squares, name) for name in names},
    )


# Measuring -------------------------------------------------------------------


def update_step(metric, arrays):
    """An update as in `fit`, and what it is called with."""
    if not hasattr(metric, "update_state"):  # torchmetrics
        import keras

        update = metric.to(keras.ops.convert_to_tensor(0.0).device).update
        return lambda match, score: update(score, match), arrays
    if MODE == "JAX":
        state = [variable.value for variable in metric.variables]
        update = metric.stateless_update_state
        return harness.compiled(update, MODE), (state, *arrays)
    metric.update_state(*arrays)  # makes what variables it makes late
    return harness.compiled(metric.update_state, MODE), arrays


def measure(table, name, arrays):
    """Milliseconds, MB beyond the inputs, MB of the gradients."""
    function = table.losses[name]()
    if table.count:
        mode = "torch.compile" if name == COMPILED else MODE
        step = harness.step(function, mode, table.count)
    else:
        step, arrays = update_step(function, arrays)
    measured = harness.on_device(step, arrays)
    return {
        "ms": 1000 * measured["seconds"],
        "mb": measured.get("peak_mb"),
        "gradient_mb": sum(map(bytes_of, arrays[: table.count])) / 2**20,
    }


def bytes_of(x):
    import keras
    import numpy as np

    dtype = keras.backend.standardize_dtype(x.dtype)
    bits = {"float32": 32, "bfloat16": 16}[dtype]
    return int(np.prod(x.shape)) * bits // 8


def device():
    """The name of the GPU and the backend's version; None without a GPU."""
    if MODE == "PyTorch":
        import torch

        found = torch.cuda.is_available() and torch.cuda.get_device_name()
        return found or None, torch.__version__
    if MODE == "JAX":
        import jax

        first = jax.devices()[0]
        found = first.platform == "gpu" and first.device_kind
        return found or None, jax.__version__
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if not found:
        return None, tf.__version__
    details = tf.config.experimental.get_device_details(found[0])
    return details.get("device_name", "a GPU"), tf.__version__


def say(**figures):
    print(json.dumps(figures), flush=True)


def main(small, parts, seconds):
    """Measures until the time is up; what is left is said to be left."""
    end = time.monotonic() + seconds
    name, version = device()
    say(device=name, version=version)
    if name is None and not small:
        return
    for table in tables(SMALL if small else USUAL):
        if table.part not in parts:
            continue
        arrays = table.data()
        for loss in table.losses:
            row = {"part": table.part, "table": table.title, "loss": loss}
            if time.monotonic() > end:
                say(**row, failed="no time was left")
                continue
            try:
                say(**row, **measure(table, loss, arrays))
            except ImportError as error:
                print(f"left out: {loss}: {error}", file=sys.stderr)
            except Exception as error:
                said = str(error).strip().splitlines() or [""]
                # TensorFlow begins with where, the others with what.
                said = said[-1 if MODE.startswith("TensorFlow") else 0]
                failed = f"{type(error).__name__}: {said[:200]}"
                say(**row, failed=failed)
        del arrays
