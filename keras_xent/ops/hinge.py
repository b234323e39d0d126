"""Hinges: pull matches together, push the others beyond a margin."""

import numpy as np
from keras import ops

from keras_xent._types import Distance, Tensor, TensorLike
from keras_xent.ops import checks, extrema, identities
from keras_xent.ops.blocks import some_rows
from keras_xent.ops.distance import distances_of
from keras_xent.ops.pairwise_divergence import pairwise_kl
from keras_xent.ops.public import public_op
from keras_xent.ops.segments import segment_sum
from keras_xent.ops.select import where

# softness · softplus(x / softness) is within softness · log 2 of the hard
# hinge. Below this the difference is far below float32, and x / softness would
# overflow, so the hard hinge itself is taken.
SMALLEST_SOFTNESS = 1e-30


@public_op
def softplus_hinge(
    match: TensorLike,
    distance: TensorLike,
    margin: float,
    *,
    softness: float = 1.0,
    squared: bool = False,
) -> Tensor:
    """Cost of a pair: its distance if it matches, else what the margin lacks.

    ```
    cost = y · d + (1 − y) · h(d)
    h(d) = s · softplus((m − d) / s)
    ```

    The softplus is a hinge whose gradient fades beyond the margin but does not
    vanish; s → 0 is the hard hinge max(0, m − d). With `squared=True` it is
    y · d² + (1 − y) · h(d)², and with `softness=0` too the contrastive loss of
    the paper.

    Args:
        match: y, 1 for a match and 0 for none, of the shape of `distance`.
        distance: d, a float tensor.
        margin: m, the distance beyond which a non-match costs little.
        softness: s ≥ 0, the width of the bend.
        squared: Whether the distance and the hinge are squared.

    Returns:
        The cost of every pair, in the unit of the distance: the shape of
        `distance`, float32, or float64 for float64 distances. A `match` outside
        [0, 1] gives NaN.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the distance is
            not floating point, `margin` or `softness` are no numbers,
            `softness` is negative, or `match` in host memory is not in [0, 1].

    References:
        [Hadsell, Chopra and LeCun, 2006](https://doi.org/10.1109/CVPR.2006.100)
        for the margin, [Dugas et al., 2000](
        https://proceedings.neurips.cc/paper/2000/hash/44968aece94f667e4095002d140b5896-Abstract.html)
        for the softplus.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> distance = np.array([0.2, 0.2, 3.0], "float32")
    >>> cost = ops.softplus_hinge(np.array([1, 0, 0]), distance, margin=1.0)
    >>> print([f"{float(value):.4f}" for value in cost])
    ['0.2000', '1.1711', '0.1269']
    """
    check_hinge(margin, softness)
    distance = checks.floats(
        distance, "distance", "distances of integers have no gradient."
    )
    checks.zero_to_one(
        "match",
        match,
        "If these are class ids, use SymmetricKLHinge, or compare the ids of "
        "each pair.",
    )
    match = ops.cast(checks.tensor("match", match), distance.dtype)
    checks.same_shape("match", match.shape, "distance", distance.shape)
    match = where((match >= 0) & (match <= 1), match, np.nan)
    pull = where(match == 0, 0, distance)
    push = where(match == 1, 0, hinge(margin - distance, softness))
    if squared:
        pull, push = ops.square(pull), ops.square(push)
    costs = match * pull + (1 - match) * push
    return checks.sizes_agree(costs, match, distance)


@public_op
def symmetric_kl_hinge(
    labels: TensorLike,
    logits: TensorLike,
    margin: float,
    *,
    softness: float = 1.0,
    balanced: bool = True,
    directed: bool = False,
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
) -> Tensor:
    """Symmetric KL divergence with a softplus hinge, over all pairs of a batch.

    With d_ij the symmetric KL divergence of the softmax of rows i and j, w_i
    the weight of row i, and every pair i < j counted once with the weight
    w_i w_j, the weighted mean of the returned rows is

    ```
    loss = ½ · mean over matches of d_ij  +  ½ · mean over others of h(d_ij)
    h(d) = s · softplus((m − d) / s)
    ```

    where both means are weighted, and a mean without pairs is 0. A row of
    weight 0 is as good as absent. With `balanced=False`, it is one mean over
    all pairs. With `directed=True` the two divergences of a pair are hinged one
    by one, h(KL(i‖j)) + h(KL(j‖i)), as in the paper.

    Args:
        labels: Class ids `(n,)`: the rows of one class match.
        logits: Embeddings as logits `(n, d)`.
        margin: m, the divergence beyond which a non-match costs little, in
            nats.
        softness: s ≥ 0, the width of the bend; 0 is the hard hinge.
        balanced: Whether matches and others share the loss half and half. With
            100 classes only 1 % of all pairs match.
        directed: Whether to hinge the two divergences one by one.
        sample_weight: w, one number per row, not negative. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.

    Returns:
        One value per row `(n,)` in nats, float32, or float64 for float64
        logits: the row's half of its pairs, scaled so that Σ w_i row_i / Σ w_i
        is the loss. A NaN label gives NaN, a negative or NaN weight everywhere.

    Raises:
        ValueError: if the shapes do not fit, the logits are not floating point
            or have one column, or `margin` or `softness` are out of range.

    References:
        [Lukic, Vogt, Dürr and Stadelmann, 2017](
        https://doi.org/10.1109/MLSP.2017.8168166), with a hard hinge, directed
        and m = 2.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], "float32")
    >>> rows = ops.symmetric_kl_hinge(np.array([7, 7, 8]), logits, margin=2.0)
    >>> print([f"{float(value):.4f}" for value in rows])
    ['0.1129', '0.1129', '0.2257']
    """
    check_hinge(margin, softness)
    logits = identities.embeddings(logits, "logits")
    labels = identities.ids(labels, logits, "labels")
    checks.row_range(rows, logits.shape[0])
    if directed:
        ways = _both_ways(logits, rows)
        divergence = sum(ways)
        lacking = sum(hinge(margin - way, softness) for way in ways)
    else:
        divergence = distances_of(logits, "symmetric_kl", rows)
        lacking = hinge(margin - divergence, softness)
    losses = _rows_of_pairs(
        labels, divergence, lacking, balanced, sample_weight, rows
    )
    return checks.sizes_agree(losses, labels, logits[:, 0])


@public_op
def pair_hinge(
    labels: TensorLike,
    embeddings: TensorLike,
    margin: float,
    *,
    distance: Distance = "euclidean",
    softness: float = 1.0,
    squared: bool = False,
    balanced: bool = True,
    sample_weight: TensorLike | None = None,
    rows: tuple[TensorLike, TensorLike] | None = None,
) -> Tensor:
    """Any distance with a softplus hinge, over all pairs of a batch.

    With d_ij the distance of rows i and j, w_i the weight of row i, and every
    pair i < j counted once with the weight w_i w_j, the weighted mean of the
    returned rows is

    ```
    loss = ½ · mean over matches of d_ij  +  ½ · mean over others of h(d_ij)
    h(d) = s · softplus((m − d) / s)
    ```

    where both means are weighted, and a mean without pairs is 0. A row of
    weight 0 is as good as absent. With `balanced=False`, it is one mean over
    all pairs. With `squared=True` it is d² and h²: with `softness=0` too, the
    contrastive loss of the paper.

    Args:
        labels: Class ids `(n,)`: the rows of one class match.
        embeddings: Float tensor `(n, d)`.
        margin: m, the distance beyond which a non-match costs little.
        distance: `"euclidean"`, `"squared_euclidean"`, `"cosine"`,
            `"symmetric_kl"` (embeddings are logits), or a callable from
            embeddings `[n, d]` to distances `[n, n]`.
        softness: s ≥ 0, the width of the bend; 0 is the hard hinge.
        squared: Whether the distance and the hinge are squared.
        balanced: Whether matches and others share the loss half and half. With
            100 classes only 1 % of all pairs match.
        sample_weight: w, one number per row, not negative. `None` is 1.
        rows: `(start, size)`, the rows whose losses are wanted, each compared
            with all rows; the pairs of other rows are not made. `None` is all.
            A `distance` that is a callable makes all pairs.

    Returns:
        One value per row `(n,)`, float32, or float64 for float64 embeddings:
        the row's half of its pairs, scaled so that Σ w_i row_i / Σ w_i is the
        loss. A NaN label gives NaN, a negative or NaN weight everywhere.

    Raises:
        ValueError: if the shapes do not fit, the embeddings are not floating
            point, the distance is not known, or `margin` or `softness` are out
            of range.

    References:
        [Hadsell, Chopra and LeCun, 2006](https://doi.org/10.1109/CVPR.2006.100),
        with a hard hinge and squared.

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> embeddings = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], "float32")
    >>> rows = ops.pair_hinge(
    ...     np.array([7, 7, 8]), embeddings, margin=2.0, softness=0.0
    ... )
    >>> print([f"{float(value):.4f}" for value in rows])
    ['4.1250', '3.7500', '0.3750']
    """
    check_hinge(margin, softness)
    embeddings = identities.embeddings(embeddings)
    labels = identities.ids(labels, embeddings)
    checks.row_range(rows, embeddings.shape[0])
    pull = distances_of(embeddings, distance, rows)
    push = hinge(margin - pull, softness)
    if squared:
        pull, push = ops.square(pull), ops.square(push)
    losses = _rows_of_pairs(labels, pull, push, balanced, sample_weight, rows)
    return checks.sizes_agree(losses, labels, embeddings[:, 0])


def hinge(lacking, softness):
    """softness · softplus(lacking / softness); the hard hinge for 0."""
    if softness < SMALLEST_SOFTNESS:
        return ops.relu(lacking)
    return softness * ops.softplus(lacking / softness)


def check_hinge(margin, softness):
    """Raises on a margin or a softness that is out of range."""
    checks.number("margin", margin, -np.inf)
    checks.number("softness", softness, 0)


def _both_ways(logits, rows):
    """The divergences of rows from all others, and of these from them."""
    if rows is None:
        one_way = pairwise_kl(logits)
        return one_way, ops.transpose(one_way)
    some = some_rows(logits, rows)
    return pairwise_kl(some, logits), ops.transpose(pairwise_kl(logits, some))


def _rows_of_pairs(labels, pull, push, balanced, sample_weight, rows):
    """Each row's half of its pairs, so that the weighted mean is the loss.

    Args:
        labels: Class ids `(n,)`.
        pull: What a pair costs if it matches, `(n, n)`, or for some rows
            `(size, n)`.
        push: What it costs if not.
        balanced, sample_weight, rows: As in `pair_hinge`.
    """
    if sample_weight is None:
        sample_weight = ops.ones_like(labels)
    weight = checks.tensor("sample_weight", sample_weight)
    weight = ops.cast(weight, pull.dtype)
    checks.same_shape("sample_weight", weight.shape, "labels", labels.shape)
    possible = ops.all(weight >= 0)
    # Only their ratios count here; their products must not leave float32.
    largest = extrema.largest(weight, 0)
    weight = weight / where(largest > 0, largest, 1)

    index = ops.arange(ops.shape(labels)[0], dtype="int32")
    own, place = some_rows(labels, rows), some_rows(index, rows)
    same = own[:, None] == labels[None, :]
    itself = place[:, None] == index[None, :]
    partner = where(itself, 0, weight[None, :])
    match = where(same, partner, 0)
    other = where(same, 0, partner)

    if rows is None:
        # A pair stands twice in the matrix, once in the row of either.
        matches = ops.sum(weight * ops.sum(match, axis=1))
        others = ops.sum(weight * ops.sum(other, axis=1))
    else:
        matches, others = _pairs_by_class(labels, weight)
    if balanced:
        matches, others = 2 * matches, 2 * others
    else:
        matches = others = matches + others
    cost = where(match == 0, 0, match * pull)
    losses = ops.sum(cost, axis=1) * _share(ops.sum(weight), matches)
    cost = where(other == 0, 0, other * push)
    losses = losses + ops.sum(cost, axis=1) * _share(ops.sum(weight), others)
    losses = where((own == own) & possible, losses, np.nan)
    return checks.sizes_agree(losses, labels, weight)


def _pairs_by_class(labels, weight):
    """Σ w_i w_j over all i ≠ j that match, and over those that do not.

    From the sums of the classes, without the pairs.
    """
    numbers = identities.numbered(labels)
    size = ops.shape(labels)[0]
    # By class, and in each by weight: the heaviest row of a class is its last.
    order = ops.argsort(weight)
    order = ops.take(order, ops.argsort(ops.take(numbers, order)))
    numbers, weight = ops.take(numbers, order), ops.take(weight, order)
    last = ops.concatenate(
        [numbers[1:] != numbers[:-1], ops.ones_like(numbers[:1], dtype="bool")]
    )
    # That one is left out, not taken off: next to it the others may be nothing.
    rest = segment_sum(where(last, 0, weight), numbers, size)
    of_class = rest + segment_sum(where(last, weight, 0), numbers, size)
    # A row whose label is NaN matches none, and is a class by itself.
    known = numbers >= 0
    place = where(known, numbers, 0)
    others = ops.take(of_class, place) - weight
    partners = where(known, where(last, ops.take(rest, place), others), 0)
    matches = ops.sum(weight * ops.relu(partners))
    classes = ops.concatenate([of_class, where(known, 0, weight)])
    # Not minus `classes`: where there is one, 0 must be 0.
    before = ops.concatenate(
        [ops.zeros_like(classes[:1]), ops.cumsum(classes)[:-1]]
    )
    return matches, 2 * ops.sum(classes * before)


def _share(total, pairs):
    """total / pairs, 0 where there are no pairs."""
    some = pairs > 0
    return where(some, total / where(some, pairs, 1), 0)
