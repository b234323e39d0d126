"""The command line of siamese_speaker.py: what can be asked for."""

import argparse
import dataclasses

import checks
from speaker_tower import LOSSES, RECIPES, TOWERS

MODES = ("batch", "pairs", "naive")
BACKENDS = ("as_norm", "cosine", "none")


def objective(word):
    """`--objective`: a name, or the prior of a match."""
    names = ("accuracy", "balanced", "equal_error")
    if word in names:
        return word
    try:
        return checks.finite(above=0, below=1)(word)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(names)} or a number between 0 and 1. "
            f"Received: {word!r}"
        ) from None


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
        help="compare embeddings by normalized scores, by their cosine, or the "
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
    add(
        "--plots",
        metavar="DIR",
        type=checks.plots_folder,
        help="write pictures there; of --cluster, too",
    )
    add(
        "--save",
        metavar="FILE.keras",
        type=checks.writable_file(".keras"),
        help="save the first model trained, with all that it needs",
    )
    add = parser.add_argument_group("a saved model").add_argument
    add("--load", metavar="FILE.keras", help="the model for what follows")
    add("--compare", nargs=2, metavar="WAV", help="one speaker or two?")
    add(
        "--trials",
        metavar="FILE",
        help="lines of `1 a.wav b.wav`, in --data or beside the list",
    )
    add("--scores", metavar="FILE", help="with --trials: write the scores")
    add("--enrol", metavar="DIR", help="DIR/<speaker>/**/*.wav to know")
    add("--identify", metavar="WAV", help="with --enrol: who of them is it?")
    add("--embeddings", metavar="FILE.npz", help="of the files of --data")
    add("--cluster", metavar="DIR", help="how many voices, and who is who?")
    add("--voices", type=checks.at_least(1), help="with --cluster, if known")
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
    if options.voices and not options.cluster:
        parser.error("--voices goes with --cluster")
    if options.data and options.download:
        parser.error("--data and --download exclude each other")
    if options.save and options.load:
        parser.error("--save keeps what is trained, and --load trains nothing")
    if options.save and options.mode == "naive":
        parser.error("--save is for the modes batch and pairs")
    if options.baseline and (options.save or options.plots):
        parser.error(
            "--baseline trains nothing that could be saved or drawn; leave it "
            "out, or --save and --plots"
        )
    recordings = options.data or options.download
    if options.save and not recordings:
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
