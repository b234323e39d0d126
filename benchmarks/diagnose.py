"""What a diagnosis costs: once, and in each step of a fit.

    python benchmarks/diagnose.py
    python benchmarks/diagnose.py --kinds mlp transformer

Three models with random weights: "mlp", three Dense layers; "transformer", two
blocks of width 64 over 64 words; "resnet", ResNet50 on images of 224² pixels.
Each case runs once in a process of its own, as a user's first call does, so
that first use and compilation count. All get 32 rows. "forward" is
`model(x, training=True)`, "train" one `train_on_batch`, which compiles where
Keras does by default, and "diagnose" is `keras_xent.diagnose`, which runs
ResNet50 on eight of the rows.

"fit": the step of a compiled fit, two layers of 1024 units on 128 rows, with
the callback `Diagnose` and without it, from the second epoch on.
"""

import time

import harness
import numpy as np

ROWS, CLASSES = 32, 1000
WORDS, WIDTH, LENGTH = 1000, 64, 64
STEPS, BATCH = 100, 128
ONCE = ("forward", "train", "diagnose")


def cases():
    return [
        {"mode": mode, "kind": kind, "what": what}
        for mode in ("PyTorch", "JAX", "TensorFlow graph")
        for kind, each in (
            *((kind, ONCE) for kind in MODELS),
            ("fit", ("plain", "watched")),
        )
        for what in each
    ]


def run(case):
    if case["kind"] == "fit":
        return {"seconds": step_of_a_fit(case["what"] == "watched")}
    return first_use(MODELS[case["kind"]], case["what"])


def first_use(make, what):
    import keras

    import keras_xent

    model, x, y = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)

    def diagnose():
        report = keras_xent.diagnose(model, x, y)
        assert not report.findings, report

    return harness.once(
        {
            "forward": lambda: model(
                keras.ops.convert_to_tensor(x), training=True
            ),
            "train": lambda: model.train_on_batch(x, y),
            "diagnose": diagnose,
        }[what]
    )


def mlp():
    import keras

    dense = keras.layers.Dense
    stack = [dense(256, "relu"), dense(256, "relu"), dense(10)]
    x = np.random.default_rng(0).normal(size=(ROWS, 64)).astype("float32")
    return keras.Sequential([keras.Input((64,)), *stack]), x, labels(10)


def transformer():
    import keras

    layers = keras.layers
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(WORDS, WIDTH)(inputs)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, WIDTH // 4)(y, y)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, "gelu")(y))
    outputs = layers.Dense(10)(layers.GlobalAveragePooling1D()(x))
    words = np.random.default_rng(0).integers(0, WORDS, (ROWS, LENGTH))
    return keras.Model(inputs, outputs), words.astype("int32"), labels(10)


def resnet():
    import keras

    model = keras.applications.ResNet50(
        weights=None, classes=CLASSES, classifier_activation=None
    )
    x = np.random.default_rng(0).normal(size=(ROWS, 224, 224, 3))
    return model, x.astype("float32"), labels(CLASSES)


def labels(classes):
    """Of all classes as far as there are rows, so that none is missing."""
    return np.arange(ROWS) * max(1, classes // ROWS) % classes


MODELS = {"mlp": mlp, "transformer": transformer, "resnet": resnet}


def step_of_a_fit(is_watched):
    import keras

    import keras_xent

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((1024,)),
            layers.Dense(1024, activation="relu"),
            layers.Dense(1024, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * BATCH, 1024)).astype("float32")
    y = rng.integers(0, 10, len(x))
    starts = []
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: starts.append(time.perf_counter()),
            on_train_end=lambda *_: starts.append(time.perf_counter()),
        )
    ]
    if is_watched:
        callbacks.append(keras_xent.callbacks.Diagnose())
    model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0, callbacks=callbacks)
    return (starts[-1] - starts[1]) / (2 * STEPS)


def table(chosen, rounds):
    print("\n| | model | forward s | train s | diagnose s | beyond forward |")
    print("| --- | --- | --- | --- | --- | --- |")
    for first, case in enumerate(chosen):
        if case["what"] != "forward":
            continue
        times, peaks = (
            [harness.median(rounds, first + i, key) for i in range(len(ONCE))]
            for key in ("seconds", "peak_mb")
        )
        forward, _, whole = times
        cells = [case["mode"], case["kind"]]
        cells += [
            f"{harness.show(seconds, 2)} ({harness.show(peak, 0)} MB)"
            for seconds, peak in zip(times, peaks, strict=True)
        ]
        beyond = None if None in (forward, whole) else whole - forward
        cells.append(harness.show(beyond, 2))
        print("| " + " | ".join(cells) + " |")


def table_of_fits(chosen, rounds):
    print("\n| | plain ms | watched ms |")
    print("| --- | --- | --- |")
    for index, case in enumerate(chosen):
        if case["what"] != "plain":
            continue
        cells = [case["mode"]]
        for each in (index, index + 1):
            seconds = harness.median(rounds, each, "seconds")
            cells.append(harness.show(seconds and 1000 * seconds, 1))
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table, table_of_fits])
