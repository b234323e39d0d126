"""Perplexity and calibration error beside torchmetrics and Keras.

    python benchmarks/calibration.py

`update` sees 10,000 rows of 100 classes, `result` runs in every training step.
Compiled as in `fit`; eager on PyTorch, which is where torchmetrics is at home.
Its calibration error keeps all confidences it has seen and bins them in the
result, here those of 50 updates.
"""

import harness
import numpy as np
from metrics import jax_calls, plain_calls

ROWS, CLASSES, UPDATES = 10_000, 100, 50
OURS = ("Perplexity", "equal width", "equal mass")
PEERS = {
    "PyTorch": ("torchmetrics Perplexity", "torchmetrics calibration"),
    "JAX": ("Keras crossentropy",),
    "TensorFlow graph": ("Keras crossentropy",),
    "TensorFlow XLA": ("Keras crossentropy",),
}


def cases():
    return [
        {"mode": mode, "kind": kind, "metric": metric}
        for kind in ("update", "result")
        for mode in harness.MODES
        for metric in (*OURS, *PEERS[mode])
    ]


def run(case):
    import keras

    rng = np.random.default_rng(0)
    labels = keras.ops.convert_to_tensor(rng.integers(0, CLASSES, ROWS))
    logits = rng.normal(size=(ROWS, CLASSES)).astype("float32")
    logits = keras.ops.convert_to_tensor(logits)
    if case["metric"].startswith("torchmetrics"):
        calls = torchmetrics_calls(case["metric"], labels, logits)
    else:
        metric = make(case["metric"])
        metric.update_state(labels, logits)
        kind = jax_calls if case["mode"] == "JAX" else plain_calls
        calls = kind(metric, labels, logits, case["mode"])
    return {"ms": harness.call_time(calls[case["kind"]], repeats=30) / 1000}


def make(name):
    import keras

    from keras_xent.metrics import ExpectedCalibrationError, Perplexity

    return {
        "Perplexity": Perplexity,
        "equal width": ExpectedCalibrationError,
        "equal mass": lambda: ExpectedCalibrationError(binning="equal_mass"),
        "Keras crossentropy": lambda: (
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True)
        ),
    }[name]()


def torchmetrics_calls(name, labels, logits):
    from torchmetrics.classification import MulticlassCalibrationError
    from torchmetrics.text import Perplexity

    if name.endswith("Perplexity"):
        metric, shape = Perplexity(), (1, ROWS, CLASSES)
    else:
        metric, shape = MulticlassCalibrationError(CLASSES), (ROWS, CLASSES)
    labels, logits = labels.reshape(shape[:-1]), logits.reshape(shape)
    fresh = metric.clone()
    for _ in range(UPDATES):
        metric.update(logits, labels)

    def result():
        metric._computed = None  # it would be remembered
        return metric.compute()

    return {"update": lambda: fresh.update(logits, labels), "result": result}


def table(chosen, rounds):
    for kind in dict.fromkeys(case["kind"] for case in chosen):
        print(f"\n{kind}, ms\n\n| | metric | ms |\n| --- | --- | --- |")
        for index, case in enumerate(chosen):
            if case["kind"] == kind:
                ms = harness.show(harness.median(rounds, index, "ms"), 2)
                print(f"| {case['mode']} | {case['metric']} | {ms} |")


if __name__ == "__main__":
    harness.main(cases, run, [table])
