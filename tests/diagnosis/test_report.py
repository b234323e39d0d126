"""What a report says, and how."""

import re

import numpy as np
import pytest
from keras import layers

from keras_xent import diagnose
from keras_xent.diagnosis import Finding, Report, codes
from tests.diagnosis.cases import FLAGS, IDS, SPARSE, YES_NO, X, look_at, stack
from tests.diagnosis.reports import every_report
from tests.testing import BACKEND

Dense = layers.Dense
FINDING = Finding(
    "saturated",
    "warning",
    "layer 'a'",
    "It is flat.",
    {"share": 1.0},
    "Large weights.",
    "x = 1",
)
ERROR = Finding(
    "single-class",
    "error",
    "output 'b'",
    "One class.",
    {"classes": 1},
    "One unit.",
    "y = 2",
)


def report(*findings, **options):
    given = {"checked": ["all-masked"], "unchecked": {}, "rows": 32}
    given |= {"labels": 32, "loss": 1.0986123, **options}
    return Report(findings, **given)


def test_the_gravest_comes_first():
    both = report(FINDING, ERROR)
    assert both.findings == (ERROR, FINDING)
    assert both.errors == (ERROR,)
    assert both.warnings == (FINDING,)
    assert str(both).splitlines()[0] == (
        "keras_xent.diagnose: 1 error, 1 warning (32 rows, loss 1.099)"
    )


def test_nothing_found_is_a_finding_too():
    assert str(report()) == (
        "keras_xent.diagnose: nothing wrong seen (32 rows, loss 1.099)\n"
        "Looked for: all-masked."
    )
    assert repr(report()) == str(report())


def test_a_finding_says_where_its_code_is_explained():
    lines = str(report(FINDING, ERROR)).splitlines()
    addresses = [line for line in lines if line.startswith("  More: https://")]
    assert [line.split("/")[-1] for line in addresses] == [
        "diagnose#single-class",
        "diagnose#saturated",
    ]


def test_what_was_not_looked_for_is_said_with_the_reason():
    text = str(report(ERROR, unchecked={"saturated": "the errors come first"}))
    assert text.endswith(
        "Not looked for, because the errors come first: saturated."
    )


def test_rows_and_labels_are_counted():
    one = report(rows=1, labels=1, loss=None)
    assert "(1 row)" in str(one)
    assert "(32 rows, labels of 1000, loss 1.099)" in str(report(labels=1000))


def test_errors_raise_with_the_whole_text_and_warnings_do_not():
    broken = report(FINDING, ERROR)
    with pytest.raises(ValueError, match="single-class") as caught:
        broken.raise_if_errors()
    assert str(caught.value) == str(broken)
    only_warned = report(FINDING)
    assert only_warned.raise_if_errors() is only_warned


def test_findings_are_data():
    found = look_at(*stack(Dense(3), loss=SPARSE, y=IDS + 1)).findings[0]
    assert found.code == "labels-out-of-range"
    assert found.severity == "error"
    assert found.evidence["classes"] == 3
    assert found.evidence["largest label"] == 3
    with pytest.raises(AttributeError):
        found.code = "other"


@pytest.fixture(scope="module")
def reports():
    if BACKEND != "torch":
        pytest.skip("The texts are the same on all backends.")
    return every_report()


def test_every_code_is_among_the_reports(reports):
    found = {f.code for each in reports for f in each.findings}
    assert found == set(codes.LOOKED_FOR)


def test_no_line_is_longer_than_80_columns(reports):
    for each in reports:
        assert all(len(line) < 80 for line in str(each).splitlines()), each


def test_each_finding_says_what_where_why_and_what_to_do(reports):
    for finding in (f for each in reports for f in each.findings):
        assert finding.severity in ("error", "warning")
        assert finding.summary.endswith("."), finding
        assert finding.cause.endswith((".", "!")), finding
        assert finding.where
        assert finding.evidence
        assert finding.cure
        shown = str(finding)
        assert f"[{finding.code}]" in shown
        for key in finding.evidence:
            assert key.strip().split()[0] in shown


# The word, and what it is explained by in the same finding.
LOGIT = re.compile(r"\blogits?\b(?!=)", re.IGNORECASE)
CLAUSE = re.compile(r"scores?\s+(#\s+)?of\s+(#\s+)?any\s+(#\s+)?size")


def test_who_says_logit_says_what_that_is(reports):
    spoken = 0
    for finding in (f for each in reports for f in each.findings):
        prose = "\n".join([finding.summary, finding.cause, finding.cure])
        prose = prose.replace("from_logits", "")
        if LOGIT.search(prose):
            spoken += 1
            assert CLAUSE.search(prose), finding
    assert spoken > 5


def test_cures_are_python(reports):
    for finding in (f for each in reports for f in each.findings):
        compile(finding.cure, "cure", "exec")
        names = re.findall(r"\b(keras(?:_xent)?(?:\.\w+)+)", finding.cure)
        for name in names:
            resolve(name)


def resolve(name):
    """That what a cure names exists."""
    import keras

    import keras_xent

    root, *path = name.split(".")
    found = {"keras": keras, "keras_xent": keras_xent}[root]
    for part in path:
        found = getattr(found, part)
    return found


def test_numbers_are_short():
    long = {"a": 0.123456789, "b": [1.0, 2.34567], "c": 7, "d": (3, 4)}
    found = Finding("saturated", "error", "w", "S.", long, "C.", "c")
    assert "Seen: a 0.1235, b [1, 2.346], c 7, d [3, 4]" in str(found)


def test_labels_of_a_part_are_told_apart():
    x = np.tile(X, (4, 1))
    model, *_ = stack(Dense(1), loss=YES_NO, y=FLAGS)
    text = str(diagnose(model, x, np.tile(FLAGS, (4, 1))))
    assert "32 rows, labels of 128" in text
