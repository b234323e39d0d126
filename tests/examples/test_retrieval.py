"""Classes are made of classes, and what is found is said and drawn."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import retrieval  # noqa: E402

numpy_only = only_on("torch", "NumPy alone")


@numpy_only
def test_what_is_searched_was_never_trained_on():
    (images, digits), (gallery, ids) = retrieval.split()
    assert set(digits) == {0, 1, 2, 3, 4}
    assert set(ids) == {5, 6, 7, 8, 9}
    assert len(images) + len(gallery) == 1797
    assert (images.min(), images.max()) == (0, 1)


def one_of_each():
    """Five images of digits that are not alike, however they are turned."""
    images = np.random.default_rng(0).random((5, 8, 8), "float32")
    return images, np.arange(5)


@numpy_only
def test_a_turned_or_mirrored_digit_is_another():
    images, digits = one_of_each()
    rng = np.random.default_rng(0)
    x, ids = retrieval.make_classes(images, digits, 0, rng)
    assert ids.tolist() == 3 * list(range(20))
    assert x.dtype == np.float32
    expected = []
    for image, (turns, mirrors) in zip(
        images, retrieval.SEEN.values(), strict=True
    ):
        for start in (image, np.fliplr(image))[:mirrors]:
            expected += [np.rot90(start, k) for k in range(turns)]
    np.testing.assert_array_equal(x[:20], expected)
    # What follows are two copies with small changes.
    for copy in (x[20:40], x[40:]):
        assert (np.abs(copy - x[:20]).mean(axis=(1, 2)) > 0.01).all()
    assert not np.array_equal(x[20:40], x[40:])


@numpy_only
def test_a_class_is_made_of_the_halves_of_two(monkeypatch):
    monkeypatch.setattr(retrieval, "EACH", 7)
    rng = np.random.default_rng(0)
    x, ids = retrieval.make_classes(*one_of_each(), 6, rng)
    count = 20 + 6 * 7
    assert np.bincount(ids[:count]).tolist() == [1] * 20 + [7] * 6
    np.testing.assert_array_equal(ids, np.tile(ids[:count], 3))
    pairs = set()
    for k in range(20, 26):
        for image in x[:count][ids[:count] == k]:
            (upper,) = np.flatnonzero((x[:20, :4] == image[:4]).all((1, 2)))
            (lower,) = np.flatnonzero((x[:20, 4:] == image[4:]).all((1, 2)))
            assert upper != lower
            pairs.add((k, upper, lower))
    assert len(pairs) == 6  # one pair for each class


class Fixed:
    """A generator whose numbers are known."""

    def __init__(self, change, shift):
        self.numbers = [change, shift]

    def normal(self, mean, deviation, shape):
        number = np.reshape(self.numbers.pop(0), (1, 2, -1))
        return np.broadcast_to(number.reshape(1, *shape[1:]), shape)


@numpy_only
def test_what_a_change_does():
    images, _ = one_of_each()
    nothing = np.zeros((2, 2))
    found = retrieval.changed(images, Fixed(nothing, [0, 0]))
    np.testing.assert_allclose(found, images, atol=1e-6)
    found = retrieval.changed(images, Fixed(nothing, [1, -2]))
    moved = np.zeros_like(images)
    moved[:, :-1, 2:] = images[:, 1:, :-2]
    np.testing.assert_allclose(found, moved, atol=1e-6)
    quarter = np.array([[0, 1], [-1, 0]]) - np.eye(2)
    found = retrieval.changed(images, Fixed(quarter, [0, 0]))
    turned = np.rot90(images, 1, axes=(1, 2))
    np.testing.assert_allclose(found, turned, atol=1e-6)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "symmetric_kl"])
def test_the_nearest_are_found_by_their_distance(distance):
    x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    if distance == "cosine":
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        far = -unit @ unit.T
    elif distance == "euclidean":
        far = np.linalg.norm(x[:, None] - x, axis=-1)
    else:
        p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
        gap = np.log(p)[:, None] - np.log(p)
        far = ((p[:, None] - p) * gap).sum(axis=-1)
    expected = [
        [j for j in np.argsort(row) if j != i][: retrieval.FOUND]
        for i, row in enumerate(far)
    ]
    np.testing.assert_array_equal(retrieval.nearest(x, distance), expected)


def table(printed):
    """Recall@1 in percent and MAP@R by name."""
    rows = re.findall(r"^(\S.*?) +([\d.]+) % +([\d.]+)", printed, re.M)
    return {name: (float(a), float(b)) for name, a, b in rows}


def test_losses_are_trained_searched_and_drawn(tmp_path, capsys):
    names = ["ArcFace", "SupCon"]
    options = ["--small", "--plots", str(tmp_path)]
    retrieval.main([*options, "--only", *names])
    printed = capsys.readouterr().out
    found = table(printed)
    assert list(found) == ["raw pixels", *names]
    assert found["raw pixels"] == (99.1, 0.606)
    assert min(found[name][0] for name in names) > 90
    assert "does not beat the raw pixels: MAP@R" in printed
    for name in ("embeddings", "found"):
        assert (tmp_path / f"retrieval_{name}.png").stat().st_size > 10_000


@only_on("torch", "all are tested on every backend")
def test_every_loss_is_in_the_table(capsys):
    options = ["--small", "--steps", "2", "--made", "0"]
    retrieval.main(options)
    assert list(table(capsys.readouterr().out)) == [
        "raw pixels",
        *retrieval.NAMES,
    ]


@only_on("torch", "says the same on each backend")
def test_the_digits_as_they_are_are_five_classes(monkeypatch, capsys):
    seen = []

    def train(name, images, ids, steps, seed):
        seen.append((images.shape, np.unique(ids).tolist()))
        return retrieval.tower(), "cosine"

    monkeypatch.setattr(retrieval, "train", train)
    retrieval.main(["--small", "--only", "SupCon", "--plain"])
    assert seen == [((901, 8, 8), [0, 1, 2, 3, 4])]


class Found(NamedTuple):
    precision_at_1: float
    map_at_r: float


@numpy_only
def test_of_several_seeds_there_is_the_mean_and_the_spread(capsys):
    results = [Found(0.9, 0.5), Found(1.0, 0.3), Found(0.8, 0.7)]
    assert retrieval.show("SupCon", results) == [0.5, 0.3, 0.7]
    row = capsys.readouterr().out
    assert table(row) == {"SupCon": (90, 0.5)}
    assert row.endswith("MAP@R 0.300 to 0.700\n")


@numpy_only
@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (0.7, "B, beats the raw pixels: MAP@R 0.700 against 0.600"),
        (0.5, "B, does not beat the raw pixels: MAP@R 0.500 against 0.600"),
    ],
)
def test_it_says_whether_training_has_paid(ours, words):
    found = {"raw pixels": [0.6], "A": [0.4, 0.4], "B": [ours, ours]}
    assert words in retrieval.verdict(found)


@numpy_only
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "FaceNet"], "--only: invalid choice: 'FaceNet'"),
        (["--steps", "0"], "--steps: must be at least 1"),
        (["--made", "-1"], "--made: must be at least 0"),
        (["--seeds", "0"], "--seeds: must be at least 1"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--plots", __file__], "--plots: cannot write"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        retrieval.main(arguments)
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
