"""The gallery: a page for each example that is a program.

It has the docstring, which names the task, the figures and the commands, the
pictures that the guides show of it, and the source. The pages are made in
docs/gallery, which Git does not keep.
"""

import ast
import pathlib

from names import linked

# Which pictures of docs/images an example has made.
PICTURES = {
    "calibration": ["calibration"],
    "language_model": ["language_model"],
    "retrieval": ["retrieval_embeddings", "retrieval_found"],
    "siamese_speaker": ["training", "scores", "det", "embeddings"],
    "spearman": ["spearman"],
    "two_towers": ["two_towers"],
    "whats_wrong": ["whats_wrong"],
}


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}


def write(app):
    source = pathlib.Path(app.srcdir)
    folder = source / "gallery"
    folder.mkdir(exist_ok=True)
    for program in programs(source.parent / "examples"):
        text, file = page(program), folder / f"{program.stem}.md"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def programs(folder):
    """The examples that are run, without the modules that they share."""
    files = sorted(folder.glob("*.py"))
    return [f for f in files if 'if __name__ == "__main__":' in f.read_text()]


def page(program):
    """What an example does, what it makes, and how."""
    code = program.read_text()
    module = ast.parse(code)
    title, _, rest = ast.get_docstring(module).partition("\n")
    after = module.body[0].end_lineno + 1
    pictures = "\n\n".join(
        f"![A figure that {program.name} makes](../images/{name}.png)"
        for name in PICTURES.get(program.stem, ())
    )
    parts = [
        f"# {title.rstrip('.')}",
        f"`examples/{program.name}`",
        linked(rest.strip()),
        pictures,
        "## The program",
        f"```{{literalinclude}} ../../examples/{program.name}\n"
        f":language: python\n:lines: {after}-\n```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"
