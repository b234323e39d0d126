"""From a tower to answers: embeddings, scores, the baseline, the saved model.

What stays of a voice over time can be read off with linear algebra: long-term
statistics of its log-mels, with the variation within a speaker whitened away.
Few parameters, learned from few voices. The tower hears what changes from
frame to frame. An embedding holds both.
"""

from pathlib import Path

import keras
import numpy as np
from audio import DataError, info
from features import progress, waveform_segments
from keras import ops
from log_mel import LogMel
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from speaker_tower import RECIPES, SERIALIZE, counted
from speech import warn

import keras_xent

QUANTILES = (0.1, 0.5, 0.9)
# Of log-mels, whose deviation is 1 to 3, and of the cosines with a cohort.
SMALL_VARIANCE = 1e-4
BASELINE_SHRINKAGE = 0.1
BATCH = 256
FEW = 4  # segments of a recording at once: 20 s
FRAMES = 500  # of a segment of a recording that a saved model hears
MOST_UTTERANCES = 20_000  # to fit an LDA on
LARGEST_COHORT = 2_000


@SERIALIZE
class LongTermStatistics(keras.layers.Layer):
    """What of a voice stays over time: `(batch, frames, bands)` -> rows.

    Per band its mean, its deviation, that of its change over 20 ms, and three
    quantiles, over the frames that are not all 0. With `few`, mean and
    deviation alone.
    """

    def __init__(self, few=False, **kwargs):
        super().__init__(**kwargs)
        self.few = few

    def call(self, x):
        counts = counted(x)
        n = ops.maximum(ops.sum(counts, axis=1), 1)
        mean = ops.sum(x, axis=1) / n
        off = counts * (x - mean[:, None])
        parts = [mean, root(ops.sum(off * off, axis=1) / n)]
        if not self.few:
            both = counts[:, 2:] * counts[:, :-2]
            change = both * (x[:, 2:] - x[:, :-2])
            pairs = ops.maximum(ops.sum(both, axis=1), 1)
            parts.append(root(ops.sum(change * change, axis=1) / pairs))
            ordered = ops.sort(ops.where(counts > 0, x, np.inf), axis=1)
            for share in QUANTILES:
                place = ops.cast(share * (n - 1), "int32")[:, None]
                place = ops.repeat(place, x.shape[2], axis=2)
                value = ops.take_along_axis(ordered, place, axis=1)[:, 0]
                parts.append(ops.where(ops.isfinite(value), value, 0))
        return ops.concatenate(parts, axis=1)

    def get_config(self):
        return {**super().get_config(), "few": self.few}


def root(variance):
    return ops.sqrt(variance + SMALL_VARIANCE)


def discriminant(statistics, speaker, shrinkage):
    """Kernel and bias of the LDA of standardized rows, centered.

    The between-speaker directions, with the variation within a speaker
    whitened; Fisher, 1936.
    """
    mean, deviation = statistics.mean(axis=0), statistics.std(axis=0) + 1e-6
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage)
    lda.fit((statistics - mean) / deviation, speaker)
    count = min(len(np.unique(speaker)) - 1, statistics.shape[1])
    kernel = lda.scalings_[:, :count] / deviation[:, None]
    return kernel.astype("float32"), -(mean @ kernel).astype("float32")


def unit(rows):
    """Rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def part(data, most):
    """At most so many of the utterances, evenly spaced."""
    return data[:: -(-len(data) // most)]


def embedding_model(tower, parts, recipe):
    """Frames in, embeddings of length 1 out: the linear path beside the tower.

    Unit vectors end to end, each with a weight, so that the cosine of two
    embeddings is the weighted mean of their cosines: an LDA of the voices as
    they are, one of them and of the same at other speeds, which are more
    voices to learn from, and the tower. `parts` are the training utterances
    and their copies.
    """
    layers = keras.layers
    inputs = keras.Input(tower.input_shape[1:])
    statistics = LongTermStatistics()(inputs)
    deep = keras.Model(tower.input, tower.get_layer("embedding").output)(inputs)
    model = keras.Model(inputs, [statistics, deep])
    parts = [part(data, MOST_UTTERANCES // len(parts)) for data in parts]
    found = [predict(model, data) for data in parts]
    rows = np.concatenate([rows for rows, _ in found])
    speaker = np.concatenate([data.segment_speaker for data in parts])
    natural = len(parts[0].rows)
    center = layers.Normalization(
        mean=found[0][1].mean(axis=0).tolist(),
        variance=[1.0] * deep.shape[1],
        name="center",
    )
    weighted = [(recipe.deep, center(deep))]
    paths = [("lda", 1 - recipe.varied, natural)]
    paths.append(("lda_of_speeds", recipe.varied, len(rows)))
    if len(parts) == 1:
        paths = [("lda", 1, natural)]
    for name, share, count in paths:
        kernel, bias = discriminant(
            rows[:count], speaker[:count], recipe.shrinkage
        )
        project = layers.Dense(kernel.shape[1], name=name)
        weighted.append((share, project(statistics)))
        project.set_weights([kernel, bias])
    total = 1 + recipe.deep
    ends = [
        layers.Rescaling((weight / total) ** 0.5)(layers.UnitNormalization()(x))
        for weight, x in weighted
    ]
    return keras.Model(inputs, layers.Concatenate()(ends), name="voice")


@SERIALIZE
class CohortScore(keras.layers.Layer):
    """Cosine of two embeddings after adaptive score normalization.

    How much more alike two utterances are than each is to the `nearest` most
    similar ones of a cohort, in standard deviations; the mean over both. As
    Matejka et al., 2017 (S-norm with an adaptive cohort).
    """

    def __init__(self, size, nearest, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size)
        self.nearest = min(nearest, size[0])
        self.cohort = self.add_weight(
            name="cohort", shape=size, initializer="zeros", trainable=False
        )

    def call(self, embeddings):
        a, b = embeddings
        cosine = ops.sum(a * b, axis=1, keepdims=True)
        return normalized(cosine, self.moments(a), self.moments(b))

    def every(self, a, b):
        """The scores of every row of `a` with every row of `b`."""
        cosine = ops.matmul(a, ops.transpose(b))
        of_columns = map(ops.transpose, self.moments(b))
        return normalized(cosine, self.moments(a), of_columns)

    def moments(self, rows):
        cosines = ops.matmul(rows, ops.transpose(self.cohort))
        top = ops.top_k(cosines, self.nearest)[0]
        return (
            ops.mean(top, axis=1, keepdims=True),
            root(ops.var(top, axis=1, keepdims=True)),
        )

    def get_config(self):
        config = {"size": self.size, "nearest": self.nearest}
        return {**super().get_config(), **config}


def normalized(cosine, of_a, of_b):
    """The mean over both sides, each in its own means and deviations."""
    (mean_a, deviation_a), (mean_b, deviation_b) = of_a, of_b
    return (
        (cosine - mean_a) / deviation_a + (cosine - mean_b) / deviation_b
    ) / 2


def cohort_score(embeddings, nearest, seed):
    """An AS-norm whose cohort is a part of the training utterances."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(embeddings))[:LARGEST_COHORT]
    score = CohortScore(
        (len(chosen), embeddings.shape[1]), nearest, name="score"
    )
    score.cohort.assign(embeddings[np.sort(chosen)])
    return score


def embed(model, data):
    """An embedding of length 1 for each utterance."""
    return unit(data.average(predict(model, data)))


def predict(model, data):
    """The outputs of a model of frames for all segments of some utterances."""
    starts = progress(range(0, len(data.rows), BATCH), "embeddings")
    return in_batches(model, data.batch, starts, BATCH)


def in_batches(model, take, starts, size):
    """The outputs for `take(slice)` of rows; every batch has one size."""
    parts = []
    for start in starts:
        x = take(slice(start, start + size))
        count = len(x)
        x = np.pad(x, [(0, size - count)] + [(0, 0)] * (x.ndim - 1))
        found = keras.tree.map_structure(
            lambda rows, stop=count: np.asarray(rows)[:stop],
            model.predict_on_batch(x),
        )
        parts.append(found)
    return keras.tree.map_structure(lambda *rows: np.concatenate(rows), *parts)


class Backend:
    """What turns a trained tower into scores, by the name of the backend.

    `none` compares the tower's fingerprints by their symmetric KL divergence
    or, with `similarity`, its embeddings by their cosine; `cosine` and
    `as_norm` compare the embeddings of `embedding_model`.
    """

    def __init__(self, name, tower, parts, recipe, seed, similarity=False):
        self.name = name
        self.similarity = similarity or name != "none"
        self.distance = keras_xent.ops.pairwise_symmetric_kl
        if not self.similarity:
            self.model = tower
            self.score = keras_xent.layers.SymmetricKLDistance(name="score")
            return
        self.score = keras.layers.Dot(axes=1, name="score")
        if name == "none":
            unit = keras.layers.UnitNormalization()
            self.model = keras.Model(tower.input, unit(tower.output))
            return
        self.model = embedding_model(tower, parts, recipe)
        if name == "as_norm":
            training = embed(self.model, part(parts[0], MOST_UTTERANCES))
            self.score = cohort_score(training, recipe.cohort, seed)

    def compare(self, data):
        """Scores or distances between all the utterances, a matrix."""
        if not self.similarity:
            logits = data.average(predict(self.model, data))
            found = self.distance(logits)
        else:
            rows = embed(self.model, data)
            found = rows @ rows.T
            if self.name == "as_norm":
                found = self.score.every(rows, rows)
        return keras.ops.convert_to_numpy(found)


BASELINES = ("baseline", "baseline, AS-norm")


class Baseline:
    """What can be had without deep learning.

    Mean and deviation of each utterance's log-mels, LDA, and the cosine, or
    the cosine with normalized scores.
    """

    def __init__(self, data, seed):
        inputs = keras.Input((None, data.shape[1]))
        outputs = LongTermStatistics(few=True)(inputs)
        self.statistics = keras.Model(inputs, outputs)
        data = part(data, MOST_UTTERANCES)
        means = self.means(data)
        self.kernel, self.bias = discriminant(
            means, data.speaker, BASELINE_SHRINKAGE
        )
        self.score = cohort_score(
            self.project(means), RECIPES["log_mel"].cohort, seed
        )

    def means(self, data):
        return data.average(predict(self.statistics, data))

    def project(self, means):
        return unit(means @ self.kernel + self.bias)

    def compare(self, data):
        """Scores between all the utterances, a matrix by each name."""
        rows = self.project(self.means(data))
        scores = rows @ rows.T, self.score.every(rows, rows)
        scores = map(keras.ops.convert_to_numpy, scores)
        return dict(zip(BASELINES, scores, strict=True))


# The saved model


def pair_model(backend, rate, threshold):
    """Two waveforms in, their score and the decision out."""
    log_mel = LogMel(rate, name="log_mel")
    waveform = keras.Input((None,))
    embedding = keras.Model(
        waveform, backend.model(log_mel(waveform)), name="embedding"
    )
    a, b = (keras.Input((None,), name=name) for name in "ab")
    found = backend.score([embedding(a), embedding(b)])
    decide = keras_xent.layers.MatchDecision(
        threshold, similarity=backend.similarity, name="decision"
    )
    return keras.Model([a, b], [found, decide(found)])


class Voice:
    """A saved speaker model: embeddings of recordings, and their scores."""

    def __init__(self, model):
        self.model = model.get_layer("embedding")
        self.pairwise = model.get_layer("score")
        self.decision = model.get_layer("decision")
        self.rate = self.model.get_layer("log_mel").rate
        self.sign = 1 if self.decision.similarity else -1
        self.warned = False

    @property
    def threshold(self):
        """At or above it: the same speaker."""
        return self.sign * self.decision.threshold

    def embed(self, paths):
        """One row for each recording."""
        rows = []
        for path in paths:
            self._warn_of_low_rate(path)
            x = waveform_segments(path, self.rate, FRAMES)
            # Whole seconds, so that there are few shapes to compile.
            end = np.flatnonzero(x.any(axis=0))[-1]
            x = x[:, : self.rate * (1 + end // self.rate)]
            starts = range(0, len(x), FEW)
            found = in_batches(self.model, x.__getitem__, starts, FEW)
            rows.append(found.mean(axis=0))
        return unit(np.stack(rows)) if self.sign == 1 else np.stack(rows)

    def _warn_of_low_rate(self, path):
        """A model takes missing treble for a voice; said once."""
        rate, _ = info(path)
        if rate < self.rate and not self.warned:
            self.warned = True
            warn(
                f"{path} has {rate} samples a second, and the model listens to "
                f"{self.rate}: what is missing above {rate // 2} Hz sounds "
                "like another voice. Train a model for recordings of that rate"
            )

    def score(self, a, b):
        """How alike every row of `a` is to every row of `b`."""
        if self.sign == -1:
            found = -keras_xent.ops.pairwise_symmetric_kl(a, b)
        elif isinstance(self.pairwise, CohortScore):
            found = self.pairwise.every(
                ops.convert_to_tensor(a), ops.convert_to_tensor(b)
            )
        else:
            found = a @ b.T
        return keras.ops.convert_to_numpy(found)


def load(path):
    """The `Voice` that `siamese_speaker.py --save` wrote."""
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist")
    try:
        return Voice(keras.models.load_model(path, compile=False))
    except Exception as error:  # another file can fail in any way at all
        raise DataError(f"{path} was not written by --save: {error}") from error
