"""Whether the embeddings of a triplet loss, of anybody's, are all alike."""

import numpy as np

from keras_xent.diagnosis.evidence import host
from keras_xent.losses.kinds import UNKNOWN

# The loss lies within this share of that of one point: at the start, where
# small embeddings still part, and of a model that should have learned.
_ALIKE, _ALIKE_LATER = 1e-4, 0.01

# Outputs that differ by more are not looked at: a loss that nobody knows may
# be dear.
_APART = 0.1

# Anchors, partners and others side by side, two distances, or one row each.
_VIEWS = (3, 2, 1)


def at_one_point(evidence, output):
    """Whether the loss sees one point, though it is one of distances.

    Returns:
        How many embeddings a row has, and the loss of one point; None if it
        sees more than that, or if the loss is of another kind.
    """
    if output.expects.outputs != UNKNOWN or output.y_pred.ndim < 2:
        return None
    y_pred = output.y_pred.reshape(len(output.y_pred), -1)
    if not np.isfinite(y_pred).all() or has_zero_kernel(evidence.model):
        return None
    for views in _VIEWS:
        if y_pred.shape[1] % views:
            continue
        if views == 1 and len(y_pred) < 2:
            continue
        size = y_pred.shape[1] // views
        apart = np.ptp(y_pred.reshape(-1, size), axis=0).max()
        if apart <= _APART and (loss := _of_one_point(output, views)):
            now = _loss(output, output.y_pred)
            limit = limit_of(evidence)
            if np.all(np.abs(now - loss) <= limit * loss):
                return views, loss
    return None


def limit_of(evidence):
    return _ALIKE_LATER if evidence.has_trained else _ALIKE


def has_zero_kernel(model):
    """Whether zeros have a reason of their own: `zero-initialised`."""
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
