"""Runs the suite once per backend, each in a process of its own.

Keras fixes its backend at import, so one process can test one backend:

    pytest                            # everything on every backend
    pytest --backend jax tests/ops    # a part on one

The process that was started by hand only starts the others, as many at a time
as there are cores. JAX gets a second one for the tests marked `float64`,
because there float64 is a switch that must be thrown before the import.
"""

import concurrent.futures
import gc
import os
import subprocess
import sys
import tempfile
import time

import pytest

BACKENDS = ("tensorflow", "jax", "torch")
CHILD = "KERAS_XENT_TEST_CHILD"
PYTEST = [sys.executable, "-m", "pytest"]

# Scripts that want devices which are made before they are imported.
collect_ignore = ["tests/sharded_kernels.py"]


def pytest_addoption(parser):
    parser.addoption(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="run on this backend only (may be given several times)",
    )


def pytest_cmdline_main(config):
    if CHILD in os.environ or config.option.help or config.option.version:
        return None
    if config.option.collectonly:
        os.environ.setdefault("KERAS_BACKEND", _backends(config)[0])
        return None
    children = list(_children(config))
    # Compiling keeps one core busy, most of the time.
    with (
        tempfile.TemporaryDirectory() as cache,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        codes = [pool.submit(_run, config, cache, *child) for child in children]
        codes = [code.result() for code in codes]
    ran = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED]
    return max(ran, default=pytest.ExitCode.NO_TESTS_COLLECTED)


def _backends(config):
    return config.option.backend or BACKENDS


def _children(config):
    for backend in _backends(config):
        yield backend, {}, []
        if backend == "jax":
            marks = config.option.markexpr
            marks = f"({marks}) and float64" if marks else "float64"
            yield backend, {"JAX_ENABLE_X64": "1"}, ["-m", marks]


def _run(config, cache, backend, environment, arguments):
    """One process. Its output is shown when it is done, in one piece."""
    switches = "".join(f" {k}={v}" for k, v in environment.items())
    environment = {
        **os.environ,
        # JAX compiles the same step for many tests: once is enough.
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **environment,
        # The processes share the cores: threads would wait for each other.
        "OMP_NUM_THREADS": "1",
        CHILD: "1",
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    given = map(str, config.invocation_params.args)
    # No cache: the processes would write to one file at the same time.
    command = [*PYTEST, *given, *arguments, "-p", "no:cacheprovider"]
    start = time.monotonic()
    print(f"===== {backend}{switches}: started", flush=True)
    done = subprocess.run(
        command,
        env=environment,
        cwd=config.invocation_params.dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = round(time.monotonic() - start)
    print(f"===== {backend}{switches}: {seconds} s", flush=True)
    print(done.stdout, flush=True)
    return done.returncode


def pytest_collection_finish():
    # What is imported stays, and a trace makes many objects that live on: do
    # not look through all of them again and again.
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_collection_modifyitems(config, items):
    if os.environ.get("KERAS_BACKEND") != "jax":
        return
    if os.environ.get("JAX_ENABLE_X64") == "1":
        return
    elsewhere = [item for item in items if item.get_closest_marker("float64")]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in set(elsewhere)]
