"""The site builds strictly, and its links, search and scripts work.

Needs the extra `docs`; what is asked of a browser needs Chromium as well.
"""

import contextlib
import functools
import html.parser
import http.server
import pathlib
import shutil
import subprocess
import sys
import threading
import urllib.parse

import pytest

from keras_xent.diagnosis import codes
from tests.docs.test_reference import PUBLIC

DOCS = pathlib.Path(__file__).parents[2] / "docs"
BUILDERS = ("sphinx", "myst_parser", "furo", "sphinx_copybutton")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
# Scripts of a page have so long, in milliseconds of its own clock.
TIME = 5000


def written():
    """The pages that somebody has written, without those made of code."""
    files = [*DOCS.glob("*.md")]
    files += [*DOCS.glob("start/*.md"), *DOCS.glob("speed/*.md")]
    return {str(f.relative_to(DOCS).with_suffix("")): f for f in sorted(files)}


WITH_FORMULAS = [
    name for name, file in written().items() if "```math" in file.read_text()
]


class Page(html.parser.HTMLParser):
    """The text of a page, the addresses that it has, and where it leads to."""

    def __init__(self, file):
        super().__init__()
        self.text, self.ids, self.links = "", set(), []
        self.feed(file.read_text())

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.links += filter(
            None, (attributes.get("href"), attributes.get("src"))
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built without a warning."""
    for name in BUILDERS:
        pytest.importorskip(name, reason="pip install 'keras_xent[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
    command += ["-d", folder / "doctrees", DOCS, folder / "html"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file) for file in site.rglob("*.html")}


def test_each_public_name_has_an_address(site, pages):
    for name in PUBLIC:
        page = pages[site / "reference" / f"{name.split('.')[1]}.html"]
        assert name in page.ids


def test_each_code_of_a_diagnosis_has_an_address(site, pages):
    assert set(codes.LOOKED_FOR) <= pages[site / "diagnose.html"].ids


def test_no_link_inside_is_dead(site, pages):
    assert pages
    for file, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or not (parts.path or parts.query):
                continue
            target = (file.parent / urllib.parse.unquote(parts.path)).resolve()
            assert target.exists(), f"{file}: {link}"
            fragment = urllib.parse.unquote(parts.fragment)
            if fragment and target in pages:
                assert fragment in pages[target].ids, f"{file}: {link}"


def test_nothing_is_fetched_from_elsewhere(pages):
    for file in pages:
        for tag in ("<script src=", '<link rel="stylesheet"', "<img src="):
            for after in file.read_text().split(tag)[1:]:
                assert "://" not in after.split(">")[0], file


@pytest.mark.parametrize("page", WITH_FORMULAS)
def test_formulas_are_set(site, page):
    made = (site / f"{page}.html").read_text()
    written = (DOCS / f"{page}.md").read_text().count("```math")
    assert made.count("<math ") == made.count('<div class="math">') == written
    assert "```" not in made


def test_what_a_page_hides_is_not_seen(pages):
    for page in pages.values():
        for word in ("invisible-code-block", "skip: next"):
            assert word not in page.text


def test_names_of_keras_lead_into_its_documentation(pages):
    links = {link for page in pages.values() for link in page.links}
    address = "https://keras.io/api/models/model_training_apis/#compile-method"
    assert address in links


@contextlib.contextmanager
def served(folder):
    """The address of a folder, as long as the scope lasts."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=folder
    )
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browse(site):
    """What a browser makes of a page, and what its console says."""
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    options += ["--enable-logging=stderr", f"--virtual-time-budget={TIME}"]
    with served(site) as address:

        def browse(page):
            command = [BROWSER, *options, f"{address}/{page}"]
            shown = subprocess.run(command, capture_output=True, text=True)
            lines = shown.stderr.splitlines()
            return shown.stdout, [line for line in lines if "CONSOLE" in line]

        yield browse


def test_search_finds_label_smoothing(browse):
    found, console = browse("search.html?q=label+smoothing")
    # The contents beside them have all pages.
    results = found.split('id="search-results"')[1]
    for page in ("crossentropy", "reference/losses"):
        assert f'href="{page}.html' in results
    assert not console


def test_the_chooser_asks_and_answers(browse):
    shown, console = browse("start/which_loss.html")
    assert "<legend>What is asked?</legend>" in shown
    assert "loss=keras_xent.losses.SparseSoftmaxCrossentropy()" in shown
    assert not console


def test_no_page_says_anything_in_the_console(browse, site, pages):
    # A browser takes a second to start: all pages are parts of one.
    names = [file.relative_to(site).as_posix() for file in pages]
    frames = "".join(f'<iframe src="{name}"></iframe>' for name in names)
    (site / "all_pages.html").write_text(f"<!doctype html>{frames}")
    shown, console = browse("all_pages.html")
    assert shown.count("<iframe") == len(names) > 40
    assert not console


def test_what_a_page_says_in_the_console_is_seen(browse, site):
    framed = site / "framed.html"
    framed.write_text("<script>console.error('oh')</script>")
    (site / "frames.html").write_text('<iframe src="framed.html"></iframe>')
    assert "oh" in browse("frames.html")[1][0]
