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
    if mode in ("PyTorch", "torch.compile"):
        return _torch_step(function, count, mode == "torch.compile")
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
    if mode in ("PyTorch", "torch.compile"):
        return function
    if mode == "JAX":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=mode == "TensorFlow XLA")


def _torch_step(function, count, compiled):
    """Compiled as in `fit`: forward and backward as one."""

    def both_ways(*arrays):
        value = function(*arrays)
        value.backward()
        return value

    if compiled:
        import torch

        torch.compiler.reset()  # Else this size is a variation of the last.
        both_ways = torch.compile(both_ways)

    def step(*arrays):
        wanted = [x.detach().requires_grad_(True) for x in arrays[:count]]
        value = both_ways(*wanted, *arrays[count:])
        return value.detach(), [x.grad for x in wanted]

    return step


def wait(result):
    """Returns when the numbers are there."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    elif backend == "jax":
        import jax

        jax.block_until_ready(result)
    else:
        import tensorflow as tf

        tf.test.experimental.sync_devices()


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
    measured = {"seconds": statistics.median(_seconds(timed, arrays, repeats))}
    if before is not None:
        measured["peak_mb"] = (read_peak() - before) / 2**20
    return measured


def once(function):
    """Seconds of the first call, and its peak memory beyond what there was."""
    gc.collect()
    before, read_peak = _memory()
    start = time.perf_counter()
    wait(function())
    measured = {"seconds": time.perf_counter() - start}
    if before is not None:
        measured["peak_mb"] = (read_peak() - before) / 2**20
    return measured


def on_device(step, arrays, repeats=7):
    """As `time_and_memory`, on a GPU and after a warm-up of the same size.

    What kernels try out in their first steps is not in the peak. It is the
    allocator's; on JAX, whose peak cannot be reset, it is what the compiled
    program says of itself.
    """
    if os.environ.get("KERAS_BACKEND") == "jax":
        step = step.lower(*arrays).compile()
    wait(step(*arrays))
    gc.collect()
    before, read_peak = _allocator() or (None, None)
    measured = {"seconds": statistics.median(_seconds(step, arrays, repeats))}
    if hasattr(step, "memory_analysis"):
        sizes = step.memory_analysis()
        beyond = sizes.temp_size_in_bytes + sizes.output_size_in_bytes
        measured["peak_mb"] = beyond / 2**20
    elif before is not None:
        measured["peak_mb"] = (read_peak() - before) / 2**20
    return measured


def _seconds(step, arrays, repeats):
    """Of every step but the first."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = step(*arrays)
        wait(result)
        seconds.append(time.perf_counter() - start)
        del result
    return seconds[1:]


def times_in_turns(calls, turns=60, repeats=20, warm=70):
    """Median microseconds of each of some calls, by name, in each turn."""
    for call in calls.values():
        _call_times(call, warm)
    times = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            times[name].append(statistics.median(_call_times(call, repeats)))
    return times


def in_turns(calls, peers, **how):
    """µs of each of some calls, and under "name ratio" that to its peer.

    Args:
        calls: By their names.
        peers: The name of a peer for each that has one. Those that are not
            called are left out.
        **how: As `times_in_turns` takes it.
    """
    times = times_in_turns(calls, **how)
    found = {name: statistics.median(each) for name, each in times.items()}
    for name, peer in peers.items():
        if name in times and peer in times:
            pairs = zip(times[name], times[peer], strict=True)
            found[f"{name} ratio"] = statistics.median(a / b for a, b in pairs)
    return found


def call_time(call, repeats=400):
    """Median microseconds of a call, after a warm-up."""
    for _ in range(50):
        call()
    return statistics.median(_call_times(call, repeats))


def _call_times(call, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e6)
    return times


def _allocator():
    """Bytes in use on a GPU, and a function that reads the peak since now.

    None without a GPU, and on JAX, whose peak cannot be reset.
    """
    backend = os.environ.get("KERAS_BACKEND")
    if backend == "torch":
        from torch import cuda

        if cuda.is_available():
            cuda.reset_peak_memory_stats()
            return cuda.memory_allocated(), cuda.max_memory_allocated
    elif backend == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            info = tf.config.experimental.get_memory_info
            tf.config.experimental.reset_memory_stats("GPU:0")
            return info("GPU:0")["current"], lambda: info("GPU:0")["peak"]
    return None


def _memory():
    """Bytes in use, and a function that reads the peak since now.

    Of the GPU where the backend has one, else of the process (Linux only).
    """
    allocator = _allocator()
    if allocator:
        return allocator
    backend = os.environ.get("KERAS_BACKEND")
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
