"""What is read from a compiled program."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.testing import only_on

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

PROGRAM = """
HloModule jit_train_step, is_scheduled=true

%body.1 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %g = f32[64,1024]{1,0} all-gather(%x), replica_groups=[4,2]<=[8]
}

ENTRY %main.2 (p: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]) while(%t), body=%body.1, \
backend_config={"known_trip_count":{"n":"7"}}
  %r = (f32[256]{0}, bf16[256,1]{1,0}) all-reduce(%a, %b), \
replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}
  %s = f32[] all-reduce(%d), replica_groups={{0,1,2,3,4,5,6,7}}
}
"""


@pytest.fixture
def sharded(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("sharded")


def test_a_collective_counts_as_often_as_its_loop_runs(sharded):
    gathered = 7 * 64 * 1024 * 4 * 1 / 2
    reduced = (256 * 4 + 256 * 2) * 2 * 3 / 4
    scalar = 4 * 2 * 7 / 8
    found = sharded.bytes_sent(PROGRAM, 8)
    assert found == pytest.approx(gathered + reduced + scalar)


@pytest.mark.parametrize("layout", ["classes", "both"])
def test_more_devices_hold_less_each(sharded, layout):
    few, many = (sharded.weights(data, 8, 64, 32768, layout) for data in (1, 8))
    assert few == 64 * 32768 * 4 / 8
    assert many == (few / 8 if layout == "both" else few)


@only_on("jax", "where Keras has variables that are spread over devices")
def test_the_formulas_say_what_a_compiled_step_needs(sharded, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "sharded.py")])
    case = {"mesh": (2, 4), "layout": "both", "head": "LinearHead"}
    found = sharded.in_a_process(case, 8)
    sizes = sharded.ROWS, sharded.WIDTH, sharded.CLASSES
    expected = sharded.memory(2, 4, *sizes, sharded.BLOCK, "both")
    assert found["memory"] == pytest.approx(expected, rel=0.03)
    expected = sharded.sent(2, 4, *sizes, "both")
    assert found["sent"] == pytest.approx(expected, rel=0.03)
