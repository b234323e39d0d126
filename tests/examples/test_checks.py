"""An option that cannot work is refused, with a word on what to do."""

import argparse
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import checks  # noqa: E402

from tests.testing import only_on  # noqa: E402

pytestmark = only_on("torch", "no backend is asked here")


def refusal(check, text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        check(text)
    return str(caught.value)


def test_a_folder_is_made_with_its_parents(tmp_path):
    path = tmp_path / "a" / "b"
    assert checks.writable_folder(str(path)) == path
    assert checks.writable_folder(str(path)) == path
    assert path.is_dir()
    assert not list(path.iterdir())


def test_a_file_is_tried_and_not_left_behind(tmp_path):
    path = tmp_path / "new" / "model.keras"
    assert checks.writable_file(".keras")(str(path)) == path
    assert path.parent.is_dir()
    assert not path.exists()


def test_a_file_that_is_there_keeps_what_it_holds(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("kept")
    checks.writable_file(".keras")(str(path))
    assert path.read_text() == "kept"


@pytest.mark.parametrize(
    "check", [checks.writable_folder, checks.writable_file(".keras")]
)
def test_a_place_that_cannot_be_written_is_named(check, tmp_path):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "model.keras")
    said = refusal(check, path)
    assert repr(path) in said
    assert "Not a directory" in said or "File exists" in said
    assert "Name a place that you may write to" in said


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    path.mkdir()
    assert "Is a directory" in refusal(
        checks.writable_file(".keras"), str(path)
    )
    assert path.is_dir()


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "plots"
    path.write_text("kept")
    assert "File exists" in refusal(checks.writable_folder, str(path))
    assert path.read_text() == "kept"


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="nobody can write there on Linux"
)
def test_what_even_the_administrator_cannot_write_is_refused():
    assert "/proc/self" in refusal(checks.writable_folder, "/proc/self/plots")
    assert "/proc" in refusal(checks.writable_folder, "/proc")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="an administrator can write anywhere",
)
def test_a_folder_that_is_only_to_be_read_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert "denied" in refusal(checks.writable_folder, str(tmp_path))
    path = str(tmp_path / "model.keras")
    assert "denied" in refusal(checks.writable_file(".keras"), path)


@pytest.mark.parametrize("name", ["model", "model.h5", ".keras", ""])
def test_a_file_needs_its_suffix(name):
    said = refusal(checks.writable_file(".keras"), name)
    assert "ends in .keras" in said


def test_a_path_that_is_empty_is_no_path():
    assert "empty" in refusal(checks.writable_folder, "")


def test_a_path_that_cannot_be_one_is_refused():
    assert "cannot write" in refusal(checks.writable_folder, "a\0b")


def test_plots_need_what_draws_them(tmp_path, monkeypatch):
    assert checks.plots_folder(str(tmp_path)) == tmp_path
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda _: None)
    said = refusal(checks.plots_folder, str(tmp_path))
    assert "pip install matplotlib" in said


@pytest.mark.parametrize(
    ("check", "good", "wrong", "words"),
    [
        (checks.at_least(1), ["1", "7"], ["0", "-1"], "at least 1"),
        (
            checks.at_least(0, most=12),
            ["0", "12"],
            ["-1", "13"],
            "at least 0 and at most 12",
        ),
        (checks.seed, ["0", "4294967295"], ["-1", "4294967296"], "4294967295"),
        (checks.finite(least=0), ["0", "1e9"], ["-0.1"], "at least 0"),
        (checks.finite(above=0), ["1e-9"], ["0", "-1"], "above 0"),
        (checks.finite(most=1), ["1", "-5"], ["1.01"], "at most 1"),
        (
            checks.finite(above=0, below=1),
            ["0.5"],
            ["0", "1"],
            "above 0 and below 1",
        ),
    ],
)
def test_a_number_out_of_its_bounds_is_refused(check, good, wrong, words):
    assert [check(text) for text in good] == [float(text) for text in good]
    for text in wrong:
        said = refusal(check, text)
        assert f"must be {words}" in said or words in said
        assert f"Received: {text}" in said


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "many", ""])
@pytest.mark.parametrize(
    ("check", "words"),
    [
        (checks.at_least(1), "a whole number"),
        (checks.finite(), "a finite number"),
        (checks.finite(least=0), "a finite number"),
    ],
)
def test_what_is_no_number_is_refused(check, words, text):
    assert words in refusal(check, text)


def test_a_whole_number_has_no_fraction():
    assert "a whole number" in refusal(checks.at_least(1), "1.5")
