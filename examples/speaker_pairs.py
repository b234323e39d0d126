"""Two towers for siamese_speaker.py, and the pairs they are trained on."""

import keras
import numpy as np

import keras_xent


def pair_model(tower):
    """Two segments in, their distance out."""
    a, b = (keras.Input(tower.input_shape[1:], name=name) for name in "ab")
    distance = keras_xent.layers.SymmetricKLDistance(name="distance")
    return keras.Model([a, b], distance([tower(a), tower(b)]))


class Rows(keras.utils.PyDataset):
    """Segments and their speakers, numbered from 0, in batches of one size.

    They come shuffled. What is left over at the end of an epoch waits for
    another one. A smaller batch would be compiled for itself, and would have
    few pairs.
    """

    def __init__(self, data, batch_size, seed):
        super().__init__()
        self.segments = data.segments
        # A softmax has one logit for each of them, whatever their ids.
        known, self.speaker = np.unique(
            data.segment_speaker, return_inverse=True
        )
        self.speaker_count = len(known)
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
