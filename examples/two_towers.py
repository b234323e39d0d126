"""Two towers, as CLIP has them: which lower half belongs to this upper half?

**The task.** Two kinds of things that belong together in pairs: pictures and
captions, questions and answers. Here they are the upper and the lower half of a
handwritten digit, of 1,797 images shipped with scikit-learn. One network makes
embeddings of upper halves, another of lower ones, and the two of a pair learn
to lie close together. Then each upper half of the images held out looks for its
lower half among all of them: not any one of the same digit, but its own.

**The model** needs no training loop of its own:

    head = keras_xent.layers.SimilarityHead()
    model = keras.Model([upper, lower], head([f(upper), g(lower)]))
    model.compile("adam", keras_xent.losses.InfoNCE())
    model.fit([uppers, lowers], np.arange(len(uppers)))

*InfoNCE* asks which of the batch's lower halves is the right one, and the other
way round; *SigLIP* asks of every two of them whether they are a pair. The head
owns the temperature, and SigLIP's bias, and both are learned. The ids say what
belongs together: here each image to itself, so they are its number.

**The batch.** The larger it is, the more lower halves each upper half is
compared with. All trainings take the same number of steps, so that those of
large batches also see each image more often. What keeps batches small elsewhere
is the matrix of all pairs, which grows with the square of the batch. Here it
never exists. The second table has the memory and the time of a training step
beside the formula with the matrix, at batches larger than these data are.

**The commands.**

    python two_towers.py                      # both tables
    python two_towers.py --batches 64 1024    # other batch sizes
    python two_towers.py --memory 1024 32768  # other ones for the memory
    python two_towers.py --plots plots        # halves, and what they found

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** A. Radford et al.: Learning transferable visual models from
natural language supervision. ICML 2021 (CLIP). X. Zhai et al.: Sigmoid loss for
language image pre-training. ICCV 2023 (SigLIP).
"""

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import keras
import memory
import numpy as np
from keras import ops
from sklearn.datasets import load_digits

from keras_xent import layers, losses, metrics

TRAINED = 1024  # images, so that the batches come out even; 773 are held out
HIDDEN, SIZE = 256, 64  # units of a tower, entries of an embedding
DROPOUT = 0.3  # chosen on the images held out: compare rows, no more
RATE = 1e-3
SIZES = {  # the usual ones, the small ones
    "steps": (400, 16),
    "batches": ([32, 128, 512], [64]),
    "memory": ([1024, 2048, 4096, 8192, 16384], [256]),
}
LARGEST_MATRIX = 8192  # rows; the formula with the matrix is not tried beyond
LEAST = 20  # MB; less is not told from what the process had left over
TEMPERATURE = 0.07
SHOWN = 5  # upper halves that found their own, and as many that did not

# A loss, and the head that goes with it, as its paper begins.
LOSSES = {
    "InfoNCE": (losses.InfoNCE, {"temperature": TEMPERATURE}),
    "SigLIP": (losses.SigmoidContrastive, {"temperature": 0.1, "bias": -10.0}),
}


def halves(seed):
    """Upper and lower halves `(n, 4, 8)`: to train on, then held out."""
    images = load_digits().images.astype("float32") / 16
    images = np.random.default_rng(seed).permutation(images)
    both = [images[:, :4], images[:, 4:]]
    return [x[:TRAINED] for x in both], [x[TRAINED:] for x in both]


def tower():
    return keras.Sequential(
        [
            keras.layers.Flatten(),
            keras.layers.Dense(HIDDEN, activation="relu"),
            keras.layers.Dropout(DROPOUT),
            keras.layers.Dense(SIZE),
        ]
    )


def build_model(name):
    """Both halves in, a pair of embeddings out; compiled with a loss."""
    loss, options = LOSSES[name]
    upper, lower = keras.Input((4, 8)), keras.Input((4, 8))
    head = layers.SimilarityHead(**options, name="head")
    model = keras.Model([upper, lower], head([tower()(upper), tower()(lower)]))
    model.compile(keras.optimizers.Adam(RATE), loss())
    return model


def search(pairs):
    """Each upper half among all lower ones; its own is the only match."""
    ids = np.arange(len(pairs))
    upper, lower = pairs[:, 0], pairs[:, 1]
    return metrics.retrieval(lower, ids, queries=(upper, ids), k=(1, 5))


def compare(options):
    """Trains with each loss at each batch size, and prints the table.

    Returns:
        The pairs of embeddings `(n, 2, SIZE)` of the images held out, by batch
        size and loss.
    """
    training, held_out = halves(options.seed)
    ids = np.arange(TRAINED)
    print(
        f"{TRAINED} images to train on in {options.steps} steps; "
        f"{len(held_out[0])} upper halves look for their lower ones.\n"
    )
    print(f"{'batch':>6}  {'':8} recall@1  recall@5  temperature  seconds")
    found = {}
    for batch in options.batches:
        for name in LOSSES:
            keras.utils.set_random_seed(options.seed)
            start = time.perf_counter()
            model = build_model(name)
            epochs = max(1, options.steps * batch // TRAINED)
            model.fit(training, ids, batch, epochs, verbose=0)
            seconds = time.perf_counter() - start
            pairs = model.predict(held_out, len(held_out[0]), verbose=0)
            recall = search(pairs).recall_at_k
            print(
                f"{batch:6}  {name:8}{100 * recall[1]:7.1f} %"
                f"{100 * recall[5]:8.1f} %"
                f"{model.get_layer('head').temperature:13.3f}{seconds:9.1f}",
                flush=True,
            )
            found[batch, name] = pairs
    return found


# Memory


def with_matrix(y_true, y_pred):
    """InfoNCE as one writes it, for pairs that are all different."""
    logits = y_pred[:, 0] @ ops.transpose(y_pred[:, 1]) / TEMPERATURE
    sums = ops.logsumexp(logits, axis=1) + ops.logsumexp(logits, axis=0)
    return ops.mean(sums / 2 - ops.diagonal(logits))


STEPS = {
    **{name: (loss(), head) for name, (loss, head) in LOSSES.items()},
    "with the matrix": (with_matrix, {"temperature": TEMPERATURE}),
}


def measure(options):
    """Prints the memory and the time of a training step."""
    print("\nA training step on embeddings, beyond the model and its inputs:\n")
    print(f"{'batch':>6}" + "".join(f"{name:>20}" for name in STEPS))
    for batch in options.memory:
        cells = []
        for loss, head in STEPS.values():
            if loss is with_matrix and batch > LARGEST_MATRIX:
                cells.append("not tried")
                continue
            peak, seconds = measure_step(batch, loss, head)
            peak = f"{peak:,.0f}" if peak > LEAST else f"< {LEAST}"
            cells.append(f"{peak} MB{seconds:8.3f} s")
        print(f"{batch:6}" + "".join(f"{x:>20}" for x in cells), flush=True)


def measure_step(batch, loss, options):
    """The peak memory in MB, and the seconds, of a step after the first."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((SIZE,)) for _ in "ab"]
    embeddings = [keras.layers.Dense(SIZE)(x) for x in inputs]
    head = layers.SimilarityHead(**options)
    model = keras.Model(inputs, head(embeddings))
    model.compile("sgd", loss)
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(batch, SIZE)).astype("float32") for _ in inputs]
    model.train_on_batch(x, np.arange(batch))
    peak, start = memory.peak_since_now(), time.perf_counter()
    model.train_on_batch(x, np.arange(batch))
    return peak(), time.perf_counter() - start


# The picture and the command line


def plot(pairs, title, held_out, folder):
    """Upper halves with the lower ones that they found, and with their own."""
    from matplotlib.figure import Figure

    nearest = np.argmax(pairs[:, 0] @ pairs[:, 1].T, axis=1)
    right = nearest == np.arange(len(pairs))
    chosen = [np.flatnonzero(kind)[:SHOWN] for kind in (right, ~right)]
    chosen = np.concatenate(chosen)
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axes = figure.subplots(2, len(chosen))
    upper, lower = held_out
    for column, row in zip(axes.T, chosen, strict=True):
        for axis, other in zip(column, (nearest[row], row), strict=True):
            axis.imshow(np.vstack([upper[row], lower[other]]), cmap="gray_r")
            axis.axhline(3.5, color="C2" if right[row] else "C3")
            axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("found")
    axes[1, 0].set_ylabel("its own")
    figure.suptitle(title)
    figure.savefig(folder / "two_towers.png", dpi=120)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--steps", type=checks.at_least(1), help="of each training: 400")
    add(
        "--batches",
        nargs="+",
        type=checks.at_least(2, most=TRAINED),
        metavar="N",
        help="batch sizes to train with: 32 128 512",
    )
    add(
        "--memory",
        nargs="+",
        type=checks.at_least(2),
        metavar="N",
        help="batch sizes whose memory is measured: 1024 to 16384",
    )
    add("--seed", type=checks.seed, default=0, help="default: 0")
    add("--small", action="store_true", help="all of it small: a test")
    add(
        "--plots",
        type=checks.plots_folder,
        metavar="DIR",
        help="write a PNG file there",
    )
    options = parser.parse_args(arguments)
    for name, (usual, small) in SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else usual)
    return options


def main(arguments=None):
    options = parse(arguments)
    found = compare(options)
    measure(options)
    if options.plots:
        (batch, name), pairs = max(
            found.items(), key=lambda item: search(item[1]).precision_at_1
        )
        title = f"{name}, batches of {batch}"
        plot(pairs, title, halves(options.seed)[1], options.plots)


if __name__ == "__main__":
    main()
