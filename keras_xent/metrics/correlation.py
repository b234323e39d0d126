"""Rank correlation of scores with targets, over all batches."""

import keras
import numpy as np
from keras import ops

from keras_xent._keras import set_direction
from keras_xent._types import DType
from keras_xent.metrics.joint_histogram import JointHistogram, check_resolution
from keras_xent.metrics.merging import checked_alike
from keras_xent.metrics.pair_buffer import PairBuffer
from keras_xent.ops.correlation import spearman_correlation
from keras_xent.ops.select import where


@keras.saving.register_keras_serializable(package="keras_xent")
class SpearmanCorrelation(keras.metrics.Metric):
    """Spearman's rank correlation of scores with targets.

    It is `keras_xent.ops.spearman_correlation` of all that the metric has seen,
    not a mean over batches. There are two ways to remember what it has seen:

    - **A buffer**, `capacity=n`: exact up to n pairs. With more pairs, the
      result is NaN: never that of a part of them. It is exact on JAX's
      `DataParallel`, and after `keras_xent.metrics.all_reduce` on PyTorch. The
      buffer cannot be added up, so that on TensorFlow's `MirroredStrategy`,
      which does, the result is NaN.
    - **A histogram**, `capacity=None`: any number of pairs, in a fixed square
      of bins. It adds up over devices. The result is exact for numbers rounded
      to `resolution` bits of mantissa, which are 8 bins in every octave by
      default: numbers in one bin count as equal, and so do all below 2e-10,
      and all above 4e9, of one sign.

    Args:
        capacity: How many pairs are kept, or `None` for the histogram.
        resolution: How fine the bins are, 0 to 5. Each step halves their width
            and takes four times the memory, 8 MB at 3. Plays no part with a
            buffer.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Shapes:
        `update_state(y_true, y_pred, sample_weight=None)`: targets and scores,
        real numbers of one shape up to a last axis of 1, compared in float32.
        `sample_weight` has that shape too, or leaves out trailing axes: 2 is as
        good as the pair twice. What weighs 0 or is masked by Keras does not
        count, whatever it holds.
        `result()`: float32 scalar in [-1, 1], up to rounding (1e-6). NaN if
        there are no two different targets or scores, if a number that counts
        is NaN, if a weight is negative or not finite, or beyond the capacity.

    Raises:
        ValueError: If an argument or a shape is wrong.

    References:
        Spearman, 1904, [doi:10.2307/1412159](https://doi.org/10.2307/1412159).

    Example:

    >>> from keras_xent.metrics import SpearmanCorrelation
    >>> metric = SpearmanCorrelation()
    >>> metric.update_state([1, 2], [0.1, 7.0])
    >>> metric.update_state([3, 4], [8.0, 5.0])
    >>> print(f"{float(metric.result()):.4f}")
    0.4000
    """

    def __init__(
        self,
        *,
        capacity: int | None = 10_000,
        resolution: int = 3,
        name: str = "spearman_correlation",
        dtype: DType = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        set_direction(self, "up")
        check_resolution(resolution)
        self.capacity = capacity
        self.resolution = resolution
        if capacity is None:
            self.state = JointHistogram(resolution=resolution)
        else:
            self.state = PairBuffer(capacity)

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.state.update_state(y_true, y_pred, sample_weight)

    def result(self):
        if self.capacity is None:
            value = spearman_of_counts(self.state.masses())
            return where(self.state.usable(), value, np.nan)
        targets, scores, weights = self.state.pairs()
        value = spearman_correlation(targets, scores, sample_weight=weights)
        return where(self.state.whole(), value, np.nan)

    def merge_state(self, metrics):
        """Adds what other metrics of the same configuration have seen."""
        self.state.merge_state([m.state for m in checked_alike(self, metrics)])

    def get_config(self):
        return {
            **super().get_config(),
            "capacity": self.capacity,
            "resolution": self.resolution,
        }


def spearman_of_counts(counts):
    """Spearman's ρ of a table of counts, whose rows and columns have an order.

    Args:
        counts: Float tensor `[rows, columns]`, not negative.

    Returns:
        Scalar. NaN unless two rows and two columns hold something.
    """
    total = ops.sum(counts)
    shares = counts / where(total > 0, total, 1)
    left, left_square = _places(ops.sum(shares, axis=1))
    right, right_square = _places(ops.sum(shares, axis=0))
    product = ops.sum(shares * right[None, :], axis=1)
    square = left_square * right_square
    varies = square > 0
    rho = ops.sum(product * left) / ops.sqrt(where(varies, square, 1))
    return where(varies, rho, np.nan)


def _places(shares):
    """Average ranks as shares of the whole, less their mean; their variance."""
    place = ops.cumsum(shares) - 0.5 * shares
    place = place - ops.sum(shares * place)
    square = ops.sum(shares * ops.square(place))
    # What one bin holds does not vary, whatever rounding says.
    several = ops.sum(ops.cast(shares > 0, "int32")) > 1
    return place, where(several, square, 0)
