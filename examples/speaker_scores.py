"""How good the distances of siamese_speaker.py are: figures and tables."""

import dataclasses

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
    distance: np.ndarray  # between all utterances, or their scores
    speaker: np.ndarray
    threshold: float
    similarity: bool = False  # True if `distance` holds scores: large is alike
    reported: float = np.nan  # what Keras calls accuracy in mode naive
    equal_error: float = dataclasses.field(init=False)
    accuracy: float = dataclasses.field(init=False)
    always_no: float = dataclasses.field(init=False)  # always "different"
    min_cost: float = dataclasses.field(init=False)  # p_target 0.05
    misclassified: float = dataclasses.field(init=False)
    rand: float = dataclasses.field(init=False)  # adjusted Rand index
    information: float = dataclasses.field(init=False)  # normalized, mutual
    metric: object = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        match, distance = every_pair(self.distance, self.speaker)
        self.metric, cost = verification(
            match, distance, similarity=self.similarity
        )
        self.equal_error = float(self.metric.result())
        self.min_cost = float(cost.result())
        same = distance < self.threshold
        if self.similarity:
            same = distance >= self.threshold
        self.accuracy = np.mean(same == match)
        self.always_no = np.mean(~match)
        distance = self.distance
        if self.similarity:
            distance = distance.max() - distance
        groups = cluster(distance, len(np.unique(self.speaker)))
        self.misclassified = keras_xent.metrics.cluster_misclassification_rate(
            self.speaker, groups
        )
        self.rand = adjusted_rand_score(self.speaker, groups)
        self.information = normalized_mutual_info_score(self.speaker, groups)

    @property
    def speakers(self):
        return f"{len(np.unique(self.speaker))} {self.group}"


def every_pair(distance, speaker):
    """Every two utterances once: is it a match, and how far apart?"""
    a, b = np.triu_indices(len(speaker), k=1)
    return speaker[a] == speaker[b], distance[a, b]


def tune_threshold(match, distance):
    """The threshold of the best accuracy over these pairs."""
    metric = keras_xent.metrics.MatchAccuracy(similarity=False)
    metric.update_state(match, distance)
    return float(metric.threshold)


def verification(match, distance, *, similarity=False):
    """Equal error rate and least detection cost, metrics fed with the pairs."""
    bins = {"similarity": similarity, "resolution": 9}
    rate = keras_xent.metrics.EqualErrorRate(**bins)
    cost = keras_xent.metrics.MinDetectionCost(p_target=0.05, **bins)
    rate.update_state(match, distance)
    cost.histogram.merge_state([rate.histogram])
    return rate, cost


def cluster(distance, count):
    """The utterances in so many groups, by average linkage."""
    return AgglomerativeClustering(
        n_clusters=count, metric="precomputed", linkage="average"
    ).fit_predict((distance + distance.T) / 2)


COLUMNS = {
    "equal error": "equal_error",
    "minDCF": "min_cost",
    "accuracy": "accuracy",
    'always "no"': "always_no",
    "misclassified": "misclassified",
    "ARI": "rand",
    "NMI": "information",
    "Keras says": "reported",
}


# Not shares, so not in percent.
PLAIN = {"minDCF", "ARI", "NMI"}


def print_table(results):
    """One row per mode and group; with several seeds also mean and spread."""
    width = {title: max(len(title), 6) + 2 for title in COLUMNS}
    print(f"\n{'mode':9}{'speakers':>12}{'seed':>7}{'threshold':>11}", end="")
    print("".join(f"{title:>{width[title]}}" for title in COLUMNS))

    def row(first, seed, threshold, figures):
        line = f"{first.mode:9}{first.speakers:>12}{seed:>7}{threshold:>11}"
        for title, figure in zip(COLUMNS, figures, strict=True):
            cell = f"{100 * figure:.2f} %"
            if title in PLAIN:
                cell = f"{figure:.3f}"
            if np.isnan(figure):
                cell = "-"
            line += f"{cell:>{width[title]}}"
        print(line)

    for same in grouped(results):
        figures = np.array(
            [[getattr(one, name) for name in COLUMNS.values()] for one in same]
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


def print_summary(results):
    """The three figures, each the mean over all seeds."""
    for title, name in [
        ("equal error rate", "equal_error"),
        ("accuracy at the tuned threshold", "accuracy"),
        ("misclassification rate", "misclassified"),
    ]:
        mean = np.mean([getattr(one, name) for one in results])
        print(f"{title}: {100 * mean:.2f} %")


class Report(keras.callbacks.Callback):
    """A line every few epochs."""

    def __init__(self, mode, every):
        super().__init__()
        self.mode, self.every = mode, every

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params["epochs"]
        if (epoch + 1) % self.every and not last:
            return
        line = f"{self.mode} epoch {epoch + 1:3}  loss {logs['loss']:.4f}"
        if "threshold" in logs:
            line += f"  validation accuracy {logs['val_match_accuracy']:.2%}"
            line += f" at threshold {logs['threshold']:.3g}"
        else:
            line += f"  Keras's validation accuracy {logs['val_accuracy']:.2%}"
        print(line, flush=True)
