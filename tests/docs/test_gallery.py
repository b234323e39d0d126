"""Each example has a page, with what a small run of it shows."""

import pathlib

import pytest

from tests.testing import only_on

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = only_on("torch", "the pages are the same everywhere")


@pytest.fixture(scope="module")
def gallery(extension):
    """What makes the pages; it does without Sphinx."""
    return extension("gallery")


@pytest.fixture
def program(gallery, tmp_path, monkeypatch):
    """A function that makes an example of some lines of Python."""

    def make(*lines, needs=()):
        file = tmp_path / "examples" / "one.py"
        file.parent.mkdir()
        file.write_text("\n".join(['"""Does it?"""', *lines]))
        small = gallery.small_runs.Small("--small", needs)
        monkeypatch.setitem(gallery.small_runs.SMALL, "one", small)
        return file

    return make


def test_each_program_is_run_at_small_size_and_has_a_row(gallery):
    names = {file.stem for file in gallery.programs(ROOT / "examples")}
    assert gallery.small_runs.SMALL.keys() == names
    table = (ROOT / "docs" / "gallery.md").read_text()
    assert all(f"| [`{name}.py`]" in table for name in names)


def test_a_page_shows_what_was_printed_and_drawn(gallery, program):
    file = program(
        "import pathlib, sys",
        "pathlib.Path('plots').mkdir()",
        "pathlib.Path('plots/curve.png').write_bytes(b'PNG')",
        "print('given', *sys.argv[1:])",
    )
    run = gallery.small_runs.run_all([file])[file]
    assert run.pictures == {"curve": b"PNG"}
    text = gallery.page(file, run)
    assert "```bash\npython one.py --small\n```" in text
    assert "```text\ngiven --small\n```" in text
    assert "](one_curve.png)" in text


def test_a_page_without_a_run_has_the_pictures_of_the_guides(gallery):
    text = gallery.page(ROOT / "examples" / "calibration.py")
    assert "](../images/calibration.png)" in text
    assert "A small run" not in text


def test_a_page_says_what_its_program_lacks(gallery, program):
    file = program("1 / 0", needs=("sys", "no_such_package"))
    text = gallery.page(file, gallery.small_runs.run(file))
    assert "it needs `no_such_package`." in text


def test_a_program_that_fails_ends_the_build_with_what_it_said(
    gallery, program
):
    with pytest.raises(RuntimeError, match=r"(?s)one\.py.*ZeroDivisionError"):
        gallery.small_runs.run(program("1 / 0"))


def test_the_trials_are_told_apart_mostly(gallery):
    rows = [x.split() for x in gallery.small_runs.trials().splitlines()]
    matches = [float(score) for score, match in rows if match == "1"]
    assert len(rows) == 4 * len(matches) == 2000
    assert 1.8 < sum(matches) / len(matches) < 2.2
