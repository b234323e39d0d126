"""How well the nearest neighbors of embeddings are those of the same class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_xent._types import Distance, TensorLike
from keras_xent.metrics.alignment import flat_views
from keras_xent.ops import checks
from keras_xent.ops.direction import is_similarity
from keras_xent.ops.distance import name_of, rectangular

# Distances held at once: 16 MiB of float64.
_BLOCK = 2**21

# A callable is given at most so many rows of each side.
_ROWS = 1024

# What float32 tells apart, as a share of the longer embedding.
_PRECISION = 1e-6


class Retrieval(NamedTuple):
    """What `retrieval` found: means over the queries that have a match.

    Attributes:
        precision_at_1: Share of queries whose nearest entry is a match.
        recall_at_k: By k, share of queries with a match among the k nearest.
        r_precision: Share of matches among the R nearest.
        map_at_r: Mean average precision at R.
        ndcg_at_k: By k, normalized discounted cumulative gain.
        queries: How many queries had a match in the gallery.
        without_match: How many had none. They do not count.
    """

    precision_at_1: float
    recall_at_k: dict[int, float]
    r_precision: float
    map_at_r: float
    ndcg_at_k: dict[int, float]
    queries: int
    without_match: int


def retrieval(
    embeddings: TensorLike,
    ids: TensorLike,
    *,
    queries: tuple[Any, Any] | None = None,
    k: int | Sequence[int] = 5,
    distance: Distance = "cosine",
    similarity: bool | None = None,
) -> Retrieval:
    """Searches the nearest neighbors of each query, and says how many match.

    A query has R matches in the gallery: entries of the same id. With h_i = 1
    if the i-th nearest entry is a match and else 0, its

        precision at 1  h_1
        recall at k     max(h_1, ..., h_k), as for embeddings: 1 for one match
        R-precision     (h_1 + ... + h_R) / R
        MAP@R           (1 / R) sum over i ≤ R of h_i (h_1 + ... + h_i) / i
        NDCG at k       sum over i ≤ k of h_i / log2(i + 1), divided by the same
                        sum for R matches that come first

    MAP@R sees the order as well as the number of matches: it is 1 where all R
    come first. The rules:

    - A query without a match in the gallery does not count.
    - Without `queries`, each entry is searched among all others. Its own entry
      is left out by its place, so that a duplicate is found.
    - Of entries that are equally far, those that do not match come first. So
      embeddings that are all the same score 0, not what their order gives.
      For "cosine" and "euclidean", what float32 can hardly tell apart is
      equal: distances that differ by 1e-6 of the longer of the two embeddings,
      unit vectors for cosines.
    - A distance that is NaN makes every figure NaN.

    The search is exact, in NumPy: float64 for "cosine" and "euclidean", the
    same on each backend. It takes blocks of queries, so that memory grows with
    the entries and not with their pairs. It is a function, not a metric that is
    updated: the nearest entry is known when all are.

    Args:
        embeddings: The gallery `[n, d]`, or `[n, views, d]`: then each view is
            an entry of its own with the id of its example, and the views of
            one example match each other.
        ids: Class ids `[n]` or `[n, 1]`, of any dtype that NumPy sorts.
        queries: `None` to search each entry among the others, or `(embeddings,
            ids)` of what is searched in the gallery.
        k: How many of the nearest entries count, or several such numbers.
        distance: `"cosine"`, `"euclidean"`, `"symmetric_kl"` (of logits), or a
            callable from embeddings `[n, d]` to scores `[n, n]`, which must
            compare rows two by two, whatever other rows there are.
        similarity: For a callable, which has no default: True if large scores
            mean alike, False if small ones do.

    Returns:
        `Retrieval(precision_at_1, recall_at_k, r_precision, map_at_r,
        ndcg_at_k, queries, without_match)`: floats in [0, 1], where recall and
        NDCG are dicts by k, and how many queries had a match and had none. NaN
        if no query has a match.

    Raises:
        ValueError: If shapes disagree, an id is NaN, or an argument is wrong.

    References:
        Musgrave, Belongie and Lim, "A metric learning reality check", ECCV
        2020: R-precision and MAP@R. Song et al., "Deep metric learning via
        lifted structured feature embedding", CVPR 2016: recall at k.

    Example:

    >>> from keras_xent.metrics import retrieval
    >>> gallery, ids = [[1, 0], [4, 1], [2, 3], [1, 5], [0, 1]], [0, 0, 0, 1, 1]
    >>> found = retrieval(gallery, ids, k=(1, 3))
    >>> found.precision_at_1, found.recall_at_k, found.queries
    (0.8, {1: 0.8, 3: 1.0}, 5)
    >>> round(retrieval(gallery, ids, queries=([[1, 1]], [0])).map_at_r, 4)
    0.6667
    """
    ks = _numbers(k)
    gallery, gallery_ids = _checked(embeddings, ids)
    if queries is None:
        rows, row_ids = gallery, gallery_ids
    else:
        if not isinstance(queries, list | tuple) or len(queries) != 2:
            raise ValueError(
                "`queries` must be (embeddings, ids), what is searched in the "
                f"gallery. Received: {type(queries).__name__}"
            )
        rows, row_ids = _checked(*queries, "queries")
    if rows.shape[1] != gallery.shape[1]:
        raise ValueError(
            "The queries must be embeddings of the width of the gallery's. "
            f"Received: shapes {rows.shape} and {gallery.shape}"
        )
    own = queries is None
    both = np.concatenate([gallery_ids, row_ids])
    _, both = np.unique(both, return_inverse=True)
    gallery_ids, row_ids = np.split(both, [len(gallery)])
    matches = np.bincount(gallery_ids, minlength=both.max(initial=0) + 1)
    matches = matches[row_ids] - own
    asked = np.flatnonzero(matches)
    search = _search(rows, gallery, distance, similarity)
    total = np.zeros(3 + 2 * len(ks))
    size = max(1, min(_ROWS, _BLOCK // max(1, len(gallery))))
    for start in range(0, len(asked), size):
        block = asked[start : start + size]
        match = row_ids[block, None] == gallery_ids
        far, near_enough = search(block)
        if np.isnan(far).any():
            total[:] = np.nan
            break
        # Of infinities none would be before another.
        far = np.nan_to_num(far)
        with np.errstate(over="ignore"):  # Below the lowest number is -inf.
            nearer = np.nextafter(far - near_enough, -np.inf)
        far = np.where(match, far, nearer)
        if own:
            far[np.arange(len(block)), block] = np.inf
        deep = max(*ks, matches[block].max())
        order = _nearest(far, min(deep, len(gallery) - own))
        hits = np.take_along_axis(match, order, axis=1)
        total += _figures(hits, matches[block], ks).sum(axis=1)
    first, r_precision, map_at_r, *by_k = (
        (total / len(asked)).tolist() if len(asked) else [np.nan] * len(total)
    )
    return Retrieval(
        precision_at_1=first,
        recall_at_k=dict(zip(ks, by_k[: len(ks)], strict=True)),
        r_precision=r_precision,
        map_at_r=map_at_r,
        ndcg_at_k=dict(zip(ks, by_k[len(ks) :], strict=True)),
        queries=len(asked),
        without_match=len(rows) - len(asked),
    )


def _figures(hits, matches, ks):
    """The figures of each query, `[3 + 2 * len(ks), queries]`.

    Args:
        hits: Whether the i-th nearest is a match, `[queries, deep]`.
        matches: R of each query.
        ks: Some numbers k.
    """
    place = np.arange(1, hits.shape[1] + 1)
    among = hits & (place <= matches[:, None])
    precision = np.cumsum(hits, axis=1) / place
    gain = 1.0 / np.log2(place + 1)
    ideal = np.cumsum(gain)
    return np.array(
        [
            hits[:, 0],
            among.sum(axis=1) / matches,
            (among * precision).sum(axis=1) / matches,
            *(hits[:, :k].any(axis=1) for k in ks),
            *(
                (hits[:, :k] * gain[:k]).sum(axis=1)
                / ideal[np.minimum(k, matches) - 1]
                for k in ks
            ),
        ]
    )


def _nearest(far, count):
    """The places of the smallest numbers of each row, in order."""
    if count < far.shape[1]:
        first = np.argpartition(far, count - 1, axis=1)[:, :count]
    else:
        first = np.broadcast_to(np.arange(far.shape[1]), far.shape)
    order = np.argsort(np.take_along_axis(far, first, axis=1), axis=1)
    return np.take_along_axis(first, order, axis=1)


def _search(rows, gallery, distance, similarity):
    """How far the gallery is from some rows, and what difference is none."""
    similar = is_similarity(similarity, distance)
    name = name_of(distance)
    if name in ("cosine", "euclidean"):
        rows, gallery = rows.astype("float64"), gallery.astype("float64")
        if name == "cosine":
            rows, gallery = _unit(rows), _unit(gallery)
            # That of zeros, too: its cosine with others is 0.
            square, gallery_square = np.ones(len(rows)), np.ones(len(gallery))
        else:
            square, gallery_square = (
                (x * x).sum(axis=1) for x in (rows, gallery)
            )

        def search(block):
            with np.errstate(invalid="ignore"):
                far = rows[block] @ gallery.T
                far *= -2.0
                far += square[block, None]
                far += gallery_square
                far = np.sqrt(np.maximum(far, 0.0, out=far))
            longer = np.maximum(square[block, None], gallery_square)
            longer[np.isinf(longer)] = 0.0
            return far, _PRECISION * np.sqrt(longer, out=longer)

        return search
    pairwise = rectangular(distance)

    def search_in_parts(block):
        parts = [
            ops.convert_to_numpy(
                pairwise(rows[block], gallery[start : start + _ROWS])
            )
            for start in range(0, len(gallery), _ROWS)
        ]
        far = np.concatenate(parts, axis=1).astype("float64")
        return -far if similar else far, 0.0

    return search_in_parts


def _unit(x):
    """Rows of length 1; zeros stay zeros."""
    with np.errstate(invalid="ignore"):
        largest = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
        x = x / np.where(largest == 0.0, 1.0, largest)
        length = np.sqrt((x * x).sum(axis=1, keepdims=True))
        return x / np.where(length == 0.0, 1.0, length)


def _checked(embeddings, ids, name="embeddings"):
    """Embeddings `[n, d]` and ids `[n]` of all views, as NumPy."""
    embeddings = checks.on_the_host(name, embeddings)
    ids = checks.on_the_host("ids", ids)
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if (
        embeddings.ndim not in (2, 3)
        or ids.ndim != 1
        or len(ids) != len(embeddings)
    ):
        raise ValueError(
            f"`{name}` must be embeddings [n, d] or [n, views, d], with one "
            "class id for each, [n] or [n, 1]. Received: shapes "
            f"{embeddings.shape} and {ids.shape}"
        )
    if ids.dtype.kind == "O":
        raise ValueError(
            f"The ids of `{name}` must be numbers or strings, which can be "
            f"sorted. Received dtype {ids.dtype}"
        )
    if np.any(ids != ids):
        raise ValueError(
            f"The ids of `{name}` must not be NaN, which is no class."
        )
    # Of any dtype that a model gives, bfloat16 too.
    wide = embeddings.dtype == np.float64
    embeddings = embeddings.astype("float64" if wide else "float32")
    return flat_views(embeddings, ids)


def _numbers(k):
    """One number or several, as a list."""
    several = isinstance(k, list | tuple | range) or (
        isinstance(k, np.ndarray) and k.ndim > 0
    )
    ks = list(k) if several else [k]
    if not ks:
        raise ValueError(
            "`k` must be a whole number from 1 or several. Received: k=()"
        )
    for each in ks:
        checks.whole("k", each, 1)
    return [int(each) for each in ks]
