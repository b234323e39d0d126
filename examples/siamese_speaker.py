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

import checks
import keras
import numpy as np
import speaker_backend
import speaker_tasks
import speech
from audio import DataError
from speaker_backend import Backend
from speaker_pairs import (
    Pairs,
    Rows,
    draw_pairs,
    naive_distance,
    naive_hinge,
    naive_model,
    pair_model,
)
from speaker_scores import (
    Report,
    Result,
    print_summary,
    print_table,
    tune_threshold,
)
from speaker_tower import (
    LOSSES,
    RECIPES,
    TOWERS,
    SpeakerBatches,
    build_tower,
    schedule,
    train_tower,
)

import keras_xent

MODES = ("batch", "pairs", "naive")
BACKENDS = ("as_norm", "cosine", "none")
# Every pair of so many utterances is scored; more would say the same.
MOST_COMPARED = 4_000
# A loss that falls by less than a tenth has taught nothing.
HARDLY_FALLEN = 0.9


@dataclasses.dataclass
class Trained:
    """A tower and what turns its output into decisions."""

    backend: Backend
    threshold: float
    history: dict

    def save(self, path, rate):
        """One file: features, tower, backend, cohort and threshold."""
        model = speaker_backend.pair_model(self.backend, rate, self.threshold)
        model.save(path)


def train(mode, corpus, recipe, options, seed, report):
    """A tower, trained, with its backend and the threshold."""
    strangers = corpus.validation_speakers(seed) if mode == "batch" else None
    if strangers and options.backend != "none":
        data, valid, kept = strangers
        copies = [copy[kept] for copy in corpus.copies]
        parts = [data, *copies]
        # The threshold is for voices that were not trained on. So it is tuned
        # on some that were not. Then all are trained on.
        print(f"without {describe(valid, corpus)}, to tune the threshold on")
        found = train_batch(parts, valid, corpus, recipe, options, seed, report)
        parts = [corpus.training, *corpus.copies]
        print("with everybody")
        again = train_batch(parts, None, corpus, recipe, options, seed, report)
        return dataclasses.replace(found, backend=again.backend)
    rows = corpus.held_out_rows(seed)
    data, valid = corpus.training[~rows], corpus.training[rows]
    if mode == "batch":
        parts = [data, *(copy[~rows] for copy in corpus.copies)]
        return train_batch(parts, valid, corpus, recipe, options, seed, report)
    return train_pairs(mode, data, valid, recipe, options, seed, report)


def train_batch(parts, valid, corpus, recipe, options, seed, report):
    """Ids as labels: every batch gives all its pairs to the loss.

    `parts` are the training utterances and their copies at other speeds. The
    threshold is tuned on `valid`, if given.
    """
    keras.utils.set_random_seed(seed)
    data = parts[0]
    tower = build_tower(data, recipe)
    if corpus.features == "cepstrum":
        batches = Rows(data, recipe.batch_size, seed)
    else:
        batches = SpeakerBatches(parts, recipe, seed)
    watch = []
    if valid is not None:
        watch.append(
            keras_xent.callbacks.TuneThreshold(
                (valid.segments, valid.segment_speaker),
                distance="symmetric_kl",
                batch_size=256,
                restore_best_weights=False,
            )
        )
    model, history = train_tower(tower, batches, recipe, [*watch, report])
    losses = history["loss"]
    if not losses[-1] < HARDLY_FALLEN * losses[0] and len(losses) > 1:
        print(f"The loss went from {losses[0]:.3g} to {losses[-1]:.3g} only:")
        print(keras_xent.diagnose(model, *batches[0]))
    backend = Backend(options.backend, tower, parts, recipe, seed)
    threshold = np.nan
    if valid is not None:
        threshold = tune_threshold(
            backend.compare(valid),
            valid.speaker,
            backend.similarity,
            options.objective,
        )
    return Trained(backend, threshold, history)


def train_pairs(mode, data, valid, recipe, options, seed, report):
    """Two towers with the same weights, match flags as labels."""
    keras.utils.set_random_seed(seed)
    tower = build_tower(data, recipe)
    batches = Pairs(data, recipe.batch_size, seed)
    pairs = draw_pairs(valid, seed)
    if mode == "pairs":
        model, metrics = pair_model(tower), None
        loss = keras_xent.losses.SoftplusHinge(
            margin=recipe.margin, softness=recipe.softness
        )
        watch = [
            keras_xent.callbacks.TuneThreshold(
                pairs,
                similarity=False,
                batch_size=256,
                restore_best_weights=False,
            )
        ]
    else:
        model, watch = naive_model(tower), []
        loss, metrics = naive_hinge, ["accuracy"]
    rate = schedule(batches, recipe)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=metrics)
    history = model.fit(
        batches,
        validation_data=pairs if mode == "naive" else None,
        epochs=recipe.epochs,
        callbacks=[*watch, report],
        verbose=0,
    )
    backend = Backend("none", tower, [data], recipe, seed)
    if mode == "naive":
        backend.distance = naive_distances
    threshold = tune_threshold(
        backend.compare(valid), valid.speaker, False, options.objective
    )
    return Trained(backend, threshold, history.history)


def naive_distances(logits):
    p = keras.ops.softmax(logits)
    return naive_distance(p[:, None], p[None])


# The command line


def run(name, mode, corpus, recipe, options, seed, lines):
    """Train once and evaluate: what was trained and the results."""
    print(f"\n{name}, seed {seed}, on {keras.backend.backend()}")
    report = Report(name, every=-(-recipe.epochs // lines))
    trained = train(mode, corpus, recipe, options, seed, report)
    results = [
        Result(
            name,
            group,
            seed,
            trained.backend.compare(data),
            data.speaker,
            trained.threshold,
            trained.backend.similarity,
        )
        for group, data in groups(corpus)
    ]
    if mode == "naive":
        results[0].reported = trained.history["val_accuracy"][-1]
    return trained, results


def groups(corpus):
    """The speakers that were trained on and, if any, those that were not."""
    for group, data in [("seen", corpus.test), ("unseen", corpus.unseen)]:
        if data is not None:
            yield group, speaker_backend.part(data, MOST_COMPARED)


def joint_map(name, backend, corpus):
    """Scores of seen and unseen speakers together, for one picture."""
    if corpus.unseen is None:
        return None
    found = dict(groups(corpus))
    both = found["seen"] + found["unseen"]
    unseen = np.arange(len(both)) >= len(found["seen"])
    return {name: (backend.compare(both), both.speaker, unseen)}


def run_baseline(corpus, options, seed):
    """The same figures without deep learning."""
    parted = corpus.validation_speakers(seed) or corpus.hold_out(seed)
    data, valid = parted[:2]
    results = []
    for name in speaker_backend.BASELINES:
        held_out = speaker_backend.Baseline(name, data, seed).compare(valid)
        threshold = tune_threshold(
            held_out, valid.speaker, True, options.objective
        )
        baseline = speaker_backend.Baseline(name, corpus.training, seed)
        for group, data_of_group in groups(corpus):
            found = baseline.compare(data_of_group)
            speaker = data_of_group.speaker
            results.append(
                Result(name, group, seed, found, speaker, threshold, True)
            )
    return results


def number_or_names(words):
    """`--unseen`: a number of speakers, or their names."""
    if len(words) == 1 and words[0].lstrip("-").isdecimal():
        return int(words[0])
    return words


def objective(word):
    if word in ("accuracy", "balanced", "equal_error"):
        return word
    return checks.finite(above=0, below=1)(word)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Tell whether two utterances come from one speaker.",
    )
    add = parser.add_argument_group("speech").add_argument
    add("--data", metavar="DIR", help="recordings, DIR/<speaker>/**/*.wav")
    add("--download", choices=["fsdd"], help="fetch recordings to train on")
    add(
        "--unseen",
        nargs="+",
        metavar="N or NAME",
        help="speakers never trained on, so many or by name (default: none "
        "of the Japanese vowels, a third of the speakers of recordings if "
        "there are six or more)",
    )
    add(
        "--cache",
        metavar="DIR",
        type=checks.writable_folder,
        help="keep the features there, on disk instead of in memory",
    )
    add("--small", action="store_true", help="little data, 3 epochs: a test")
    add = parser.add_argument_group("training").add_argument
    add("--mode", choices=[*MODES, "all"], default="batch")
    add("--tower", choices=TOWERS, help="default: lstm for the vowels, tdnn")
    add("--loss", choices=[*LOSSES, "all"], default="symmetric_kl_hinge")
    add(
        "--backend",
        choices=BACKENDS,
        help="compare embeddings by normalised scores, by their cosine, or the "
        "fingerprints by their divergence (default: none for the vowels)",
    )
    add(
        "--objective",
        type=objective,
        metavar="NAME or P",
        help="what the threshold is tuned for: accuracy, balanced, equal_error "
        "or the least cost at a prior P of a match (default: balanced where "
        "matches are under a quarter of the pairs, else accuracy)",
    )
    add("--seeds", type=checks.at_least(1), default=1, help="train N times")
    add("--seed", type=checks.seed, default=0, help="the first (default: 0)")
    add("--epochs", type=checks.at_least(1), help="instead of the recipe's")
    add("--baseline", action="store_true", help="its rows only, no training")
    add("--plots", metavar="DIR", type=checks.plots_folder, help="pictures")
    add(
        "--save",
        metavar="FILE.keras",
        type=checks.writable_file(".keras"),
        help="save the first model trained, with all that it needs",
    )
    add = parser.add_argument_group("a saved model").add_argument
    add("--load", metavar="FILE.keras", help="the model for what follows")
    add("--compare", nargs=2, metavar="WAV", help="one speaker or two?")
    add("--trials", metavar="FILE", help="lines of `1 a.wav b.wav`")
    add("--scores", metavar="FILE", help="with --trials: write the scores")
    add("--enrol", metavar="DIR", help="DIR/<speaker>/**/*.wav to know")
    add("--identify", metavar="WAV", help="with --enrol: who of them is it?")
    add("--embeddings", metavar="FILE.npz", help="of the files of --data")
    add("--cluster", metavar="DIR", help="how many voices, and who is who?")
    options = parser.parse_args(arguments)
    tasks = ("compare", "trials", "identify", "embeddings", "cluster")
    asked = [task for task in tasks if getattr(options, task)]
    if bool(options.load) != bool(asked):
        words = ", ".join(f"--{task}" for task in tasks)
        parser.error(f"--load goes with one of {words}")
    if bool(options.enrol) != bool(options.identify):
        parser.error("--enrol and --identify go together")
    if options.embeddings and not options.data:
        parser.error("--embeddings needs --data DIR with the recordings")
    if options.scores and not options.trials:
        parser.error("--scores goes with --trials")
    if options.data and options.download:
        parser.error("--data and --download exclude each other")
    if options.save and options.mode == "naive":
        parser.error("--save is for the modes batch and pairs")
    if options.unseen is not None:
        options.unseen = number_or_names(options.unseen)
    recordings = options.data or options.download
    if options.save and not recordings and not options.load:
        parser.error(
            "--save keeps a model of recordings; the Japanese vowels are "
            "cepstrum coefficients. Train one with --data or --download"
        )
    options.kind = "log_mel" if recordings else "cepstrum"
    if options.backend is None:
        options.backend = "as_norm" if recordings else "none"
    if options.loss != "symmetric_kl_hinge" and options.mode != "batch":
        parser.error("--loss is for the mode batch")
    return parser, options


def recipe_of(options):
    recipe = RECIPES[options.kind]
    changes = {
        "tower": options.tower,
        "epochs": options.epochs or (3 if options.small else None),
    }
    given = {name: value for name, value in changes.items() if value}
    return dataclasses.replace(recipe, **given)


def load_corpus(options, recipe):
    if options.kind == "cepstrum":
        corpus = speech.japanese_vowels(options.unseen or 0, options.seed)
    else:
        folder = options.data or speech.download_fsdd()
        corpus = speech.wav_folder(
            folder,
            options.unseen,
            options.seed,
            options.cache,
            recipe.speeds if options.mode == "batch" else (),
        )
    if options.small:
        corpus = corpus.small()
    print(
        f"{corpus.features}: {len(corpus.training)} utterances to train and "
        f"validate, {len(corpus.test)} to test"
    )
    if corpus.unseen is not None:
        print(f"never trained on: {describe(corpus.unseen, corpus)}")
    return corpus


def describe(data, corpus):
    names = [corpus.names[speaker] for speaker in np.unique(data.speaker)]
    more = "" if len(names) <= 12 else f" and {len(names) - 12} more"
    return f"{len(data)} utterances of {', '.join(names[:12])}{more}"


def ask(options):
    """What a saved model is for."""
    voice = speaker_backend.load(options.load)
    if options.compare:
        speaker_tasks.compare(voice, *options.compare)
    if options.trials:
        speaker_tasks.trials(voice, options.trials, options.scores)
    if options.identify:
        enrolled = speaker_tasks.enrol(voice, options.enrol)
        speaker_tasks.identify(voice, enrolled, options.identify)
    if options.embeddings:
        speaker_tasks.embeddings(voice, options.data, options.embeddings)
    if options.cluster:
        speaker_tasks.cluster(voice, options.cluster, options.plots)


def trainings(options, recipe):
    """The name, mode and recipe of everything to be trained."""
    for mode in MODES if options.mode == "all" else [options.mode]:
        if mode != "batch":
            yield mode, mode, recipe
            continue
        losses = LOSSES if options.loss == "all" else [options.loss]
        for loss in losses:
            name = loss if len(losses) > 1 else mode
            yield name, mode, dataclasses.replace(recipe, loss=loss)


def main(arguments=None):
    parser, options = parse(arguments)
    recipe = recipe_of(options)
    try:
        if options.load:
            ask(options)
            return
        corpus = load_corpus(options, recipe)
    except DataError as error:
        parser.error(str(error))
    results, histories, first = [], {}, None
    wanted = [] if options.baseline else list(trainings(options, recipe))
    seeds = range(options.seed, options.seed + options.seeds)
    lines = max(1, 10 // max(1, len(wanted) * options.seeds))
    for name, mode, one in wanted:
        for seed in seeds:
            trained, found = run(name, mode, corpus, one, options, seed, lines)
            results += found
            histories.setdefault(name, trained.history)
            first = first or trained
    for seed in seeds[:1]:
        results += run_baseline(corpus, options, seed)
    if options.save:
        first.save(options.save, corpus.rate)
    print_table(results)
    if options.plots and wanted:
        import speaker_plots

        shown = [one for one in results if one.seed == options.seed]
        joint = joint_map(wanted[0][0], first.backend, corpus)
        speaker_plots.save(
            options.plots, shown, histories, corpus.names, joint=joint
        )
    if wanted:
        print()
        print_summary(results, wanted[0][0], speaker_backend.BASELINES)


if __name__ == "__main__":
    main()
