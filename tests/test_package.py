"""What the package says of itself, and what it does when it is imported."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import keras_xent
from tests import versions
from tests.testing import only_on

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
README = (ROOT / "README.md").read_text()
# Where the repository is named: whoever moves it finds all of them here.
NAMING = [
    "README.md",
    "CITATION.cff",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    ".github/ISSUE_TEMPLATE/config.yml",
    "pyproject.toml",
]
# What GitHub makes out of nothing in the repository.
PLACES = ("discussions", "issues", "security/advisories/new")

once = only_on("torch", "the files are the same on each backend")


def links(text):
    """The targets of all links and pictures of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", text)


def headings(page):
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {each.replace(" ", "-") for each in words}


@once
def test_a_newcomer_reads_the_readme_to_its_end():
    assert len(README.splitlines()) <= 90


@once
@pytest.mark.parametrize("folder", [".venv", ".venv-test"])
def test_a_command_is_pasted_in_one_line(folder):
    pattern = rf"^python3 -m venv {re.escape(folder)} && .*$"
    assert len(re.findall(pattern, README, flags=re.MULTILINE)) == 1


@once
@pytest.mark.parametrize("link", links(README))
def test_links_of_the_readme_are_whole_and_lead_somewhere(link):
    """On the page of the index nothing stands beside it."""
    assert link.startswith(REPOSITORY + "/")
    place = link.removeprefix(REPOSITORY + "/")
    if place in PLACES:
        return
    how, branch, path = place.split("/", 2)
    assert branch == "main"
    path, _, anchor = path.partition("#")
    file = ROOT / path
    assert file.is_file()
    assert how == ("raw" if file.suffix == ".png" else "blob")
    assert not anchor or anchor in headings(file)


@once
@pytest.mark.parametrize("name", NAMING)
def test_the_repository_has_one_address(name):
    named = r"https://github\.com/[\w-]+/keras_xent\b"
    assert set(re.findall(named, (ROOT / name).read_text())) == {REPOSITORY}


@once
def test_the_site_has_one_address():
    named = re.compile(r"https://[\w-]+\.github\.io/keras_xent/")
    files = (ROOT / "keras_xent").rglob("*.py")
    found = {x for file in files for x in named.findall(file.read_text())}
    assert found <= {PROJECT["urls"]["Documentation"]}


@once
def test_there_is_one_version():
    assert "version" in PROJECT["dynamic"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {keras_xent.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text()
    first = re.search(r"^## (\S+)", changes, flags=re.MULTILINE)
    assert first[1] == keras_xent.__version__


@once
def test_the_lowest_python_is_one_that_is_named():
    said = "Programming Language :: Python :: 3."
    named = [x for x in PROJECT["classifiers"] if x.startswith(said)]
    lowest = min(int(x.removeprefix(said)) for x in named)
    assert PROJECT["requires-python"] == f">=3.{lowest}"


@once
@pytest.mark.parametrize("backend", versions.BACKENDS)
def test_the_page_of_versions_names_the_lowest_that_are_tested(backend):
    page = (ROOT / "docs" / "versions.md").read_text()
    for pinned in versions.frameworks(backend, "oldest"):
        name, version = pinned.removesuffix("-cpu").split("==")
        assert version in page, name


@once
def test_lint_is_no_part_of_the_tests():
    extras = PROJECT["optional-dependencies"]
    tools = ("codespell", "mypy", "pre-commit", "ruff")
    for extra in ("test", "dev"):
        names = {re.match(r"[\w-]+", line)[0] for line in extras[extra]}
        assert names.issuperset(tools) == (extra == "dev")
        assert names.isdisjoint(tools) == (extra == "test")


# What an import does is seen by a hook of Python's own; what Keras does comes
# before.
WATCHED = """
import json
import sys

import keras

before, seen = set(sys.modules), []


def watch(event, arguments):
    read = event == "open" and arguments[1] in (None, "r", "rb")
    if event == "open" and not read and arguments[1] is not None:
        seen.append([event, str(arguments[0]), arguments[1]])
    if event.split(".")[0] in ("socket", "subprocess", "urllib"):
        seen.append([event, str(arguments)])
    if event in ("os.system", "os.posix_spawn", "os.fork"):
        seen.append([event, str(arguments)])


sys.addaudithook(watch)
import keras_xent

new = set(sys.modules) - before
print(json.dumps({"modules": sorted(new), "seen": seen}))
"""


@pytest.fixture(scope="module")
def imported():
    """What the import adds to Keras's, in a process of its own."""
    printed = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return json.loads(printed.splitlines()[-1])


def test_an_import_brings_nothing_but_the_package(imported):
    """Neither matplotlib nor SciPy nor a framework that is not in use."""
    packages = {name.split(".")[0] for name in imported["modules"]}
    assert packages - sys.stdlib_module_names <= {"keras", "keras_xent"}


def test_an_import_opens_no_connection_and_writes_no_file(imported):
    assert imported["seen"] == []


def test_what_watches_a_training_is_imported_when_it_is_asked_for(imported):
    later = ("keras_xent.callbacks", "keras_xent.diagnosis")
    assert not any(x.startswith(later) for x in imported["modules"])
    assert set(keras_xent.__all__) <= set(dir(keras_xent))
    for name in keras_xent.__all__:
        assert getattr(keras_xent, name).__name__.endswith(name)
    with pytest.raises(AttributeError, match="no attribute 'diagnoze'"):
        keras_xent.diagnoze  # noqa: B018
