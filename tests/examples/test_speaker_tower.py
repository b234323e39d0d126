"""Zeros count for nothing, and batches are what training needs."""

import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.testing import BACKEND, gradient, normal, only_on, quick, to_numpy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import speaker_tower  # noqa: E402
import speech  # noqa: E402

numpy_only = only_on("torch", "NumPy alone")

BANDS = 64
SMALL = dataclasses.replace(
    speaker_tower.RECIPES["log_mel"],
    steps=1,
    channels=8,
    embedding=8,
    size=4,
    crop=16,
    batch_size=12,
    epochs=2,
)


def voices(speakers=4, count=6, frames=24, seed=0, bands=BANDS):
    """Not speech: frames around a speaker's own mean, ends filled with zeros.

    Every utterance has one segment.
    """
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(speakers), count)
    means = np.random.default_rng(99).normal(0, 0.7, (speakers, 1, bands))
    x = means[speaker] + rng.normal(0, 1, (len(speaker), frames, bands))
    lengths = rng.integers(frames // 2, frames + 1, len(speaker))
    x[np.arange(frames) >= lengths[:, None]] = 0
    return speech.Utterances(
        x.astype("float32"), np.arange(len(speaker)), speaker
    )


def filled(x, frames=7):
    return np.pad(x, [(0, 0), (0, frames), (0, 0)])


def counting(x):
    """The frames of one segment that are not all zeros, in float64."""
    return x[x.any(axis=1)].astype("float64")


def test_each_band_is_centered_over_the_frames_that_count():
    x = voices().segments
    x[0, 3] = 0  # a pause
    x[1] = 0
    found = to_numpy(speaker_tower.CentreInTime()(x))
    for row, its in zip(found, x, strict=True):
        expected = np.zeros(its.shape)
        if its.any():
            frames = counting(its)
            expected[its.any(axis=1)] = frames - frames.mean(axis=0)
        np.testing.assert_allclose(row, expected, atol=1e-5)
    again = to_numpy(speaker_tower.CentreInTime()(filled(x)))
    np.testing.assert_allclose(again, filled(found), atol=1e-5)


def test_statistics_are_pooled_over_the_frames_that_count():
    frames = voices().segments
    frames[1] = 0
    x = np.random.default_rng(1).normal(3, 2, (*frames.shape[:2], 5))
    x = x.astype("float32")
    pool = speaker_tower.PoolStatistics()
    found = to_numpy(pool([x, frames]))
    for row, its, signs in zip(found, x, frames, strict=True):
        counted = its[signs.any(axis=1)].astype("float64")
        if not len(counted):
            counted = np.zeros((1, 5))
        deviation = np.sqrt(counted.var(axis=0) + speaker_tower.SMALL_VARIANCE)
        expected = np.concatenate([counted.mean(axis=0), deviation])
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
    # What convolutions make of the filling does not count.
    longer = np.pad(x, [(0, 0), (0, 7), (0, 0)], constant_values=9)
    again = to_numpy(pool([longer, filled(frames)]))
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-5)


def test_pooling_has_a_finite_gradient_where_nothing_varies():
    frames = np.ones((3, 6, 2), "float32")
    frames[1, 1:] = 0
    frames[2] = 0
    pool = speaker_tower.PoolStatistics()
    x = np.ones((3, 6, 4), "float32")
    grad, value = gradient(lambda x: pool([x, frames]), x)
    assert np.isfinite(value).all()
    assert np.isfinite(grad).all()
    assert grad[0].any()
    assert not grad[1, 1:].any()
    assert not grad[2].any()


def test_the_tower_does_not_hear_how_far_a_segment_is_filled_up():
    data = voices()
    x = data.segments
    keras.utils.set_random_seed(0)
    tower = speaker_tower.build_tower(data, SMALL)
    for layer in tower.layers:  # as after training, zeros are moved
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(normal(*layer.beta.shape))
    call = quick(lambda x: tower(x, training=False))
    found = to_numpy(call(x))
    assert found.shape == (len(data), SMALL.size)
    again = to_numpy(call(filled(x)))
    np.testing.assert_allclose(again, found, rtol=1e-3, atol=1e-4)


def test_the_scale_of_the_logits_is_fixed():
    x = keras.random.normal((500, 12), mean=3, stddev=40, seed=0)
    for scale in (3.0, 0.5):
        recipe = dataclasses.replace(SMALL, logit_scale=scale)
        inputs = keras.Input((12,))
        logits = speaker_tower.fingerprint(inputs, recipe)
        head = keras.Model(inputs, logits)
        found = to_numpy(head(x, training=True))
        np.testing.assert_allclose(found.std(axis=0), scale, rtol=1e-3)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    recipe = dataclasses.replace(SMALL, logit_scale=None)
    head = keras.Model(inputs, speaker_tower.fingerprint(inputs, recipe))
    kernel = head.layers[-1].kernel
    np.testing.assert_allclose(
        to_numpy(head(x, training=True)),
        to_numpy(x) @ to_numpy(kernel),
        rtol=1e-4,
        atol=1e-3,
    )


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(loss, marks=[pytest.mark.thorough] * (i > 0))
        for i, loss in enumerate(speaker_tower.LOSSES)
    ],
)
def test_training_lowers_the_loss(loss):
    recipe = dataclasses.replace(SMALL, loss=loss, epochs=30, masks=False)
    data = voices()
    keras.utils.set_random_seed(0)
    tower = speaker_tower.build_tower(data, recipe)
    batches = speaker_tower.SpeakerBatches([data], recipe, seed=0)
    objective = speaker_tower.LOSSES[loss](tower, recipe, 4)
    _, history = speaker_tower.train_tower(
        tower, objective, batches, recipe, []
    )
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    # So that it is saved without the loss.
    assert not tower.compiled


@pytest.mark.parametrize(
    ("loss", "width", "distance"),
    [
        ("symmetric_kl_hinge", SMALL.size, "symmetric_kl"),
        ("softmax", 5, "symmetric_kl"),
        ("aam_softmax", SMALL.embedding, "cosine"),
        ("angular_prototypical", SMALL.embedding, "cosine"),
        ("supcon", SMALL.embedding, "cosine"),
    ],
)
def test_what_a_loss_has_trained_is_compared(loss, width, distance):
    tower = speaker_tower.build_tower(voices(), SMALL)
    objective = speaker_tower.LOSSES[loss](tower, SMALL, 5)
    assert objective.compared.shape == (None, width)
    assert objective.distance == distance
    assert objective.similarity == (distance == "cosine")


@numpy_only
def test_the_learning_rate_rises_and_falls_to_nothing():
    recipe = dataclasses.replace(SMALL, warmup=0.25, epochs=10)
    rate = speaker_tower.schedule(range(4), recipe)
    found = [float(rate(step)) for step in range(41)]
    assert found[0] == 0
    assert found[10] == pytest.approx(recipe.learning_rate)
    assert found[40] == pytest.approx(0)
    assert np.all(np.diff(found[:11]) > 0)
    assert np.all(np.diff(found[10:]) < 0)
    recipe = dataclasses.replace(recipe, warmup=0.0)
    rate = speaker_tower.schedule(range(4), recipe)
    assert float(rate(0)) == pytest.approx(recipe.learning_rate)
    assert float(rate(40)) == pytest.approx(0)


@numpy_only
@pytest.mark.parametrize(
    "without",
    [{}, {"equalizer": 0.0}, {"background": False}, {"masks": False}],
)
def test_a_disturbed_segment_keeps_its_shape_and_its_zeros(without):
    recipe = dataclasses.replace(SMALL, **without)
    x = voices(frames=30).segments
    original = x.copy()
    found = speaker_tower.augment(x, 99, recipe, np.random.default_rng(0))
    assert (found.shape, found.dtype) == (x.shape, np.float32)
    np.testing.assert_array_equal(x, original)
    np.testing.assert_array_equal(found.any(axis=2), x.any(axis=2))
    assert np.isfinite(found).all()
    assert not np.array_equal(found, x)
    again = speaker_tower.augment(x, 99, recipe, np.random.default_rng(0))
    np.testing.assert_array_equal(again, found)
    other = speaker_tower.augment(x, 99, recipe, np.random.default_rng(1))
    assert not np.array_equal(other, found)


@numpy_only
def test_what_each_disturbance_does():
    x = voices(frames=30).segments
    there = x.any(axis=2)
    nothing = {"equalizer": 0.0, "background": False, "masks": False}

    def change(**given):
        recipe = dataclasses.replace(SMALL, **{**nothing, **given})
        rng = np.random.default_rng(0)
        return speaker_tower.augment(x, 99, recipe, rng) - x

    assert not change().any()
    # A microphone is the same in every frame.
    tone = change(equalizer=0.3)
    for row, its in zip(tone, there, strict=True):
        np.testing.assert_allclose(np.ptp(row[its], axis=0), 0, atol=1e-5)
    # Noise adds power, to about half of the segments.
    noise = change(background=True)
    assert noise.min() >= 0
    assert 0.2 < noise.any(axis=(1, 2)).mean() < 0.8
    # A mask is the segment's own level, in some bands or frames.
    masked = change(masks=True) + x
    for row, its, before in zip(masked, there, x, strict=True):
        level = before.sum() / (its.sum() * BANDS)
        covered = row[its] != before[its]
        np.testing.assert_allclose(
            row[its][covered], level, rtol=1e-4, atol=1e-6
        )
        bands, frames = covered.all(axis=0), covered.all(axis=1)
        np.testing.assert_array_equal(covered, bands | frames[:, None])
        assert bands.sum() <= 12
        assert frames.sum() <= 30 // 8


@numpy_only
def test_a_crop_stays_within_the_utterance():
    x = np.zeros((200, 50, 1), "float32")
    lengths = np.repeat([3, 16, 25, 50], 50)
    for row, length in zip(x, lengths, strict=True):
        row[:length, 0] = 1 + np.arange(length)
    found = speaker_tower.cropped(x, 16, np.random.default_rng(0))[..., 0]
    assert found.shape == (200, 16)
    starts = found[:, 0].astype(int) - 1
    for row, start, length in zip(found, starts, lengths, strict=True):
        expected = np.zeros(16)
        count = min(length, 16)
        expected[:count] = 1 + np.arange(start, start + count)
        np.testing.assert_array_equal(row, expected)
    # Every place is drawn, the last one included.
    assert set(starts[lengths == 25]) == set(range(10))
    assert set(starts[lengths <= 16]) == {0}
    assert starts.max() <= 34
    assert speaker_tower.cropped(x, 50, None) is x


@numpy_only
@pytest.mark.parametrize(
    ("size", "at_once", "of_each"), [(12, 4, 3), (16, 4, 4), (5, 2, 2)]
)
def test_every_batch_holds_some_segments_of_some_speakers(
    size, at_once, of_each
):
    nothing = {"equalizer": 0.0, "background": False, "masks": False}
    recipe = dataclasses.replace(SMALL, batch_size=size, crop=99, **nothing)
    data = voices(count=3)
    copy = voices(count=3, seed=1)  # of the same speakers
    batches = speaker_tower.SpeakerBatches([data, copy], recipe, seed=0)
    assert batches.speaker_count == 4
    assert (batches.at_once, batches.of_each) == (at_once, of_each)
    assert len(batches) == 24 // (at_once * of_each)
    every = np.concatenate([data.segments, copy.segments])
    whose = np.concatenate([data.speaker, copy.speaker])
    met = set()
    for _ in range(99):
        x, y = batches[0]
        assert x.shape == (at_once * of_each, *data.shape)
        rows = [
            int(np.flatnonzero((every == one).all(axis=(1, 2)))[0]) for one in x
        ]
        assert len(set(rows)) == len(rows)  # no segment twice
        np.testing.assert_array_equal(whose[rows], y)
        assert np.unique(y, return_counts=True)[1].tolist() == (
            [of_each] * at_once
        )
        met |= set(rows)
    assert met == set(range(24))


@numpy_only
@pytest.mark.parametrize(
    ("frames", "crop"), [(50, 90), (100, 90), (250, 150), (500, 200)]
)
def test_longer_segments_have_longer_crops_and_more_of_them(frames, crop):
    data = voices(count=6, frames=frames)
    recipe = dataclasses.replace(
        speaker_tower.RECIPES["log_mel"], steps=1, batch_size=8
    )
    batches = speaker_tower.SpeakerBatches([data], recipe, seed=0)
    assert batches[0][0].shape == (8, min(crop, frames), BANDS)
    assert len(batches) == int(24 * max(1, frames / crop)) // 8
    often = dataclasses.replace(recipe, steps=99)
    assert len(speaker_tower.SpeakerBatches([data], often, seed=0)) == 99


@numpy_only
def test_copies_are_other_speakers_and_few_segments_come_twice():
    data = voices(speakers=3, count=2)
    copy = voices(speakers=3, count=2, seed=1)
    copy.speaker = copy.speaker + 30
    recipe = dataclasses.replace(SMALL, batch_size=18)
    batches = speaker_tower.SpeakerBatches([data, copy], recipe, seed=0)
    assert batches.speaker_count == 6
    x, y = batches[0]
    assert x.shape == (18, SMALL.crop, BANDS)
    assert sorted(y) == sorted(list(range(6)) * 3)


def test_the_recurrent_tower_leaves_padding_out():
    if BACKEND != "torch":
        pytest.skip("an LSTM takes long to compile")
    data = voices(bands=3)
    recipe = dataclasses.replace(
        speaker_tower.RECIPES["cepstrum"], units=3, size=4
    )
    keras.utils.set_random_seed(0)
    tower = speaker_tower.build_tower(data, recipe)
    found = to_numpy(tower(data.segments))
    assert found.shape == (len(data), 4)
    np.testing.assert_allclose(
        to_numpy(tower(filled(data.segments))), found, atol=1e-5
    )
