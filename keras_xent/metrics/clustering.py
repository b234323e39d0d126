"""Scores of a clustering whose true classes are known."""

import numpy as np

from keras_xent._types import TensorLike
from keras_xent.ops import checks


def cluster_misclassification_rate(
    labels: TensorLike, clusters: TensorLike
) -> float:
    """Share of items in a wrong cluster, for the best naming of clusters.

        MR = 1 - max_f (number of items i with f(clusters_i) = labels_i) / n

    over all f that give every cluster a label of its own, found by the
    Hungarian method. What is left over, of more clusters than labels or the
    other way round, is wrong. It is a function, not a metric that is updated:
    the naming depends on all items at once.

    Args:
        labels: True classes `[n]`, of any dtype that NumPy sorts.
        clusters: The cluster of each item `[n]`, in names of their own.

    Returns:
        A float in [0, 1).

    Raises:
        ValueError: If the two are no vectors of one length, or empty, or hold
            NaN, or what cannot be sorted.
        ImportError: If SciPy is not installed.

    References:
        Lukic, Vogt, Dürr and Stadelmann, "Speaker identification and clustering
        using convolutional neural networks", MLSP 2016.

    Example:

    >>> from keras_xent.metrics import cluster_misclassification_rate
    >>> cluster_misclassification_rate(["a", "a", "b", "b"], [7, 7, 3, 7])
    0.25
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            "cluster_misclassification_rate needs SciPy: pip install scipy"
        ) from error
    labels = checks.on_the_host("labels", labels)
    clusters = checks.on_the_host("clusters", clusters)
    if labels.ndim != 1 or labels.shape != clusters.shape or not labels.size:
        raise ValueError(
            "Expected one label and one cluster for each item, two vectors of "
            f"one length, not empty. Received: shapes {labels.shape} and "
            f"{clusters.shape}"
        )
    if np.any(labels != labels) or np.any(clusters != clusters):
        raise ValueError(
            "Labels and clusters must not be NaN, which is no name. Received: "
            f"labels={labels!r}, clusters={clusters!r}"
        )
    try:
        label_names, label = np.unique(labels, return_inverse=True)
        cluster_names, cluster = np.unique(clusters, return_inverse=True)
    except TypeError as error:
        raise ValueError(
            "Labels and clusters must be numbers or strings, which can be "
            f"sorted. Received: {error}"
        ) from error
    together = np.zeros((len(cluster_names), len(label_names)), "int64")
    np.add.at(together, (cluster, label), 1)
    named = linear_sum_assignment(together, maximize=True)
    return float(1 - together[named].sum() / len(label))
