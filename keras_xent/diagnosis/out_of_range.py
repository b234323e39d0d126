"""Class ids that name no class: which kind of slip they are."""

import numpy as np

from keras_xent.diagnosis import cures, ends
from keras_xent.diagnosis.evidence import NAMED

# Numbers that mean "leave this out" in data sets: void in segmentation (8 and
# 16 bits), and what tables write where there is nothing. Negative ones too.
_VOID = (255, 254, 65535, 999, 9999)

# More different negative numbers are labels that were shifted.
_FEW = 2


def void_values(values):
    """Those of some labels that mean "leave this out", in order."""
    negative = sorted(v for v in values if v < 0)
    few = negative if len(negative) <= _FEW else []
    return [*few, *sorted(v for v in values if v in _VOID)]


def out_of_range(output, labels, wrong):
    """The finding on class ids of which some are wrong.

    Args:
        labels: Those that count, `(n,)`, whole numbers.
        wrong: Whether each is outside, `(n,)`.
    """
    n = output.classes
    outside = sorted({int(label) for label in labels[wrong]})
    void = void_values(outside)
    real = labels[~np.isin(labels, [*void, *output.expects.ignored])]
    slip = _slip(output, real, void)
    return output.error(
        "labels-out-of-range",
        f"Labels name classes that do not exist: {n} classes are numbered "
        f"from 0 to {n - 1}. Depending on the backend such a row has the loss "
        "0, NaN, or raises.",
        {
            "classes": n,
            "smallest label": int(labels.min()),
            "largest label": int(labels.max()),
            "labels outside": int(wrong.sum()),
            "for example": outside[:NAMED],
        },
        *slip,
    )


def _slip(output, real, void):
    """The cause and the cure."""
    if void == [-1] and len(real) and np.all(real == 1):
        return "The labels are -1 and 1; class ids are 0 and 1.", (
            "y = (y + 1) // 2"
        )
    if not void:
        return _shifted(output, real, "y")
    cause = f"{_listed(void)} marks rows or pixels without a label, which "
    cause += "the loss does not know."
    cure = cures.leaving_out(output, void)
    if void == [-1] and len(real) and real.max() == output.classes - 2:
        cure += "\n# or, where -1 is a class of its own: y = y + 1"
    if len(real) and (real.min() < 0 or real.max() >= output.classes):
        more, before = _shifted(output, real, f"~np.isin(y, {void})")
        return f"{cause} {more}", f"{before}\n{cure}"
    return cause, cure


def _listed(numbers):
    return " or ".join(map(str, numbers))


def _shifted(output, real, which):
    """Of labels that all mean a class.

    Args:
        which: `"y"`, or which of them are meant, as code.
    """
    n, values = output.classes, np.unique(real)
    target = "y" if which == "y" else f"y[{which}]"
    if values[0] == 1 and values[-1] == n:
        cause = "The labels count from 1; class ids count from 0."
        if which == "y":
            return cause, "y = y - 1"
        return cause, f"y = np.where({which}, y - 1, y)"
    gaps = len(values) <= values[-1]
    cause = "The labels have gaps." if gaps else ""
    cure = ""
    if gaps:
        cure = f"{target} = np.unique({target}, return_inverse=True)[1]"
        cure += ".reshape(y.shape)" if which == "y" else ""
        cure += "  # without gaps\n"
    if len(values) > n:
        cause += " The last layer has too few units."
        cure += ends.with_units(output, len(values))
    return cause.strip(), cure.strip()
