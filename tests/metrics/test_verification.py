"""The figures of many scores, from every region of float32, are exact enough.

The full measurement, with 1e6 scores, is `benchmarks/metrics.py --kinds
accuracy`. This is the same with fewer.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.testing import thorough_on

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def measured():
    sys.path.insert(0, str(BENCHMARKS))  # it imports its harness
    spec = importlib.util.spec_from_file_location(
        "benchmark_of_metrics", BENCHMARKS / "metrics.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    "name", ["Gaussian", "in [0, 1e-6]", "cosine in [0.98, 1], linear bins"]
)
@thorough_on("jax")
def test_figures_are_those_of_scikit_learn_on_raw_scores(name, measured):
    found = measured.deviations(name, count=100_000)
    assert found["held"] == 1
    assert found["equal_error_rate"] < 5e-5
    assert found["min_detection_cost"] < 1e-3
    assert found["match_auc"] < 5e-6


def test_twenty_matches_among_many_stay_within_the_bounds(measured):
    # Of another size only, so that JAX has the result compiled already.
    found = measured.deviations("20 matches to 2e6", 50_000)
    assert found["held"] == 1
