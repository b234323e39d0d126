"""The score histogram's metrics beside Keras's and torchmetrics'.

    python benchmarks/metrics.py                      # time
    python benchmarks/metrics.py --kinds accuracy     # how exact, 1e6 scores

`update` counts 100,000 scores, `result` runs in every training step. Compiled
as in `fit`, and eager. torchmetrics runs on PyTorch; the exact `BinaryAUROC`
keeps every score, so its result grows with them: 100,000 here.

`accuracy` holds the figures against scikit-learn on the raw scores.
"""

import harness
import numpy as np

SCORES = 100_000
PEERS = ("BinaryAUROC", "BinaryAUROC(200)")
METRICS = ("MatchAUC", "AUC", "weighted MatchAUC", "VerificationMetrics")
COLUMNS = (*METRICS, *PEERS)

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
    exact = [
        {"mode": "JAX", "kind": "accuracy", "scores": name} for name in DRAWS
    ]
    return timed + exact


def run(case):
    if case["kind"] == "accuracy":
        return deviations(case["scores"])
    import keras

    metric = make(case["metric"])
    rng = np.random.default_rng(0)
    numbers = [
        rng.integers(0, 2, SCORES).astype("int32"),
        rng.random(SCORES).astype("float32"),
    ]
    if case["metric"].startswith("weighted"):
        numbers.append(rng.random(SCORES).astype("float32"))
    data = [keras.ops.convert_to_tensor(x) for x in numbers]
    if case["metric"] in PEERS:
        call = peer_calls(metric, *data)[case["kind"]]
    else:
        metric.update_state(*data)
        jax = case["mode"] == "JAX" and not case["eager"]
        calls = jax_calls if jax else plain_calls
        call = calls(metric, data, case)[case["kind"]]
    repeats = 10 if case["metric"] == "BinaryAUROC" else 50
    return {"ms": harness.call_time(call, repeats=repeats) / 1000}


def make(name):
    if name == "AUC":
        import keras

        return keras.metrics.AUC()
    if name in PEERS:
        from torchmetrics.classification import BinaryAUROC

        binned = name.endswith("(200)")
        return BinaryAUROC(thresholds=200 if binned else None)
    import keras_xent

    metric = getattr(keras_xent.metrics, name.removeprefix("weighted "))
    return metric(similarity=True)


def plain_calls(metric, data, case):
    def update():
        metric.update_state(*data)

    calls = {"update": update, "result": metric.result}
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
    return {
        "update": lambda: jax.block_until_ready(update(state, *data)),
        "result": lambda: jax.block_until_ready(result(state)),
    }


def peer_calls(metric, flags, scores):
    def update():
        metric.update(scores, flags)
        if metric.thresholds is None:
            # What it keeps must not grow with the rounds of a benchmark.
            del metric.preds[1:], metric.target[1:]

    def result():
        metric._computed = None
        return metric.compute()

    update()
    return {"update": update, "result": result}


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
        if case["kind"] == "accuracy":
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
        cases, run, [table, accuracy_table], usual=["update", "result"]
    )
