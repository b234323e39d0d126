"""What siamese_speaker.py trains on, and its models of two towers.

The saved model is one of them; `compare` asks it about two WAV files.
"""

import re
from pathlib import Path

import keras
import numpy as np
from speech import Utterances
from wav_features import DataError, cut, read_wav

import keras_xent


def pair_model(tower, threshold=None):
    """Two segments in, their distance out, and the decision if asked."""
    a, b = (keras.Input(tower.input_shape[1:], name=name) for name in "ab")
    distance = keras_xent.layers.SymmetricKLDistance(name="distance")(
        [tower(a), tower(b)]
    )
    if threshold is None:
        return keras.Model([a, b], distance)
    decide = keras_xent.layers.MatchDecision(
        threshold, similarity=False, name="decision"
    )
    return keras.Model([a, b], [distance, decide(distance)])


def compare(path, wavs):
    """Ask a saved model about two WAV files."""
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist")
    try:
        model = keras.models.load_model(path, compile=False)
        tower, distance, decide = map(
            model.get_layer, ("tower", "distance", "decision")
        )
    except ValueError as error:
        raise DataError(f"{path} was not written by --save: {error}") from error
    features = [layer.name for layer in tower.layers]
    rate = re.search(r"\blog_mel_(\d+)_hz\b", " ".join(features))
    if rate is None:
        raise DataError(
            f"{path} was trained on cepstrum coefficients (JapaneseVowels) "
            "and cannot score WAV files; train one with --data or --download"
        )
    signals = []
    for wav in wavs:
        try:
            signals.append(read_wav(wav))
        except DataError as error:
            raise DataError(f"{wav}: {error}") from error
    segments, owner = cut(signals, int(rate[1]))
    data = Utterances(segments, owner, speaker=np.arange(2))
    a, b = data.average(tower.predict(data.segments, verbose=0))
    found = distance([a[None], b[None]])
    same = bool(keras.ops.convert_to_numpy(decide(found)).item())
    print(f"distance: {float(found[0, 0]):.4g}")
    print(f"threshold: {decide.threshold:.4g} (below it: the same speaker)")
    print(f"decision: {'same' if same else 'different'} speaker")


class Rows(keras.utils.PyDataset):
    """Segments and their speakers, in batches of one size, shuffled.

    What is left over at the end of an epoch waits for another one. A smaller
    batch would be compiled for itself, and would have few pairs.
    """

    def __init__(self, data, batch_size, seed):
        super().__init__()
        self.segments, self.speaker = data.segments, data.segment_speaker
        self.batch_size = min(batch_size, len(self.segments))
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.segments))

    def __len__(self):
        return len(self.segments) // self.batch_size

    def rows(self, index):
        first = index * self.batch_size
        return slice(first, first + self.batch_size)

    def __getitem__(self, index):
        rows = self.order[self.rows(index)]
        return self.segments[rows], self.speaker[rows]


class Pairs(Rows):
    """Pairs of segments, half of them matches, drawn anew every epoch."""

    def on_epoch_end(self):
        """Every segment gets a partner: by turns a match and a non-match."""
        super().on_epoch_end()
        self.match = np.arange(len(self.order)) % 2 == 0
        self.partner = np.empty(len(self.order), int)
        for row, first in enumerate(self.order):
            same = self.speaker == self.speaker[first]
            wanted = same if self.match[row] else ~same
            wanted[first] = False
            self.partner[row] = self.rng.choice(np.flatnonzero(wanted))

    def __getitem__(self, index):
        rows = self.rows(index)
        a = self.segments[self.order[rows]]
        b = self.segments[self.partner[rows]]
        return (a, b), self.match[rows].astype("float32")[:, None]


def draw_pairs(data, seed):
    """Pairs to validate on: inputs and match flags, all in one batch."""
    return Pairs(data, len(data.segments), seed)[0]


def naive_distance(p, q):
    """KL(p || q), one way only, of probabilities clipped to [1e-7, 1]."""
    return keras.losses.kl_divergence(p, q)


def naive_model(tower):
    a, b = (keras.Input(tower.input_shape[1:]) for _ in range(2))
    distance = naive_distance(
        keras.ops.softmax(tower(a)), keras.ops.softmax(tower(b))
    )
    return keras.Model([a, b], keras.ops.expand_dims(distance, -1))


def naive_hinge(match, distance):
    far = keras.ops.maximum(1.0 - distance, 0.0)
    return keras.ops.mean(match * distance + (1.0 - match) * far, axis=-1)
