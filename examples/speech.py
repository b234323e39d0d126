"""Speech for siamese_speaker.py: who said what, as arrays of numbers.

Two sources give the same shape of data:

- `japanese_vowels()`: nine men say the vowels /ae/. The recordings come with
  the package `aeon`, already turned into 12 cepstrum coefficients per frame.
- `wav_folder(directory)`: your own recordings. Each WAV file becomes a log-mel
  spectrogram: 128 numbers for every 10 milliseconds.

A network wants arrays of one size. So an utterance is cut into *segments* of
equal length, and the last one is filled up with zeros. The model masks frames
that are all zero: they count for nothing.
"""

import dataclasses
import re
import sys
from pathlib import Path

import keras
import numpy as np
from wav_features import DataError, cut, read_wav

HIGHEST_RATE = 16_000  # Hz; more adds little to a voice
FSDD = (
    "https://github.com/Jakobovski/free-spoken-digit-dataset/"
    "archive/refs/heads/master.zip"
)
FSDD_NAME = re.compile(r"(?P<digit>\d+)_(?P<speaker>.+)_(?P<take>\d+)")


def warn(message):
    print(f"warning: {message}", file=sys.stderr)


@dataclasses.dataclass
class Utterances:
    """Some utterances, cut into segments.

    Attributes:
        segments: `(segments, frames, bands)`, zeros after the last frame.
        owner: for each segment the row number of its utterance.
        speaker: for each utterance the id of its speaker.
    """

    segments: np.ndarray
    owner: np.ndarray
    speaker: np.ndarray

    def __len__(self):
        return len(self.speaker)

    def __getitem__(self, chosen):
        """The utterances of a boolean mask or of an array of row numbers."""
        rows = np.arange(len(self))[chosen]
        parts = [np.flatnonzero(self.owner == row) for row in rows]
        return Utterances(
            self.segments[np.concatenate([*parts, []]).astype(int)],
            np.repeat(np.arange(len(rows)), [len(part) for part in parts]),
            self.speaker[rows],
        )

    @property
    def segment_speaker(self):
        return self.speaker[self.owner]

    def average(self, embeddings):
        """The mean over the segments of each utterance."""
        total = np.zeros((len(self), embeddings.shape[-1]), embeddings.dtype)
        np.add.at(total, self.owner, embeddings)
        return total / np.bincount(self.owner, minlength=len(self))[:, None]


@dataclasses.dataclass
class Corpus:
    """Utterances of known speakers to train and to test on, and of unseen ones.

    `features` names the kind of numbers in it: `"cepstrum"` or
    `"log_mel_8000_hz"`. `unseen` is `None` if every speaker is trained on.
    """

    training: Utterances
    test: Utterances
    unseen: Utterances | None
    names: list
    features: str

    def hold_out(self, seed):
        """A fifth of each speaker's training utterances, to validate on.

        Returns those to train on and those held out.
        """
        every = np.ones(len(self.training), bool)
        rng = np.random.default_rng(seed)
        held_out = _share(self.training.speaker, every, rng)
        return self.training[~held_out], self.training[held_out]

    def small(self, count=8):
        """At most `count` utterances of each speaker in each part."""

        def first(data):
            if data is None:
                return None
            rank = np.empty(len(data), int)
            for speaker in np.unique(data.speaker):
                rows = np.flatnonzero(data.speaker == speaker)
                rank[rows] = np.arange(len(rows))
            return data[rank < count]

        parts = ("training", "test", "unseen")
        changed = {part: first(getattr(self, part)) for part in parts}
        return dataclasses.replace(self, **changed)


def japanese_vowels(unseen=0):
    """The data set JapaneseVowels with its official split into train and test.

    Of the last `unseen` speakers nothing is trained on: only their test
    utterances are used.
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
    seen = _seen_speakers(len(names), unseen)
    train, test = split["train"], split["test"]
    return Corpus(
        train[train.speaker < seen],
        test[test.speaker < seen],
        test[test.speaker >= seen] if unseen else None,
        [f"speaker {name}" for name in names],
        "cepstrum",
    )


def download_fsdd():
    """The folder of the Free Spoken Digit Dataset, fetched when missing."""
    path = Path(keras.utils.get_file("fsdd.zip", FSDD, extract=True))
    folders = [folder for folder in path.rglob("recordings") if folder.is_dir()]
    if not folders:
        raise DataError(f"{FSDD} has no folder 'recordings' any more")
    return folders[0]


def wav_folder(directory, unseen=None, seed=0):
    """The WAV files of a folder, split by speaker and by utterance.

    Files are `directory/<speaker>/**/*.wav`, or, all in one folder,
    `{digit}_{speaker}_{take}.wav` as in the Free Spoken Digit Dataset. There
    the takes 0 to 4 are the official test set. Otherwise a fifth of every
    speaker's utterances is the test set, drawn by `seed`.

    The last `unseen` speakers (by name; if not given, a third of them) are
    never trained on.

    All files are brought to one sampling rate: the lowest among them, at most
    16 kHz. So no speaker can be told by the bandwidth of the recording.
    """
    files = find_wavs(directory)
    signals, speakers, takes = [], [], []
    for path, (speaker, take) in files.items():
        try:
            signals.append(read_wav(path))
        except DataError as error:
            warn(f"{path} is skipped: {error}")
            continue
        speakers.append(speaker)
        takes.append(take)
    if not signals:
        raise DataError(f"no WAV file in {directory} can be used")
    rate = min(HIGHEST_RATE, *(rate for rate, _ in signals))
    names, speaker = np.unique(speakers, return_inverse=True)
    # A speaker needs two utterances each to train, to validate and to test.
    few = np.bincount(speaker) < 6
    if few.any() and len(names) > 1:
        warn(f"fewer than 6 utterances, left out: {', '.join(names[few])}")
    if (~few).sum() < 2:
        raise DataError(
            f"{directory} holds {(~few).sum()} speaker(s) with at least 6 "
            f"utterances ({', '.join(names)}); at least two are needed, as "
            "DIR/<speaker>/**/*.wav or DIR/{digit}_{speaker}_{take}.wav"
        )
    rows = np.flatnonzero(~few[speaker])
    names, speaker = np.unique(names[speaker[rows]], return_inverse=True)
    if unseen is None:
        unseen = len(names) // 3 if len(names) >= 6 else 0
    seen = _seen_speakers(len(names), unseen)
    segments, owner = cut([signals[row] for row in rows], rate)
    everything = Utterances(segments, owner, speaker)
    takes = [takes[row] for row in rows]
    test = _test_set(speaker, takes, np.random.default_rng(seed))
    known = speaker < seen
    return Corpus(
        everything[known & ~test],
        everything[known & test],
        everything[~known] if unseen else None,
        list(names),
        f"log_mel_{rate}_hz",
    )


def find_wavs(directory):
    """`{path: (speaker, take)}`, the take being `None` unless FSDD names it."""
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory} is not a folder")
    paths = sorted(
        path for path in directory.rglob("*") if path.suffix.lower() == ".wav"
    )
    if not paths:
        raise DataError(f"{directory} has no WAV files")
    flat = len({path.parent for path in paths}) == 1
    found = {}
    for path in paths:
        name = FSDD_NAME.fullmatch(path.stem)
        folder = path.relative_to(directory).parts[0]
        if name and (flat or path.parent == directory):
            found[path] = name["speaker"], int(name["take"])
        elif path.parent != directory:
            found[path] = folder, None
        else:
            warn(
                f"{path} is skipped: it lies in no speaker's folder and is "
                "not named {digit}_{speaker}_{take}.wav"
            )
    return found


def _seen_speakers(total, unseen):
    if unseen < 0 or unseen == 1:
        raise DataError(
            f"{unseen} unseen speakers: 0 or at least 2 are needed, to have "
            "pairs of different speakers among them"
        )
    if total - unseen < 2:
        raise DataError(
            f"{unseen} unseen of {total} speakers leave {total - unseen} to "
            "train on; at least two are needed"
        )
    return total - unseen


def _test_set(speaker, takes, rng):
    """True for the utterances to test on: takes 0 to 4, or a fifth."""
    if all(take is not None for take in takes):
        test = np.array([take <= 4 for take in takes])
        seldom = np.bincount(speaker[test], minlength=speaker.max() + 1).min()
        often = np.bincount(speaker[~test], minlength=speaker.max() + 1).min()
        if seldom >= 2 and often >= 4:
            return test
    return _share(speaker, np.ones(len(speaker), bool), rng)


def _share(speaker, among, rng):
    """True for a fifth of each speaker's utterances, two at least."""
    chosen = np.zeros(len(speaker), bool)
    for one in np.unique(speaker):
        rows = rng.permutation(np.flatnonzero((speaker == one) & among))
        chosen[rows[: max(2, len(rows) // 5)]] = True
    return chosen
