"""Pairs of segments are what their flags say, each time other ones."""

import sys
from pathlib import Path

import keras
import numpy as np

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import speaker_pairs  # noqa: E402
import speech  # noqa: E402

pytestmark = only_on("torch", "examples are tested on one backend")


def tiny_data(count=11, speakers=3):
    speaker = np.arange(count) % speakers
    segments = np.random.default_rng(0).normal(size=(count, 4, 2))
    return speech.Utterances(
        segments.astype("float32"), np.arange(count), speaker
    )


def test_rows_come_shuffled_with_their_speakers():
    data = tiny_data()
    rows = speaker_pairs.Rows(data, 4, seed=0)
    assert len(rows) == 2
    seen = []
    for index in range(2):
        segments, speaker = rows[index]
        where = [
            int(np.flatnonzero((data.segments == one).all(axis=(1, 2)))[0])
            for one in segments
        ]
        assert data.speaker[where].tolist() == speaker.tolist()
        seen += where
    assert len(set(seen)) == 8
    rows.on_epoch_end()
    again = [rows[index][1].tolist() for index in range(2)]
    rows.on_epoch_end()
    assert again != [rows[index][1].tolist() for index in range(2)]
    assert len(speaker_pairs.Rows(data, 99, seed=0)) == 1


def test_speakers_are_numbered_from_0():
    data = tiny_data(count=9)
    data.speaker = np.array([2, 7, 40])[data.speaker]
    rows = speaker_pairs.Rows(data, 9, seed=0)
    segments, speaker = rows[0]
    assert rows.speaker_count == 3
    for one, number in zip(segments, speaker, strict=True):
        where = (data.segments == one).all(axis=(1, 2))
        assert data.speaker[where] == [[2, 7, 40][number]]


def test_half_of_the_pairs_match():
    data = tiny_data(count=12)
    pairs = speaker_pairs.Pairs(data, 12, seed=0)
    for _ in range(3):
        (a, b), match = pairs[0]
        assert match.shape == (12, 1)
        assert match.sum() == 6
        for one, other, flag in zip(a, b, match, strict=True):
            first, second = (
                int(np.flatnonzero((data.segments == x).all(axis=(1, 2)))[0])
                for x in (one, other)
            )
            assert first != second
            assert (data.speaker[first] == data.speaker[second]) == flag
        before = pairs.partner.copy()
        pairs.on_epoch_end()
        assert not np.array_equal(before, pairs.partner)


def test_the_naive_distance_is_clipped_and_one_way():
    p, q = np.array([[1.0, 0.0], [0.3, 0.7]]), np.array([[0.0, 1.0]] * 2)
    found = keras.ops.convert_to_numpy(
        speaker_pairs.naive_distance(p.astype("float32"), q.astype("float32"))
    )
    p, q = np.clip(p, 1e-7, 1), np.clip(q, 1e-7, 1)
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(1), rtol=1e-4)
    match, distance = np.array([[1.0], [0.0]]), np.array([[0.2], [0.4]])
    hinge = speaker_pairs.naive_hinge(
        keras.ops.convert_to_tensor(match, "float32"),
        keras.ops.convert_to_tensor(distance, "float32"),
    )
    hinge = keras.ops.convert_to_numpy(hinge)
    np.testing.assert_allclose(hinge, [0.2, 0.6], rtol=1e-6)
