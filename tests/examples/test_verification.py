"""The table of a file of trials is what scikit-learn makes of it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import verification  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend.
pytestmark = only_on("tensorflow", "examples are tested on one backend")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(verification, "BLOCK", 128)


def random_trials(n=300):
    rng = np.random.default_rng(0)
    match = np.arange(n) % 3 == 0
    return match, np.round(rng.normal(size=n) + 2 * match, 4)


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


FORMATS = {
    "score label": lambda m, s: f"{s} {int(m)}",
    "label,score": lambda m, s: f"{['nontarget', 'target'][int(m)]},{s}",
    "trial list": lambda m, s: f"{int(m)} a/1.wav b/2.wav {s}",
    "words": lambda m, s: f"\n{s}\tsome pair\t{['Different', 'Same'][int(m)]}",
}


def read(lines, **columns):
    """All flags and scores of these lines."""
    blocks = list(verification.trials(lines, **columns))
    return [
        np.concatenate(parts).tolist() for parts in zip(*blocks, strict=True)
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_any_of_these_formats_is_read(name):
    match, score = random_trials()
    lines = "\n".join(map(FORMATS[name], match, score)).splitlines()
    blocks = list(verification.trials(lines))
    assert [len(flags) for flags, _ in blocks] == [128, 128, 44]
    assert np.array_equal(np.concatenate([b[0] for b in blocks]), match)
    assert np.array_equal(np.concatenate([b[1] for b in blocks]), score)


def test_the_table_and_the_plots(tmp_path, capsys):
    match, score = random_trials()
    path = write(tmp_path / "t", map(FORMATS["score label"], match, score))
    plots = tmp_path / "plots"
    given = ["--similarities", "--scores", path, "--resolution", "7"]
    verification.main([*given, "--plots", str(plots)])
    printed = capsys.readouterr().out
    assert "100 matches, 200 others" in printed
    rows = {
        title: list(map(float, re.findall(r"-?(?:inf|nan|\d\S*)", rest)))
        for title, rest in (
            (line[:22].strip(), line[22:]) for line in printed.splitlines()[4:]
        )
    }
    assert set(rows) == set(verification.TITLES.values()) - {"detection cost"}
    for title, (value, low, high, _) in rows.items():
        assert low - 6e-5 <= value <= high + 6e-5, title
    low, high = rows["area under the ROC"][1:3]
    assert low - 1e-6 <= roc_auc_score(match, score) <= high + 1e-6
    assert {p.name for p in plots.iterdir()} == {
        *("det.png", "roc.png", "histogram.png", "cost.png")
    }
    assert min(p.stat().st_size for p in plots.iterdir()) > 5000


def test_a_tuned_threshold_is_the_best_one_and_can_be_reported(
    tmp_path, capsys
):
    match, score = random_trials()
    path = write(tmp_path / "t", map(FORMATS["score label"], match, -score))
    common = ["--scores", path, "--distances", "--resolution", "7"]
    verification.main([*common, "--tune", "0.3"])
    threshold = float(capsys.readouterr().out)

    def cost(threshold):
        called = -score < threshold
        return (
            0.3 * np.mean(~called[match]) + 0.7 * np.mean(called[~match])
        ) / 0.3

    best = min(cost(t) for t in [*(-score), np.inf])
    assert cost(threshold) == pytest.approx(best, abs=0.01)
    verification.main(
        [*common, "--p-target", "0.3", "--threshold", str(threshold)]
    )
    line = re.search(r"^detection cost +(\S+)", capsys.readouterr().out, re.M)
    assert float(line[1]) == pytest.approx(cost(threshold), abs=1e-5)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["0.5 1", "0.4 2"], "line 2: '2' in column 2 is no label"),
        (["0.5 1", "x 0"], "line 2: 'x 0' has no score in column 1"),
        (["0.5 1", "0.4"], "line 2: '0.4' has no score"),
        (["a b"], "line 1 has no label"),
        (["target x"], "line 1 has no score"),
        (["enrol score", "0.5 1"], "Received: 1 and 0"),
        (["target n/a", "target 1.5"], "line 1: 'target n/a' has no score"),
        (["0.5 1", "0.4 1"], "Received: 2 and 0"),
        (["0.1 1 0.5", "0.2 0 0.4"], "columns 1, 3 may each be the score"),
        (["0 1 0.5", "1 0 0.4"], "columns 1, 2 may each be the label"),
        (["2 target 1", "3 imp 2"], "say which one by --score"),
        (["1_2 1", "1_3 0"], "line 1 has no score"),
        (["1,5 imp 1,2", "0,2 tgt 0,5"], "columns 1, 3 may each be the score"),
        (["nan 1", "0.4 0"], "1 scores are NaN"),
        ([""], "Received: 0 and 0"),
    ],
)
def test_what_cannot_be_scored_is_said(tmp_path, capsys, lines, words):
    path = write(tmp_path / "trials", lines)
    with pytest.raises(SystemExit, match="2"):
        verification.main(
            ["--similarities", "--scores", path, "--resolution", "7"]
        )
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scores", "nowhere"], "No such file"),
        (["--scores", "nowhere", "--p-target", "2"], "--p-target: must be"),
        (["--scores", "nowhere", "--p-target", "nan"], "--p-target: must be"),
        (["--scores", "nowhere", "--tune", "0"], "--tune: must be above 0"),
        (["--scores", "nowhere", "--c-miss", "0"], "--c-miss: must be above"),
        (["--scores", "nowhere", "--c-miss", "inf"], "--c-miss: must be a fin"),
        (["--scores", "nowhere", "--fmr", "-1"], "--fmr: must be at least 0"),
        (["--scores", "nowhere", "--threshold", "nan"], "--threshold is no"),
        (["--scores", "nowhere", "--resolution", "13"], "at most 12"),
        (["--scores", "nowhere", "--range", "0", "nan"], "--range: must be"),
        (["--scores", "nowhere", "--label", "0"], "columns count from 1"),
        (["--scores", "nowhere", "--score", "0"], "columns count from 1"),
        (["--scores", "nowhere", "--score", "-1"], "columns count from 1"),
        (["--scores", "x", "--score", "2", "--label", "2"], "two columns"),
        (["--scores", "nowhere", "--plots", __file__], "--plots: cannot write"),
        (["--scores", "x", "--tune", ".1", "--plots", "."], "no --plots"),
        (["--scores", "nowhere", "--range", "1", "0"], "range"),
    ],
)
def test_wrong_arguments_are_said(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        verification.main([*arguments, "--distances"])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("said", [[], ["--distances", "--similarities"]])
def test_which_scores_mean_alike_has_to_be_said(said, capsys):
    with pytest.raises(SystemExit, match="2"):
        verification.main(["--scores", "nowhere", *said])
    assert "say which scores mean alike" in capsys.readouterr().err


def test_a_score_of_zero_in_the_first_line_is_no_label():
    blocks = list(verification.trials(["0 0", "1 0", "2 1", "0.5 0"]))
    ((match, score),) = blocks
    assert match.tolist() == [0, 0, 1, 0]
    assert score.tolist() == [0, 1, 2, 0.5]


ORDERS = {
    "label a b score": "{flag} {a}.wav {b}.wav {score}",
    "a b label score": "{a}.wav {b}.wav {flag} {score}",
    "a b word score": "{a}.wav {b}.wav {word} {score}",
    "a b score word": "{a}.wav {b}.wav {score} {word}",
    "numbers for names": "{a} {b} {word} {score}",
    "numbers for names, digits": "{a} {b} {flag} {score}",
    "one speaker's number": "1 {b} {flag} {score}",
    "one speaker's number, word": "1 {b} {word} {score}",
    "numbers last": "{score} {word} {a} {b}",
}


@pytest.mark.parametrize("separator", [" ", ",", ";", "\t", ", "])
@pytest.mark.parametrize("order", ORDERS)
def test_every_usual_order_of_columns_is_read(order, separator):
    match, score = random_trials()
    form = ORDERS[order].replace(" ", separator)
    lines = [
        form.format(
            a=17 + i % 7,
            b=40 + i,
            flag=int(flag),
            word="target" if flag else "nontarget",
            score=number,
        )
        for i, (flag, number) in enumerate(zip(match, score, strict=True))
    ]
    assert read(lines) == [match.astype(int).tolist(), score.tolist()]


@pytest.mark.parametrize(
    "lines",
    [
        ["\ufeffscore,label", "0.5,1", "-0.25,0"],
        ["\ufeff0.5,1\r\n", "-0.25,0\r\n"],
        ["score,target", "0.5,1", "-0.25,0"],
        ["enrol;test;target;score", "a;b;target;0,5", "a;c;imp;-0,25"],
        ["ENROL TEST TARGET SCORE", "a b target 0.5", "a c imp -0.25"],
        ['"","score","label"', '"1",0.5,"same"', '"2",-0.25,"different"'],
        ["label\tname\tscore", "1\ta, b; c\t0.5", "0\td e\t-0.25"],
        ["names,score,label", '"a, b",0.5,1', '"c, d",-0.25,0'],
        ['1, "a, b", 0.5', '0, "c", -0.25'],
        ["0,5 1", "-0,25 0"],
        ["1 0 target 0.5", "0 1 imp -0.25"],
        ["0,5 target 1,25 x", "-0,25 imp 1,5 x"],
        ["0.5, 1", ",,", "-0.25, 0"],
    ],
)
def test_what_a_table_program_writes_is_read(lines):
    columns = {"score": 1} if "1,25" in lines[0] else {}
    assert read(lines, **columns) == [[1, 0], [0.5, -0.25]]


def test_a_heading_is_left_out_and_said(tmp_path, capsys):
    path = write(tmp_path / "t", ["", "Score,Label", "0.5,1", "0.4,0"])
    given = ["--similarities", "--scores", path, "--resolution", "7"]
    verification.main(given)
    said = capsys.readouterr()
    assert "1 matches, 1 others" in said.out
    assert said.err == "line 2 is a heading, left out: 'Score,Label'\n"


def test_a_column_that_is_named_is_the_one():
    lines = ["label score 2", "1 0.5 0", "0 0.25 1"]
    assert read(lines, label=1, score=2) == [[1, 0], [0.5, 0.25]]
