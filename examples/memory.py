"""How much memory training takes, on a GPU or without one.

A GPU is asked through the backend that Keras runs on; without a GPU it is the
memory of this process.
"""

import contextlib
import ctypes
import re
import sys
from pathlib import Path

import keras

STATUS = Path("/proc/self/status")  # on Linux
MB = 2**20
KILLED = -9  # what a system does to a process when its memory is at an end

# The words of PyTorch, CUDA's libraries, XLA, TensorFlow, NumPy and C++.
REFUSALS = re.compile(
    r"out of memory|out_of_memory|OutOfMemory|can't allocate|failed to allocate"
    r"|unable to allocate|alloc_failed|resource_?exhausted|OOM when|bad_alloc"
    r"|MemoryError",
    re.IGNORECASE,
)


def on_gpu():
    """Whether the backend computes on something other than the CPU."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def peak_since_now():
    """A function: how far the peak has risen above what is in use now, in MB.

    JAX's peak on a GPU is that of the whole process: ask for it but once, and
    do nothing larger before.
    """
    in_use, peak = (_gpu if on_gpu() else _process)()
    return lambda: (peak() - in_use) / MB


def give_back():
    """Hands what was freed back to the system, if the C library knows how.

    A process that keeps it has it in use: a peak below that is not seen.
    """
    if STATUS.exists():
        with contextlib.suppress(AttributeError):  # glibc alone has it.
            ctypes.CDLL(None).malloc_trim(0)


def refused(error):
    """Whether an exception says that there was no more memory."""
    return bool(REFUSALS.search(f"{type(error).__name__}: {error}"))


def ended(code, errors):
    """Whether a process ended, without an exception, for want of memory."""
    return code == KILLED or (code < 0 and bool(REFUSALS.search(errors)))


# Bytes in use, and a function that reads the peak since now


def _gpu():
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    if backend == "jax":
        import jax

        read = jax.devices()[0].memory_stats
        return read()["bytes_in_use"], lambda: read()["peak_bytes_in_use"]
    import tensorflow as tf

    tf.config.experimental.reset_memory_stats("GPU:0")
    read = tf.config.experimental.get_memory_info
    return read("GPU:0")["current"], lambda: read("GPU:0")["peak"]


def _process():
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS"), lambda: _status("VmHWM")
    import resource

    def peak():
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest * (1 if sys.platform == "darwin" else 1024)

    return peak(), peak


def _status(key):
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", STATUS.read_text())[1])
