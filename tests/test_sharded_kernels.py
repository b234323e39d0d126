"""A head whose classes are spread over devices trains as on one of them.

And the weights of the classes stay where they are: read from the program that
`fit` has compiled for 8 devices, all in one process of its own.
"""

import json

import pytest

from tests.processes import outputs
from tests.testing import only_on

pytestmark = [
    pytest.mark.thorough,
    only_on("jax", "Keras spreads variables on JAX only"),
]

CASES = [
    "over classes",
    "over features",
    "replicated",
    "over both",
    "over both turned",
    "all options",
    "low rank",
    "low rank as it comes",
    "tied",
    "cosine",
    "uneven",
    "sampled",
    "noise",
    "output",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the script prints, by case."""
    folder = tmp_path_factory.mktemp("sharded")
    ((said, errors),) = outputs("-m", "tests.sharded_kernels", folder=folder)
    lines = map(json.loads, said.splitlines())
    found = {case: facts for line in lines for case, facts in line.items()}
    assert list(found) == CASES, errors[-3000:]
    return found


@pytest.mark.parametrize("case", CASES)
def test_three_steps_end_where_those_of_one_device_end(case, found):
    assert found[case]["moved"] > 1e-2
    assert found[case]["off"] <= 1e-5


@pytest.mark.parametrize("case", CASES)
def test_a_device_needs_less_memory_than_with_a_dense_layer(case, found):
    assert found[case]["bytes"] < found[case]["bytes of Dense"]


@pytest.mark.parametrize("case", CASES)
def test_nothing_near_the_size_of_the_kernel_is_gathered(case, found):
    assert found[case]["gathered"] <= found[case]["kernel"] / 16
