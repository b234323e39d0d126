"""The recipes of CONTRIBUTING.md, followed to the letter in a copy.

The first line of a block says where it goes: a file; a file and the list or
dict that it is an entry of; or an `__init__.py` and the name that goes into its
`__all__`.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.testing import BACKEND, only_on

ROOT = pathlib.Path(__file__).parents[2]
ANY = re.DOTALL | re.MULTILINE
SECTION = re.compile(r"^## (Add a [^\n]*)\n(.*?)(?=^## )", ANY)
BLOCK = re.compile(r"^```python\n# ([^\n]*)\n(.*?)^```", ANY)
COPIED = ["keras_xent", "tests", "conftest.py", "pyproject.toml"]

RECIPES = dict(SECTION.findall((ROOT / "CONTRIBUTING.md").read_text()))
# What is run of the new class, and of what holds all classes together.
RUN = {
    "Add a loss": [
        "tests/test_losses_contract.py",
        "tests/test_ops_contract.py",
        "tests/test_interface.py",
        "keras_xent/ops/poly.py",
        "keras_xent/losses/poly.py",
        *["-k", "Poly or poly or under_contract"],
    ],
    "Add a metric": [
        "tests/test_metrics_contract.py",
        "tests/test_interface.py",
        "keras_xent/metrics/doubt.py",
        *["-k", "Doubt or doubt or under_contract"],
    ],
    "Add a kind of logits": ["tests/ops/test_blockwise.py", "-k", "scaled"],
}


def op_named(line):
    """The operation that a line names, or ""."""
    found = re.search(r"\bops\.(\w+)", line)
    return found[1] if found else ""


def add_entry(text, name, entry):
    """The text with an entry more in a list or dict; operations are sorted."""
    entry = entry.rstrip(",\n") + ",\n"
    opened = re.search(rf"^{name} = [\[{{]\n", text, flags=re.MULTILINE)
    place = opened.end()
    for line in text[place:].splitlines(keepends=True):
        if line.startswith(("]", "}")) or op_named(line) > op_named(entry):
            break
        place += len(line)
    return text[:place] + entry + text[place:]


def add_import(text, line):
    """The text with an import after its docstring."""
    end = text.index('"""', 3) + 3
    return f"{text[:end]}\n{line}{text[end:]}"


def follow(root, place, code):
    """Does what one block says."""
    name, _, where = place.partition(": ")
    file = root / name
    if not file.exists():
        file.write_text(code)
        return
    text = file.read_text()
    if file.name == "__init__.py":
        text = add_entry(add_import(text, code), "__all__", f'"{where}"')
    elif where:
        text = add_entry(text, where, code)
    else:
        text = add_import(text, code)
    file.write_text(text)


@only_on("torch", "what is followed is the same on each backend")
def test_each_recipe_is_followed():
    assert RECIPES.keys() == RUN.keys()


@pytest.mark.thorough
@pytest.mark.parametrize("recipe", RUN)
@only_on("torch", "one backend shows that nothing was left out")
def test_what_a_recipe_adds_passes(recipe, tmp_path):
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target)
    for place, code in BLOCK.findall(RECIPES[recipe]):
        follow(tmp_path, place, code)
    environment = {
        **os.environ,
        "KERAS_BACKEND": BACKEND,
        "PYTHONPATH": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *RUN[recipe]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
