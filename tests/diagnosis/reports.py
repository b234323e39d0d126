"""One report or more for every code."""

from tests.diagnosis import (
    test_arrival,
    test_embeddings,
    test_flow,
    test_frequencies,
    test_identities,
    test_inputs,
    test_labels,
    test_metrics,
    test_nonfinite,
    test_outputs,
    test_pairs,
    test_scale,
    test_separation,
    test_start,
)
from tests.diagnosis.cases import look_at

MODULES = (
    test_labels,
    test_identities,
    test_embeddings,
    test_frequencies,
    test_outputs,
    test_pairs,
    test_separation,
    test_metrics,
    test_start,
    test_flow,
    test_inputs,
    test_nonfinite,
    test_scale,
    test_arrival,
)


def every_report():
    """Of all broken models of the tests beside, in all their variants."""
    return [
        look_at(*broken())
        for module in MODULES
        for name, test in vars(module).items()
        if name.startswith("test_")
        for mark in getattr(test, "pytestmark", ())
        if mark.args[0] == ("broken", "healthy")
        for broken, _ in mark.args[1]
    ]
