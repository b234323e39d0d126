"""What docs/means.md shows is run, and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import keras

PAGE = Path(__file__).parents[2] / "docs" / "means.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_prints_what_stands_below_it():
    keras.utils.set_random_seed(0)
    blocks = BLOCK.findall(PAGE.read_text())
    assert [language for language, _ in blocks] == ["python", "text"] * 3
    namespace = {}
    for (_, code), (_, expected) in zip(blocks[::2], blocks[1::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, PAGE.name, "exec"), namespace)
        assert printed.getvalue() == expected
