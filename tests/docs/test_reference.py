"""Every public name has an entry in the reference, made of its docstring."""

import importlib
import inspect
import operator
import pathlib
import types

import keras
import pytest

import keras_xent
from tests.testing import only_on

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = only_on("torch", "a docstring is the same on each backend")


@pytest.fixture(scope="module")
def reference(extension):
    """What makes the pages; it does without Sphinx."""
    return extension("reference")


@pytest.fixture(scope="module")
def pages(reference):
    return reference.pages()


def public():
    """The full names of all that is public, and what they are."""
    packages = [getattr(keras_xent, name) for name in keras_xent.__all__]
    packages = [x for x in packages if isinstance(x, types.ModuleType)]
    for package in [*packages, importlib.import_module("keras_xent.diagnosis")]:
        for name in package.__all__:
            yield f"{package.__name__}.{name}", getattr(package, name)


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_entry(pages, name):
    package = name.split(".")[1]
    kind = "class" if inspect.isclass(PUBLIC[name]) else "function"
    assert pages[package].count(f"{{py:{kind}}} {name}(") == 1


def test_what_stands_beside_the_packages_has_one_too(pages):
    packages = {name.split(".")[1] for name in PUBLIC}
    beside = set(keras_xent.__all__) - packages
    for name in beside:
        assert f"keras_xent.diagnosis.{name}" in PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_an_entry_explains_each_argument_of_the_signature(reference, name):
    entry = reference.entry(name, PUBLIC[name])
    for argument in inspect.signature(PUBLIC[name]).parameters.values():
        variadic = argument.kind is argument.VAR_KEYWORD
        shown = f"**{argument.name}" if variadic else argument.name
        assert shown in entry.split("\n", 1)[0]
        assert f"`{shown}`\n: " in entry


def test_a_docstring_becomes_markdown(reference):
    made = reference.markdown(
        inspect.cleandoc(
            """What it is.

            Args:
                first, second: Numbers. As in
                    `keras_xent.ops.entropy`.
                **kwargs: The rest.

            Raises:
                ValueError: if not.

            Example:

            >>> 1 + 1
            2

            >>> 2 + 2
            4
            """
        )
    )
    link = "{py:obj}`keras_xent.ops.entropy <keras_xent.ops.entropy>`"
    assert made.split("\n\n") == [
        "What it is.",
        ":::{rubric} Args\n:::",
        f"`first, second`\n: Numbers. As in\n  {link}.",
        "`**kwargs`\n: The rest.",
        ":::{rubric} Raises\n:::",
        "`ValueError`\n: if not.",
        ":::{rubric} Example\n:::",
        "```pycon\n>>> 1 + 1\n2",
        ">>> 2 + 2\n4\n```",
    ]


def test_public_names_become_links_and_others_do_not(reference):
    linked = importlib.import_module("names").linked
    link = "{py:obj}`LinearHead(5) <keras_xent.layers.LinearHead>`"
    assert linked("a `LinearHead(5)`.") == f"a {link}."
    for text in (
        "`entropy`, `logits` and `keras.nowhere`",
        "### `LinearHead`",
        "[`LinearHead`](head.md)",
        "```\n`LinearHead`\n```",
    ):
        assert linked(text) == text


@pytest.mark.parametrize(
    ("code", "leads_to"),
    [
        (
            "keras.losses.KLDivergence()",
            "losses/probabilistic_losses/#kldivergence-class",
        ),
        (
            "keras.utils.set_random_seed",
            "utils/python_utils/#set_random_seed-function",
        ),
        ("model.fit(x, y)", "models/model_training_apis/#fit-method"),
        ("keras.Model.compile", "models/model_training_apis/#compile-method"),
        ("keras.Model", "models/model/#model-class"),
        ("keras.ops.segment_sum", "ops/"),
        ("keras.losses", "losses/"),
        ("keras.tree", None),
        ("model.layers", None),
        ("keras_xent.losses", None),
    ],
)
def test_names_of_keras_lead_into_its_documentation(reference, code, leads_to):
    address = importlib.import_module("keras_names").address(code)
    assert address == (leads_to and f"https://keras.io/api/{leads_to}")
    linked = importlib.import_module("names").linked(f"a `{code}`")
    if leads_to:
        assert linked == f"a [`{code}`]({address})"


def test_keras_has_what_leads_into_its_documentation(reference):
    for name in importlib.import_module("keras_names").FOUND:
        assert operator.attrgetter(name)(keras), name


def set_as_mathematics(reference, line):
    return importlib.import_module("formula").formulas(f"```\n{line}\n```")


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("x_ij", '<msub><mi>x</mi><mi class="letters">ij</mi></msub>'),
        ("Σ_true", "<mrow><mi>true</mi></mrow></munder>"),
        ("y_true", "<mtext>y_true</mtext>"),
        ("T²", "<msup><mi>T</mi><mrow><mn>2</mn></mrow></msup>"),
        ("a = b", "<mtd><mo>=</mo><mrow><mi>b</mi></mrow></mtd>"),
        ("p < 1", '<mo stretchy="false">&lt;</mo>'),
        ("of a", '<mi>of</mi><mspace width="0.3em"/><mi>a</mi>'),
    ],
)
def test_a_formula_is_set_as_mathematics(reference, line, made):
    assert made in set_as_mathematics(reference, line)


@pytest.mark.parametrize("line", ["keras.Input(x_k)", '"hard"  h of x_k'])
def test_what_is_code_stays_code(reference, line):
    assert set_as_mathematics(reference, line) == f"```\n{line}\n```"


def test_links_that_leave_the_pages_lead_somewhere(reference):
    outside = importlib.import_module("outside")
    text = "[a](../examples/spearman.py), [b](../CHANGELOG.md#x), [c](pairs.md)"
    assert outside.lead(text, ROOT) == (
        "[a](gallery/spearman.md), "
        f"[b]({outside.REPOSITORY}/blob/main/CHANGELOG.md#x), [c](pairs.md)"
    )
