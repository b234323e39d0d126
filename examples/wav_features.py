"""From a WAV file to log-mel segments, for siamese_speaker.py."""

import warnings

import keras
import numpy as np
from scipy import signal
from scipy.io import wavfile

FRAMES = 40  # frames in a segment; one frame every 10 ms
BANDS = 128  # mel bands
SHORTEST = 5  # frames; less is no utterance
SHORTEST_REST = 10  # frames; a shorter rest of a longer utterance is dropped


class DataError(Exception):
    """Something about the data that the user can mend."""


def read_wav(path):
    """`(rate, samples)` of a WAV file: mono, in float32, full scale is 1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            warnings.filterwarnings("error", "Reached EOF prematurely")
            rate, samples = wavfile.read(path)
    except Exception as error:  # a broken file can fail in any way at all
        raise DataError(f"not a readable WAV file ({error})") from error
    if samples.dtype == np.uint8:
        samples = (samples.astype("float32") - 128) / 128
    elif samples.dtype.kind == "i":  # 24 bits come as the upper ones of 32
        samples = samples.astype("float32") / 2.0 ** (8 * samples.itemsize - 1)
    samples = samples.astype("float32")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if len(samples) < SHORTEST * rate / 100:
        raise DataError(f"shorter than {SHORTEST * 10} ms, or empty")
    if not np.isfinite(samples).all():
        raise DataError("it holds values that are not finite")
    if np.abs(samples).max() < 1e-4:
        raise DataError("it is silent")
    return rate, samples


def cut(signals, rate):
    """Log-mel segments of many utterances, and the utterance of each segment.

    `signals` holds a pair `(rate, samples)` per utterance; all are resampled
    to the one `rate`. Every segment has 40 frames of 10 ms. What is left over
    at the end is filled up with zeros; less than 100 ms of it is dropped.
    """
    pieces, owner, lengths = [], [], []
    for row, (found, samples) in enumerate(signals):
        if found != rate:
            samples = signal.resample_poly(samples, rate, found)
        samples = samples - samples.mean()
        samples = samples / samples.std()  # how loud tells nothing
        hop = rate // 100
        frames = -(-len(samples) // hop)
        count = -(-frames // FRAMES)
        if count > 1 and frames - (count - 1) * FRAMES < SHORTEST_REST:
            count -= 1
        padded = np.zeros(count * FRAMES * hop, "float32")
        padded[: len(samples)] = samples[: len(padded)]
        pieces.append(padded.reshape(count, FRAMES * hop))
        owner += [row] * count
        lengths += [FRAMES] * (count - 1)
        lengths += [min(FRAMES, frames - (count - 1) * FRAMES)]
    segments = log_mel(np.concatenate(pieces), rate)
    segments[np.arange(FRAMES) >= np.array(lengths)[:, None]] = 0
    return segments, np.array(owner)


def log_mel(samples, rate):
    """`(n, FRAMES * rate // 100)` samples -> `(n, FRAMES, BANDS)` decibels."""
    layer = keras.layers.MelSpectrogram(
        sampling_rate=rate,
        sequence_stride=rate // 100,
        sequence_length=rate // 32,  # a window of 31 ms
        # Zeros fill the window up, until bins are at most 8 Hz apart. With
        # wider bins, the lowest of the 128 bands would hold none.
        fft_length=2 ** int(np.ceil(np.log2(rate / 8))),
        num_mel_bins=BANDS,
        min_power=1e-3,  # softer than this is background
        top_db=1000.0,  # else the loudest of the batch decides for all
    )
    rows = [
        keras.ops.convert_to_numpy(layer(samples[start : start + 256]))
        for start in range(0, len(samples), 256)
    ]
    # (n, bands, frames), with one frame too many: centered windows.
    return np.concatenate(rows)[:, :, :FRAMES].transpose(0, 2, 1).copy()
