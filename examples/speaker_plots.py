"""Pictures of what siamese_speaker.py has learned."""

import colorsys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.cluster import hierarchy
from scipy.stats import norm
from sklearn.manifold import TSNE
from speaker_names import MOST_NAMES, drawing, left_to_right, name_legend, short
from speaker_scores import every_pair

PERCENT = PercentFormatter(1, symbol=" %")
SAME, DIFFERENT, LINE = "#1b7f79", "#d1495b", "#333333"
BASELINE = "baseline"  # starts the names of what others are compared with
TAIL = 0.005  # of either kind of pairs, not in the histogram at either end
MOST_DOTS = 1500  # in a map
MOST_LEAVES = 300  # of a dendrogram
# What is drawn of a training, and how. Older histories have an accuracy only.
RATES = {
    "val_equal_error_rate": ("equal error", "-"),
    "val_false_match_rate": ("false matches", "--"),
    "val_false_non_match_rate": ("false non-matches", ":"),
}
ACCURACIES = {
    "val_match_accuracy": ("at the threshold", "-"),
    "val_accuracy": ("by Keras", "-"),
}


def is_baseline(result):
    return result.mode.startswith(BASELINE)


def save(folder, results, histories, names, *, joint=None):
    """Write PNG files into `folder`.

    `results` are `speaker_scores.Result`s, `histories` maps a mode to the
    history of its training, `names` are the speakers' names. `joint` maps a
    mode to the utterances of seen and unseen speakers together, for one map of
    all: a matrix of distances or scores, the speakers, and who is unseen.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ours = [result for result in results if not is_baseline(result)]
    with drawing(names) as names:
        figures = {
            "scores": score_histograms(ours),
            "det": det_curves(results),
        }
        if joint:
            figures["embeddings"] = joint_maps(
                joint, names, similarity=ours[0].similarity
            )
        else:
            figures["embeddings"] = embedding_maps(ours, names)
        if histories:
            figures["training"] = training_curves(histories)
        for name, figure in figures.items():
            write(figure, folder / f"{name}.png")


def save_dendrogram(path, tree, top, label, names, threshold):
    """Write a PNG file of who is grouped with whom; see `dendrogram`."""
    with drawing(names) as names:
        write(dendrogram(tree, top, label, names, threshold), path)


def write(figure, path):
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


# Names in any script


def panels(count, columns, width, height):
    """A figure with so many panels."""
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes.flat[:count]


def columns_for(results):
    """Seen speakers beside unseen ones, or all modes in a row."""
    groups = len({result.group for result in results})
    return groups if groups > 1 else len(results)


def title(result):
    return f"{result.mode}, {result.speakers} speakers"


def score_histograms(results):
    """How far apart matches and non-matches are, and where the cut is."""
    figure, axes = panels(len(results), columns_for(results), 5.5, 3.6)
    for axis, result in zip(axes, results, strict=True):
        match, score = every_pair(result.score, result.speaker)
        log = not result.similarity
        low, high = view(match, score, log)
        bins = (np.geomspace if log else np.linspace)(low, high, 61)
        notes = []
        for kind, color, label in [
            (match, SAME, "same speaker"),
            (~match, DIFFERENT, "different speakers"),
        ]:
            some = score[kind]
            axis.hist(
                some,  # what lies outside of the bins is not drawn
                bins,
                weights=np.full(len(some), 1 / len(some)),
                color=color,
                alpha=0.6,
                label=label,
            )
            below = np.mean(some < low)
            if below > 2 * TAIL:
                notes.append(f"← {100 * below:.0f} % ({label})")
        axis.set_title(title(result))
        axis.set(
            xscale="log" if log else "linear",
            xlim=(low, high),
            xlabel="distance: left is alike"
            if log
            else "score: right is alike",
            ylabel="share of pairs in the bin",
        )
        draw_threshold(axis, result.threshold, low, high)
        axis.text(
            0.01, 0.98, "\n".join(notes), va="top", size=8,
            transform=axis.transAxes,
        )  # fmt: skip
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


def view(match, score, log):
    """From where to where a histogram goes: all but the tails of both kinds.

    On a logarithmic axis not down to 0, where equal utterances are.
    """
    ends = np.array(
        [np.quantile(score[kind], [TAIL, 1 - TAIL]) for kind in (match, ~match)]
    )
    low, high = ends[:, 0].min(), ends[:, 1].max()
    if log:
        low = max(low, 1e-4 * np.median(score), 1e-9)
        return low, max(high, 2 * low)
    room = max(0.02 * (high - low), 1e-6 * max(abs(low), abs(high)), 1e-9)
    return low - room, high + room


def draw_threshold(axis, threshold, low, high, place=float):
    """A line, or an arrow at the edge of the picture to where it would be.

    `place` says where on the axis a number is.
    """
    label = f"threshold {threshold:.3g}"
    inside = low <= threshold <= high
    edge = place(np.clip(threshold, low, high))
    axis.axvline(edge, color=LINE, linestyle="--", label=label)
    if inside:
        return
    left = threshold < low
    axis.annotate(
        label,
        xy=(0.0 if left else 1.0, 0.85),
        xytext=(0.08 if left else 0.92, 0.85),
        xycoords="axes fraction",
        ha="left" if left else "right",
        va="center",
        size=8.5,
        color=LINE,
        arrowprops={"arrowstyle": "-|>", "color": LINE},
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )


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
    for look, result in zip(looks(results), results, strict=True):
        rates = result.metric.curve()
        x, y = norm.ppf(
            np.maximum([rates.false_match, rates.false_non_match], least)
        )
        places = np.stack([x, y], axis=1).round(3)
        new = np.any(places[1:] != places[:-1], axis=1)
        axis.plot(
            *places[np.append(True, new)].T,
            **look,
            label=f"{title(result)}: EER {100 * result.equal_error:.2f} %",
        )
        point = norm.ppf(np.clip(result.equal_error, least, most))
        axis.plot(point, point, "o", color=look["color"], clip_on=False)
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


def looks(results):
    """Of the curves: ours in colors, the baseline's gray and dashed."""
    ours = [result.mode for result in results if not is_baseline(result)]
    bright, gray = iter(colors(len(ours))), iter(["#777777", "#b0b0b0"] * 99)
    return [
        {"color": next(gray), "linestyle": "--", "zorder": 1.5}
        if is_baseline(result)
        else {"color": next(bright), "linestyle": "-"}
        for result in results
    ]


def embedding_maps(results, names):
    """Every utterance a dot, near dots sound alike (t-SNE)."""
    figure, axes = panels(len(results), columns_for(results), 4.8, 4.6)
    below = 0
    for axis, result in zip(axes, results, strict=True):
        axis.set_title(title(result))
        nobody = np.zeros(len(result.speaker), bool)
        more = draw_map(
            axis,
            (result.score, result.speaker, nobody),
            names,
            result.similarity,
        )
        below = max(below, more)
    return with_map_title(figure, below, "Test utterances by speaker")


def joint_maps(joint, names, *, similarity):
    """Seen and unseen speakers in one map, a map for each mode.

    `joint` maps modes to a matrix of distances, or of scores if `similarity`,
    the speaker of each row, and whether that one is unseen.
    """
    figure, axes = panels(len(joint), len(joint), 6.4, 5.6)
    below = 0
    for axis, (mode, data) in zip(axes, joint.items(), strict=True):
        _, speaker, unseen = data
        seen = len(np.unique(speaker[~unseen]))
        axis.set_title(
            f"{mode}, {seen} seen speakers (●) and "
            f"{len(np.unique(speaker[unseen]))} unseen (▲)"
        )
        below = max(below, draw_map(axis, data, names, similarity))
    return with_map_title(figure, below, "Test utterances by speaker")


def with_map_title(figure, below, words):
    width, height = figure.get_size_inches()
    rows = figure.axes[0].get_subplotspec().get_gridspec().nrows
    figure.set_size_inches(width, height + rows * below)
    figure.suptitle(f"{words}: near is alike (t-SNE)")
    return figure


def draw_map(axis, data, names, similarity):
    """Returns the height of the legend."""
    matrix, speaker, unseen = map(np.asarray, data)
    if len(speaker) > MOST_DOTS:
        rows = np.random.default_rng(0).permutation(len(speaker))[:MOST_DOTS]
        matrix = matrix[np.ix_(rows, rows)]
        speaker, unseen = speaker[rows], unseen[rows]
    distance = (matrix + matrix.T) / 2
    if similarity:
        apart = ~np.eye(len(distance), dtype=bool)
        distance = np.maximum(distance[apart].max() - distance, 0)
    np.fill_diagonal(distance, 0)
    place = TSNE(
        metric="precomputed",
        init="random",
        perplexity=min(30, max(1, (len(distance) - 1) / 4)),
        random_state=0,
    ).fit_transform(distance)
    ids = [*np.unique(speaker[~unseen]), *np.unique(speaker[unseen])]
    handles = []
    for color, one in zip(colors(len(ids)), ids, strict=True):
        strange = bool(unseen[speaker == one][0])
        handles.append(
            axis.scatter(
                *place[speaker == one].T,
                s=30 if strange else 14,
                color=color,
                marker="^" if strange else "o",
                edgecolor="black" if strange else "white",
                linewidth=0.5 if strange else 0.3,
                zorder=2 if strange else 1,
            )
        )
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return name_legend(axis, handles, [names[one] for one in ids])


def root(x):
    """The square root; 0 below 0, where axes end before their limits are."""
    return np.sqrt(np.maximum(x, 0))


def training_curves(histories):
    """The loss, and the error rates or the accuracy on validation pairs."""
    kinds = [("Loss", {"loss": ("", "-")})]
    for words, keys in [
        ("Error rates on the validation pairs", RATES),
        ("Accuracy on the validation pairs", ACCURACIES),
    ]:
        if any(key in one for one in histories.values() for key in keys):
            kinds.append((words, keys))
    figure, axes = panels(len(kinds), len(kinds), 5, 4)
    for axis, (words, keys) in zip(axes, kinds, strict=True):
        axis.set(title=words, xlabel="epoch")
        for color, (mode, history) in zip(
            colors(len(histories)), histories.items(), strict=True
        ):
            last = len(history["loss"])
            for key in [key for key in keys if key in history]:
                values = history[key]
                label, line = keys[key]
                axis.plot(
                    np.linspace(last / len(values), last, len(values)),
                    values,
                    color=color,
                    linestyle=line,
                    marker="." if last <= 12 else None,
                    label=", ".join(filter(None, [mode, label])),
                )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if keys is RATES:
            # Small rates are told apart as large ones are, and 0 is there.
            axis.set_yscale("function", functions=(root, np.square))
            ticks = [0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1]
            axis.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
            most = max(line.get_ydata().max() for line in axis.lines)
            axis.set_ylim(0, min(1, 1.1 * most) or 1)
        elif keys is ACCURACIES:
            axis.set_ylim(0, 1.05)
            axis.yaxis.set_major_formatter(PERCENT)
        else:
            axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        axis.grid(color="#eeeeee")
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.15),
            ncols=min(3, len(axis.lines)),
            fontsize=8.5,
        )
    return figure


def dendrogram(tree, top, label, names, threshold):
    """Which recordings are alike: the right ends join where they are.

    Args:
        tree: Of `scipy.cluster.hierarchy`, its heights `top` - score.
        top: The score at height 0.
        label: The voice of each recording.
        names: The name of each recording.
        threshold: The score from which on it is one voice.
    """
    count = len(names)
    named = count <= MOST_NAMES
    height = 1.4 + 0.19 * count if named else 9.0
    figure, axis = plt.subplots(figsize=(8, height), layout="constrained")
    voice = list(label)
    for a, b in tree[:, :2].astype(int):
        voice.append(voice[a] if voice[a] == voice[b] else -1)
    palette = [*map(mpl.colors.to_hex, colors(max(label) + 1)), "#999999"]
    # All begins a bit farther right, so that leaves have some length.
    room = 0.03 * max(float(tree[-1, 2]), 1e-9)
    tree, top = tree + room * np.array([0, 0, 1, 0]), top + room
    lowest = top - tree[-1, 2] - room
    leaves = hierarchy.dendrogram(
        tree,
        ax=axis,
        orientation="left",
        link_color_func=lambda node: palette[voice[node]],
        no_labels=not named,
        truncate_mode="lastp" if count > MOST_LEAVES else None,
        p=MOST_LEAVES,
        show_leaf_counts=False,
    )["leaves"]
    if named:
        axis.set_yticks(
            axis.get_yticks(),
            [left_to_right(short(names[row], 48)) for row in leaves],
            parse_math=False,
            size=8,
        )
        for text, row in zip(axis.get_yticklabels(), leaves, strict=True):
            text.set_color(palette[voice[row]])
    # The axis is of heights; what is read is scores.
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(lowest, top)
    ticks = ticks[(ticks >= lowest) & (ticks <= top)]
    axis.set_xlim(top - lowest, 0)
    axis.set_xticks(top - ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xlabel("mean score of the two groups that join")
    draw_threshold(axis, threshold, lowest, top, lambda score: top - score)
    axis.legend(
        loc="upper right", bbox_to_anchor=(1, -0.6 / height), fontsize=8.5
    )
    voices = f"{count} recordings, {max(label) + 1} voices"
    if count > MOST_LEAVES:
        voices += f": the last {MOST_LEAVES} groups"
    elif not named:
        voices += ", too many to name"
    axis.set_title(voices)
    axis.spines["left"].set_visible(False)
    return figure


def colors(count):
    """So many colors, neighbors of different hue or lightness."""
    if count <= 10:
        return plt.get_cmap("tab10")(np.arange(count))
    hue = np.arange(count) / count
    light = np.array([0.36, 0.5, 0.66])[np.arange(count) % 3]
    rgb = np.array(
        [
            colorsys.hls_to_rgb(h, x, 0.8)
            for h, x in zip(hue, light, strict=True)
        ]
    )
    # Yellow is bright at any lightness, and hard to see on white.
    bright = rgb @ [0.3, 0.59, 0.11]
    return rgb * np.minimum(1, 0.68 / bright)[:, None]
