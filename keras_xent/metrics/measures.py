"""What the threshold metrics measure: value, bounds, and the threshold implied.

A measure is a few numbers and knows a `Curve` (`keras_xent.ops.roc`). So the
same few lines serve a metric of its own, in float32 within a training step;
`VerificationMetrics`, where several measures share one curve; and the host,
where bounds come from exact counts in float64.
"""

import dataclasses

import numpy as np

from keras_xent.ops import checks, hull, roc


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure of merit that depends on the order of scores alone.

    Its name is that of the metric. `direction` says which way is better, "up"
    or "down".
    """

    direction = "down"

    def value(self, curve):
        """The figure, a scalar in the numbers that the curve is made of."""
        raise NotImplementedError

    def bounds(self, curve):
        """The least and the greatest that exact scores may give.

        Within a bin the order of matches and non-matches is not known. All
        matches first is the best that it can be, all non-matches first the
        worst.
        """
        ends = [
            float(self.value(curve.ordered(matches_first)))
            for matches_first in (True, False)
        ]
        return min(ends), max(ends)

    def badness(self, curve):
        """What the threshold makes least, for each point; NumPy only.

        By default the sum of both error rates (Youden's threshold), times the
        number of pairs, so that whole counts stay whole and ties are seen.
        """
        return (
            curve.non_match_sums * curve.matches
            + curve.false_non_match_sums * curve.non_matches
        )

    def threshold(self, curve):
        """A score the measure implies of itself, or None to go by `badness`."""
        return None


@dataclasses.dataclass(frozen=True)
class MatchAccuracy(Measure):
    balanced: bool = False
    direction = "up"

    def value(self, curve):
        return roc.match_accuracy(curve, self.balanced)

    def badness(self, curve):
        if self.balanced:
            return super().badness(curve)
        return curve.non_match_sums + curve.false_non_match_sums


@dataclasses.dataclass(frozen=True)
class EqualErrorRate(Measure):
    method: str = "linear"

    def __post_init__(self):
        if self.method not in ("linear", "convex_hull"):
            raise ValueError(
                "`method` must be 'linear', for straight lines between the "
                "points of the ROC, or 'convex_hull', for those of its convex "
                f"hull. Received: method={self.method!r}"
            )

    def value(self, curve):
        if self.method == "linear":
            return roc.equal_error_rate(curve)
        return hull.equal_error_rate(curve)

    def badness(self, curve):
        """How far apart the two rates are, times the number of pairs."""
        return np.abs(
            curve.non_match_sums * curve.matches
            - curve.false_non_match_sums * curve.non_matches
        )


@dataclasses.dataclass(frozen=True)
class MinDetectionCost(Measure):
    p_target: float = 0.01
    c_miss: float = 1.0
    c_false_alarm: float = 1.0

    def __post_init__(self):
        for name in ("c_miss", "c_false_alarm"):
            _positive(name, getattr(self, name))
        checks.number("p_target", self.p_target, 0.0, 1.0)
        if self.p_target in (0.0, 1.0):
            raise ValueError(
                "`p_target` is the probability of a match where the system is "
                "used, more than 0 and less than 1. Received: p_target="
                f"{self.p_target}"
            )

    def cost(self, false_match, false_non_match):
        costs = self.p_target, self.c_miss, self.c_false_alarm
        return roc.detection_cost(false_match, false_non_match, *costs)

    def value(self, curve):
        return curve.xp.min(self.badness(curve))

    def badness(self, curve):
        return self.cost(curve.false_match, curve.false_non_match)


@dataclasses.dataclass(frozen=True)
class DetectionCost(MinDetectionCost):
    # The points of the curve between which the threshold lies.
    points: tuple = (1, 1)

    def value(self, curve):
        first, last = self.points
        x, y = (
            0.5 * (rate[first] + rate[last])
            for rate in (curve.false_match, curve.false_non_match)
        )
        return self.cost(x, y)

    def bounds(self, curve):
        first, last = self.points
        x, y = curve.false_match, curve.false_non_match
        ends = self.cost(x[first], y[last]), self.cost(x[last], y[first])
        return tuple(float(end) for end in ends)


@dataclasses.dataclass(frozen=True)
class MatchAUC(Measure):
    direction = "up"

    def value(self, curve):
        return roc.match_auc(curve)


@dataclasses.dataclass(frozen=True)
class TrueMatchRateAt(Measure):
    false_match_rate: float = 1e-3
    direction = "up"

    def __post_init__(self):
        checks.number("false_match_rate", self.false_match_rate, 0.0, 1.0)

    def value(self, curve):
        return roc.true_match_rate_at(curve, self.false_match_rate)

    def badness(self, curve):
        few = curve.false_match <= self.false_match_rate
        return np.where(few, curve.false_non_match, np.inf)


@dataclasses.dataclass(frozen=True)
class AveragePrecision(Measure):
    direction = "up"

    def value(self, curve):
        return roc.average_precision(curve)

    def bounds(self, curve):
        best = roc.average_precision(curve.ordered(True))
        return float(roc.least_average_precision(curve)), float(best)

    def badness(self, curve):
        """Of the largest F1, 2 TP / (2 TP + FP + FN)."""
        right = curve.match_sums
        wrong = curve.non_match_sums + curve.false_non_match_sums
        return -2 * right / (2 * right + wrong)


@dataclasses.dataclass(frozen=True)
class MinCllr(Measure):
    def value(self, curve):
        return hull.min_cllr(curve)


@dataclasses.dataclass(frozen=True)
class Cllr(Measure):
    def value(self, curve):
        llr = curve.alike.middle
        return roc.cllr(curve, llr, llr)

    def bounds(self, curve):
        low, high = curve.alike.low, curve.alike.high
        best = roc.cllr(curve, high, low)
        worst = roc.cllr(curve, low, high)
        return float(best), float(worst)

    def threshold(self, curve):
        return 0.0


@dataclasses.dataclass(frozen=True)
class DPrime(Measure):
    direction = "up"

    def _moments(self, curve):
        xp, middle = curve.xp, curve.alike.middle
        # Scores of any size: their squares must stay within float32.
        seen = (curve.match + curve.non_match) > 0
        size = xp.max(xp.where(seen, xp.abs(middle), 0.0))
        size = xp.where(size > 0, size, xp.ones_like(size))
        return [
            roc.moments(weight, middle / size, xp)
            for weight in (curve.match, curve.non_match)
        ], size

    def value(self, curve):
        return roc.d_prime(*self._moments(curve)[0], curve.xp)

    def bounds(self, curve):
        with np.errstate(invalid="ignore", over="ignore"):
            return self._bounds(curve)

    def _bounds(self, curve):
        moments, size = self._moments(curve)
        # No score is farther from the middle of its bin than half its width,
        # and standard deviations obey the triangle inequality.
        low, _, high = curve.alike
        shift, blur = 0.0, 0.0
        for weight in (curve.match, curve.non_match):
            seen = weight > 0
            share = weight[seen] / weight.sum()
            half = 0.5 * (high[seen] - low[seen]) / size
            shift += np.sum(share * half)
            blur += 0.5 * np.sum(share * half**2)
        (mean, variance), (other_mean, other_variance) = moments
        gap = mean - other_mean
        spread, blur = np.sqrt([0.5 * (variance + other_variance), blur])
        if not np.isfinite(gap + shift + spread + blur):
            return -np.inf, np.inf
        few, many = max(spread - blur, 0.0), spread + blur

        def over(gap, spread):
            if spread == 0.0:
                return float(np.sign(gap) * np.inf) if gap else 0.0
            return float(gap / spread)

        least, most = gap - shift, gap + shift
        return (
            over(least, few if least < 0 else many),
            over(most, many if most < 0 else few),
        )

    def threshold(self, curve):
        with np.errstate(invalid="ignore"):
            moments, size = self._moments(curve)
        (mean, variance), (other, other_variance) = moments
        spread, other_spread = np.sqrt([variance, other_variance])
        total = spread + other_spread
        share = spread / total if total > 0 else 0.5
        return (mean + share * (other - mean)) * size


def _positive(name, value):
    checks.number(name, value, 0.0)
    if value == 0:
        raise ValueError(
            f"`{name}` must be more than 0: an error without a cost has no "
            f"best threshold. Received: {name}={value!r}"
        )
