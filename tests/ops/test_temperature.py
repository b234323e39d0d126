"""The fitted temperature is the most likely one: scipy says so, too."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from keras_xent import ops
from tests.testing import compiled, normal, thorough_on, to_numpy

N, K = 64, 5
LOGITS = normal(N, K, scale=2.0)
DRAWN = log_softmax(LOGITS.astype("float64") / 1.7, axis=1)
LABELS = (
    np.exp(DRAWN).cumsum(axis=1) < np.random.default_rng(0).random((N, 1))
).sum(axis=1)
WEIGHT = np.random.default_rng(1).integers(0, 3, N).astype("float32")


def fit(targets, logits, weight=None, **kwargs):
    result = ops.fit_temperature(
        targets, logits, sample_weight=weight, **kwargs
    )
    assert result.shape == ()
    return float(to_numpy(result))


def by_scipy(targets, logits, weight=None):
    """The minimum over log T, in float64."""
    logits = logits.astype("float64")
    weight = np.ones(len(logits)) if weight is None else weight
    unit = np.abs(logits - logits.max(axis=1, keepdims=True)).max()

    def loss(log_t):
        log_p = log_softmax(logits / (unit * np.exp(log_t)), axis=1)
        return -np.sum(weight * np.sum(targets * log_p, axis=1))

    found = minimize_scalar(
        loss, bounds=(-20, 5), method="bounded", options={"xatol": 1e-10}
    )
    return unit * np.exp(found.x)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e4, 1e30])
def test_it_is_that_of_scipy_for_logits_of_any_size(scale):
    expected = by_scipy(np.eye(K)[LABELS], LOGITS)
    assert 1 < expected < 3
    logits = (LOGITS * np.float64(scale)).astype("float32")
    assert fit(LABELS, logits) == pytest.approx(scale * expected, rel=1e-4)


def test_it_weighs_rows_and_takes_distributions():
    smooth = 0.8 * np.eye(K)[LABELS] + 0.2 / K
    expected = by_scipy(smooth, LOGITS, WEIGHT)
    assert fit(smooth, LOGITS, WEIGHT) == pytest.approx(expected, rel=1e-4)
    expected = by_scipy(np.eye(K)[LABELS], LOGITS, WEIGHT)
    for shape in ((N,), (N, 1)):
        result = fit(LABELS.reshape(shape), LOGITS, WEIGHT.reshape(shape))
        assert result == pytest.approx(expected, rel=1e-4)


def test_any_axis_holds_the_classes():
    expected = fit(LABELS, LOGITS)
    image = np.moveaxis(LOGITS.reshape(8, 8, K), -1, 1)
    result = fit(LABELS.reshape(8, 8), image, axis=1)
    assert result == pytest.approx(expected, rel=1e-5)


def test_yes_or_no_is_two_classes():
    x, yes = LOGITS[:, 0], (LABELS > 1).astype("int32")
    x = x + 2 * yes
    both = np.stack([np.zeros(N, "float32"), x], axis=1)
    expected = by_scipy(np.eye(2)[yes], both)
    for shape in ((N,), (N, 1)):
        result = fit(yes, x.reshape(shape), WEIGHT * 0 + 1)
        assert result == pytest.approx(expected, rel=1e-4)


def test_masked_classes_take_no_part():
    logits = LOGITS.copy()
    logits[:, -1] = -np.inf
    labels = LABELS % (K - 1)
    expected = by_scipy(np.eye(K - 1)[labels], LOGITS[:, :-1])
    assert fit(labels, logits) == pytest.approx(expected, rel=1e-4)


def test_rows_of_weight_zero_may_hold_anything():
    expected = fit(LABELS, LOGITS, WEIGHT)
    gone = WEIGHT == 0
    logits, labels = LOGITS.copy(), LABELS.copy()
    logits[gone], labels[gone] = np.nan, 99
    assert fit(labels, logits, WEIGHT) == pytest.approx(expected, rel=1e-6)


def test_one_miss_by_a_hair_is_still_found():
    # Nearly separable: the best temperature is far below the logits' scale.
    logits = np.full((N, K), -np.inf, "float32")
    logits[:, :2] = 1.0, 0.0
    logits[-1, 0] = 1e-4
    labels = (np.arange(N) == N - 1).astype(int)
    expected = by_scipy(np.eye(2)[labels], logits[:, :2])
    assert fit(labels, logits) == pytest.approx(expected, rel=1e-3)
    assert expected < 0.2


@thorough_on("jax")
def test_where_all_is_right_more_confidence_is_always_better():
    labels = LOGITS.argmax(axis=1)
    assert fit(labels, LOGITS) == 0
    assert fit(np.eye(K)[labels], LOGITS) == 0


def test_where_logits_say_nothing_or_the_opposite_an_even_guess_is_better():
    assert fit(LOGITS.argmin(axis=1), LOGITS) == np.inf
    # Right as often as wrong, and always equally sure.
    logits = np.full((N, K), -np.inf, "float32")
    logits[:, :2] = 1.0, 0.0
    assert fit(np.arange(N) % 2, logits) == np.inf


@pytest.mark.parametrize(
    ("labels", "logits", "weight"),
    [
        ([0, 1], np.ones((2, 3), "float32"), None),
        ([0, 1], np.full((2, 3), np.nan, "float32"), None),
        ([0, 1], np.full((2, 3), -np.inf, "float32"), None),
        ([0, 3], LOGITS[:2, :3], [1.0, 1.0]),
        ([0, 1], LOGITS[:2, :3], [0.0, 0.0]),
        ([0, 1], LOGITS[:2, :3], [1.0, -1.0]),
        ([0, 1], LOGITS[:2, :3], [1.0, np.inf]),
        ([], LOGITS[:0, :3], None),
        ([0, 2], np.array([[0, 1, 2], [1, 0, -np.inf]], "float32"), None),
    ],
)
def test_without_a_measure_it_is_nan(labels, logits, weight):
    assert np.isnan(fit(np.array(labels, "int32"), logits, weight))


fit_compiled = compiled(ops.fit_temperature)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.05, 20.0))
def test_it_scales_as_the_logits_do_and_never_loses(seed, scale):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, K)).astype("float32")
    labels = rng.integers(0, K, N).astype("int32")
    found, rescaled = (
        float(to_numpy(fit_compiled(labels, x.astype("float32"))))
        for x in (logits, scale * logits)
    )
    assert rescaled == pytest.approx(scale * found, rel=1e-2)
    if not np.isfinite(found):
        return

    def loss(temperature):
        log_p = log_softmax(logits.astype("float64") / temperature, axis=1)
        return -log_p[np.arange(N), labels].mean()

    for other in (1.0, 0.8 * found, 1.25 * found):
        assert loss(found) <= loss(other) + 1e-7


def test_compiled_it_gives_the_same():
    result = fit_compiled(LABELS.astype("int32"), LOGITS)
    expected = fit(LABELS, LOGITS)
    assert float(to_numpy(result)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([0, 7], LOGITS[:2]), "label 7"),
        (([0, 1, 2], LOGITS[:2]), "shape"),
        (([0, 1], LOGITS[:2], [1.0]), "`sample_weight`"),
        (([0, 1], LOGITS[:2].astype("int32")), "floating point"),
        (([0, 2], LOGITS[:2, :1]), "`targets`"),
        (([0, 2], LOGITS[:2, :0]), "0 class"),
    ],
)
def test_wrong_input_raises(args, message):
    with pytest.raises(ValueError, match=message):
        fit(*args)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_targets_on_the_device_that_do_not_sum_to_one_are_nan(scale):
    targets = keras.ops.full((N, K), scale / K)
    assert np.isnan(fit(targets, LOGITS))
