"""The example's figures are what it says they are."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import english  # noqa: E402
import word_window  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend. PyTorch takes several times as long.
pytestmark = only_on("jax", "examples are tested on one backend")


def test_a_window_is_the_words_around_a_known_one():
    ids = np.array([5, 6, english.UNKNOWN, 7, 8, 9], "int32")
    x, y = word_window.windows(ids, np.random.default_rng(0))
    assert y.tolist() == [7]
    assert x.tolist() == [[6, english.UNKNOWN, 8, 9]]


def test_no_more_windows_than_asked_for_and_none_twice():
    ids = np.arange(1, 101, dtype="int32")
    x, y = word_window.windows(ids, np.random.default_rng(0), most=20)
    assert len(x) == len(set(y.tolist())) == 20
    np.testing.assert_array_equal(x, y[:, None] + [-2, -1, 1, 2])


def test_the_distance_is_measured_in_the_length_of_the_vectors():
    before = np.array([[2.0, 0.0], [0.0, 4.0]])
    after = np.array([[2.0, 1.0], [0.0, 4.0]])
    assert word_window.moved(before, after) == pytest.approx(0.25)


def test_the_unigram_perplexity_is_that_of_the_frequencies():
    train = np.array([1, 1, 1, 2])
    counts = np.array([0.1, 3.0, 1.0])
    share = counts / counts.sum()
    expected = np.exp(-np.mean(np.log(share[[1, 2]])))
    result = word_window.unigram(train, np.array([1, 2]), 3)
    assert result == pytest.approx(expected)


def test_neighbors_point_the_same_way():
    vocabulary = english.Vocabulary({"": "a a a a b b b c c d"}, 9)
    vectors = np.zeros((len(vocabulary), 2))
    for word, vector in {
        "a": [1, 0],
        " a": [0.9, 0.1],
        " b": [0, 1],
        " c": [-1, 0.1],
        " d": [0.1, 1],
    }.items():
        vectors[vocabulary.ids[word]] = vector
    vectors[english.UNKNOWN] = [1, 1]
    assert word_window.neighbors(vectors, vocabulary, " b", 1) == ["d"]


def test_of_the_usual_words_those_that_the_text_has_are_shown():
    vocabulary = english.Vocabulary({"": "the file is the file"}, 9)
    assert word_window.words_to_show(None, vocabulary) == ["file", "is"]
    assert word_window.words_to_show("is , the", vocabulary) == ["is", "the"]


def test_a_word_that_is_too_rare_is_named(monkeypatch):
    monkeypatch.setattr(word_window, "FREQUENT", 3)
    vocabulary = english.Vocabulary({"": " a a a b b c"}, 9)
    assert word_window.words_to_show("a,b", vocabulary) == ["a", "b"]
    with pytest.raises(english.TextError, match=r"the 2 most.*: 'c', 'd'\."):
        word_window.words_to_show("a,c,d", vocabulary)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampled", "500", "--small"], "--sampled must be below"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--text", "no such file"], "cannot read"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--naive", "--words", "file"], "--naive does no more"),
        (
            ["--small", "--words", "the, Whale,is,"],
            "words of the text: 'Whale', ''.",
        ),
    ],
)
def test_wrong_options_are_said_in_a_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        word_window.main(arguments)
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


def test_every_loss_beats_the_frequencies_and_moves_the_vectors(capsys):
    word_window.main(["--small"])
    said = capsys.readouterr().out
    baseline = float(re.search(r"alone: perplexity ([\d.]+)", said)[1])
    rows = re.findall(r"^(\w+) +[\d.]+ +([\d.]+) +([\d.]+)$", said, re.M)
    assert [name for name, *_ in rows] == list(word_window.LOSSES)
    for _, perplexity, moved in rows:
        assert float(perplexity) < baseline
        assert float(moved) > 0.1


def test_the_naive_loss_does_not_learn_and_the_mended_one_does(capsys):
    word_window.main(["--small", "--naive"])
    said = capsys.readouterr().out
    rows = re.findall(
        r"^(.+?) +(nan|[\d.]+) +(inf|[\d.]+) +(nan|[\d.]+)$", said, re.M
    )
    figures = {text: tuple(map(float, rest)) for text, *rest in rows}
    zeros = [
        figures[text]
        for text in ("as written", "the mean, not the sum, of the batch")
    ]
    mended = figures["the cross-entropy from logits"]
    for loss, _, moved in zeros:
        assert np.isnan(loss) or moved == 0  # the vectors have not moved
        assert np.isnan(loss) or mended[0] < loss
    assert mended[2] > 0.1
