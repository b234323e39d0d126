"""The figures are those of naive computations, and the commands work."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.io import wavfile

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import siamese_speaker  # noqa: E402
import speaker_pairs  # noqa: E402
import speaker_scores  # noqa: E402
import speech  # noqa: E402
import wav_features  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend.
pytestmark = only_on("torch", "examples are tested on one backend")

LAST_LINES = re.compile(
    r"equal error rate: \d+\.\d\d %\n"
    r"accuracy at the tuned threshold: \d+\.\d\d %\n"
    r"misclassification rate: \d+\.\d\d %\n\Z"
)


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


def test_every_pair_comes_once():
    distance, speaker = random_distances(0)
    expected = [
        (speaker[a] == speaker[b], distance[a, b])
        for a, b in itertools.combinations(range(len(speaker)), 2)
    ]
    pairs = speaker_scores.every_pair(distance, speaker)
    found = list(zip(*pairs, strict=True))
    assert found == expected


@pytest.mark.parametrize("seed", range(3))
def test_the_equal_error_rate_is_where_the_errors_cross(seed):
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
    metric, _ = speaker_scores.verification(match, distance)
    low, high = metric.bounds()
    assert low - 1e-12 <= crossing[0] <= high + 1e-12
    assert high - low < 0.05
    found = float(metric.result())
    assert low - 1e-6 <= found <= high + 1e-6


def test_the_equal_error_rate_of_known_scores():
    def rate(match, distance):
        return float(speaker_scores.verification(match, distance)[0].result())

    match = np.array([True, True, False, False])
    assert rate(match, np.array([1.0, 2.0, 3.0, 4.0])) == 0
    assert rate(match, np.array([4.0, 3.0, 2.0, 1.0])) == 1
    assert rate(match, np.array([1.0, 3.0, 2.0, 4.0])) == 0.5
    assert rate(match, np.array([1.0, 1.0, 1.0, 1.0])) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_is_the_best_one(seed):
    match, distance = random_scores(seed)
    threshold = speaker_scores.tune_threshold(match, distance)
    found = np.mean((distance < threshold) == match)
    best = max(np.mean((distance <= cut) == match) for cut in [-1, *distance])
    assert found == pytest.approx(best)


def test_well_separated_speakers_are_all_classified():
    speaker = np.array([3, 3, 9, 9, 9, 4])
    distance = 1.0 - (speaker[:, None] == speaker)
    result = speaker_scores.Result("batch", "seen", 0, distance, speaker, 0.5)
    assert (result.misclassified, result.accuracy) == (0, 1)
    assert result.rand == result.information == 1
    assert result.equal_error == result.min_cost == 0


def test_the_groups_of_a_result_are_those_of_average_linkage():
    from scipy.cluster.hierarchy import average, fcluster
    from scipy.spatial.distance import squareform
    from sklearn.metrics import adjusted_rand_score

    distance, _ = random_distances(0)
    tree = average(squareform(distance, checks=False))
    expected = fcluster(tree, 3, "maxclust")
    groups = speaker_scores.cluster(distance, 3)
    assert adjusted_rand_score(groups, expected) == 1


def tiny_data(count=11, speakers=3):
    speaker = np.arange(count) % speakers
    segments = np.random.default_rng(0).normal(size=(count, 4, 2))
    return speech.Utterances(
        segments.astype("float32"), np.arange(count), speaker
    )


def test_rows_come_shuffled_with_their_speakers():
    data = tiny_data()
    rows = speaker_pairs.Rows(data, 4, seed=0)
    assert len(rows) == 2
    seen = []
    for index in range(2):
        segments, speaker = rows[index]
        where = [
            int(np.flatnonzero((data.segments == one).all(axis=(1, 2)))[0])
            for one in segments
        ]
        assert data.speaker[where].tolist() == speaker.tolist()
        seen += where
    assert len(set(seen)) == 8
    rows.on_epoch_end()
    again = [rows[index][1].tolist() for index in range(2)]
    rows.on_epoch_end()
    assert again != [rows[index][1].tolist() for index in range(2)]
    assert len(speaker_pairs.Rows(data, 99, seed=0)) == 1


def test_half_of_the_pairs_match():
    data = tiny_data(count=12)
    pairs = speaker_pairs.Pairs(data, 12, seed=0)
    for _ in range(3):
        (a, b), match = pairs[0]
        assert match.shape == (12, 1)
        assert match.sum() == 6
        for one, other, flag in zip(a, b, match, strict=True):
            first, second = (
                int(np.flatnonzero((data.segments == x).all(axis=(1, 2)))[0])
                for x in (one, other)
            )
            assert first != second
            assert (data.speaker[first] == data.speaker[second]) == flag
        before = pairs.partner.copy()
        pairs.on_epoch_end()
        assert not np.array_equal(before, pairs.partner)


def test_the_naive_distance_is_clipped_and_one_way():
    p, q = np.array([[1.0, 0.0], [0.3, 0.7]]), np.array([[0.0, 1.0]] * 2)
    found = keras.ops.convert_to_numpy(
        speaker_pairs.naive_distance(p.astype("float32"), q.astype("float32"))
    )
    p, q = np.clip(p, 1e-7, 1), np.clip(q, 1e-7, 1)
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(1), rtol=1e-4)
    match, distance = np.array([[1.0], [0.0]]), np.array([[0.2], [0.4]])
    hinge = speaker_pairs.naive_hinge(
        keras.ops.convert_to_tensor(match, "float32"),
        keras.ops.convert_to_tensor(distance, "float32"),
    )
    hinge = keras.ops.convert_to_numpy(hinge)
    np.testing.assert_allclose(hinge, [0.2, 0.6], rtol=1e-6)


def simple_tower(train, features, recipe):
    """In place of the recurrent one, which takes long to compile."""
    inputs = keras.Input(train.segments.shape[1:])
    x = keras.layers.Masking()(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(8)(x), name="tower")


def test_all_modes_in_one_table(monkeypatch, capsys):
    monkeypatch.setattr(siamese_speaker, "build_tower", simple_tower)
    siamese_speaker.main(
        ["--mode", "all", "--small", "--seeds", "2", "--epochs", "1"]
    )
    printed = capsys.readouterr().out
    assert LAST_LINES.search(printed)
    assert len(printed.splitlines()) <= 60
    rows = re.findall(
        r"^(\w+) +(\d \w+) +(\w+).*?([\d.]+) % +([\d.]+) +([\d.]+) % +"
        r"([\d.]+) % +([\d.]+) % +(-?[\d.]+) +([\d.]+) +(?:-|[\d.]+ %)$",
        printed,
        re.MULTILINE,
    )
    expected = itertools.product(
        ["batch", "pairs", "naive"],
        ["9 seen"],
        ["0", "1", "mean", "spread"],
    )
    assert [row[:3] for row in rows] == list(expected)
    values = np.array([row[3:] for row in rows], float)
    for group in values.reshape(3, 4, 7):
        np.testing.assert_allclose(group[:2].mean(0), group[2], atol=0.02)
        np.testing.assert_allclose(
            group[:2].std(0, ddof=1), group[3], atol=0.02
        )
    assert len(re.findall(r"^batch .* -$", printed, re.MULTILINE)) == 4
    assert len(re.findall(r"^naive .* %$", printed, re.MULTILINE)) == 4
    last = re.findall(r"([\d.]+) %", printed)[-3:]
    assert [float(x) for x in last] == values[2, [0, 2, 4]].tolist()


def voice(pitch, seconds, seed):
    """Not a voice, but a sound with overtones and a little noise."""
    time = np.arange(round(8000 * seconds)) / 8000
    parts = [np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)]
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.2 * sum(parts) + 0.01 * noise).astype("float32")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for number, name in enumerate(["anna", "bert", "carl", "dora"]):
        for take in range(8):
            sound = voice(130 + 60 * number + take, 0.35 + 0.03 * take, take)
            wavfile.write(folder / f"1_{name}_{take}.wav", 8000, sound)
    return folder


def figures_of_comparing(model, *wavs):
    """Asks the saved model in a second process."""
    asked = subprocess.run(
        [
            sys.executable,
            "siamese_speaker.py",
            "--load",
            model,
            "--compare",
            *map(str, wavs),
        ],
        cwd=ROOT / "examples",
        env={**os.environ, "PYTHONWARNINGS": "error::UserWarning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    pattern = r"distance: (\S+)\nthreshold: (\S+) .*\ndecision: (\w+) speaker"
    distance, threshold, decision = re.search(pattern, asked.stdout).groups()
    return float(distance), float(threshold), decision


def test_from_wav_files_to_a_saved_model(recordings, tmp_path, capsys):
    model, plots = tmp_path / "voices.keras", tmp_path / "plots"
    arguments = ["--data", recordings, "--unseen", 2, "--epochs", 2]
    arguments += ["--save", model, "--plots", plots]
    siamese_speaker.main(list(map(str, arguments)))
    printed = capsys.readouterr().out
    assert LAST_LINES.search(printed)
    assert re.search(r"^batch +2 seen", printed, re.MULTILINE)
    assert re.search(r"^batch +2 unseen", printed, re.MULTILINE)
    assert "unseen speakers: carl, dora" in printed
    names = {"scores.png", "det.png", "embeddings.png", "training.png"}
    assert {path.name for path in plots.iterdir()} == names
    assert min(path.stat().st_size for path in plots.iterdir()) > 5000

    a, b = recordings / "1_anna_0.wav", recordings / "1_dora_7.wav"
    found = figures_of_comparing(model, a, b)
    loaded = keras.models.load_model(model)
    signals = [wav_features.read_wav(path) for path in (a, b)]
    segments, owner = wav_features.cut(signals, 8000)
    assert owner.tolist() == [0, 1, 1]
    logits = loaded.get_layer("tower")(segments, training=False)
    logits = keras.ops.convert_to_numpy(logits)
    p, q = (
        np.exp(row) / np.exp(row).sum()
        for row in (logits[0], logits[1:].mean(axis=0))
    )
    distance = np.sum((p - q) * np.log(p / q))
    threshold = loaded.get_layer("decision").threshold
    assert found[:2] == pytest.approx((distance, threshold), rel=2e-3)
    assert found[2] == ("same" if distance < threshold else "different")
    # The model as saved takes two segments.
    pair = loaded.predict([segments[:1], segments[:1]], verbose=0)
    assert [float(np.ravel(x)[0]) for x in pair] == [0, 1]


def test_a_cepstrum_model_cannot_score_wav_files(recordings, tmp_path, capsys):
    data = tiny_data(12)
    recipe = siamese_speaker.Recipe()
    tower = siamese_speaker.build_tower(data, "cepstrum", recipe)
    path = str(tmp_path / "vowels.keras")
    speaker_pairs.pair_model(tower, 0.5).save(path)
    wav = str(recordings / "1_anna_0.wav")
    with pytest.raises(SystemExit, match="2"):
        siamese_speaker.main(["--load", path, "--compare", wav, wav])
    assert "cannot score WAV files" in capsys.readouterr().err


def test_a_model_of_another_kind_is_refused(tmp_path, capsys):
    path = str(tmp_path / "other.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(SystemExit, match="2"):
        siamese_speaker.main(["--load", path, "--compare", "a", "b"])
    assert "was not written by --save" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--load", "a.keras"], "go together"),
        (["--compare", "a.wav", "b.wav"], "go together"),
        (["--load", "no.keras", "--compare", "a", "b"], "does not exist"),
        (["--data", "x", "--download", "fsdd"], "exclude each other"),
        (["--data", "x"], "x is not a folder"),
        (["--data", str(ROOT / "tests")], "no WAV files"),
        (["--unseen", "8"], "leave 1"),
        (["--unseen", "1"], "at least 2"),
        (["--save", "model"], "ends in .keras"),
        (["--save", "a.keras", "--mode", "naive"], "modes batch and pairs"),
        (["--seeds", "0"], "at least 1"),
        (["--epochs", "0"], "at least 1"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        siamese_speaker.main(arguments)
    printed = capsys.readouterr()
    assert words in printed.err
    assert not printed.out
