"""From a recording to samples, for siamese_speaker.py.

SciPy reads WAV. FLAC, OGG and the rarer kinds of WAV need the package
`soundfile`.
"""

import contextlib
import fractions
import functools
import os
import warnings
from pathlib import Path

import numpy as np
from scipy import signal
from scipy.io import wavfile

try:
    import soundfile
except (ImportError, OSError):  # OSError: the package without its library
    soundfile = None

SUFFIXES = (".wav", ".flac", ".ogg")
# Audio that nothing here reads, so that a folder of it is no empty folder.
OTHER_SUFFIXES = (".mp3", ".m4a", ".aac", ".opus", ".wma")
LOWEST_RATE = 4000  # Hz; there is little of a voice below 2 kHz
SHORTEST = 0.05  # seconds; less is no utterance
SILENT = 1e-4  # of full scale


class DataError(Exception):
    """Something about the data that the user can mend."""


def files(directory):
    """The audio files below a folder, in order, of kinds read here or not.

    Links to folders are followed; a folder is looked into once. Names that
    begin with a dot are left out: macOS leaves such files beside real ones.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory} is not a folder")
    found, seen = [], set()
    for folder, inner, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if name[0] != ".")
        found += [Path(folder, name) for name in names if name[0] != "."]
    kinds = SUFFIXES + OTHER_SUFFIXES
    return sorted(path for path in found if path.suffix.lower() in kinds)


def unreadable(path):
    """Why no installed package reads files of this kind; `None` if one does."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return (
            f"{suffix or 'such'} files are not read; make a WAV or FLAC file "
            f"of it, as by: ffmpeg -i {path.name} {path.stem}.wav"
        )
    if suffix != ".wav" and soundfile is None:
        return f"{suffix} files need a package: pip install soundfile"
    return None


def info(path):
    """`(rate, samples)` of a recording: how many there are of each channel."""
    _require_readable(path)
    if Path(path).suffix.lower() == ".wav":
        try:  # maps the samples without reading them
            rate, samples = _read_wav(path, mmap=True)
        except DataError:  # 24 bits cannot be mapped
            rate, samples = _samples(path)
        count = len(samples)
    else:
        with _readable(path):
            header = soundfile.info(path)
        rate, count = header.samplerate, header.frames
    _check_size(rate, count)
    return rate, count


def read(path):
    """`(rate, samples)` of a recording: mono, in float32, full scale is 1."""
    _require_readable(path)
    rate, samples = _samples(path)
    if samples.dtype == np.uint8:
        samples = (samples.astype("float32") - 128) / 128
    elif samples.dtype.kind == "i":  # 24 bits come as the upper ones of 32
        samples = samples.astype("float32") / 2.0 ** (8 * samples.itemsize - 1)
    samples = samples.astype("float32")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    _check_size(rate, len(samples))
    if not np.isfinite(samples).all():
        raise DataError("it holds values that are not finite")
    if np.abs(samples).max() < SILENT:
        raise DataError("it is silent")
    if np.ptp(samples) < SILENT:
        raise DataError("it holds one value only")
    return rate, samples


def resample(samples, rate, to, speed=1.0):
    """The samples at the rate `to`, spoken `speed` times as fast.

    A voice that is played faster is higher, too, as on a tape.
    """
    up, down = _ratio(rate, to, speed)
    if up == down:
        return samples
    # Silence around the recording is where its mean is.
    return signal.resample_poly(
        samples, up, down, window=_window(up, down), padtype="mean"
    )


def resampled_count(count, rate, to, speed=1.0):
    """How many samples `resample` makes of `count`."""
    up, down = _ratio(rate, to, speed)
    return -(-count * up // down)


def _ratio(rate, to, speed):
    # Exact for the usual rates. At another speed, the nearest ratio of small
    # numbers is near enough, and its filter is short.
    ratio = fractions.Fraction(to) / (rate * fractions.Fraction(speed))
    ratio = ratio.limit_denominator(1000)
    return ratio.numerator, ratio.denominator


@functools.cache
def _window(up, down):
    """The filter of SciPy's `resample_poly`, made once for all files."""
    highest = max(up, down)
    return signal.firwin(
        20 * highest + 1, 1 / highest, window=("kaiser", 5.0)
    ).astype("float32")


def _require_readable(path):
    if why := unreadable(path):
        raise DataError(why)


def _check_size(rate, count):
    if count < SHORTEST * rate:
        raise DataError(f"shorter than {1000 * SHORTEST:.0f} ms, or empty")
    if rate < LOWEST_RATE:
        raise DataError(
            f"{rate} samples a second are too few for a voice; at least "
            f"{LOWEST_RATE} are needed"
        )


def _samples(path):
    if Path(path).suffix.lower() == ".wav":
        try:
            return _read_wav(path)
        except DataError as error:
            if soundfile is None or "Reached EOF" in str(error):
                raise
    with _readable(path):
        samples, rate = soundfile.read(path, dtype="float32")
    return rate, samples


def _read_wav(path, mmap=False):
    with _readable(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)
        warnings.filterwarnings("error", "Reached EOF prematurely")
        return wavfile.read(path, mmap=mmap)


@contextlib.contextmanager
def _readable(path):
    try:
        yield
    except Exception as error:  # a broken file can fail in any way at all
        kind = Path(path).suffix[1:].upper()
        raise DataError(f"not a readable {kind} file ({error})") from error
