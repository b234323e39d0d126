"""The reference: a page for each package, made of what its `__all__` names.

Docstrings are Markdown, as Keras's are, with the headings that
CONTRIBUTING.md lists. They become pages in docs/reference, which Git does not
keep, before Sphinx reads the folder.
"""

import ast
import importlib
import inspect
import pathlib
import re
import textwrap

from formula import formulas
from names import linked

# The packages, in the order of the pages, and what is said of them there.
PACKAGES = {
    "losses": "Losses",
    "metrics": "Metrics",
    "layers": "Layers",
    "callbacks": "Callbacks",
    "data": "Data",
    "ops": "Operations",
    "diagnosis": "Diagnosis",
}
# What users call of a class, beside what every class of Keras has. The rest
# that has a docstring is there for classes that are derived.
MEMBERS = (
    "bars",
    "bias",
    "bounds",
    "counts",
    "curve",
    "edges",
    "enable_lora",
    "errors",
    "merge_state",
    "plot",
    "raise_if_errors",
    "scale",
    "set_margins",
    "temperature",
    "threshold",
    "thresholds",
    "warnings",
)
SECTION = re.compile(r"^([A-Z][a-z]+):$", re.MULTILINE)
# Sections of "name: what it is", the others are text.
LISTS = ("Args", "Attributes", "Raises", "Warns")
ITEM = re.compile(r"^(\S[*\w, ]*):(?:\s|$)")


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}


def write(app):
    folder = pathlib.Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for package, text in pages().items():
        file = folder / f"{package}.md"
        # A page that is as it was is not read again.
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def pages():
    """The text of each page by the name of its package."""
    return {package: page(package) for package in PACKAGES}


def page(package):
    module = importlib.import_module(f"keras_xent.{package}")
    things = {name: getattr(module, name) for name in module.__all__}
    path = module.__name__
    rows = "\n".join(
        f"| {{py:obj}}`{name} <{path}.{name}>` | {linked(summary(thing))} |"
        for name, thing in things.items()
    )
    parts = [
        f"# {PACKAGES[package]}",
        linked(inspect.getdoc(module)),
        f"| `{path}` | |\n| --- | --- |\n{rows}",
        *(entry(f"{path}.{name}", thing) for name, thing in things.items()),
    ]
    return "\n\n".join(parts) + "\n"


def summary(thing):
    return inspect.getdoc(thing).split("\n", 1)[0]


def entry(path, thing):
    """A name with its signature, its docstring and its members."""
    kind = "class" if inspect.isclass(thing) else "function"
    parts = [markdown(formulas(inspect.getdoc(thing)))]
    if kind == "class":
        parts += [member(thing, name) for name in MEMBERS]
    body = "\n\n".join(filter(None, parts))
    return f"::::::{{py:{kind}}} {path}{signature(thing)}\n{body}\n::::::"


def member(cls, name):
    """What users may call of a class, in short; "" if it has no such."""
    owner = next((c for c in cls.__mro__ if name in vars(c)), None)
    if owner is None or not owner.__module__.startswith("keras_xent"):
        return ""
    thing = vars(owner)[name]
    text = inspect.getdoc(thing)
    if text is None:
        return ""
    is_property = isinstance(thing, property)
    kind = "property" if is_property else "method"
    call = "" if is_property else signature(thing)
    # Its paragraphs up to the first section.
    body = markdown(SECTION.split(text)[0])
    return f":::::{{py:{kind}}} {name}{call}\n:no-index-entry:\n\n{body}\n:::::"


def signature(thing):
    """The arguments as they are written, with the names of their types."""
    made = inspect.isclass(thing)
    function = inspect.unwrap(thing.__init__ if made else thing)
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except OSError:  # a dataclass has made it
        return str(inspect.signature(thing)).removesuffix(" -> None")
    arguments = ast.parse(source).body[0].args
    if arguments.args and arguments.args[0].arg == "self":
        del arguments.args[0]
    return f"({ast.unparse(arguments)})"


def markdown(docstring):
    """A docstring as Markdown whose sections have headings and lists."""
    first, *rest = SECTION.split(docstring)
    parts = [text(first)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        body = textwrap.dedent(body.strip("\n"))
        made = definitions(body) if title in LISTS else text(body)
        parts += [f":::{{rubric}} {title}\n:::", made]
    return "\n\n".join(parts)


def definitions(body):
    """`name: what` as a list of definitions; what is none of it, as text."""
    items = []
    for line in body.splitlines():
        match = ITEM.match(line)
        if match:
            items.append((match[1], [line[match.end() :]]))
        elif items:
            items[-1][1].append(line)
        else:
            return text(body)
    return "\n\n".join(definition(name, lines) for name, lines in items)


def definition(name, lines):
    first, rest = lines[0].strip(), textwrap.dedent("\n".join(lines[1:]))
    what = textwrap.indent(text(f"{first}\n{rest}".strip()), "  ")
    return f"`{name}`\n: {what.strip()}"


def text(body):
    """Paragraphs, in which examples are blocks and names are links."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", body.strip()):
        if paragraph.lstrip().startswith(">>>"):
            paragraph = textwrap.dedent(paragraph)
            paragraph = f"```pycon\n{paragraph}\n```"
        parts.append(paragraph)
    joined = "\n\n".join(parts)
    joined = joined.replace("\n```\n\n```pycon\n", "\n\n")
    return linked(joined)
