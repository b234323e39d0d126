"""The towers of siamese_speaker.py: a segment of speech in, logits out.

And what they are trained on when the speech comes from recordings: batches of
several segments of each of several speakers, cropped, masked and disturbed.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

import keras_xent

SERIALIZE = keras.saving.register_keras_serializable(package="siamese_speaker")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that was chosen for training, on training data alone."""

    tower: str
    loss: str = "symmetric_kl_hinge"
    size: int = 32  # of the fingerprint
    logit_scale: float | None = 3.0  # of its logits; None leaves it free
    margin: float = 20.0
    softness: float = 0.5
    learning_rate: float = 3e-3
    warmup: float = 0.1  # share of the steps; then it falls along a cosine
    batch_size: int = 216
    epochs: int = 20
    steps: int = 20  # of an epoch at least: little data has to be seen often
    # The LSTM
    units: int = 32  # of each LSTM, in each direction
    noise: float = 1.0  # on the inputs, whose own deviation is 1
    frame_dropout: float = 0.2
    # The TDNN
    channels: int = 96  # of each convolution
    embedding: int = 128
    dropout: float = 0.2  # of the pooled statistics
    # What a step hears of a recording
    crop: int = 90  # frames at least
    longest_crop: int = 200
    crop_share: float = 0.6  # of a segment, if that lies between them
    equalizer: float = 0.3  # deviation of random tone controls, in nepers
    background: bool = True  # noise added to half of the segments
    masks: bool = True  # of time and of frequency
    speeds: tuple = (0.9, 1.1)  # each makes another voice of every voice
    # The backend
    deep: float = 0.5  # weight of the tower; that of the linear path is 1
    varied: float = 2 / 3  # of that, the LDA that knows voices at other speeds
    shrinkage: float = 0.2  # of the covariances in the LDA
    cohort: int = 50  # nearest training utterances, for the AS-norm


RECIPES = {
    "cepstrum": Recipe(
        tower="lstm",
        size=16,
        logit_scale=None,
        margin=2.0,
        learning_rate=0.01,
        warmup=0.0,
        batch_size=72,
        epochs=150,
    ),
    "log_mel": Recipe(tower="tdnn"),
}


def build_tower(data, recipe):
    """A segment of speech in, the logits of its fingerprint out."""
    return TOWERS[recipe.tower](data, recipe)


def lstm(data, recipe):
    """Two bidirectional LSTM layers over normalized frames."""
    layers = keras.layers
    step = -(-len(data.rows) // MOST_SEGMENTS)
    frames = data.batch(slice(None, None, step))
    frames = frames[frames.any(axis=-1)]  # without padding
    mean, variance = frames.mean(axis=0), frames.var(axis=0)
    inputs = keras.Input((None, data.shape[1]))
    x = layers.Masking()(inputs)
    x = layers.Normalization(mean=mean.tolist(), variance=variance.tolist())(x)
    x = layers.GaussianNoise(recipe.noise)(x)
    x = layers.Dropout(recipe.frame_dropout, noise_shape=(None, None, 1))(x)
    for _ in range(2):
        x = layers.Bidirectional(
            layers.LSTM(recipe.units, return_sequences=True)
        )(x)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(32, activation="tanh", name="embedding")(x)
    return keras.Model(inputs, fingerprint(x, recipe), name="tower")


MOST_SEGMENTS = 10_000  # enough for mean and deviation


@SERIALIZE
class CentreInTime(keras.layers.Layer):
    """Takes each band's mean over time away; frames of zeros do not count.

    What a room or a microphone adds to log-mels is the same in every frame.
    """

    def call(self, x):
        counts = counted(x)
        mean = ops.sum(x, axis=1, keepdims=True) / ops.maximum(
            ops.sum(counts, axis=1, keepdims=True), 1
        )
        return counts * (x - mean)


@SERIALIZE
class Counted(keras.layers.Layer):
    """Zeros for `x` where a frame of `frames` is nothing but zeros."""

    def call(self, inputs):
        x, frames = inputs
        return x * counted(frames)


@SERIALIZE
class PoolStatistics(keras.layers.Layer):
    """Mean and deviation over the frames that count, `(batch, 2 · channels)`.

    Takes `[x, frames]`, and counts the frames in which `frames` is not all 0.
    """

    def call(self, inputs):
        x, frames = inputs
        counts = counted(frames)
        n = ops.maximum(ops.sum(counts, axis=1), 1)
        mean = ops.sum(counts * x, axis=1) / n
        square = counts * ops.square(x - mean[:, None])
        # The variance of a constant channel has no finite gradient of its root.
        deviation = ops.sqrt(ops.sum(square, axis=1) / n + SMALL_VARIANCE)
        return ops.concatenate([mean, deviation], axis=1)


SMALL_VARIANCE = 1e-3  # of activations after batch normalization, about 1


def counted(frames):
    """1 for a frame, 0 for one of nothing but zeros: `(batch, frames, 1)`."""
    some = ops.any(frames != 0, axis=-1, keepdims=True)
    return ops.cast(some, frames.dtype)


def tdnn(data, recipe):
    """Convolutions over time with growing reach, statistics pooling.

    After the x-vectors of Snyder et al., 2018. Returns the model of the logits
    and, as its layer "embedding", what backends work on.
    """
    layers = keras.layers
    inputs = keras.Input((None, data.shape[1]))
    x = CentreInTime()(inputs)
    width = recipe.channels
    for channels, size, reach in [
        (width, 5, 1),
        (width, 3, 2),
        (width, 3, 3),
        (2 * width, 1, 1),
    ]:
        x = layers.Conv1D(
            channels,
            size,
            dilation_rate=reach,
            padding="same",
            use_bias=False,
        )(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        # What lies beyond the end must not reach back through the next one.
        x = Counted()([x, inputs])
    x = PoolStatistics()([x, inputs])
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(recipe.dropout)(x)
    x = layers.Dense(recipe.embedding, use_bias=False)(x)
    x = layers.BatchNormalization(name="embedding")(x)
    return keras.Model(inputs, fingerprint(x, recipe), name="tower")


def fingerprint(x, recipe):
    """Logits, by default with the scale of a batch normalization.

    The pull of a match grows with the square of the logits, the push of the
    others ends at the margin. So a free scale shrinks until nothing is told
    apart: on recordings the loss stalls. This one hardly moves.
    """
    if recipe.logit_scale is None:
        # Near 0 the distance is flat: fingerprints that are alike at the start
        # hardly get a gradient, and stay alike. Large logits keep them apart.
        large = keras.initializers.VarianceScaling(10.0, "fan_avg", "uniform")
        return keras.layers.Dense(recipe.size, kernel_initializer=large)(x)
    x = keras.layers.Dense(recipe.size, use_bias=False)(x)
    return keras.layers.BatchNormalization(
        gamma_initializer=keras.initializers.Constant(recipe.logit_scale)
    )(x)


TOWERS = {"tdnn": tdnn, "lstm": lstm}


@dataclasses.dataclass
class Objective:
    """What a tower is trained for, and what of it tells voices apart."""

    loss: keras.losses.Loss
    output: keras.KerasTensor  # what the loss is given
    compared: keras.KerasTensor  # what two utterances are compared by
    distance: str  # by which they are

    @property
    def similarity(self):
        """Whether scores are cosines, and not distances."""
        return self.distance == "cosine"


def symmetric_kl_hinge(tower, recipe, speakers):
    loss = keras_xent.losses.SymmetricKLHinge(
        margin=recipe.margin, softness=recipe.softness
    )
    return Objective(loss, tower.output, tower.output, "symmetric_kl")


def softmax(tower, recipe, speakers):
    """To tell the training speakers apart, as x-vectors are trained."""
    logits = keras.layers.Dense(speakers)(tower.get_layer("embedding").output)
    loss = keras_xent.losses.SparseSoftmaxCrossentropy()
    # The fingerprint is that of the speakers that it learned.
    return Objective(loss, logits, logits, "symmetric_kl")


def aam_softmax(tower, recipe, speakers):
    """The same by angles, with a margin: ArcFace, as ECAPA-TDNN is trained."""
    x = tower.get_layer("embedding").output
    head = keras_xent.layers.CosineHead(speakers, angular_margin=ANGULAR_MARGIN)
    return Objective(
        keras_xent.losses.LinearCrossentropy(), head(x), x, "cosine"
    )


ANGULAR_MARGIN = 0.2  # in speech


def angular_prototypical(tower, recipe, speakers):
    """To find the mean of a speaker's other segments among those of all."""
    x = tower.get_layer("embedding").output
    loss = keras_xent.losses.PrototypicalCrossentropy(distance="cosine")
    return Objective(loss, x, x, "cosine")


def supcon(tower, recipe, speakers):
    """To find each of a speaker's other segments among those of all."""
    x = tower.get_layer("embedding").output
    return Objective(keras_xent.losses.SupervisedContrastive(), x, x, "cosine")


LOSSES = {
    "symmetric_kl_hinge": symmetric_kl_hinge,
    "softmax": softmax,
    "aam_softmax": aam_softmax,
    "angular_prototypical": angular_prototypical,
    "supcon": supcon,
}


def train_tower(tower, objective, batches, recipe, callbacks):
    """Trains a tower on speaker ids; the model that was fit and its history."""
    # The tower itself stays uncompiled, so that it is saved without loss.
    model = keras.Model(tower.input, objective.output)
    rate = schedule(batches, recipe)
    model.compile(keras.optimizers.Adam(rate), objective.loss)
    history = model.fit(
        batches, epochs=recipe.epochs, callbacks=callbacks, verbose=0
    )
    return model, history.history


def schedule(batches, recipe):
    """Rises to the learning rate and falls to 0 along a cosine."""
    steps = len(batches) * recipe.epochs
    rise = int(recipe.warmup * steps)
    if not rise:
        return keras.optimizers.schedules.CosineDecay(
            recipe.learning_rate, steps
        )
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - rise,
        warmup_target=recipe.learning_rate,
        warmup_steps=rise,
    )


def augment(x, crop, recipe, rng):
    """Random crops of `(n, frames, bands)` log-mels, heard differently."""
    x = cropped(x, crop, rng)
    n, frames, bands = x.shape
    counts = x.any(axis=2, keepdims=True)
    present = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    level = x.sum(axis=(1, 2), keepdims=True) / (present * bands)
    if recipe.equalizer:  # slow waves over the bands: another microphone
        waves = np.cos(
            np.pi / bands * np.outer(range(4), np.arange(bands) + 0.5)
        )
        x = x + (rng.normal(0, recipe.equalizer, (n, 4)) @ waves)[:, None]
    if recipe.background:  # a steady noise of some color
        color = rng.normal(size=(n, 1, 1)) * np.linspace(-1, 1, bands)
        noise = level + rng.uniform(-6, 0, (n, 1, 1)) + color
        noise = noise + 0.3 * rng.normal(size=x.shape)
        x = np.where(rng.random((n, 1, 1)) < 0.5, np.logaddexp(x, noise), x)
    if recipe.masks:
        for axis, widest in ((2, 12), (1, frames // 8)):
            start = rng.integers(0, x.shape[axis], (n, 1, 1))
            width = rng.integers(0, widest + 1, (n, 1, 1))
            place = np.arange(x.shape[axis])
            place = place[None, :, None] if axis == 1 else place[None, None]
            x = np.where((place >= start) & (place < start + width), level, x)
    return (x * counts).astype("float32")


def cropped(x, frames, rng):
    """`frames` frames of each row from a random place that has some."""
    if frames >= x.shape[1]:
        return x
    length = x.any(axis=2).sum(axis=1)
    start = rng.integers(0, np.maximum(length - frames, 0) + 1)
    place = start[:, None] + np.arange(frames)
    return x[np.arange(len(x))[:, None], place]


class SpeakerBatches(keras.utils.PyDataset):
    """Batches of P speakers with K segments each.

    A batch drawn at random from many speakers has next to no pair that
    matches. Every batch has the same shape.
    """

    def __init__(self, parts, recipe, seed):
        super().__init__()
        self.parts = parts  # `speech.Utterances`
        self.recipe = recipe
        self.rng = np.random.default_rng(seed)
        rows = {}
        for part, data in enumerate(parts):
            for row, speaker in enumerate(data.segment_speaker):
                rows.setdefault(int(speaker), []).append((part, row))
        self.rows = list(rows.values())
        self.speaker_count = len(self.rows)
        # At least two segments of each of them, so that there are matches.
        self.of_each = max(2, round(recipe.batch_size / len(self.rows)))
        self.at_once = min(len(self.rows), recipe.batch_size // self.of_each)
        frames = parts[0].shape[0]
        share = int(recipe.crop_share * frames)
        self.crop = max(recipe.crop, min(recipe.longest_crop, share))
        # An epoch sees about as many frames as there are, or more.
        crops = sum(map(len, self.rows)) * max(1, frames / self.crop)
        batch = self.at_once * self.of_each
        self.steps = max(recipe.steps, int(crops) // batch)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        speakers = self.rng.permutation(len(self.rows))[: self.at_once]
        x = []
        for rows in map(self.rows.__getitem__, speakers):
            chosen = self.rng.choice(
                len(rows), self.of_each, replace=len(rows) < self.of_each
            )
            for part, row in map(rows.__getitem__, chosen):
                x.append(self.parts[part].batch(row))
        y = np.repeat(speakers, self.of_each)
        x = augment(np.stack(x), self.crop, self.recipe, self.rng)
        return x, y
