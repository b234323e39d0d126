"""What a step sends, read from a text, from a graph, and from calls."""

import sys
from pathlib import Path

import keras

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import collectives  # noqa: E402

PROGRAM = """
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body.1 (state: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %sums = (f32[4,2]{1,0}, f32[]) all-reduce(%a, %b), to_apply=%add
}

ENTRY %main (x: f32[4,2]) -> f32[4,2] {
  %loop = (s32[], f32[4,2]) while(%t), condition=%c, body=%body.1, \
backend_config={"known_trip_count":{"n":"7"}}
  %all = f32[8,2]{1,0} all-gather-start(%x), dimensions={0}
  %done = f32[8,2]{1,0} all-gather-done(%all)
  ROOT %sum = f32[4,2]{1,0} all-reduce(%y), to_apply=%add
}
"""


@only_on("torch", "reads a text")
def test_what_is_in_a_loop_counts_as_often_as_it_is_run():
    assert collectives.of_program(PROGRAM) == [
        ["all-gather", [8, 2], 1],
        ["all-reduce", [4, 2], 7 + 1],
        ["all-reduce", [], 7],
    ]


@only_on("torch", "its calls")
def test_what_a_gradient_needs_is_counted_once():
    import torch

    x = torch.ones((2**18,), requires_grad=True)
    with collectives.watched(torch) as seen:
        (keras.ops.square(x) * x).sum().backward()
    # `x` itself, for the square and the product, and the square.
    assert seen == {"memory": 2.0, "sent": []}


def test_unknown_axes_count_once():
    assert collectives.size([3, None, 2]) == 6
    assert collectives.size([]) == 1
