"""The example's figures add up, and its commands work."""

import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.testing import normal, only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import calibration  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend.
pytestmark = only_on("torch", "examples are tested on one backend")


def test_the_three_parts_are_all_images_once():
    parts = calibration.load(noise=0.0, seed=0)
    assert [len(labels) for _, labels in parts] == [718, 539, 540]
    pixels = np.concatenate([images for images, _ in parts])
    assert pixels.shape == (1797, 64)
    assert pixels.min() == -0.5
    assert pixels.max() == 0.5
    again = calibration.load(noise=0.0, seed=0)
    np.testing.assert_array_equal(parts[2][0], again[2][0])


def test_chance_leaves_little_to_a_calibrated_model_with_many_examples():
    # As many as there are test images: what was compiled is used again.
    sure = np.zeros((540, 10), "float32")
    sure[:, 0] = 9.0
    assert calibration.by_chance(sure, 0) < 0.005
    assert 0.01 < calibration.by_chance(normal(540, 10, scale=2.0), 0) < 0.06


def test_the_small_run_prints_plots_and_saves(tmp_path, capsys):
    model = tmp_path / "model.keras"
    options = ["--small", "--epochs", "2", "--plots", tmp_path, "--save", model]
    calibration.main([str(option) for option in options])
    said = capsys.readouterr().out
    fitted = float(re.search(r"T = (\S+) \|", said)[1])
    accuracy = re.search(r"\| accuracy \| (\S+) \| (\S+) \|", said)
    assert accuracy[1] == accuracy[2]
    nats = re.search(r"nats \| (\S+) \| (\S+) \|", said)
    assert float(nats[2]) < float(nats[1]) + 0.01
    assert (tmp_path / "calibration.png").stat().st_size > 10_000
    loaded = keras.saving.load_model(model)
    temperature = loaded.get_layer("calibrated").temperature
    assert temperature == pytest.approx(fitted, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--save", "model.h5"], "--save: needs a name that ends in .keras"),
        (["--save", f"{__file__}/model.keras"], "--save: cannot write"),
        (["--plots", __file__], "--plots: cannot write"),
        (["--noise", "-1"], "--noise: must be at least 0"),
        (["--noise", "nan"], "--noise: must be a finite number"),
        (["--noise", "inf"], "--noise: must be a finite number"),
        (["--epochs", "0"], "--epochs: must be at least 1"),
        (["--seed", "-1"], "--seed: must be at least 0"),
    ],
)
def test_wrong_arguments_are_said_at_once(wrong, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        calibration.main(wrong)
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
