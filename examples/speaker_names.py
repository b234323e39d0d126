"""Speakers' names on pictures: readable in any script, and when many."""

import contextlib
import functools
import unicodedata

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager

STYLE = {
    "figure.dpi": 120,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}
MOST_NAMES = 60  # in a picture
LONGEST = 28  # letters of a name


@contextlib.contextmanager
def drawing(names):
    """The style of all pictures; yields the names so that fonts have them."""
    fonts, names = readable(names)
    with mpl.rc_context({**STYLE, "font.family": fonts}):
        yield names


def readable(names):
    """Fonts for these names, and the names as they can be drawn.

    What no font has comes as in `#U5c71`, as unzip writes it.
    """
    names = [unicodedata.normalize("NFC", name) for name in names]
    fonts = ["DejaVu Sans"]  # comes with matplotlib
    missing = {letter for name in names for letter in name}
    missing -= letters(font_manager.findfont(fonts[0]))
    for font in installed() if missing else ():
        # Of its faces the one that draws: a bold one may have other letters.
        has = letters(font_manager.findfont(font))
        if missing & has:
            fonts.append(font)
            missing -= has
    return fonts, [
        "".join(
            f"#U{ord(letter):04x}" if letter in missing else letter
            for letter in name
        )
        for name in names
    ]


def installed():
    """The names of all fonts, those without serifs first."""
    names = {font.name for font in font_manager.fontManager.ttflist}
    # The last resort has a box for everything.
    names = {x for x in names if "Last Resort" not in x and "Emoji" not in x}
    return sorted(names, key=lambda name: ("Sans" not in name, name))


@functools.cache
def letters(path):
    """What a font can draw."""
    try:
        found = map(chr, font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    # Some fonts have glyphs for line feeds and the like.
    return frozenset(
        letter
        for letter in found
        if unicodedata.category(letter) not in ("Cc", "Cs", "Co", "Cn", "Zl")
    )


def short(name, longest=LONGEST):
    """The name, or its beginning and its end."""
    if len(name) <= longest:
        return name
    half = longest // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def left_to_right(path):
    """A path whose folders stay in order, whatever their script."""
    return f"\N{LEFT-TO-RIGHT MARK}{path}"


def name_legend(axis, handles, names):
    """All names below a picture, or a note that they are too many.

    Returns the height of it in inches.
    """
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
    if len(names) > MOST_NAMES:
        axis.set_xlabel(f"{len(names)} speakers, too many to name", size=8.5)
        return 0.2
    size = 8.5 if len(names) <= 12 else 7.5 if len(names) <= 30 else 6.5
    longest = max(len(short(name)) for name in names)
    wide = axis.get_figure().get_size_inches()[0] * 72
    wide /= axis.get_subplotspec().get_gridspec().ncols
    columns = int(np.clip(wide / (size * (0.6 * longest + 2)), 1, 8))
    legend = axis.legend(
        handles,
        [str(number) for number in range(len(names))],
        ncols=columns,
        fontsize=size,
        handletextpad=0.1,
        columnspacing=0.8,
        labelspacing=0.3,
        **below,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # $ is a letter, _ may come first
        text.set_text(short(name))
    return -(-len(names) // columns) * size * 1.45 / 72


# The pictures
