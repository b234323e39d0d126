"""Scores are those of NumPy and scikit-learn, and a saved model gives them."""

import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.examples.test_audio import overtones, write
from tests.examples.test_speaker_tower import (
    BANDS,
    SMALL,
    counting,
    filled,
    voices,
)
from tests.testing import only_on, quick, to_numpy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import features  # noqa: E402
import speaker_backend  # noqa: E402
import speaker_tower  # noqa: E402
import speech  # noqa: E402
from audio import DataError  # noqa: E402

import keras_xent  # noqa: E402

RATE = 8000
# The names, and whether the tower was trained on cosines. Only the tower alone
# is compared by another distance if it was not.
BACKENDS = [
    ("none", False),
    ("none", True),
    ("cosine", False),
    ("as_norm", False),
]


# Statistics


def statistics(frames, few):
    """Of the frames of one segment that count; `frames` has zeros in it."""
    x = counting(frames)
    if not len(x):
        x = np.zeros((1, frames.shape[1]))

    def root(variance):
        return np.sqrt(variance + speaker_backend.SMALL_VARIANCE)

    parts = [x.mean(axis=0), root(x.var(axis=0))]
    if not few:
        changes = [
            np.square(later.astype("float64") - one)
            for one, later in zip(frames[:-2], frames[2:], strict=True)
            if one.any() and later.any()
        ] or [np.zeros(frames.shape[1])]
        parts.append(root(np.mean(changes, axis=0)))
        parts += [
            np.quantile(x, share, axis=0, method="lower")
            for share in (0.1, 0.5, 0.9)
        ]
    return np.concatenate(parts)


@pytest.mark.parametrize("few", [False, True])
def test_statistics_are_over_the_frames_that_count(few):
    x = voices().segments
    x[0, 5] = 0  # a pause
    x[1] = 0
    x[2, 1:] = 0  # one frame alone
    layer = speaker_backend.LongTermStatistics(few=few)
    call = quick(layer)
    found = to_numpy(call(x))
    assert found.shape == (len(x), (2 if few else 6) * BANDS)
    for row, frames in zip(found, x, strict=True):
        np.testing.assert_allclose(row, statistics(frames, few), atol=1e-4)
    np.testing.assert_allclose(to_numpy(call(filled(x))), found, atol=1e-5)
    again = layer.from_config(layer.get_config())
    assert again.few is few


def test_the_discriminant_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(4), 12)
    means = rng.normal(0, 2, (4, 6))
    rows = (means[speaker] + rng.normal(size=(48, 6))) * [1, 9, 1, 0.1, 3, 1]
    rows = rows + 5
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.2)
    expected = lda.fit(standard, speaker).transform(standard)[:, :3]
    kernel, bias = speaker_backend.discriminant(rows, speaker, 0.2)
    assert kernel.dtype == bias.dtype == np.float32
    found = rows @ kernel + bias
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    # No more directions than there are numbers.
    kernel, _ = speaker_backend.discriminant(rows[:, :2], speaker, 0.2)
    assert kernel.shape == (2, 2)


def test_rows_of_length_1():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]])
    expected = [[0.6, 0.8], [0, 0], [-1, 0]]
    np.testing.assert_allclose(speaker_backend.unit(rows), expected)


def test_a_part_of_the_utterances_is_evenly_spaced():
    data = voices()
    assert len(speaker_backend.part(data, 99)) == 24
    found = speaker_backend.part(data, 7)
    np.testing.assert_array_equal(found.segments, data.segments[::4])


@pytest.mark.parametrize("size", [5, 8, 24, 256])
def test_batches_of_one_size_change_nothing(size, monkeypatch):
    monkeypatch.setattr(speaker_backend, "BATCH", size)
    inputs = keras.Input((24, BANDS))
    model = keras.Model(inputs, [inputs[:, 0] + 1, inputs[:, 1]])
    data = voices()
    found = speaker_backend.predict(model, data)
    np.testing.assert_array_equal(found[0], data.segments[:, 0] + 1)
    np.testing.assert_array_equal(found[1], data.segments[:, 1])


# The scores


@pytest.fixture(scope="module")
def tower():
    keras.utils.set_random_seed(0)
    return speaker_tower.build_tower(voices(), SMALL)


def cosines(a, b):
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return a @ b.T


@pytest.mark.parametrize("copies", [0, 1])
def test_an_embedding_holds_the_linear_path_and_the_tower(tower, copies):
    recipe = dataclasses.replace(SMALL, deep=0.8, varied=0.7)
    data, copy = voices(), voices(seed=1)
    copy.speaker = copy.speaker + 4
    parts = [data, copy][: 1 + copies]
    model = speaker_backend.embedding_model(tower, parts, recipe)
    rows = speaker_backend.predict(model, data)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    # The cosines, one by one.
    raw = [
        np.stack([statistics(one, False) for one in each.segments])
        for each in parts
    ]
    hear = keras.Model(tower.input, tower.get_layer("embedding").output)
    heard = speaker_backend.predict(hear, data)
    heard = heard - heard.mean(axis=0)
    expected = 0.8 * cosines(heard, heard)
    shares = [0.3, 0.7] if copies else [1]
    for count, share in enumerate(shares, 1):
        kernel, bias = speaker_backend.discriminant(
            np.concatenate(raw[:count]),
            np.concatenate([each.speaker for each in parts[:count]]),
            recipe.shrinkage,
        )
        linear = raw[0] @ kernel + bias
        expected += share * cosines(linear, linear)
    np.testing.assert_allclose(rows @ rows.T, expected / 1.8, atol=2e-3)


def naive_scores(a, b, cohort, nearest):
    """Every score on its own: Matejka et al., 2017, adaptive S-norm."""
    found = np.empty((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            total = 0
            for row in (one, other):
                top = np.sort(cohort @ row)[-nearest:]
                total += (one @ other - top.mean()) / np.sqrt(
                    top.var() + speaker_backend.SMALL_VARIANCE
                )
            found[i, j] = total / 2
    return found


def unit_rows(count, seed, size=6):
    rows = np.random.default_rng(seed).normal(size=(count, size))
    return speaker_backend.unit(rows).astype("float32")


@pytest.mark.parametrize("nearest", [1, 4, 99])
def test_a_score_is_normalized_by_the_nearest_of_the_cohort(nearest):
    a, b, cohort = unit_rows(5, 0), unit_rows(5, 1), unit_rows(12, 2)
    layer = speaker_backend.CohortScore((12, 6), nearest)
    layer.cohort.assign(cohort)
    every = to_numpy(layer.every(a, b))
    expected = naive_scores(a, b, cohort, min(nearest, 12))
    np.testing.assert_allclose(every, expected, rtol=1e-3, atol=1e-3)
    pairs = to_numpy(layer([a, b]))
    assert pairs.shape == (5, 1)
    np.testing.assert_allclose(pairs[:, 0], np.diag(every), atol=1e-4)
    turned = to_numpy(layer.every(b, a))
    np.testing.assert_allclose(turned, every.T, rtol=1e-4, atol=1e-4)
    config = layer.get_config()
    again = speaker_backend.CohortScore.from_config(config)
    assert again.get_config() == config
    assert not layer.trainable_weights


def test_a_cohort_is_drawn_from_the_training(monkeypatch):
    rows = unit_rows(9, 0)
    score = speaker_backend.cohort_score(rows, 4, seed=0)
    np.testing.assert_array_equal(to_numpy(score.cohort), rows)
    monkeypatch.setattr(speaker_backend, "LARGEST_COHORT", 5)
    drawn = [
        to_numpy(speaker_backend.cohort_score(rows, 4, seed).cohort)
        for seed in (0, 0, 1)
    ]
    for cohort in drawn:
        assert cohort.shape == (5, 6)
        assert len(np.unique(cohort, axis=0)) == 5
        assert (cohort[:, None] == rows).all(axis=2).any(axis=1).all()
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def longer_utterances():
    """The segments of `voices`, two or three of them an utterance."""
    data = voices()
    owner = np.repeat(np.arange(10), [2, 3] * 4 + [2, 2])
    return speech.Utterances(data.segments, owner, np.arange(10) % 4)


@pytest.mark.parametrize(("name", "cosine"), BACKENDS)
def test_a_backend_compares_the_means_over_the_segments(tower, name, cosine):
    data = longer_utterances()
    backend = speaker_backend.Backend(
        name, tower, [voices()], SMALL, seed=0, similarity=cosine
    )
    rows = speaker_backend.predict(backend.model, data)
    means = np.stack([rows[data.owner == k].mean(axis=0) for k in range(10)])
    if not backend.similarity:
        logits = means.astype("float64")
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        gap, ratio = p[:, None] - p, np.log(p[:, None] / p)
        expected = (gap * ratio).sum(axis=-1)
    else:
        expected = cosines(means, means)
    if name == "as_norm":
        training = speaker_backend.predict(backend.model, voices())
        means = speaker_backend.unit(means)
        expected = naive_scores(means, means, training, 24)
    found = backend.compare(data)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert backend.similarity is (cosine or name != "none")


def test_the_baseline_is_that_of_scikit_learn():
    training, data = voices(), longer_utterances()
    means = [
        np.stack([statistics(one, True) for one in each.segments])
        for each in (training, data)
    ]
    mean, deviation = means[0].mean(axis=0), means[0].std(axis=0)
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
    lda.fit((means[0] - mean) / deviation, training.speaker)
    averaged = np.stack(
        [means[1][data.owner == k].mean(axis=0) for k in range(10)]
    )
    cohort, rows = (
        speaker_backend.unit(lda.transform((one - mean) / deviation)[:, :3])
        for one in (means[0], averaged)
    )
    baseline = speaker_backend.Baseline(training, seed=0)
    plain, normalized = baseline.compare(data).values()
    np.testing.assert_allclose(plain, rows @ rows.T, atol=2e-3)
    expected = naive_scores(rows, rows, cohort, 24)
    np.testing.assert_allclose(normalized, expected, rtol=5e-3, atol=2e-2)


# The saved model


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return [
        write(
            folder / f"{pitch}_{take}.wav",
            # One segment, two, and three.
            overtones(pitch + take, [0.2, 0.4, 0.5][take], take),
            RATE,
        )
        for pitch in (120, 180, 240)
        for take in range(3)
    ]


@pytest.fixture
def recorded(paths, monkeypatch):
    """The recordings as data, in segments of the length of a saved model."""
    monkeypatch.setattr(speaker_backend, "FRAMES", 24)
    monkeypatch.setattr(speaker_backend, "FEW", 2)
    array, owner = features.log_mel_segments(paths, RATE, 24)
    return speech.Utterances(array, owner, np.arange(9) // 3, paths)


@pytest.mark.parametrize(("name", "cosine"), BACKENDS)
def test_a_saved_model_scores_as_the_backend_does(
    tower, recorded, name, cosine, tmp_path
):
    threshold = {"none": 0.02, "cosine": 0.3, "as_norm": 0.1}[name]
    backend = speaker_backend.Backend(
        name, tower, [recorded], SMALL, seed=0, similarity=cosine
    )
    expected = backend.compare(recorded)
    path = tmp_path / "voice.keras"
    speaker_backend.pair_model(backend, RATE, threshold).save(path)

    # What is loaded takes waveforms. One segment of each of them:
    model = keras.models.load_model(path, compile=False)
    first = [
        features.waveform_segments(path, RATE, 24)[:1]
        for path in recorded.paths
    ]
    a, b = np.concatenate(first[:6]), np.concatenate(first[3:])
    score, decision = model.predict_on_batch([a, b])
    rows = [np.flatnonzero(recorded.owner == k)[0] for k in range(9)]
    single = speech.Utterances(
        recorded.batch(rows), np.arange(9), recorded.speaker
    )
    alone = backend.compare(single)[np.arange(6), np.arange(3, 9)]
    # Features are stored in float16, and the model makes its own.
    near = {"rtol": 0.02, "atol": 0.02 if name == "as_norm" else 2e-3}
    np.testing.assert_allclose(score[:, 0], alone, **near)
    same = score >= threshold if backend.similarity else score < threshold
    np.testing.assert_array_equal(decision.astype(bool), same)

    # Recordings of several segments:
    voice = speaker_backend.load(path)
    assert voice.rate == RATE
    rows = voice.embed(recorded.paths)
    sign = 1 if backend.similarity else -1
    score = voice.score(rows[:4], rows)
    assert score.shape == (4, 9)
    np.testing.assert_allclose(sign * score, expected[:4], **near)
    assert voice.threshold == pytest.approx(sign * threshold)
    # Larger is more alike, and most of all is a recording like itself.
    itself = np.diag(voice.score(rows, rows))
    assert (itself >= voice.threshold).all()
    assert (itself >= voice.score(rows, rows).max(axis=1) - 1e-4).all()
    if backend.similarity:
        length = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(length, 1, atol=1e-5)


@only_on("torch", "says the same on each backend")
def test_a_recording_of_a_lower_rate_than_the_model_is_named_once(
    tower, recorded, tmp_path, capsys
):
    backend = speaker_backend.Backend("none", tower, [recorded], SMALL, seed=0)
    voice = speaker_backend.Voice(speaker_backend.pair_model(backend, RATE, 1))
    voice.embed(recorded.paths[:1])
    assert not capsys.readouterr().err
    low = write(tmp_path / "low.wav", overtones(120, 0.3, 0), RATE // 2)
    voice.embed([low, low])
    printed = capsys.readouterr().err
    assert printed.count(f"low.wav has {RATE // 2} samples a second") == 1


@only_on("torch", "says the same on each backend")
def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        speaker_backend.load(tmp_path / "none.keras")
    text = tmp_path / "text.keras"
    text.write_text("not a model")
    other = tmp_path / "other.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(other)
    # A model of two towers, but of segments instead of waveforms.
    inputs = keras.Input((4,))
    named = keras.layers.Dense(2, name="embedding")(inputs)
    score = keras_xent.layers.SymmetricKLDistance(name="score")([named, named])
    decide = keras_xent.layers.MatchDecision(
        0.5, similarity=False, name="decision"
    )
    pair = tmp_path / "pair.keras"
    keras.Model(inputs, decide(score)).save(pair)
    half = tmp_path / "half.keras"
    half.write_bytes(pair.read_bytes()[:999])
    for path in (text, other, pair, half):
        with pytest.raises(DataError, match="was not written by --save"):
            speaker_backend.load(path)
