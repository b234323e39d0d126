"""Whether embeddings are all alike, as the loss compares them."""

import numpy as np

from keras_xent.diagnosis import cures, data, embeddings, ends
from keras_xent.diagnosis.evidence import by_layer, host
from keras_xent.losses.kinds import UNKNOWN
from keras_xent.losses.triplet import TripletHinge

# The loss lies within this share of that of one point: at the start, where
# small embeddings still part, and of a model that should have learned.
_ALIKE, _ALIKE_LATER = 1e-4, 0.01

# Of all pairs no cosine differs from 1 by more: at the start, where bfloat16
# alone makes 1e-5, and of a model that should have learned.
_NO_ANGLE, _NO_ANGLE_LATER = 1e-4, 0.01

# A triplet's margin so far above all distances is that of one point.
_ONE_POINT = 30.0

# Outputs that differ by more are not looked at: a loss that nobody knows may
# be dear.
_APART = 0.1

# Anchors, partners and others side by side, two distances, or one row each.
_VIEWS = (3, 2, 1)


def _towers(output):
    """The embeddings that count, one array `(rows, dim)` for each view."""
    rows = output.counted(output.y_pred)
    return [rows] if rows.ndim == 2 else list(np.moveaxis(rows, 1, 0))


def collapsed(evidence, output):
    """Embeddings that are all the same, as the loss compares them."""
    of_unknown = _of_unknown_at_one_point(evidence, output)
    if of_unknown is not None:
        yield _triplets_at_one_point(evidence, output, *of_unknown)
        return
    distance, triplets = (
        embeddings.measured(output),
        isinstance(output.loss, TripletHinge),
    )
    if distance != "cosine" and not triplets:
        return
    for rows in _towers(output):
        distances = embeddings.between(rows, distance)
        # Zeros have no direction; `zero-initialized` says why they are zero.
        if not distances.size or not np.isfinite(distances).all():
            continue
        if not np.any(rows) and (
            not triplets or _has_zero_kernel(evidence.model)
        ):
            continue
        limit = _NO_ANGLE_LATER if evidence.has_trained else _NO_ANGLE
        if triplets:
            limit = output.loss.margin / _ONE_POINT
            if not evidence.has_trained:
                limit = output.loss.margin * _limit_of(evidence)
        if distances.max() <= limit:
            yield _at_one_point(evidence, output, distances)
            return


def _at_one_point(evidence, output, distances):
    numbers = {
        "pairs": distances.size,
        "distances from": float(distances.min()),
        "to": float(distances.max()),
    }
    triplets = isinstance(output.loss, TripletHinge)
    if triplets:
        numbers["margin"] = float(output.loss.margin)
    numbers["steps"] = evidence.steps
    slower = cures.slower(evidence)
    normalize = data.standardized(evidence.x)
    if not evidence.has_trained:
        cause, cure = _at_the_start(evidence, output)
    elif triplets:
        cause = _PULLED_TOGETHER
        cure = _semi_hard(output.loss.margin) + slower
    else:
        cause = "A learning rate that is too high has thrown them there, "
        cause += "inputs that are not scaled, or ids that do not belong to "
        cause += "their rows (shuffled apart)."
        cure = slower + "\n" + normalize
    return output.warning(
        "collapsed-embeddings",
        "All embeddings are alike: the loss sees hardly a difference between "
        "the rows, and stays where it is.",
        numbers,
        cause,
        cure,
    )


_PULLED_TOGETHER = (
    "The hardest triplets pull everything together at first, above all with a "
    "high learning rate."
)

_BEGIN_AT_ONE_POINT = (
    "The embeddings begin at one point: the last layer of the tower is a ReLU "
    "whose units are 0 for all rows, or its first weights are far too small "
    "beside its bias."
)


def _is_near_zero(output):
    """Whether outputs are as small as what they differ by."""
    y_pred = output.y_pred.reshape(len(output.y_pred), -1)
    return np.abs(y_pred).max() <= 2 * np.ptp(y_pred, axis=0).max()


def _at_the_start(evidence, output):
    """The cause and the cure of embeddings that begin alike."""
    if _is_near_zero(output) or not any(
        _has_large_mean(of_x) for _, of_x in data.named(evidence.x, "x")
    ):
        return _BEGIN_AT_ONE_POINT, _begin_apart(evidence)
    return (
        "The inputs have a large mean that all rows share (they are not "
        "scaled), or they are constant.",
        data.standardized(evidence.x),
    )


def _has_large_mean(leaf):
    """Whether rows have more in common than they differ by."""
    values = host(leaf)
    if values.dtype.kind != "f":
        return False
    deviations = values.std(axis=0)
    return bool(np.mean(np.abs(values.mean(axis=0)) > 2 * deviations) > 0.5)


def _begin_apart(evidence):
    """Code of first weights of Keras's, and no activation, in the last layer.

    Layers before it that give nothing but zeros begin anew as well.
    """
    # There are no gradients yet.
    kernels = [
        (variable, None)
        for variable in evidence.model.trainable_variables
        if len(variable.shape) > 1
    ]
    groups = list(by_layer(kernels))
    zero = {each.name for each in evidence.layers if not np.any(each.sample)}
    names = [path.rpartition("/")[2] for path in groups]
    dead = [path for path, n in zip(groups, names, strict=True) if n in zero]
    code = ends.first_weights(dict.fromkeys([*dead, *groups[-1:]]))
    layer = ends.found(evidence.model, names[-1])[0] if names else None
    if layer is not None:
        code += f"{layer}.activation = keras.activations.linear\n"
    return code + "# then compile again"


def _semi_hard(margin):
    return (
        "# 'hard' once these are learned, if at all; in batches that hold\n"
        "# several rows of each class: keras_xent.data.ClassBalancedBatches\n"
        "loss = keras_xent.losses.TripletHinge(\n"
        f"    margin={margin:.4g}, mining='semi_hard')\n"
    )


def _triplets_at_one_point(evidence, output, views, loss):
    """The finding of a loss that nobody knows but that is one of distances."""
    y_pred = output.y_pred
    size = int(np.prod(y_pred.shape[1:])) // views
    apart = np.ptp(y_pred.reshape(-1, size), axis=0).max()
    cause, cure = _at_the_start(evidence, output)
    if evidence.has_trained:
        cause, cure = _PULLED_TOGETHER, cures.slower(evidence)
        if views == 1:
            cure = _semi_hard(loss) + cure
    return output.warning(
        "collapsed-embeddings",
        "All embeddings are alike: the loss is that of a single point, its "
        "margin, and stays where it is.",
        {
            "loss": float(np.mean(output.compute(y_pred))),
            "loss of one point": loss,
            "outputs differ by at most": float(apart),
            "steps": evidence.steps,
        },
        cause,
        cure,
    )


def _of_unknown_at_one_point(evidence, output):
    """Whether the loss sees one point, though it is one of distances.

    Returns:
        How many embeddings a row has, and the loss of one point; None if it
        sees more than that, or if the loss is of another kind.
    """
    if output.expects.outputs != UNKNOWN or output.y_pred.ndim < 2:
        return None
    y_pred = output.y_pred.reshape(len(output.y_pred), -1)
    if not np.isfinite(y_pred).all() or _has_zero_kernel(evidence.model):
        return None
    for views in _VIEWS:
        if y_pred.shape[1] % views:
            continue
        if views == 1 and len(y_pred) < 2:
            continue
        dim = y_pred.shape[1] // views
        apart = np.ptp(y_pred.reshape(-1, dim), axis=0).max()
        size = max(1.0, float(np.abs(y_pred).max()))
        if apart <= _APART * size and (loss := _of_one_point(output, views)):
            now = _loss(output, output.y_pred)
            limit = _limit_of(evidence)
            if np.all(np.abs(now - loss) <= limit * loss):
                return views, loss
    return None


def _limit_of(evidence):
    return _ALIKE_LATER if evidence.has_trained else _ALIKE


def _has_zero_kernel(model):
    """Whether zeros have a reason of their own: `zero-initialized`."""
    return any(
        len(variable.shape) > 1 and not np.any(host(variable))
        for variable in model.trainable_variables
    )


def _of_one_point(output, views):
    """The loss where all embeddings are the same; None if it has not one.

    A loss of distances is the same wherever that point lies, and another where
    there are several. Where a row has several embeddings, its label says
    nothing: it tells them from classes.
    """
    rng, shape = np.random.default_rng(0), output.y_pred.shape
    size = int(np.prod(shape[1:])) // views
    # Where rows are compared with each other, all of them lie there.
    rows = 1 if views == 1 else shape[0]

    def point():
        each = np.tile(rng.normal(size=(rows, size)), views)
        return np.broadcast_to(each, (shape[0], size * views)).reshape(shape)

    try:
        points = [_loss(output, point()) for _ in range(3)]
        several = rng.normal(size=shape)
        apart = _loss(output, several)
        other_labels = _loss(output, several, output.y_true + 1)
    except Exception:
        return None  # The loss takes nothing but what it was written for.
    level = float(points[0].flat[0])
    if not level > 0 or not np.isfinite(apart).all():
        return None
    same = all(np.allclose(each, level, rtol=1e-4) for each in points)
    if not same or np.allclose(apart, level, rtol=0.01):
        return None
    if views > 1 and not np.allclose(apart, other_labels, rtol=1e-4):
        return None
    return level


def _loss(output, y_pred, y_true=None):
    return output.compute(np.asarray(y_pred, "float32"), y_true).astype(float)
