"""How good the distances of siamese_speaker.py are: figures and tables."""

import dataclasses
import time

import keras
import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
)

import keras_xent


@dataclasses.dataclass
class Result:
    """The figures of one training on one set of speakers."""

    mode: str
    group: str  # "seen" or "unseen"
    seed: int
    score: np.ndarray  # between all utterances
    speaker: np.ndarray
    threshold: float
    similarity: bool = False  # whether large scores mean alike
    reported: float = np.nan  # what Keras calls accuracy in mode naive
    equal_error: float = dataclasses.field(init=False)
    accuracy: float = dataclasses.field(init=False)
    missed: float = dataclasses.field(init=False)  # of the matches
    false_matches: float = dataclasses.field(init=False)  # of the others
    always_no: float = dataclasses.field(init=False)  # always "different"
    min_cost: float = dataclasses.field(init=False)  # p_target 0.05
    misclassified: float = dataclasses.field(init=False)
    rand: float = dataclasses.field(init=False)  # adjusted Rand index
    information: float = dataclasses.field(init=False)  # normalized, mutual
    metric: object = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        match, score = every_pair(self.score, self.speaker)
        self.metric, cost = verification(match, score, self.similarity)
        self.equal_error = float(self.metric.result())
        self.min_cost = float(cost.result())
        alike = score < self.threshold
        if self.similarity:
            alike = score >= self.threshold
        self.missed = np.mean(~alike[match])
        self.false_matches = np.mean(alike[~match])
        self.accuracy = np.mean(alike == match)
        self.always_no = np.mean(~match)
        groups = cluster(self.distance, len(np.unique(self.speaker)))
        self.misclassified = keras_xent.metrics.cluster_misclassification_rate(
            self.speaker, groups
        )
        self.rand = adjusted_rand_score(self.speaker, groups)
        self.information = normalized_mutual_info_score(self.speaker, groups)

    @property
    def distance(self):
        """Small for what is alike, never negative, the same both ways."""
        distance = (self.score + self.score.T) / 2
        if self.similarity:
            distance = distance.max() - distance
        return distance

    @property
    def speakers(self):
        return f"{len(np.unique(self.speaker))} {self.group}"


def every_pair(distance, speaker):
    """Every two utterances once: is it a match, and how far apart?"""
    a, b = np.triu_indices(len(speaker), k=1)
    return speaker[a] == speaker[b], distance[a, b]


def tune_threshold(score, speaker, similarity, objective=None):
    """The best threshold over all pairs, by the objective of `TuneThreshold`.

    `None` is the accuracy, balanced where matches are under a quarter.
    """
    match, score = every_pair(score, speaker)
    if objective is None:
        objective = "balanced" if np.mean(match) < 0.25 else "accuracy"
    bins = {"similarity": similarity, "resolution": 9}
    lowest, highest = float(score.min()), float(score.max())
    if similarity and -np.inf < lowest < highest < np.inf:
        # Where a gap parts all matches from the others, its middle is meant.
        # Of bins that are fine around 0, the middle one would be near 0.
        bins["range"] = (lowest, highest)
    if objective == "equal_error":
        metric = keras_xent.metrics.EqualErrorRate(**bins)
    elif isinstance(objective, str):
        metric = keras_xent.metrics.MatchAccuracy(
            balanced=objective == "balanced", **bins
        )
    else:
        metric = keras_xent.metrics.MinDetectionCost(p_target=objective, **bins)
    metric.update_state(match, score)
    return float(metric.threshold)


def verification(match, score, similarity):
    """Equal error rate and least detection cost, metrics fed with the pairs."""
    bins = {"similarity": similarity, "resolution": 9}
    rate = keras_xent.metrics.EqualErrorRate(**bins)
    cost = keras_xent.metrics.MinDetectionCost(p_target=0.05, **bins)
    rate.update_state(match, score)
    cost.histogram.merge_state([rate.histogram])
    return rate, cost


def cluster(distance, count):
    """The utterances in so many groups, by average linkage."""
    return AgglomerativeClustering(
        n_clusters=count, metric="precomputed", linkage="average"
    ).fit_predict(distance)


COLUMNS = {
    "equal error": "equal_error",
    "missed": "missed",
    "false matches": "false_matches",
    "accuracy": "accuracy",
    'always "no"': "always_no",
    "minDCF": "min_cost",
    "misclassified": "misclassified",
    "ARI": "rand",
    "NMI": "information",
    "Keras says": "reported",
}


# Not shares, so not in percent.
PLAIN = {"minDCF", "ARI", "NMI"}


def print_table(results):
    """One row per mode and group; with several seeds also mean and spread."""
    columns = {
        title: name
        for title, name in COLUMNS.items()
        if not all(np.isnan(getattr(one, name)) for one in results)
    }
    width = {title: max(len(title), 7) + 2 for title in columns}
    first = max(4, *(len(one.mode) for one in results)) + 1
    print(
        f"\n{'':{first}}{'speakers':>11}{'seed':>7}{'threshold':>11}"
        + "".join(f"{title:>{width[title]}}" for title in columns)
    )

    def row(one, seed, threshold, figures):
        line = f"{one.mode:{first}}{one.speakers:>11}{seed:>7}{threshold:>11}"
        for title, figure in zip(columns, figures, strict=True):
            cell = f"{100 * figure:.2f} %"
            if title in PLAIN:
                cell = f"{figure:.3f}"
            if np.isnan(figure):
                cell = "-"
            line += f"{cell:>{width[title]}}"
        print(line)

    for same in grouped(results):
        figures = np.array(
            [[getattr(one, name) for name in columns.values()] for one in same]
        )
        for one, values in zip(same, figures, strict=True):
            row(one, one.seed, f"{one.threshold:.3g}", values)
        if len(same) > 1:
            row(same[0], "mean", "", figures.mean(axis=0))
            row(same[0], "spread", "", figures.std(axis=0, ddof=1))


def grouped(results):
    """The results in lists, one for each mode and group of speakers."""
    lists = {}
    for one in results:
        lists.setdefault((one.mode, one.group), []).append(one)
    return list(lists.values())


def print_summary(results, mode, baselines):
    """The figures of a mode, and whether they beat the baseline."""

    def mean(mode, group, name):
        return np.mean(
            [
                getattr(one, name)
                for one in results
                if (one.mode, one.group) == (mode, group)
            ]
        )

    groups = dict.fromkeys(one.group for one in results)
    for group in groups:
        ours = mean(mode, group, "equal_error")
        rows = [(mean(name, group, "equal_error"), name) for name in baselines]
        best, name = min(rows)
        verdict = "better than" if ours < best else "no better than"
        if ours >= HARDLY_ANYTHING:
            verdict = "hardly better than chance, and " + verdict
        print(
            f"{mode} on {group} speakers: {verdict} the baseline, equal error "
            f"rate {ours:.2%} against {best:.2%} ({name}); chance is 50 %"
        )
    for title, name in [
        ("equal error rate", "equal_error"),
        ("missed matches at the tuned threshold", "missed"),
        ("false matches at the tuned threshold", "false_matches"),
        ("accuracy at the tuned threshold", "accuracy"),
        ("misclassification rate", "misclassified"),
    ]:
        print(f"{title}: {100 * mean(mode, 'seen', name):.2f} %")


HARDLY_ANYTHING = 0.4  # an equal error rate


class Report(keras.callbacks.Callback):
    """A line every few epochs, and whenever the last one is a while ago."""

    def __init__(self, mode, every):
        super().__init__()
        self.mode, self.every = mode, every

    def on_train_begin(self, logs=None):
        self.last = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params["epochs"]
        waited = time.monotonic() - self.last > SILENCE
        if (epoch + 1) % self.every and not last and not waited:
            return
        self.last = time.monotonic()
        line = f"{self.mode} epoch {epoch + 1:3}  loss {logs['loss']:.4f}"
        if "val_equal_error_rate" in logs:
            line += (
                f"  validation: equal error rate "
                f"{logs['val_equal_error_rate']:.2%}, at threshold "
                f"{logs['threshold']:.3g} "
                f"missed {logs['val_false_non_match_rate']:.2%}, "
                f"false matches {logs['val_false_match_rate']:.2%}"
            )
        elif "val_accuracy" in logs:
            line += f"  Keras's validation accuracy {logs['val_accuracy']:.2%}"
        print(line, flush=True)


SILENCE = 10.0  # seconds
