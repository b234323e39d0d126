"""Everything that docs/diagnose.md shows is run, and prints what it says.

A section runs in one namespace, after the blocks of the headings above it.
Where a text block follows a python block, that is what it prints; where none
does, what it prints is a report without findings. Numbers differ from backend
to backend and stand for any number. Write the text blocks anew, after a change
of the wording of a finding:

    KERAS_BACKEND=torch python -m tests.docs.test_diagnose
"""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import keras
import pytest

from keras_xent.diagnosis import codes

# What a page shows is to warn.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PAGE = Path(__file__).parents[2] / "docs" / "diagnose.md"

HEADING = re.compile(r"^(#{1,3}) (.*)$")
FENCE = re.compile(r"^```(\w*)$")
NUMBER = re.compile(r"-?\b\d+(\.\d+)?(e[+-]?\d+)?\b|-?\b(nan|inf)\b")
NUMBERS = re.compile(r"#(, #)+")
NOTHING_WRONG = "keras_xent.diagnose: nothing wrong seen"


@dataclasses.dataclass
class Block:
    """What stands between two fences, by line numbers that exclude them."""

    language: str
    first: int
    last: int
    text: str


@dataclasses.dataclass
class Section:
    """A heading with its blocks, and the sections that it belongs to."""

    title: str
    above: tuple
    blocks: list


def sections(page):
    """All sections of a page, in order."""
    found, language, first = [], None, None
    lines = page.splitlines()
    for i, line in enumerate(lines):
        fence, heading = FENCE.match(line), HEADING.match(line)
        if language is not None:
            if fence:
                text = "\n".join(lines[first:i])
                found[-1].blocks.append(Block(language, first, i, text))
                language = None
        elif fence:
            language, first = fence[1], i + 1
        elif heading:
            level = len(heading[1])
            above = (*found[-1].above, found[-1]) if found else ()
            above = above[: level - 1]
            found.append(Section(heading[2].strip("`"), above, []))
    return found


def run(section):
    """Pairs of a python block of the section and what it prints."""
    keras.utils.clear_session()
    namespace, printed = {}, []
    for each in (*section.above, section):
        for block in each.blocks:
            if block.language == "python":
                out = io.StringIO()
                code = compile(block.text, f"{PAGE.name}:{each.title}", "exec")
                with contextlib.redirect_stdout(out):
                    exec(code, namespace)
                if each is section:
                    printed.append((block, out.getvalue().rstrip()))
    return printed


def shown(section):
    """The text block after each python block, or None."""
    following = [*section.blocks[1:], None]
    return {
        block.first: after if after and after.language == "text" else None
        for block, after in zip(section.blocks, following, strict=True)
        if block.language == "python"
    }


def any_number(text):
    """Words alone: any number is "#", any list "[#]", any space one space."""
    return NUMBERS.sub("#", NUMBER.sub("#", " ".join(text.split())))


SECTIONS = sections(PAGE.read_text())
RUNNING = [s for s in SECTIONS if any(b.language == "text" for b in s.blocks)]


@pytest.mark.parametrize("section", RUNNING, ids=lambda section: section.title)
def test_a_section_prints_what_it_shows(section):
    after = shown(section)
    for block, printed in run(section):
        text = after[block.first]
        if text is not None:
            assert any_number(printed) == any_number(text.text)
        elif printed:
            assert printed.startswith(NOTHING_WRONG), printed


def test_every_code_has_a_section_that_shows_it_and_its_repair():
    by_title = {section.title: section for section in RUNNING}
    for code in codes.LOOKED_FOR:
        texts = list(shown(by_title[code]).values())
        assert f"[{code}]" in texts[0].text
        assert texts[-1] is None
        last = [b for b in by_title[code].blocks if b.language == "python"][-1]
        assert "print(keras_xent.diagnose(" in last.text


def test_links_lead_to_sections():
    titles = {s.title.lower().replace(" ", "-") for s in SECTIONS}
    links = re.findall(r"\]\(#([\w-]+)\)", PAGE.read_text())
    assert links
    assert set(links) <= titles


def test_numbers_do_not_count_and_words_do():
    assert any_number("loss 1.5e-06, rows [1, 2,\n 3]") == "loss #, rows [#]"
    assert any_number("loss nan") == any_number("loss -0.25")
    assert any_number("never above 1") != any_number("never below 1")


def rewrite():
    """Writes what is printed now into the text blocks of the page."""
    lines = PAGE.read_text().splitlines()
    for section in reversed(RUNNING):
        after = shown(section)
        for block, printed in reversed(run(section)):
            text = after[block.first]
            if text is not None:
                lines[text.first : text.last] = printed.splitlines()
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    rewrite()
