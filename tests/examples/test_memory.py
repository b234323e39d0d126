"""What memory was taken, and whether it was too much."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.testing import BACKEND

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import memory  # noqa: E402

COME_AND_GO = """
import keras
import memory

peak = memory.peak_since_now()
x = keras.ops.ones((64, 2**20), "float32")  # 256 MB
assert float(x[0, 0]) == 1
del x
print(peak())
"""


def peak_of(script):
    """What a script prints last, in a process of its own.

    Others have memory left over to use again.
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(memory.__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


@pytest.mark.thorough
def test_the_peak_is_what_came_and_went():
    assert 240 < peak_of(COME_AND_GO) < 600


@pytest.mark.skipif(memory.on_gpu(), reason="the memory of the GPU")
@pytest.mark.skipif(not memory.STATUS.exists(), reason="cannot be reset")
def test_the_peak_begins_anew():
    np.ones(2**26, "float32")
    peak = memory.peak_since_now()
    assert 0 <= peak() < 100


class XlaRuntimeError(RuntimeError):
    """As JAX's."""


class OutOfMemoryError(RuntimeError):
    """As PyTorch's."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 1.13 EiB for an array"),
        XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
        XlaRuntimeError("INTERNAL: Failed to allocate 9 bytes"),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("OOM when allocating tensor with shape[9]"),
    ],
)
def test_a_refusal_of_memory_is_known(error):
    assert memory.refused(error)


@pytest.mark.parametrize(
    "error", [ValueError("shapes (2,) and (3,)"), RuntimeError("CUDA error")]
)
def test_another_error_is_none(error):
    assert not memory.refused(error)


def test_what_the_backend_says_is_known():
    with pytest.raises(Exception, match=memory.REFUSALS) as caught:
        keras.ops.convert_to_numpy(huge())
    assert memory.refused(caught.value)


def huge():
    """A tensor of 2^58 bytes."""
    if BACKEND == "torch":
        import torch

        return torch.ones(2**58, dtype=torch.uint8)
    return keras.ops.ones((2**29, 2**29), "uint8")


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", True),
        ("os.write(2, b'what(): std::bad_alloc'); os.abort()", True),
        ("os.abort()", False),
        ("sys.exit('out of memory, it says, and goes on')", False),
        ("", False),
    ],
)
def test_a_process_that_ends_for_want_of_memory_is_known(script, ended):
    script = "import os, signal, sys; " + script
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert memory.ended(done.returncode, done.stderr) == ended


FREED = """
import keras
import memory
import numpy as np

parts = [np.ones(2**14, "float32") for _ in range(4096)]  # 256 MB, in 64 kB
parts = parts[-1:]  # What lies below it is not given back by itself.
memory.give_back()
peak = memory.peak_since_now()
parts = [np.ones(2**14, "float32") for _ in range(4096)]
print(peak())
"""


@pytest.mark.skipif(
    memory.on_gpu() or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="the C library keeps what was freed, or a GPU is asked",
)
@pytest.mark.thorough
def test_what_was_freed_and_given_back_counts_again():
    assert 240 < peak_of(FREED) < 600
