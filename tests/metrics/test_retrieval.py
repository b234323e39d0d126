"""Retrieval is that of loops over the definition, and of its peers."""

import importlib

import keras
import numpy as np
import pytest

from keras_xent.metrics import retrieval
from keras_xent.ops import pairwise_cosine, pairwise_symmetric_kl
from tests.testing import normal, only_on

module = importlib.import_module("keras_xent.metrics.retrieval")

same_everywhere = only_on("torch", "NumPy alone")


def data(n=60, classes=7, seed=0, width=4):
    """Embeddings that are better than chance; the last class has one entry."""
    rng = np.random.default_rng(seed)
    ids = np.append(rng.integers(0, classes, n - 1), classes)
    centers = normal(classes + 1, width, seed=seed)
    return centers[ids] + normal(n, width, seed=seed + 1), ids


def cosine(a, b):
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return 1.0 - a @ b.T


def euclidean(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def by_loops(far, match, k):
    """The figures of one query, by their definition."""
    # Of equal ones, what does not match comes first.
    order = sorted(range(len(far)), key=lambda i: (far[i], match[i]))
    hit = [int(match[i]) for i in order]
    r = sum(hit)
    gains = [1 / np.log2(i + 2) for i in range(len(hit))]
    average = sum(hit[i] * sum(hit[: i + 1]) / (i + 1) for i in range(r)) / r
    dcg = sum(h * g for h, g in zip(hit[:k], gains, strict=False))
    ideal = sum(gains[: min(k, r)])
    return hit[0], float(any(hit[:k])), sum(hit[:r]) / r, average, dcg / ideal


def expected(far, match, k, own):
    found = []
    for i, (row, same) in enumerate(zip(far, match, strict=True)):
        others = np.arange(len(row)) != i if own else np.full(len(row), True)
        if same[others].any():
            found.append(by_loops(row[others], same[others], k))
    return np.mean(found, axis=0), len(found)


def figures(found, k):
    return (
        found.precision_at_1,
        found.recall_at_k[k],
        found.r_precision,
        found.map_at_r,
        found.ndcg_at_k[k],
    )


@same_everywhere
@pytest.mark.parametrize("k", [1, 3, 10, 1000])
@pytest.mark.parametrize("truth", [cosine, euclidean])
@pytest.mark.parametrize("block", [1, 200, 2**21])
def test_it_is_the_definition(monkeypatch, block, truth, k):
    monkeypatch.setattr(module, "_BLOCK", block)
    x, ids = data()
    found = retrieval(x, ids, k=k, distance=truth.__name__)
    wide = x.astype("float64")
    figure, count = expected(
        truth(wide, wide), ids[:, None] == ids, k, own=True
    )
    np.testing.assert_allclose(figures(found, k), figure, rtol=1e-12)
    assert (found.queries, found.without_match) == (count, 60 - count)
    assert found.without_match == 1


@same_everywhere
@pytest.mark.parametrize("truth", [cosine, euclidean])
def test_queries_are_searched_in_the_gallery(truth):
    x, ids = data()
    gallery, gallery_ids = x[:40], ids[:40]
    queries = x[40:], ids[40:]
    found = retrieval(
        gallery, gallery_ids, queries=queries, k=4, distance=truth.__name__
    )
    far = truth(queries[0].astype("float64"), gallery.astype("float64"))
    figure, count = expected(far, ids[40:, None] == ids[:40], 4, own=False)
    np.testing.assert_allclose(figures(found, 4), figure, rtol=1e-12)
    assert (found.queries, found.without_match) == (count, 1)


@pytest.mark.parametrize(
    "distance", ["symmetric_kl", pairwise_symmetric_kl, pairwise_cosine]
)
@pytest.mark.parametrize("rows", [7, 1024])
def test_any_distance_on_any_backend(monkeypatch, rows, distance):
    monkeypatch.setattr(module, "_ROWS", rows)
    x, ids = data()
    function = pairwise_symmetric_kl if isinstance(distance, str) else distance
    far = keras.ops.convert_to_numpy(function(x))
    figure, _ = expected(far, ids[:, None] == ids, 3, own=True)
    found = retrieval(x, ids, k=3, distance=distance)
    np.testing.assert_allclose(figures(found, 3), figure, rtol=1e-12)
    # A callable of one argument, and one that is large for what is alike.
    negative = retrieval(
        x, ids, k=3, distance=lambda a: -function(a), similarity=True
    )
    np.testing.assert_allclose(figures(negative, 3), figure, rtol=1e-12)


@same_everywhere
def test_it_is_pytorch_metric_learning():
    utils = pytest.importorskip("pytorch_metric_learning.utils")
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils import accuracy_calculator, inference

    assert utils
    x, ids = data(200, classes=12, seed=3)
    calculator = accuracy_calculator.AccuracyCalculator(
        include=(
            "precision_at_1",
            "r_precision",
            "mean_average_precision_at_r",
        ),
        k=149,
        knn_func=inference.CustomKNN(CosineSimilarity()),
    )
    x_, ids_ = torch.tensor(x), torch.tensor(ids)
    for found, truth in [
        (retrieval(x, ids), calculator.get_accuracy(x_, ids_)),
        (
            retrieval(x[:150], ids[:150], queries=(x[150:], ids[150:])),
            calculator.get_accuracy(x_[150:], ids_[150:], x_[:150], ids_[:150]),
        ),
    ]:
        np.testing.assert_allclose(
            (found.precision_at_1, found.r_precision, found.map_at_r),
            (
                truth["precision_at_1"],
                truth["r_precision"],
                truth["mean_average_precision_at_r"],
            ),
            rtol=1e-6,
        )


@same_everywhere
def test_it_is_scikit_learn():
    from sklearn.metrics import ndcg_score
    from sklearn.neighbors import KNeighborsClassifier

    x, ids = data(200, classes=12, seed=3)
    gallery, names, queries = x[:150], ids[:150], (x[150:199], ids[150:199])
    found = retrieval(
        gallery, names, queries=queries, k=(1, 10), distance="euclidean"
    )
    nearest = KNeighborsClassifier(1).fit(gallery, names)
    assert found.precision_at_1 == pytest.approx(nearest.score(*queries))
    assert found.recall_at_k[1] == found.precision_at_1
    far = euclidean(queries[0], gallery)
    match = queries[1][:, None] == names
    for k in (1, 10):
        assert found.ndcg_at_k[k] == pytest.approx(
            ndcg_score(match, -far, k=k), rel=1e-12
        )


@same_everywhere
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("row", [[0.3, -0.7, 0.2], [0.0, 0.0, 0.0]])
def test_embeddings_that_are_all_the_same_are_worth_nothing(row, distance):
    # 20 of 40 match, and those that do come first: by their order, all right.
    x = np.tile(np.array(row, "float32"), (41, 1))
    ids = np.repeat([0, 1], [21, 20])
    # What is left of them on a GPU.
    noise = 1e-8 * normal(*x.shape)
    for embeddings in (x, x + noise if any(row) else x):
        found = retrieval(
            embeddings, ids, queries=(x[:1], [0]), k=20, distance=distance
        )
        assert figures(found, 20) == (
            0,
            0,
            found.r_precision,
            found.map_at_r,
            0,
        )
        assert found.r_precision == pytest.approx(1 / 21)


@same_everywhere
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_duplicate_is_found_and_a_wrong_one_counts_against_it(distance):
    x = [[1.0, 2.0], [1.0, 2.0], [3.0, 1.0], [3.0, 1.0]]
    assert retrieval(x, [0, 0, 1, 1], distance=distance).precision_at_1 == 1.0
    assert retrieval(x, [0, 1, 0, 1], distance=distance).precision_at_1 == 0.0
    # Three duplicates, one of them wrong: it comes first.
    found = retrieval([x[0]] * 3, [0, 0, 1], k=2, distance=distance)
    assert found.precision_at_1 == 0.0
    assert found.recall_at_k == {2: 1.0}


@same_everywhere
def test_small_differences_are_seen():
    # Vectors 1e-5 rad apart: their cosine is 1 in float32.
    angle = np.array([0.0, 1e-5, 3e-5, 4e-5])
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert retrieval(x, [0, 0, 1, 1]).precision_at_1 == 1.0
    offset = 100.0 + np.array([[0.0], [1e-3], [3e-3], [4e-3]])
    found = retrieval(offset, [0, 0, 1, 1], distance="euclidean")
    assert found.precision_at_1 == 1.0


@same_everywhere
def test_one_long_embedding_makes_no_others_equal():
    x, ids = data()
    x = np.concatenate([x, np.full((1, 4), 1e7)])
    # The long one, which has no match, is far from all others.
    found = retrieval(x, np.append(ids, 99), distance="euclidean")
    expected = retrieval(x[:-1], ids, distance="euclidean")
    np.testing.assert_allclose(figures(found, 5), figures(expected, 5))
    queries = [[-1.0]], [0]
    found = retrieval(
        [[np.inf], [-2.0]], [1, 0], queries=queries, distance="euclidean"
    )
    assert found.precision_at_1 == 1.0


@same_everywhere
def test_a_row_of_zeros_is_at_a_right_angle_to_all():
    # Nearer than what points away, farther than what is at 70 degrees.
    x, ids = [[0.0, 0.0], [1.0, 2.7], [-1.0, 0.0]], [0, 1, 2]
    for place, other in [(1, 1), (2, 0), (3, 2)]:
        found = retrieval(x, ids, queries=([[1.0, 0.0]], [other]), k=(1, 2))
        hits = found.precision_at_1, found.recall_at_k[2]
        assert hits == (place == 1, place <= 2)


@same_everywhere
@pytest.mark.parametrize("score", [np.inf, -np.inf])
def test_infinite_scores_are_ties(score):
    found = retrieval(
        np.ones((3, 2)),
        [0, 0, 1],
        distance=lambda a: np.full((len(a), len(a)), score),
        similarity=True,
    )
    assert (found.precision_at_1, found.r_precision) == (0.0, 0.0)


def test_each_view_is_an_entry():
    x, ids = data(60, width=6)
    views = keras.ops.convert_to_tensor(x.reshape(60, 2, 3))
    found = retrieval(views, ids[:, None], k=2)
    assert found == retrieval(x.reshape(120, 3), np.repeat(ids, 2), k=2)
    assert (found.queries, found.without_match) == (120, 0)


@same_everywhere
def test_ids_of_any_kind_and_embeddings_of_low_precision():
    x, ids = data()
    names = np.array([f"class {i}" for i in ids])
    assert retrieval(x, names) == retrieval(x, ids)
    half = x.astype("float16")
    assert retrieval(half, ids) == retrieval(half.astype("float32"), ids)


@same_everywhere
def test_k_may_be_several():
    x, ids = data()
    found = retrieval(x, ids, k=[8, 2])
    assert list(found.recall_at_k) == list(found.ndcg_at_k) == [8, 2]
    for k in (2, 8):
        assert figures(found, k) == figures(retrieval(x, ids, k=k), k)


@same_everywhere
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_what_is_not_known_is_nan(distance):
    x, ids = data()
    x[3, 1] = np.nan
    found = retrieval(x, ids, k=2, distance=distance)
    assert np.isnan(figures(found, 2)).all()
    # No query with a match.
    alone = retrieval(x[:4], [0, 1, 2, 3], k=2, distance=distance)
    assert np.isnan(figures(alone, 2)).all()
    assert (alone.queries, alone.without_match) == (0, 4)
    empty = retrieval(x[:0], ids[:0], k=2, distance=distance)
    assert np.isnan(figures(empty, 2)).all()


@same_everywhere
def test_memory_grows_with_the_entries():
    import tracemalloc

    rng = np.random.default_rng(0)
    peaks = []
    for n in (4000, 8000):
        x, ids = rng.normal(size=(n, 8)), np.arange(n) // 4
        tracemalloc.start()
        retrieval(x, ids)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 200e6


@same_everywhere
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": np.ones(60)}, r"shapes \(60,\) and \(60,\)"),
        ({"ids": np.arange(59)}, r"shapes \(60, 4\) and \(59,\)"),
        ({"ids": np.full(60, np.nan)}, "must not be NaN"),
        ({"k": 0}, "`k` must be a whole number from 1"),
        ({"k": []}, "`k` must be a whole number from 1 or several"),
        ({"distance": "manhattan"}, "`distance` must be one of"),
        ({"distance": lambda a: a}, "similarity=True"),
        ({"similarity": True}, "small for rows that are alike"),
        ({"queries": np.ones((3, 4))}, "`queries` must be"),
        ({"queries": (np.ones((3, 5)), [0, 1, 2])}, r"\(3, 5\) and \(60, 4\)"),
        ({"queries": (np.ones((3, 4)), [0, 1])}, "`queries` must be embedd"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    x, ids = data()
    with pytest.raises(ValueError, match=message):
        retrieval(**{"embeddings": x, "ids": ids} | changes)
