"""The picture of a reliability diagram."""

import numpy as np

ACCURACY, GAP, LINE = "#1b7f79", "#d1495b", "#333333"


def draw(bars, ax=None):
    """Accuracy as bars, what is missing to the confidence, and the weights.

    Args:
        bars: `Bars` of one class.
        ax: matplotlib axes; None makes a figure.

    Returns:
        The axes.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "A plot needs matplotlib: `pip install matplotlib`. "
            "`bars()` gives the numbers without."
        ) from error
    if ax is None:
        ax = plt.figure(figsize=(4.5, 4.5)).add_subplot()
    width = bars.upper - bars.lower
    place = {"x": bars.lower, "width": width, "align": "edge"}
    share = bars.weight / bars.weight.sum()
    ax.bar(height=share, **place, color="#dddddd", label="share of examples")
    accuracy = np.nan_to_num(bars.accuracy)
    ax.bar(
        height=accuracy,
        **place,
        facecolor="none",
        edgecolor=ACCURACY,
        linewidth=1.5,
        label="accuracy",
    )
    ax.bar(
        height=np.nan_to_num(bars.confidence - bars.accuracy),
        bottom=accuracy,
        **place,
        color=GAP,
        alpha=0.35,
        label="gap to the confidence",
    )
    ax.plot([0, 1], [0, 1], color=LINE, linestyle=":", linewidth=1)
    filled = bars.weight > 0
    ax.plot(
        bars.confidence[filled],
        bars.accuracy[filled],
        "o",
        color=ACCURACY,
        markersize=3,
    )
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="confidence",
        ylabel="accuracy",
    )
    ax.legend(loc="upper left", fontsize=8, frameon=False)
    return ax
