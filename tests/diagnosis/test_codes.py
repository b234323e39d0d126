"""One table of codes, which all that lists them follows."""

import re
from pathlib import Path

import pytest
from keras import layers

from keras_xent import diagnose, diagnosis
from keras_xent.diagnosis import Finding, codes
from tests.diagnosis.cases import IDS, SPARSE, look_at, stack

PAGE = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text()


def test_the_documentation_lists_the_codes_in_the_order_of_the_checks():
    rows = re.findall(r"^ *\| `([a-z-]+)` \| (.*) \|", diagnose.__doc__, re.M)
    assert rows == list(codes.LOOKED_FOR.items())
    sections = re.findall(r"^### `([a-z-]+)`$", PAGE, re.M)
    assert sorted(sections) == sorted(codes.LOOKED_FOR)
    assert diagnosis.diagnose is diagnose


@pytest.mark.parametrize("code", codes.CODES)
def test_an_address_leads_to_a_heading_that_is_there(code):
    titles = re.findall(r"^#+ (.*)$", PAGE, re.M)
    headings = [title.lower().replace(" ", "-").strip("`") for title in titles]
    assert codes.address(code).rpartition("#")[2] in headings
    assert f"`{code}`" in PAGE


def test_a_finding_of_another_code_is_an_error():
    with pytest.raises(ValueError, match=r"one of input-format, .*'all-mask'"):
        Finding("all-mask", "error", "w", "S.", {}, "C.", "c")


@pytest.mark.parametrize(
    ("y", "unchecked"),
    [(IDS, {}), (IDS + 1, codes.REST)],
    ids=["healthy", "broken"],
)
def test_a_report_has_looked_for_a_code_or_says_why_not(y, unchecked):
    report = look_at(*stack(layers.Dense(3), loss=SPARSE, y=y))
    assert list(report.unchecked) == list(unchecked)
    assert [*report.checked, *report.unchecked] == list(codes.LOOKED_FOR)


def test_what_a_loss_of_the_model_alone_is_looked_at_for_is_named_once():
    dense = layers.Dense(3, kernel_regularizer="l2")
    report = look_at(*stack(dense, loss=None))
    assert list(report.checked) == list(codes.LOOKED_FOR)
