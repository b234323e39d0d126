"""Everything that docs/questions.md shows is run, and prints what it says."""

import re
from pathlib import Path

import pytest

from tests.docs.test_diagnose import (
    NOTHING_WRONG,
    any_number,
    run,
    sections,
    shown,
)

# What a page shows is to warn.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
SECTIONS = sections(PAGE.read_text())
QUESTIONS = [s for s in SECTIONS if s.title.endswith("?")]


@pytest.mark.parametrize("section", QUESTIONS, ids=lambda each: each.title)
def test_a_question_prints_its_answer_and_then_nothing_wrong(section):
    after, printed = shown(section), run(section)
    for block, output in printed:
        text = after[block.first]
        if text is not None:
            assert any_number(output) == any_number(text.text)
        else:
            assert output.startswith(NOTHING_WRONG), output
    texts = [after[block.first] for block, _ in printed]
    assert texts[0] is not None
    assert texts[-1] is None


def test_there_are_twenty():
    assert len({section.title for section in QUESTIONS}) == 20


def test_links_to_the_other_page_lead_to_sections():
    there = (PAGE.parent / "diagnose.md").read_text()
    titles = {s.title.lower().replace(" ", "-") for s in sections(there)}
    links = re.findall(r"diagnose\.md#([\w-]+)\)", PAGE.read_text())
    assert links
    assert set(links) <= titles
