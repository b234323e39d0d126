"""What speech.py makes of speech: utterances, and a corpus of them."""

import dataclasses

import numpy as np


class Utterances:
    """Some utterances, cut into segments.

    Args:
        segments: `(segments, frames, bands)`, zeros after the last frame. It
            may be a file mapped into memory: only what is asked for is read.
        owner: for each segment the row number of its utterance.
        speaker: for each utterance the id of its speaker.
        paths: for each utterance its file, if there is one.
        rows: which of the segments these are, in order, if not all.
    """

    def __init__(self, segments, owner, speaker, paths=None, rows=None):
        self.array = segments
        self.rows = np.arange(len(segments)) if rows is None else rows
        self.owner = owner
        self.speaker = speaker
        self.paths = None if paths is None else np.array(paths, object)

    def __len__(self):
        return len(self.speaker)

    def __getitem__(self, chosen):
        """The utterances of a boolean mask or of an array of row numbers."""
        rows = np.arange(len(self))[chosen]
        count = np.bincount(self.owner, minlength=len(self))
        first = np.cumsum(count) - count
        owner = np.repeat(np.arange(len(rows)), count[rows])
        # The segments of the first utterance, of the second, and so on.
        within = np.arange(len(owner))
        within -= np.repeat(np.cumsum(count[rows]) - count[rows], count[rows])
        by_owner = np.argsort(self.owner, kind="stable")
        segments = by_owner[first[rows][owner] + within]
        paths = None if self.paths is None else self.paths[rows]
        return Utterances(
            self.array, owner, self.speaker[rows], paths, self.rows[segments]
        )

    def __add__(self, other):
        """These and others of the same array."""
        paths = None
        if self.paths is not None:
            paths = np.append(self.paths, other.paths)
        return Utterances(
            self.array,
            np.append(self.owner, other.owner + len(self)),
            np.append(self.speaker, other.speaker),
            paths,
            np.append(self.rows, other.rows),
        )

    def batch(self, rows):
        """The segments of a slice or an array of row numbers, in float32."""
        return np.asarray(self.array[self.rows[rows]], "float32")

    @property
    def segments(self):
        """All segments in float32; a copy, unless they are all there are."""
        every = np.arange(len(self.array))
        if np.array_equal(self.rows, every):
            return np.asarray(self.array, "float32")
        return self.batch(slice(None))

    @property
    def shape(self):
        """Frames and bands of a segment."""
        return self.array.shape[1:]

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

    Attributes:
        training, test: of the same speakers, whose ids are 0, 1, 2 and so on.
        unseen: of the other ones, or `None` if every speaker is trained on.
        names: the name of each id.
        features: the kind of numbers, `"cepstrum"` or `"log_mel"`.
        copies: the training utterances again, row for row, each time at
            another speed. A voice at another speed is another voice: its id
            is raised by a multiple of the number of names.
        rate: samples a second of the recordings, if known.
    """

    training: Utterances
    test: Utterances
    unseen: Utterances | None
    names: list
    features: str
    copies: tuple = ()
    rate: int | None = None

    def hold_out(self, seed):
        """A fifth of each speaker's training utterances, to validate on.

        Returns those to train on and those held out.
        """
        held_out = self.held_out_rows(seed)
        return self.training[~held_out], self.training[held_out]

    def held_out_rows(self, seed):
        """True for the training utterances that `hold_out` holds out."""
        return share(self.training.speaker, np.random.default_rng(seed))

    def validation_speakers(self, seed):
        """A third of the speakers to train on, to validate on as unseen ones.

        Returns the training utterances of the others, the utterances of these,
        and a mask, true for the rows of the first kind. `None` where there are
        fewer than 9 speakers.
        """
        speakers = np.unique(self.training.speaker)
        if len(speakers) < 9:
            return None
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(speakers)[: len(speakers) // 3]
        kept = ~np.isin(self.training.speaker, drawn)
        return self.training[kept], self.training[~kept], kept

    def small(self, count=8):
        """At most `count` utterances of each speaker in each part."""

        def first(data):
            rank = np.empty(len(data), int)
            for speaker in np.unique(data.speaker):
                rows = np.flatnonzero(data.speaker == speaker)
                rank[rows] = np.arange(len(rows))
            return data[rank < count]

        return dataclasses.replace(
            self,
            training=first(self.training),
            test=first(self.test),
            unseen=None if self.unseen is None else first(self.unseen),
            copies=tuple(first(copy) for copy in self.copies),
        )


def share(speaker, rng):
    """True for a fifth of each speaker's utterances, two at least."""
    chosen = np.zeros(len(speaker), bool)
    for one in np.unique(speaker):
        chosen[fifth(np.flatnonzero(speaker == one), rng)] = True
    return chosen


def fifth(rows, rng):
    return rng.permutation(rows)[: max(2, len(rows) // 5)]
