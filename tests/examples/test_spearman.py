"""The scores get into order, and slips of the pen are what was said."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import spearman  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend.
pytestmark = only_on("torch", "examples are tested on one backend")


def test_patients_are_in_one_part_only_and_standardized():
    (x, y), (x_test, y_test) = spearman.split(3)
    assert x.shape == (295, 10)
    assert x_test.shape == (147, 10)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x.std(axis=0), 1)
    everyone = np.sort(np.concatenate([y, y_test]))
    other = np.sort(np.concatenate([p[1] for p in spearman.split(4)]))
    assert everyone.tolist() == other.tolist()
    rows = {tuple(row) for row in np.round(x, 9)}
    assert not rows & {tuple(row) for row in np.round(x_test, 9)}


def test_a_share_of_the_targets_slips():
    y = np.arange(1.0, 101)
    slipped = spearman.with_slips(y, 0.1, seed=0)
    assert (slipped == 10 * y).sum() == 10
    assert (slipped == y).sum() == 90
    assert spearman.with_slips(y, 0.0, seed=0).tolist() == y.tolist()
    other = spearman.with_slips(y, 0.1, seed=1)
    assert other.tolist() != slipped.tolist()


def test_both_parts_are_run_reported_and_drawn(tmp_path, capsys):
    spearman.main(["--small", "--plots", str(tmp_path)])
    printed = capsys.readouterr().out
    steps = re.findall(r"^step +(\d+)  Spearman +([\d.-]+)", printed, re.M)
    assert [int(step) for step, _ in steps] == [1, 2, 5, 10, 20, 50]
    assert float(steps[-1][1]) > 0.99
    lines = re.findall(
        r"^(\d+)% +(\D+?) +([\d.]+) ± [\d.]+ +\d of 2$", printed, re.M
    )
    found = {(slips, name): float(mean) for slips, name, mean in lines}
    assert list(found) == [
        (slips, name)
        for slips in ("0", "10")
        for name in ("squared error", "Spearman")
    ]
    assert found["10", "Spearman"] > found["10", "squared error"]
    assert min(found["0", name] for name in spearman.LOSSES) > 0.55
    assert (tmp_path / "spearman.png").stat().st_size > 5000


def test_a_trainer_forgets_what_it_learned():
    train, test = spearman.split(0)
    trainer = spearman.Trainer("mse", 10)
    first = trainer.spearman(train, test, 3, seed=0)
    assert trainer.spearman(train, test, 3, seed=1) != first
    assert trainer.spearman(train, test, 3, seed=0) == pytest.approx(first)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n", "1"], "--n must be at least 2"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--temperature", "0"], "--temperature: must be above 0"),
        (["--temperature", "inf"], "--temperature: must be a finite number"),
        (["--slips", "1.5"], "--slips: must be at least 0 and at most 1"),
        (["--slips", "nan"], "--slips: must be a finite number"),
        (["--steps", "nan"], "--steps: invalid int"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--plots", __file__], "--plots: cannot write"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        spearman.main(arguments)
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
