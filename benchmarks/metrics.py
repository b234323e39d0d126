"""The metrics beside Keras's and torchmetrics'.

    python benchmarks/metrics.py                      # time
    python benchmarks/metrics.py --kinds step         # of a training step alone
    python benchmarks/metrics.py --kinds accuracy     # how exact, 1e6 scores

`update` counts 100,000 scores, and `result` reads them. `step` is both, as they
run in every training step: one compiled function (on JAX with the state
donated), or eager. All metrics take turns in one process; beside the time
stands the ratio to Keras's AUC in the same turn. torchmetrics runs on PyTorch;
the exact `BinaryAUROC` keeps every score, so its result grows with them:
100,000 here.

`classes` is a step of the calibration and likelihood metrics, with 4,096 rows
of logits and 100 classes, each beside a peer.

`accuracy` holds the figures against scikit-learn on the raw scores.
"""

import harness
import numpy as np

SCORES = 100_000
PEERS = ("BinaryAUROC", "BinaryAUROC(200)")
METRICS = ("MatchAUC", "AUC", "weighted MatchAUC", "VerificationMetrics")
COLUMNS = (*METRICS, *PEERS)

# What a step is timed of.
TRAINED = (
    "AUC",
    "MatchAUC",
    "MatchAccuracy",
    "EqualErrorRate",
    "weighted MatchAUC",
    "VerificationMetrics",
    *PEERS,
)

# Metrics of classes: ours, and the peer that each stands beside. Keras's MSE
# takes probabilities and one-hot rows.
ROWS, CLASSES = 4096, 100
OF_CLASSES = {
    "ExpectedCalibrationError": "MulticlassCalibrationError",
    "ReliabilityDiagram": None,
    "BrierScore": "MeanSquaredError",
    "CrossentropyRate": "SparseCategoricalCrossentropy",
    "Perplexity": "torchmetrics Perplexity",
}
TORCHMETRICS = (
    *PEERS,
    "MulticlassCalibrationError",
    "torchmetrics Perplexity",
)

# What takes turns, and the peer that each stands beside.
PEERS_OF = {"step": dict.fromkeys(TRAINED, "AUC"), "classes": OF_CLASSES}

# How each backend runs, and whether eagerly.
WAYS = [
    ("PyTorch", True),
    ("JAX", False),
    ("JAX", True),
    ("TensorFlow graph", False),
    ("TensorFlow graph", True),
    ("TensorFlow XLA", False),
]

MANY = 1_000_000


def cases():
    timed = [
        {"mode": mode, "kind": kind, "eager": eager, "metric": metric}
        for kind in ("update", "result")
        for mode, eager in WAYS
        for metric in COLUMNS
        if metric not in PEERS or mode == "PyTorch"
        if kind == "update" or not metric.startswith("weighted")
    ]
    timed += [
        {"mode": mode, "kind": kind, "eager": eager}
        for kind in PEERS_OF
        for mode, eager in WAYS
    ]
    exact = [
        {"mode": "JAX", "kind": "accuracy", "scores": name} for name in DRAWS
    ]
    return timed + exact


def run(case):
    if case["kind"] == "accuracy":
        return deviations(case["scores"])
    if case["kind"] in PEERS_OF:
        return in_turns(case)
    call = call_of(case["metric"], case)
    repeats = 10 if case["metric"] == "BinaryAUROC" else 200
    return {"ms": harness.call_time(call, repeats=repeats) / 1000}


def in_turns(case):
    """µs of each metric, and ratios to its peer."""
    peers = PEERS_OF[case["kind"]]
    calls = {
        name: call_of(name, case)
        for name in dict.fromkeys(x for pair in peers.items() for x in pair)
        if name and (case["mode"] == "PyTorch" or name not in TORCHMETRICS)
    }
    return harness.in_turns(calls, peers, turns=20, repeats=5, warm=10)


def call_of(name, case):
    import keras

    metric = make(name)
    numbers = class_data if case["kind"] == "classes" else score_data
    data = [keras.ops.convert_to_tensor(x) for x in numbers(name)]
    if name in TORCHMETRICS:
        return peer_calls(metric, *data)[case["kind"]]
    metric.update_state(*data)
    jax = case["mode"] == "JAX" and not case["eager"]
    calls = jax_calls if jax else plain_calls
    return calls(metric, data, case)[case["kind"]]


def score_data(metric):
    rng = np.random.default_rng(0)
    numbers = [
        rng.integers(0, 2, SCORES).astype("int32"),
        rng.random(SCORES).astype("float32"),
    ]
    if metric.startswith("weighted"):
        numbers.append(rng.random(SCORES).astype("float32"))
    return numbers


def class_data(metric):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, CLASSES, ROWS).astype("int32")
    logits = rng.normal(size=(ROWS, CLASSES)).astype("float32")
    if metric == "MeanSquaredError":
        powers = np.exp(logits)
        shares = powers / powers.sum(axis=1, keepdims=True)
        return np.eye(CLASSES, dtype="float32")[ids], shares
    return ids, logits


def make(name):
    import keras

    if name == "AUC":
        return keras.metrics.AUC()
    if name == "MeanSquaredError":
        return keras.metrics.MeanSquaredError()
    if name == "SparseCategoricalCrossentropy":
        return keras.metrics.SparseCategoricalCrossentropy(from_logits=True)
    if name in TORCHMETRICS:
        return make_peer(name)
    import keras_xent

    metric = getattr(keras_xent.metrics, name.removeprefix("weighted "))
    return metric() if name in OF_CLASSES else metric(similarity=True)


def make_peer(name):
    from torchmetrics import classification, text

    if name == "MulticlassCalibrationError":
        return classification.MulticlassCalibrationError(CLASSES, n_bins=15)
    if name == "torchmetrics Perplexity":
        return text.Perplexity()
    binned = name.endswith("(200)")
    return classification.BinaryAUROC(thresholds=200 if binned else None)


def plain_calls(metric, data, case):
    def update():
        metric.update_state(*data)

    def step():
        metric.update_state(*data)
        return metric.result()

    calls = {"update": update, "result": metric.result}
    calls |= {"step": step, "classes": step}
    if case["eager"]:
        return calls
    import tensorflow as tf

    xla = case["mode"] == "TensorFlow XLA"
    return {k: tf.function(f, jit_compile=xla) for k, f in calls.items()}


def jax_calls(metric, data, case):
    import jax

    state = [variable.value for variable in metric.variables]
    update = jax.jit(metric.stateless_update_state)
    result = jax.jit(metric.stateless_result)

    def both(state, *data):
        state = metric.stateless_update_state(state, *data)
        return state, metric.stateless_result(state)

    compiled = jax.jit(both, donate_argnums=0)
    # Donated: the next step takes what this one gave.
    latest = [[variable.value + 0 for variable in metric.variables]]

    def step():
        latest[0], value = compiled(latest[0], *data)
        jax.block_until_ready((latest[0], value))

    return {
        "update": lambda: jax.block_until_ready(update(state, *data)),
        "result": lambda: jax.block_until_ready(result(state)),
        "step": step,
        "classes": step,
    }


def peer_calls(metric, labels, predictions):
    labels = labels.long()
    if type(metric).__name__ == "Perplexity":
        # It takes batches of sequences.
        labels, predictions = labels[None], predictions[None]
    kept = [name for name in metric._defaults if metric._defaults[name] == []]

    def update():
        metric.update(predictions, labels)
        for name in kept:
            # What it keeps must not grow with the rounds of a benchmark.
            del getattr(metric, name)[1:]

    def result():
        metric._computed = None
        return metric.compute()

    def step():
        update()
        return result()

    update()
    calls = {"update": update, "result": result}
    return calls | {"step": step, "classes": step}


# How exact ------------------------------------------------------------------


def gaussian(rng, match):
    return rng.normal(size=match.size) + 2 * match


DRAWS = {
    "Gaussian": (gaussian, {}),
    "log-normal": (lambda rng, m: np.exp(gaussian(rng, m)), {}),
    "in [0, 1e-6]": (
        lambda rng, m: 1e-6 * rng.beta(2 + 2 * m, 4 - 2 * m),
        {},
    ),
    "cosine": (
        lambda rng, m: np.clip(
            0.1 + 0.5 * m + 0.2 * gaussian(rng, 0 * m), -1, 1
        ),
        {},
    ),
    "cosine in [0.98, 1], linear bins": (
        lambda rng, m: 1 - 0.02 * rng.beta(2 - m, 3 + 4 * m),
        {"range": (0.98, 1.0)},
    ),
    "ties: whole numbers": (
        lambda rng, m: np.round(3 * gaussian(rng, m)),
        {},
    ),
    "20 matches to 2e6": (gaussian, {"few": True}),
}
P_TARGET = 0.05


def deviations(name, count=MANY, resolution=9):
    """|our figure - that of raw scores|, and whether the bounds hold."""
    from sklearn.metrics import roc_auc_score, roc_curve

    from keras_xent.metrics import VerificationMetrics

    draw, options = DRAWS[name]
    options = dict(options)
    rng = np.random.default_rng(0)
    if options.pop("few", False):
        match = np.arange(2 * count + 20) < 20
    else:
        match = rng.random(count) < 0.1
    score = draw(rng, match).astype("float32")
    metric = VerificationMetrics(
        p_target=P_TARGET,
        similarity=True,
        resolution=resolution,
        name="v",
        **options,
    )
    metric.update_state(match, score)
    x, hit, _ = roc_curve(match, score, drop_intermediate=False)
    y = 1 - hit
    i = int(np.argmax(y <= x))
    part = (y[i - 1] - x[i - 1]) / (y[i - 1] - x[i - 1] + x[i] - y[i])
    truth = {
        "equal_error_rate": x[i - 1] + part * (x[i] - x[i - 1]),
        "min_detection_cost": np.min(P_TARGET * y + (1 - P_TARGET) * x)
        / P_TARGET,
        "match_auc": roc_auc_score(match, score),
    }
    result, bounds = metric.result(), metric.bounds()
    found, held = {}, True
    for key, exact in truth.items():
        low, high = bounds[f"v_{key}"]
        held = held and low - 1e-12 <= exact <= high + 1e-12
        found[key] = abs(float(result[f"v_{key}"]) - exact)
    return {**found, "held": float(held)}


# Tables ---------------------------------------------------------------------


def table(chosen, rounds):
    rows = {}
    for index, case in enumerate(chosen):
        if case["kind"] not in ("update", "result"):
            continue
        row = rows.setdefault((case["kind"], case["mode"], case["eager"]), {})
        row[case["metric"]] = harness.show(
            harness.median(rounds, index, "ms"), 2
        )
    for kind in dict.fromkeys(kind for kind, *_ in rows):
        print(f"\n{kind}, ms\n")
        print("| | " + " | ".join(COLUMNS) + " |")
        print("| --- " * (len(COLUMNS) + 1) + "|")
        for (of, mode, eager), row in rows.items():
            if of == kind:
                name = f"{mode.split()[0]}, eager" if eager else mode
                cells = [row.get(column, "–") for column in COLUMNS]
                print("| " + " | ".join([name, *cells]) + " |")


def tables_of_turns(chosen, rounds):
    """Milliseconds, and the ratio to the peer where there is one."""
    for kind, peers in PEERS_OF.items():
        ways = [(i, c) for i, c in enumerate(chosen) if c["kind"] == kind]
        if not ways:
            continue
        columns = dict.fromkeys(x for pair in peers.items() for x in pair if x)
        print(f"\n{kind}, ms (ratio to its peer)\n")
        print("| | " + " | ".join(columns) + " |")
        print("| --- " * (len(columns) + 1) + "|")
        for index, case in ways:
            cells = []
            for column in columns:
                us = harness.median(rounds, index, column)
                ratio = harness.median(rounds, index, f"{column} ratio")
                cell = harness.show(us and us / 1000, 2)
                if ratio is not None and peers[column] != column:
                    cell += f" ({harness.show(ratio, 2)})"
                cells.append(cell)
            eager = ", eager" if case["eager"] else ""
            name = case["mode"].split()[0] + eager if eager else case["mode"]
            print("| " + " | ".join([name, *cells]) + " |")


def accuracy_table(chosen, rounds):
    keys = "equal_error_rate", "min_detection_cost", "match_auc"
    cases = [(i, c) for i, c in enumerate(chosen) if c["kind"] == "accuracy"]
    if not cases:
        return
    print("\n| scores | ΔEER | ΔminDCF | ΔAUC | bounds hold |")
    print("| --- | --- | --- | --- | --- |")
    for index, case in cases:
        cells = [f"{harness.median(rounds, index, key):.1e}" for key in keys]
        held = harness.median(rounds, index, "held")
        cells.append("yes" if held == 1 else "NO")
        print("| " + " | ".join([case["scores"], *cells]) + " |")


if __name__ == "__main__":
    harness.main(
        cases,
        run,
        [table, tables_of_turns, accuracy_table],
        usual=["update", "result", "step", "classes"],
    )
