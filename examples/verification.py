"""How good are these scores? Figures and plots of a file of trials.

One trial a line, a score and a label, in either order:

    0.83 1            1/0, target/nontarget, true/false, same/different,
    -1.20 nontarget   match/nonmatch, positive/negative

More columns are let be, as in the trial lists of speaker verification:

    1 id00017/a.wav id00018/b.wav 0.83
    id00017/a.wav id00018/b.wav 0 -0.21
    1 2 target 0.3                       names that are numbers

The label is the column that can be one throughout, the score the column of
numbers that are not all whole. Where more than one can be, `--label` and
`--score` name theirs, counted from 1. White space, commas, semicolons or tabs
part the columns. A heading is left out. Numbers may have a decimal comma.

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
import csv
import dataclasses
import itertools
import math
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import numpy as np

import keras_xent

MATCH = {"1", "target", "tgt", "true", "same", "match", "positive", "genuine"}
OTHER = {
    *("0", "-1", "nontarget", "non-target", "imp", "impostor", "false"),
    *("different", "nonmatch", "non-match", "negative"),
}

# What may stand over the scores.
SCORES = {"score", "scores", "distance", "similarity", "cosine", "llr"}

# Lines read at once.
BLOCK = 100_000

# What a line without any cell may hold.
EMPTY = " \t\r\n;,"

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


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the label and the score stand; columns are counted from 1."""

    separator: str | None  # None: any white space
    label: int | None
    score: int | None
    heading: bool

    def cells(self, line):
        return cells(line, self.separator)


def trials(lines, label=None, score=None):
    """Yields blocks of match flags and scores, two arrays each.

    `label` and `score` are columns, counted from 1, or None to be found.
    """
    # A byte-order mark may come first.
    numbered = ((n, x.lstrip("\ufeff")) for n, x in enumerate(lines, 1))
    numbered = ((n, line) for n, line in numbered if line.strip(EMPTY))
    layout = None
    while block := list(itertools.islice(numbered, BLOCK)):
        if layout is None:
            layout = layout_of(block, label, score)
            if layout.heading:
                number, line = block.pop(0)
                print(
                    f"line {number} is a heading, left out: {line.strip()!r}",
                    file=sys.stderr,
                )
        yield parsed(block, layout)


def cells(line, separator):
    if separator is None:
        return [word.strip('"') for word in line.split()]
    (row,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
    return [cell.strip() for cell in row]


def layout_of(block, label=None, score=None):
    """The first layout that has a label and a score, by the first block."""
    number, line = block[0]
    # White space before commas, which may stand in decimal numbers.
    for separator in (";", "\t", None, ","):
        if separator is None or separator in line:
            rows = [cells(line, separator) for _, line in block]
            layout = fit(rows, separator, label, score)
            if layout.label and layout.score:
                return layout
    raise DataError(
        f"line {number} has no {'score' if layout.label else 'label'}: "
        f"{line.strip()!r}. Expected a score and a label, such as "
        "'0.83 1' or '0.83 nontarget'"
    )


def fit(rows, separator, label, score):
    """The layout if the lines are cut into these cells."""
    first, rest = rows[0], rows[1:]
    looked_at = first[score - 1 : score] if score else first
    heading = bool(rest) and not any(map(is_number, looked_at))
    columns = itertools.zip_longest(*(rest if heading else rows), fillvalue="")
    columns = dict(enumerate(columns, 1))
    label = label or column_of_labels(columns, score)
    if label and not score:
        score = column_of_scores(columns, label)
    if heading and label and score:
        # The label of a trial without a score is one that others have, too;
        # "enrol test target score" is none.
        labels = {word.lower() for word in columns[label]}
        heading = "".join(first[label - 1 : label]).lower() not in labels
        heading |= "".join(first[score - 1 : score]).lower() in SCORES
    return Layout(separator, label, score, heading)


def column_of_labels(columns, score):
    columns = {i: words for i, words in columns.items() if i != score}
    # Words before digits: "1" may be a score or a name, "target" cannot.
    named = {
        i: words
        for i, words in columns.items()
        if any(is_label(word) and not is_number(word) for word in words)
    }
    columns = named or columns
    whole = [i for i, words in columns.items() if all(map(is_label, words))]
    # Of one kind alone are the names of one speaker, too.
    both = [i for i in whole if len(set(map(is_match, columns[i]))) == 2]
    # The line that is wrong is named later on.
    first = [i for i, words in columns.items() if is_label(words[0])]
    return only(both or whole or first or list(named), "label")


def column_of_scores(columns, label):
    numbers = {
        i: [word for word in words if is_number(word)]
        for i, words in columns.items()
        if i != label
    }
    # Whole numbers may be names.
    parts = [
        i
        for i, words in numbers.items()
        if not all(word.lstrip("+-").isdigit() for word in words)
    ]
    return only(parts or [i for i, words in numbers.items() if words], "score")


def only(columns, what):
    if len(columns) > 1:
        raise DataError(
            f"columns {', '.join(map(str, columns))} may each be the {what}: "
            f"say which one by --{what}"
        )
    return columns[0] if columns else None


def is_label(word):
    return word.lower() in MATCH | OTHER


def is_match(word):
    return word.lower() in MATCH


def is_number(word):
    try:
        as_number(word)
    except ValueError:
        return False
    return True


def as_number(word):
    """A number, with a decimal point or comma."""
    # Python would take 1_2 for 12; a comma at the end parts columns.
    if "_" in word or word.endswith(","):
        raise ValueError
    return float(word.replace(",", "."))


def parsed(block, layout):
    label, score = layout.label, layout.score
    match, number = np.empty(len(block), "int32"), np.empty(len(block))
    for i, (n, line) in enumerate(block):
        words = layout.cells(line)
        try:
            flag, number[i] = words[label - 1], as_number(words[score - 1])
        except (IndexError, ValueError):
            raise DataError(
                f"line {n}: {line.strip()!r} has no score in column "
                f"{score} or no label in column {label}"
            ) from None
        if not is_label(flag):
            raise DataError(
                f"line {n}: {flag!r} in column {label} is no label. "
                "Expected 1 or 0, target or nontarget, or the like"
            )
        match[i] = is_match(flag)
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
        cells = "".join(f" {number:>11.6f}" for number in numbers)
        print(f"{title:22}{cells}{thresholds[key]:>13.6g}")


def save_plots(metric, folder):
    import matplotlib as mpl

    mpl.use("Agg")
    for kind in ("det", "roc", "histogram", "cost"):
        axes = metric.plot(kind)
        axes.figure.savefig(folder / f"{kind}.png", dpi=120)
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
    prior = checks.finite(above=0, below=1)
    cost = checks.finite(above=0)
    rate = checks.finite(least=0, most=1)
    add("--p-target", type=prior, default=0.01, help="prior of a match")
    add("--c-miss", type=cost, default=1.0, help="of a false non-match")
    add("--c-false-alarm", type=cost, default=1.0, help="of a false match")
    add("--fmr", type=rate, default=1e-3, help="false-match rate to stay in")
    add("--method", choices=["linear", "convex_hull"], default="linear")
    add(
        "--threshold",
        type=float,
        help="tuned elsewhere, to report here; a negative one with an "
        "exponent as --threshold=-1e-5",
    )
    add("--tune", type=prior, metavar="P", help="print the best threshold at P")
    add(
        "--resolution",
        type=checks.at_least(0, most=12),
        default=9,
        help="how fine the bins are (0 to 12)",
    )
    add("--range", type=checks.finite(), nargs=2, metavar=("LO", "HI"))
    add("--label", type=int, metavar="N", help="column of the label, from 1")
    add("--score", type=int, metavar="N", help="column of the score, from 1")
    add(
        "--plots",
        type=checks.plots_folder,
        metavar="DIR",
        help="write PNG files there",
    )
    options = parser.parse_args(arguments)
    if options.similarities == options.distances:
        parser.error(
            "say which scores mean alike, by one of --similarities (the large "
            "ones do, as cosines and logits) and --distances (the small ones "
            "do). With the wrong one an error rate of 0.1 reads 0.9"
        )
    for name in ("label", "score"):
        column = getattr(options, name)
        if column is not None and column < 1:
            parser.error(f"--{name} {column}: columns count from 1")
    if options.label is not None and options.label == options.score:
        parser.error("--label and --score are two columns, not one")
    if options.threshold is not None and math.isnan(options.threshold):
        parser.error("--threshold is no number: nan")
    if options.tune is not None and options.plots:
        parser.error("--tune prints a threshold and no more: no --plots")
    return parser, options


def main(arguments=None):
    parser, options = parse(arguments)
    try:
        metric = read(options)
        if options.tune is not None:
            # Without an exponent: argparse takes -1e-5 for an option.
            threshold = tuned(metric, options.tune, options)
            print(
                np.format_float_positional(
                    threshold, 9, fractional=False, trim="-"
                )
            )
            return
    except UnicodeDecodeError:
        parser.error(f"{options.scores} is not UTF-8 text: save it as such")
    except (DataError, OSError, ValueError, csv.Error) as error:
        parser.error(f"{options.scores}: {error}")
    print_table(metric, options)
    if options.plots:
        save_plots(metric, options.plots)


if __name__ == "__main__":
    main()
