"""What a diagnosis costs: once, and in each step of a fit.

    python benchmarks/diagnose.py

"64" and "224": ResNet50 with random weights on 32 images of so many pixels
squared, in a fresh process and run once, as a user does, so that first use and
compilation count. "pass" is one forward and backward pass, run eagerly;
"diagnose" is `keras_xent.diagnose`, which makes that pass, one step of Adam and
a second forward pass.

"fit": the step of a compiled fit, two layers of 1024 units on 128 rows, with
the callback `Diagnose` and without it, from the second epoch on.
"""

import time

import harness
import numpy as np

ROWS, CLASSES = 32, 1000
STEPS, BATCH = 100, 128


def cases():
    return [
        {"mode": mode, "kind": kind, "what": what}
        for mode in ("PyTorch", "JAX", "TensorFlow graph")
        for kind, both in (
            ("64", ("pass", "diagnose")),
            ("224", ("pass", "diagnose")),
            ("fit", ("plain", "watched")),
        )
        for what in both
    ]


def run(case):
    if case["kind"] == "fit":
        return {"seconds": step_of_a_fit(case["what"] == "watched")}
    return {"seconds": first_use(int(case["kind"]), case["what"])}


def first_use(size, what):
    import keras

    from keras_xent.diagnosis import diagnose, probe

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, size, size, 3)).astype("float32")
    y = rng.integers(0, CLASSES, ROWS)
    model = keras.applications.ResNet50(
        weights=None,
        input_shape=(size, size, 3),
        classes=CLASSES,
        classifier_activation=None,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    start = time.perf_counter()
    if what == "diagnose":
        report = diagnose(model, x, y)
        assert not report.findings, report
    else:
        tensors = [keras.ops.convert_to_tensor(each) for each in (x, y)]
        around = probe.Probe(model, lambda x, y, y_pred, _: loss(y, y_pred))
        gradients = around.step(*tensors, None, probe.Recorder())
        for gradient in gradients:
            probe.as_array(gradient)
    return time.perf_counter() - start


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
    print("\n| | | without s | with s | more s |")
    print("| --- | --- | --- | --- | --- |")
    for index, case in enumerate(chosen):
        if case["what"] not in ("pass", "plain"):
            continue
        plain = harness.median(rounds, index, "seconds")
        whole = harness.median(rounds, index + 1, "seconds")
        is_fit = case["kind"] == "fit"
        cells = [case["mode"], "fit" if is_fit else f"{case['kind']}²"]
        cells += [
            harness.show(each, 4 if is_fit else 1)
            for each in (plain, whole, whole - plain)
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table])
