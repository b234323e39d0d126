"""Warnings that show the user's line, not ours."""

import os
import sys
import warnings

# What stands between the user's line and ours: Keras, the backends and what
# they trace with.
_BETWEEN = {
    *("keras_xent", "keras", "tensorflow", "jax", "jaxlib", "torch"),
    *("optree", "tree", "contextlib", "functools", "threading"),
}


def warn(message, category=UserWarning):
    """Warns at the innermost line that is neither ours nor Keras's."""
    # Python 3.12 has `skip_file_prefixes` for this.
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_between(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_between(frame):
    name = frame.f_globals.get("__name__", "").partition(".")[0]
    # TensorFlow rewrites the user's functions, too, into files of its own.
    file = os.path.basename(frame.f_code.co_filename)
    return name in _BETWEEN or file.startswith("__autograph_generated_file")
