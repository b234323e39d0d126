"""The figures are those of naive computations."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import speaker_scores  # noqa: E402

# NumPy and SciPy, and metrics that are tested on every backend.
pytestmark = only_on("torch", "examples are tested on one backend")


def random_scores(seed, count=40):
    rng = np.random.default_rng(seed)
    match = rng.random(count) < 0.4
    match[:2] = True, False
    return match, rng.exponential(np.where(match, 1.0, 3.0))


def random_distances(seed, count=12, speakers=3):
    rng = np.random.default_rng(seed)
    speaker = 5 * rng.permutation(np.arange(count) % speakers)
    place = rng.normal(size=(count, 2)) + speaker[:, None] / 5
    return np.abs(place[:, None] - place).sum(axis=-1), speaker


def result(score, speaker, threshold=0.5, mode="batch", group="seen", **given):
    return speaker_scores.Result(
        mode, group, 0, score, speaker, threshold, **given
    )


def test_every_pair_comes_once():
    distance, speaker = random_distances(0)
    expected = [
        (speaker[a] == speaker[b], distance[a, b])
        for a, b in itertools.combinations(range(len(speaker)), 2)
    ]
    pairs = speaker_scores.every_pair(distance, speaker)
    found = list(zip(*pairs, strict=True))
    assert found == expected


@pytest.mark.parametrize("similarity", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_equal_error_rate_is_where_the_errors_cross(seed, similarity):
    match, distance = random_scores(seed)
    steps = []
    for threshold in [-1.0, *np.sort(distance)]:
        called = distance <= threshold
        steps.append([np.mean(called[~match]), np.mean(~called[match])])
    crossing = []
    for (a, b), (c, d) in itertools.pairwise(steps):
        if a <= b and c >= d:
            part = (b - a) / ((b - a) + (c - d))
            crossing.append(a + part * (c - a))
    score = -distance if similarity else distance
    metric, _ = speaker_scores.verification(match, score, similarity)
    low, high = metric.bounds()
    assert low - 1e-12 <= crossing[0] <= high + 1e-12
    assert high - low < 0.05
    found = float(metric.result())
    assert low - 1e-6 <= found <= high + 1e-6


def test_the_equal_error_rate_of_known_scores():
    def rate(match, distance):
        metric, _ = speaker_scores.verification(match, distance, False)
        return float(metric.result())

    match = np.array([True, True, False, False])
    assert rate(match, np.array([1.0, 2.0, 3.0, 4.0])) == 0
    assert rate(match, np.array([4.0, 3.0, 2.0, 1.0])) == 1
    assert rate(match, np.array([1.0, 3.0, 2.0, 4.0])) == 0.5
    assert rate(match, np.array([1.0, 1.0, 1.0, 1.0])) == 0.5


def gains(match, alike, objective):
    """What an objective makes of decisions; the more, the better."""
    missed = np.mean(~alike[match])
    false_matches = np.mean(alike[~match])
    if objective == "accuracy":
        return np.mean(alike == match)
    if objective == "balanced":
        return 1 - (missed + false_matches) / 2
    if objective == "equal_error":
        return -abs(missed - false_matches)
    return -(objective * missed + (1 - objective) * false_matches)


@pytest.mark.parametrize("similarity", [False, True])
@pytest.mark.parametrize(
    "objective", ["accuracy", "balanced", "equal_error", 0.05, 0.5]
)
def test_the_threshold_is_the_best_one(objective, similarity):
    for seed in range(3):
        score, speaker = random_distances(seed)
        if similarity:
            score = -score
        match, scores = speaker_scores.every_pair(score, speaker)

        def gain(cut, match=match, scores=scores):
            alike = scores >= cut if similarity else scores < cut
            return gains(match, alike, objective)

        threshold = speaker_scores.tune_threshold(
            score, speaker, similarity, objective
        )
        cuts = np.concatenate([scores - 1e-6, scores + 1e-6])
        best = max(map(gain, cuts))
        assert gain(threshold) == pytest.approx(best)


@pytest.mark.parametrize(
    ("speakers", "expected"), [(3, "accuracy"), (6, "balanced")]
)
def test_what_is_rare_weighs_as_much_unless_told(speakers, expected):
    score, speaker = random_distances(0, 24, speakers)
    found = {
        objective: speaker_scores.tune_threshold(
            score, speaker, False, objective
        )
        for objective in (None, "accuracy", "balanced")
    }
    assert found["accuracy"] != found["balanced"]
    assert found[None] == found[expected]


@pytest.mark.parametrize(
    "objective", ["accuracy", "balanced", "equal_error", 0.05]
)
def test_the_threshold_is_in_the_middle_of_a_gap(objective):
    """Not near 0, only because some cosines are below it."""
    speaker = np.array([0, 0, 1, 1])
    score = np.where(speaker[:, None] == speaker, 0.9, -0.5)
    found = speaker_scores.tune_threshold(score, speaker, True, objective)
    assert found == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("flat", [0.3, np.nan])
def test_scores_that_tell_nothing_have_a_threshold(flat):
    score, speaker = np.full((4, 4), flat), np.array([0, 0, 1, 1])
    found = speaker_scores.tune_threshold(score, speaker, True)
    assert isinstance(found, float)


@pytest.mark.parametrize("similarity", [False, True])
def test_both_rates_at_the_threshold_are_counted(similarity):
    score, speaker = random_distances(4)
    threshold = score[0, 1]  # the score of a pair, so that "at" matters
    counts = {"missed": [0, 0], "false_matches": [0, 0], "right": [0, 0]}
    for a, b in itertools.combinations(range(len(speaker)), 2):
        alike = score[a, b] < threshold
        if similarity:
            alike = score[a, b] >= threshold
        match = speaker[a] == speaker[b]
        name = "missed" if match else "false_matches"
        counts[name][0] += alike != match
        counts[name][1] += 1
        counts["right"][0] += alike == match
        counts["right"][1] += 1
    shares = {name: part / total for name, (part, total) in counts.items()}
    found = result(score, speaker, threshold, similarity=similarity)
    assert 0 < shares["missed"] < 1
    assert found.missed == pytest.approx(shares["missed"])
    assert found.false_matches == pytest.approx(shares["false_matches"])
    assert found.accuracy == pytest.approx(shares["right"])
    assert found.always_no == pytest.approx(
        counts["false_matches"][1] / counts["right"][1]
    )


def test_similarities_are_as_good_as_the_distances_they_mirror():
    distance, speaker = random_distances(0)
    one = result(distance, speaker, 1.0)
    other = result(7 - distance, speaker, 6.0, similarity=True)
    for name in speaker_scores.COLUMNS.values():
        expected = pytest.approx(getattr(one, name), nan_ok=True, abs=1e-6)
        assert getattr(other, name) == expected
    assert other.distance.min() >= 0
    np.testing.assert_allclose(np.diff(other.distance), np.diff(distance))


def test_distances_are_the_same_both_ways():
    rng = np.random.default_rng(0)
    score, speaker = rng.normal(size=(6, 6)), np.arange(6) % 2
    for similarity in (False, True):
        found = result(score, speaker, similarity=similarity).distance
        np.testing.assert_array_equal(found, found.T)


def test_well_separated_speakers_are_all_classified():
    speaker = np.array([3, 3, 9, 9, 9, 4])
    distance = 1.0 - (speaker[:, None] == speaker)
    for found in [
        result(distance, speaker),
        result(-distance, speaker, -0.5, similarity=True),
    ]:
        assert (found.misclassified, found.accuracy) == (0, 1)
        assert (found.missed, found.false_matches) == (0, 0)
        assert found.rand == found.information == 1
        assert found.equal_error == found.min_cost == 0
        assert found.speakers == "3 seen"


def test_the_groups_of_a_result_are_those_of_average_linkage():
    from scipy.cluster.hierarchy import average, fcluster
    from scipy.spatial.distance import squareform
    from sklearn.metrics import adjusted_rand_score

    distance, _ = random_distances(0)
    tree = average(squareform(distance, checks=False))
    expected = fcluster(tree, 3, "maxclust")
    groups = speaker_scores.cluster(distance, 3)
    assert adjusted_rand_score(groups, expected) == 1


def worse(share, seed=0):
    """A distance between 60 utterances of 3 speakers, partly random."""
    rng = np.random.default_rng(seed)
    speaker = np.arange(60) % 3
    distance = (speaker[:, None] != speaker) + 0.2 * rng.random((60, 60))
    noise = rng.random((60, 60))
    noise = noise + noise.T
    return (1 - share) * distance + share * noise, speaker


BASELINES = ("baseline", "baseline, AS-norm")


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (0.5, (0.7, 0.9), "better than"),
        (0.7, (0.9, 0.5), "no better than"),
        (1.0, (0.7, 0.9), "hardly better than chance, and no better than"),
    ],
)
def test_the_summary_says_who_is_better(ours, theirs, verdict, capsys):
    rows = [
        result(*worse(ours, seed), 0.4, mode="ours", group=group)
        for group in ("seen", "unseen")
        for seed in (0, 1)
    ]
    rows += [
        result(*worse(share), 0.4, mode=name, group=group)
        for group in ("seen", "unseen")
        for name, share in zip(BASELINES, theirs, strict=True)
    ]
    speaker_scores.print_summary(rows, "ours", BASELINES)
    lines = capsys.readouterr().out.splitlines()

    def rate(mode):
        found = [one.equal_error for one in rows if one.mode == mode]
        return np.mean(found)

    best = min(BASELINES, key=rate)
    for line, group in zip(lines, ("seen", "unseen"), strict=False):
        assert line == (
            f"ours on {group} speakers: {verdict} the baseline, equal error "
            f"rate {rate('ours'):.2%} against {rate(best):.2%} ({best}); "
            "chance is 50 %"
        )
    figures = [line.split(": ") for line in lines[2:]]
    assert [name for name, _ in figures] == [
        "equal error rate",
        "missed matches at the tuned threshold",
        "false matches at the tuned threshold",
        "accuracy at the tuned threshold",
        "misclassification rate",
    ]
    expected = 100 * np.mean([one.missed for one in rows[:2]])
    assert figures[1][1] == f"{expected:.2f} %"


def test_as_good_as_the_baseline_is_no_better(capsys):
    rows = [result(*worse(0.7), mode=mode) for mode in ("ours", *BASELINES)]
    speaker_scores.print_summary(rows, "ours", BASELINES)
    assert "no better than the baseline" in capsys.readouterr().out


def test_a_report_comes_every_few_epochs(capsys, monkeypatch):
    report = speaker_scores.Report("batch", every=3)
    report.set_params({"epochs": 7})
    report.on_train_begin()
    for epoch in range(7):
        report.on_epoch_end(epoch, {"loss": 0.25})
    printed = capsys.readouterr().out
    assert re.findall(r"^batch epoch +(\d+)", printed, re.M) == ["3", "6", "7"]
    monkeypatch.setattr(speaker_scores, "SILENCE", -1.0)
    report.on_epoch_end(0, {"loss": 0.25})
    assert capsys.readouterr().out == "batch epoch   1  loss 0.2500\n"
