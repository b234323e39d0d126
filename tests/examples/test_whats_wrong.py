"""Each question has the answer that is given, and its cure works."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_xent

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import whats_wrong  # noqa: E402
from whats_wrong import BROKEN, REPAIRED  # noqa: E402

CODES = {
    whats_wrong.always_zero: "single-class",
    whats_wrong.stays_at_log_n: "probabilities-as-logits",
    whats_wrong.is_nan: "nonfinite-gradient",
    whats_wrong.stays_at_half: "metric-mismatch",
    whats_wrong.does_not_move: "saturated",
    whats_wrong.rises: "step-too-large",
}


@pytest.mark.parametrize("question", CODES, ids=CODES.values())
def test_only_the_broken_model_has_findings(question):
    assert list(CODES) == list(whats_wrong.QUESTIONS)
    case = whats_wrong.make(question, seed=0)
    found = {
        state: keras_xent.diagnose(model, case.x, case.y).findings
        for state, model in case.models.items()
    }
    assert CODES[question] in [finding.code for finding in found[BROKEN]]
    assert not found[REPAIRED]


def test_a_question_is_asked_answered_and_drawn(tmp_path, capsys):
    arguments = ["--only", "3", "--epochs", "3", "--plots", str(tmp_path)]
    whats_wrong.main(arguments)
    said = capsys.readouterr().out
    assert "\n3. Why is the loss NaN?\n" in said
    assert "error [nonfinite-gradient] at layer 'log'" in said
    assert "Repaired: keras_xent.diagnose: nothing wrong seen" in said
    assert "| broken | nan | nan |" in said
    before, after = re.search(
        r"\| repaired \| (\S+) \| (\S+) \|", said
    ).groups()
    assert float(after) < float(before)
    assert (tmp_path / "whats_wrong.png").stat().st_size > 5000


def test_there_are_as_many_panels_as_questions(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(whats_wrong, "draw", lambda ax, *_: drawn.append(ax))
    curves = {BROKEN: [1.0, 1.0], REPAIRED: [1.0, 0.5]}
    answers = dict.fromkeys(whats_wrong.QUESTIONS, (curves, None))
    whats_wrong.plot(answers, tmp_path)
    assert len(set(map(id, drawn))) == 6
    assert (tmp_path / "whats_wrong.png").exists()


def test_half_of_the_pairs_match_and_none_is_a_row_with_itself():
    case = whats_wrong.make(whats_wrong.stays_at_half, seed=3)
    assert case.y.mean() == 0.5
    first, second = case.x
    assert np.abs(first - second).max(axis=1).min() > 0


def test_training_a_model_leaves_its_weights_to_the_other_one():
    case = whats_wrong.make(whats_wrong.rises, seed=0)
    broken, repaired = case.models[BROKEN], case.models[REPAIRED]
    before = repaired.get_weights()
    curve = whats_wrong.curve(broken, case, "loss", epochs=1, seed=0)
    assert curve[1] > curve[0]
    for kept, now in zip(before, repaired.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_softmax_twice_keeps_the_loss_near_log_n():
    # On TensorFlow, too, where Keras's sparse loss would apply it once.
    case = whats_wrong.make(whats_wrong.stays_at_log_n, seed=0)
    after = {
        state: whats_wrong.curve(model, case, "loss", epochs=3, seed=0)[-1]
        for state, model in case.models.items()
    }
    assert after[BROKEN] > np.log(10) - 0.1
    assert after[REPAIRED] < np.log(10) - 0.3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--only", "7"], "--only: invalid choice"),
        (["--epochs", "0"], "--epochs: must be at least 1"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--plots", __file__], "--plots: cannot write"),
    ],
)
def test_wrong_arguments_are_said_at_once(wrong, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        whats_wrong.main(wrong)
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
