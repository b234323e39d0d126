"""From recordings to log-mel segments, for siamese_speaker.py.

A network wants arrays of one size. So an utterance is cut into *segments* of
equal length, filled up with zeros.
"""

import functools
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import audio
import keras
import log_mel
import numpy as np
from audio import DataError

BATCH = 60  # seconds of sound that go through the layer at once
# Natural logarithms between -9.2 and 12 or so, in half precision: the error, at
# most 0.004, is far below what differs from take to take, for half the space.
DTYPE = np.dtype("float16")
VERSION = 3  # of what is in a cached file; to be raised with any change of it


def log_mel_segments(
    paths, rate, frames, speed=1.0, cache=None, title="features", failed=None
):
    """Log-mel segments of many recordings, and the utterance of each segment.

    Returns `(array, owner)`: `(n, frames, 64)` in float16, zero where there is
    no sound, and `(n,)`, row numbers of `paths` in rising order.

    With the folder `cache`, the array is a file in it, mapped into memory, and
    is taken again as long as no recording has changed. Nothing in the folder
    is ever deleted.

    `failed` is a dictionary that gets `{row of paths: what is wrong}`. Without
    it, a recording that cannot be used is a DataError.
    """
    if cache is None:
        found = _make(paths, rate, frames, speed, title)
    else:
        stored = _Stored(cache, _key(paths, rate, frames, speed))
        found = stored.load()
        if found is None:
            found = _make(paths, rate, frames, speed, title, stored)
    array, counts, wrong = found
    if wrong and failed is None:
        row = min(wrong)
        raise DataError(f"{paths[row]}: {wrong[row]}")
    if failed is not None:
        failed.update(wrong)
    owner = np.repeat(np.arange(len(paths)), counts)
    return array[: len(owner)], owner


def waveform_segments(path, rate, frames, speed=1.0):
    """`(n, samples)`: a recording at `rate`, cut, each filled up with zeros.

    All pieces are of one length: a short rest would say little and count as
    much as the others. Pieces of one value are left out: with or without an
    offset, they are digital silence. At another `speed` there are as many
    pieces as at its own.
    """
    found, samples = audio.read(path)
    count = segment_count(len(samples), found, rate, frames)
    samples = audio.resample(samples, found, rate, speed)
    hop = rate // log_mel.HOP
    long = hop * min(frames, -(-len(samples) // (hop * count)))
    samples = samples[: count * long]
    # The last value goes on, so that the end is silent where it was.
    end = np.pad(samples, (0, count * long - len(samples)), mode="edge")
    heard = np.ptp(end.reshape(count, long), axis=1) >= audio.SILENT
    padded = np.zeros(count * long, "float32")
    padded[: len(samples)] = samples
    pieces = padded.reshape(count, long)[heard]
    if not len(pieces):
        raise DataError("every piece of it is silent")
    return np.pad(pieces, ((0, 0), (0, frames * hop - long)))


def frame_count(samples, found, rate):
    """Frames of 10 ms of a recording brought from one rate to another."""
    count = audio.resampled_count(samples, found, rate)
    return -(-count // (rate // log_mel.HOP))


def segment_count(samples, found, rate, frames):
    """How many segments `waveform_segments` makes, at most."""
    return -(-frame_count(samples, found, rate) // frames)


def progress(items, title):
    """The items of a list; how far it is, on stderr, if it takes over 2 s."""
    terminal = sys.stderr.isatty()
    start = time.monotonic()
    following, pause, shown = start + 2, 0.2 if terminal else 10, False
    for number, item in enumerate(items):
        yield item
        now = time.monotonic()
        if now < following:
            continue
        done = (number + 1) / len(items)
        left = (now - start) * (1 / done - 1)
        bar = "#" * int(30 * done)
        print(
            f"{title}: [{bar:.<30}] {done:4.0%}, {left:.0f} s left ",
            end="\r" if terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
        following, shown = now + pause, True
    if shown:
        print(
            f"{title}: [{'#' * 30}] done in {time.monotonic() - start:.0f} s ",
            file=sys.stderr,
        )


@functools.lru_cache(maxsize=1)
def _model(rate, frames):
    inputs = keras.Input((frames * (rate // log_mel.HOP),))
    return keras.Model(inputs, log_mel.LogMel(rate)(inputs))


def _make(paths, rate, frames, speed, title, stored=None):
    """The array, how many segments each recording has, and what is wrong."""
    most = [_header_count(path, rate, frames) for path in paths]
    shape = sum(most), frames, log_mel.BANDS
    if stored is None or shape[0] == 0:
        array = np.empty(shape, DTYPE)
        return array, *_fill(array, paths, most, rate, frames, speed, title)
    array = stored.create(shape)
    try:
        counts, wrong = _fill(array, paths, most, rate, frames, speed, title)
        array.flush()
        del array  # some systems rename no file that is mapped
        stored.finish(counts, wrong)
    finally:
        stored.clean_up()
    return stored.load()


def _header_count(path, rate, frames):
    try:
        found, samples = audio.info(path)
    except DataError:
        return 0  # `_fill` will say why
    return segment_count(samples, found, rate, frames)


def _fill(array, paths, most, rate, frames, speed, title):
    """Features into the array; returns how many of each path, and failures."""
    model = _model(rate, frames)
    # One shape for all batches, so that it is compiled once.
    size = max(1, BATCH * log_mel.HOP // frames)
    batch = np.zeros((size, frames * (rate // log_mel.HOP)), "float32")
    waiting = written = 0

    def flush():
        nonlocal waiting, written
        result = keras.ops.convert_to_numpy(model.predict_on_batch(batch))
        array[written : written + waiting] = result[:waiting]
        written += waiting
        waiting = 0

    counts, wrong = [], {}
    for row, path in enumerate(progress(paths, title)):
        counts.append(0)
        try:
            segments = waveform_segments(path, rate, frames, speed)
        except DataError as error:
            wrong[row] = str(error)
            continue
        for segment in segments[: most[row]]:
            batch[waiting] = segment
            waiting += 1
            counts[row] += 1
            if waiting == size:
                flush()
    if waiting:
        flush()
    return counts, wrong


def _key(paths, rate, frames, speed):
    """A name for these features, another one once a recording has changed."""
    key = hashlib.sha256()
    layer = [log_mel.BANDS, log_mel.HOP, log_mel.WINDOW]
    layer += [log_mel.LOWEST, log_mel.FLOOR]
    key.update(repr((VERSION, layer, rate, frames, float(speed))).encode())
    for path in paths:
        state = os.stat(path)
        key.update(os.fsencode(Path(path).absolute()))
        key.update(f"\0{state.st_size} {state.st_mtime_ns}\0".encode())
    return key.hexdigest()[:32]


class _Stored:
    """Two files of a cache: the features, and how many of each recording.

    They are written under other names and renamed when complete. The second
    one comes last, so where it is, both are whole.
    """

    def __init__(self, folder, key):
        self.folder = Path(folder)
        self.array = self.folder / f"{key}.npy"
        self.table = self.folder / f"{key}.json"
        self.part = self.folder / f"{key}.{os.getpid()}.part"

    def load(self):
        try:
            table = json.loads(self.table.read_text("utf-8"))
            array = np.load(self.array, mmap_mode="r")
        except (OSError, ValueError):
            return None
        wrong = {int(row): why for row, why in table["wrong"].items()}
        return array, table["counts"], wrong

    def create(self, shape):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            needed = int(np.prod(shape)) * DTYPE.itemsize
            # A mapped file that outgrows its disk would end the process.
            if needed > free:
                raise DataError(
                    f"the features take {needed / 1e9:.1f} GB, and "
                    f"{self.folder} has {free / 1e9:.1f} GB left"
                )
            return np.lib.format.open_memmap(self.part, "w+", DTYPE, shape)
        except OSError as error:
            raise DataError(
                f"nothing can be written to {self.folder} ({error})"
            ) from error

    def finish(self, counts, wrong):
        os.replace(self.part, self.array)
        table = json.dumps({"counts": counts, "wrong": wrong})
        self.part.write_text(table, "utf-8")
        os.replace(self.part, self.table)

    def clean_up(self):
        self.part.unlink(missing_ok=True)
