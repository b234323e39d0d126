"""Pictures of what siamese_speaker.py has learned."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import norm
from sklearn.manifold import TSNE
from speaker_scores import every_pair

PERCENT = PercentFormatter(1, symbol=" %")
SAME, DIFFERENT, LINE = "#1b7f79", "#d1495b", "#333333"
STYLE = {
    "figure.dpi": 120,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


def save(folder, results, histories, names):
    """Write four PNG files into `folder`.

    `results` are `speaker_scores.Result`s, `histories` maps a mode to the
    history of its training, `names` are the speakers' names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, figure in [
            ("scores", score_histograms(results)),
            ("det", det_curves(results)),
            ("embeddings", embedding_maps(results, names)),
            ("training", training_curves(histories)),
        ]:
            figure.savefig(folder / f"{name}.png", bbox_inches="tight")
            plt.close(figure)


def panels(results, width, height):
    """A figure with a panel per result: seen beside unseen, or all modes."""
    groups = len({result.group for result in results})
    columns = groups if groups > 1 else len(results)
    rows = -(-len(results) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis, result in zip(axes.flat, results, strict=True):
        axis.set_title(title(result))
    return figure, axes.flat


def title(result):
    return f"{result.mode}, {result.speakers} speakers"


def score_histograms(results):
    """How far apart matches and non-matches are, and where the cut is."""
    figure, axes = panels(results, 5.5, 3.6)
    for axis, result in zip(axes, results, strict=True):
        match, distance = every_pair(result.distance, result.speaker)
        # The axis is logarithmic; nearly equal pairs share its first bin.
        lowest = np.quantile(distance, 0.005)
        lowest = max(lowest, 1e-5 * np.median(distance), 1e-9)
        distance = np.maximum(distance, lowest)
        bins = np.geomspace(lowest, 1.01 * distance.max(), 60)
        for kind, color, label in [
            (match, SAME, "same speaker"),
            (~match, DIFFERENT, "different speakers"),
        ]:
            axis.hist(
                distance[kind],
                bins,
                weights=np.full(kind.sum(), 1 / kind.sum()),
                color=color,
                alpha=0.6,
                label=label,
            )
        axis.axvline(
            result.threshold,
            color=LINE,
            linestyle="--",
            label=f"threshold {result.threshold:.3g}",
        )
        axis.set(
            xscale="log", xlabel="distance", ylabel="share of pairs in the bin"
        )
        axis.yaxis.set_major_formatter(PERCENT)
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.18),
            ncols=3,
            fontsize=8.5,
            handlelength=1.5,
            columnspacing=1,
        )
    return figure


def det_curves(results):
    """False non-matches over false matches, on normal-deviate axes."""
    figure, axis = plt.subplots(
        figsize=(6.4, 6.2 + 0.25 * len(results)), layout="constrained"
    )
    ticks = np.array([0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
    least, most = 0.0005, 0.8
    axis.plot(
        norm.ppf([least, most]),
        norm.ppf([least, most]),
        color="#bbbbbb",
        linestyle=":",
        linewidth=1,
    )
    for color, result in zip(colors(len(results)), results, strict=True):
        rates = result.metric.curve()
        x, y = norm.ppf(
            np.maximum([rates.false_match, rates.false_non_match], least)
        )
        places = np.stack([x, y], axis=1).round(3)
        new = np.any(places[1:] != places[:-1], axis=1)
        axis.plot(
            *places[np.append(True, new)].T,
            color=color,
            label=f"{title(result)}: EER {100 * result.equal_error:.2f} %",
        )
        point = norm.ppf(np.clip(result.equal_error, least, most))
        axis.plot(point, point, "o", color=color, clip_on=False)
    axis.set_xticks(norm.ppf(ticks), [f"{100 * tick:g} %" for tick in ticks])
    axis.set_yticks(norm.ppf(ticks), [f"{100 * tick:g} %" for tick in ticks])
    axis.set(
        xlim=norm.ppf([least, most]),
        ylim=norm.ppf([least, most]),
        xlabel="false matches (share of different-speaker pairs)",
        ylabel="false non-matches (share of same-speaker pairs)",
        aspect="equal",
    )
    axis.set_title("Detection error trade-off; dots: equal error rate")
    axis.grid(color="#eeeeee")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11))
    return figure


def embedding_maps(results, names):
    """Every utterance a dot, near dots sound alike (t-SNE)."""
    figure, axes = panels(results, 4.8, 4.6)
    for axis, result in zip(axes, results, strict=True):
        distance = (result.distance + result.distance.T) / 2
        np.fill_diagonal(distance, 0)
        place = TSNE(
            metric="precomputed",
            init="random",
            perplexity=min(30, max(1, (len(distance) - 1) / 4)),
            random_state=0,
        ).fit_transform(distance)
        ids = np.unique(result.speaker)
        for color, speaker in zip(colors(len(ids)), ids, strict=True):
            axis.scatter(
                *place[result.speaker == speaker].T,
                s=16,
                color=color,
                edgecolor="white",
                linewidth=0.3,
                label=names[speaker],
            )
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if len(ids) <= 20:
            axis.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, 0.0),
                ncols=3,
                fontsize=8.5,
                handletextpad=0.1,
                columnspacing=1,
            )
    figure.suptitle("Test utterances by speaker: near is alike (t-SNE)")
    return figure


def training_curves(histories):
    """The loss, and the accuracy on the validation pairs."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.6), layout="constrained"
    )
    for color, (mode, history) in zip(
        colors(len(histories)), histories.items(), strict=True
    ):
        epochs = np.arange(1, len(history["loss"]) + 1)
        left.plot(epochs, history["loss"], color=color, label=mode)
        if "val_match_accuracy" in history:
            accuracy = history["val_match_accuracy"]
            label = f"{mode}, {'all' if mode == 'batch' else 'drawn'} pairs"
        else:
            accuracy, label = history["val_accuracy"], f"{mode}, by Keras"
        right.plot(epochs, accuracy, color=color, label=label)
    left.set(title="Loss", xlabel="epoch")
    left.set_ylim(bottom=0)
    right.set(title="Accuracy on the validation pairs", xlabel="epoch")
    right.set_ylim(0, 1.05)
    right.yaxis.set_major_formatter(PERCENT)
    for axis in (left, right):
        axis.grid(color="#eeeeee")
        axis.legend()
    return figure


def colors(count):
    if count <= 10:
        return plt.get_cmap("tab10")(np.arange(count))
    return plt.get_cmap("turbo")(np.linspace(0.03, 0.97, count))
