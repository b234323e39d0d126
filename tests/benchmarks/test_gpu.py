"""The command for a GPU runs at small size, and judges its bars right."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing import BACKEND, only_on

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEADS = [(8, 4, 32), (4, 4, 16)]
VECTORS = "8 × 4 × 32, bfloat16, `class_vectors`"
KERNEL = "8 × 4 × 32, bfloat16, `kernel`"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("parts", "headings", "rows"),
    [
        (
            ["contrastive", "pairs", "histogram", "ranks"],
            ["Contrastive losses", "Pairs", "Score histogram", "Soft ranks"],
            1,
        ),
        (
            ["linear", "losses"],
            ["Linear cross-entropy", "Cross-entropy of logits", "Bars"],
            # Two sizes in two layouts, float32, mixed; three losses in two
            # dtypes.
            2 * 2 + 2 + 3 * 2,
        ),
    ],
)
def test_every_row_is_measured_at_small_size(parts, headings, rows):
    done = command("--small", "--backends", BACKEND, "--parts", *parts)
    assert done.returncode == 0, done.stderr
    assert "Not measured" not in done.stdout
    lines = done.stdout.splitlines()
    headings = [f"## {heading}" for heading in headings]
    assert [x for x in lines if x.startswith("## ")] == headings
    keras = [x.split(" | ") for x in lines if " | Keras" in x]
    assert len(keras) == rows
    assert all(float(row[2]) >= 0 for row in keras)


@only_on("torch", "says the same on each backend")
def test_without_a_gpu_nothing_is_measured():
    done = command("--backends", "torch", CUDA_VISIBLE_DEVICES="")
    assert done.stdout.startswith("PyTorch: no GPU")
    assert "of Keras's time | – / – ms | – | 1.25 | not measured" in done.stdout


def figures(backend, table, **ms_and_mb):
    return [
        {
            "backend": backend,
            "table": table,
            "loss": loss,
            "ms": ms,
            "mb": mb,
            "gradient_mb": 1000,
        }
        for loss, (ms, mb) in ms_and_mb.items()
    ]


@only_on("torch", "says the same on each backend")
def test_bars_are_judged_from_the_figures(gpu):
    rows = figures(
        "torch",
        VECTORS,
        keras_xent=(100, 3000),
        Keras=(80, 24000),
        Liger=(142, None),
        CCE=(55, None),
        **{"torch.compile": (101, None)},
    )
    rows += figures("torch", KERNEL, keras_xent=(143, 3877), Keras=(80, 24000))
    rows += figures("jax", KERNEL, keras_xent=(65, None), Keras=(48, None))
    bars = dict(gpu.bars(rows, HEADS))

    def of(table, text):
        return bars[f"{table}: {text}"][1:]

    assert of(VECTORS, "PyTorch, of Keras's time") == ("1.25", "1.25", "met")
    assert of(KERNEL, "PyTorch, of Keras's time") == (
        "1.79",
        "1.25",
        "not met",
    )
    assert of(VECTORS, "PyTorch, of Liger's time")[-1] == "met"
    # The peers take class vectors only: the kernel is held against those.
    assert of(KERNEL, "PyTorch, of Liger's time")[-1] == "not met"
    assert of(VECTORS, "PyTorch, of cut-cross-entropy's")[-1] == "not met"
    assert of(VECTORS, "PyTorch, compiled, of eager")[-1] == "met"
    assert of(KERNEL, "JAX, of Keras's time") == ("1.35", "1.35", "not met")
    memory = "PyTorch, of Keras's memory, both beyond gradients"
    assert of(VECTORS, memory) == ("0.087", "0.125", "met")
    assert of(KERNEL, memory)[-1] == "not met"
    memory = memory.replace("PyTorch", "JAX")
    assert bars[f"{KERNEL}: {memory}"] == (
        "– / – MB",
        "–",
        "0.125",
        "not measured",
    )
    second = [text for text in bars if text.startswith("4 × 4 × 16")]
    assert {bars[text][-1] for text in second} == {"not measured"}
    exact = "8 × 4 × 32, float32, `class_vectors`"
    assert of(exact, "PyTorch, of Keras's time")[-1] == "not measured"


@only_on("torch", "says the same on each backend")
def test_what_failed_is_named_below_the_tables(gpu, capsys):
    rows = figures("torch", VECTORS, keras_xent=(12.345, 678.9))
    rows.append({**rows[0], "loss": "CCE", "ms": None, "failed": "no memory"})
    rows = [{"part": "linear", **row} for row in rows]
    gpu.print_tables(rows, ["torch", "jax"])
    printed = capsys.readouterr().out
    assert f"| {VECTORS} | keras_xent | 12.35 | 679 | – | – |" in printed
    assert f"- torch, {VECTORS}, CCE: no memory" in printed
