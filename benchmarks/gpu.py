"""Everything that is measured on a GPU, in one command of under six minutes.

    python benchmarks/gpu.py                    # the tables and the bars
    python benchmarks/gpu.py --tests            # and the tests about devices
    python benchmarks/gpu.py --parts --tests tests/ops      # these tests alone
    python benchmarks/gpu.py --parts linear --backends torch
    python benchmarks/gpu.py --small            # tiny, and without a GPU

One process per backend, PyTorch, JAX and TensorFlow; one that is not installed
or sees no GPU is left out, and the output says so. It needs Keras, NumPy and
this package; peers are measured where they are installed (`pip install
liger-kernel cut-cross-entropy tokamax optax torchsort torchmetrics`). The
output is Markdown for docs/gpu.md. At the end `examples/language_model.py`
trains with and without `LinearHead`, in mixed bfloat16.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import contrastive
import gpu_cases
from gpu_cases import COMPILED, MODES, OURS, title
from harness import show

ROOT = Path(__file__).parents[1]
PARTS = [
    "linear", "losses", "contrastive", "pairs", "histogram", "ranks", "example",
]  # fmt: skip
HEADINGS = {
    "linear": "Linear cross-entropy",
    "losses": "Cross-entropy of logits",
    "contrastive": "Contrastive losses",
    "pairs": "Pairs",
    "histogram": "Score histogram",
    "ranks": "Soft ranks",
}
SECONDS = 340  # of the six minutes; the rest is for what closes slowly
# How they share it, and what of each share the example gets.
SHARES = {"torch": 3, "jax": 3, "tensorflow": 2}
FOR_THE_EXAMPLE = 30
EXAMPLE = ["--compare", "--policy", "mixed_bfloat16"]

# The processes share one GPU.
SHARED = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

# Of the tests, which know the right numbers: no products in TF32.
EXACT = {
    "NVIDIA_TF32_OVERRIDE": "0",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
}


# Bars ------------------------------------------------------------------------


def bars(rows, heads):
    """Each bar as its text, the two numbers, their ratio, and the verdict.

    `rows` are the figures, `heads` the sizes of the heads.
    """
    found = {(r["backend"], r["table"], r["loss"]): r for r in rows}
    for size in heads:
        for layout in gpu_cases.LAYOUTS:
            yield from _head_bars(found, size, layout)
    exact = title(heads[0], "float32", "class_vectors")
    for backend in ("torch", "jax"):
        own, keras = (found.get((backend, exact, x)) for x in (OURS, "Keras"))
        text = f"{exact}: {MODES[backend]}, of Keras's time"
        yield text, verdict(own, keras, 1.4)
    for name in contrastive.LOSSES:
        table = gpu_cases.contrastive_title(
            name, gpu_cases.USUAL["contrastive"]
        )
        for backend in ("torch", "jax"):
            own, dense = (
                found.get((backend, table, x))
                for x in (OURS, contrastive.DENSE)
            )
            text = f"{table}: {MODES[backend]}, of the time of all pairs"
            yield text, verdict(own, dense, 1.0)


def _head_bars(found, size, layout):
    table = title(size, "bfloat16", layout)
    # The peers take class vectors only.
    of_peers = title(size, "bfloat16", "class_vectors")

    def row(backend, loss):
        peer = loss in ("Liger", "CCE")
        return found.get((backend, of_peers if peer else table, loss))

    ours = row("torch", OURS)
    for text, own, other, limit in (
        ("PyTorch, of Keras's time", ours, row("torch", "Keras"), 1.25),
        ("PyTorch, of Liger's time", ours, row("torch", "Liger"), 1.0),
        ("PyTorch, of cut-cross-entropy's", ours, row("torch", "CCE"), 1.6),
        ("JAX, of Keras's time", row("jax", OURS), row("jax", "Keras"), 1.35),
    ):
        yield f"{table}: {text}", verdict(own, other, limit)
    if table == of_peers:
        text = f"{table}: PyTorch, compiled, of eager"
        # What differs by less is noise.
        yield text, verdict(row("torch", COMPILED), ours, 1.02)
    for backend in ("torch", "jax"):
        text = f"{MODES[backend]}, of Keras's memory, both beyond gradients"
        yield (
            f"{table}: {text}",
            verdict(row(backend, OURS), row(backend, "Keras"), 1 / 8, "memory"),
        )


def verdict(own, other, limit, of="time"):
    """The two numbers, their ratio, its limit, and what that means."""
    figures = [_figure(row, of) for row in (own, other)]
    digits, unit = (0, "MB") if of == "memory" else (1, "ms")
    shown = " / ".join(show(figure, digits) for figure in figures)
    if None in figures or not figures[1]:
        return f"{shown} {unit}", "–", f"{limit:.3g}", "not measured"
    ratio = figures[0] / figures[1]
    word = "met" if ratio <= limit else "not met"
    return f"{shown} {unit}", f"{ratio:.3g}", f"{limit:.3g}", word


def _figure(row, of):
    if row is None:
        return None
    if of == "time":
        return row.get("ms")
    peak = row.get("mb")
    return None if peak is None else peak - row["gradient_mb"]


# Tables ----------------------------------------------------------------------


def print_tables(rows, backends):
    """A table for each part: a row for each loss, two columns a backend."""
    for part, heading in HEADINGS.items():
        of_part = [row for row in rows if row["part"] == part]
        if not of_part:
            continue
        print(f"\n## {heading}\n")
        columns = [f"{MODES[b]}, ms | MB" for b in backends]
        print(f"| | | {' | '.join(columns)} |")
        print("| --- " * (2 + 2 * len(backends)) + "|")
        found = {(r["table"], r["loss"], r["backend"]): r for r in of_part}
        tables = list(dict.fromkeys(row["table"] for row in of_part))
        lines = list(dict.fromkeys(key[:2] for key in found))
        for table, loss in sorted(lines, key=lambda x: tables.index(x[0])):
            cells = [table, loss]
            for backend in backends:
                row = found.get((table, loss, backend), {})
                cells += [show(row.get("ms"), 2), show(row.get("mb"), 0)]
            print("| " + " | ".join(cells) + " |")
    failed = [row for row in rows if "failed" in row]
    if failed:
        print("\nNot measured:\n")
    for row in failed:
        where = f"{row['backend']}, {row['table']}, {row['loss']}"
        print(f"- {where}: {row['failed']}")


def print_bars(rows, options):
    print("\n## Bars\n\n| | this / other | ratio | at most | |")
    print("| --- | --- | --- | --- | --- |")
    sizes = gpu_cases.SMALL if options.small else gpu_cases.USUAL
    for text, said in bars(rows, sizes["heads"]):
        print(f"| {text} | {' | '.join(said)} |")


# Processes -------------------------------------------------------------------


def run_backend(backend, options, seconds):
    """The lines of JSON of a process, which is ended when the time is up."""
    command = [sys.executable, __file__, "--child", f"{seconds:.0f}"]
    command += ["--parts", *options.parts] + ["--small"] * options.small
    environment = {**os.environ, **SHARED, "KERAS_BACKEND": backend}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        timer = threading.Timer(seconds + 15, child.kill)
        timer.start()
        try:
            lines = [x for x in child.stdout if x.startswith("{")]
        finally:
            timer.cancel()
    if child.returncode:
        print(f"{backend}: ended with {child.returncode}", file=sys.stderr)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def run_example(backend, options, seconds):
    """What the language model prints of itself, or why it did not."""
    command = [sys.executable, ROOT / "examples" / "language_model.py"]
    command += EXAMPLE + ["--small"] * options.small
    environment = {**os.environ, **SHARED, "KERAS_BACKEND": backend}
    try:
        done = subprocess.run(
            command,
            env=environment,
            timeout=max(seconds, 1),
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no time was left"
    if done.returncode:
        return f"failed: {(done.stderr.splitlines() or ['?'])[-1]}"
    return done.stdout.strip()


def run_tests(backends, paths):
    """pytest's exit status: of `paths`, else of the tests marked `device`."""
    which = [*paths, "-m", "not slow"] if paths else ["tests", "-m", "device"]
    command = [sys.executable, "-m", "pytest", "-q", *which]
    codes = [
        subprocess.run(
            [*command, "--backend", backend],
            cwd=ROOT,
            env={**os.environ, **SHARED, **EXACT},
            check=False,
        ).returncode
        for backend in backends
    ]
    return max(codes, default=0)


def main():
    options = parse()
    if options.child:
        gpu_cases.main(options.small, options.parts, options.child)
        return 0
    end = time.monotonic() + SECONDS
    waiting, measured, rows = [], [], []
    for backend in options.backends:
        if importlib.util.find_spec(backend):
            waiting.append(backend)
        else:
            print(f"{MODES[backend]}: not installed", flush=True)
    while waiting:
        share = _share(waiting, end)
        backend = waiting.pop(0)
        if "example" in options.parts:
            share -= FOR_THE_EXAMPLE
        first, *figures = run_backend(backend, options, share) or [{}]
        if not (first.get("device") or (options.small and first)):
            print(f"{MODES[backend]}: no GPU", flush=True)
            continue
        version = f"{first['version']} on {first['device'] or 'the CPU'}"
        print(f"{MODES[backend]}: {version}", flush=True)
        measured.append(backend)
        rows += [{"backend": backend, **row} for row in figures]
    print_tables(rows, measured)
    if "linear" in options.parts:
        print_bars(rows, options)
    if "example" in options.parts:
        waiting = list(measured)
        while waiting:
            share = _share(waiting, end)
            backend = waiting.pop(0)
            print(f"\n## A language model, {MODES[backend]}\n", flush=True)
            print(run_example(backend, options, share), flush=True)
    if options.tests is None:
        return 0
    return run_tests(measured, options.tests)


def _share(waiting, end):
    """Seconds of the first of those that wait."""
    left = max(end - time.monotonic(), 0)
    return left * SHARES[waiting[0]] / sum(SHARES[b] for b in waiting)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--backends", nargs="+", default=list(MODES), choices=list(MODES))
    add(
        "--parts",
        nargs="*",
        default=PARTS,
        metavar="PART",
        help=", ".join(PARTS),
    )
    add("--small", action="store_true", help="tiny, and without a GPU")
    add(
        "--tests",
        nargs="*",
        metavar="PATH",
        help="and the tests about devices, or those in PATH",
    )
    add("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    wrong = set(options.parts) - set(PARTS)
    if wrong:
        parser.error(f"--parts: expected some of {PARTS}, got {sorted(wrong)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
