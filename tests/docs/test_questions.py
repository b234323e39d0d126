"""Each of the twenty questions shows its answer, and a model that is mended.

What they print is compared by test_pages.py.
"""

import re
from pathlib import Path

import pytest

from tests.docs.test_diagnose import sections, shown

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
SECTIONS = sections(PAGE.read_text())
QUESTIONS = [s for s in SECTIONS if s.title.endswith("?")]


@pytest.mark.parametrize("section", QUESTIONS, ids=lambda each: each.title)
def test_a_question_shows_its_answer_and_ends_with_nothing_wrong(section):
    blocks = [b for b in section.blocks if b.language == "python"]
    after = shown(section)
    assert after[blocks[0].first] is not None
    assert after[blocks[-1].first] is None
    assert "print(keras_xent.diagnose(" in blocks[-1].text


def test_there_are_twenty():
    assert len({section.title for section in QUESTIONS}) == 20


def test_links_to_the_other_page_lead_to_sections():
    there = (PAGE.parent / "diagnose.md").read_text()
    titles = {s.title.lower().replace(" ", "-") for s in sections(there)}
    links = re.findall(r"diagnose\.md#([\w-]+)\)", PAGE.read_text())
    assert links
    assert set(links) <= titles
