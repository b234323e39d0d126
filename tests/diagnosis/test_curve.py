"""What a curve says, by curves that are made to say it."""

import numpy as np
import pytest

from keras_xent.diagnosis import curve

BLIND = float(np.log(10))


def noisy(level, n=120, sigma=0.02, seed=0):
    rng = np.random.default_rng(seed)
    return (level + sigma * rng.normal(size=n)).tolist()


def code(reading):
    return None if reading is None else reading.code


@pytest.mark.parametrize(
    ("losses", "prior", "expected", "words"),
    [
        (noisy(BLIND), BLIND, "not-learning", "equal probabilities"),
        (noisy(1.5), 1.5, "predicts-prior", "frequencies"),
        (noisy(2.4), BLIND, "not-learning", "above the 2.303"),
        (noisy(BLIND), 1.5, "not-learning", "equal probabilities"),
        (noisy(1.8), 1.5, "not-learning", "above the 1.5"),
    ],
)
def test_a_loss_that_stays(losses, prior, expected, words):
    # From the start, and after a fall from far above.
    fallen = [9.0, 5.0, *losses]
    for each in (losses, fallen):
        reading = curve.stuck(each, prior, BLIND)
        assert reading.code == expected
        assert words in reading.summary
        assert "\n" not in reading.summary


@pytest.mark.parametrize(
    "losses",
    [
        noisy(1.3),  # below the prior: it may well have started trained
        np.linspace(9, 2.3, 120).tolist(),  # still falls
        np.linspace(2.31, 2.27, 120).tolist(),  # slowly
        noisy(BLIND, 8),  # hardly begun
        [],
    ],
)
def test_a_loss_that_does_not_stay_or_is_low(losses):
    assert curve.stuck(losses, BLIND, BLIND) is None


def test_validation_that_is_lower_shows_that_something_is_learned():
    """Dropout and augmentation may hide it in the training."""
    assert curve.stuck(noisy(BLIND), BLIND, BLIND, 1.5) is None
    assert curve.stuck(noisy(BLIND), BLIND, BLIND, BLIND) is not None


def test_a_loss_of_which_nothing_can_be_said():
    assert curve.stuck([0.0] * 100, 0.0, BLIND) is None


EPOCHS = np.arange(12)
FALLS = (1 / (1 + EPOCHS)).tolist()
V_SHAPED = (0.5 + 0.1 * abs(EPOCHS - 4)).tolist()


def test_validation_that_rises_while_training_falls():
    reading = curve.overfits(FALLS, V_SHAPED, 1.0)
    assert reading.code == "overfitting"
    assert reading.evidence["epoch of the lowest validation loss"] == 5
    assert "epoch 5" in reading.summary


@pytest.mark.parametrize(
    ("losses", "validation", "scale"),
    [
        (FALLS, FALLS, 1.0),
        (FALLS[:5], V_SHAPED[:5], 1.0),  # too early to tell
        (V_SHAPED, V_SHAPED, 1.0),  # both rise: the training diverges
        (FALLS, V_SHAPED, 100.0),  # too small to matter
        (FALLS, [0.5 + 0.04 * (i % 2) for i in range(12)], 1.0),  # noise
        # A moving average arrives: up, and down again, but not yet far enough.
        (FALLS, [1, 4, 6, 5.5, 5, 4.5, 4, 3.5, 3, 2.5, 2.2, 2.0], 1.0),
        ([], [], 1.0),
    ],
)
def test_validation_of_healthy_fits(losses, validation, scale):
    assert curve.overfits(losses, validation, scale) is None


def test_losses_without_a_lower_bound_can_be_read_too():
    losses, validation = (np.array(each) - 5 for each in (FALLS, V_SHAPED))
    assert code(curve.overfits(losses.tolist(), losses.tolist(), 4.0)) is None
    risen = (validation + EPOCHS * 0.2).tolist()
    falls = (-5 - EPOCHS * 0.5).tolist()
    assert code(curve.overfits(falls, risen, 4.0)) == "overfitting"


@pytest.mark.parametrize("n", [1, 239, 240, 1000, 5000])
def test_means_of_steps_are_few_and_have_the_mean_of_the_curve(n):
    steps, losses = curve.Steps(), np.arange(n) / n
    for each in losses:
        steps.add(each)
    assert 0 < len(steps.means) < 240
    assert np.all(np.diff(steps.means) > 0)
    each = n // len(steps.means)
    used = losses[: len(steps.means) * each]
    np.testing.assert_allclose(np.mean(steps.means), used.mean(), rtol=0.02)
