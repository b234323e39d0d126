"""What the examples ask of their options, before any work begins.

Each is a `type` for `argparse`, which then says what is wrong with an option:
`add("--epochs", type=at_least(1))`.
"""

import argparse
import importlib.util
import math
import operator
import tempfile
from pathlib import Path


def writable_folder(path):
    """A folder that files can be written to; made if there is none."""
    return _writable(path, _try_folder)


def plots_folder(path):
    """A writable folder for plots, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError(
            "plots need matplotlib: pip install matplotlib"
        )
    return writable_folder(path)


def writable_file(suffix):
    """A file that can be written and ends in `suffix`; its folder is made.

    What the file holds stays until it is written.
    """

    def check(path):
        if Path(path).suffix != suffix:
            raise argparse.ArgumentTypeError(
                f"needs a name that ends in {suffix}. Received: {path!r}"
            )
        return _writable(path, _try_file)

    return check


def _writable(path, attempt):
    if not path:
        raise argparse.ArgumentTypeError("the path is empty; name one")
    try:
        attempt(Path(path))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"cannot write to {path!r} ({getattr(error, 'strerror', error)}). "
            "Name a place that you may write to"
        ) from None
    return Path(path)


# By doing it: what the flags of a file say is not all that stands in the way.


def _try_folder(path):
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def _try_file(path):
    _try_folder(path.parent)
    is_new = not path.exists()
    with path.open("ab"):
        pass
    if is_new:
        path.unlink()


def at_least(least, *, most=None):
    """A whole number, of a least and perhaps a largest value."""
    bounds = [("at least", least), ("at most", most)]
    return _bounded(int, "a whole number", bounds)


def finite(*, least=None, above=None, most=None, below=None):
    """A number, neither NaN nor infinite, within the bounds that are given."""
    bounds = [("at least", least), ("above", above), ("at most", most)]
    return _bounded(float, "a finite number", [*bounds, ("below", below)])


_HOLDS = {
    "at least": operator.ge,
    "above": operator.gt,
    "at most": operator.le,
    "below": operator.lt,
}


def _bounded(kind, wanted, bounds):
    bounds = [(words, bound) for words, bound in bounds if bound is not None]
    asked = " and ".join(f"{words} {bound}" for words, bound in bounds)

    def check(text):
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if isinstance(number, float) and not math.isfinite(number):
            raise argparse.ArgumentTypeError(
                f"must be {wanted}. Received: {text!r}"
            )
        if not all(_HOLDS[words](number, bound) for words, bound in bounds):
            raise argparse.ArgumentTypeError(
                f"must be {asked}. Received: {text}"
            )
        return number

    return check


# What Keras takes.
seed = at_least(0, most=2**32 - 1)
