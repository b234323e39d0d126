"""The misclassification rate is that of the best of all namings."""

import itertools

import numpy as np
import pytest

from keras_xent.metrics import cluster_misclassification_rate


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("labels", "clusters"), [(3, 3), (2, 4), (4, 2)])
def test_it_takes_the_best_naming(seed, labels, clusters):
    rng = np.random.default_rng(seed)
    label, cluster = rng.integers(0, labels, 30), rng.integers(0, clusters, 30)
    # A cluster may be left without a name, -1, where labels run out.
    names = [*range(labels), *[-1] * max(0, clusters - labels)]
    best = min(
        np.mean(np.array(naming)[cluster] != label)
        for naming in itertools.permutations(names, clusters)
    )
    found = cluster_misclassification_rate(7 * label, -3 * cluster)
    assert found == pytest.approx(best)


def test_names_of_any_kind():
    assert cluster_misclassification_rate(["a", "b", "a"], [2.5, 1, 2.5]) == 0


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [([], []), ([1, 2], [1]), ([[1], [2]], [[1], [2]])],
)
def test_what_does_not_line_up_raises(labels, clusters):
    with pytest.raises(ValueError, match="one label and one cluster"):
        cluster_misclassification_rate(labels, clusters)
