"""What a threshold does to two histograms of scores, and figures of merit.

Every function takes a `Curve`, and computes in the numbers it was made of: in
float32 tensors by `keras.ops` within a training step, in NumPy's float64 from
exact counts on the host.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_xent.ops.prefix import (
    in_blocks,
    is_compiled,
    largest_prefix_sum,
    pairs_in_order,
    prefix_sums,
    row_sums,
    total,
)


class Alikeness(NamedTuple):
    """How alike the pairs in each bin are: the similarity, or -distance.

    `low` and `high` are the ends of the bins, `middle` what stands for them.
    Float32 tensors or float64 NumPy arrays `[B]`, in the order of the bins.
    """

    low: object
    middle: object
    high: object


class Curve:
    """The error rates at every threshold between bins.

    Bins come in the order of scores, those that are most alike first. Point k
    is the decision "the first k bins are matches", for k from 0 to their
    number B:

        false_match[k]     = Σ_{i<k} non_match_i / N   rises from 0 to 1
        false_non_match[k] = Σ_{i≥k} match_i / M       falls from 1 to 0
        true_match[k]      = 1 - false_non_match[k]

    Each is summed from its own small end, so that rates near 0 are right to a
    relative 1e-6.

    Args:
        non_match, match: Weight in each bin, `[B]`, from the most alike on:
            float32 tensors, or float64 NumPy arrays.
        xp: `keras.ops` or `numpy`, whichever the weights belong to.
        alike: None, or a function that gives the `Alikeness` of the bins, for
            figures that depend on more than the order of scores.
        ends: The first and the last point that a threshold gives. By default
            all are.
    """

    def __init__(self, non_match, match, xp=ops, alike=None, ends=(0, None)):
        self.non_match, self.match, self.xp = non_match, match, xp
        self._alike = alike
        first, last = ends
        self.ends = (first, match.shape[0] if last is None else last)

    @functools.cached_property
    def alike(self):
        return self._alike()

    @functools.cached_property
    def non_match_sums(self):
        return prefix_sums(self.non_match, self.xp)

    @functools.cached_property
    def match_sums(self):
        return prefix_sums(self.match, self.xp)

    @functools.cached_property
    def false_non_match_sums(self):
        flip = self.xp.flip
        sums = prefix_sums(flip(self.match, axis=0), self.xp)
        return flip(sums, axis=0)

    @functools.cached_property
    def weights(self):
        """Of both, `[2, B]`: what is read at once costs half."""
        return self.xp.stack([self.non_match, self.match])

    @functools.cached_property
    def totals(self):
        compiled = is_compiled(self.match, self.xp)
        of = self.blocks if compiled else self
        return total(of.weights, self.xp)

    @property
    def non_matches(self):
        """The weight of all of them."""
        return self.totals[0]

    @property
    def matches(self):
        """The weight of all of them."""
        return self.totals[1]

    @functools.cached_property
    def blocks(self):
        """The curve with many neighboring bins as one: little to read."""
        sums = row_sums(in_blocks(self.weights, self.xp), self.xp)
        return Curve(sums[0], sums[1], self.xp)

    def around(self, block_of):
        """The part of the curve that is one of its `blocks`, with its ends.

        Its rates are those of the whole: what lies outside comes first and
        last, as one bin each. The whole where nothing is compiled: there it
        takes fewer operations to read all of it.

        Args:
            block_of: Which one, a function of the curve of the blocks.
        """
        xp = self.xp
        if not is_compiled(self.match, xp):
            return self
        blocks = self.blocks
        block = block_of(blocks)
        parts = []
        for bins, x in (
            (blocks.non_match, self.non_match),
            (blocks.match, self.match),
        ):
            place = xp.arange(bins.shape[0], dtype="int32")
            inside = xp.take(in_blocks(x, xp), block, axis=0)
            before = xp.sum(xp.where(place < block, bins, 0.0))
            after = xp.sum(xp.where(place > block, bins, 0.0))
            parts.append(xp.concatenate([before[None], inside, after[None]]))
        return Curve(*parts, xp)

    @functools.cached_property
    def false_match(self):
        return self.non_match_sums / self.non_matches

    @functools.cached_property
    def false_non_match(self):
        return self.false_non_match_sums / self.false_non_match_sums[0]

    @functools.cached_property
    def true_match(self):
        return self.match_sums / self.match_sums[-1]

    def ordered(self, matches_first):
        """The curve if all scores of a bin were in one order; NumPy only.

        Matches first is the best that may hide in the bins, non-matches first
        the worst: every curve of scores that fall into these bins lies between
        the two.
        """
        none = np.zeros_like(self.match)
        match, non_match = (self.match, none), (none, self.non_match)
        if not matches_first:
            match, non_match = match[::-1], non_match[::-1]
        match, non_match = (
            np.stack(pair, axis=1).ravel() for pair in (match, non_match)
        )
        # Between two of the points there is now one more.
        ends = tuple(2 * point for point in self.ends)
        return Curve(non_match, match, np, self._alike, ends)


def equal_error_rate(curve):
    """The rate at which both errors are equally frequent.

        EER = false_match = false_non_match, on straight lines between points

    Args:
        curve: `Curve`.

    Returns:
        Scalar in [0, 1].

    Example:

    >>> import numpy as np
    >>> from keras_xent.ops import roc
    >>> non_match, match = np.array([[0.0, 1, 0, 1], [1, 0, 1, 0]])
    >>> curve = roc.Curve(non_match, match, np)
    >>> float(roc.equal_error_rate(curve))
    0.5
    """
    xp = curve.xp
    part = curve.around(lambda blocks: _first_of_more_errors(blocks) - 1)
    after = _first_of_more_errors(part)
    x, y = (
        (xp.take(rate, after - 1), xp.take(rate, after))
        for rate in (part.false_match, part.false_non_match)
    )
    return crossing_of_segment((x[0], y[0]), (x[1], y[1]))


def _first_of_more_errors(curve):
    """The first point with as many false matches as false non-matches."""
    more = curve.false_non_match > curve.false_match
    # 0 where the curve is NaN.
    return curve.xp.clip(curve.xp.sum(more), 1, curve.match.shape[0])


def crossing_of_segment(start, end):
    """The rate where the line from `start` to `end` has equal errors.

    Args:
        start, end: Points (false_match, false_non_match); of the first the
            second number is no smaller, of the second no larger.
    """
    gap, next_gap = start[1] - start[0], end[1] - end[0]
    return start[0] + gap / (gap - next_gap) * (end[0] - start[0])


def match_accuracy(curve, balanced):
    """The largest share of right decisions that a threshold gives.

        accuracy          = 1 - min_k (false matches + false non-matches) / all
        balanced accuracy = 1 - min_k (false_match[k] + false_non_match[k]) / 2

    Args:
        curve: `Curve`.
        balanced: Whether to give matches and non-matches equal say.

    Returns:
        Scalar in [0, 1].
    """
    # Right decisions at point k less those at point 0, which are the
    # non-matches.
    xp = curve.xp
    if balanced:
        match, non_match = curve.match / curve.matches, curve.non_match
        non_match = non_match / curve.non_matches
        at_first, of = 1.0, 2.0
    else:
        match, non_match = curve.match, curve.non_match
        at_first, of = curve.non_matches, curve.matches + curve.non_matches
    gain = largest_prefix_sum(match - non_match, curve.ends, xp)
    return (at_first + gain) / of


def match_auc(curve):
    """Probability that a match scores more alike than a non-match.

        AUC = P(match more alike) + P(both in one bin) / 2

    the area under the ROC. Computed from 1 - AUC, which keeps its digits.

    Args:
        curve: `Curve`.

    Returns:
        Scalar in [0, 1].

    References:
        Hanley and McNeil, "The meaning and use of the area under a receiver
        operating characteristic (ROC) curve", Radiology 1982.
    """
    xp = curve.xp
    wrong = pairs_in_order(curve.non_match, curve.match / curve.matches, xp)
    return 1.0 - wrong / curve.non_matches


def detection_cost(
    false_match, false_non_match, p_target, c_miss, c_false_alarm
):
    """Expected cost of a decision, over that of the better trivial one.

        DCF = (c_miss p false_non_match + c_false_alarm (1 - p) false_match)
              / min(c_miss p, c_false_alarm (1 - p))

    Args:
        false_match, false_non_match: Rates, of one shape.
        p_target: p, the probability of a match where the system is used.
        c_miss, c_false_alarm: Costs of a false non-match and of a false match.

    Returns:
        Costs of the same shape; 1 for always, or never, saying match.

    References:
        NIST 2016 Speaker Recognition Evaluation Plan, section 3.1.
    """
    miss_weight = c_miss * p_target
    false_weight = c_false_alarm * (1.0 - p_target)
    unit = min(miss_weight, false_weight)
    return (
        miss_weight / unit * false_non_match + false_weight / unit * false_match
    )


def true_match_rate_at(curve, false_match_rate):
    """The largest share of matches found with so few false matches.

        max { true_match[k] : false_match[k] <= false_match_rate }

    Args:
        curve: `Curve`.
        false_match_rate: Number in [0, 1].

    Returns:
        Scalar in [0, 1].
    """
    xp = curve.xp

    def last(curve, most):
        count = xp.sum(curve.false_match <= false_match_rate)
        return xp.clip(count - 1, 0, most)  # 0 where the curve is NaN

    # Of the last point no block comes after.
    part = curve.around(lambda blocks: last(blocks, blocks.match.shape[0] - 1))
    return xp.take(part.true_match, last(part, part.match.shape[0]))


def precision(curve):
    """Share of matches among the first k bins, `[B + 1]`; 1 for none."""
    xp = curve.xp
    match, non_match = curve.match_sums, curve.non_match_sums
    called = match + non_match
    none = called <= 0
    return xp.where(none, 1.0, match / xp.where(none, 1.0, called))


def average_precision(curve):
    """Mean over the matches of the precision down to their bin.

        AP = Σ_k (true_match[k + 1] - true_match[k]) precision[k + 1]

    Args:
        curve: `Curve`.

    Returns:
        Scalar in [0, 1]. It depends on the share of matches in the data.

    References:
        As `sklearn.metrics.average_precision_score`.
    """
    share = curve.match / curve.matches
    return curve.xp.sum(share * precision(curve)[1:])


def least_average_precision(curve):
    """What the scores within bins cannot take the average precision below.

    Every bin has its non-matches first, and its matches arrive one after the
    other; in the limit of many small ones, a bin with m of them after TP
    matches and FP non-matches adds

        ∫_TP^{TP+m} x / (x + FP) dx = m - FP log(1 + m / (TP + FP))

    Args:
        curve: `Curve` of NumPy arrays.
    """
    before, false = curve.match_sums[:-1], curve.non_match_sums[1:]
    base = before + false
    ratio = np.divide(
        curve.match, base, out=np.zeros_like(base), where=base > 0
    )
    gain = curve.match - false * np.log1p(ratio)
    return gain.sum() / curve.matches


def d_prime(match_moments, non_match_moments, xp=ops):
    """How far apart the means are, in standard deviations.

        d' = (mean_m - mean_n) / sqrt((variance_m + variance_n) / 2)

    Args:
        match_moments, non_match_moments: Mean and variance of the scores.
        xp: `keras.ops` or `numpy`.

    Returns:
        Scalar.

    References:
        Daugman, "Biometric decision landscapes", University of Cambridge
        technical report 482, 2000.
    """
    spread = 0.5 * (match_moments[1] + non_match_moments[1])
    return (match_moments[0] - non_match_moments[0]) / xp.sqrt(spread)


def moments(weight, score, xp=ops):
    """Mean and variance of weighted scores; what weighs 0 plays no part."""
    present = weight > 0
    score = xp.where(present, score, 0.0)
    share = weight / total(weight, xp)
    mean = xp.sum(share * score)
    offset = xp.where(present, score - mean, 0.0)
    return mean, xp.sum(share * offset * offset)


def cllr(curve, match_llr, non_match_llr):
    """Cllr, what log-likelihood ratios cost over all priors, in bits.

        Cllr = (mean_m log2(1 + exp(-llr)) + mean_n log2(1 + exp(llr))) / 2

    Args:
        curve: `Curve`.
        match_llr, non_match_llr: Natural log-likelihood ratio of the matches
            and of the non-matches of each bin, `[B]`.

    Returns:
        Scalar, at least 0. Always saying 0 costs 1.

    References:
        Brümmer and du Preez, "Application-independent evaluation of speaker
        detection", Computer Speech and Language 2006.
    """
    xp = curve.xp

    def mean(weight, count, llr):
        present = weight > 0
        llr = xp.where(present, llr, 0.0)
        cost = xp.logaddexp(xp.zeros_like(llr), llr)
        return xp.sum(xp.where(present, weight * cost, 0.0)) / count

    both = mean(curve.match, curve.matches, -match_llr) + mean(
        curve.non_match, curve.non_matches, non_match_llr
    )
    return both / (2.0 * math.log(2.0))
