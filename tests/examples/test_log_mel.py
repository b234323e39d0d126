"""Log-mels are those of the formula, whatever the level and the padding."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.signal import get_window

from tests.testing import BACKEND, quick, to_numpy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import log_mel  # noqa: E402

FRAMES = 40


def sounds(rate, count=3, frames=FRAMES, seed=0):
    """Not voices, but noise that swells and has overtones, in float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames * (rate // 100)) / rate
    x = 0.05 * rng.normal(size=(count, len(time)))
    for number in range(1, 5):
        pitch = number * rng.uniform(90, 250, (count, 1))
        x += np.sin(2 * np.pi * pitch * time) / number
    return (x * (1.2 + np.sin(9 * time))).astype("float32")


def mel_matrix(bins, rate):
    """Triangles, equally wide on the mel scale of O'Shaughnessy, 1987."""

    def mel(hertz):
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    edges = np.linspace(mel(20.0), mel(rate / 2), 64 + 2)
    place = mel(np.linspace(0, rate / 2, bins))[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (
        (place - low) / (middle - low),
        (high - place) / (high - middle),
    )
    matrix = np.maximum(0, np.minimum(rise, fall))
    matrix[0] = 0  # the mean of a frame is no sound
    return matrix


def reference(x, rate):
    """One waveform's log-mels in float64, one frame after the other."""
    hop, width = rate // 100, rate // 40
    fft = 2 ** int(np.ceil(np.log2(width)))
    frames = len(x) // hop
    x = np.asarray(x[: frames * hop], "float64").copy()
    sounding = x.reshape(frames, hop).any(axis=1)
    inside = np.repeat(sounding, hop)
    x[inside] -= x[inside].mean()
    x /= np.sqrt(np.mean(x[inside] ** 2))
    padded = np.pad(x, fft // 2, mode="reflect")
    window = np.zeros(fft)
    start = (fft - width) // 2
    # TensorFlow takes the symmetric window for the periodic one if it is odd.
    periodic = BACKEND != "tensorflow" or width % 2 == 0
    window[start : start + width] = get_window("hann", width, periodic)
    found = np.zeros((frames, 64))
    for t in np.flatnonzero(sounding):
        piece = padded[t * hop : t * hop + fft] * window
        power = np.abs(np.fft.rfft(piece)) ** 2
        found[t] = np.log(power @ mel_matrix(len(power), rate) + 1e-4)
    return found


@pytest.fixture(scope="module", params=[8000, 11025, 16000])
def layer(request):
    return log_mel.LogMel(request.param)


def log_mels(layer, x):
    return to_numpy(quick(layer)(x))


def test_the_layer_is_the_formula(layer):
    x = sounds(layer.rate)
    x[1, 27 * (layer.rate // 100) + 30 :] = 0
    found = log_mels(layer, x)
    assert found.shape == (3, FRAMES, log_mel.BANDS)
    for row, samples in zip(found, x, strict=True):
        np.testing.assert_allclose(
            row, reference(samples, layer.rate), atol=0.03
        )


def test_a_filled_up_end_is_left_out(layer):
    hop = layer.rate // 100
    x = sounds(layer.rate)
    filled = np.pad(x, [(0, 0), (0, 15 * hop)])
    found, expected = log_mels(layer, filled), log_mels(layer, x)
    assert not found[:, FRAMES:].any()
    assert expected.any(axis=2).all()
    # The last windows reach over the end, which is a mirror without filling.
    touched = -(-layer.rate // 40 // 2 // hop)
    np.testing.assert_allclose(
        found[:, : FRAMES - touched], expected[:, :-touched], atol=1e-3
    )


def test_samples_that_fill_no_frame_are_left_out(layer):
    x = sounds(layer.rate)
    longer = np.pad(x, [(0, 0), (0, layer.rate // 100 - 1)], mode="edge")
    np.testing.assert_allclose(log_mels(layer, longer), log_mels(layer, x))
    shape = layer.compute_output_shape(longer.shape)
    assert shape == (3, FRAMES, log_mel.BANDS)
    assert layer.compute_output_shape((None, None)) == (None, None, 64)


def test_level_and_offset_do_not_matter(layer):
    x = sounds(layer.rate)
    x[0, 20 * (layer.rate // 100) :] = 0
    other = np.where(x == 0, 0, 0.01 * x + 0.3).astype("float32")
    np.testing.assert_allclose(
        log_mels(layer, other), log_mels(layer, x), atol=0.02
    )


def test_silence_is_zeros(layer):
    found = log_mels(layer, np.zeros((2, layer.rate), "float32"))
    np.testing.assert_array_equal(found, np.zeros((2, 100, log_mel.BANDS)))


def test_a_saved_layer_is_the_same(layer, tmp_path):
    inputs = keras.Input((None,))
    model = keras.Model(inputs, log_mel.LogMel(layer.rate, name="x")(inputs))
    assert model.output_shape == (None, None, log_mel.BANDS)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("x").rate == layer.rate
    x = sounds(layer.rate)
    np.testing.assert_allclose(
        again.predict_on_batch(x), log_mels(layer, x), rtol=1e-4, atol=1e-4
    )
