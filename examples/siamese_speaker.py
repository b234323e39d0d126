"""Is it the same speaker? A siamese network on real speech.

**The task.** Two utterances: did one person speak both? And many utterances:
how many voices are there, and which belongs to which?

**The method.** One network, the *tower*, turns an utterance into logits. Their
softmax is the voice's fingerprint, a probability distribution. The symmetric
Kullback-Leibler divergence between two fingerprints is the distance between
the voices. Training pulls utterances of one speaker together and pushes those
of two speakers apart, up to a margin, with a softplus hinge. A threshold tuned
on validation data turns the distance into a decision.

*On recordings* (`--data`), the tower hears what changes from frame to frame of
a log-mel spectrogram, and a linear path beside it what stays: long-term
statistics, with the variation within a speaker whitened away (LDA). Both make
one embedding. Two embeddings are compared by their cosine, normalized by how
alike each is to the training utterances (AS-norm). A few dozen voices teach a
deep tower little about others; the linear path has few parameters, and voices
played faster and slower are more voices to learn from. The threshold is tuned
on a third of the speakers, by a model that never heard them; then everything is
trained once more on all. (Fewer than nine are all trained on, and utterances
that are held out tune it.) docs/speed/siamese_speaker.md has what each
step buys.

*The baseline* is always in the table: mean and deviation of the features, LDA,
cosine, with and without AS-norm. One line says whether all this beats it.

Three ways to train, `--mode`:

- `batch` (the default): one tower, speaker ids as labels. Every batch gives
  all its pairs to the loss `SymmetricKLHinge`, or to another one by `--loss`:
  `softmax` and `aam_softmax` (ArcFace) tell the training speakers apart,
  `angular_prototypical` and `supcon` the embeddings of a batch; the last three
  by cosines. `--loss all` shows all in one table.
- `pairs`: two towers with the same weights and a distance layer between them.
  The labels say match or no match, the loss is `SoftplusHinge`.
- `naive`: what one writes first. One-way divergence of clipped probabilities,
  a hard hinge, and Keras's `accuracy` on the distance. The tower may learn
  all the same, but who goes by that accuracy will never know: Keras takes
  every distance above 0.5 for a match, so the better the distances, the
  nearer it comes to 0 %. `--mode all` shows all three in one table.

**The figures.** *Equal error rate*: false matches and missed matches are
equally frequent at some threshold; this is how frequent. *Missed* and *false
matches*: how frequent they are at the tuned threshold, of the matches and of
the others. *Accuracy*: over all pairs of test utterances, at that threshold.
Mind what always saying "different" would get; the table shows that, too.
*Misclassification rate*: the test utterances are clustered into as many groups
as there are speakers; this share ends in the wrong group. The table adds the
least detection cost (minDCF at a prior of 0.05 for a match), and how well the
groups agree with the speakers: the adjusted Rand index (ARI) and the normalized
mutual information (NMI), both 1 at best.

*Seen* speakers were trained on, with other utterances. *Unseen* ones were not;
a handful of voices to train on teaches little about them. With recordings the
seen figures are optimistic, unless the folders show the sessions: utterances of
one recording session fall on both sides of the split.

**The commands.**

    python siamese_speaker.py                            # Japanese vowels
    python siamese_speaker.py --mode all --plots plots
    python siamese_speaker.py --seeds 5                  # mean and spread
    python siamese_speaker.py --data recordings --save voices.keras
    python siamese_speaker.py --data recordings --baseline
    python siamese_speaker.py --load voices.keras --compare a.wav b.wav
    python siamese_speaker.py --load voices.keras --enrol team --identify a.wav
    python siamese_speaker.py --load voices.keras --trials list.txt
    python siamese_speaker.py --load voices.keras --cluster meeting
    python siamese_speaker.py --download fsdd            # needs a network

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** Y. Lukic, C. Vogt, O. Dürr, T. Stadelmann: Learning embeddings
for speaker clustering based on voice equality. MLSP 2017. The recurrent tower:
T. Stadelmann, S. Glinski-Haefeli, P. Gerber, O. Dürr: Capturing suprasegmental
features of a voice with RNNs for improved speaker clustering. ANNPR 2018. The
convolutional tower: D. Snyder et al.: X-vectors, ICASSP 2018. AS-norm: P.
Matejka et al.: Analysis of score normalization in multilingual speaker
recognition, Interspeech 2017.
"""

import dataclasses
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import speaker_backend
import speaker_tasks
import speech
from audio import DataError
from speaker_backend import Backend
from speaker_options import MODES, parse, recipe_of
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
    SpeakerBatches,
    build_tower,
    schedule,
    train_tower,
)

import keras_xent

# Every pair of so many utterances is scored; more would say the same.
MOST_COMPARED = 4_000
# One error of fewer is more than 3 %, and luck decides.
FEW_MATCHES = 30
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
    objective = LOSSES[recipe.loss](tower, recipe, batches.speaker_count)
    # A new model, so that it is saved without the loss.
    compared = keras.Model(tower.input, objective.compared, name="tower")
    watch = []
    if valid is not None:
        watch.append(
            keras_xent.callbacks.TuneThreshold(
                (valid.segments, valid.segment_speaker),
                distance=objective.distance,
                embedding=compared,
                batch_size=256,
                restore_best_weights=False,
            )
        )
    model, history = train_tower(
        tower, objective, batches, recipe, [*watch, report]
    )
    losses = history["loss"]
    if not losses[-1] < HARDLY_FALLEN * losses[0] and len(losses) > 1:
        print(f"The loss went from {losses[0]:.3g} to {losses[-1]:.3g} only:")
        print(keras_xent.diagnose(model, *batches[0]))
    backend = Backend(
        options.backend,
        compared,
        parts,
        recipe,
        seed,
        similarity=objective.similarity,
    )
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
    held_out = speaker_backend.Baseline(data, seed).compare(valid)
    baseline = speaker_backend.Baseline(corpus.training, seed)
    found = [
        (group, data.speaker, baseline.compare(data))
        for group, data in groups(corpus)
    ]
    results = []
    for name in speaker_backend.BASELINES:
        threshold = tune_threshold(
            held_out[name], valid.speaker, True, options.objective
        )
        results += [
            Result(name, group, seed, scores[name], speaker, threshold, True)
            for group, speaker, scores in found
        ]
    return results


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
    for group, data in groups(corpus):
        of_each = np.bincount(data.speaker)
        matches = int((of_each * (of_each - 1) // 2).sum())
        if matches < FEW_MATCHES:
            print(
                f"Only {matches} pairs of test utterances are of one {group} "
                f"speaker: read no more into a rate than {1 / matches:.0%}"
            )
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
        speaker_tasks.trials(
            voice, options.trials, options.scores, root=options.data
        )
    if options.identify:
        enrolled = speaker_tasks.enrol(voice, options.enrol)
        speaker_tasks.identify(voice, enrolled, options.identify)
    if options.embeddings:
        speaker_tasks.embeddings(voice, options.data, options.embeddings)
    if options.cluster:
        folder = options.plots or "."
        speaker_tasks.cluster(voice, options.cluster, folder, options.voices)


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
    # Speakers have names that not every terminal can show.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
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
    results += run_baseline(corpus, options, options.seed)
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
