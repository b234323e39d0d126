"""Log-mel spectrograms as a layer: waveforms in, frames of a voice out."""

import keras
from keras import ops

BANDS = 64  # mel bands
HOP = 100  # frames a second
WINDOW = 40  # windows of 1/40 s, 25 ms
LOWEST = 20.0  # Hz
# Power below this is background. The samples have power 1, so that it lies
# 90 to 100 dB below the loudest band of a vowel.
FLOOR = 1e-4
# A level below this is no signal; keeps the division finite.
SILENT = 1e-8


@keras.saving.register_keras_serializable(package="siamese_speaker")
class LogMel(keras.layers.Layer):
    """Waveforms `(batch, samples)` -> logarithms `(batch, frames, 64)`.

    A frame lasts 10 ms. Shorter waveforms are filled up with zeros at the end,
    and frames of nothing but zeros come out as zeros, so that later layers can
    leave them out. How loud a waveform is does not matter.

    Args:
        rate: Samples a second.
    """

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.mel = keras.layers.MelSpectrogram(
            sampling_rate=rate,
            sequence_stride=rate // HOP,
            sequence_length=rate // WINDOW,
            fft_length=2 ** (rate // WINDOW - 1).bit_length(),
            num_mel_bins=BANDS,
            min_freq=LOWEST,
            power_to_db=False,
        )

    def build(self, shape):
        self.mel.build(shape)

    def call(self, waveforms):
        x = ops.cast(waveforms, "float32")
        hop = self.rate // HOP
        frames = x.shape[1] // hop
        x = x[:, : frames * hop]
        counts = ops.any(ops.reshape(x, (-1, frames, hop)) != 0, axis=2)
        counts = ops.cast(counts, x.dtype)
        n = hop * ops.maximum(ops.sum(counts, axis=1, keepdims=True), 1)
        inside = ops.repeat(counts, hop, axis=1)
        x = inside * (x - ops.sum(x, axis=1, keepdims=True) / n)
        level = ops.sqrt(ops.sum(x * x, axis=1, keepdims=True) / n)
        x = x / ops.maximum(level, SILENT)
        power = self.mel(x)[:, :, :frames]  # centered windows: one too many
        return counts[:, :, None] * ops.log(
            ops.transpose(power, (0, 2, 1)) + FLOOR
        )

    def compute_output_shape(self, shape):
        samples = shape[1]
        frames = None if samples is None else samples // (self.rate // HOP)
        return shape[0], frames, BANDS

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}
