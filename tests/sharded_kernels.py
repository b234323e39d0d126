"""Heads whose classes are spread over 8 devices, for test_sharded_kernels.py.

Prints as JSON for each case: how far the weights after three steps of `fit` are
from those of one device and how far they have moved, the bytes of temporary
memory that a device needs in the compiled step, here and with a Dense layer and
a loss of Keras's, and the sizes of the tensors that the step gathers.
"""

import json
import math
import re
import sys

import jax

PROGRAMS = []


def recording(*arguments, jit=jax.jit, **options):
    """`jax.jit`, but the program of the first step of `fit` is kept."""
    compiled = jit(*arguments, **options)
    if [getattr(x, "__name__", "") for x in arguments] != ["train_step"]:
        return compiled

    def call(*arguments):
        if not PROGRAMS:
            PROGRAMS.append(compiled.lower(*arguments).compile())
        return compiled(*arguments)

    return call


# Keras takes it from there when it is imported.
jax.jit = recording

import keras
import numpy as np

from keras_xent import layers, losses

ROWS, WIDTH, CLASSES, STEPS = 512, 64, 32768, 3
MESH = {"batch": 2, "model": 4}

assert len(jax.devices()) == 8


def linear(**options):
    return lambda _: layers.LinearHead(CLASSES, name="head", **options)


def tied(embedding):
    return layers.LinearHead(name="head", tied_to=embedding)


def cosine(_):
    return layers.CosineHead(
        CLASSES,
        name="head",
        angular_margin=0.3,
        sub_centers=2,
        learn_scale=True,
        metrics=["accuracy"],
    )


def uneven(_):
    """Two devices share a class, half of its vectors on each."""
    return layers.CosineHead(CLASSES - 2, name="head", sub_centers=2)


def dense(_):
    return keras.layers.Dense(CLASSES, name="head", use_bias=False)


def tied_dense(embedding):
    return lambda x: embedding(x, reverse=True)


def all_options():
    return losses.LinearCrossentropy(
        ignore_class=3,
        label_smoothing=0.1,
        class_weight=list(np.linspace(0.5, 2.0, CLASSES)),
        z_loss=1e-3,
    )


def keras_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


KERNEL, VECTORS, TABLE = "head/kernel", "head/class_vectors", "embedding/emb.*"
FULL = linear(use_bias=True, softcap=20.0, metrics=["entropy", "accuracy"])
OVER_CLASSES = {KERNEL: (None, "model")}
CASES = {
    "over classes": (linear(), losses.LinearCrossentropy, OVER_CLASSES),
    "over features": (
        linear(),
        losses.LinearCrossentropy,
        {KERNEL: ("model", None)},
    ),
    "replicated": (linear(), losses.LinearCrossentropy, {}),
    "over both": (
        linear(),
        losses.LinearCrossentropy,
        {KERNEL: ("batch", "model")},
    ),
    "over both turned": (
        linear(),
        losses.LinearCrossentropy,
        {KERNEL: ("model", "batch")},
    ),
    "all options": (
        FULL,
        all_options,
        {**OVER_CLASSES, "head/bias": ("model",)},
    ),
    "low rank": (
        linear(lora_rank=4),
        losses.LinearCrossentropy,
        {**OVER_CLASSES, "head/lora_kernel_b": (None, "model")},
    ),
    "low rank as it comes": (
        linear(lora_rank=4),
        losses.LinearCrossentropy,
        OVER_CLASSES,
    ),
    # As KerasHub lays out its language models.
    "tied": (tied, losses.LinearCrossentropy, {TABLE: ("model", "batch")}),
    "cosine": (cosine, losses.LinearCrossentropy, OVER_CLASSES),
    "uneven": (uneven, losses.LinearCrossentropy, OVER_CLASSES),
    "sampled": (
        linear(sampled=True, seed=0),
        lambda: losses.SampledSoftmaxCrossentropy(256),
        {VECTORS: ("model", None)},
    ),
    "noise": (
        linear(sampled=True, seed=0, use_bias=True),
        lambda: losses.NoiseContrastiveEstimation(256),
        {VECTORS: ("model", "batch")},
    ),
    # The output is laid out by Keras after the head has left its note on it.
    "output": (
        linear(),
        losses.LinearCrossentropy,
        {**OVER_CLASSES, ".*head/output": ("batch", None)},
    ),
}


def program(head, loss, layouts):
    """The weights before and after three steps, and the compiled step."""
    distribution = None
    if layouts is not None:
        mesh = keras.distribution.DeviceMesh(tuple(MESH.values()), tuple(MESH))
        layout_map = keras.distribution.LayoutMap(mesh)
        for path, axes in layouts.items():
            layout_map[path] = axes
        distribution = keras.distribution.ModelParallel(
            layout_map=layout_map, batch_dim_name="batch"
        )
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    PROGRAMS.clear()
    ids = keras.Input((), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(
        CLASSES if head in (tied, tied_dense) else 8, WIDTH, name="embedding"
    )
    features = keras.layers.Dense(WIDTH, "tanh")(embedding(ids))
    model = keras.Model(ids, head(embedding)(features))
    rate = {cosine: 0.5, uneven: 0.1}.get(head, 10.0)
    model.compile(keras.optimizers.SGD(rate), loss())
    before = model.get_weights()
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, ROWS * STEPS)
    y = rng.integers(0, CLASSES - 2, ROWS * STEPS)
    # Steps of 8 devices that are queued on few cores wait for each other.
    wait = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: float(logs["loss"])
    )
    how = {"batch_size": ROWS, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[wait], **how)
    return before, model.get_weights(), PROGRAMS[0]


def furthest(a, b):
    pairs = zip(a, b, strict=True)
    return [float(np.abs(x - y).max()) for x, y in pairs if x.dtype.kind == "f"]


def temporaries(compiled):
    return compiled.memory_analysis().temp_size_in_bytes


def gathers(compiled):
    """How many numbers each tensor has that the step gathers."""
    shapes = re.findall(r"\[([\d,]*)\]\S* all-gather", compiled.as_text())
    return [math.prod(map(int, x.split(","))) for x in shapes if x]


def dense_layouts(layouts):
    return {
        KERNEL if path == VECTORS else path: (
            axes[::-1] if path == VECTORS else axes
        )
        for path, axes in layouts.items()
        if path in (KERNEL, VECTORS, TABLE)
    }


def run(name):
    head, loss, layouts = CASES[name]
    before, one, _ = program(head, loss, None)
    _, found, compiled = program(head, loss, layouts)
    twin = tied_dense if head is tied else dense
    *_, of_dense = program(twin, keras_loss, dense_layouts(layouts))
    return {
        "off": max(furthest(found, one)),
        "moved": max(furthest(before, one)),
        "bytes": temporaries(compiled),
        "bytes of Dense": temporaries(of_dense),
        "gathered": max(gathers(compiled), default=0),
        "kernel": WIDTH * CLASSES,
    }


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        print(json.dumps({case: run(case)}), flush=True)
