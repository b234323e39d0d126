"""Public names in backticks become links into the reference.

`LinearCrossentropy`, `losses.LinearCrossentropy(z_loss=1e-4)` and
`keras_xent.losses.LinearCrossentropy` all do; plain words, such as `entropy`,
only with their package before them. Names of Keras, such as `keras.losses.Loss`
and `model.fit`, become links into its documentation. Code blocks and headings
are let be.
"""

import functools
import importlib
import re

import keras_names

PACKAGES = ("losses", "metrics", "layers", "callbacks", "data", "ops")
CODE = re.compile(r"(?<![`\[])`([^`\n]+)`(?![`\]])")
NAME = re.compile(r"(?:keras_xent\.)?((?:\w+\.)?\w+)(?:\(.*\))?")
FENCE = re.compile(r"^ *(```|~~~|:::)")


@functools.cache
def targets():
    """The full name of all that may stand in backticks."""
    found = {"diagnose": "keras_xent.diagnosis.diagnose"}
    for package in PACKAGES:
        module = importlib.import_module(f"keras_xent.{package}")
        for name in module.__all__:
            full = f"{module.__name__}.{name}"
            found[f"{package}.{name}"] = full
            if name[0].isupper():
                found[name] = full
    return found


def linked(text):
    """Markdown in which public names are links."""
    lines, in_block = [], False
    for line in text.split("\n"):
        if FENCE.match(line):
            in_block = not in_block
        elif not in_block and not line.startswith("#"):
            line = CODE.sub(_link, line)
        lines.append(line)
    return "\n".join(lines)


def _link(match):
    code = match[1]
    name = NAME.fullmatch(code)
    full = targets().get(name[1]) if name else None
    # A role would read the brackets as the end of the text.
    if "<" in code:
        return match[0]
    if full is None:
        address = keras_names.address(code)
        return f"[{match[0]}]({address})" if address else match[0]
    return f"{{py:obj}}`{code} <{full}>`"


def setup(app):
    app.connect("source-read", _source_read)
    return {"parallel_read_safe": True}


def _source_read(app, docname, source):
    if not docname.startswith("reference/"):
        source[0] = linked(source[0])
