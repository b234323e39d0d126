"""Halves find halves, and the formula with the matrix is that of the loss."""

import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import keras_xent
from tests.testing import only_on, to_numpy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import two_towers  # noqa: E402

# The memory is measured with a loss that takes no temperature, too.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Gradients do not exist for variables"
)

numpy_only = only_on("torch", "NumPy alone")


@numpy_only
def test_two_halves_are_of_one_image_which_is_in_one_part_only():
    training, held_out = two_towers.halves(seed=1)
    whole = [np.concatenate(both, axis=1) for both in (training, held_out)]
    assert [len(images) for images in whole] == [1024, 773]
    images = np.concatenate(whole)
    expected = load_digits().images / 16
    found, wanted = (x.reshape(-1, 64).tolist() for x in (images, expected))
    assert sorted(found) == sorted(wanted)
    again = two_towers.halves(seed=1)[1][0]
    np.testing.assert_array_equal(again, held_out[0])
    other = two_towers.halves(seed=2)[1][0]
    assert not np.array_equal(other, held_out[0])


@numpy_only
def test_only_its_own_half_is_right():
    pairs = np.stack([np.eye(10), np.eye(10)], axis=1)
    assert two_towers.search(pairs).recall_at_k == {1: 1, 5: 1}
    pairs[:2, 1] = pairs[[1, 0], 1]
    found = two_towers.search(pairs).recall_at_k
    assert found[1] == pytest.approx(0.8)


def test_the_formula_with_the_matrix_is_the_loss():
    x = np.random.default_rng(0).normal(size=(6, 2, 4)).astype("float32")
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    loss = keras_xent.losses.InfoNCE(temperature=two_towers.TEMPERATURE)
    expected = to_numpy(loss(np.arange(6), x))
    x = keras.ops.convert_to_tensor(x)
    found = to_numpy(two_towers.with_matrix(np.arange(6), x))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_halves_are_found_measured_and_drawn(tmp_path, capsys):
    two_towers.main(["--small", "--steps", "48", "--plots", str(tmp_path)])
    printed = capsys.readouterr().out
    rows = re.findall(
        r"^ +64  (\w+) +([\d.]+) % +([\d.]+) % +([\d.]+)", printed, re.M
    )
    assert [row[0] for row in rows] == ["InfoNCE", "SigLIP"]
    for _, first, fifth, _ in rows:
        # By chance it is 0.1 and 0.6 %.
        assert float(fifth) > max(2, float(first))
    assert float(rows[0][3]) != two_towers.TEMPERATURE  # It is learned.
    cells = re.search(r"^ +256(.*)", printed, re.M)[1]
    assert len(re.findall(r"(?:< )?\d+ MB +[\d.]+ s", cells)) == 3
    assert (tmp_path / "two_towers.png").stat().st_size > 5000


@only_on("torch", "says the same on each backend")
def test_a_matrix_too_large_is_not_tried(monkeypatch, capsys):
    monkeypatch.setattr(two_towers, "LARGEST_MATRIX", 8)
    options = two_towers.parse(["--memory", "8", "9"])
    two_towers.measure(options)
    small, large = capsys.readouterr().out.splitlines()[-2:]
    assert small.count(" MB ") == 3
    assert large.count(" MB ") == 2
    assert large.endswith("not tried")


@numpy_only
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batches", "1"], "--batches: must be at least 2 and at most 1024"),
        (["--batches", "1025"], "--batches: must be at least 2 and at most"),
        (["--memory", "1"], "--memory: must be at least 2"),
        (["--steps", "0"], "--steps: must be at least 1"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--plots", __file__], "--plots: cannot write"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        two_towers.main(arguments)
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
