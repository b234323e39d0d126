"""How flags, scores, weights and masks of a metric line up."""

import numpy as np
from keras import ops

from keras_xent._keras import get_mask, replicas
from keras_xent.ops import checks, rows
from keras_xent.ops.blocks import some_rows
from keras_xent.ops.distance import distances_to_all
from keras_xent.ops.select import where


def flat_entries(match, score, sample_weight=None):
    """Match flags, scores and weights as three tensors of one length.

    A Keras mask on `score` sets the weight of what it masks to 0.

    Args:
        match: Flags 1/0, any dtype, of the shape of `score` up to a last axis
            of 1.
        score: Real numbers, any shape.
        sample_weight: None, or weights as `rows.spread` takes them.

    Returns:
        Three float32 tensors `[n]` without gradient. The weights are None if
        every entry weighs 1.

    Raises:
        ValueError: If shapes disagree, or host values of `match` that have a
            weight are neither 0 nor 1.
    """
    mask = get_mask(score)
    rows.known_rank("y_true", match)
    if mask is None:
        check_flags(match, sample_weight)
    match, score = as_float32(match, "y_true"), as_float32(score)
    if not _same_entries(match, score):
        raise ValueError(
            "Expected one match flag for each score: shapes that agree up to "
            f"a last axis of 1. Received y_true of shape {tuple(match.shape)} "
            f"and y_pred of shape {tuple(score.shape)}. For class ids and "
            "embeddings, give the metric a `distance`."
        )
    weight = None
    if sample_weight is not None or mask is not None:
        weight = rows.full_weight(sample_weight, mask, score)
        weight = ops.reshape(weight, (-1,))
    score = ops.reshape(score, (-1,))
    match = ops.reshape(match, (-1,))
    return match, checks.sizes_agree(score, match, score), weight


def flat_pairs(target, score, sample_weight=None):
    """Targets, scores and weights as three tensors of one length.

    Args:
        target: Real numbers, of the shape of `score` up to a last axis of 1.
        score: Real numbers, any shape.
        sample_weight: As in `flat_entries`; a Keras mask on `score` too.

    Returns:
        Three float32 tensors `[n]` without gradient.

    Raises:
        ValueError: If shapes disagree.
    """
    mask = get_mask(score)
    rows.known_rank("y_true", target)
    target, score = as_float32(target, "y_true"), as_float32(score)
    if not _same_entries(target, score):
        raise ValueError(
            "Expected one target for each score: shapes that agree up to a "
            f"last axis of 1. Received y_true of shape {tuple(target.shape)} "
            f"and y_pred of shape {tuple(score.shape)}."
        )
    weight = rows.full_weight(sample_weight, mask, score)
    target, score, weight = (
        ops.reshape(each, (-1,)) for each in (target, score, weight)
    )
    return target, checks.sizes_agree(score, target, score), weight


def all_pairs(
    ids, embeddings, sample_weight, distance, *, across_replicas=False
):
    """Match flags, scores and weights of all pairs of rows.

    Each pair counts once: entries on and below the diagonal weigh 0.

    Args:
        ids: Class ids `[n]` or `[n, 1]`. Integers are compared as integers,
            floats as floats; NaN is no id, and gives flags of -1.
        embeddings: Float tensor `[n, d]`, or `[n, views, d]`: then each view
            is a row, with the id and the weight of its example.
        sample_weight: None, or `[n]` or `[n, 1]`; with views, `[n, views]` too.
        distance: A name or a callable from `[n, d]` to scores `[n, n]`.
        across_replicas: Whether the rows of this replica are compared with
            those of all. A pair still counts once, on one of them.

    Returns:
        Flags, scores and weights, float32, of the rows of this replica and of
        all that they are compared with, `[n, n]` on one.

    Raises:
        ValueError: If shapes disagree or host ids cannot be held exactly.
    """
    mask = get_mask(embeddings)
    ids = class_ids(ids)
    embeddings = ops.stop_gradient(checks.tensor("y_pred", embeddings))
    sizes = {ids.shape[0], *embeddings.shape[:1]} - {None}
    if len(embeddings.shape) not in (2, 3) or len(sizes) > 1:
        raise ValueError(
            "With a `distance`, expected class ids [n] and embeddings [n, d] "
            f"or [n, views, d]. Received y_true of shape {tuple(ids.shape)} "
            f"and y_pred of shape {tuple(embeddings.shape)}."
        )
    views = len(embeddings.shape) == 3
    if views:
        ids = ops.stack([ids] * embeddings.shape[1], axis=1)
    weight = rows.full_weight(sample_weight, mask, ids)
    if views:
        ids, weight = ops.reshape(ids, (-1,)), ops.reshape(weight, (-1,))
        embeddings = ops.reshape(embeddings, (-1, embeddings.shape[-1]))
    # A distance may look at all rows at once, so junk must not reach it.
    counted = ops.not_equal(weight, 0.0)[:, None]
    embeddings = ops.where(counted, embeddings, ops.zeros_like(embeddings))
    own = None
    given = embeddings, ids, weight
    everyone = replicas(*given) if across_replicas else None
    if everyone is not None:
        own = everyone.rows
        embeddings, ids, weight = map(everyone.gather, given)
    row, column = some_rows(ids, own)[:, None], ids[None, :]
    flag = ops.cast(ops.equal(row, column), "float32")
    known = ops.logical_and(ops.equal(row, row), ops.equal(column, column))
    order = ops.arange(ops.shape(ids)[0], dtype="int32")
    once = some_rows(order, own)[:, None] < order[None, :]
    # The product of two negative weights must not look like a good one.
    good = where(weight >= 0, weight, np.nan)
    product = some_rows(good, own)[:, None] * good[None, :]
    product = where(once, product, 0.0)
    score = as_float32(distances_to_all(embeddings, distance, own))
    return where(known, flag, -1.0), score, product


def flat_views(embeddings, *columns):
    """Each view of `[n, views, d]` as a row, with what belongs to its example.

    Args:
        embeddings: NumPy array `[n, d]` or `[n, views, d]`.
        *columns: NumPy arrays `[n]`.

    Returns:
        The embeddings `[n * views, d]` and the columns `[n * views]`.
    """
    if embeddings.ndim == 2:
        return embeddings, *columns
    _, views, width = embeddings.shape
    repeated = (np.repeat(column, views) for column in columns)
    return embeddings.reshape(-1, width), *repeated


def check_flags(match, sample_weight):
    """Raises a ValueError for host values that are no flags but would count."""
    if not (checks.on_host(match) and checks.on_host(sample_weight)):
        return
    match = np.asarray(checks.array("y_true", match))
    wrong = (match != 0) & (match != 1)
    if sample_weight is not None:
        weight = np.asarray(checks.array("sample_weight", sample_weight))
        if weight.size not in (1, match.size):
            return
        if weight.size == match.size:
            weight = weight.reshape(match.shape)
        wrong &= weight != 0
    if wrong.any():
        raise ValueError(
            "Expected match flags: 1 for a match, 0 for a non-match. Received "
            f"{match[wrong][0]}. For class ids, give the metric a "
            "`distance`; to leave a pair out, give it sample_weight 0."
        )


def as_float32(values, name="y_pred"):
    """`values` as a float32 tensor without gradient."""
    if checks.on_host(values):
        # JAX would fold int64 into int32 first.
        values = np.asarray(checks.array(name, values)).astype("float32")
    return ops.cast(ops.stop_gradient(checks.tensor(name, values)), "float32")


def class_ids(ids):
    """Class ids as a tensor `[n]` in which different ids stay different.

    Args:
        ids: `[n]` or `[n, 1]`, integers or floats.

    Returns:
        Tensor `[n]`: integers as integers, floats as floats.

    Raises:
        ValueError: If the shape is another, or host values are no numbers,
            integers beyond int32, or floats that float32 does not hold.
    """
    if checks.on_host(ids):
        checks.exact_ids(ids)
        ids = np.asarray(checks.array("y_true", ids))
        dtype = "float32" if ids.dtype.kind == "f" else "int32"
        # On JAX, Keras makes floats of integers where floatx has 16 bits.
        ids = ops.convert_to_tensor(ids.astype(dtype), dtype=dtype)
    ids = checks.tensor("y_true", ids)
    if len(ids.shape) == 2 and ids.shape[1] == 1:
        ids = ops.squeeze(ids, axis=1)
    if len(ids.shape) != 1:
        raise ValueError(
            "With a `distance`, y_true holds class ids of shape [n] or [n, 1]. "
            f"Received shape {tuple(ids.shape)}."
        )
    return ids


def _same_entries(a, b):
    return checks.fits(rows.match_rank(a, b).shape, b.shape)
