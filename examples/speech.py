"""Speech for siamese_speaker.py: who said what, as arrays of numbers.

Two sources give the same shape of data:

- `japanese_vowels()`: nine men say the vowels /ae/. The recordings come with
  the package `aeon`, already turned into 12 cepstrum coefficients per frame.
- `wav_folder(directory)`: your own recordings. Each file becomes a log-mel
  spectrogram: 64 numbers for every 10 milliseconds.

A network wants arrays of one size. So an utterance is cut into *segments* of
equal length, filled up with zeros. The model masks frames that are all zero:
they count for nothing.
"""

import collections
import contextlib
import dataclasses
import re
import sys
import unicodedata
from pathlib import Path

import audio
import features
import keras
import numpy as np
from audio import DataError
from utterances import Corpus, Utterances, fifth

HIGHEST_RATE = 16_000  # Hz; more adds little to a voice
LONGEST = 500  # frames of a segment
FEWEST = 6  # utterances of a speaker: two to train, to validate and to test
FSDD = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/"
    "archive/refs/heads/master.zip"
)
FSDD_NAME = re.compile(r"(?P<digit>\d+)_(?P<speaker>.+)_(?P<take>\d+)")
LAYOUTS = (
    "DIR/<speaker>/**/*.wav (a folder for each speaker), or all in one folder "
    "as DIR/{digit}_{speaker}_{take}.wav; .flac and .ogg as well"
)


def warn(message):
    print(f"warning: {message}", file=sys.stderr)


def japanese_vowels(unseen=0, seed=0):
    """The data set JapaneseVowels with its official split into train and test.

    Of `unseen` speakers, drawn by `seed` or given as a list of their names,
    nothing is trained on: only their test utterances are used.
    """
    from aeon.datasets import load_japanese_vowels

    split = {}
    for part in ("train", "test"):
        series, labels = load_japanese_vowels(split=part)
        segments = np.zeros((len(series), 29, 12), "float32")
        for row, values in zip(segments, series, strict=True):
            row[: values.shape[1]] = values.T
        names, speaker = np.unique(labels, return_inverse=True)
        split[part] = Utterances(segments, np.arange(len(series)), speaker)
    names = [f"speaker {name}" for name in names]
    drawn = _draw_unseen(names, unseen, np.random.default_rng(seed))
    ordered = _seen_first(names, drawn)
    new_id = np.array([ordered.index(name) for name in names])
    train, test = split["train"], split["test"]
    train.speaker, test.speaker = new_id[train.speaker], new_id[test.speaker]
    seen = len(names) - len(drawn)
    return Corpus(
        train[train.speaker < seen],
        test[test.speaker < seen],
        test[test.speaker >= seen] if drawn else None,
        ordered,
        "cepstrum",
    )


def download_fsdd():
    """The folder of the Free Spoken Digit Dataset, fetched when missing."""
    path = Path(keras.utils.get_file("fsdd.zip", FSDD, extract=True))
    folders = [folder for folder in path.rglob("recordings") if folder.is_dir()]
    if not folders:
        raise DataError(f"{FSDD} has no folder 'recordings' any more")
    return folders[0]


def wav_folder(directory, unseen=None, seed=0, cache=None, speeds=(0.9, 1.1)):
    """The recordings of a folder, split by speaker and by utterance.

    Files are `directory/<speaker>/**/*.wav`, or, all in one folder,
    `{digit}_{speaker}_{take}.wav` as in the Free Spoken Digit Dataset. There
    the takes 0 to 4 are the official test set. Otherwise about a fifth of every
    speaker's utterances is the test set, drawn by `seed`. Where a speaker has
    at least three subfolders with two files or more, whole subfolders are
    drawn: they are recording sessions, which are easily told by themselves.

    `unseen` speakers are never trained on: a number of them, drawn by `seed`,
    or a list of names. If not given, it is a third of six or more.

    All files are brought to one sampling rate: the lowest among them, at most
    16 kHz. So no speaker can be told by the bandwidth of the recording. A
    segment is as long as nearly every utterance, at most 5 s.

    The corpus has copies of the training utterances at the `speeds`. With the
    folder `cache`, the features are kept there.
    """
    with _skipping() as skip:
        recordings = _with_headers(find_recordings(directory, skip), skip)
        recordings = _of_frequent_speakers(recordings, directory)
        # What is wrong with `unseen` is said before the features are made.
        _draw_unseen(_names(recordings), unseen, np.random.default_rng(seed))
        rate = _common_rate(recordings)
        frames = _segment_length(recordings, rate)
        paths = [each.path for each in recordings]
        failed = {}
        array, owner = features.log_mel_segments(
            paths, rate, frames, cache=cache, failed=failed
        )
        for row, why in sorted(failed.items()):
            skip(paths[row], why)
    good = [each for row, each in enumerate(recordings) if row not in failed]
    usable = _of_frequent_speakers(good, directory)
    place = {path: row for row, path in enumerate(paths)}
    data = Utterances(array, owner, np.zeros(len(paths), int), paths)
    data = data[[place[each.path] for each in usable]]
    rng = np.random.default_rng(seed)
    drawn = _draw_unseen(_names(usable), unseen, rng)
    names = _seen_first(_names(usable), drawn)
    new_id = {name: number for number, name in enumerate(names)}
    data.speaker = np.array([new_id[each.speaker] for each in usable])
    test = _test_set(usable, data.speaker, rng)
    known = data.speaker < len(names) - len(drawn)
    training = data[known & ~test]
    copies = []
    for number, speed in enumerate(speeds, 1):
        # A cache holds all of them, so that it suits any other split.
        copied = data if cache else training
        array, owner = features.log_mel_segments(
            copied.paths,
            rate,
            frames,
            speed,
            cache,
            title=f"features at speed {speed}",
            failed={},  # they were read before
        )
        speaker = copied.speaker + number * len(names)
        copy = Utterances(array, owner, speaker, copied.paths)
        copies.append(copy[known & ~test] if cache else copy)
    return Corpus(
        training,
        data[known & test],
        data[~known] if drawn else None,
        names,
        "log_mel",
        tuple(copies),
        rate,
    )


@dataclasses.dataclass
class Recording:
    """One file: who speaks, and what its place and its header tell.

    `folders` are those between the speaker's folder and the file, `take` is
    the number in a name of the Free Spoken Digit Dataset.
    """

    path: Path
    speaker: str
    folders: tuple = ()
    take: int | None = None
    rate: int | None = None
    samples: int | None = None


def find_recordings(directory, skip):
    """The recordings of a folder, in the order of their paths.

    `skip(path, why)` is called for audio files that are left out.
    """
    paths, others = [], []
    for path in audio.files(directory):
        known = path.suffix.lower() in audio.SUFFIXES
        (paths if known else others).append(path)
    for path in others:
        skip(path, audio.unreadable(path))
    if not paths:
        raise DataError(
            f"{directory} has no WAV, FLAC or OGG files; expected is {LAYOUTS}"
        )
    for path in paths:
        if why := audio.unreadable(path):
            raise DataError(f"{path}: {why}")
    flat = len({path.parent for path in paths}) == 1
    found, astray = [], []
    for path in paths:
        name = FSDD_NAME.fullmatch(path.stem)
        parts = path.relative_to(directory).parts
        if name and (flat or len(parts) == 1):
            speaker = _normalized(name["speaker"])
            found.append(Recording(path, speaker, take=int(name["take"])))
        elif len(parts) > 1:
            speaker = _normalized(parts[0])
            found.append(Recording(path, speaker, parts[1:-1]))
        else:
            astray.append(path)
    if not found:
        raise DataError(
            f"no speaker is known of {astray[0]}"
            + (f" and {len(astray) - 1} more files" if astray[1:] else "")
            + f"; expected is {LAYOUTS}"
        )
    for path in astray:
        skip(
            path,
            "it lies in no speaker's folder and is not named "
            "{digit}_{speaker}_{take}" + path.suffix,
        )
    return found


@contextlib.contextmanager
def _skipping():
    """`skip(path, why)` warns of a file that is left out; of five, at most."""
    count = 0

    def skip(path, why):
        nonlocal count
        count += 1
        if count <= 5:
            warn(f"{path} is skipped: {why}")

    try:
        yield skip
    finally:
        if count > 5:
            warn(f"and {count - 5} more files are skipped")


def _with_headers(recordings, skip):
    usable = []
    for each in features.progress(recordings, "reading headers"):
        try:
            each.rate, each.samples = audio.info(each.path)
        except DataError as error:
            skip(each.path, error)
        else:
            usable.append(each)
    return usable


def _of_frequent_speakers(recordings, directory):
    """The recordings of speakers with enough of them; two, at least."""
    if not recordings:
        raise DataError(f"no recording in {directory} can be used")
    count = collections.Counter(each.speaker for each in recordings)
    few = sorted(name for name in count if count[name] < FEWEST)
    if few and len(count) > 1:
        warn(f"fewer than {FEWEST} usable utterances, left out: {_some(few)}")
    enough = len(count) - len(few)
    if enough < 2:
        raise DataError(
            f"{directory} holds {enough} speaker(s) with at least {FEWEST} "
            f"usable utterances ({_some(sorted(count))}); at least two are "
            f"needed, as {LAYOUTS}"
        )
    return [each for each in recordings if count[each.speaker] >= FEWEST]


def _common_rate(recordings):
    """The lowest sampling rate, 16 kHz at most; says who pulls it down."""
    rates = np.array([min(HIGHEST_RATE, each.rate) for each in recordings])
    rate, usual = rates.min(), np.sort(rates)[len(rates) // 2]
    if rate < usual:
        low = [
            str(each.path)
            for each, its in zip(recordings, rates, strict=True)
            if its < usual
        ]
        warn(
            f"all is brought to {rate} Hz, the lowest sampling rate; without "
            f"{_some(low)} it would be {usual} Hz"
        )
    return int(rate)


def _segment_length(recordings, rate):
    """Frames for 19 of 20 utterances, a multiple of 50, 500 at most."""
    counts = [
        features.frame_count(each.samples, each.rate, rate)
        for each in recordings
    ]
    long = int(np.quantile(counts, 0.95))
    return min(LONGEST, -(-long // 50) * 50)


def _draw_unseen(names, unseen, rng):
    """The speakers never to train on: so many of them, or those named."""
    if unseen is None:
        unseen = len(names) // 3 if len(names) >= 6 else 0
    if isinstance(unseen, str):
        unseen = [unseen]
    if isinstance(unseen, list) and len(unseen) == 1:
        # From a command line. Speakers are often named by numbers.
        word = str(unseen[0])
        if word not in names and word.lstrip("-").isdecimal():
            unseen = int(word)
    if isinstance(unseen, (int, np.integer)):
        count, drawn = unseen, None
    else:
        drawn = {_normalized(name) for name in unseen}
        unknown = sorted(drawn - set(names))
        if unknown:
            raise DataError(
                f"there is no speaker {_some(unknown)} with enough usable "
                f"utterances; there is {_some(names, 20)}"
            )
        count = len(drawn)
    if count < 0 or count == 1:
        raise DataError(
            f"{count} unseen speakers: 0 or at least 2 are needed, to have "
            "pairs of different speakers among them"
        )
    if len(names) - count < 2:
        raise DataError(
            f"{count} unseen of {len(names)} speakers leave "
            f"{max(0, len(names) - count)} to train on; at least two are needed"
        )
    if drawn is None:
        drawn = set(rng.permutation(names)[:count].tolist())
    return drawn


def _seen_first(names, drawn):
    """The names in order of the ids: the unseen speakers come last."""
    return sorted(names, key=lambda name: (name in drawn, name))


def _names(recordings):
    return sorted({each.speaker for each in recordings})


def _normalized(name):
    """A name in one spelling: file systems differ in that of an accent."""
    return unicodedata.normalize("NFC", name)


def _some(names, count=5):
    """The first names of a list, and how many there are more."""
    more = len(names) - count
    text = ", ".join(names[:count])
    return f"{text} and {more} more" if more > 0 else text


def _test_set(recordings, speaker, rng):
    """True for the utterances to test on: takes 0 to 4, or about a fifth."""
    takes = [each.take for each in recordings]
    if all(take is not None for take in takes):
        test = np.array([take <= 4 for take in takes])
        seldom = np.bincount(speaker[test], minlength=speaker.max() + 1).min()
        often = np.bincount(speaker[~test], minlength=speaker.max() + 1).min()
        if seldom >= 2 and often >= 4:
            return test
    test = np.zeros(len(recordings), bool)
    for one in np.unique(speaker):
        rows = np.flatnonzero(speaker == one)
        sessions = _sessions([recordings[row].folders for row in rows])
        if sessions is None:
            chosen = fifth(rows, rng)
        else:
            chosen = rows[_whole_sessions(sessions, rng)]
        test[chosen] = True
    return test


def _sessions(folders):
    """For each file the number of its session, if subfolders look like that.

    They do at the first depth where three or more hold at least two files.
    """
    for depth in range(1, 1 + max(map(len, folders))):
        known = sorted({folder[:depth] for folder in folders})
        session = np.array([known.index(folder[:depth]) for folder in folders])
        if (np.bincount(session) >= 2).sum() >= 3:
            return session
    return None


def _whole_sessions(session, rng):
    """True for the files of some sessions, about a fifth of all files."""
    size = np.bincount(session)
    target = max(2, len(session) // 5)
    chosen, total = [], 0
    for one in rng.permutation(len(size)):
        if abs(total + size[one] - target) <= abs(total - target):
            chosen.append(one)
            total += size[one]
    if total < 2:  # too few to make a pair of
        chosen = [np.argmin(np.where(size < 2, size.max() + 1, size))]
    return np.isin(session, chosen)
