"""How the site is built: `python -m sphinx -W -b html docs docs/_build/html`.

`-D run_examples=1` runs the examples as well, at small size, for the gallery.
Nothing is fetched while it is built, and nothing while it is read.
"""

import os
import pathlib
import sys

# Keras wants a backend before it is imported. Any will do, and the extra `docs`
# brings this one along.
os.environ.setdefault("KERAS_BACKEND", "jax")

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "keras_xent"
author = "keras_xent developers"
copyright = author

extensions = [
    "myst_parser",
    "sphinx_copybutton",
    # What lies in _ext.
    "names",
    "reference",
    "gallery",
    "mathml",
    "outside",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
# As GitHub makes the addresses of headings.
myst_heading_anchors = 4
# GitHub, too, sets such blocks as formulas.
myst_fence_as_directive = ["math"]
# Blocks without a language are formulas and commands.
highlight_language = "none"

# Quotes and dots, but no dashes: `--small` is an option.
smartquotes_action = "qe"

toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 60
add_module_names = False

pygments_dark_style = "github-dark"

copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = "keras_xent"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["chooser.js"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
