"""What a diagnosis costs beside the forward and backward pass.

    python benchmarks/diagnose.py

ResNet50 with random weights on 32 images, everything in a fresh process and
run once, as a user does: first use and compilation count. "step" is one
forward and backward pass, run eagerly; "diagnose" is `keras_xent.diagnose`,
which makes that pass, one step of Adam, and a second forward pass.
"""

import time

import harness
import numpy as np

WHAT = ("step", "diagnose")
ROWS, CLASSES = 32, 1000


def cases():
    return [
        {"mode": mode, "kind": size, "what": what}
        for mode in ("PyTorch", "JAX", "TensorFlow graph")
        for size in ("64", "224")
        for what in WHAT
    ]


def run(case):
    import keras

    from keras_xent.diagnosis import diagnose, probe

    size = int(case["kind"])
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
    if case["what"] == "diagnose":
        report = diagnose(model, x, y)
        assert not report.findings, report
    else:
        gradients = probe.Probe(
            model, lambda x, y, y_pred, weight: loss(y, y_pred)
        ).step(
            *map(keras.ops.convert_to_tensor, (x, y)), None, probe.Recorder()
        )
        keras.ops.convert_to_numpy(gradients[0])
    return {"seconds": time.perf_counter() - start}


def table(chosen, rounds):
    print("\n| | pixels | pass s | diagnose s | beyond it s |")
    print("| --- | --- | --- | --- | --- |")
    for index, case in enumerate(chosen):
        if case["what"] != "step":
            continue
        step = harness.median(rounds, index, "seconds")
        whole = harness.median(rounds, index + 1, "seconds")
        cells = [case["mode"], f"{case['kind']}²"]
        cells += [harness.show(each, 1) for each in (step, whole, whole - step)]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table])
