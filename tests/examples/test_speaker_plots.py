"""What the pictures of the speaker example show."""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from scipy.cluster import hierarchy

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import speaker_names  # noqa: E402
import speaker_plots  # noqa: E402
import speaker_scores  # noqa: E402

# NumPy and Matplotlib: the same on every backend.
pytestmark = [
    only_on("torch", "examples are tested on one backend"),
    pytest.mark.filterwarnings("error::UserWarning"),
]


@pytest.fixture(autouse=True)
def _close():
    yield
    mpl.pyplot.close("all")


def cosines(speakers=5, each=8, spread=0.4, seed=0):
    """Scores of utterances, and who spoke them."""
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(speakers), each)
    x = rng.normal(size=(speakers, 16))[speaker]
    x = x + spread * rng.normal(size=x.shape)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T, speaker


def result(
    mode="batch", group="seen", threshold=0.7, similarity=True, **kwargs
):
    score, speaker = cosines(**kwargs)
    matrix = score if similarity else 4 * (1 - score) ** 2
    return speaker_scores.Result(
        mode, group, 0, matrix, speaker, threshold, similarity=similarity
    )


def histories(*keys):
    values = [0.5, 0.3, 0.2]
    return {"batch": dict.fromkeys(("loss", *keys), values)}


# Scores in place of distances


def test_scores_give_the_figures_of_distances():
    score, speaker = cosines(spread=0.9)
    a = speaker_scores.Result(
        "batch", "seen", 0, score, speaker, 0.5, similarity=True
    )
    b = speaker_scores.Result(
        "batch", "seen", 0, 1 - score, speaker, 0.5, similarity=False
    )
    assert a.equal_error == pytest.approx(b.equal_error, abs=0.01)
    assert a.min_cost == pytest.approx(b.min_cost, abs=0.01)
    assert 0 < a.equal_error < 0.5
    for name in ("accuracy", "misclassified", "rand", "information"):
        assert getattr(a, name) == getattr(b, name)


def test_a_score_at_the_threshold_is_a_match():
    score = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    found = speaker_scores.Result(
        "batch", "seen", 0, score, np.array([0, 0, 1]), 0.5, similarity=True
    )
    assert found.accuracy == 1


# Histograms


def bars(axis):
    """The heights of the bars of both kinds of pairs."""
    same, different = axis.containers
    return [
        np.array([bar.get_height() for bar in kind])
        for kind in (same, different)
    ]


@pytest.mark.parametrize(
    ("similarity", "scale"), [(True, "linear"), (False, "log")]
)
def test_a_histogram_is_of_nearly_all_pairs(similarity, scale):
    figure = speaker_plots.score_histograms([result(similarity=similarity)])
    (axis,) = figure.axes
    assert axis.get_xscale() == scale
    for heights in bars(axis):
        assert 0.98 <= heights.sum() <= 1 + 1e-9


def test_equal_utterances_do_not_pile_up_in_the_first_bin():
    score, speaker = cosines()
    distance = np.maximum(0.8 - score, 0) ** 2
    match, values = speaker_scores.every_pair(distance, speaker)
    zero = np.mean(values[match] == 0)
    assert 0.1 < zero < 0.9
    one = speaker_scores.Result("batch", "seen", 0, distance, speaker, 0.1)
    (axis,) = speaker_plots.score_histograms([one]).axes
    assert bars(axis)[0][0] < 0.1
    assert bars(axis)[0].sum() == pytest.approx(1 - zero, abs=0.02)
    (note,) = [text.get_text() for text in axis.texts if text.get_text()]
    arrow, share, words = note.split(maxsplit=2)
    assert (arrow, words) == ("←", "% (same speaker)")
    assert float(share) == pytest.approx(100 * zero, abs=1)


def test_a_few_distances_near_0_do_not_stretch_the_axis():
    match = np.arange(1000) % 2 == 0
    distance = np.linspace(1, 2, 1000)
    distance[:100] = 1e-12
    low, high = speaker_plots.view(match, distance, log=True)
    assert low > 1e-5
    assert high == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("similarity", [True, False])
@pytest.mark.parametrize(
    ("threshold", "edge"), [(0.7, None), (-5.0, 0), (99.0, 1)]
)
def test_a_threshold_outside_is_pointed_at(similarity, threshold, edge):
    one = result(similarity=similarity, threshold=threshold)
    (axis,) = speaker_plots.score_histograms([one]).axes
    (line,) = axis.lines
    pointers = [
        text for text in axis.texts if isinstance(text, mpl.text.Annotation)
    ]
    if edge is None:
        assert line.get_xdata()[0] == threshold
        assert not pointers
    else:
        assert line.get_xdata()[0] == pytest.approx(axis.get_xlim()[edge])
        (pointer,) = pointers
        assert pointer.xy[0] == edge
        assert pointer.get_text() == f"threshold {threshold:.3g}"


# Trade-offs


def test_the_baseline_is_gray_and_dashed():
    results = [
        result(mode, group, spread=spread)
        for mode, spread in [("batch", 0.9), ("baseline", 1.2)]
        for group in ("seen", "unseen")
    ]
    (axis,) = speaker_plots.det_curves(results).axes
    lines = {
        line.get_label().split(":")[0]: line
        for line in axis.lines
        if "EER" in line.get_label()
    }
    assert list(lines) == [
        f"{mode}, 5 {group} speakers"
        for mode in ("batch", "baseline")
        for group in ("seen", "unseen")
    ]
    for label, line in lines.items():
        red, green, blue = mpl.colors.to_rgb(line.get_color())
        gray = red == green == blue
        dashed = line.get_linestyle() == "--"
        assert (gray, dashed) == (("baseline" in label),) * 2
    colors = {mpl.colors.to_hex(line.get_color()) for line in lines.values()}
    assert len(colors) == 4


# Maps


def joint_axis(speakers=6, unseen=2, names=None):
    score, speaker = cosines(speakers)
    names = names or [f"name {number}" for number in range(speakers)]
    figure = speaker_plots.joint_maps(
        {"batch": (score, speaker, speaker >= speakers - unseen)},
        names,
        similarity=True,
    )
    figure.canvas.draw()
    return figure.axes[0]


def test_unseen_speakers_have_another_mark_in_the_same_map():
    axis = joint_axis()
    dots = axis.collections
    assert [len(one.get_offsets()) for one in dots] == [8] * 6
    corners = [len(one.get_paths()[0].vertices) for one in dots]
    assert corners[:4] == [corners[0]] * 4
    assert corners[4:] == [corners[4]] * 2
    assert corners[0] != corners[4]
    assert "4 seen speakers (●) and 2 unseen (▲)" in axis.get_title()
    colors = {mpl.colors.to_hex(one.get_facecolor()[0]) for one in dots}
    assert len(colors) == 6


def test_alike_utterances_are_near_in_the_map():
    axis = joint_axis()
    places = np.concatenate([one.get_offsets() for one in axis.collections])
    speaker = np.repeat(np.arange(6), 8)
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert np.mean(speaker[distance.argmin(axis=1)] == speaker) > 0.9


@pytest.mark.parametrize("speakers", [3, 24, 60])
def test_the_legend_names_many_speakers(speakers):
    axis = joint_axis(speakers)
    figure = axis.get_figure()
    texts = axis.get_legend().get_texts()
    assert [text.get_text() for text in texts] == [
        f"name {number}" for number in range(speakers)
    ]
    # Within the figure, and no two in one place.
    boxes = [text.get_window_extent() for text in texts]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width
    assert min(box.y0 for box in boxes) >= 0
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[number + 1 :]) == 0
    # There is still a map.
    assert axis.get_window_extent().height > 0.7 * figure.bbox.width


def test_too_many_speakers_are_counted():
    axis = joint_axis(61)
    assert axis.get_legend() is None
    assert axis.get_xlabel() == "61 speakers, too many to name"


def test_names_are_written_as_they_are():
    names = ["_first", "$a_1$", "x" * 50, "b", "c", "d"]
    texts = joint_axis(names=names).get_legend().get_texts()
    shown = [text.get_text() for text in texts]
    assert shown[:2] == names[:2]
    assert shown[2] == "x" * 13 + "…" + "x" * 14
    assert not any(text.get_parse_math() for text in texts)


def test_a_map_of_very_many_utterances_shows_some(monkeypatch):
    monkeypatch.setattr(speaker_plots, "MOST_DOTS", 20)
    axis = joint_axis()
    assert sum(len(one.get_offsets()) for one in axis.collections) == 20


# Fonts


def test_letters_that_no_font_has_are_escaped(monkeypatch):
    monkeypatch.setattr(speaker_names, "installed", lambda: [])
    fonts, names = speaker_names.readable(
        ["Zoë", "Аня", "山田 x", "a\nb", "\udcff", "Zoe\u0308"]
    )
    assert fonts == ["DejaVu Sans"]
    assert names == [
        *("Zoë", "Аня", "#U5c71#U7530 x", "a#U000ab", "#Udcff", "Zoë")
    ]


def test_a_glyph_for_a_line_feed_is_none(monkeypatch):
    class Font:
        def get_charmap(self):
            return {10: 1, 97: 2, 0xE000: 3}

    monkeypatch.setattr(font_manager, "get_font", lambda path: Font())
    assert speaker_names.letters("a path of no font") == {"a"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_font_that_has_the_letters_is_found(monkeypatch, order):
    """One that comes with Matplotlib has letters that DejaVu Sans lacks.

    Its bold face lacks some of them, and may come first in the list of fonts.
    """
    fonts = font_manager.fontManager.ttflist[::order]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    has = {
        name: speaker_names.letters(
            font_manager.findfont(name, fallback_to_default=False)
        )
        for name in ("DejaVu Sans", "STIXGeneral")
    }
    lacking = sorted(has["STIXGeneral"] - has["DejaVu Sans"])
    assert lacking
    fonts, names = speaker_names.readable([lacking[0], "a"])
    assert names == [lacking[0], "a"]
    assert len(fonts) == 2


@pytest.mark.parametrize("name", ["山田太郎", "Аня", "علی", "नमस्ते", "a\tb"])
def test_no_name_is_drawn_as_boxes(name, tmp_path):
    # A missing glyph is a warning, and so an error here.
    with speaker_names.drawing([name] * 3) as names:
        score, speaker = cosines(3)
        figure = speaker_plots.joint_maps(
            {"batch": (score, speaker, speaker > 1)}, names, similarity=True
        )
        speaker_plots.write(figure, tmp_path / "x.png")


# Training


def test_error_rates_are_drawn_where_there_are_some():
    keys = [
        *("val_equal_error_rate", "val_false_match_rate"),
        *("val_false_non_match_rate", "val_match_accuracy"),
    ]
    figure = speaker_plots.training_curves(histories(*keys[:3]))
    assert [axis.get_title() for axis in figure.axes] == [
        *("Loss", "Error rates on the validation pairs")
    ]
    lines = figure.axes[1].lines
    assert len(lines) == 3
    assert len({line.get_linestyle() for line in lines}) == 3
    for line in lines:
        assert line.get_xydata().tolist() == [[1, 0.5], [2, 0.3], [3, 0.2]]


@pytest.mark.parametrize("key", ["val_match_accuracy", "val_accuracy"])
def test_older_histories_are_drawn_too(key):
    figure = speaker_plots.training_curves(histories(key))
    assert [axis.get_title() for axis in figure.axes] == [
        *("Loss", "Accuracy on the validation pairs")
    ]
    assert len(figure.axes[1].lines) == 1


def test_rates_and_accuracies_have_an_axis_each():
    both = histories("val_equal_error_rate")
    both["naive"] = histories("val_accuracy")["batch"]
    figure = speaker_plots.training_curves(both)
    assert [len(axis.lines) for axis in figure.axes] == [2, 1, 1]
    figure = speaker_plots.training_curves(histories())
    assert len(figure.axes) == 1


# Dendrograms


def tree_of(count, seed=0):
    score, _ = cosines(1, count, spread=1.0, seed=seed)
    pairs = score[np.triu_indices(count, k=1)]
    tree = hierarchy.average(pairs.max() - pairs)
    label = hierarchy.cut_tree(tree, n_clusters=min(3, count))[:, 0]
    return tree, pairs.max(), label


def test_a_dendrogram_names_its_leaves():
    tree, top, label = tree_of(60)
    names = [f"$folder$/{number}.wav" for number in range(60)]
    figure = speaker_plots.dendrogram(tree, top, label, names, 0.3)
    figure.canvas.draw()
    (axis,) = figure.axes
    texts = axis.get_yticklabels()
    order = hierarchy.leaves_list(tree)
    shown = [text.get_text().lstrip("\u200e") for text in texts]
    assert shown == [names[row] for row in order]
    colors = [mpl.colors.to_hex(text.get_color()) for text in texts]
    assert len(set(zip(colors, label[order], strict=True))) == 3
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[number + 1 :]) == 0
    # The axis says scores: the line of the threshold is at its tick.
    ticks = [
        float(text.get_text().replace("−", "-"))
        for text in axis.get_xticklabels()
    ]
    (line,) = [x for x in axis.lines if x.get_label() == "threshold 0.3"]
    assert np.interp(0.3, ticks, axis.get_xticks()) == pytest.approx(
        line.get_xdata()[0]
    )


@pytest.mark.parametrize(
    ("count", "words"), [(61, "too many to name"), (700, "the last 300 groups")]
)
def test_a_large_dendrogram_has_no_names(count, words):
    tree, top, label = tree_of(count)
    names = [f"{number}.wav" for number in range(count)]
    figure = speaker_plots.dendrogram(tree, top, label, names, 0.3)
    figure.canvas.draw()
    (axis,) = figure.axes
    assert not any(text.get_text() for text in axis.get_yticklabels())
    assert words in axis.get_title()


def test_a_voice_that_grows_by_one_recording_after_the_other_is_drawn():
    """SciPy draws a tree by recursion, which has an end."""
    count = 2000
    step = np.arange(count - 1)
    tree = np.stack(
        [np.where(step, count + step - 1, 0), step + 1, step, step + 2], axis=1
    ).astype(float)
    label = np.zeros(count, int)
    figure = speaker_plots.dendrogram(tree, 3000.0, label, ["x"] * count, 3.0)
    assert figure.axes[0].get_title().startswith("2000 recordings, 1 voices")


def test_recordings_that_are_all_alike_have_a_dendrogram(tmp_path):
    tree = hierarchy.average(np.zeros(6))
    path = tmp_path / "x.png"
    names = ["a", "b", "c", "d"]
    speaker_plots.save_dendrogram(path, tree, 9.0, np.zeros(4, int), names, 3.0)
    assert path.exists()


# All


@pytest.mark.parametrize("similarity", [True, False])
@pytest.mark.parametrize("joint", [True, False])
def test_all_pictures_are_written(tmp_path, similarity, joint):
    results = [
        result(mode, group, similarity=similarity)
        for mode in ("batch", "baseline")
        for group in ("seen", "unseen")
    ]
    matrix, speaker = results[0].score, results[0].speaker
    speaker_plots.save(
        tmp_path,
        results,
        histories("val_equal_error_rate"),
        list("abcde"),
        joint={"batch": (matrix, speaker, speaker > 3)} if joint else None,
    )
    names = {"scores.png", "det.png", "embeddings.png", "training.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert min(path.stat().st_size for path in tmp_path.iterdir()) > 5000
