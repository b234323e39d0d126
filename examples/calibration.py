"""Is my model calibrated? And if not, repair it.

**The task.** Handwritten digits through a bad scanner: the images that come
with scikit-learn, 8 × 8 pixels, with noise. A network with far more weights
than images learns its training set by heart. It is then sure of what it says
of new images, too, and less often right than it is sure.

**The method.** `keras_xent.metrics.ExpectedCalibrationError` and the
reliability diagram show how far confidence and accuracy lie apart. The
callback `keras_xent.callbacks.TemperatureScaling` divides the logits by the
one number that makes the validation images most likely, and leaves it in the
model's last layer.

**The figures.** All on test images, which neither the training nor the
temperature has seen. *Accuracy* does not change: the largest logit stays the
largest. *Cross-entropy* and *Brier score* are the price of being sure and
wrong. The *calibration error* is how far confidence and accuracy lie apart on
average, over 10 bins of equal width, of equal mass, and of equal mass for each
class in turn; a calibrated model would not have 0, for in every bin chance has
its share. *Just chance* is what it would have: labels drawn from the model's
own probabilities, the mean of 20 draws.

**The commands.**

    python calibration.py
    python calibration.py --plots plots          # the two diagrams
    python calibration.py --noise 3 --epochs 10  # an easier scanner
    python calibration.py --save digits.keras    # with its temperature

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: On calibration of
modern neural networks. ICML 2017.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_xent

CLASSES = 10
BINS = 10
DRAWS = 20
# Of the images: trained on, for the temperature; the rest is tested on.
TRAINING, VALIDATION = 0.4, 0.3

METRICS = {
    "accuracy": keras.metrics.SparseCategoricalAccuracy,
    "mean confidence": None,
    "cross-entropy, nats": keras_xent.metrics.CrossentropyRate,
    "Brier score": keras_xent.metrics.BrierScore,
    "calibration error, equal width": (
        lambda: keras_xent.metrics.ExpectedCalibrationError(bins=BINS)
    ),
    "calibration error, equal mass": (
        lambda: keras_xent.metrics.ExpectedCalibrationError(
            bins=BINS, binning="equal_mass"
        )
    ),
    "calibration error, class by class": (
        lambda: keras_xent.metrics.ExpectedCalibrationError(
            bins=BINS, binning="equal_mass", class_wise=CLASSES
        )
    ),
}


def load(noise, seed):
    """Images and labels of training, validation and test."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    images = images + rng.normal(scale=noise, size=images.shape)
    images = (images / 16 - 0.5).astype("float32")
    order = rng.permutation(len(labels))
    ends = np.cumsum([TRAINING, VALIDATION]) * len(labels)
    parts = np.split(order, ends.astype(int))
    return [(images[part], labels[part]) for part in parts]


def build_model(width):
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(CLASSES),
            keras_xent.layers.Temperature(name="calibrated"),
        ]
    )


def train(model, training, validation, epochs):
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss=keras_xent.losses.SparseSoftmaxCrossentropy(),
        metrics=["accuracy"],
    )
    scaling = keras_xent.callbacks.TemperatureScaling(validation, verbose=1)
    history = model.fit(
        *training,
        epochs=epochs,
        batch_size=64,
        verbose=0,
        callbacks=[scaling],
    )
    print(f"accuracy in training {history.history['accuracy'][-1]:.3f}")
    return scaling.temperature


def diagram(labels, logits):
    filled = keras_xent.metrics.ReliabilityDiagram(bins=BINS)
    filled.update_state(labels, logits)
    return filled


def measure(labels, logits):
    """All figures of the table, by name."""
    found = {}
    for name, make in METRICS.items():
        if make is None:
            value = diagram(labels, logits).result()["mean_confidence"]
        else:
            metric = make()
            metric.update_state(labels, logits)
            value = metric.result()
        found[name] = float(keras.ops.convert_to_numpy(value))
    return found


def by_chance(logits, seed):
    """The calibration error of labels that are as likely as the model says."""
    p = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(DRAWS):
        draw = rng.random((len(p), 1))
        # Rounding may leave the last sum below 1.
        labels = (p.cumsum(axis=1)[:, :-1] < draw).sum(axis=1)
        metric = keras_xent.metrics.ExpectedCalibrationError(bins=BINS)
        metric.update_state(labels, logits)
        errors.append(float(keras.ops.convert_to_numpy(metric.result())))
    return np.mean(errors)


def plot(folder, labels, before, after):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
    for ax, title, logits in zip(
        axes,
        ("as trained", "with its temperature"),
        (before, after),
        strict=True,
    ):
        diagram(labels, logits).plot(ax)
        error = measure(labels, logits)["calibration error, equal width"]
        ax.set_title(f"{title}: calibration error {error:.3f}")
    figure.savefig(folder / "calibration.png", dpi=120)
    plt.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--noise",
        type=checks.finite(least=0),
        default=6.0,
        help="of 16 shades: 6",
    )
    add("--epochs", type=checks.at_least(1), help="default: 30")
    add("--seed", type=checks.seed, default=0, help="default: 0")
    add("--small", action="store_true", help="few weights and epochs: a test")
    add(
        "--plots",
        type=checks.plots_folder,
        metavar="DIR",
        help="write a PNG file there",
    )
    add(
        "--save",
        type=checks.writable_file(".keras"),
        metavar="FILE.keras",
        help="save the calibrated model",
    )
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(options.seed)
    training, validation, (x, labels) = load(options.noise, options.seed)
    model = build_model(32 if options.small else 256)
    temperature = train(
        model,
        training,
        validation,
        options.epochs or (10 if options.small else 30),
    )
    after = model.predict(x, verbose=0)
    model.get_layer("calibrated").temperature = 1.0
    before = model.predict(x, verbose=0)
    model.get_layer("calibrated").temperature = temperature
    print(
        f"\n| {len(labels)} test images | as trained | T = {temperature:.3f} |"
    )
    print("| --- | --- | --- |")
    columns = [measure(labels, logits) for logits in (before, after)]
    for name in METRICS:
        cells = " | ".join(f"{column[name]:.4f}" for column in columns)
        print(f"| {name} | {cells} |")
    chance = [by_chance(x, options.seed) for x in (before, after)]
    cells = " | ".join(f"{value:.4f}" for value in chance)
    print(f"| just chance, equal width | {cells} |")
    if options.plots:
        plot(options.plots, labels, before, after)
    if options.save:
        model.save(options.save)


if __name__ == "__main__":
    main()
