"""Where links lead that leave the folder docs.

On GitHub they open a file beside it. On the site a program opens its page of
the gallery, and any other file the one in the repository.
"""

import pathlib
import re

from gallery import programs

REPOSITORY = "https://github.com/OWNER/keras_xent"
LINK = re.compile(r"\]\(\.\./([\w./-]+)")


def setup(app):
    app.connect("source-read", _source_read)
    return {"parallel_read_safe": True}


def _source_read(app, docname, source):
    # From the folders of docs, "../" leads to docs.
    if "/" not in docname:
        source[0] = lead(source[0], pathlib.Path(app.srcdir).parent)


def lead(text, root):
    """A page of docs whose links lead where the site has something."""
    pages = {
        f"examples/{program.name}": f"gallery/{program.stem}.md"
        for program in programs(root / "examples")
    }

    def target(match):
        file = match[1]
        return f"]({pages.get(file, f'{REPOSITORY}/blob/main/{file}')}"

    return LINK.sub(target, text)
