"""The Python of the README and of each page runs, and prints what it shows.

A page is one program, and Sybil runs it. What a page takes for granted (a
model, data) stands in it as a comment, `invisible-code-block`; what cannot run
here is left out by the comment `skip: next`, with the reason. A text block
right below a block of Python is what that prints. Write these anew:

    KERAS_BACKEND=torch python -m tests.docs.test_pages docs/means.md
"""

import contextlib
import io
import pathlib
import re
import sys
import unittest

import keras
import pytest

from tests.docs.test_diagnose import NOTHING_WRONG, NUMBER, any_number
from tests.testing import only_on

pytest.importorskip("sybil", reason="pip install 'keras_xent[test]'")

from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT = pathlib.Path(__file__).parents[2]
OUTPUT = re.compile(r"\s*^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SKIP = re.compile(r"<!-- *skip:(.*)-->")

# Its sections begin anew, each, and its reports are made: test_diagnose.py.
ELSEWHERE = "docs/diagnose.md"

pytestmark = [
    only_on("torch", "the pages are the same everywhere"),
    # What a page shows is to warn.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def all_pages():
    """The README and the pages of the site that somebody has written."""
    docs = ROOT / "docs"
    files = [ROOT / "README.md", *docs.glob("*.md")]
    files += [*docs.glob("start/*.md"), *docs.glob("speed/*.md")]
    return {str(file.relative_to(ROOT)): file.read_text() for file in files}


PAGES = sorted(
    name
    for name, text in all_pages().items()
    if "```python" in text and name != ELSEWHERE
)


class Printing(PythonEvaluator):
    """Runs a block, and looks at what it has printed."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def __call__(self, example):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            super().__call__(example)
        text, end = example.document.text, example.region.end
        self.look(printed.getvalue(), OUTPUT.match(text, end))


def run(page, look):
    """Runs a page from top to bottom."""
    keras.utils.clear_session()
    parsers = [CodeBlockParser("python", Printing(look)), SkipParser()]
    for example in Sybil(parsers).parse(ROOT / page).examples():
        with contextlib.suppress(unittest.SkipTest):
            example.evaluate()


def numbers(text):
    return [float(match[0]) for match in NUMBER.finditer(text)]


def compare(printed, shown):
    """The same words, and numbers that differ by rounding at most."""
    if shown is None:
        assert not printed or printed.startswith(NOTHING_WRONG), printed
        return
    assert any_number(printed) == any_number(shown[1])
    close = pytest.approx(numbers(shown[1]), rel=0.01, abs=1e-3, nan_ok=True)
    assert numbers(printed) == close, printed


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    run(page, compare)


def test_what_is_skipped_has_a_reason():
    found = {page: SKIP.findall(text) for page, text in all_pages().items()}
    assert any(found.values())
    for page, skips in found.items():
        for skip in skips:
            assert re.fullmatch(r' next "[\w ,]+" ', skip), (page, skip)


def test_wrong_words_and_wrong_numbers_are_seen():
    def shown(text):
        return OUTPUT.match(f"\n\n```text\n{text}\n```")

    compare("loss 0.6931\n", shown("loss 0.693"))
    for wrong in ("loss 0.71", "rate 0.693"):
        with pytest.raises(AssertionError):
            compare("loss 0.6931\n", shown(wrong))
    with pytest.raises(AssertionError):
        compare("loss 0.6931\n", None)


def test_commands_name_programs_that_exist():
    programs = set(
        re.findall(
            r"\b(?:benchmarks|examples|tests)/[\w/]+\.py",
            "\n".join(all_pages().values()),
        )
    )
    assert len(programs) > 10
    assert all((ROOT / program).exists() for program in programs)


def rewrite(page):
    """Writes what is printed now into the text blocks of a page."""
    text, found = (ROOT / page).read_text(), []
    run(page, lambda *seen: found.append(seen))
    for printed, shown in reversed(found):
        if shown:
            first, last = shown.span(1)
            text = text[:first] + printed + text[last:]
    (ROOT / page).write_text(text)


if __name__ == "__main__":
    for each in sys.argv[1:] or PAGES:
        rewrite(each)
