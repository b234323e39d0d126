"""Train a rank correlation: two vectors first, then a real regression.

**The task.** Put things into the right order. Spearman's correlation says how
well that was done: 1 for the same order, 0 for no relation, −1 for the order
upside down. It has no gradient, because ranks jump. `SpearmanLoss` ranks
softly, and has one.

**Two vectors.** One holds numbers, the other random scores. Gradient descent
on the scores raises their rank correlation with the numbers as high as it will
go; the exact one, by SciPy, is printed on the way.

**A regression.** A linear model says from ten figures about a patient how far
diabetes will have gone in a year (442 patients, shipped with scikit-learn). A
third of the patients is held out. It is trained by squared error and by
`SpearmanLoss`, on the same data from the same start, and both are judged by
Spearman's correlation on the patients held out. Then the same with slips of
the pen: of the training targets, one in ten is written down ten times too
large. A rank loss sees a wrong rank there, the squared error a catastrophe.

**The commands.**

    python spearman.py                       # both, a minute or two
    python spearman.py --temperature 0.03    # less to see, slower to learn
    python spearman.py --slips 0 --seeds 20  # only the clean data
    python spearman.py --plots plots

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** C. Spearman: The proof and measurement of association between
two things. American Journal of Psychology 1904. The data: B. Efron, T. Hastie,
I. Johnstone, R. Tibshirani: Least angle regression. Annals of Statistics 2004.
"""

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import keras
import numpy as np
from scipy.stats import spearmanr
from sklearn.datasets import load_diabetes

import keras_xent

SIZES = {  # the usual one, the small one, and the least that works
    "n": (1000, 200, 2),
    "steps": (100, 60, 1),
    "epochs": (200, 60, 1),
    "seeds": (10, 2, 1),
}
RATE_OF_SCORES = 0.1  # of Adam; the scores have a deviation near 1
RATE_OF_MODEL = 0.02
HELD_OUT = 1 / 3
SLIP = 10.0  # what a slip of the pen multiplies by
LOSSES = {
    "squared error": keras.losses.MeanSquaredError,
    "Spearman": keras_xent.losses.SpearmanLoss,
}


# Two vectors


def train_vectors(options):
    """The exact Spearman after every step, of scores that begin at random."""
    rng = np.random.default_rng(options.seed)
    numbers, places = rng.normal(size=(options.n, 1)), np.arange(options.n)
    keras.utils.set_random_seed(options.seed)
    # A score for every place, and nothing else.
    scores = keras.layers.Embedding(options.n, 1, "normal")
    model = keras.Sequential([keras.Input((), dtype="int32"), scores])
    model.compile(
        keras.optimizers.Adam(RATE_OF_SCORES),
        keras_xent.losses.SpearmanLoss(temperature=options.temperature),
    )
    curve = [exact(numbers, scores)]
    for _ in range(options.steps):
        model.train_on_batch(places, numbers)
        curve.append(exact(numbers, scores))
        if is_shown(len(curve) - 1):
            bar = "#" * round(50 * max(curve[-1], 0))
            step = f"step {len(curve) - 1:4}"
            print(f"{step}  Spearman {curve[-1]:8.5f}  {bar}", flush=True)
    return curve


def exact(numbers, scores):
    values = keras.ops.convert_to_numpy(scores.embeddings)
    return float(spearmanr(numbers, values).statistic)


def is_shown(step):
    """1, 2, 5, 10, 20, 50, 100, ..."""
    return str(step).rstrip("0") in ("1", "2", "5")


# A regression


def split(seed):
    """Standardized features and targets: training, then held out."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    order = np.random.default_rng(seed).permutation(len(y))
    held = round(HELD_OUT * len(y))
    test, train = order[:held], order[held:]
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    return (x[train], y[train]), (x[test], y[test])


def with_slips(y, share, seed):
    """Targets of which a share is written down ten times too large."""
    rng = np.random.default_rng(seed + 1)
    slipped = rng.permutation(len(y)) < round(share * len(y))
    return np.where(slipped, SLIP * y, y)


class Trainer:
    """One linear model, compiled once and trained from many starts."""

    def __init__(self, loss, features):
        self.model = keras.Sequential(
            [keras.Input((features,)), keras.layers.Dense(1)]
        )
        optimizer = keras.optimizers.Adam(RATE_OF_MODEL)
        optimizer.build(self.model.trainable_variables)
        self.model.compile(optimizer, loss)
        self.fresh = [
            keras.ops.convert_to_numpy(v) for v in optimizer.variables
        ]

    def spearman(self, train, test, epochs, seed):
        """Spearman's correlation on the test split, after training."""
        (x, y), (x_test, y_test) = train, test
        rng = np.random.default_rng(seed)
        kernel = rng.normal(size=(x.shape[1], 1)) / np.sqrt(x.shape[1])
        self.model.set_weights([kernel, np.zeros(1)])
        optimizer = self.model.optimizer.variables
        for variable, value in zip(optimizer, self.fresh, strict=True):
            variable.assign(value)
        y = ((y - y.mean()) / y.std())[:, None]
        self.model.fit(x, y, len(y), epochs, verbose=0)
        scores = self.model.predict(x_test, len(x_test), verbose=0)
        return float(spearmanr(y_test, scores).statistic)


def compare(options):
    """Spearman's correlation for each share of slips and loss, by seed."""
    shares = list(dict.fromkeys((0.0, options.slips)))
    found = {(slips, name): [] for slips in shares for name in LOSSES}
    for name, loss in LOSSES.items():
        trainer = Trainer(loss(), split(0)[0][0].shape[1])
        for slips in shares:
            for seed in range(options.seeds):
                (x, y), test = split(seed)
                train = x, with_slips(y, slips, seed)
                found[slips, name].append(
                    trainer.spearman(train, test, options.epochs, seed)
                )
    return found


def report(found):
    print("\nSpearman on the patients held out, mean ± deviation over splits")
    print(f"{'slips':8}{'trained by':16}{'Spearman':>16}{'better in':>14}")
    for (slips, name), values in found.items():
        others = [v for (s, n), v in found.items() if s == slips and n != name]
        wins = np.sum(np.array(values) > np.max(others, axis=0))
        mean = f"{np.mean(values):.3f} ± {np.std(values):.3f}"
        share = f"{wins} of {len(values)}"
        print(f"{slips:<8.0%}{name:16}{mean:>16}{share:>14}")


# Plots and the command line


def plot(curve, found, folder):
    """The curve of the scores and the regressions, as one PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(curve)
    left.axhline(1, color="#333333", linestyle="--")
    left.set(xlabel="steps of Adam", ylabel="Spearman", title="two vectors")
    labels = [f"{name}\n{slips:.0%} slips" for slips, name in found]
    right.boxplot(list(found.values()), tick_labels=labels)
    right.set(ylabel="Spearman, held out", title="diabetes, a linear model")
    figure.savefig(folder / "spearman.png", dpi=120)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--n", type=int, help="entries of the two vectors: 1000")
    add("--steps", type=int, help="of the two vectors: 100")
    add(
        "--temperature",
        type=checks.finite(above=0),
        help="of the two vectors; default: usual",
    )
    add("--epochs", type=int, help="of the regression: 200")
    add("--seeds", type=int, help="splits of the regression: 10")
    add(
        "--slips",
        type=checks.finite(least=0, most=1),
        default=0.1,
        help="share of them; default: 0.1",
    )
    add(
        "--seed", type=checks.seed, default=0, help="of the vectors; default: 0"
    )
    add("--small", action="store_true", help="all of it small: a test")
    add(
        "--plots",
        type=checks.plots_folder,
        metavar="DIR",
        help="write a PNG file there",
    )
    options = parser.parse_args(arguments)
    for name, (usual, small, least) in SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else usual)
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    return options


def main(arguments=None):
    options = parse(arguments)
    start = time.perf_counter()
    curve = train_vectors(options)
    found = compare(options)
    report(found)
    print(f"{time.perf_counter() - start:.0f} s on {keras.backend.backend()}")
    if options.plots:
        plot(curve, found, options.plots)


if __name__ == "__main__":
    main()
