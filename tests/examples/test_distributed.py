"""Several devices train what one trains, where they are told to."""

import sys
from pathlib import Path

import pytest

from tests.testing import BACKEND, only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import collectives  # noqa: E402
import distributed  # noqa: E402

on_jax = only_on("jax", "Keras spreads variables on JAX only")


def replicated(test):
    """Marks what is trained on replicas, as `.ci/run` does on each backend."""
    on_replicas = pytest.mark.skipif(
        BACKEND == "jax", reason="a step on JAX sees the whole batch"
    )
    return pytest.mark.thorough(on_replicas(test))


ONE, OWN, ACROSS = distributed.WAYS
KERNEL = 20_000 * 128


@pytest.fixture(scope="module")
def found():
    return distributed.main(["--small"])


def sizes(figures, *kinds):
    return [
        collectives.size(shape)
        for kind, shape, _ in figures["sent"]
        if kind in kinds or not kinds
    ]


def times(figures, kind):
    return sum(times for each, _, times in figures["sent"] if each == kind)


@on_jax
def test_spread_words_train_as_on_one_device(found):
    assert list(found) == [
        "LinearHead, 1 device",
        "LinearHead, 8 devices",
        "Keras's, 1 device",
        "Keras's, 8 devices",
    ]
    for loss in ("LinearHead", "Keras's"):
        one, eight = (found[f"{loss}, {n}"] for n in ("1 device", "8 devices"))
        assert eight["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert one["off"] == 0
        # A step of Adam moves a weight by 3e-3.
        assert 0 < eight["off"] < 1e-4


@on_jax
def test_the_words_vectors_stay_where_they_are(found):
    one, eight = (found[f"LinearHead, {n}"] for n in ("1 device", "8 devices"))
    assert not one["sent"]
    assert max(sizes(eight, "all-gather"), default=0) < KERNEL / 16
    # The two groups add up the gradients of a quarter of the words.
    assert max(sizes(eight)) == KERNEL / 4
    assert eight["memory"] < one["memory"] / 2
    assert one["memory"] < found["Keras's, 1 device"]["memory"]


@replicated
def test_across_replicas_is_the_model_of_one_device(found):
    assert list(found) == [ONE, OWN, ACROSS]
    one, across = found[ONE], found[ACROSS]
    assert one["off"] == 0
    assert 0 < across["off"] <= 1e-5
    assert across["loss"] == pytest.approx(one["loss"], abs=1e-5)
    # Of 370 utterances.
    assert one["pairs"] == across["pairs"] == 370 * 369 / 2
    assert across["equal error rate"] == one["equal error rate"]


@replicated
def test_replicas_with_their_own_rows_are_another_model(found):
    one, own = found[ONE], found[OWN]
    assert own["off"] > 1e-2
    assert own["loss"] != pytest.approx(one["loss"], abs=1e-3)
    assert own["pairs"] == 2 * (185 * 184 / 2)


@replicated
def test_only_across_replicas_rows_are_gathered(found):
    assert not found[ONE]["sent"]
    # The gradients.
    assert found[OWN]["sent"] == [["all-reduce", [38960], 1]]
    # And those of the fingerprints and of the losses.
    assert times(found[ACROSS], "all-reduce") == 3
    # Fingerprints, ids and losses; how many there are, and of what kind.
    assert times(found[ACROSS], "all-gather") > 3
    if BACKEND == "torch":  # TensorFlow's graph knows no shapes.
        assert sizes(found[ACROSS], "all-gather") == [36 * 16, 36, 3]


@replicated
def test_a_device_needs_memory_for_its_own_rows(found):
    for name in (OWN, ACROSS):
        assert 0 < found[name]["memory"] < 0.8 * found[ONE]["memory"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--devices", "1"], "--devices: must be at least 2"),
        (["--steps", "1"], "--steps: must be at least 2"),
        (
            ["--devices", "4", "--batch", "33"],
            f"--batch must be a multiple of {2 if BACKEND == 'jax' else 4}",
        ),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        distributed.main(arguments)
    assert words in capsys.readouterr().err


@on_jax
@pytest.mark.parametrize(
    "arguments", [["--devices", "3"], ["--devices", "8", "--words", "20001"]]
)
def test_words_that_cannot_be_spread_are_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        distributed.main(arguments)
    assert "half of them divide --words" in capsys.readouterr().err


@pytest.mark.thorough
@only_on("torch", "says the same on each backend")
def test_what_a_process_says_is_said():
    with pytest.raises(SystemExit, match="--batch must be at most 270"):
        distributed.main(["--devices", "2", "--batch", "272"])
