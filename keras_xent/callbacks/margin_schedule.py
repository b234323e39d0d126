"""Begins a training without a margin."""

import typing
from collections.abc import Callable

import keras
import numpy as np

from keras_xent.callbacks.the_layer import TheLayer
from keras_xent.layers.cosine_head import CosineHead
from keras_xent.ops import checks


class MarginSchedule(keras.callbacks.Callback):
    """Raises the margins of a `CosineHead` over the first epochs.

    ```
    margin = share · the head's,   share = (epoch − start) / epochs in [0, 1]
    ```

    A margin from the first step on can keep a model from learning at all: the
    features of a class do not lie together yet, and all are told to turn. The
    head's own margins are reached after `start + epochs` epochs, and stay. The
    share is in the logs of each epoch, as "margin_share".

    A rising margin makes the training loss rise, too. Compare epochs by the
    validation loss, which has none.

    Args:
        epochs: How many epochs the rise takes, a whole number from 1; or a
            function from the number of an epoch, from 0 after `start`, to the
            share.
        start: The epochs without a margin before that.
        layer: The `CosineHead`; None finds the only one in the model.

    Raises:
        ValueError: if an argument is wrong, a share is not in [0, 1], or the
            model has no such layer, several, or one without a margin.

    References:
        [Huang et al., 2020](https://arxiv.org/abs/2004.00288), on margins that
        grow with the training.

    Example:

    >>> import keras, numpy as np
    >>> from keras_xent import callbacks, layers, losses
    >>> head = layers.CosineHead(2, angular_margin=0.2)
    >>> model = keras.Sequential([head])
    >>> model.compile("sgd", losses.LinearCrossentropy())
    >>> history = model.fit(
    ...     np.eye(2), np.arange(2), epochs=4, verbose=0,
    ...     callbacks=[callbacks.MarginSchedule(2, start=1)],
    ... )
    >>> history.history["margin_share"]
    [0.0, 0.0, 0.5, 1.0]
    """

    def __init__(
        self,
        epochs: int | Callable[[int], float],
        *,
        start: int = 0,
        layer: CosineHead | None = None,
    ) -> None:
        super().__init__()
        if not callable(epochs):
            checks.whole("epochs", epochs, 1)
        checks.whole("start", start, 0)
        self.epochs = epochs
        self.start = start
        self._place = TheLayer(
            CosineHead, layer, "MarginSchedule raises the margins of a head"
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._head()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._share = self._share_of(epoch)
        self._head().set_margins(self._share)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["margin_share"] = self._share

    def _share_of(self, epoch):
        if epoch < self.start:
            return 0.0
        if not callable(self.epochs):
            return float(np.clip((epoch - self.start) / self.epochs, 0, 1))
        share: typing.Any = self.epochs(epoch - self.start)
        try:
            number = float(share)
        except (TypeError, ValueError):
            number = np.nan
        if not 0 <= number <= 1:
            raise ValueError(
                "A margin schedule gives the share of the margins in an epoch, "
                f"from 0 to 1. Received: {share!r} for epoch {epoch}."
            )
        return number

    def _head(self):
        head = self._place.of(self.model)
        if head.angular_margin is None:
            raise ValueError(
                f"The head {head.name!r} has no margin to raise: make it with "
                "the margins of the end, as by "
                f"CosineHead({head.units}, angular_margin=0.2)."
            )
        return head
