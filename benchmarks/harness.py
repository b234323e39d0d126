"""Runs every case of a benchmark in a process of its own and prints a table.

A script defines `cases()` (a list of dicts) and `run(case)` (one measurement,
a dict of numbers), and calls `main`. The cases are gone through in rounds, so
that a machine whose speed drifts is unfair to nobody; ratios are taken within
a round, and the median over the rounds is shown.
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

MODES = {
    "PyTorch": {"KERAS_BACKEND": "torch"},
    "JAX": {"KERAS_BACKEND": "jax"},
    "TensorFlow graph": {"KERAS_BACKEND": "tensorflow"},
    "TensorFlow XLA": {"KERAS_BACKEND": "tensorflow"},
}


def main(cases, run, tables, usual=None, plot=None):
    """Runs one case if this is the child, else all of them.

    `usual` names the kinds that run where none are asked for; `plot` draws the
    results into the file of `--plot`.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument(
        "--kinds", nargs="+", default=usual, help="only these kinds of case"
    )
    if plot:
        parser.add_argument("--plot", help="a file to draw the results into")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run(json.loads(arguments.case))))
        return
    chosen = [
        case
        for case in cases()
        if case["mode"] in arguments.modes
        and (not arguments.kinds or case["kind"] in arguments.kinds)
    ]
    rounds = [
        [_in_a_process(case) for case in chosen]
        for _ in range(arguments.rounds)
    ]
    for table in tables:
        table(chosen, rounds)
    if plot and arguments.plot:
        plot(chosen, rounds, arguments.plot)


def _in_a_process(case):
    environment = {
        **os.environ,
        **MODES[case["mode"]],
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, sys.argv[0], "--case", json.dumps(case)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"failed: {case}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"  {case} {result}", file=sys.stderr, flush=True)
    return result


def median(rounds, index, key):
    values = [r[index][key] for r in rounds if r[index] and key in r[index]]
    return statistics.median(values) if values else None


def ratio(rounds, index, other, key):
    """Median over the rounds of case / other case."""
    values = [
        r[index][key] / r[other][key] for r in rounds if r[index] and r[other]
    ]
    return statistics.median(values) if values else None


def step(function, mode, count=1):
    """value and gradients of Σ function(*arrays) in the first `count`."""
    return compiled(gradients(function, mode, count), mode)


def gradients(function, mode, count):
    """As `step`, not compiled: to be used in something larger."""
    if mode == "PyTorch":
        return lambda *arrays: _torch_step(function, arrays, count)
    if mode == "JAX":
        import jax

        return jax.value_and_grad(function, argnums=tuple(range(count)))
    import tensorflow as tf

    def differentiate(*arrays):
        with tf.GradientTape() as tape:
            for array in arrays[:count]:
                tape.watch(array)
            value = function(*arrays)
        return value, tape.gradient(value, arrays[:count])

    return differentiate


def compiled(function, mode):
    """`function` as the mode runs it."""
    if mode == "PyTorch":
        return function
    if mode == "JAX":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=mode == "TensorFlow XLA")


def _torch_step(function, arrays, count):
    wanted = [x.detach().requires_grad_(True) for x in arrays[:count]]
    value = function(*wanted, *arrays[count:])
    value.backward()
    return value, [x.grad for x in wanted]


def wait(result):
    """Returns when the numbers are there."""
    value = result[0] if isinstance(result, tuple) else result
    float(value)


def time_and_memory(make_step, tiny, arrays, repeats=5):
    """Median seconds of a step, and the peak memory beyond its inputs in MB.

    A tiny step goes first: it loads the framework's own machinery, which is
    paid once whatever the loss. The first step on `arrays` counts in the peak.
    """
    warm = make_step()
    wait(warm(*tiny))
    del warm
    gc.collect()
    timed = make_step()
    before, read_peak = _memory()
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = timed(*arrays)
        wait(result)
        seconds.append(time.perf_counter() - start)
        del result
    measured = {"seconds": statistics.median(seconds[1:])}
    if before is not None:
        measured["peak_mb"] = (read_peak() - before) / 2**20
    return measured


def call_time(call, repeats=400):
    """Median microseconds of a call, after a warm-up."""
    for _ in range(50):
        call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e6


def _memory():
    """Bytes in use, and a function that reads the peak since now.

    Of the GPU where the backend has one, else of the process (Linux only).
    """
    backend = os.environ.get("KERAS_BACKEND")
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return (
                torch.cuda.memory_allocated(),
                torch.cuda.max_memory_allocated,
            )
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform == "gpu":
            # This peak cannot be reset: it may be that of what came before.
            return (
                device.memory_stats()["bytes_in_use"],
                lambda: device.memory_stats()["peak_bytes_in_use"],
            )
    reset = pathlib.Path("/proc/self/clear_refs")
    if not reset.exists():
        return None, None
    reset.write_text("5")
    return _status("VmRSS"), lambda: _status("VmHWM")


def _status(key):
    """A line of the process's status, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def show(number, digits):
    return "–" if number is None else f"{number:.{digits}f}"
