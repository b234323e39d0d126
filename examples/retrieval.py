"""Find more of a kind that was never trained on: embeddings of digits.

**The task.** Search. Given the picture of a digit, find others of that digit by
the distance of *embeddings*: 128 numbers that a network makes of a picture. It
is trained on the digits 0 to 4; searched are the digits 5 to 9, which it has
never seen. So a shop finds more like this product, and a door knows who joined
yesterday. 1,797 images of 8 × 8 pixels, shipped with scikit-learn.

**More classes.** Five classes teach a network to tell these five apart and no
more: on others it is worse than the raw pixels (`--plain`). So more classes are
made of them. A digit that is turned or mirrored is another one, where that
makes a difference, and so is the upper half of one on the lower half of
another. Of each image there are two more copies with small changes, which make
no difference.

**The losses.** One network, one kind of batch (28 classes, 4 pictures each, by
`ClassBalancedBatches`), and each loss that `keras_xent` has for embeddings.
Those on a `CosineHead` learn a direction for each class, perhaps with a margin;
contrastive losses and prototypes compare a picture with all others of the
batch; hinges ask for a distance. Beside them stand the raw pixels.

**The figures.** Every picture of the digits 5 to 9 is searched among all others
of them. *Recall@1*: how often the nearest one is of the same digit. *MAP@R*:
mean average precision at R, the number of others of its digit; it is 1 only if
all of these come before all else. How the classes are made, the network and its
training were chosen on the digits 0 to 4, by holding out two of them in turn,
with a few of the losses. The losses were hardly tuned one by one: read no order
into small differences. Hard triplets are there as a warning: trained on nothing
but the worst mistakes from the first step on, all embeddings run to one place.

**The commands.**

    python retrieval.py                    # one seed, two minutes
    python retrieval.py --seeds 3          # how much of it is chance
    python retrieval.py --only ArcFace SupCon
    python retrieval.py --plain            # the five classes alone
    python retrieval.py --plots plots      # the embeddings, and what was found

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** K. Musgrave, S. Belongie, S.-N. Lim: A metric learning reality
check. ECCV 2020, on MAP@R, and on how to read such tables. Turned images as
classes: A. Santoro et al.: Meta-learning with memory-augmented neural networks.
ICML 2016.
"""

import argparse
import functools
import os
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import keras
import numpy as np
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits

import keras_xent
from keras_xent import data, layers, losses, metrics

# The digits trained on: in how many quarter turns, and mirrored or not, they
# differ from themselves.
SEEN = {0: (2, 1), 1: (2, 1), 2: (2, 2), 3: (4, 1), 4: (4, 2)}
EACH = 100  # pictures of a class of two halves
CHANGE, SHIFT = 0.15, 0.7  # deviations of a small change; a shift in pixels
SIZE = 128  # of an embedding
LOGIT_SCALE = 3.0
CLASSES, OF_EACH = 28, 4  # of a batch
RATE = 2e-3  # of Adam; it falls to 0 along a cosine
SIZES = {  # the usual one, the small one
    "steps": (1000, 20),
    "made": (200, 5),
}
FOUND = 8  # pictures shown for a query
PIXELS = "raw pixels"


def head(**options):
    """To make the head of a classifier by cosines, given its classes."""
    return functools.partial(layers.CosineHead, scale=16.0, **options)


HEADS = {
    "NormFace": head(),
    "CosFace": head(cosine_margin=0.2),
    "ArcFace": head(angular_margin=0.2),
    "sub-center ArcFace": head(angular_margin=0.2, sub_centers=3),
}
LOSSES = {
    "SupCon": losses.SupervisedContrastive(),
    "InfoNCE": losses.InfoNCE(),
    "SigLIP": losses.SigmoidContrastive(bias=-5.0),
    "multi-similarity": losses.MultiSimilarity(),
    "prototypes, cosine": losses.PrototypicalCrossentropy(distance="cosine"),
    "prototypes, Euclidean": losses.PrototypicalCrossentropy(),
    "pair hinge": losses.PairHinge(
        0.5, distance="cosine", softness=0.0, squared=True
    ),
    "symmetric KL hinge": losses.SymmetricKLHinge(20.0, softness=0.5),
    "triplets, hard": losses.TripletHinge(0.2, distance="cosine"),
    "triplets, semi-hard": losses.TripletHinge(0.5, mining="semi_hard"),
    "triplets, all": losses.TripletHinge(0.5, mining="all"),
}
NAMES = [*HEADS, *LOSSES]


# The data


def split():
    """Images `(n, 8, 8)` and digits: trained on, then searched."""
    images, digits = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype("float32") / 16
    seen = np.isin(digits, list(SEEN))
    return (images[seen], digits[seen]), (images[~seen], digits[~seen])


def make_classes(images, digits, made, rng):
    """Images and class ids: digits turned and mirrored, and halves of two.

    Each image is there as it is and in two copies with small changes.
    """
    parts = [
        np.rot90(images[digits == digit, :, ::way], turn, axes=(1, 2))
        for digit in np.unique(digits)
        for way in (1, -1)[: SEEN[digit][1]]
        for turn in range(SEEN[digit][0])
    ]
    for a, b in [rng.permutation(len(parts))[:2] for _ in range(made)]:
        upper, lower = rng.choice(parts[a], EACH), rng.choice(parts[b], EACH)
        parts.append(np.concatenate([upper[:, :4], lower[:, 4:]], axis=1))
    ids = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    x = np.concatenate(parts)
    x = np.concatenate([x, changed(x, rng), changed(x, rng)])
    return x, np.tile(ids, 3)


def changed(images, rng):
    """Images a little turned, sheared, stretched and shifted at random."""
    n = len(images)
    change = np.eye(2) + rng.normal(0, CHANGE, (n, 2, 2))
    shift = rng.normal(0, SHIFT, (n, 2, 1, 1))
    places = np.einsum("nab,bij->anij", change, np.indices((8, 8)) - 3.5)
    places += 3.5 + np.moveaxis(shift, 1, 0)
    which = np.broadcast_to(np.arange(n)[:, None, None], images.shape)
    return map_coordinates(images, [which, *places], order=1)


# Training


def tower():
    """From images to embeddings."""
    return keras.Sequential(
        [
            keras.Input((8, 8)),
            keras.layers.Reshape((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(64, 3, 2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(SIZE),
        ]
    )


def train(name, images, ids, steps, seed):
    """A trained tower, and the distance that its embeddings are meant for."""
    keras.utils.set_random_seed(seed)
    model = embed = tower()
    if name == "symmetric KL hinge":
        # Free logits would shrink: docs/siamese_speaker.md says why.
        scale = keras.initializers.Constant(LOGIT_SCALE)
        embed.add(keras.layers.BatchNormalization(gamma_initializer=scale))
    if name in HEADS:
        loss = losses.LinearCrossentropy()
        model = keras.Sequential([embed, HEADS[name](ids.max() + 1)])
    else:
        loss = LOSSES[name]
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.Adam(rate), loss)
    batches = data.ClassBalancedBatches(
        images,
        ids,
        min(CLASSES, ids.max() + 1),
        OF_EACH,
        batches_per_epoch=steps,
        seed=seed,
    )
    model.fit(batches, verbose=0)
    distance = getattr(loss, "distance", None) or "cosine"
    return embed, distance.removeprefix("squared_")


def run(options):
    """Trains with each loss, and prints the table.

    Returns:
        By name, the MAP@R of each seed, and the embeddings of the first one
        with their distance.
    """
    (images, digits), (gallery, ids) = split()
    print(
        f"{len(images)} images of the digits 0 to 4 to train on in "
        f"{options.steps} steps; {len(gallery)} of the digits 5 to 9 to search."
        "\n"
    )
    print(f"{'':22}recall@1   MAP@R   seconds")
    pixels = gallery.reshape(len(gallery), -1)
    found = {PIXELS: show(PIXELS, [metrics.retrieval(pixels, ids)])}
    embeddings = {PIXELS: (pixels, "cosine")}
    for name in options.only:
        results, start = [], time.perf_counter()
        for seed in range(options.seed, options.seed + options.seeds):
            rng = np.random.default_rng(seed)
            classes = images, digits
            if not options.plain:
                classes = make_classes(*classes, options.made, rng)
            embed, distance = train(name, *classes, options.steps, seed)
            x = embed.predict(gallery, len(gallery), verbose=0)
            results.append(metrics.retrieval(x, ids, distance=distance))
            embeddings.setdefault(name, (x, distance))
        seconds = (time.perf_counter() - start) / options.seeds
        found[name] = show(name, results, f"{seconds:10.1f}")
    return found, embeddings


def show(name, results, seconds=""):
    """Prints a row of the table; the MAP@R of its results."""
    recall = np.mean([each.precision_at_1 for each in results])
    values = [each.map_at_r for each in results]
    spread = ""
    if len(values) > 1:
        spread = f"   MAP@R {min(values):.3f} to {max(values):.3f}"
    row = f"{name:22}{100 * recall:6.1f} %{np.mean(values):8.3f}"
    print(row + seconds + spread, flush=True)
    return values


def best_of(found):
    """The loss with the best MAP@R."""
    return max(
        (name for name in found if name != PIXELS),
        key=lambda name: np.mean(found[name]),
    )


def verdict(found):
    best = best_of(found)
    ours, pixels = np.mean(found[best]), np.mean(found[PIXELS])
    word = "beats" if ours > pixels else "does not beat"
    return (
        f"On digits that it has never seen, the best loss, {best}, {word} the "
        f"raw pixels: MAP@R {ours:.3f} against {pixels:.3f}."
    )


# The pictures and the command line


def plot_embeddings(embeddings, ids, path):
    """The two directions in which the embeddings of each name differ most."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots(1, len(embeddings))
    for axis, (name, (x, _)) in zip(axes, embeddings.items(), strict=True):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        across, up = PCA(2).fit_transform(x).T
        for digit in np.unique(ids):
            here = ids == digit
            axis.scatter(across[here], up[here], s=8, label=str(digit))
        axis.set(title=name, xticks=[], yticks=[])
    axes[-1].legend(title="digit", markerscale=2)
    figure.savefig(path, dpi=100)


def plot_found(embeddings, gallery, ids, path):
    """A query of each digit, and the images nearest to it."""
    from matplotlib.figure import Figure

    neighbors = {name: nearest(*each) for name, each in embeddings.items()}
    right = ids[neighbors[PIXELS]] == ids[:, None]
    figure = Figure(figsize=(13, 4), layout="constrained")
    digits = np.unique(ids)
    widths = [1, *[0.3, *[1] * FOUND] * len(embeddings)]
    axes = figure.subplots(
        len(digits), len(widths), width_ratios=widths, squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].set_title("query")
    for place, (name, found) in enumerate(neighbors.items()):
        columns = axes[:, 2 + place * (FOUND + 1) :][:, :FOUND]
        columns[0, 0].set_title(name, loc="left")
        for row, digit in zip(range(len(digits)), digits, strict=True):
            # Of each digit the one for which the pixels find the fewest.
            queries = np.flatnonzero(ids == digit)
            query = queries[right[queries].sum(axis=1).argmin()]
            axes[row, 0].imshow(gallery[query], cmap="gray_r")
            for axis, other in zip(columns[row], found[query], strict=True):
                axis.imshow(gallery[other], cmap="gray_r")
                axis.axis("on")
                axis.set(xticks=[], yticks=[])
                color = "C2" if ids[other] == digit else "C3"
                for spine in axis.spines.values():
                    spine.set(color=color, linewidth=2)
    figure.savefig(path, dpi=100)


def nearest(x, distance):
    """The numbers of the images nearest to each, `(n, FOUND)`."""
    pairwise = getattr(keras_xent.ops, f"pairwise_{distance}")
    far = np.array(keras.ops.convert_to_numpy(pairwise(x)))
    np.fill_diagonal(far, np.inf)
    return np.argsort(far, axis=1, kind="stable")[:, :FOUND]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--steps", type=checks.at_least(1), help="of each training: 1000")
    add(
        "--made",
        type=checks.at_least(0),
        metavar="N",
        help="classes made of the halves of two: 200",
    )
    add("--plain", action="store_true", help="the five digits as they are")
    add(
        "--only",
        nargs="+",
        choices=NAMES,
        default=NAMES,
        metavar="LOSS",
        help=f"of {', '.join(NAMES)}",
    )
    add("--seeds", type=checks.at_least(1), default=1, help="train N times")
    add("--seed", type=checks.seed, default=0, help="the first; default: 0")
    add("--small", action="store_true", help="all of it small: a test")
    add(
        "--plots",
        type=checks.plots_folder,
        metavar="DIR",
        help="write PNG files there",
    )
    options = parser.parse_args(arguments)
    for name, (usual, small) in SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else usual)
    return options


def main(arguments=None):
    options = parse(arguments)
    found, embeddings = run(options)
    print()
    print(verdict(found))
    if options.plots:
        gallery, ids = split()[1]
        shown = {name: embeddings[name] for name in (PIXELS, best_of(found))}
        folder = options.plots
        plot_embeddings(shown, ids, folder / "retrieval_embeddings.png")
        plot_found(shown, gallery, ids, folder / "retrieval_found.png")


if __name__ == "__main__":
    main()
