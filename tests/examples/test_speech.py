"""Recordings are found, and split without overlap."""

import sys
import unicodedata
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.examples.test_audio import tone, write
from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import audio  # noqa: E402
import features  # noqa: E402
import speech  # noqa: E402
from audio import DataError  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend.
pytestmark = only_on("torch", "examples are tested on one backend")

FSDD = ROOT.parent / "shared" / "data" / "fsdd"
ARABIC = ROOT.parent / "shared" / "data" / "arabic_speech_commands"


def folder_of(tmp_path, speakers, count=6, flat=False, rate=8000):
    for index, speaker in enumerate(speakers):
        for take in range(count):
            name = f"{speaker}/session/{take}.wav"
            if flat:
                name = f"{take % 10}_{speaker}_{take}.wav"
            pitch = 120 + 40 * index + take
            write(tmp_path / name, tone(0.3, rate, pitch), rate)
    return tmp_path


def wav_folder(directory, speeds=(), **options):
    return speech.wav_folder(directory, speeds=speeds, **options)


def find(directory):
    skipped = {}
    found = speech.find_recordings(
        directory, lambda path, why: skipped.update({path.name: why})
    )
    return found, skipped


def test_speakers_are_the_first_folders(tmp_path):
    write(tmp_path / "anna" / "a" / "b" / "1.WAV")
    write(tmp_path / "anna" / "0_bert_7.wav")
    write(tmp_path / "carl" / "2.wav")
    write(tmp_path / ".trash" / "3.wav")
    write(tmp_path / "carl" / "._2.wav")
    found, skipped = find(tmp_path)
    assert {each.path.name: each.speaker for each in found} == {
        "1.WAV": "anna",
        "0_bert_7.wav": "anna",
        "2.wav": "carl",
    }
    assert {each.take for each in found} == {None}
    assert {each.folders for each in found} == {("a", "b"), ()}
    assert not skipped


@pytest.mark.parametrize("inner", ["", "recordings"])
def test_fsdd_names(tmp_path, inner):
    write(tmp_path / inner / "0_anna_7.wav")
    write(tmp_path / inner / "9_van_der_berg_12.wav")
    if not inner:
        write(tmp_path / inner / "hello.wav")
    found, skipped = find(tmp_path)
    assert [(each.speaker, each.take) for each in found] == [
        ("anna", 7),
        ("van_der_berg", 12),
    ]
    assert set(skipped) == (set() if inner else {"hello.wav"})


def test_names_in_any_script(tmp_path):
    names = ["Ольга", "林小明", "سلمى", "José"]
    for name in names[:3]:
        folder_of(tmp_path, [name])
    decomposed = unicodedata.normalize("NFD", "José")
    folder_of(tmp_path, [decomposed])
    for spelling in ("José", decomposed):
        corpus = wav_folder(tmp_path, unseen=[spelling, "林小明"])
        assert set(corpus.names) == set(names)
        assert set(corpus.names[2:]) == {"José", "林小明"}


def test_a_flat_folder_of_other_names_is_told_the_layouts(tmp_path):
    for name in ("anna 1.wav", "anna 2.wav", "bert.wav"):
        write(tmp_path / name)
    words = r"anna 1\.wav and 2 more files; expected is DIR/<speaker>/"
    with pytest.raises(DataError, match=words):
        wav_folder(tmp_path)
    # Below one folder more than expected.
    folder_of(tmp_path / "x" / "y", "ab")
    with pytest.raises(DataError, match=r"1 speaker\(s\).*DIR/<speaker>/"):
        wav_folder(tmp_path / "x")


def test_the_parts_of_a_corpus_do_not_overlap(tmp_path):
    folder_of(tmp_path, "abcd", count=10)
    corpus = wav_folder(tmp_path, unseen=2)
    assert sorted(corpus.names) == ["a", "b", "c", "d"]
    assert (corpus.features, corpus.rate) == ("log_mel", 8000)
    parts = [*corpus.hold_out(0), corpus.test, corpus.unseen]
    assert [len(part) for part in parts] == [12, 4, 4, 20]
    for part in parts[:3]:
        assert set(part.speaker) == {0, 1}
    assert set(corpus.unseen.speaker) == {2, 3}
    paths = np.concatenate([part.paths for part in parts])
    assert len(set(paths)) == len(paths) == 40
    again = wav_folder(tmp_path, unseen=2)
    np.testing.assert_array_equal(again.test.segments, corpus.test.segments)
    np.testing.assert_array_equal(again.test.paths, corpus.test.paths)
    other = wav_folder(tmp_path, unseen=2, seed=1)
    assert not np.array_equal(other.test.paths, corpus.test.paths)


def test_every_row_is_of_its_file_and_its_speaker(tmp_path):
    folder_of(tmp_path, "abcd", count=8)
    write(tmp_path / "b" / "session" / "2.wav", tone(0.9))
    corpus = wav_folder(tmp_path, speeds=(0.8,), unseen=2)
    speeds = [(corpus.training, 1.0), (corpus.test, 1.0), (corpus.unseen, 1.0)]
    for part, speed in [*speeds, (corpus.copies[0], 0.8)]:
        expected, owner = features.log_mel_segments(
            part.paths, 8000, corpus.training.shape[0], speed
        )
        np.testing.assert_array_equal(part.segments, expected)
        np.testing.assert_array_equal(part.owner, owner)
        for path, speaker in zip(part.paths, part.speaker, strict=True):
            assert corpus.names[speaker % 4] == path.parts[-3]
    (copy,) = corpus.copies
    np.testing.assert_array_equal(copy.paths, corpus.training.paths)
    np.testing.assert_array_equal(copy.speaker, corpus.training.speaker + 4)


def test_a_cache_changes_nothing_and_fits_every_split(tmp_path, monkeypatch):
    folder_of(tmp_path / "x", "abcd", count=8)
    options = {"speeds": (0.8, 1.2), "unseen": 2}
    expected = wav_folder(tmp_path / "x", **options)
    other = wav_folder(tmp_path / "x", seed=1, **options)
    cache = tmp_path / "cache"
    found = wav_folder(tmp_path / "x", cache=cache, **options)
    monkeypatch.setattr(audio, "read", None)  # nothing is read any more
    again = wav_folder(tmp_path / "x", cache=cache, **options)
    another = wav_folder(tmp_path / "x", cache=cache, seed=1, **options)
    for left, right in [(found, expected), (again, found), (another, other)]:
        parts = [(left.training, right.training), (left.test, right.test)]
        parts += zip(left.copies, right.copies, strict=True)
        for mine, its in [*parts, (left.unseen, right.unseen)]:
            np.testing.assert_array_equal(mine.segments, its.segments)
            np.testing.assert_array_equal(mine.owner, its.owner)
            np.testing.assert_array_equal(mine.speaker, its.speaker)
            np.testing.assert_array_equal(mine.paths, its.paths)
    assert isinstance(again.test.array, np.memmap)


def test_fsdd_tests_on_the_takes_0_to_4(tmp_path):
    folder_of(tmp_path, ["anna", "bert"], count=12, flat=True)
    corpus = wav_folder(tmp_path)
    assert corpus.unseen is None
    assert [len(corpus.training), len(corpus.test)] == [14, 10]
    files = [tmp_path / f"{take}_anna_{take}.wav" for take in range(5)]
    test = corpus.test[corpus.test.speaker == 0]
    assert test.paths.tolist() == files


def sessions(tmp_path, sizes):
    """Two speakers with as many files in their subfolders."""
    for speaker in "ab":
        for folder, size in enumerate(sizes):
            for take in range(size):
                write(tmp_path / speaker / f"s{folder}" / f"{take}.wav")
    return tmp_path


@pytest.mark.parametrize(
    ("sizes", "least", "most"),
    [
        ([2, 2, 2], 2, 2),
        ([4, 4, 4], 4, 4),
        ([10] * 6, 10, 20),
        ([2] * 20, 8, 8),
        ([3, 20, 20, 20], 3, 23),
        ([40, 2, 2, 2, 2, 2], 10, 10),
        ([1, 4, 4, 4], 4, 5),
    ],
)
def test_no_session_is_on_both_sides(tmp_path, sizes, least, most):
    sessions(tmp_path, sizes)
    tested = set()
    for seed in range(4):
        corpus = wav_folder(tmp_path, seed=seed)
        sides = [
            {path.parent for path in part.paths}
            for part in (corpus.training, corpus.test)
        ]
        assert not sides[0] & sides[1]
        for count in np.bincount(corpus.test.speaker):
            assert least <= count <= most
        assert np.bincount(corpus.training.speaker).min() >= 4
        tested |= sides[1]
    if sizes[0] == sizes[-1]:
        assert len(tested) > 2  # drawn by the seed


@pytest.mark.parametrize("sizes", [[5, 5], [5, 5, 1], [1] * 10])
def test_other_subfolders_are_no_sessions(tmp_path, sizes):
    corpus = wav_folder(sessions(tmp_path, sizes))
    assert np.bincount(corpus.test.speaker).tolist() == [2, 2]


def test_sessions_may_lie_deeper(tmp_path):
    for speaker in "ab":
        for video in range(5):
            for take in range(2):
                write(tmp_path / speaker / "wav" / f"{video}" / f"{take}.wav")
    corpus = wav_folder(tmp_path)
    videos = {path.parent for path in corpus.test.paths}
    assert (len(videos), len(corpus.test)) == (2, 4)


def test_a_folder_of_flac_and_ogg(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    for speaker in "ab":
        (tmp_path / speaker).mkdir()
        for take in range(6):
            name = f"{speaker}/{take}.{'ogg' if take == 3 else 'flac'}"
            soundfile.write(tmp_path / name, tone(pitch=200 + take), 8000)
    corpus = wav_folder(tmp_path)
    assert len(corpus.training) + len(corpus.test) == 12
    monkeypatch.setattr(audio, "soundfile", None)
    write(tmp_path / "a" / "9.wav")
    words = r"0\.flac: .*pip install soundfile"
    with pytest.raises(DataError, match=words):
        wav_folder(tmp_path)


def test_the_lowest_rate_decides_up_to_16_khz(tmp_path, capsys):
    folder_of(tmp_path / "x", "ab", rate=22_050)
    assert wav_folder(tmp_path / "x").rate == 16_000
    assert capsys.readouterr().err == ""
    low = write(tmp_path / "x" / "a" / "low.wav", rate=11_025)
    assert wav_folder(tmp_path / "x").rate == 11_025
    printed = capsys.readouterr().err
    assert "brought to 11025 Hz" in printed
    assert f"without {low} it would be 16000 Hz" in printed
    # Where most files have it, there is nothing to say.
    folder_of(tmp_path / "y", "abc", rate=8000)
    folder_of(tmp_path / "y", "d", rate=16_000)
    assert wav_folder(tmp_path / "y").rate == 8000
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [(0.3, 50), (0.5, 50), (0.51, 100), (2.3, 250), (4.95, 500), (6.0, 500)],
)
def test_a_segment_holds_nearly_every_utterance(tmp_path, seconds, frames):
    folder_of(tmp_path, "ab")
    for row in range(3):
        write(tmp_path / "a" / f"long{row}.wav", tone(seconds))
    corpus = wav_folder(tmp_path)
    assert corpus.training.shape == (frames, 64)
    assert corpus.test.shape == corpus.training.shape


@pytest.mark.parametrize(
    ("unseen", "drawn"), [(["2"], 2), (["3", "5"], 2), (["7", "1", "2"], 3)]
)
def test_a_word_is_a_name_if_it_can_be_and_else_a_number(
    tmp_path, unseen, drawn
):
    folder_of(tmp_path, "13579" if "2" not in unseen[1:] else "12579")
    corpus = wav_folder(tmp_path, unseen=unseen)
    left = {corpus.names[one] for one in np.unique(corpus.unseen.speaker)}
    assert len(left) == drawn
    if len(unseen) > 1:
        assert left == set(unseen)


def test_the_name_of_one_speaker_is_no_number(tmp_path):
    folder_of(tmp_path, "13579")
    with pytest.raises(DataError, match="1 unseen speakers"):
        wav_folder(tmp_path, unseen=["3"])


def test_one_long_utterance_does_not_make_all_segments_long(tmp_path):
    folder_of(tmp_path, "abcd")
    write(tmp_path / "a" / "long.wav", tone(2.9))
    assert wav_folder(tmp_path).training.shape == (50, 64)


def test_bad_files_are_named_and_skipped(tmp_path, capsys):
    folder_of(tmp_path, "ab")
    bad = {
        "broken": "not a readable WAV",
        "constant": "it holds one value only",
        "silent": "it is silent",
        "slow": "50 samples a second are too few",
    }
    (tmp_path / "a" / "broken.wav").write_bytes(b"RIFF")
    write(tmp_path / "a" / "silent.wav", np.zeros(4000))
    write(tmp_path / "b" / "constant.wav", np.full(4000, 0.3))
    write(tmp_path / "b" / "slow.wav", rate=50, samples=tone())
    write(tmp_path / "c" / "alone.wav")
    corpus = wav_folder(tmp_path)
    printed = capsys.readouterr().err
    for name, words in bad.items():
        assert f"{name}.wav is skipped: {words}" in printed
    assert "fewer than 6 usable utterances, left out: c" in printed
    assert corpus.names == ["a", "b"]
    assert len(corpus.training) + len(corpus.test) == 12
    paths = [*corpus.training.paths, *corpus.test.paths]
    assert {path.stem for path in paths} == set("012345")


def test_five_bad_files_are_named_at_most(tmp_path, capsys):
    folder_of(tmp_path, "ab")
    for number in range(4):
        (tmp_path / "a" / f"song{number}.mp3").write_bytes(b"ID3")
        (tmp_path / "a" / f"short{number}.wav").write_bytes(b"")
        write(tmp_path / "a" / f"silent{number}.wav", np.zeros(4000))
    wav_folder(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert ["song" in line for line in lines] == [True] * 4 + [False] * 2
    assert lines[5] == "warning: and 7 more files are skipped"


def test_a_speaker_of_silence_is_left_out(tmp_path, capsys):
    folder_of(tmp_path, "abc")
    for path in (tmp_path / "b").rglob("*.wav"):
        write(path, np.zeros(4000))
    corpus = wav_folder(tmp_path)
    assert corpus.names == ["a", "c"]
    folder_of(tmp_path, "b", count=3)
    assert wav_folder(tmp_path).names == ["a", "c"]
    assert "fewer than 6 usable utterances, left out: b" in (
        capsys.readouterr().err
    )


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        wav_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no WAV, FLAC or OGG files"):
        wav_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"no recording in .* can be used"):
        wav_folder(tmp_path)
    folder_of(tmp_path, "a")
    with pytest.raises(DataError, match=r"1 speaker\(s\).*at least two"):
        wav_folder(tmp_path)


@pytest.mark.parametrize(
    ("unseen", "words"),
    [
        (2, "2 unseen of 3 speakers leave 1 to train on"),
        (99, "99 unseen of 3 speakers leave 0 to train on"),
        (1, "at least 2"),
        (["a"], "1 unseen speakers.*at least 2"),
        (-1, "at least 2"),
        (["a", "zoe", "max"], "no speaker max, zoe .*there is a, b, c"),
        (["a", "d"], "no speaker d with enough"),
        ("zoe", "no speaker zoe"),
    ],
)
def test_unseen_speakers_that_cannot_be(tmp_path, monkeypatch, unseen, words):
    folder_of(tmp_path, "abc")
    folder_of(tmp_path, "d", count=2)
    monkeypatch.setattr(audio, "read", None)  # it is said at once
    with pytest.raises(DataError, match=words):
        wav_folder(tmp_path, unseen=unseen)


def test_unseen_speakers_are_drawn_or_named(tmp_path):
    folder_of(tmp_path, "abcdef")
    drawn = set()
    for seed in range(6):
        corpus = wav_folder(tmp_path, seed=seed)
        assert set(corpus.unseen.speaker) == {4, 5}  # a third
        assert set(corpus.training.speaker) == {0, 1, 2, 3}
        assert set(corpus.test.speaker) == {0, 1, 2, 3}
        folders = {path.parts[-3] for path in corpus.unseen.paths}
        assert folders == set(corpus.names[4:])
        drawn.add(tuple(corpus.names[4:]))
    assert len(drawn) > 2
    corpus = wav_folder(tmp_path, unseen=["b", "a", "d", "a"])
    assert corpus.names == ["c", "e", "f", "a", "b", "d"]
    assert {path.parts[-3] for path in corpus.unseen.paths} == set("abd")
    assert wav_folder(tmp_path, unseen=0).unseen is None


def corpus_of(speakers, utterances=10):
    """As many speakers; the number in a segment is that of its utterance."""
    count = speakers * utterances
    segments = np.arange(1.0, count + 1)[:, None, None] * np.ones((1, 2, 3))
    speaker = np.repeat(np.arange(speakers), utterances)
    training = speech.Utterances(segments, np.arange(count), speaker)
    copy = speech.Utterances(-segments, np.arange(count), speaker + speakers)
    names = [str(number) for number in range(speakers)]
    return speech.Corpus(
        training, training[:0], None, names, "log_mel", copies=(copy,)
    )


def test_a_fifth_of_each_speaker_is_held_out():
    corpus = corpus_of(3)
    training, held_out = corpus.hold_out(0)
    assert np.bincount(training.speaker).tolist() == [8, 8, 8]
    assert np.bincount(held_out.speaker).tolist() == [2, 2, 2]
    rows = corpus.held_out_rows(0)
    (copy,) = corpus.copies
    np.testing.assert_array_equal(copy[~rows].segments, -training.segments)
    np.testing.assert_array_equal(copy[rows].segments, -held_out.segments)


@pytest.mark.parametrize(("speakers", "drawn"), [(9, 3), (18, 6), (30, 10)])
def test_speakers_to_validate_on(speakers, drawn):
    corpus = corpus_of(speakers)
    training, valid, rows = corpus.validation_speakers(0)
    assert not set(training.speaker) & set(valid.speaker)
    assert len(set(valid.speaker)) == drawn
    assert len(training) + len(valid) == 10 * speakers
    (copy,) = corpus.copies
    np.testing.assert_array_equal(copy[rows].segments, -training.segments)
    others = {tuple(corpus.validation_speakers(s)[1].speaker) for s in range(5)}
    assert len(others) > 2


def test_too_few_speakers_to_validate_on():
    assert corpus_of(8).validation_speakers(0) is None


def test_a_small_corpus_keeps_its_copies_row_for_row():
    small = corpus_of(3).small(4)
    assert np.bincount(small.training.speaker).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(
        small.copies[0].segments, -small.training.segments
    )


def test_utterances_are_chosen_and_averaged():
    data = speech.Utterances(
        np.arange(6.0)[:, None, None] * np.ones((6, 2, 3)),
        owner=np.array([0, 0, 1, 2, 2, 2]),
        speaker=np.array([7, 8, 7]),
        paths=["x", "y", "z"],
    )
    assert data.shape == (2, 3)
    assert data.segment_speaker.tolist() == [7, 7, 8, 7, 7, 7]
    chosen = data[data.speaker == 7]
    assert len(chosen) == 2
    assert chosen.segments[:, 0, 0].tolist() == [0, 1, 3, 4, 5]
    assert chosen.owner.tolist() == [0, 0, 1, 1, 1]
    assert chosen.paths.tolist() == ["x", "z"]
    assert chosen.batch([4, 1])[:, 0, 0].tolist() == [5, 1]
    assert chosen.batch(slice(1, 3))[:, 0, 0].tolist() == [1, 3]
    means = chosen.average(chosen.segments[:, 0])
    assert means.tolist() == [[0.5] * 3, [4.0] * 3]
    # Of a choice, in any order, and twice.
    again = chosen[[1, 0, 1]]
    assert again.segments[:, 0, 0].tolist() == [3, 4, 5, 0, 1, 3, 4, 5]
    assert again.owner.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert again.paths.tolist() == ["z", "x", "z"]
    assert len(data[data.speaker == 9]) == 0
    assert data[data.speaker == 9].segments.shape == (0, 2, 3)


def test_choosing_copies_no_segment():
    array = np.zeros((6, 2, 3), "float16")
    data = speech.Utterances(array, np.arange(6), np.arange(6))
    chosen = data[[0, 5]][[1]]
    assert chosen.array is array
    assert chosen.batch([0]).dtype == chosen.segments.dtype == np.float32
    array = array.astype("float32")
    data = speech.Utterances(array, np.arange(6), np.arange(6))
    assert np.shares_memory(data.segments, array)


def test_japanese_vowels_keeps_the_official_test_split():
    corpus = speech.japanese_vowels()
    assert corpus.features == "cepstrum"
    assert corpus.names == [f"speaker {number}" for number in range(1, 10)]
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
    everyone = speech.japanese_vowels()
    drawn = set()
    for seed in range(4):
        corpus = speech.japanese_vowels(unseen=3, seed=seed)
        assert corpus.training.speaker.max() == corpus.test.speaker.max() == 5
        assert set(corpus.unseen.speaker) == {6, 7, 8}
        # The numbers belong to the same names as ever.
        for mine in range(9):
            its = everyone.names.index(corpus.names[mine])
            part = corpus.unseen if mine > 5 else corpus.test
            np.testing.assert_array_equal(
                part[part.speaker == mine].segments,
                everyone.test[everyone.test.speaker == its].segments,
            )
        drawn.add(tuple(corpus.names[6:]))
    assert len(drawn) > 1
    corpus = speech.japanese_vowels(unseen=["speaker 1", "speaker 4"])
    assert corpus.names[7:] == ["speaker 1", "speaker 4"]
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
    found, skipped = find(FSDD)
    assert (len(found), len(skipped)) == (3000, 0)
    assert sum(each.speaker == "theo" for each in found) == 500
    by_path = {each.path: each for each in found}
    each = by_path[FSDD / "recordings" / "7_theo_3.wav"]
    assert (each.speaker, each.take) == ("theo", 3)


@pytest.mark.skipif(not ARABIC.is_dir(), reason="../shared/data is absent")
def test_no_word_of_a_speaker_is_on_both_sides(tmp_path):
    for name in ("00000001", "00000002"):
        target = tmp_path / name
        for path in (ARABIC / name).rglob("*.wav"):
            link = target / path.relative_to(ARABIC / name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    corpus = wav_folder(tmp_path)
    assert np.bincount(corpus.test.speaker).tolist() == [16, 16]
    words = [
        {path.parent for path in part.paths}
        for part in (corpus.training, corpus.test)
    ]
    assert not words[0] & words[1]
    assert corpus.training.shape == (100, 64)
