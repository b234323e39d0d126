"""The Spearman loss: how long it takes, and what it learns.

    python benchmarks/ranking.py

Forward and backward of the loss on 1000 and 5000 scores, beside the same loss
with soft ranks by the sum over all pairs, and beside `torchsort` on PyTorch
(`pip install torchsort`; left out where it is not installed). Every case runs
in a process of its own.

    python benchmarks/ranking.py --kinds large
    python benchmarks/ranking.py --kinds scores linear --rounds 1
    python benchmarks/ranking.py --kinds metric --rounds 1
    python benchmarks/ranking.py --kinds large --plot FILE

`large` goes to a million scores, and `--plot` draws its time and memory.
`scores` counts the steps of Adam that put 1000 random scores into order.
`linear` trains a linear model on heavy-tailed features, with this loss, with
the linear correlation with ranks, and with the squared error, and shows
Spearman's correlation (SciPy's) on test data. The targets are a linear function
of the features with normal noise (`plain`), which is what the squared error is
made for, or the cube of that (`cubed`).
"""

import harness
import metrics
import numpy as np

LARGE = (1000, 10_000, 100_000, 1_000_000)
SEEDS = 5
# Of the linear model.
ROWS, FEATURES, STEPS = 1000, 10, 300
# What the metric is tried on.
PAIRS = ("normal", "probabilities", "heavy tails", "ages")


def cases():
    for mode in harness.MODES:
        peers = ["torchsort"] if mode == "PyTorch" else []
        for n in (1000, 5000):
            for loss in ("keras_xent", "pairwise", *peers):
                yield {"mode": mode, "kind": "time", "loss": loss, "n": n}
        for n in LARGE:
            yield {"mode": mode, "kind": "large", "loss": "keras_xent", "n": n}
    for mode in ("PyTorch", "JAX", "TensorFlow XLA"):
        for bits in (None, 0, 1, 2, 3, 4):
            if mode == "JAX" or bits in (None, 3):
                yield {"mode": mode, "kind": "metric", "bits": bits}
        yield {"mode": mode, "kind": "scores", "n": 1000}
        for targets in ("plain", "cubed"):
            for loss in ("Spearman", "Pearson on ranks", "squared error"):
                yield {
                    "mode": mode,
                    "kind": "linear",
                    "loss": loss,
                    "targets": targets,
                }


def run(case):
    if case["kind"] == "scores":
        return train_scores(case["n"])
    if case["kind"] == "linear":
        return train_linear(case["loss"], case["targets"])
    if case["kind"] == "metric":
        return measure_metric(case["mode"], case["bits"])
    loss = make_loss(case["loss"])
    if loss is None:
        return {}
    return harness.time_and_memory(
        lambda: harness.step(loss, case["mode"]),
        make_data(8),
        make_data(case["n"]),
        repeats=5 if case["n"] > 10_000 else 25,
    )


def make_data(n):
    """Scores and targets."""
    from keras import ops

    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((2, n), dtype="float32")
    return tuple(map(ops.convert_to_tensor, numbers))


def make_loss(name):
    import keras_xent

    if name == "keras_xent":
        loss = keras_xent.losses.SpearmanLoss()
        return lambda scores, targets: loss(targets, scores)
    try:
        soft_rank = make_ranks(name)
    except ImportError:
        return None
    return lambda scores, targets: keras_xent.ops.pearson_loss(
        keras_xent.ops.average_rank(targets), soft_rank(scores)
    )


def make_ranks(name):
    """A function from scores to their soft ranks."""
    import keras_xent

    if name == "keras_xent":
        return keras_xent.ops.soft_rank
    if name == "pairwise":
        return pairwise
    import torchsort

    return lambda scores: torchsort.soft_rank(scores[None])[0]


def pairwise(scores):
    """Soft ranks, as the definition reads."""
    from keras import ops

    temperature = 0.3 * ops.std(ops.stop_gradient(scores))
    z = (scores[:, None] - scores[None, :]) / temperature
    below = 0.5 * ops.exp(-ops.abs(z))
    return 0.5 + ops.sum(ops.where(z <= 0, below, 1 - below), axis=1)


def train_scores(n):
    """Steps of Adam until the true Spearman is over 0.99, of random scores."""
    import keras
    import scipy.stats
    from keras import ops

    import keras_xent

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((), dtype="int32"), keras.layers.Embedding(n, 1, "normal")]
    )
    model.compile(keras.optimizers.Adam(0.1), keras_xent.losses.SpearmanLoss())
    targets = np.random.default_rng(0).normal(size=(n, 1))
    places = np.arange(n)
    reached = {}
    for step in range(1, 101):
        model.train_on_batch(places, targets)
        scores = ops.convert_to_numpy(model.layers[0].embeddings)
        rho = scipy.stats.spearmanr(targets, scores).statistic
        for level in (0.9, 0.99, 0.999):
            if rho > level:
                reached.setdefault(f"{level}", step)
    return {**reached, "spearman": rho}


def linear_data(seed, targets):
    """Features without a variance, and what depends on them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(1.5, size=(2 * ROWS, FEATURES))
    y = x @ rng.normal(size=FEATURES) + 4 * rng.normal(size=2 * ROWS)
    y = y**3 if targets == "cubed" else y
    x, y = x.astype("float32"), y.astype("float32")[:, None]
    return (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:])


def train_linear(name, targets):
    """Spearman's correlation on test data, over several seeds."""
    import keras
    import scipy.stats

    import keras_xent

    found = []
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        (x, y), (x_test, y_test) = linear_data(seed, targets)
        if name == "Pearson on ranks":
            y = scipy.stats.rankdata(y, axis=0)
        elif name == "squared error":
            y = (y - y.mean()) / y.std()
        loss = {
            "Spearman": keras_xent.losses.SpearmanLoss,
            "Pearson on ranks": keras_xent.losses.PearsonLoss,
            "squared error": keras.losses.MeanSquaredError,
        }[name]()
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.02), loss)
        model.fit(x, y, batch_size=ROWS, epochs=STEPS, verbose=0)
        scores = model.predict(x_test, batch_size=ROWS, verbose=0)
        found.append(scipy.stats.spearmanr(y_test, scores).statistic)
    return {
        "mean": float(np.mean(found)),
        "least": min(found),
        "most": max(found),
    }


def pairs_of(kind, n=100_000):
    """Targets and scores whose rank correlation is about 0.7."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    b = a + rng.normal(size=n)
    return {
        "normal": (a, b),
        "probabilities": (1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))),
        "heavy tails": (np.sign(a) * np.exp(3 * abs(a)), b**5),
        "ages": (np.round(45 + 15 * a), np.round(45 + 15 * b)),
    }[kind]


def measure_metric(mode, bits):
    """Milliseconds of an update and a result, and how far off it is."""
    import scipy.stats
    from keras import ops

    import keras_xent

    def metric(capacity):
        if bits is None:
            return keras_xent.metrics.SpearmanCorrelation(capacity=capacity)
        return keras_xent.metrics.SpearmanCorrelation(
            capacity=None, resolution=bits
        )

    calls = metrics.jax_calls if mode == "JAX" else metrics.plain_calls
    timed = metric(10_000)
    measured = {
        name: harness.call_time(call, repeats=50) / 1000
        for name, call in calls(timed, *make_data(1000), mode).items()
    }
    for kind in PAIRS:
        a, b = (x.astype("float32") for x in pairs_of(kind))
        whole = metric(len(a))
        whole.update_state(a, b)
        found = float(ops.convert_to_numpy(whole.result()))
        truth = scipy.stats.spearmanr(a, b).statistic
        measured[kind] = float(abs(found - truth))
    return measured


def times(chosen, rounds):
    for kind in ("time", "large"):
        if not any(case["kind"] == kind for case in chosen):
            continue
        print(f"\n{kind}\n")
        print("| | loss | n | ms | times keras_xent's | peak MB |")
        print("| --- | --- | --- | --- | --- | --- |")
        for index, case in enumerate(chosen):
            if case["kind"] != kind:
                continue
            seconds = harness.median(rounds, index, "seconds")
            if seconds is None:
                continue
            ours = next(
                i
                for i, c in enumerate(chosen)
                if c == {**case, "loss": "keras_xent"}
            )
            cells = [
                case["mode"],
                case["loss"],
                f"{case['n']:,}",
                harness.show(1000 * seconds, 1),
                harness.show(harness.ratio(rounds, index, ours, "seconds"), 2),
                harness.show(harness.median(rounds, index, "peak_mb"), 1),
            ]
            print("| " + " | ".join(cells) + " |")


def name_of(case):
    if case["kind"] == "metric":
        bits = case["bits"]
        return "buffer" if bits is None else f"histogram, {bits} bits"
    return case.get("loss", "Spearman")


def training(chosen, rounds):
    columns = {
        "scores": ("0.9", "0.99", "0.999", "spearman"),
        "linear": ("mean", "least", "most"),
        "metric": ("update", "result", *PAIRS),
    }
    for kind, keys in columns.items():
        if not any(case["kind"] == kind for case in chosen):
            continue
        print(f"\n{kind}\n")
        print(f"| | | | {' | '.join(keys)} |")
        print("| --- " * (3 + len(keys)) + "|")
        for index, case in enumerate(chosen):
            if case["kind"] == kind:
                cells = [case["mode"], case.get("targets", ""), name_of(case)]
                for key in keys:
                    value = harness.median(rounds, index, key)
                    cells.append("–" if value is None else f"{value:.3g}")
                print("| " + " | ".join(cells) + " |")


def plot(chosen, rounds, path):
    """Time and memory of `large` against n, on log axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    labels = {"seconds": "seconds", "peak_mb": "peak memory, MB"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for mode in harness.MODES:
            points = [
                (case["n"], harness.median(rounds, i, key))
                for i, case in enumerate(chosen)
                if (case["kind"], case["mode"]) == ("large", mode)
            ]
            axis.plot(*zip(*points, strict=True), marker="o", label=mode)
        axis.set(xscale="log", yscale="log", xlabel="scores", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    harness.main(cases, run, [times, training], usual=["time"], plot=plot)
