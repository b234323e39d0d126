"""Several devices give what one device gives.

One script for each backend, `tests/several_devices.py`, makes all checks: a
framework takes long to start.
"""

import pytest

from tests.processes import outputs
from tests.testing import BACKEND

CHECKS = {
    "jax": ["metrics", "pairs", "classes"],
    "tensorflow": ["metrics", "pairs", "means", "samples"],
    "torch": [
        "sum_of_metrics",
        "sum_of_a_model",
        "sum_of_a_part",
        "heads_under_ddp",
        "temperature_under_ddp",
        "pairs_across_processes",
        "means_under_ddp",
        "samples_under_ddp",
        "fully_sharded",
    ],
}[BACKEND]


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each process has printed, and its errors."""
    folder = tmp_path_factory.mktemp("meet")
    return outputs("-m", "tests.several_devices", folder=folder, timeout=150)


@pytest.mark.parametrize("check", CHECKS)
def test_several_devices_give_what_one_gives(processes, check):
    for said, errors in processes:
        assert check in said.split(), errors[-3000:]


def test_all_checks_are_listed(processes):
    for said, _ in processes:
        assert said.split() == CHECKS
