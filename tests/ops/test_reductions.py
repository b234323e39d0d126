"""What becomes of the logits of a row, in any number of parts."""

import itertools

import hypothesis
import numpy as np
import pytest
import scipy.special
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
from keras import ops

from keras_xent.ops.reductions import (
    OnlineSoftmax,
    PairwiseSigmoid,
    SoftmaxLoss,
    Terms,
)
from keras_xent.ops.targets import OneTarget, SharedIds
from tests.testing import (
    assert_all_close,
    finite_differences,
    gradient,
    normal,
    to_numpy,
)

tensor = ops.convert_to_tensor

ROWS, COLUMNS = 4, 6
LABELS = np.array([0, 5, 2, 3], "int32")
RIGHT = np.equal.outer(LABELS, np.arange(COLUMNS))
SHARES = np.array([0.5, 0.0, 1.0, 2.0, 0.0, 0.25])
SPLITS = [(6,), (1, 5), (3, 3), (2, 2, 2), (1, 1, 1, 1, 1, 1)]


def logits_of(dtype="float32"):
    """A masked column, and a row in which it was the only one to count."""
    x = normal(ROWS, COLUMNS, scale=3).astype(dtype)
    x[:, 1] = -np.inf
    x[3, :3] = -np.inf
    return x


def softmax(dtype="float32", *, bar=None):
    bar = None if bar is None else tensor(bar)
    return OnlineSoftmax(tensor(SHARES.astype(dtype)), bar)


def targets():
    return OneTarget(tensor(LABELS))


def in_parts(reduction, logits, sizes, targets):
    """The sums of each part of the columns, as a device has them."""
    zeros = ops.zeros(len(logits), dtype=str(logits.dtype))
    start, parts = 0, []
    for size in sizes:
        part = tensor(logits[:, start : start + size].copy())
        shard = reduction.columns(start, size), targets.columns(start, size)
        sums = shard[0].init(zeros)
        parts.append(shard[0].add(sums, part, shard[1]))
        start += size
    return parts


def merged(reduction, parts):
    first, *others = parts
    for other in others:
        first = reduction.merge(first, other)
    return first


def softmax_terms(x):
    """The same in float64, of logits that exist."""
    x = x.astype("float64")
    log_sum = scipy.special.logsumexp(x, axis=1)
    lost = log_sum[:, None] - x
    p = scipy.special.softmax(x, axis=1)
    target = x[RIGHT]
    return Terms(
        log_sum - target,
        np.sum(np.where(SHARES == 0, 0, lost) * SHARES, axis=1),
        log_sum,
        x.max(axis=1) - target,
        scipy.special.entr(p).sum(axis=1),
        np.sum((x > target[:, None]) & ~RIGHT, axis=1),
    )


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
@pytest.mark.parametrize("all_terms", [False, True])
def test_the_softmax_is_that_of_scipy_in_any_number_of_parts(sizes, all_terms):
    x = logits_of()
    x[3, :3] = normal(3)
    expected = softmax_terms(x)
    reduction = softmax(bar=x[RIGHT] if all_terms else None)
    parts = in_parts(reduction, x, sizes, targets())
    terms = reduction.finish(merged(reduction, parts))
    assert len(terms) == reduction.count == (6 if all_terms else 4)
    assert_all_close(terms, expected[: len(terms)], rtol=1e-5)


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_a_share_of_nothing_costs_nothing_even_if_it_is_impossible(sizes):
    x = normal(ROWS, COLUMNS).copy()
    x[:, SHARES == 0] = -np.inf
    x[1, 5] = 0
    reduction = softmax()
    parts = in_parts(reduction, x, sizes, targets())
    terms = Terms(*reduction.finish(merged(reduction, parts)))
    assert_all_close([terms.spread], [softmax_terms(x).spread])


@pytest.mark.parametrize("shift", [-1e7, -100.0, 1000.0, 1e7])
def test_the_softmax_does_not_overflow(shift):
    # Whole numbers, of which float32 has as many as that.
    x = np.round(normal(ROWS, COLUMNS)) + np.float32(shift)
    reduction = softmax(bar=x[RIGHT])
    parts = in_parts(reduction, x, (2, 4), targets())
    terms = reduction.finish(merged(reduction, parts))
    assert_all_close(terms, softmax_terms(x))


def test_the_softmax_reaches_to_the_end_of_float32():
    x = 1e32 * np.round(3 * normal(ROWS, COLUMNS))
    reduction = softmax(bar=x[RIGHT])
    parts = in_parts(reduction, x, (2, 4), targets())
    terms = reduction.finish(merged(reduction, parts))
    assert_all_close(terms, softmax_terms(x))


def test_a_target_is_not_above_a_bar_that_was_rounded():
    """Its own logit is made by another product than those of the columns."""
    x = normal(ROWS, COLUMNS)
    reduction = softmax(bar=x[RIGHT] - np.float32(1e-6))
    (sums,) = in_parts(reduction, x, (COLUMNS,), targets())
    terms = Terms(*reduction.finish(sums))
    np.testing.assert_array_equal(to_numpy(terms.above), softmax_terms(x).above)


def test_targets_in_no_column_add_nothing():
    x = normal(ROWS, COLUMNS)
    nowhere = OneTarget(tensor(np.full(ROWS, -1, "int32")))
    reduction = OnlineSoftmax()
    (sums,) = in_parts(reduction, x, (COLUMNS,), nowhere)
    terms = Terms(*reduction.finish(sums))
    assert_all_close([terms.nll], [terms.log_sum])
    block = reduction.back([ops.ones(ROWS)] * 4, sums, tensor(x), nowhere)
    # nll and log_sum are both the log-sum-exp.
    softmax = scipy.special.softmax(x.astype("float64"), axis=1)
    np.testing.assert_allclose(to_numpy(block), 2 * softmax, atol=1e-6)


def sigmoid_losses(x, right):
    # −log σ(x) for a target, −log σ(−x) for another.
    x = x.astype("float64")
    return -scipy.special.log_expit(np.where(right, x, -x)).sum(axis=1)


IDS, COLUMN_IDS = np.array([3, 1, 1, 0]), np.array([1, 3, 1, 2, 1, 3])


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_the_questions_are_those_of_scipy_in_any_number_of_parts(
    sizes, several
):
    x, which, right = normal(ROWS, COLUMNS, scale=10), targets(), RIGHT
    if several:
        ids = [tensor(y.astype("int32")) for y in (IDS, COLUMN_IDS)]
        which, right = SharedIds.of(*ids), np.equal.outer(IDS, COLUMN_IDS)
    reduction = PairwiseSigmoid()
    parts = in_parts(reduction, x, sizes, which)
    terms = reduction.finish(merged(reduction, parts))
    assert len(terms) == reduction.count
    assert_all_close(terms, [sigmoid_losses(x, right)])


REDUCTIONS = {
    "softmax": lambda: OnlineSoftmax(),
    "with_shares": softmax,
    "all_terms": lambda: softmax(bar=normal(ROWS, seed=7)),
    "questions": lambda: PairwiseSigmoid(),
}
each_reduction = pytest.mark.parametrize(
    "reduction", REDUCTIONS.values(), ids=REDUCTIONS
)

# Logits of three shards of two columns. −inf is a masked column.
shards = arrays.arrays(
    "float32",
    (ROWS, COLUMNS),
    elements=strategies.floats(-50, 50, width=32) | strategies.just(-np.inf),
)


@each_reduction
@hypothesis.given(x=shards)
@hypothesis.settings(max_examples=25, deadline=None)
def test_it_does_not_matter_which_shards_are_merged_first(reduction, x):
    reduction = reduction()
    parts = in_parts(reduction, x, (2, 2, 2), targets())
    expected = merged(reduction, parts)
    for a, b, c in itertools.permutations(parts):
        for sums in (
            merged(reduction, [a, b, c]),
            reduction.merge(a, reduction.merge(b, c)),
        ):
            assert_all_close(sums, expected, rtol=1e-5, atol=1e-5)


@each_reduction
@hypothesis.given(x=shards)
@hypothesis.settings(max_examples=25, deadline=None)
def test_no_columns_change_nothing(reduction, x):
    reduction = reduction()
    (sums,) = in_parts(reduction, x, (COLUMNS,), targets())
    none = reduction.init(ops.zeros(ROWS))
    for result in reduction.merge(sums, none), reduction.merge(none, sums):
        for one, other in zip(result, sums, strict=True):
            np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


@pytest.mark.float64
@pytest.mark.parametrize(
    ("reduction", "differentiable"),
    [(lambda: softmax("float64"), 3), (PairwiseSigmoid, 1)],
    ids=["softmax", "questions"],
)
def test_back_is_the_derivative(reduction, differentiable):
    """Of each block from the sums of all: the others are merged in."""
    reduction = reduction()
    x = normal(ROWS, COLUMNS, seed=3).astype("float64")
    upstream = np.zeros((reduction.count, ROWS))
    upstream[:differentiable] = normal(differentiable, ROWS, seed=5)
    upstream = [tensor(y) for y in upstream]
    zeros = ops.zeros(ROWS, dtype="float64")

    def value(x):
        sums = reduction.add(reduction.init(zeros), x, targets())
        terms = reduction.finish(sums)
        return sum(y * z for y, z in zip(upstream, terms, strict=True))

    sums = merged(reduction, in_parts(reduction, x, (2, 4), targets()))
    expected = finite_differences(value, x)
    for start, size in (0, 2), (2, 4):
        block = x[:, start : start + size]
        result = reduction.columns(start, size).back(
            upstream, sums, tensor(block), targets().columns(start, size)
        )
        np.testing.assert_allclose(
            to_numpy(result), expected[:, start : start + size], atol=1e-8
        )


@pytest.mark.parametrize("upstream", [1.0, np.inf, -np.inf, np.nan])
def test_a_row_whose_logits_are_all_masked_has_no_gradient(upstream):
    x = np.full((ROWS, COLUMNS), -np.inf, "float32")
    reduction = softmax()
    (sums,) = in_parts(reduction, x, (COLUMNS,), targets())
    above = [ops.full((ROWS,), upstream)] * reduction.count
    block = reduction.back(above, sums, tensor(x), targets())
    np.testing.assert_array_equal(to_numpy(block), 0)


def weights(**changed):
    chosen = {
        "nll": np.array([1.0, 0.0, 2.0, 0.5], "float32"),
        "spread": np.array([0.0, 0.0, 0.3, 1.0], "float32"),
        "squared": np.array([0.5, 0.0, 0.0, 2.0], "float32"),
        **changed,
    }
    return {name: tensor(x) for name, x in chosen.items() if x is not None}


def some_terms():
    """As `finish` returns them without a bar."""
    return tuple(tensor(x) for x in normal(4, ROWS, seed=2))


@pytest.mark.parametrize(
    "left_out", [(), ("spread",), ("squared",), ("spread", "squared")], ids=str
)
def test_the_loss_is_the_weighted_sum_of_the_terms(left_out):
    chosen = weights(**dict.fromkeys(left_out))
    terms = some_terms()
    parts = {"nll": terms[0], "spread": terms[1], "squared": terms[2] ** 2}
    expected = sum(to_numpy(w) * to_numpy(parts[k]) for k, w in chosen.items())
    assert_all_close([SoftmaxLoss(**chosen).of(terms)], [expected])


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("index", range(3))
def test_the_loss_knows_its_derivative_by_the_terms(index, squared):
    loss = SoftmaxLoss(**weights(**({} if squared else {"squared": None})))
    terms = some_terms()

    def of(x):
        # 0 · x: on PyTorch what does not depend on x has no gradient at all.
        return 0 * x + loss.of((*terms[:index], x, *terms[index + 1 :]))

    expected, _ = gradient(of, terms[index])
    result = loss.back(terms)
    assert len(result) == len(terms)
    assert_all_close([result[index]], [expected])
    np.testing.assert_array_equal(to_numpy(result[3]), 0)


@pytest.mark.parametrize("name", ["nll", "spread", "squared"])
def test_the_loss_knows_its_derivative_by_its_weights(name):
    chosen, terms = weights(), some_terms()

    def of(x):
        return SoftmaxLoss(**{**chosen, name: x}).of(terms)

    expected, _ = gradient(of, chosen[name])
    slopes = SoftmaxLoss(**chosen).slopes(terms)
    assert_all_close([slopes[name]], [expected])


def test_only_the_weights_that_there_are_have_a_derivative():
    loss = SoftmaxLoss(weights()["nll"])
    assert loss.slopes(some_terms()).keys() == {"nll"}


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_weighs_nothing_may_be_anything(bad):
    """0 · ∞ is 0, in the loss and in each of its derivatives."""
    terms = normal(4, ROWS, seed=2).copy()
    terms[:3, 1] = bad
    terms = tuple(tensor(x) for x in terms)
    loss = SoftmaxLoss(**weights())
    slopes = loss.slopes(terms).values()
    for x in loss.of(terms), *loss.back(terms)[:3], *slopes:
        x = to_numpy(x)
        assert x[1] == 0
        assert np.all(np.isfinite(x))
    for name, weight in weights().items():
        result, _ = gradient(
            lambda x, name=name: SoftmaxLoss(**{**weights(), name: x}).of(
                terms
            ),
            weight,
        )
        assert result[1] == 0
