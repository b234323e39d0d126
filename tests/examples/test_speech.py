"""WAV files are read rightly, cut rightly, and split without overlap."""

import struct
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.io import wavfile

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import speech  # noqa: E402
import wav_features  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend.
pytestmark = only_on("torch", "examples are tested on one backend")
from wav_features import DataError  # noqa: E402

FSDD = ROOT.parent / "shared" / "data" / "fsdd"


def tone(seconds=0.3, rate=8000, pitch=440.0, loudness=0.5):
    return loudness * np.sin(
        2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate
    )


def write(path, samples=None, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = tone(rate=rate) if samples is None else samples
    wavfile.write(path, rate, np.asarray(samples, "float32"))
    return path


def write_24_bit(path, samples, rate):
    """SciPy reads 24 bits but does not write them."""
    whole = np.round(samples * 2**23).astype("<i4")
    data = whole.view("u1").reshape(-1, 4)[:, :3].tobytes()
    form = struct.pack("<HHIIHH", 1, 1, rate, 3 * rate, 3, 24)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE")
    with path.open("ab") as file:
        file.write(chunks)


@pytest.mark.parametrize(
    ("kind", "scale", "shift"),
    [
        ("uint8", 2**7, 2**7),
        ("int16", 2**15, 0),
        ("int32", 2**31, 0),
        ("float32", 1, 0),
        ("float64", 1, 0),
    ],
)
def test_samples_are_right_whatever_their_format(tmp_path, kind, scale, shift):
    expected = tone()
    stored = expected * scale + shift
    if kind[0] != "f":
        stored = np.round(stored)
    wavfile.write(tmp_path / "a.wav", 8000, stored.astype(kind))
    rate, samples = wav_features.read_wav(tmp_path / "a.wav")
    assert rate == 8000
    assert samples.dtype == np.float32
    step = 1 / scale if kind[0] != "f" else 0
    np.testing.assert_allclose(samples, expected, atol=step / 2 + 1e-6)


def test_24_bits(tmp_path):
    expected = tone(rate=11025)
    write_24_bit(tmp_path / "a.wav", expected, 11025)
    rate, samples = wav_features.read_wav(tmp_path / "a.wav")
    assert rate == 11025
    np.testing.assert_allclose(samples, expected, atol=2.0**-22)


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(), tone(pitch=300, loudness=0.2)
    write(tmp_path / "a.wav", np.stack([left, right], axis=1))
    _, samples = wav_features.read_wav(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable WAV"),
        (b"RIFF1234WAVEjunk", "not a readable WAV"),
        (b"nothing of the kind" * 50, "not a readable WAV"),
        (np.zeros(0), "empty"),
        (np.ones(100), "shorter than 50 ms"),
        (np.zeros(8000), "silent"),
        (np.full(8000, np.nan), "not finite"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, words):
    path = tmp_path / "a.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(DataError, match=words):
        wav_features.read_wav(path)


@pytest.mark.parametrize("size", [30, 44, 5000])
def test_a_file_that_breaks_off_is_not_readable(tmp_path, size):
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="not a readable WAV"):
        wav_features.read_wav(path)


def test_segments_masks_and_owners():
    rate = 8000
    signals = [
        (rate, tone(0.30)),  # 30 frames
        (rate, tone(1.00)),  # 40 + 40 + 20
        (rate, tone(0.85)),  # 40 + 40, the rest of 5 frames is dropped
        (rate, tone(0.40)),  # exactly 40
    ]
    segments, owner = wav_features.cut(signals, rate)
    assert segments.shape == (7, 40, 128)
    assert owner.tolist() == [0, 1, 1, 1, 2, 2, 3]
    lengths = segments.any(axis=-1).sum(axis=1)
    assert lengths.tolist() == [30, 40, 40, 20, 40, 40, 40]
    # Padding comes last.
    assert not segments[0, 30:].any()
    assert segments[0, :30].any(axis=-1).all()


def test_features_depend_on_neither_loudness_nor_rate_nor_neighbors():
    rate, low, high = 8000, tone(0.4), tone(0.4, 44_100)
    alone, _ = wav_features.cut([(rate, low)], rate)
    loud = 100 * tone(0.4, pitch=200)
    others = [(rate, low / 10), (44_100, high), (rate, loud)]
    together, _ = wav_features.cut(others, rate)
    np.testing.assert_allclose(together[0], alone[0], atol=0.05)
    # Resampling leaves the band of the tone as it is.
    middle = slice(5, 35)
    loudest = alone[0, middle].max()
    np.testing.assert_allclose(together[1, middle].max(), loudest, atol=0.1)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000])
def test_the_mel_bands_are_where_the_tone_is(rate):
    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    for pitch in (150.0, 1000.0, 3000.0):
        segments, _ = wav_features.cut(
            [(rate, tone(0.4, rate, pitch=pitch))], rate
        )
        edges = np.linspace(mel(20), mel(rate // 2), 130)
        band = np.argmin(abs(edges[1:-1] - mel(pitch)))
        assert abs(segments[0, 20].argmax() - band) <= 1
    noise = np.random.default_rng(0).normal(size=rate * 2 // 5)
    segments, _ = wav_features.cut([(rate, noise)], rate)
    assert (segments.std(axis=1) > 0.1).all()  # no band is always empty


def folder_of(tmp_path, speakers, count=6, flat=False, rate=8000):
    for index, speaker in enumerate(speakers):
        for take in range(count):
            name = f"{speaker}/session/{take}.wav"
            if flat:
                name = f"{take % 10}_{speaker}_{take}.wav"
            pitch = 120 + 40 * index + take
            write(tmp_path / name, tone(0.3, rate, pitch), rate)
    return tmp_path


def test_speakers_are_the_first_folders(tmp_path):
    write(tmp_path / "anna" / "a" / "b" / "1.WAV")
    write(tmp_path / "anna" / "0_bert_7.wav")
    write(tmp_path / "carl" / "2.wav")
    found = speech.find_wavs(tmp_path)
    speakers = {path.name: who for path, who in found.items()}
    assert speakers == {
        "1.WAV": ("anna", None),
        "0_bert_7.wav": ("anna", None),
        "2.wav": ("carl", None),
    }


@pytest.mark.parametrize("inner", ["", "recordings"])
def test_fsdd_names(tmp_path, capsys, inner):
    write(tmp_path / inner / "0_anna_7.wav")
    write(tmp_path / inner / "9_van_der_berg_12.wav")
    write(tmp_path / inner / "hello.wav")
    found = speech.find_wavs(tmp_path)
    who = [found[path] for path in sorted(found) if path.stem != "hello"]
    assert who == [("anna", 7), ("van_der_berg", 12)]
    if not inner:
        assert "hello.wav is skipped" in capsys.readouterr().err
        assert len(found) == 2


def test_the_parts_of_a_corpus_do_not_overlap(tmp_path):
    folder_of(tmp_path, "abcd", count=10)
    corpus = speech.wav_folder(tmp_path, unseen=2)
    assert corpus.names == ["a", "b", "c", "d"]
    assert corpus.features == "log_mel_8000_hz"
    parts = [*corpus.hold_out(0), corpus.test, corpus.unseen]
    assert [len(part) for part in parts] == [12, 4, 4, 20]
    for part in parts[:3]:
        assert set(part.speaker) == {0, 1}
    assert set(corpus.unseen.speaker) == {2, 3}
    rows = np.concatenate([part.segments for part in parts])
    assert len(np.unique(rows, axis=0)) == len(rows) == 40
    again = speech.wav_folder(tmp_path, unseen=2)
    np.testing.assert_array_equal(again.test.segments, corpus.test.segments)
    other = speech.wav_folder(tmp_path, unseen=2, seed=1)
    assert not np.array_equal(other.test.segments, corpus.test.segments)


def test_fsdd_tests_on_the_takes_0_to_4(tmp_path):
    folder_of(tmp_path, ["anna", "bert"], count=12, flat=True)
    corpus = speech.wav_folder(tmp_path)
    assert corpus.unseen is None
    assert [len(corpus.training), len(corpus.test)] == [14, 10]
    files = [tmp_path / f"{take}_anna_{take}.wav" for take in range(5)]
    expected, _ = wav_features.cut(map(wav_features.read_wav, files), 8000)
    test = corpus.test[corpus.test.speaker == 0]
    np.testing.assert_allclose(test.segments, expected, atol=1e-3)


def test_the_lowest_rate_decides_up_to_16_khz(tmp_path):
    folder_of(tmp_path / "x", "ab", rate=22_050)
    assert speech.wav_folder(tmp_path / "x").features == "log_mel_16000_hz"
    write(tmp_path / "x" / "a" / "low.wav", rate=11_025)
    assert speech.wav_folder(tmp_path / "x").features == "log_mel_11025_hz"


def test_bad_files_are_named_and_skipped(tmp_path, capsys):
    folder_of(tmp_path, "ab")
    (tmp_path / "a" / "broken.wav").write_bytes(b"RIFF")
    write(tmp_path / "a" / "silent.wav", np.zeros(4000))
    write(tmp_path / "c" / "alone.wav")
    corpus = speech.wav_folder(tmp_path)
    printed = capsys.readouterr().err
    for words in ("broken.wav is skipped", "silent.wav is skipped"):
        assert words in printed
    assert "fewer than 6 utterances, left out: c" in printed
    assert corpus.names == ["a", "b"]
    assert len(corpus.training) + len(corpus.test) == 12


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        speech.wav_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no WAV files"):
        speech.wav_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"no WAV file in .* can be used"):
        speech.wav_folder(tmp_path)
    folder_of(tmp_path, "a")
    with pytest.raises(DataError, match=r"1 speaker\(s\).*at least two"):
        speech.wav_folder(tmp_path)
    folder_of(tmp_path, "abc")
    for unseen, words in [(2, "leave 1"), (1, "at least 2"), (-1, "at least")]:
        with pytest.raises(DataError, match=words):
            speech.wav_folder(tmp_path, unseen=unseen)


def test_a_third_of_six_speakers_stays_unseen(tmp_path):
    corpus = speech.wav_folder(folder_of(tmp_path, "abcdef"))
    assert set(corpus.unseen.speaker) == {4, 5}


def test_utterances_are_chosen_and_averaged():
    data = speech.Utterances(
        np.arange(6.0)[:, None, None] * np.ones((6, 2, 3)),
        owner=np.array([0, 0, 1, 2, 2, 2]),
        speaker=np.array([7, 8, 7]),
    )
    assert data.segment_speaker.tolist() == [7, 7, 8, 7, 7, 7]
    chosen = data[data.speaker == 7]
    assert len(chosen) == 2
    assert chosen.segments[:, 0, 0].tolist() == [0, 1, 3, 4, 5]
    assert chosen.owner.tolist() == [0, 0, 1, 1, 1]
    means = chosen.average(chosen.segments[:, 0])
    assert means.tolist() == [[0.5] * 3, [4.0] * 3]
    assert len(data[data.speaker == 9]) == 0


def test_japanese_vowels_keeps_the_official_test_split():
    corpus = speech.japanese_vowels()
    assert corpus.features == "cepstrum"
    train, validation = corpus.hold_out(0)
    assert np.bincount(train.speaker).tolist() == [24] * 9
    assert np.bincount(validation.speaker).tolist() == [6] * 9
    other = corpus.hold_out(1)[1]
    assert not np.array_equal(other.segments, validation.segments)
    expected = [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert np.bincount(corpus.test.speaker).tolist() == expected
    lengths = corpus.test.segments.any(axis=-1).sum(axis=1)
    assert (lengths.min(), lengths.max()) == (7, 29)
    small = corpus.small(3)
    assert np.bincount(small.training.speaker).tolist() == [3] * 9


def test_japanese_vowels_with_unseen_speakers():
    corpus = speech.japanese_vowels(unseen=3)
    assert corpus.training.speaker.max() == corpus.test.speaker.max() == 5
    assert set(corpus.unseen.speaker) == {6, 7, 8}
    with pytest.raises(DataError, match="leave 1"):
        speech.japanese_vowels(unseen=8)


def test_the_download_asks_for_fsdd(tmp_path, monkeypatch):
    asked = []

    def get_file(name, origin, extract):
        asked.append((origin, extract))
        return str(tmp_path)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(DataError, match="recordings"):
        speech.download_fsdd()
    write(tmp_path / "fsdd-master" / "recordings" / "0_anna_0.wav")
    assert speech.download_fsdd().name == "recordings"
    (origin, extract), _ = asked
    assert origin.startswith("https://github.com/Jakobovski/")
    assert origin.endswith(".zip")
    assert extract


@pytest.mark.skipif(not FSDD.is_dir(), reason="../shared/data/fsdd is absent")
def test_the_real_fsdd():
    found = speech.find_wavs(FSDD)
    assert len(found) == 3000
    speakers = [speaker for speaker, _ in found.values()]
    assert speakers.count("theo") == 500
    path = FSDD / "recordings" / "7_theo_3.wav"
    assert found[path] == ("theo", 3)
    rate, samples = wav_features.read_wav(path)
    assert rate == 8000
    assert 0.01 < np.abs(samples).max() <= 1
