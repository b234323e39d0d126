"""What losses of embeddings share: rows are compared with each other."""

from collections.abc import Callable

from keras import ops

from keras_xent._types import Distance, Tensor
from keras_xent.losses import kinds
from keras_xent.losses.base import BatchLoss
from keras_xent.ops import checks, identities, partners
from keras_xent.ops.distance import (
    loaded,
    name_of,
    pairwise_distance,
    saved,
)


class EmbeddingLoss(BatchLoss):
    """A loss of the embeddings of a batch and the ids that tell who is who.

    Of several views of an example each is a row, with the id of the example,
    whose loss is the mean of theirs.

    Args:
        across_replicas: As in `BatchLoss`.
        reduction, name, dtype: As in `RowLoss`.
        **options: As in `RowLoss`, the arguments of `op` by name.
    """

    output_kind, label_kind = kinds.EMBEDDINGS, kinds.IDENTITIES

    # How it compares embeddings, for `keras_xent.diagnose`. None says nothing.
    distance: Distance = None

    # One loss per row: the function of `keras_xent.ops`.
    op: Callable[..., Tensor]

    def row_axis(self, y_pred):
        return slice(1, None)

    def row_losses(self, y_true, y_pred, weight, rows=None):
        labels, x, weight, views = _rows_of_views(y_true, y_pred, weight)
        if rows is not None:
            start, size = rows
            rows = start * views, size * views
        losses = self.op(
            labels, x, sample_weight=weight, rows=rows, **self.options
        )
        if views == 1:
            return losses
        # Not `ops.mean`, which takes float64 to float32.
        return ops.sum(ops.reshape(losses, (-1, views)), axis=1) / views

    def call(self, y_true, y_pred):
        return self.row_losses(y_true, y_pred, None)


class PartnerLoss(EmbeddingLoss):
    """One in which a row without a partner says nothing, and does not count."""

    # Whether a row needs another of a different class as well.
    needs_others = False

    def row_mask(self, y_true, y_pred, weight):
        labels, _, weight, views = _rows_of_views(y_true, y_pred, weight)
        if views > 1 and not self.needs_others:
            return None  # They are partners of each other.
        counted = partners.rows_counted(
            labels, weight, others=self.needs_others
        )
        # All views of an example have what one has.
        return counted[::views]


def _rows_of_views(labels, x, weight):
    """Ids, embeddings and weights with a row for each view, and how many."""
    x = checks.tensor("y_pred", x)
    if len(x.shape) != 3:
        return identities.ids(labels, x), x, weight, 1
    x = identities.views(x)
    views = x.shape[1]
    labels = identities.ids(labels, x)
    labels = identities.of_each_view(labels, views)
    if weight is not None:
        weight = identities.of_each_view(weight, views)
    return labels, ops.reshape(x, (-1, x.shape[2])), weight, views


class DistanceOption:
    """Mixed into a loss whose option `distance` is a name or a callable.

    A callable is saved if it is registered.
    """

    def __init__(self, *, distance, **options):
        pairwise_distance(distance)
        super().__init__(distance=name_of(distance), **options)

    def get_config(self):
        return {**super().get_config(), "distance": saved(self.distance)}

    @classmethod
    def from_config(cls, config):
        return cls(**loaded(config))
