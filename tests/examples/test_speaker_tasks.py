"""What is done with a saved speaker model, with a model that is known."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.cluster import hierarchy
from sklearn.metrics import roc_curve

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import speaker_tasks  # noqa: E402
import verification  # noqa: E402
from audio import DataError  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend.
pytestmark = only_on("torch", "examples are tested on one backend")


class FakeVoice:
    """A recording is a file of numbers, and its vector is their direction."""

    threshold = 5.0

    def __init__(self):
        self.asked = []

    def embed(self, paths):
        rows = []
        for path in paths:
            self.asked.append(str(path))
            words = Path(path).read_text().split()
            if words == ["broken"]:
                raise DataError("not a readable file")
            row = np.array(words, float)
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, "float32")

    def score(self, a, b):
        return 10 * a @ b.T


@pytest.fixture
def voice():
    return FakeVoice()


SPEAKERS = {"anna": [1, 0, 0], "bert": [0, 1, 0], "carl": [0, 0, 1]}


def record(path, direction, seed=0, noise=0.1):
    row = direction + noise * np.random.default_rng(seed).normal(size=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(" ".join(map(str, row)))
    return path


@pytest.fixture
def folder(tmp_path):
    """Three speakers, in folders below folders."""
    for number, (name, direction) in enumerate(SPEAKERS.items()):
        for take in range(4):
            path = tmp_path / "data" / name / "room" / f"{take}.wav"
            record(path, direction, seed=10 * number + take)
    return tmp_path / "data"


def test_two_recordings_are_compared(voice, folder, capsys):
    a, b = folder / "anna/room/0.wav", folder / "anna/room/1.wav"
    c = folder / "carl/room/0.wav"
    expected = 10 * np.dot(*voice.embed([a, b]))
    score, same = speaker_tasks.compare(voice, a, b)
    assert (score, same) == (pytest.approx(expected), True)
    assert capsys.readouterr().out == (
        f"score: {expected:.4g}\n"
        "threshold: 5 (from it on: the same speaker)\n"
        "decision: same speaker\n"
    )
    assert speaker_tasks.compare(voice, a, c)[1] is False
    assert "decision: different speaker\n" in capsys.readouterr().out


def test_a_score_at_the_threshold_is_the_same_speaker(voice, folder):
    a, b = folder / "anna/room/0.wav", folder / "anna/room/1.wav"
    voice.threshold, _ = speaker_tasks.compare(voice, a, b)
    assert speaker_tasks.compare(voice, a, b)[1] is True


def test_a_recording_is_by_the_speaker_of_itself(voice, folder, capsys):
    voice.threshold = 11.0
    a = folder / "anna/room/0.wav"
    copy = folder / "copy.wav"
    copy.write_bytes(a.read_bytes())
    for other in (a, copy):
        assert speaker_tasks.compare(voice, a, other)[1] is True
        assert "both are the same recording" in capsys.readouterr().out


def trial_list(folder, path):
    """Every pair of the recordings."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.wav"))
    lines = [
        f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}"
        for a, b in itertools.combinations(names, 2)
    ]
    path.write_text("\n".join(lines) + "\n\n")
    return names, lines


@pytest.mark.parametrize("block", [1, 5, 256])
def test_the_error_rates_of_a_trial_list(
    voice, folder, tmp_path, capsys, monkeypatch, block
):
    monkeypatch.setattr(speaker_tasks, "BLOCK", block)
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        record(path, SPEAKERS[path.parts[-3]], seed=number, noise=0.6)
    path, out = tmp_path / "trials.txt", tmp_path / "scores.txt"
    names, lines = trial_list(folder, path)
    figures = speaker_tasks.trials(voice, path, out, root=folder)
    assert sorted(voice.asked) == [str(folder / name) for name in names]

    vectors = dict(zip(names, voice.embed([folder / n for n in names])))  # noqa: B905
    match = np.array([line[0] == "1" for line in lines])
    score = np.array(
        [10 * np.dot(*(vectors[n] for n in line.split()[1:])) for line in lines]
    )
    false_match, true_match, _ = roc_curve(match, score)
    gap = np.abs(false_match - (1 - true_match))
    assert figures["equal_error"] == pytest.approx(
        false_match[gap.argmin()], abs=gap.min() + 0.01
    )
    costs = (0.05 * (1 - true_match) + 0.95 * false_match) / 0.05
    assert figures["min_cost"] == pytest.approx(costs.min(), abs=0.01)
    same = score >= 5
    assert 0 < figures["false_match"] == np.mean(same[~match])
    assert 0 < figures["false_non_match"] == np.mean(~same[match])
    assert figures["accuracy"] == np.mean(same == match)

    printed = capsys.readouterr().out
    assert "66 trials of 12 recordings: 18 of one speaker, 48 of two" in printed
    rates = [figures[key] for key in ("false_match", "false_non_match")]
    assert re.search(
        r"at the threshold 5: false matches (\S+)%, "
        r"false non-matches (\S+)%, accuracy (\S+)%",
        printed,
    ).groups() == tuple(
        f"{100 * rate:.2f}" for rate in [*rates, figures["accuracy"]]
    )

    written = out.read_text().splitlines()
    assert [row.rsplit(" ", 1)[0] for row in written] == lines
    ((read_match, read_score),) = verification.trials(written)
    assert np.array_equal(read_match, match)
    np.testing.assert_allclose(read_score, score, rtol=1e-5, atol=1e-5)


def test_a_trial_list_is_relative_to_its_folder(voice, folder, capsys):
    trial_list(folder, folder / "trials.txt")
    speaker_tasks.trials(voice, folder / "trials.txt")
    assert len(voice.asked) == 12


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_traceback(voice, folder):
    trials = folder / "list.txt"
    trials.write_text(
        "1 anna/room/0.wav anna/room/1.wav\n0 anna/room/0.wav bert/room/0.wav"
    )
    with pytest.raises(DataError, match="/dev/full cannot be written"):
        speaker_tasks.trials(voice, trials, "/dev/full")


def test_bad_lines_are_named_before_anything_is_embedded(voice, folder):
    path = folder / "trials.txt"
    good = "anna/room/0.wav"
    lines = [
        f"1 {good} anna/room/1.wav",
        f"0 {good} nobody.wav",
        f"2 {good} {good}",
        "",
        f"1 {good}",
        "0 nobody.wav nobody.wav",
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        speaker_tasks.trials(voice, path)
    told = str(caught.value).splitlines()
    assert told[0] == f"{path}:"
    assert [re.match(r"  line (\d):", line)[1] for line in told[1:]] == [
        *("2", "3", "5", "6")
    ]
    assert f"{folder / 'nobody.wav'} does not exist" in told[1]
    assert "is not a label (1 or 0) and two recordings" in told[2]
    assert not voice.asked
    path.write_text("x\n" * 25)
    with pytest.raises(DataError, match=r"and 15 more$"):
        speaker_tasks.trials(voice, path)


@pytest.mark.parametrize(
    ("content", "out", "words"),
    [
        (None, None, "cannot be read"),
        ("1 anna/room/0.wav anna/room/1.wav", None, "Received: 1 and 0"),
        ("", None, "Received: 0 and 0"),
        ("good", "nowhere/scores.txt", "cannot be written"),
        ("good", "trials.txt", "would be overwritten"),
        ("good", "anna/room/0.wav", "would be overwritten"),
        ("good", "anna/../trials.txt", "would be overwritten"),
    ],
)
def test_trials_that_cannot_work_are_refused(
    voice, folder, content, out, words
):
    path = folder / "trials.txt"
    if content == "good":
        trial_list(folder, path)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=words):
        speaker_tasks.trials(voice, path, out and folder / out)
    assert not voice.asked


def test_a_trial_that_cannot_be_read_is_named(voice, folder):
    trial_list(folder, folder / "trials.txt")
    (folder / "bert/room/2.wav").write_text("broken")
    with pytest.raises(DataError, match=r"bert/room/2\.wav: not a readable"):
        speaker_tasks.trials(voice, folder / "trials.txt")


def test_speakers_are_enrolled_by_their_mean(voice, folder, capsys):
    (folder / "stray.wav").write_text("1 1 1")
    (folder / "carl/room/3.wav").write_text("broken")
    (folder / "dora").mkdir()
    (folder / "dora/0.FLAC").write_text("broken")
    (folder / "anna/._0.wav").write_text("broken")
    names, vectors = speaker_tasks.enrol(voice, folder)
    assert names == list(SPEAKERS)
    for name, vector in zip(names, vectors, strict=True):
        takes = sorted((folder / name / "room").glob("[0-9].wav"))
        takes = takes[: 3 if name == "carl" else 4]
        mean = voice.embed(takes).mean(axis=0)
        np.testing.assert_allclose(
            vector, mean / np.linalg.norm(mean), rtol=1e-5, atol=1e-6
        )
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert "stray.wav is skipped: it lies in no speaker's folder" in told[0]
    assert re.search(r"carl/room/3\.wav: not a readable file", told[1])
    assert "left out: dora" in told[3]


def test_vectors_of_any_length_are_averaged_as_they_are(voice, folder):
    class Logits(FakeVoice):
        def embed(self, paths):
            return 3 * super().embed(paths)

    _, expected = speaker_tasks.enrol(voice, folder)
    _, vectors = speaker_tasks.enrol(Logits(), folder)
    length = np.linalg.norm(vectors, axis=1)
    assert np.all(length < 2.999)
    np.testing.assert_allclose(
        vectors / length[:, None], expected, rtol=1e-5, atol=1e-6
    )


def test_a_recording_is_identified_or_by_nobody(voice, folder, capsys):
    enrolled = speaker_tasks.enrol(voice, folder)
    path = record(folder / "new.wav", SPEAKERS["bert"], seed=99)
    expected = voice.score(voice.embed([path]), enrolled[1])[0]
    assert speaker_tasks.identify(voice, enrolled, path) == "bert"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: bert, score {expected[1]:.4g}"
    others = sorted([(-expected[0], "anna"), (-expected[2], "carl")])
    assert [line.split() for line in lines[2:]] == [
        [f"{-score:.4g}", name] for score, name in others
    ]
    path.write_text("-1 -1 -1")
    assert speaker_tasks.identify(voice, enrolled, path) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: nobody who is enrolled"
    assert {line.split()[1] for line in lines[2:]} == set(SPEAKERS)


def test_embeddings_are_saved_with_their_folders(voice, folder, tmp_path):
    single = record(tmp_path / "elsewhere" / "x.wav", [1, 2, 3])
    (folder / "anna/room/1.wav").write_text("broken")
    out = tmp_path / "e.npz"
    speaker_tasks.embeddings(voice, [folder, single], out)
    saved = np.load(out)
    assert saved["speakers"].tolist() == (
        ["anna"] * 3 + ["bert"] * 4 + ["carl"] * 4 + ["elsewhere"]
    )
    assert saved["paths"][-1] == str(single)
    np.testing.assert_array_equal(
        saved["embeddings"], voice.embed(saved["paths"])
    )
    speaker_tasks.embeddings(voice, str(folder), out)
    assert np.load(out)["speakers"].tolist() == saved["speakers"].tolist()[:-1]


def test_who_is_who_in_a_folder(voice, folder, tmp_path, capsys):
    (folder / "anna/room/3.wav").unlink()
    paths, label = speaker_tasks.cluster(voice, folder, tmp_path / "plots")
    # The largest voices come first.
    assert label.tolist() == [2] * 3 + [0] * 4 + [1] * 4
    assert [path.parts[-3] for path in paths] == (
        ["anna"] * 3 + ["bert"] * 4 + ["carl"] * 4
    )
    printed = capsys.readouterr().out
    assert printed.startswith("11 recordings, 3 voices\n")
    assert (
        "\nvoice 3, 3 recordings\n"
        "  anna/room/0.wav\n  anna/room/1.wav\n  anna/room/2.wav\n"
    ) in printed
    assert (tmp_path / "plots/dendrogram.png").stat().st_size > 5000


def test_sound_of_another_kind_is_named(voice, folder, tmp_path, capsys):
    (folder / "anna/room/4.mp3").write_text("broken")
    paths, _ = speaker_tasks.cluster(voice, folder, tmp_path / "plots")
    assert len(paths) == 12
    assert "4.mp3: not a readable" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_as_many_voices_as_are_asked_for(voice, folder, tmp_path, count):
    _, label = speaker_tasks.cluster(voice, folder, tmp_path, count)
    assert np.unique(label).tolist() == list(range(count))


def test_groups_join_where_their_mean_score_reaches_the_threshold(
    voice, tmp_path
):
    for number in range(12):
        direction = np.random.default_rng(number).normal(size=3)
        record(tmp_path / f"{number:02}.wav", direction, noise=0)
    vectors = voice.embed(sorted(tmp_path.glob("*.wav")))
    score = voice.score(vectors, vectors)
    groups, steps = [{row} for row in range(12)], []
    while len(groups) > 1:
        best, a, b = max(
            (np.mean([score[i, j] for i in one for j in other]), n, m)
            for (n, one), (m, other) in itertools.combinations(
                enumerate(groups), 2
            )
        )
        steps.append((best, list(groups)))
        groups[a] = groups[a] | groups[b]
        del groups[b]
    # Just above the score at which two of them join.
    for best, expected in steps[1::4]:
        voice.threshold = best + 1e-3
        _, label = speaker_tasks.cluster(voice, tmp_path, tmp_path)
        found = [
            set(np.flatnonzero(label == k).tolist())
            for k in range(label.max() + 1)
        ]
        assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
        voice.threshold = best - 1e-3
        _, label = speaker_tasks.cluster(voice, tmp_path, tmp_path)
        assert label.max() + 1 == len(expected) - 1


def test_recordings_with_equal_scores_are_still_counted(voice, tmp_path):
    for number in range(6):
        record(tmp_path / f"{number}.wav", [1, 0, 0], noise=0)
    _, label = speaker_tasks.cluster(voice, tmp_path, tmp_path, 4)
    assert label.max() == 3
    _, label = speaker_tasks.cluster(voice, tmp_path, tmp_path)
    assert label.max() == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v, d: speaker_tasks.compare(v, d / "a", d / "b"), "no such"),
        (lambda v, d: speaker_tasks.enrol(v, d / "none"), "is not a folder"),
        (lambda v, d: speaker_tasks.enrol(v, d / "empty"), "holds no .wav"),
        (lambda v, d: speaker_tasks.enrol(v, d / "flat"), "known speaker"),
        (lambda v, d: speaker_tasks.identify(v, None, d / "a"), "no such"),
        (lambda v, d: speaker_tasks.cluster(v, d / "flat", d), r"1 recording"),
        (lambda v, d: speaker_tasks.cluster(v, d / "flat", d, 2), "2 voices"),
        (lambda v, d: speaker_tasks.cluster(v, d / "bad", d), "can be used"),
        (
            lambda v, d: speaker_tasks.cluster(v, d, d / "flat/0.wav"),
            "cannot be a folder",
        ),
        (
            lambda v, d: speaker_tasks.embeddings(v, [d / "a"], d / "e.npz"),
            "no such",
        ),
        (
            lambda v, d: speaker_tasks.embeddings(v, [d], d / "e.npy"),
            "end in .npz",
        ),
    ],
)
def test_what_cannot_work_is_refused(voice, tmp_path, call, words):
    (tmp_path / "empty").mkdir()
    record(tmp_path / "flat/0.wav", [1, 0, 0])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/0.wav").write_text("broken")
    with pytest.raises(DataError, match=words):
        call(voice, tmp_path)


def test_progress_is_shown_where_it_takes_long(
    voice, folder, monkeypatch, capsys
):
    speaker_tasks.enrol(voice, folder)
    assert not capsys.readouterr().err
    seconds = itertools.count(step=2.0)
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    speaker_tasks.enrol(voice, folder)
    printed = capsys.readouterr()
    assert "embedding: [" in printed.err
    assert not printed.out


def test_of_many_bad_recordings_some_are_named(voice, folder, capsys):
    for number in range(25):
        (folder / "anna" / f"{number}.wav").write_text("broken")
    names, _ = speaker_tasks.enrol(voice, folder)
    assert names == list(SPEAKERS)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 11
    assert told[-1] == "warning: and 15 more are skipped"


def test_the_tree_is_that_of_scipy():
    score = np.random.default_rng(0).normal(size=(9, 9))
    tree, top = speaker_tasks.linkage(score)
    even = (score + score.T) / 2
    pairs = even[np.triu_indices(9, k=1)]
    expected = hierarchy.linkage(100 - pairs, "average")
    np.testing.assert_array_equal(tree[:, :2], expected[:, :2])
    np.testing.assert_allclose(top - tree[:, 2], 100 - expected[:, 2])
