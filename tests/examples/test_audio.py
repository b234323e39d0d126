"""Recordings are read rightly, and what is wrong with one is said."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import signal
from scipy.io import wavfile

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import audio  # noqa: E402
from audio import DataError  # noqa: E402

pytestmark = only_on("torch", "examples are tested on one backend")

FSDD = ROOT.parent / "shared" / "data" / "fsdd"


def overtones(pitch, seconds, seed, rate=8000):
    """Not a voice, but a sound with overtones and a little noise."""
    time = np.arange(round(rate * seconds)) / rate
    parts = [np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)]
    noise = np.random.default_rng(seed).normal(size=len(time))
    return 0.2 * sum(parts) + 0.01 * noise


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


@pytest.fixture(params=["with soundfile", "without soundfile"])
def either(request, monkeypatch):
    """WAV files are to be read with and without the package."""
    if request.param == "without soundfile":
        monkeypatch.setattr(audio, "soundfile", None)
    else:
        pytest.importorskip("soundfile")


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
def test_samples_are_right_whatever_their_format(
    tmp_path, either, kind, scale, shift
):
    expected = tone()
    stored = expected * scale + shift
    if kind[0] != "f":
        stored = np.round(stored)
    wavfile.write(tmp_path / "a.wav", 8000, stored.astype(kind))
    rate, samples = audio.read(tmp_path / "a.wav")
    assert rate == 8000
    assert samples.dtype == np.float32
    step = 1 / scale if kind[0] != "f" else 0
    np.testing.assert_allclose(samples, expected, atol=step / 2 + 1e-6)
    assert audio.info(tmp_path / "a.wav") == (8000, len(expected))


def test_24_bits(tmp_path, either):
    expected = tone(rate=11025)
    write_24_bit(tmp_path / "a.wav", expected, 11025)
    rate, samples = audio.read(tmp_path / "a.wav")
    assert rate == 11025
    np.testing.assert_allclose(samples, expected, atol=2.0**-22)
    assert audio.info(tmp_path / "a.wav") == (11025, len(expected))


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [
        ("a.flac", "PCM_16", 2.0**-15),
        ("a.FLAC", "PCM_24", 2.0**-22),
        ("a.ogg", "VORBIS", 0.05),
        ("a.wav", "ULAW", 0.02),
    ],
)
def test_what_soundfile_reads(tmp_path, name, kind, tolerance):
    soundfile = pytest.importorskip("soundfile")
    left, right = tone(), tone(pitch=300, loudness=0.2)
    stereo = np.stack([left, right], axis=1)
    soundfile.write(tmp_path / name, stereo, 8000, subtype=kind)
    assert audio.info(tmp_path / name) == (8000, len(left))
    rate, samples = audio.read(tmp_path / name)
    assert (rate, samples.dtype) == (8000, np.float32)
    np.testing.assert_allclose(samples, (left + right) / 2, atol=tolerance)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_without_soundfile_the_package_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setattr(audio, "soundfile", None)
    for function in (audio.info, audio.read):
        with pytest.raises(DataError, match="pip install soundfile"):
            function(tmp_path / name)
    assert audio.unreadable("a.wav") is None


@pytest.mark.parametrize("name", ["a.mp3", "a.M4A", "a.opus"])
def test_formats_that_are_not_read(tmp_path, name):
    for function in (audio.info, audio.read):
        with pytest.raises(DataError, match=f"ffmpeg -i {name} a.wav"):
            function(tmp_path / name)


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(), tone(pitch=300, loudness=0.2)
    write(tmp_path / "a.wav", np.stack([left, right], axis=1))
    _, samples = audio.read(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable WAV"),
        (b"RIFF1234WAVEjunk", "not a readable WAV"),
        (b"nothing of the kind" * 50, "not a readable WAV"),
        (np.zeros(0), "empty"),
        (np.ones(399), "shorter than 50 ms"),
        (np.zeros(8000), "silent"),
        (np.full(8000, 0.25), "one value only"),
        (np.full(8000, np.nan), "not finite"),
        (np.append(tone(), np.inf), "not finite"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, either, content, words):
    path = tmp_path / "a.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(DataError, match=words):
        audio.read(path)
    if words in ("shorter than 50 ms", "empty", "not a readable WAV"):
        with pytest.raises(DataError, match=words):
            audio.info(path)


@pytest.mark.parametrize("rate", [1, 50, 3999])
def test_a_rate_too_low_for_a_voice(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(2, 8000), rate)
    for function in (audio.info, audio.read):
        with pytest.raises(DataError, match=f"^{rate} samples a second"):
            function(path)
    assert audio.info(write(path, rate=4000))[0] == 4000


@pytest.mark.parametrize("size", [30, 44, 5000])
def test_a_file_that_breaks_off_is_not_readable(tmp_path, either, size):
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:size])
    for function in (audio.info, audio.read):
        with pytest.raises(DataError, match=r"not a readable WAV|empty"):
            function(path)


def test_a_flac_file_that_breaks_off(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(size=9000) / 9, 8000)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="not a readable FLAC"):
        audio.read(path)


@pytest.mark.parametrize(
    ("rate", "to"), [(44_100, 16_000), (22_050, 16_000), (8000, 16_000)]
)
def test_resampling_is_that_of_scipy(rate, to):
    samples = np.random.default_rng(0).normal(size=3001).astype("float32")
    expected = signal.resample_poly(samples, to, rate, padtype="mean")
    found = audio.resample(samples, rate, to)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(found) == audio.resampled_count(3001, rate, to)


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100])
@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_another_speed_changes_length_and_pitch(rate, speed):
    samples = tone(1.0, rate, pitch=400).astype("float32")
    found = audio.resample(samples, rate, 8000, speed)
    assert len(found) == pytest.approx(8000 / speed, abs=5)
    assert len(found) == audio.resampled_count(rate, rate, 8000, speed)
    expected = tone(len(found) / 8000, pitch=400 * speed)
    middle = slice(200, 4000)  # later, the phase is another
    np.testing.assert_allclose(found[middle], expected[middle], atol=0.02)


def test_nothing_to_resample():
    samples = tone()
    assert audio.resample(samples, 8000, 8000) is samples


@pytest.mark.skipif(not FSDD.is_dir(), reason="../shared/data/fsdd is absent")
def test_a_real_recording():
    rate, samples = audio.read(FSDD / "recordings" / "7_theo_3.wav")
    assert rate == 8000
    assert 0.01 < np.abs(samples).max() <= 1


def test_files_are_found_through_links(tmp_path):
    """As of speakers whose folders lie elsewhere, and with no end in a ring."""
    for name in ["far/anna/2.wav", "far/anna/1.MP3", "near/bert/3.flac"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    near = tmp_path / "near"
    for name in ["note.txt", "bert/._3.flac", "bert/album.wav/4.ogg"]:
        (near / name).parent.mkdir(exist_ok=True)
        (near / name).touch()
    (near / "carl").symlink_to(tmp_path / "far" / "anna")
    (near / "bert" / "ring").symlink_to(near)
    (near / "bert" / "gone.wav").symlink_to(tmp_path / "nowhere")
    found = [str(path.relative_to(near)) for path in audio.files(near)]
    assert found == [
        "bert/3.flac",
        "bert/album.wav/4.ogg",
        "bert/gone.wav",
        "carl/1.MP3",
        "carl/2.wav",
    ]
