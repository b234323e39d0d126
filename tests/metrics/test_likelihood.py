"""Rates and perplexities are those of the whole epoch, in the unit given."""

import math

import numpy as np
import pytest
from scipy.special import log_expit, log_softmax

from keras_xent.metrics import CrossentropyRate, Perplexity
from tests.testing import normal, to_numpy, with_mask

LABELS = np.random.default_rng(0).integers(0, 5, (3, 7))
LOGITS = normal(3, 7, 5, scale=3.0)
WEIGHT = np.random.default_rng(1).integers(0, 4, (3, 7)).astype("float32")


def nll(labels=LABELS, logits=LOGITS):
    """−log p of each label, in float64."""
    log_p = log_softmax(logits.astype("float64"), axis=-1)
    return -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]


def measure(metric, *batches):
    for batch in batches:
        metric.update_state(*batch)
    return float(to_numpy(metric.result()))


def halves(*arrays):
    """A batch of few tokens and one of many."""
    return [[x[:1] for x in arrays], [x[1:] for x in arrays]]


@pytest.mark.parametrize("unit", ["nats", "bits"])
def test_it_is_the_weighted_mean_over_all_tokens(unit):
    expected = np.sum(WEIGHT * nll()) / WEIGHT.sum()
    expected /= {"nats": 1, "bits": math.log(2)}[unit]
    batches = halves(LABELS, LOGITS, WEIGHT)
    result = measure(CrossentropyRate(unit=unit), *batches)
    assert result == pytest.approx(expected, rel=1e-6)


def test_perplexity_is_its_exponential():
    torchmetrics = pytest.importorskip("torchmetrics.text")
    torch = pytest.importorskip("torch")
    result = measure(Perplexity(), *halves(LABELS, LOGITS))
    assert result == pytest.approx(np.exp(nll().mean()), rel=1e-6)
    theirs = torchmetrics.Perplexity()
    theirs.update(torch.tensor(LOGITS), torch.tensor(LABELS))
    assert result == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_it_is_finite_where_probabilities_underflow():
    torchmetrics = pytest.importorskip("torchmetrics.text")
    torch = pytest.importorskip("torch")
    logits = np.zeros((3, 7, 5), "float32")
    logits[0, 0, 0] = 200.0
    labels = np.ones((3, 7), "int64")
    expected = math.exp((200 + 20 * math.log(5)) / 21)
    assert measure(Perplexity(), (labels, logits)) == pytest.approx(
        expected, rel=1e-5
    )
    theirs = torchmetrics.Perplexity()
    theirs.update(torch.tensor(logits), torch.tensor(labels))
    assert float(theirs.compute()) == math.inf


def test_an_even_guess_costs_one_bit_and_its_logarithm_in_nats():
    even = np.where(np.arange(5) < 2, LOGITS[..., :1], -np.inf)
    labels = LABELS % 2
    nats = measure(CrossentropyRate(), (labels, even))
    assert nats == pytest.approx(math.log(2), rel=1e-6)
    bits = measure(CrossentropyRate(unit="bits"), (labels, even))
    assert bits == pytest.approx(1, rel=1e-6)
    assert measure(Perplexity(), (labels, even)) == pytest.approx(2, rel=1e-6)


def test_bits_per_byte_of_a_mean_and_of_a_table():
    bits = WEIGHT * nll() / math.log(2)
    batches = halves(LABELS, LOGITS, WEIGHT)
    mean = CrossentropyRate(unit="bits_per_byte", bytes_per_token=4.5)
    assert measure(mean, *batches) == pytest.approx(
        bits.sum() / (4.5 * WEIGHT.sum()), rel=1e-6
    )
    table = [3, 0, 1, 7, 2]
    exact = CrossentropyRate(unit="bits_per_byte", bytes_per_token=table)
    expected = bits.sum() / np.sum(WEIGHT * np.take(table, LABELS))
    assert measure(exact, *batches) == pytest.approx(expected, rel=1e-6)
    exact.reset_state()
    dense = np.eye(5, dtype="float32")[LABELS]
    result = measure(exact, *halves(dense, LOGITS, WEIGHT))
    assert result == pytest.approx(expected, rel=1e-6)


def test_dense_targets_may_be_distributions():
    targets = np.abs(normal(3, 7, 5, seed=3)) + 0.1
    targets /= targets.sum(-1, keepdims=True)
    log_p = log_softmax(LOGITS.astype("float64"), axis=-1)
    expected = -np.sum(targets * log_p) / 21
    assert measure(CrossentropyRate(), (targets, LOGITS)) == pytest.approx(
        expected, rel=1e-6
    )


def test_any_axis_holds_the_classes():
    expected = measure(CrossentropyRate(), (LABELS, LOGITS))
    moved = np.moveaxis(LOGITS, -1, 1)
    for labels in (LABELS, LABELS[:, None]):
        result = measure(CrossentropyRate(axis=1), (labels, moved))
        assert result == pytest.approx(expected, rel=1e-6)


def test_yes_or_no_takes_one_logit():
    logits, yes = normal(21, 1), np.arange(21) % 3 == 0
    p = np.where(yes, 1, -1) * logits[:, 0].astype("float64")
    expected = -log_expit(p).mean()
    for shape in ((21,), (21, 1)):
        batch = yes.astype("int32"), logits.reshape(shape)
        result = measure(CrossentropyRate(), batch)
        assert result == pytest.approx(expected, rel=1e-6)
    table = CrossentropyRate(unit="bits_per_byte", bytes_per_token=[1, 3])
    bits = expected / math.log(2) * 21 / (21 + 2 * yes.sum())
    assert measure(table, batch) == pytest.approx(bits, rel=1e-6)


def test_what_does_not_count_may_hold_anything():
    logits, labels = LOGITS.copy(), LABELS.copy()
    logits[0], labels[1, 2:] = np.nan, 77
    labels[2, 0] = 3
    mask = np.arange(3)[:, None] > 0
    counted = mask & (labels != 77) & (labels != 3)
    metric = CrossentropyRate(ignore_class=[77, 3])
    batch = labels, with_mask(logits, np.broadcast_to(mask, (3, 7)))
    expected = nll()[counted].mean()
    assert measure(metric, batch) == pytest.approx(expected, rel=1e-6)


def test_an_impossible_label_costs_infinity():
    logits = LOGITS.copy()
    logits[0, 0, :2] = -np.inf
    labels = np.where(LABELS < 2, 2, LABELS)
    expected = nll(labels, logits).mean()
    assert measure(CrossentropyRate(), (labels, logits)) == pytest.approx(
        expected, rel=1e-6
    )
    batches = (np.zeros_like(LABELS), logits), (labels, LOGITS)
    assert measure(CrossentropyRate(), *batches) == math.inf


@pytest.mark.parametrize(
    "batch",
    [
        ([0, 5], LOGITS[0, :2], [1.0, 1.0]),
        ([0, -1], LOGITS[0, :2], [1.0, 1.0]),
        ([0, 1], LOGITS[0, :2], [1.0, -1.0]),
        ([0, 1], LOGITS[0, :2], [1.0, np.inf]),
        ([0, 1], np.full((2, 5), np.nan, "float32"), None),
        (np.array([[2.0, -1.0]] * 2), LOGITS[0, :2, :2], [1.0, 1.0]),
        ([0.5, 1.5], LOGITS[0, :2, 0], [1.0, 1.0]),
    ],
)
def test_what_cannot_be_measured_is_nan(batch):
    assert math.isnan(measure(CrossentropyRate(), batch))


def test_counts_stay_exact_over_an_epoch_that_float32_cannot_count():
    # After 2**24 tokens a float32 counter adds nothing any more.
    metric = CrossentropyRate()
    # Weights leave one token of 21 in a batch.
    one = np.zeros((3, 7))
    one[0, 0] = 1
    metric.update_state(LABELS, LOGITS, 2.0**24 * one)
    for _ in range(3):
        metric.update_state(LABELS, LOGITS, one)
    nats, tokens = metric._sums.exact()
    assert tokens == 2**24 + 3
    assert nats / tokens == pytest.approx(nll()[0, 0], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "digits"}, "'bits_per_byte'"),
        ({"unit": "bits_per_byte"}, "`bytes_per_token` belongs"),
        ({"bytes_per_token": 4}, "`bytes_per_token` belongs"),
        ({"unit": "bits_per_byte", "bytes_per_token": -1}, "number >= 0"),
        ({"unit": "bits_per_byte", "bytes_per_token": [-1.0]}, "vector"),
        ({"ignore_class": 0.5}, "`ignore_class`"),
    ],
)
def test_wrong_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        CrossentropyRate(**options)


def test_what_does_not_fit_raises():
    short = CrossentropyRate(unit="bits_per_byte", bytes_per_token=[1, 2])
    with pytest.raises(ValueError, match="5 classes"):
        short.update_state(LABELS, LOGITS)
    ignoring = CrossentropyRate(ignore_class=0)
    with pytest.raises(ValueError, match="weight of 0"):
        ignoring.update_state(np.eye(5)[LABELS], LOGITS)
    with pytest.raises(ValueError, match="weight of 0"):
        ignoring.update_state([1], np.zeros(1, "float32"))
    with pytest.raises(ValueError, match=r"label 9"):
        CrossentropyRate().update_state([9], LOGITS[0, :1])
    with pytest.raises(ValueError, match="configured alike"):
        Perplexity().merge_state([CrossentropyRate()])
