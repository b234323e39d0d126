"""Is it the same speaker? A siamese network on real speech.

**The task.** Two utterances: did one person speak both? And many utterances:
how many voices are there, and which belongs to which?

**The method.** One network, the *tower*, turns an utterance into logits. Their
softmax is the voice's fingerprint, a probability distribution. The symmetric
Kullback-Leibler divergence between two fingerprints is the distance between
the voices. Training pulls utterances of one speaker together and pushes those
of two speakers apart, up to a margin, with a softplus hinge. A threshold tuned
on validation data turns the distance into a decision.

Three ways to train, `--mode`:

- `batch` (the default): one tower, speaker ids as labels. Every batch gives
  all its pairs to the loss `SymmetricKLHinge`.
- `pairs`: two towers with the same weights and a distance layer between them.
  The labels say match or no match, the loss is `SoftplusHinge`.
- `naive`: what one writes first. One-way divergence of clipped probabilities,
  a hard hinge, and Keras's `accuracy` on the distance. The tower may learn
  all the same, but who goes by that accuracy will never know: Keras takes
  every distance above 0.5 for a match, so the better the distances, the
  nearer it comes to 0 %. `--mode all` shows all three in one table.

**The figures.** *Equal error rate*: false matches and missed matches are
equally frequent at some threshold; this is how frequent. *Accuracy at the
tuned threshold*: over all pairs of test utterances. Mind what always saying
"different" would get; the table shows that, too. *Misclassification rate*: the
test utterances are clustered into as many groups as there are speakers; this
share ends in the wrong group. The table adds the least detection cost (minDCF
at a prior of 0.05 for a match), and how well the groups agree with the
speakers: the adjusted Rand index (ARI) and the normalized mutual information
(NMI), both 1 at best.

*Seen* speakers were trained on, with other utterances. *Unseen* ones were not;
a handful of voices to train on teaches little about them. With WAV files the
seen figures are optimistic, too: utterances of one recording session fall on
both sides of the split.

**The commands.**

    python siamese_speaker.py                            # Japanese vowels
    python siamese_speaker.py --mode all --plots plots
    python siamese_speaker.py --seeds 5                  # mean and spread
    python siamese_speaker.py --data recordings --save voices.keras
    python siamese_speaker.py --load voices.keras --compare a.wav b.wav
    python siamese_speaker.py --download fsdd            # needs a network

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** Y. Lukic, C. Vogt, O. Dürr, T. Stadelmann: Learning embeddings
for speaker clustering based on voice equality. MLSP 2017. The recurrent tower:
T. Stadelmann, S. Glinski-Haefeli, P. Gerber, O. Dürr: Capturing suprasegmental
features of a voice with RNNs for improved speaker clustering. ANNPR 2018.
"""

import argparse
import dataclasses
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import speech
from speaker_pairs import (
    Pairs,
    Rows,
    compare,
    draw_pairs,
    naive_distance,
    naive_hinge,
    naive_model,
    pair_model,
)
from speaker_scores import (
    Report,
    Result,
    every_pair,
    print_summary,
    print_table,
    tune_threshold,
)
from wav_features import DataError

import keras_xent

MODES = ("batch", "pairs", "naive")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that was chosen for training, on training data alone."""

    units: int = 32  # of each LSTM, in each direction
    size: int = 16  # of the embedding
    noise: float = 1.0  # on the inputs, whose own deviation is 1
    frame_dropout: float = 0.2
    margin: float = 2.0
    softness: float = 0.5
    learning_rate: float = 0.01  # falls to 0 along a cosine
    batch_size: int = 72
    epochs: int = 150


RECIPES = {
    "cepstrum": Recipe(),
    "log_mel": Recipe(learning_rate=0.005, batch_size=256, epochs=12),
}


def build_tower(train, features, recipe):
    """A segment of speech in, the logits of its fingerprint out."""
    frames = train.segments[train.segments.any(axis=-1)]  # without padding
    inputs = keras.Input(train.segments.shape[1:])
    x = keras.layers.Masking()(inputs)
    x = keras.layers.Normalization(
        mean=frames.mean(axis=0).tolist(),
        variance=frames.var(axis=0).tolist(),
        name=features,  # tells --compare what features to make
    )(x)
    x = keras.layers.GaussianNoise(recipe.noise)(x)
    x = keras.layers.Dropout(
        recipe.frame_dropout, noise_shape=(None, inputs.shape[1], 1)
    )(x)
    for _ in range(2):
        lstm = keras.layers.LSTM(recipe.units, return_sequences=True)
        x = keras.layers.Bidirectional(lstm)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dense(32, activation="tanh")(x)
    # Near 0 the distance is flat: fingerprints that are alike at the start
    # hardly get a gradient, and stay alike. Large logits keep them apart.
    large = keras.initializers.VarianceScaling(10.0, "fan_avg", "uniform")
    logits = keras.layers.Dense(recipe.size, kernel_initializer=large)(x)
    return keras.Model(inputs, logits, name="tower")


def train(mode, tower, data, valid, recipe, seed, report):
    """Returns the history of the training of a tower."""
    hinge = {"margin": recipe.margin, "softness": recipe.softness}
    watch = metrics = test_on = None
    if mode == "batch":
        # The tower itself stays uncompiled, so that it is saved without loss.
        model = keras.Model(tower.input, tower.output)
        batches = Rows(data, recipe.batch_size, seed)
        loss = keras_xent.losses.SymmetricKLHinge(**hinge)
        watch = keras_xent.callbacks.TuneThreshold(
            (valid.segments, valid.segment_speaker),
            distance="symmetric_kl",
            batch_size=256,
            restore_best_weights=False,
        )
    elif mode == "pairs":
        model = pair_model(tower)
        batches = Pairs(data, recipe.batch_size, seed)
        loss = keras_xent.losses.SoftplusHinge(**hinge)
        watch = keras_xent.callbacks.TuneThreshold(
            draw_pairs(valid, seed),
            similarity=False,
            batch_size=256,
            restore_best_weights=False,
        )
    else:
        model = naive_model(tower)
        batches = Pairs(data, recipe.batch_size, seed)
        loss, metrics = naive_hinge, ["accuracy"]
        test_on = draw_pairs(valid, seed)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate, len(batches) * recipe.epochs
    )
    model.compile(keras.optimizers.Adam(rate), loss, metrics=metrics)
    history = model.fit(
        batches,
        validation_data=test_on,
        epochs=recipe.epochs,
        callbacks=[watch, report] if watch else [report],
        verbose=0,
    )
    return history.history


def distances(tower, data, mode="batch"):
    """All distances between the utterances, `(utterances, utterances)`."""
    logits = tower.predict(data.segments, batch_size=256, verbose=0)
    logits = data.average(logits)
    if mode == "naive":
        p = keras.ops.softmax(logits)
        result = naive_distance(p[:, None], p[None])
    else:
        result = keras_xent.ops.pairwise_symmetric_kl(logits)
    return keras.ops.convert_to_numpy(result)


# The command line


def run(mode, corpus, recipe, seed, lines):
    """Train once and evaluate: tower, history and results."""
    print(f"\n{mode}, seed {seed}, on {keras.backend.backend()}")
    keras.utils.set_random_seed(seed)
    data, valid = corpus.hold_out(seed)
    tower = build_tower(data, corpus.features, recipe)
    report = Report(mode, every=-(-recipe.epochs // lines))
    history = train(mode, tower, data, valid, recipe, seed, report)
    threshold = tune_threshold(
        *every_pair(distances(tower, valid, mode), valid.speaker)
    )
    results = []
    for group, data in [("seen", corpus.test), ("unseen", corpus.unseen)]:
        if data is not None:
            distance = distances(tower, data, mode)
            results.append(
                Result(mode, group, seed, distance, data.speaker, threshold)
            )
    if mode == "naive":
        results[0].reported = history["val_accuracy"][-1]
    return tower, history, results


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Tell whether two utterances come from one speaker.",
    )
    add = parser.add_argument
    add("--mode", choices=[*MODES, "all"], default="batch")
    add("--data", metavar="DIR", help="your WAV files, DIR/<speaker>/**/*.wav")
    add("--download", choices=["fsdd"], help="fetch WAV files to train on")
    add(
        "--unseen",
        type=int,
        metavar="N",
        help="speakers never trained on (default: none of the Japanese "
        "vowels, a third of WAV speakers if there are six or more)",
    )
    add("--seeds", type=int, default=1, metavar="N", help="train N times")
    add("--seed", type=int, default=0, help="the first seed (default: 0)")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--small", action="store_true", help="little data, 3 epochs: a test")
    add("--plots", metavar="DIR", help="write PNG files there")
    add("--save", metavar="FILE.keras", help="save the first model trained")
    add("--load", metavar="FILE.keras", help="with --compare: ask this model")
    add("--compare", nargs=2, metavar="WAV", help="one speaker or two?")
    options = parser.parse_args(arguments)
    if (options.load is None) != (options.compare is None):
        parser.error("--load and --compare go together")
    if options.data and options.download:
        parser.error("--data and --download exclude each other")
    if options.save and not options.save.endswith(".keras"):
        parser.error("--save needs a name that ends in .keras")
    if options.save and options.mode == "naive":
        parser.error("--save is for the modes batch and pairs")
    if options.seeds < 1 or (options.epochs is not None and options.epochs < 1):
        parser.error("--seeds and --epochs must be at least 1")
    return parser, options


def load_corpus(options):
    if not options.data and not options.download:
        corpus = speech.japanese_vowels(unseen=options.unseen or 0)
    else:
        folder = options.data or speech.download_fsdd()
        corpus = speech.wav_folder(folder, options.unseen, options.seed)
    if options.small:
        corpus = corpus.small()
    print(
        f"{corpus.features}: {len(corpus.training)} utterances to train and "
        f"validate, {len(corpus.test)} to test"
    )
    if corpus.unseen is not None:
        unseen = np.unique(corpus.unseen.speaker)
        print(
            f"{len(corpus.unseen)} more of unseen speakers: "
            + ", ".join(corpus.names[speaker] for speaker in unseen)
        )
    return corpus


def main(arguments=None):
    parser, options = parse(arguments)
    try:
        if options.load:
            compare(options.load, options.compare)
            return
        corpus = load_corpus(options)
    except DataError as error:
        parser.error(str(error))
    recipe = RECIPES["cepstrum" if corpus.features == "cepstrum" else "log_mel"]
    epochs = options.epochs or (3 if options.small else recipe.epochs)
    recipe = dataclasses.replace(recipe, epochs=epochs)
    modes = MODES if options.mode == "all" else (options.mode,)
    results, histories, saved = [], {}, False
    lines = max(1, 10 // (len(modes) * options.seeds))
    for mode in modes:
        for seed in range(options.seed, options.seed + options.seeds):
            tower, history, found = run(mode, corpus, recipe, seed, lines)
            results += found
            histories.setdefault(mode, history)
            if options.save and not saved:
                pair_model(tower, found[0].threshold).save(options.save)
                saved = True
    print_table(results)
    if options.plots:
        import speaker_plots

        first = [one for one in results if one.seed == options.seed]
        speaker_plots.save(options.plots, first, histories, corpus.names)
    print()
    print_summary(
        [one for one in results if (one.mode, one.group) == (modes[0], "seen")]
    )


if __name__ == "__main__":
    main()
