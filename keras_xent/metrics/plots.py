"""Pictures of a threshold metric, by matplotlib and scikit-learn.

Both are imported when a picture is asked for; nothing else needs them.
"""

import numpy as np

from keras_xent.metrics import measures
from keras_xent.ops import roc

SAME, DIFFERENT, LINE = "#1b7f79", "#d1495b", "#333333"

# Bars of a histogram, and the share of scores at either end that are drawn
# into the outermost ones.
_BARS, _TAIL = 60, 0.002

# Scores of one sign that span more than this ratio are drawn on a logarithm.
_WIDE = 100.0


def plot(metric, kind, ax=None):
    """Draws a threshold metric; see its `plot`."""
    draw = {"det": det, "roc": roc_curve, "histogram": histogram, "cost": cost}
    if kind not in draw:
        names = ", ".join(repr(name) for name in draw)
        raise ValueError(f"`kind` must be one of {names}. Received: {kind!r}")
    try:
        import matplotlib.pyplot as plt
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib and scikit-learn: pip install matplotlib "
            "scikit-learn"
        ) from error
    rates = metric.curve()
    if ax is None:
        ax = plt.subplots(figsize=(6, 5), layout="constrained")[1]
    draw[kind](metric, rates, ax)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def det(metric, rates, ax):
    """False non-matches over false matches, both on normal deviates."""
    from sklearn.metrics import DetCurveDisplay

    # Rates of 0 and 1 lie at infinity there.
    seen = (rates.false_non_match > 0) & (rates.false_non_match < 1)
    seen &= (rates.false_match > 0) & (rates.false_match < 1)
    point = _at_threshold(metric, rates)
    if not seen.any():
        _say(ax, "no error at some threshold: nothing to trade off")
        return
    # By false-match rate, rising.
    order = slice(None, None, -1) if metric.similarity else slice(None)
    x, y = rates.false_match[seen][order], rates.false_non_match[seen][order]
    DetCurveDisplay(fpr=x, fnr=y).plot(ax=ax, name=metric.name)
    ax.lines[-1].set_color(SAME)
    if point is not None and min(point) > 0 and max(point) < 1:
        from scipy.stats import norm

        ax.plot(*norm.ppf(point), "o", color=LINE, label=_label(metric))
    ax.legend(frameon=False)
    ax.grid(color="#eeeeee")
    ax.set(xlabel="false-match rate", ylabel="false non-match rate")


def roc_curve(metric, rates, ax):
    """The true-match rate over the false-match rate."""
    from sklearn.metrics import RocCurveDisplay

    order = slice(None, None, -1) if metric.similarity else slice(None)
    x, true_match = rates.false_match[order], 1.0 - rates.false_non_match[order]
    x, true_match = np.append(x, 1.0), np.append(true_match, 1.0)
    area = float(roc.match_auc(metric._exact_curve()))
    display = RocCurveDisplay(fpr=x, tpr=true_match, roc_auc=area)
    display.plot(ax=ax, name=metric.name)
    ax.lines[-1].set_color(SAME)
    point = _at_threshold(metric, rates)
    if point is not None:
        ax.plot(point[0], 1.0 - point[1], "o", color=LINE, label=_label(metric))
    ax.legend(frameon=False, loc="lower right")
    ax.grid(color="#eeeeee")
    ax.set(xlabel="false-match rate", ylabel="true-match rate")


def histogram(metric, rates, ax):
    """How the scores of matches and of non-matches are spread."""
    counts = metric.histogram.counts()
    shares = counts / counts.sum(axis=1, keepdims=True)
    bars, scale = _bars(metric, shares)
    middle = _middles(metric)
    place = np.clip(np.searchsorted(bars, middle) - 1, 0, len(bars) - 2)
    for share, color, label in [
        (shares[1], SAME, "matches"),
        (shares[0], DIFFERENT, "non-matches"),
    ]:
        height = np.bincount(place, weights=share, minlength=len(bars) - 1)
        ax.stairs(height, bars, fill=True, color=color, alpha=0.6, label=label)
    _mark_threshold(metric, ax, bars)
    ax.set(xscale=scale, xlabel=_score(metric), ylabel="share in the bar")
    _legend_below(ax)


def cost(metric, rates, ax):
    """Both error rates and the detection cost, over the threshold.

    The least cost is marked. It is 1 at most, for that is what an answer costs
    that looks at no score, so the picture ends a little above.
    """
    counts = metric.histogram.counts()
    bars, scale = _bars(metric, counts / counts.sum(axis=1, keepdims=True))
    config = metric.get_config()
    names = "p_target", "c_miss", "c_false_alarm"
    prior, *costs = (
        config.get(name, default)
        for name, default in zip(names, (0.5, 1.0, 1.0), strict=True)
    )
    measure = measures.MinDetectionCost(prior, *costs)
    total = measure.cost(rates.false_match, rates.false_non_match)
    for values, color, width, label in [
        (rates.false_non_match, SAME, 1.5, "false non-match rate"),
        (rates.false_match, DIFFERENT, 1.5, "false-match rate"),
        # Wide, and below the others: where it is one of them, both are seen.
        (total, LINE, 3.0, f"detection cost, p = {prior:g}"),
    ]:
        ax.step(
            rates.threshold,
            values,
            where="pre",  # each stands for the run of thresholds below it
            color=color,
            linewidth=width,
            zorder=2.0 + 1.0 / width,
            label=label,
        )
    _mark_threshold(metric, ax, bars)
    if metric.histogram.split is None:  # else there is no other threshold
        best = metric._threshold_of(measure, metric._exact_curve())
        least = total.min()
        place, note, _ = _in_picture(best, bars)
        ax.plot(
            *(place, least, "o"),
            color=LINE,
            markersize=9,
            markeredgecolor="white",
            clip_on=False,
            zorder=3.0,
            label=f"least cost {least:.3g} at {best:.4g}{note}",
        )
    ax.set(xscale=scale, xlim=bars[[0, -1]], ylim=(0.0, 1.2))
    ax.set(xlabel=f"threshold on the {_score(metric)}", ylabel="rate, cost")
    _legend_below(ax, columns=2)
    ax.grid(color="#eeeeee")


def _bars(metric, shares):
    """Ends of bars that hold nearly all scores, and the scale they are even on.

    Logarithmic for scores of one sign that span orders of magnitude.
    """
    edges = metric.histogram.edges().astype("float64")
    upto = np.cumsum(shares.mean(axis=0))
    first = edges[np.searchsorted(upto, _TAIL)]
    last = edges[min(np.searchsorted(upto, 1 - _TAIL) + 1, len(edges) - 1)]
    inner = edges[np.isfinite(edges)]
    first, last = np.clip([first, last], inner[0], inner[-1])
    if not first < last:
        first, last = first - 1.0, last + 1.0
    if first > 0 and last / first > _WIDE:
        return np.geomspace(first, last, _BARS + 1), "log"
    return np.linspace(first, last, _BARS + 1), "linear"


def _middles(metric):
    """What stands for each bin; the finite end of those that have one."""
    low = metric.histogram.edges().astype("float64")
    high = np.append(low[1:], np.inf)
    low = np.where(np.isfinite(low), low, high)
    high = np.where(np.isfinite(high), high, low)
    return np.nan_to_num(0.5 * low + 0.5 * high)


def _at_threshold(metric, rates):
    """Both error rates at the threshold, or None where it has none."""
    threshold = _threshold(metric)
    at = np.searchsorted(rates.threshold, threshold)
    if np.isnan(threshold) or at == len(rates.threshold):
        return None
    return rates.false_match[at], rates.false_non_match[at]


def _mark_threshold(metric, ax, bars):
    threshold = _threshold(metric)
    if np.isnan(threshold):
        return
    place, note, marker = _in_picture(threshold, bars)
    ax.axvline(
        place,
        color=LINE,
        linestyle="--",
        marker=marker,
        clip_on=False,
        label=_label(metric) + note,
    )


def _in_picture(threshold, bars):
    """Where a threshold is drawn, or the edge with a note and an arrow."""
    if threshold < bars[0]:
        return bars[0], ", left of the picture", "<"
    if threshold > bars[-1]:
        return bars[-1], ", right of the picture", ">"
    return threshold, "", None


def _threshold(metric):
    """The threshold that is reported at, or the one of the figure."""
    given = metric.get_config().get("threshold")
    return metric.threshold if given is None else given


def _label(metric):
    return f"threshold {_threshold(metric):.4g}"


def _score(metric):
    return "similarity" if metric.similarity else "distance"


def _legend_below(ax, columns=3):
    ax.legend(
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=columns,
    )


def _say(ax, words):
    ax.text(0.5, 0.5, words, ha="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
