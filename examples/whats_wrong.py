"""What is wrong with my loss? Six questions, each asked many times.

**The questions.** Why is my loss always 0? Why does it stay near log(n)? Why is
it NaN? Why does the accuracy stay at ½? Why do the embeddings hardly move? Why
does the loss rise at once?

**The method.** Each question has a broken model, a repaired one, and data of
random numbers (nothing is downloaded). `keras_xent.diagnose` looks at one batch
of the broken model before it is trained, and its report is printed: what is
wrong, by which numbers it is seen, and the cure. The repaired model differs in
this one point, and has no finding. Then both are trained on the same rows in
the same order.

**The figures.** For both models the loss before training and its mean in each
epoch. The fourth question has the accuracy instead, of telling pairs of one
class from pairs of two: half of them are of one, so guessing is right in ½.
The fifth has the area under the ROC curve, the chance that two rows of one
class lie nearer to each other than two of different classes: guessing gives ½
here, too.

**The commands.**

    python whats_wrong.py
    python whats_wrong.py --only 3        # the third question
    python whats_wrong.py --plots plots   # all curves as one figure

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** A. Karpathy: A recipe for training neural networks. 2019.
"""

import argparse
import dataclasses
import os
import time
import warnings

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import keras
import numpy as np
from keras import layers, ops

import keras_xent

ROWS = 512
BATCH = 32
BROKEN, REPAIRED = "broken", "repaired"


@dataclasses.dataclass
class Case:
    """A model with its data, in the two states.

    Attributes:
        x, y: The rows that both models are trained on.
        models: The broken and the repaired model, compiled.
        line: A value to be drawn, with its name.
    """

    x: object
    y: np.ndarray
    models: dict
    line: tuple | None = None


def compiled(inputs, outputs, loss, optimizer=None, metrics=None):
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer or keras.optimizers.Adam(0.01), loss, metrics=metrics
    )
    return model


def of_classes(rng, classes, inputs):
    """Rows whose class is the place of the largest of the first inputs."""
    x = rng.normal(size=(ROWS, inputs)).astype("float32")
    return x, np.argmax(x[:, :classes], axis=1)


def of_centers(rng):
    """Rows of eight classes, each around a center of its own."""
    y = rng.integers(0, 8, ROWS)
    x = rng.normal(size=(8, 8))[y] + rng.normal(scale=0.6, size=(ROWS, 8))
    return x.astype("float32"), y


def always_zero(rng):
    """Why is my loss always 0?"""
    x = rng.normal(size=(ROWS, 4)).astype("float32")
    yes = (x[:, :1] > 0).astype("float32")
    a = keras.Input((4,))
    softmax = layers.Dense(1, activation="softmax")(a)
    logit = layers.Dense(1)(a)
    models = {
        BROKEN: compiled(a, softmax, "categorical_crossentropy"),
        REPAIRED: compiled(a, logit, keras_xent.losses.SigmoidCrossentropy()),
    }
    return Case(x, yes, models)


def stays_at_log_n(rng):
    """Why does the loss stay near log(n)?"""
    x, y = of_classes(rng, 10, 10)
    a = keras.Input((10,))
    # Keras's sparse loss on TensorFlow would look behind the softmax.
    one_hot = keras.utils.to_categorical(y, 10)
    loss = keras_xent.losses.SoftmaxCrossentropy()
    softmax = layers.Dense(10, activation="softmax")(a)
    logits = layers.Dense(10)(a)
    models = {
        BROKEN: compiled(a, softmax, loss, keras.optimizers.SGD(0.1)),
        REPAIRED: compiled(a, logits, loss, keras.optimizers.SGD(0.1)),
    }
    return Case(x, one_hot, models, (np.log(10), "log(10)"))


def is_nan(rng):
    """Why is the loss NaN?"""
    x, y = of_classes(rng, 3, 4)
    counts = np.floor(np.exp(x))  # some of them are 0
    a = keras.Input((4,))
    loss = keras_xent.losses.SparseSoftmaxCrossentropy()
    models = {
        BROKEN: compiled(a, layers.Dense(3)(ops.log(a)), loss),
        REPAIRED: compiled(a, layers.Dense(3)(ops.log1p(a)), loss),
    }
    return Case(counts, y, models)


def stays_at_half(rng):
    """Why does the accuracy stay at ½?"""
    x, y = of_centers(rng)
    row = np.arange(ROWS)
    match = row % 2  # half of the pairs are of one class
    second = [
        rng.choice(np.flatnonzero(((y == y[i]) == match[i]) & (row != i)))
        for i in row
    ]
    a, b = keras.Input((8,)), keras.Input((8,))
    tower = layers.Dense(8)
    distance = ops.sum(ops.square(tower(a) - tower(b)), -1, keepdims=True)
    loss = keras_xent.losses.SoftplusHinge(margin=20.0)
    metric = keras_xent.metrics.MatchAccuracy(similarity=False, name="accuracy")
    models = {
        BROKEN: compiled([a, b], distance, loss, metrics=["accuracy"]),
        REPAIRED: compiled([a, b], distance, loss, metrics=[metric]),
    }
    return Case([x, x[second]], match[:, None], models)


class ClippedHinge(keras.losses.Loss):
    """A hinge on the KL divergence of textbooks, with a clip for its log."""

    def call(self, y_true, y_pred):
        p = ops.clip(y_pred, 1e-7, 1.0)
        p, q = p[:, None], p[None]
        distance = ops.sum((p - q) * ops.log(p / q), axis=-1)
        y = ops.reshape(y_true, (-1,))
        match = ops.cast(y[:, None] == y[None], distance.dtype)
        apart = ops.relu(2.0 - distance)
        return ops.mean(match * distance + (1 - match) * apart, axis=-1)


def does_not_move(rng):
    """Why do the embeddings hardly move?"""
    x, y = of_centers(rng)
    noise = rng.normal(size=(ROWS, 8))  # inputs that say nothing
    x = np.concatenate([20 * x, 40 * noise], axis=1).astype("float32")
    a = keras.Input((16,))
    embedding = layers.Dense(8)(a)

    def measured(loss):
        metric = keras_xent.metrics.MatchAUC(
            distance="symmetric_kl", name="AUC"
        )
        return compiled(a, embedding, loss, metrics=[metric])

    models = {
        BROKEN: measured(ClippedHinge()),
        REPAIRED: measured(keras_xent.losses.SymmetricKLHinge(margin=2.0)),
    }
    return Case(x, y, models)


def rises(rng):
    """Why does the loss rise at once?"""
    x, y = of_classes(rng, 3, 4)
    a = keras.Input((4,))
    hidden = layers.Dense(64, activation="relu")(a)
    hidden = layers.Dense(64, activation="relu")(hidden)
    logits = layers.Dense(3)(hidden)
    loss = keras_xent.losses.SparseSoftmaxCrossentropy()
    models = {
        BROKEN: compiled(a, logits, loss, keras.optimizers.Adam(0.5)),
        REPAIRED: compiled(a, logits, loss, keras.optimizers.Adam(0.005)),
    }
    return Case(x, y, models, (np.log(3), "log(3)"))


QUESTIONS = {
    always_zero: "loss",
    stays_at_log_n: "loss",
    is_nan: "loss",
    stays_at_half: "accuracy",
    does_not_move: "AUC",
    rises: "loss",
}


def make(question, seed):
    """The case of a question; the same for the same seed."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    return question(np.random.default_rng(seed))


def curve(model, case, quantity, epochs, seed):
    """The quantity before training and in each epoch."""
    keras.utils.set_random_seed(seed)
    kept = model.get_weights()  # the two models may share their layers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras sees the one class, too.
        start = model.evaluate(
            case.x, case.y, BATCH, verbose=0, return_dict=True
        )
        history = model.fit(case.x, case.y, BATCH, epochs, verbose=0).history
    model.set_weights(kept)
    return [start[quantity], *history[quantity]]


def answer(number, question, options):
    """Prints report and figures of a question; its curves and its line."""
    quantity, case = QUESTIONS[question], make(question, options.seed)
    print(f"\n{number}. {question.__doc__}\n")
    print(keras_xent.diagnose(case.models[BROKEN], case.x, case.y))
    repaired = keras_xent.diagnose(case.models[REPAIRED], case.x, case.y)
    print(f"\nRepaired: {str(repaired).splitlines()[0]}\n")
    print(f"| {quantity} | before | after {options.epochs} epochs |")
    print("| --- | --- | --- |")
    curves = {}
    for name, model in case.models.items():
        found = curve(model, case, quantity, options.epochs, options.seed)
        print(f"| {name} | {found[0]:.3f} | {found[-1]:.3f} |", flush=True)
        curves[name] = found
    return curves, case.line


# Plots and the command line


def draw(ax, title, quantity, curves, line):
    colors = {BROKEN: "C3", REPAIRED: "C0"}
    for name, values in curves.items():
        if np.isfinite(values).any():
            ax.plot(values, color=colors[name], label=name)
        else:
            ax.plot([], color=colors[name], label=f"{name}: NaN throughout")
    if line:
        value, name = line
        ax.axhline(value, color="#333333", linestyle="--", label=name)
    largest = np.nanmax(list(curves.values()))
    if quantity != "loss":
        ax.set_ylim(0.4, 1.02)
    elif largest > 10:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=-0.03 * largest)
    ax.set(xlabel="epoch", ylabel=quantity)
    ax.set_title(title, fontsize="medium")
    ax.legend(fontsize="small")


def plot(answers, folder):
    """A panel for each question, as one PNG file."""
    from matplotlib.figure import Figure

    columns = min(3, len(answers))
    rows = -(-len(answers) // columns)
    figure = Figure((3.4 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for ax, (question, found) in zip(axes, answers.items(), strict=False):
        draw(ax, question.__doc__, QUESTIONS[question], *found)
    figure.savefig(folder / "whats_wrong.png", dpi=100)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    numbers = range(1, len(QUESTIONS) + 1)
    add("--only", type=int, choices=numbers, help="one question; default: all")
    add("--epochs", type=checks.at_least(1), default=20, help="default: 20")
    add("--seed", type=checks.seed, default=0, help="default: 0")
    add(
        "--plots",
        type=checks.plots_folder,
        metavar="DIR",
        help="write a PNG file there",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    start = time.perf_counter()
    answers = {
        question: answer(number, question, options)
        for number, question in enumerate(QUESTIONS, 1)
        if options.only in (None, number)
    }
    print(f"\n{time.perf_counter() - start:.0f} s on {keras.backend.backend()}")
    if options.plots:
        plot(answers, options.plots)


if __name__ == "__main__":
    main()
