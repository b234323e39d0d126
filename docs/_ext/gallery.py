"""The gallery: a page for each example that is a program.

It has the docstring, which names the task, the figures and the commands, what
a run shows, and the source. The pages are made in docs/gallery, which Git does
not keep. With `-D run_examples=1` each program is run at small size, and its
page has what it prints and draws; without, only the pictures of the guides.
"""

import ast
import pathlib

import small_runs
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
    app.add_config_value("run_examples", False, "env", bool)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}


def write(app):
    source = pathlib.Path(app.srcdir)
    folder = source / "gallery"
    folder.mkdir(exist_ok=True)
    found = programs(source.parent / "examples")
    runs = small_runs.run_all(found) if app.config.run_examples else {}
    for program in found:
        run = runs.get(program)
        save(folder / f"{program.stem}.md", page(program, run).encode())
        for name, picture in run.pictures.items() if run else ():
            save(folder / f"{program.stem}_{name}.png", picture)


def save(file, content):
    """Writes what has changed: a page that is as it was is not read again."""
    if not file.exists() or file.read_bytes() != content:
        file.write_bytes(content)


def programs(folder):
    """The examples that are run, without the modules that they share."""
    files = sorted(folder.glob("*.py"))
    return [f for f in files if 'if __name__ == "__main__":' in f.read_text()]


def page(program, run=None):
    """What an example does, what it makes, and how."""
    code = program.read_text()
    module = ast.parse(code)
    title, _, rest = ast.get_docstring(module).partition("\n")
    after = module.body[0].end_lineno + 1
    parts = [
        f"# {title.rstrip('.')}",
        f"`examples/{program.name}`",
        linked(rest.strip()),
        shown(program, run) if run else "",
        full_size(program),
        "## The program",
        f"```{{literalinclude}} ../../examples/{program.name}\n"
        f":language: python\n:lines: {after}-\n```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def shown(program, run):
    """A small run: its command, what it printed, its pictures."""
    parts = ["## A small run", f"```bash\n{run.command}\n```"]
    if run.missing:
        names = " and ".join(f"`{name}`" for name in run.missing)
        parts.append(f"Not run when this page was made: it needs {names}.")
    else:
        parts += [
            f"Run while this page was made, in {run.seconds:.0f} s beside "
            "others, to show what comes out; the figures of so small a run "
            "mean little.",
            f"```text\n{run.output}\n```",
            *(
                f"![{name} of {program.name} at small size]"
                f"({program.stem}_{name}.png)"
                for name in run.pictures
            ),
        ]
    return "\n\n".join(parts)


def full_size(program):
    """The pictures that the guides show."""
    pictures = [
        f"![A figure that {program.name} makes](../images/{name}.png)"
        for name in PICTURES.get(program.stem, ())
    ]
    heading = ["## At full size"] if pictures else []
    return "\n\n".join(heading + pictures)
