"""Recordings are cut rightly, and a cache gives what it was given."""

import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tests.examples.test_audio import tone, write
from tests.testing import only_on, to_numpy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import audio  # noqa: E402
import features  # noqa: E402
import log_mel  # noqa: E402
from audio import DataError  # noqa: E402

pytestmark = only_on("torch", "examples are tested on one backend")


@pytest.fixture
def paths(tmp_path):
    seconds = {
        "short": 0.30,  # 30 frames
        "three": 1.00,  # 34 + 34 + 32
        "rest": 0.85,  # 29 + 29 + 27
        "exact": 0.40,
    }
    return [
        write(tmp_path / f"{name}.wav", tone(length))
        for name, length in seconds.items()
    ]


def test_segments_masks_and_owners(paths):
    array, owner = features.log_mel_segments(paths, 8000, 40)
    assert array.shape == (8, 40, log_mel.BANDS)
    assert array.dtype == np.float16
    assert owner.tolist() == [0, 1, 1, 1, 2, 2, 2, 3]
    lengths = array.any(axis=-1).sum(axis=1)
    assert lengths.tolist() == [30, 34, 34, 32, 29, 29, 27, 40]
    # Padding comes last.
    assert not array[0, 30:].any()
    assert array[0, :30].any(axis=-1).all()


def test_the_raw_segments_are_the_recording(paths):
    _, samples = audio.read(paths[1])
    segments = features.waveform_segments(paths[1], 8000, 40)
    assert segments.shape == (3, 3200)
    assert not segments[:, 34 * 80 :].any()
    whole = segments[:, : 34 * 80].ravel()
    np.testing.assert_array_equal(whole[:8000], samples)
    assert not whole[8000:].any()


def test_the_features_are_those_of_the_layer(paths, monkeypatch):
    layer = log_mel.LogMel(8000)
    expected = np.concatenate(
        [
            to_numpy(layer(features.waveform_segments(path, 8000, 40)))
            for path in paths
        ]
    )
    for seconds in (60, 1):  # one batch, and batches of two segments
        monkeypatch.setattr(features, "BATCH", seconds)
        array, _ = features.log_mel_segments(paths, 8000, 40)
        np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-3)
        zero = (expected == 0).all(axis=-1)
        np.testing.assert_array_equal((array == 0).all(axis=-1), zero)


@pytest.mark.parametrize("offset", [0.0, 1 / 128])
def test_silence_within_a_recording_makes_no_segment(tmp_path, offset):
    """With 8 bits it is often the value beside 0."""
    quiet = np.concatenate([tone(0.4), np.full(3200, offset), tone(0.4)])
    path = write(tmp_path / "a.wav", quiet)
    array, owner = features.log_mel_segments([path, path], 8000, 40)
    assert owner.tolist() == [0, 0, 1, 1]
    assert array.any(axis=(1, 2)).all()


def test_sound_in_the_last_moment_alone_is_kept(tmp_path):
    samples = np.concatenate([np.zeros(3200), tone(0.05)])
    path = write(tmp_path / "a.wav", samples)
    assert features.waveform_segments(path, 8000, 40).any(axis=1).all()


def test_a_step_from_silence_to_silence_is_no_recording(tmp_path):
    step = np.repeat([0.0, 0.5], 3200)
    path = write(tmp_path / "a.wav", step)
    with pytest.raises(DataError, match="silent"):
        features.waveform_segments(path, 8000, 40)


def test_files_of_any_rate_agree(tmp_path):
    low = write(tmp_path / "low.wav", tone(0.4))
    high = write(tmp_path / "high.wav", tone(0.4, 44_100) / 10, 44_100)
    array, _ = features.log_mel_segments([low, high], 8000, 40)
    middle = array[:, 5:35].astype("float32")
    np.testing.assert_allclose(middle[0].max(), middle[1].max(), atol=0.05)


def test_another_speed_has_no_more_segments(tmp_path):
    lengths = [0.4, 0.8, 0.84, 1.2]
    paths = [
        write(tmp_path / f"{row}.wav", tone(length))
        for row, length in enumerate(lengths)
    ]
    _, owner = features.log_mel_segments(paths, 8000, 40)
    assert np.bincount(owner).tolist() == [1, 2, 3, 3]
    slow, its = features.log_mel_segments(paths, 8000, 40, 0.8)
    assert np.bincount(its).tolist() == [1, 2, 3, 3]
    assert slow[0].any(axis=-1).all()
    fast, its = features.log_mel_segments(paths, 8000, 40, 1.25)
    assert fast[0].any(axis=-1).sum() == 32
    assert np.bincount(its).tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000])
@pytest.mark.parametrize("frames", [50, 300])
def test_headers_tell_how_many_segments_there_will_be(tmp_path, rate, frames):
    rng = np.random.default_rng(0)
    for row in range(12):
        found = int(rng.choice([8000, 11_025, 22_050]))
        speed = float(rng.choice([0.9, 1.0, 1.1]))
        samples = rng.normal(size=rng.integers(0.1 * found, 7 * found))
        path = write(tmp_path / f"{row}.wav", samples, found)
        count = features.segment_count(len(samples), found, rate, frames)
        segments = features.waveform_segments(path, rate, frames, speed)
        assert len(segments) == count


@pytest.mark.parametrize("cached", [False, True])
def test_what_cannot_be_used_is_an_error_or_told(tmp_path, paths, cached):
    cache = tmp_path / "cache" if cached else None
    silent = write(tmp_path / "silent.wav", np.zeros(9000))
    broken = write(tmp_path / "broken.wav")
    broken.write_bytes(b"RIFF")
    every = [paths[0], silent, broken, paths[3]]
    for _ in range(2):
        failed = {}
        array, owner = features.log_mel_segments(
            every, 8000, 40, cache=cache, failed=failed
        )
        assert owner.tolist() == [0, 3]
        assert len(array) == 2
        assert array.any(axis=(1, 2)).all()
        assert failed[1] == "it is silent"
        assert "not a readable WAV" in failed[2]
        assert set(failed) == {1, 2}
        with pytest.raises(DataError, match=r"silent\.wav: it is silent"):
            features.log_mel_segments(every, 8000, 40, cache=cache)


def count_reads(monkeypatch):
    read, calls = audio.read, []

    def counted(path):
        calls.append(path)
        return read(path)

    monkeypatch.setattr(audio, "read", counted)
    return calls


def test_a_cache_gives_the_same_without_reading(tmp_path, paths, monkeypatch):
    expected, owner = features.log_mel_segments(paths, 8000, 40)
    calls = count_reads(monkeypatch)
    cache = tmp_path / "new" / "cache"
    for _ in range(2):
        array, its_owner = features.log_mel_segments(
            paths, 8000, 40, cache=cache
        )
        assert isinstance(array, np.memmap)
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(its_owner, owner)
    assert calls == paths  # once
    kinds = sorted(path.suffix for path in cache.iterdir())
    assert kinds == [".json", ".npy"]


def test_a_cache_knows_what_has_changed(tmp_path, paths, monkeypatch):
    cache = tmp_path / "cache"
    calls = count_reads(monkeypatch)

    def is_made(paths=paths, rate=8000, frames=40, speed=1.0):
        calls.clear()
        features.log_mel_segments(paths, rate, frames, speed, cache)
        return bool(calls)

    assert is_made()
    assert not is_made()
    assert is_made(rate=4000)
    assert is_made(frames=50)
    assert is_made(speed=1.1)
    assert is_made(paths[::-1])
    assert not is_made()
    stat = paths[0].stat()
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert is_made()
    write(paths[0], tone(0.2))
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert is_made()
    monkeypatch.setattr(features, "VERSION", features.VERSION + 1)
    assert is_made()


def test_what_is_half_written_is_never_taken(tmp_path, paths, monkeypatch):
    cache = tmp_path / "cache"
    expected, _ = features.log_mel_segments(paths, 8000, 40)
    read = audio.read

    def stop(path):
        if path == paths[2]:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(audio, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        features.log_mel_segments(paths, 8000, 40, cache=cache)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(audio, "read", read)
    features.log_mel_segments(paths, 8000, 40, cache=cache)
    (table,) = cache.glob("*.json")
    (stored,) = cache.glob("*.npy")
    # Between the two renamings, or the array is lost.
    for lost in (table, stored):
        lost.unlink()
        array, _ = features.log_mel_segments(paths, 8000, 40, cache=cache)
        np.testing.assert_array_equal(array, expected)
    assert sum(json.loads(table.read_text())["counts"]) == len(expected)


def test_a_cache_that_cannot_be_written(tmp_path, paths, monkeypatch):
    file = write(tmp_path / "file.wav")
    with pytest.raises(DataError, match="nothing can be written to"):
        features.log_mel_segments(paths, 8000, 40, cache=file)
    full = types.SimpleNamespace(free=100)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: full)
    with pytest.raises(DataError, match=r"features take .* has 0\.0 GB left"):
        features.log_mel_segments(paths, 8000, 40, cache=tmp_path / "cache")


def test_no_recordings_at_all(tmp_path):
    for cache in (None, tmp_path / "cache"):
        array, owner = features.log_mel_segments([], 8000, 40, cache=cache)
        assert array.shape == (0, 40, log_mel.BANDS)
        assert owner.shape == (0,)


def test_progress_is_shown_only_if_it_takes_long(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(features.time, "monotonic", lambda: now[0])

    def run(seconds):
        for item in features.progress([1, 2, 3, 4], "reading"):
            assert item
            now[0] += seconds
        return capsys.readouterr()

    assert run(0.4) == ("", "")
    out, printed = run(5)
    assert out == ""
    assert "reading: [#######......................." in printed
    assert "25%, 15 s left" in printed
    assert "done in 20 s" in printed
