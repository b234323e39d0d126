"""The benchmark of a diagnosis: its models are healthy, its table adds up."""

import importlib
from pathlib import Path

import pytest

from keras_xent.diagnosis import cost

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(importlib.sys.modules, "diagnose", raising=False)
    return importlib.import_module("diagnose")


@pytest.mark.parametrize("what", ["forward", "train", "diagnose"])
def test_each_thing_is_measured_once(benchmark, what):
    measured = benchmark.run({"kind": "mlp", "what": what})
    assert measured["seconds"] > 0


def test_the_transformer_is_healthy(benchmark):
    measured = benchmark.run({"kind": "transformer", "what": "diagnose"})
    assert measured["seconds"] > 0


@pytest.mark.parametrize(
    ("kind", "is_large"),
    [("mlp", False), ("transformer", False), ("resnet", True)],
)
def test_only_resnet_is_large(benchmark, kind, is_large):
    import keras

    model, x, _ = benchmark.MODELS[kind]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    assert cost.rows(model, x) == (cost.FEW_ROWS if is_large else cost.ROWS)


def test_what_is_beyond_a_forward_pass_is_the_difference(benchmark, capsys):
    chosen = [
        {"mode": "JAX", "kind": "mlp", "what": what} for what in benchmark.ONCE
    ]
    rounds = [
        [{"seconds": s, "peak_mb": 10 * s} for s in (1.0, 4.0, 2.5)],
        [{"seconds": s, "peak_mb": 10 * s} for s in (1.0, 4.0, 2.5)],
    ]
    benchmark.table(chosen, rounds)
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == (
        "| JAX | mlp | 1.00 (10 MB) | 4.00 (40 MB) | 2.50 (25 MB) | 1.50 |"
    )
