"""How good are these scores? Figures and plots of a file of trials.

One trial a line, a score and a label, in either order:

    0.83 1            1/0, target/nontarget, true/false, same/different,
    -1.20 nontarget   match/nonmatch, positive/negative

More columns are let be, as in the trial lists of speaker verification
(`1 id00017/a.wav id00018/b.wav 0.83`): the label is the first column that can
be one throughout, the score the last that is a number, or `--label` and
`--score` name their columns, counted from 1.

    python verification.py --similarities --scores trials.txt
    python verification.py --similarities --scores test.txt --threshold 0.31
    python verification.py --similarities --scores dev.txt --tune 0.05
    python verification.py --distances --scores distances.txt --plots plots

Say which scores mean alike: with `--similarities` the large ones do, as cosines
and logits, with `--distances` the small ones.

The file is read in pieces, so it may be larger than memory. Every figure comes
with the bounds between which exact scores would put it, since they are counted
in bins (`--resolution`); cosines that crowd near 1 want `--range 0.9 1`.

Figures at a threshold that was tuned on the same file are optimistic. Tune on
a development file (`--tune`), and report the test file at that number
(`--threshold`).
"""

import argparse
import contextlib
import itertools
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_xent

MATCH = {"1", "target", "tgt", "true", "same", "match", "positive", "genuine"}
OTHER = {
    *("0", "-1", "nontarget", "non-target", "imp", "impostor", "false"),
    *("different", "nonmatch", "non-match", "negative"),
}

# Lines read at once.
BLOCK = 100_000

TITLES = {
    "equal_error_rate": "equal error rate",
    "min_detection_cost": "min. detection cost",
    "detection_cost": "detection cost",
    "match_auc": "area under the ROC",
    "true_match_rate": "true matches at FMR",
    "average_precision": "average precision",
    "cllr": "Cllr, bits",
    "min_cllr": "min. Cllr, bits",
    "d_prime": "d'",
}


class DataError(Exception):
    """A file that cannot be scored."""


def trials(lines, label=None, score=None):
    """Yields blocks of match flags and scores, two arrays each.

    `label` and `score` are columns, counted from 1, or None to be found.
    """
    numbered = (
        (number, line.replace(",", " ").split())
        for number, line in enumerate(lines, 1)
    )
    numbered = ((n, words) for n, words in numbered if words)
    while block := list(itertools.islice(numbered, BLOCK)):
        if label is None or score is None:
            label, score = columns(block, label, score)
        yield parsed(block, label, score)


def columns(block, label, score):
    """The columns of the label and of the score, by the first block."""
    number, words = block[0]
    if label is None:
        # A word before a digit: "1" may be a score, "target" cannot.
        known = [
            i for i, w in enumerate(words, 1) if is_label(w) and i != score
        ]
        # A score of 0 or 1 looks like a label; its column does not.
        known = [i for i in known if is_label_column(block, i)] or known
        named = [i for i in known if not is_number(words[i - 1])]
        whole = [i for i in known if words[i - 1] in ("0", "1")]
        label = next(iter([*named, *whole, *known]), None)
    if score is None:
        found = [i for i, w in enumerate(words, 1) if is_number(w)]
        score = next((i for i in found[::-1] if i != label), None)
    if label is None or score is None:
        raise DataError(
            f"line {number} has no {'label' if label is None else 'score'}: "
            f"{' '.join(words)!r}. Expected a score and a label, such as "
            "'0.83 1' or '0.83 nontarget'"
        )
    return label, score


def is_label_column(block, column):
    return all(
        len(words) >= column and is_label(words[column - 1])
        for _, words in block
    )


def is_label(word):
    return word.lower() in MATCH | OTHER


def is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def parsed(block, label, score):
    match, number = np.empty(len(block), "int32"), np.empty(len(block))
    for i, (line, words) in enumerate(block):
        try:
            flag, number[i] = words[label - 1].lower(), float(words[score - 1])
        except (IndexError, ValueError):
            raise DataError(
                f"line {line}: {' '.join(words)!r} has no score in column "
                f"{score} or no label in column {label}"
            ) from None
        if flag not in MATCH and flag not in OTHER:
            raise DataError(
                f"line {line}: {flag!r} in column {label} is no label. "
                "Expected 1 or 0, target or nontarget, or the like"
            )
        match[i] = flag in MATCH
    return match, number


def opened(path):
    if path == "-":
        return contextlib.nullcontext(sys.stdin)
    return open(path, encoding="utf-8")


def read(options):
    """A metric that has seen all trials of the file."""
    metric = keras_xent.metrics.VerificationMetrics(
        p_target=options.p_target,
        c_miss=options.c_miss,
        c_false_alarm=options.c_false_alarm,
        false_match_rate=options.fmr,
        method=options.method,
        threshold=options.threshold,
        similarity=options.similarities,
        resolution=options.resolution,
        range=options.range,
        name="scores",
    )
    with opened(options.scores) as lines:
        for match, score in trials(lines, options.label, options.score):
            # Of one size, so that JAX compiles once.
            pad = BLOCK - len(match)
            metric.update_state(
                np.pad(match, (0, pad)),
                np.pad(score, (0, pad)),
                np.pad(np.ones(len(match)), (0, pad)),
            )
    seen = {k: float(v) for k, v in metric.histogram.result().items()}
    if seen["nan_scores"]:
        raise DataError(f"{seen['nan_scores']:.0f} scores are NaN")
    if not seen["matches"] or not seen["non_matches"]:
        raise DataError(
            "takes matches and non-matches. Received: "
            f"{seen['matches']:.0f} and {seen['non_matches']:.0f}"
        )
    return metric


def print_table(metric, options):
    non_matches, matches = metric.histogram.counts().sum(axis=1)
    print(f"{options.scores}: {matches:.0f} matches, {non_matches:.0f} others")
    print(
        f"p_target {options.p_target:g}, FMR {options.fmr:g}, "
        f"{metric.histogram.bins:,} bins\n"
    )
    print(
        f"{'':22}{'value':>12}{'at least':>12}{'at most':>12}{'threshold':>13}"
    )
    bounds, thresholds = metric.bounds(), metric.thresholds()
    for key, value in metric.result().items():
        title = TITLES[key.removeprefix("scores_")]
        numbers = float(value), *bounds[key]
        cells = "".join(f"{number:>12.6f}" for number in numbers)
        print(f"{title:22}{cells}{thresholds[key]:>13.6g}")


def save_plots(metric, folder):
    import matplotlib as mpl

    mpl.use("Agg")
    os.makedirs(folder, exist_ok=True)
    for kind in ("det", "roc", "histogram", "cost"):
        axes = metric.plot(kind)
        axes.figure.savefig(os.path.join(folder, f"{kind}.png"), dpi=120)
        mpl.pyplot.close(axes.figure)


def tuned(metric, prior, options):
    """The threshold of the least detection cost at this prior."""
    cost = keras_xent.metrics.MinDetectionCost(
        p_target=prior,
        c_miss=options.c_miss,
        c_false_alarm=options.c_false_alarm,
        similarity=metric.similarity,
        resolution=metric.resolution,
        range=metric.range,
    )
    cost.histogram.merge_state([metric.histogram])
    return cost.threshold


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Figures and plots of a file of scored trials.",
    )
    add = parser.add_argument
    add("--scores", metavar="FILE", required=True, help="- for standard input")
    add("--similarities", action="store_true", help="large scores mean alike")
    add("--distances", action="store_true", help="small scores mean alike")
    add("--p-target", type=float, default=0.01, help="prior of a match")
    add("--c-miss", type=float, default=1.0, help="of a false non-match")
    add("--c-false-alarm", type=float, default=1.0, help="of a false match")
    add("--fmr", type=float, default=1e-3, help="false-match rate to stay in")
    add("--method", choices=["linear", "convex_hull"], default="linear")
    add("--threshold", type=float, help="tuned elsewhere, to report here")
    add("--tune", type=float, metavar="P", help="print the best threshold at P")
    add(
        "--resolution",
        type=int,
        default=9,
        help="how fine the bins are (0 to 12)",
    )
    add("--range", type=float, nargs=2, metavar=("LO", "HI"))
    add("--label", type=int, metavar="N", help="column of the label, from 1")
    add("--score", type=int, metavar="N", help="column of the score, from 1")
    add("--plots", metavar="DIR", help="write PNG files there")
    options = parser.parse_args(arguments)
    if options.similarities == options.distances:
        parser.error(
            "say which scores mean alike, by one of --similarities (the large "
            "ones do, as cosines and logits) and --distances (the small ones "
            "do). With the wrong one an error rate of 0.1 reads 0.9"
        )
    return parser, options


def main(arguments=None):
    parser, options = parse(arguments)
    try:
        metric = read(options)
        if options.tune is not None:
            print(f"{tuned(metric, options.tune, options):.9g}")
            return
    except (DataError, OSError, ValueError) as error:
        parser.error(f"{options.scores}: {error}")
    print_table(metric, options)
    if options.plots:
        save_plots(metric, options.plots)


if __name__ == "__main__":
    main()
