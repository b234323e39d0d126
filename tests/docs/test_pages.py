"""The Python of the README and of each page runs as it stands.

What a page takes for granted (a model, data) is given to it here.
"""

import pathlib
import re

import keras
import numpy as np
import pytest

import keras_xent
from tests.testing import normal, only_on

ROOT = pathlib.Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What needs another package, or several devices: tests/several_devices.py.
ELSEWHERE = ("keras_hub", "ddp(x", "strategy.scope", "DeviceMesh")


def numbers(*shape):
    return normal(*shape).copy()


def model(units, loss="mse"):
    made = keras.Sequential([keras.Input((8,)), keras.layers.Dense(units)])
    made.compile("sgd", loss=loss)
    return made


def ids(classes):
    return np.arange(64) % classes


def readme():
    return {name: np.ones((8, 32), "int32") for name in "xy"}


def calibration():
    return {
        "model": model(10),
        "y": ids(10),
        "y_validation": ids(10),
        "pieces": ["a", "bc"],
    }


def crossentropy():
    return {"y": np.ones((64, 1000)), "known": np.ones((64, 1000))}


def decisions():
    flags = ["match", "validation_match", "test_match"]
    scores = ["score", "validation_distance", "test_distance"]
    return dict.fromkeys(flags, ids(2)) | dict.fromkeys(scores, numbers(64))


def embeddings():
    names = ["person", "id_of_x", "id_validation", "id_test"]
    return dict.fromkeys(names, ids(4))


def linear_crossentropy():
    inputs = keras.Input((8,))
    return {"inputs": inputs, "hidden": keras.layers.Dense(4)(inputs)}


def many_classes():
    return linear_crossentropy() | {
        "labels": np.array([1, 2]),
        "features": numbers(2, 4),
        "class_vectors": numbers(1000, 4),
        "classes": 1000,
        "seeds": keras.random.SeedGenerator(0),
    }


def more_than_one_device():
    rows = {"x_of_this_process": numbers(64, 8)}
    return rows | {"model": model(1), "y_of_this_process": numbers(64, 1)}


def pairs():
    names = ["speaker_id", "id_validation", "id_test"]
    return dict.fromkeys(names, ids(4))


def ranks():
    return {"model": model(1), "y": numbers(64, 1)}


PAGES = {
    "README.md": readme,
    "docs/calibration.md": calibration,
    "docs/crossentropy.md": crossentropy,
    "docs/decisions.md": decisions,
    "docs/embeddings.md": embeddings,
    "docs/index.md": dict,
    "docs/linear_crossentropy.md": linear_crossentropy,
    "docs/many_classes.md": many_classes,
    "docs/more_than_one_device.md": more_than_one_device,
    "docs/pairs.md": pairs,
    "docs/ranks.md": ranks,
}
# These have files of their own, which look at what is printed as well.
PRINTING = {
    "docs/diagnose.md",
    "docs/means.md",
    "docs/questions.md",
    "docs/start/from_keras.md",
    "docs/start/logits.md",
}


def blocks(page):
    return BLOCK.findall((ROOT / page).read_text())


@only_on("torch", "the pages are the same everywhere")
def test_all_pages_with_code_are_run():
    docs = ROOT / "docs"
    pages = [ROOT / "README.md", *docs.glob("*.md"), *docs.glob("start/*.md")]
    named = {str(page.relative_to(ROOT)) for page in pages}
    assert {page for page in named if blocks(page)} == {*PAGES, *PRINTING}


@only_on("torch", "the pages are the same everywhere")
def test_commands_name_programs_that_exist():
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/start").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    programs = set(
        re.findall(r"\b(?:benchmarks|examples|tests)/[\w/]+\.py", text)
    )
    assert len(programs) > 10
    assert all((ROOT / program).exists() for program in programs)


@pytest.mark.parametrize("page", PAGES)
@only_on("torch", "the pages are the same everywhere")
def test_the_page_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    rows = ("x", "x_validation", "x_test")
    scope = {"keras": keras, "keras_xent": keras_xent}
    scope |= dict.fromkeys(rows, numbers(64, 8)) | PAGES[page]()
    for block in blocks(page):
        if not any(word in block for word in ELSEWHERE):
            exec(re.sub(r"\[\.\.\.,", "[keras.Input((8,)),", block), scope)
