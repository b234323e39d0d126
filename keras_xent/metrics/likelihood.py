"""Cross-entropy per token over a whole epoch, and its exponential."""

import typing
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_xent import ops as functions
from keras_xent._keras import set_direction
from keras_xent._types import ClassIds, DType
from keras_xent.metrics.class_rows import ClassMetric
from keras_xent.ops import checks
from keras_xent.ops.entropy import NATS_PER

Unit = typing.Literal["nats", "bits", "bits_per_byte"]


class _Likelihood(ClassMetric):
    """Sums weight · (−log p) and weight · size over all that it is shown."""

    def __init__(self, axis, ignore_class, name, dtype):
        super().__init__((2,), axis, ignore_class, name, dtype)
        set_direction(self, "down")

    def update_state(self, y_true, y_pred, sample_weight=None):
        rows = self.rows(y_true, y_pred, sample_weight)
        if rows.binary:
            function = functions.sigmoid_crossentropy
        elif rows.sparse:
            function = functions.sparse_softmax_crossentropy
        else:
            function = functions.softmax_crossentropy
        nats = function(rows.targets, rows.predictions)
        self.add(rows.weighted(nats), rows.weighted(self._size(rows)))

    def _size(self, rows):
        """What a row counts for, beside its weight."""
        return 1.0


@keras.saving.register_keras_serializable(package="keras_xent")
class CrossentropyRate(_Likelihood):
    """Mean cross-entropy of all examples of an epoch, in nats or bits.

    ```
    rate = Σ_i w_i (−log p_i) / Σ_i w_i s_i,   p_i the probability of label i
    ```

    The sums run over all tokens (or rows) of all batches, so a batch with few
    of them counts for few. With `unit="nats"` or `"bits"` every size s is 1,
    and an even guess among n classes costs log n nats, log₂ n bits: a rate of
    0.6931 nats is one of 1 bit. With `unit="bits_per_byte"` s is the number of
    bytes of text that a token stands for, which makes models with different
    vocabularies comparable.

    Args:
        unit: "nats", "bits" or "bits_per_byte".
        bytes_per_token: For bits per byte, and only there: a number, the mean
            bytes of a token in the text that is measured; or a vector with the
            bytes of each token id (0 for tokens that stand for no text), such
            as `[len(piece.encode()) for piece in pieces]`, which counts
            exactly.
        axis: The axis of the classes.
        ignore_class: A class id, or a list of them: such rows do not count.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        `update_state(y_true, y_pred, sample_weight=None)`. `y_pred` holds
        logits, unnormalized log-probabilities `(batch, ..., classes)`, or one
        logit per example, `(batch,)` or `(batch, ..., 1)`, where the answer is
        yes or no. `y_true`: class ids `(batch, ...)` or `(batch, ..., 1)`, or
        distributions of the shape of `y_pred`; of yes/no answers, 1 or 0.
        `sample_weight`: one number per row; trailing axes may be left out. What
        has weight 0 or is masked by Keras does not count, whatever it holds.
        `result()`: float32 scalar, a mean of float32 losses whose sums over
        the batches lose nothing; whole weights are counted exactly. It is
        finite where softmax probabilities underflow; infinite if a label's
        logit is −inf. NaN if nothing was counted, a logit is NaN, or a label,
        target or weight is impossible.

    Raises:
        ValueError: If an argument, a shape or a dtype is wrong, or a label is
            and this can be seen without reading device memory.

    References:
        [Shannon, 1951](https://doi.org/10.1002/j.1538-7305.1951.tb01366.x),
        "Prediction and entropy of printed English".

    Example:

    >>> import numpy as np
    >>> from keras_xent.metrics import CrossentropyRate
    >>> coin = np.zeros((4, 2), "float32")
    >>> print(f"{float(CrossentropyRate()([0, 1, 1, 0], coin)):.4f}")
    0.6931
    >>> print(f"{float(CrossentropyRate(unit='bits')([0, 1, 1, 0], coin)):.4f}")
    1.0000
    >>> rate = CrossentropyRate(unit="bits_per_byte", bytes_per_token=[1, 3])
    >>> print(f"{float(rate([0, 1, 1, 0], coin)):.4f}")
    0.5000
    """

    def __init__(
        self,
        *,
        unit: Unit = "nats",
        bytes_per_token: float | Sequence[float] | np.ndarray | None = None,
        axis: int = -1,
        ignore_class: ClassIds = None,
        name: str = "crossentropy_rate",
        dtype: DType = None,
    ) -> None:
        super().__init__(axis, ignore_class, name=name, dtype=dtype)
        checks.choice("unit", unit, typing.get_args(Unit))
        self.unit = unit
        self.bytes_per_token = _checked_bytes(bytes_per_token, unit)

    def _size(self, rows):
        size = self.bytes_per_token
        if size is None:
            return 1.0
        if np.ndim(size) == 0:
            return float(size)
        count = 2 if rows.binary else rows.predictions.shape[1]
        checks.vector("bytes_per_token", size, count)
        table = ops.convert_to_tensor(size, dtype="float32")
        if rows.sparse:
            return ops.take(table, rows.targets)
        targets = ops.cast(rows.targets, "float32")
        if rows.binary:
            return table[0] + targets * (table[1] - table[0])
        return ops.sum(targets * table[None, :], axis=1)

    def result(self):
        return (
            self.ratio() / NATS_PER["nats" if self.unit == "nats" else "bits"]
        )

    def get_config(self):
        size = self.bytes_per_token
        return {
            **super().get_config(),
            "unit": self.unit,
            "bytes_per_token": size
            if size is None
            else np.asarray(size).tolist(),
        }


@keras.saving.register_keras_serializable(package="keras_xent")
class Perplexity(_Likelihood):
    """The exponential of the mean cross-entropy of all tokens of an epoch.

    ```
    perplexity = exp(Σ_i w_i (−log p_i) / Σ_i w_i)
    ```

    A model of perplexity n is as uncertain as if it guessed evenly among n
    tokens. It has no unit: exp of nats, or 2 to the power of bits.

    Args:
        axis: The axis of the classes.
        ignore_class: A class id, or a list of them: such rows do not count.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        As `CrossentropyRate`. `result()` is infinite from a mean of 88.7 nats
        on, where the exponential leaves float32.

    Raises:
        ValueError: As `CrossentropyRate`.

    References:
        Jelinek et al., "Perplexity: a measure of the difficulty of speech
        recognition tasks", 1977.

    Example:

    >>> import numpy as np
    >>> from keras_xent.metrics import Perplexity
    >>> logits = np.zeros((1, 3, 10), "float32")
    >>> perplexity = Perplexity(ignore_class=0)
    >>> print(f"{float(perplexity([[4, 2, 0]], logits)):.3f}")
    10.000
    """

    def __init__(
        self,
        *,
        axis: int = -1,
        ignore_class: ClassIds = None,
        name: str = "perplexity",
        dtype: DType = None,
    ) -> None:
        super().__init__(axis, ignore_class, name=name, dtype=dtype)

    def result(self):
        return ops.exp(self.ratio())


def _checked_bytes(value, unit):
    """A number, a float32 table, or None where the unit asks for none."""
    if (unit == "bits_per_byte") != (value is not None):
        raise ValueError(
            "`bytes_per_token` belongs to unit='bits_per_byte': a number, or "
            f"one per token id. Received: unit={unit!r}, "
            f"bytes_per_token={value!r}"
        )
    if value is None:
        return None
    if checks.is_single(value):
        checks.number("bytes_per_token", value, 0)
        return float(value)
    return checks.vector("bytes_per_token", value).astype("float32")
