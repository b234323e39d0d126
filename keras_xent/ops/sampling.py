"""A sample of the classes, and how often each class is expected in it.

A loss over a sample stands for the loss over all classes if it knows how often
each class is expected in the sample. So expected counts have to be those of
what is drawn, and here they are: a class is a run of whole *units*, a draw is a
random whole number, and both read the same table.

With replacement, all units form one line, and `num_sampled` numbers are drawn
from it. Without, the classes are sorted by weight and parted into
`num_sampled` strata of about equal weight, each with the same number of units,
and every stratum gives one class. So no class comes twice, no draw is ever
rejected, and the expected count of a class, its units over those of its
stratum, is exact. A class as heavy as a stratum has one of its own and is in
every sample.

The tables are made on the host, once where the call is compiled, and on PyTorch
they stay on the device. A draw takes log₂(classes) look-ups.
"""

import dataclasses
import functools
import typing
import weakref

import keras
import numpy as np
from keras import ops

from keras_xent import _keras
from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks, crossentropy
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where

# Where 64 numbers lie among 10**6 ends. Under TensorFlow's XLA `searchsorted`
# compares each with all, 22 ms, and a bisection takes 0.3 ms; written out on
# PyTorch that takes 1.3 ms, and its own 0.02 ms. Two cores, no GPU.
BACKEND = keras.backend.backend()

# All units together: they fit into int32, which is what JAX has.
UNITS = 2**30

# Below it float64 loses digits.
SMALLEST = float(np.finfo("float64").tiny)

# The power of word counts that word2vec draws by.
WORD2VEC_POWER = 0.75

Seed: typing.TypeAlias = int | keras.random.SeedGenerator | None


class Candidates(typing.NamedTuple):
    """A sample of classes. The order is that of TensorFlow's samplers.

    Attributes:
        ids: The classes in the sample, int32 `(num_sampled,)`.
        true_expected_count: How often each label is expected in a sample,
            float32 of the shape of the labels.
        sampled_expected_count: How often each of `ids` is, float32
            `(num_sampled,)`.
    """

    ids: Tensor
    true_expected_count: Tensor
    sampled_expected_count: Tensor


@public_op
def log_uniform_sample(
    labels: TensorLike,
    num_sampled: int,
    classes: int,
    *,
    unique: bool = True,
    seed: Seed = None,
) -> Candidates:
    """Classes drawn by a log-uniform (Zipfian) distribution.

    ```
    P(k) = log((k + 2) / (k + 1)) / log(classes + 1)
    ```

    For classes that are numbered from the most to the least frequent, as the
    words of a vocabulary mostly are.

    Args:
        labels: Integer tensor of any shape: the classes whose expected counts
            are wanted besides.
        num_sampled: How many classes to draw, an int.
        classes: How many classes there are, an int.
        unique: Whether no class may come twice. If so, every stratum of the
            classes gives one (see the module's text), else the draws are
            independent.
        seed: An int for the same sample each time, or a
            `keras.random.SeedGenerator` for another one each time. None draws
            anew in eager calls; in a compiled step it would be drawn once.

    Returns:
        `Candidates`: ids, expected count of the labels, and of the ids. With
        `unique` the expected count is the probability to be in the sample,
        otherwise num_sampled · P. P is a whole multiple of 2**-30, at least
        one of them, and the counts are exact for it. A label that does not
        exist has the count NaN.

    Raises:
        ValueError: if `num_sampled` is not a whole number from 1, or not below
            the number of classes with `unique`; if `classes` is below 2; if
            `labels` in host memory hold what is no class id.

    References:
        [Jean et al., 2015](https://arxiv.org/abs/1412.2007). The distribution
        is that of TensorFlow's `log_uniform_candidate_sampler`. The samples
        without replacement differ: TensorFlow draws until the sample is full,
        and its expected counts depend on how long that took.

    Example:

    >>> from keras_xent import ops
    >>> ids, true_count, sampled_count = ops.log_uniform_sample(
    ...     [0, 999], num_sampled=10, classes=1000, seed=1
    ... )
    >>> len({int(k) for k in ids})
    10
    >>> print([f"{float(count):.4f}" for count in true_count])
    ['1.0000', '0.0014']
    """
    return draw(
        labels,
        _checked_table("log_uniform", classes, num_sampled, unique),
        seed,
    )


@public_op
def uniform_sample(
    labels: TensorLike,
    num_sampled: int,
    classes: int,
    *,
    unique: bool = True,
    seed: Seed = None,
) -> Candidates:
    """Classes drawn with the same probability each.

    ```
    P(k) = 1 / classes
    ```

    Args:
        labels: Integer tensor of any shape: the classes whose expected counts
            are wanted besides.
        num_sampled: How many classes to draw, an int.
        classes: How many classes there are, an int.
        unique: Whether no class may come twice. If so, every stratum of the
            classes gives one, else the draws are independent.
        seed: An int for the same sample each time, or a
            `keras.random.SeedGenerator` for another one each time. None draws
            anew in eager calls; in a compiled step it would be drawn once.

    Returns:
        `Candidates`: ids, expected count of the labels, and of the ids. With
        `unique` the expected count is the probability to be in the sample,
        otherwise num_sampled · P. A label that does not exist has the count
        NaN.

    Raises:
        ValueError: if `num_sampled` is not a whole number from 1, or not below
            the number of classes with `unique`; if `classes` is below 2; if
            `labels` in host memory hold what is no class id.

    References:
        [Bengio and Senécal, 2008](https://ieeexplore.ieee.org/document/4443871)

    Example:

    >>> from keras_xent import ops
    >>> candidates = ops.uniform_sample([3], 5, 10, unique=False, seed=1)
    >>> float(candidates.true_expected_count[0])
    0.5
    """
    table = _checked_table("uniform", classes, num_sampled, unique)
    return draw(labels, table, seed)


@public_op
def unigram_sample(
    labels: TensorLike,
    num_sampled: int,
    counts: TensorLike,
    *,
    power: float = WORD2VEC_POWER,
    unique: bool = True,
    seed: Seed = None,
) -> Candidates:
    """Classes drawn by how often they occur, or by any other weights.

    ```
    P(k) = counts_k^power / Σ_j counts_j^power
    ```

    The table is made from `counts` whenever the call is traced: in an eager
    loop that is work that grows with the classes.

    Args:
        labels: Integer tensor of any shape: the classes whose expected counts
            are wanted besides.
        num_sampled: How many classes to draw, an int.
        counts: One non-negative number per class, on the host: word counts, or
            weights that something has learned. A class with 0 is never drawn,
            and as a label it has the expected count 0.
        power: 0.75 as in word2vec draws rare classes more often than they
            occur; 1 draws them as often, 0 all alike.
        unique: Whether no class may come twice. If so, every stratum of the
            classes gives one, else the draws are independent.
        seed: An int for the same sample each time, or a
            `keras.random.SeedGenerator` for another one each time. None draws
            anew in eager calls; in a compiled step it would be drawn once.

    Returns:
        `Candidates`: ids, expected count of the labels, and of the ids. With
        `unique` the expected count is the probability to be in the sample,
        otherwise num_sampled · P. A label that does not exist has the count
        NaN.

    Raises:
        ValueError: if `num_sampled` is not a whole number from 1, or not below
            the number of classes that can be drawn with `unique`; if `counts`
            is no vector of finite numbers, holds a negative one, or zeros
            only; if `power` is negative; if `labels` in host memory hold what
            is no class id.

    References:
        [Mikolov et al., 2013](https://arxiv.org/abs/1310.4546), the power.

    Example:

    >>> from keras_xent import ops
    >>> candidates = ops.unigram_sample(
    ...     [0], 4, counts=[16, 1, 0], unique=False, seed=1
    ... )
    >>> print(f"{float(candidates.true_expected_count[0]):.4f}")
    3.5556
    """
    return draw(labels, unigram_table(counts, power, num_sampled, unique), seed)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Which number means which class, on the host.

    Attributes:
        ends: The number after the last one of each class, int32 `(drawn,)`,
            increasing.
        order: The class of each of `ends`, int32; None if they are in order.
        counts: The expected count of every class, float32 `(classes,)`.
        units: A draw is a number below this one.
        strata: Whether draw i is from stratum i, or all are from one.
        num_sampled: How many draws there are.
    """

    ends: np.ndarray
    order: np.ndarray | None
    counts: np.ndarray
    units: int
    strata: bool
    num_sampled: int


# The columns of each table as tensors, by device. Keras copies an array to make
# a tensor of it: with 10⁶ classes half of the time of a draw, and more where a
# GPU has to wait for it.
KEPT: weakref.WeakKeyDictionary[Table, dict] = weakref.WeakKeyDictionary()


def _checked_table(name, classes, num_sampled, unique):
    # Before the cache, to which 4.0 and True are 4 and 1.
    checks.whole("classes", classes, 2)
    check_num_sampled(num_sampled)
    return named_table(name, classes, num_sampled, unique)


@functools.lru_cache(maxsize=16)
def named_table(name, classes, num_sampled, unique):
    """The table of a distribution that is known by its name."""
    checks.whole("classes", classes, 2)
    if name == "log_uniform":
        weights = np.log1p(1 / np.arange(1, classes + 1, dtype="float64"))
    else:
        weights = np.ones(classes)
    return _table(weights, num_sampled, unique)


def unigram_table(counts, power, num_sampled, unique):
    """The table of counts to a power."""
    check_counts(counts)
    checks.number("power", power, 0)
    counts = np.asarray(counts, "float64")
    # The largest is 1, so that no power overflows, and none goes down to 0.
    weights = np.maximum((counts / counts.max()) ** power, SMALLEST)
    weights = np.where(counts > 0, weights, 0)
    return _table(weights, num_sampled, unique)


def check_counts(counts):
    """Raises unless `counts` can be drawn by."""
    counts = checks.vector("counts", checks.array("counts", counts))
    if counts.size < 2 or not np.any(counts > 0):
        raise ValueError(
            "`counts` must hold one number per class, for two classes at least "
            f"and not all of them 0. Received: counts={counts!r}"
        )


def check_num_sampled(num_sampled):
    """Raises unless so many classes can be drawn from large enough a set."""
    checks.whole("num_sampled", num_sampled, 1)


def draw(labels, table, seed):
    """Candidates from a table."""
    if not (seed is None or isinstance(seed, keras.random.SeedGenerator)):
        checks.whole("seed", seed, 0)
    numbers = keras.random.randint(
        (table.num_sampled,), 0, table.units, dtype="int32", seed=seed
    )
    if table.strata:
        first = table.units * np.arange(table.num_sampled, dtype="int32")
        numbers = numbers + ops.convert_to_tensor(first)
    ends, order, counts = _tensors(table, numbers)
    ids = _place(ends, numbers)
    if order is not None:
        ids = ops.take(order, ids)
    classes = table.counts.size
    checks.label_range(labels, classes)
    labels = checks.tensor("labels", labels)
    labels = crossentropy.integer_labels(
        labels, (*labels.shape, classes), len(labels.shape)
    )
    exists = (labels >= 0) & (labels < classes)
    true_count = ops.take(counts, where(exists, labels, 0))
    return Candidates(
        ids, where(exists, true_count, np.nan), ops.take(counts, ids)
    )


def _tensors(table, like):
    """Ends, order and counts of a table as tensors, where `like` is."""
    if not _keras.computes_now(like):
        return _columns(table)
    kept = KEPT.setdefault(table, {})
    if like.device not in kept:
        kept[like.device] = _columns(table)
    return kept[like.device]


def _columns(table):
    columns = table.ends, table.order, table.counts
    return [x if x is None else ops.convert_to_tensor(x) for x in columns]


def _place(ends, numbers):
    """How many of the increasing `ends` are not above each number."""
    if BACKEND != "tensorflow":
        return ops.searchsorted(ends, numbers, side="right")
    size = ends.shape[0]
    place = ops.zeros_like(numbers)
    for bit in reversed(range(size.bit_length())):
        further = place + 2**bit
        end = ops.take(ends, ops.minimum(further, size) - 1)
        place = ops.where((further <= size) & (end <= numbers), further, place)
    return place


def _table(weights, num_sampled, unique):
    """The table of some weights, of which one at least is above 0."""
    check_num_sampled(num_sampled)
    drawn = int(np.count_nonzero(weights))
    if unique and num_sampled >= drawn:
        raise ValueError(
            "Without replacement, fewer classes can be drawn than there are: "
            f"{drawn} have a weight above 0. Received: num_sampled="
            f"{num_sampled}. Draw fewer, use unique=False, or take the loss "
            "over all classes: SparseSoftmaxCrossentropy or LinearCrossentropy."
        )
    order = None
    if drawn < weights.size or np.any(np.diff(weights) > 0):
        order = np.argsort(-weights, kind="stable")[:drawn].astype("int32")
    ranked = weights if order is None else weights[order]
    first = _strata(ranked, num_sampled) if unique else np.zeros(1, "int64")
    units = UNITS >> (len(first) - 1).bit_length()
    ends = _ends(ranked, first, units)
    counts = np.zeros(weights.size, "float32")
    each = np.diff(ends, prepend=0) / units
    counts[slice(None) if order is None else order] = (
        each if unique else num_sampled * each
    )
    return Table(
        ends.astype("int32"), order, counts, units, unique, num_sampled
    )


def _strata(weights, number):
    """Where each stratum begins among falling weights."""
    place = np.arange(number)
    rest = np.cumsum(weights[::-1])[::-1][:number]
    # A class as heavy as the share of all strata that are left stands alone.
    heavy = weights[:number] * (number - place) >= rest
    alone = min(
        int(np.argmin(heavy)) if not heavy.all() else number, number - 1
    )
    shared = number - alone
    total = np.cumsum(weights[alone:])
    wanted = total[-1] * np.arange(shared) / shared
    first = alone + np.searchsorted(total, wanted, side="right")
    # Rounding must leave no stratum empty.
    steps = np.arange(shared)
    first = np.maximum.accumulate(first - steps) + steps
    first = np.minimum(first, weights.size - shared + steps)
    first[0] = alone
    return np.concatenate([np.arange(alone), first])


def _ends(weights, first, units):
    """The end of each class: a unit for each, and the others by weight."""
    sizes = np.diff(first, append=weights.size)
    if sizes.max() > units:
        raise ValueError(
            f"A sample of {len(first)} classes can be drawn from {units} "
            f"classes to each of them, and {sizes.max()} would be needed. Draw "
            "fewer, or use unique=False."
        )
    stratum = np.repeat(np.arange(len(first)), sizes)
    # Every stratum sums to 1, whatever its weight: the sums lose no digits.
    whole = np.add.reduceat(weights, first)
    share = np.cumsum(weights / whole[stratum]) - stratum
    rank = np.arange(1, weights.size + 1) - first[stratum]
    ends = rank + np.floor(np.clip(share, 0, 1) * (units - sizes)[stratum])
    ends[first + sizes - 1] = units
    return stratum * units + ends.astype("int64")
