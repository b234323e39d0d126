"""What makes the pages of the site, and does without Sphinx."""

import importlib
import pathlib

import pytest

EXTENSIONS = pathlib.Path(__file__).parents[2] / "docs" / "_ext"


@pytest.fixture(scope="module")
def extension():
    """Imports one of the modules that make pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXTENSIONS))
        yield importlib.import_module
