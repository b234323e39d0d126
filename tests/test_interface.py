"""One interface: who has learned one public name has learned all."""

import ast
import inspect
import pathlib
import re

import pytest

import keras_xent
from keras_xent import callbacks, data, layers, losses, metrics, ops
from tests.testing import only_on

PACKAGES = [callbacks, data, layers, losses, metrics, ops]
PUBLIC = {
    f"{package.__name__.split('.')[-1]}.{name}": getattr(package, name)
    for package in PACKAGES
    for name in package.__all__
}
PUBLIC["diagnose"] = keras_xent.diagnose

# What has a default and may be given by position all the same: the second
# matrix of a pairwise function, which is data as the first is, the number of
# classes, which only a tied head leaves out, and what `fit` takes so, too.
BY_POSITION = {"b", "units", "y", "sample_weight"}

ROOT = pathlib.Path(__file__).parents[1]
USERS = [
    file
    for folder in ("examples", "benchmarks")
    for file in sorted((ROOT / folder).glob("*.py"))
]

each_name = pytest.mark.parametrize("name", PUBLIC)
pytestmark = only_on("torch", "a signature is the same on each backend")


def parameters(thing):
    function = thing.__init__ if inspect.isclass(thing) else thing
    found = list(inspect.signature(function).parameters.values())
    return found[1:] if inspect.isclass(thing) else found


def sections(thing):
    """The parts of a docstring by their headings; "" is the first line."""
    parts = re.split(r"^([A-Z][a-z]+):$", inspect.getdoc(thing), flags=re.M)
    first = parts[0].split("\n")[0]
    return {"": first, **dict(zip(parts[1::2], parts[2::2], strict=True))}


def arguments(text):
    """The names that a section of arguments explains."""
    names = re.findall(r"^ {4}(\S[*\w, ]*):", text, flags=re.M)
    return [each.strip() for name in names for each in name.split(",")]


@each_name
def test_what_has_a_default_is_given_by_name(name):
    for parameter in parameters(PUBLIC[name]):
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            continue
        optional = parameter.default is not parameter.empty
        assert not optional or parameter.name in BY_POSITION, parameter


@each_name
def test_the_docstring_is_whole(name):
    thing = PUBLIC[name]
    found = sections(thing)
    assert found[""].endswith("."), found[""]
    assert "Source" not in found
    needed = {"Example", "Raises"}
    needed |= {"Shapes"} if inspect.isclass(thing) else {"Returns"}
    if name.startswith("callbacks"):
        needed.remove("Shapes")
    assert needed <= found.keys()
    assert ">>> " in found["Example"]


@each_name
def test_the_docstring_explains_each_argument(name):
    thing = PUBLIC[name]
    wanted = []
    for parameter in parameters(thing):
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        wanted.append(stars.get(parameter.kind, "") + parameter.name)
    explained = arguments(sections(thing).get("Args", ""))
    assert sorted(explained) == sorted(wanted)


@each_name
def test_an_editor_shows_what_an_argument_is(name):
    # Not where else to read it.
    text = sections(PUBLIC[name]).get("Args", "")
    assert "As in `keras.losses.Loss`" not in text
    assert "As in `keras.metrics.Metric`" not in text


@each_name
def test_the_signature_is_annotated(name):
    for parameter in parameters(PUBLIC[name]):
        if parameter.kind is not parameter.VAR_KEYWORD:
            assert parameter.annotation is not parameter.empty, parameter


def calls(file):
    """The calls of public names: the name, and the node."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).removeprefix("keras_xent.")
            if name in PUBLIC and ast.unparse(node.func) != name:
                yield name, node


@pytest.mark.parametrize("file", USERS, ids=lambda file: file.name)
def test_examples_and_benchmarks_call_what_there_is(file):
    for name, node in calls(file):
        signature = inspect.signature(PUBLIC[name])
        whole = not any(isinstance(x, ast.Starred) for x in node.args)
        bind = signature.bind if whole else signature.bind_partial
        names = [x.arg for x in node.keywords]
        if None in names:
            bind = signature.bind_partial
        bind(*node.args, **dict.fromkeys(filter(None, names)))
