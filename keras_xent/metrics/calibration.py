"""Expected calibration error."""

import typing

import keras
import numpy as np
from keras import ops

from keras_xent._keras import set_direction
from keras_xent._types import ClassIds, DType
from keras_xent.metrics.merging import checked_alike
from keras_xent.metrics.reliability_diagram import Binning, ReliabilityDiagram
from keras_xent.ops import checks
from keras_xent.ops.moments import or_one
from keras_xent.ops.select import where

Norm = typing.Literal["l1", "l2", "max"]


@keras.saving.register_keras_serializable(package="keras_xent")
class ExpectedCalibrationError(keras.metrics.Metric):
    """How far confidence and accuracy lie apart, over bins of confidence.

    With w_b the share of examples in bin b, acc_b how often they are right and
    conf_b their mean confidence:

    ```
    l1  = Σ_b w_b |acc_b − conf_b|          expected calibration error
    l2  = √(Σ_b w_b (acc_b − conf_b)²)      its root mean square
    max = max_b |acc_b − conf_b|            over bins that are not empty
    ```

    With `class_wise`, every class is asked for its own probability, and the
    sums are averaged over the classes (with bins of equal mass, that is the
    adaptive calibration error); the maximum is over all of them.

    It estimates, and from above: with few examples in a bin, accuracy and
    confidence differ by chance, of a calibrated model too. More bins see finer
    errors and more chance. Compare figures with equal bins and equal numbers of
    examples only, and look at the diagram, `metric.diagram.plot()`.

    Args:
        bins: The number of bins.
        binning: "equal_width", or "equal_mass" for bins that hold as many
            examples each (see `ReliabilityDiagram`).
        class_wise: None for the predicted class alone (top-label), or the
            number of classes. Where the answer is yes or no (one number per
            row), None looks at the probability of yes, as scikit-learn does.
        norm: "l1", "l2" or "max".
        from_logits: Whether the predictions are logits. Otherwise they are
            probabilities.
        axis: The axis of the classes.
        ignore_class: A class id, or a list of them: such rows do not count.
        name: The name of the metric, in logs and in saved models.
        dtype: The dtype policy of the metric. State and result are float32
            whatever it is.

    Attributes:
        diagram: The `ReliabilityDiagram` with the state.

    Shapes:
        `update_state(y_true, y_pred, sample_weight=None)`: as
        `CrossentropyRate`. `result()`: a float32 scalar in [0, 1]. NaN if
        nothing was counted, or if a prediction, label or weight is impossible.

    Raises:
        ValueError: As `ReliabilityDiagram`, or the norm is unknown.

    References:
        Naeini et al., "Obtaining well calibrated probabilities using Bayesian
        binning", 2015; [Guo et al., 2017](https://arxiv.org/abs/1706.04599);
        [Nixon et al., 2019](https://arxiv.org/abs/1904.01685), for classes in
        turn and equal mass.

    Example:

    >>> import numpy as np
    >>> from keras_xent.metrics import ExpectedCalibrationError
    >>> error = ExpectedCalibrationError(from_logits=False)
    >>> sure = np.array([[1.0, 0.0]] * 4, "float32")
    >>> float(error([0, 0, 0, 1], sure))
    0.25
    """

    def __init__(
        self,
        *,
        bins: int = 15,
        binning: Binning = "equal_width",
        class_wise: int | None = None,
        norm: Norm = "l1",
        from_logits: bool = True,
        axis: int = -1,
        ignore_class: ClassIds = None,
        name: str = "expected_calibration_error",
        dtype: DType = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        checks.choice("norm", norm, typing.get_args(Norm))
        set_direction(self, "down")
        self.norm = norm
        self.diagram = ReliabilityDiagram(
            bins=bins,
            binning=binning,
            class_wise=class_wise,
            from_logits=from_logits,
            axis=axis,
            ignore_class=ignore_class,
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.diagram.update_state(y_true, y_pred, sample_weight)

    def result(self):
        weight, confidence, hits = ops.unstack(self.diagram.sums(), 3, axis=2)
        gap = ops.abs(hits - confidence)
        filled = or_one(weight)
        total = ops.sum(weight)
        if self.norm == "l1":
            error = ops.sum(gap) / total
        elif self.norm == "l2":
            error = ops.sqrt(ops.sum(gap * (gap / filled)) / total)
        else:
            error = ops.max(gap / filled)
        return where((total > 0) & (total < np.inf), error, np.nan)

    def merge_state(self, metrics):
        """Adds what other metrics of the same configuration have seen."""
        self.diagram.merge_state(
            [metric.diagram for metric in checked_alike(self, metrics)]
        )

    def get_config(self):
        mine = {**super().get_config(), "norm": self.norm}
        return {**self.diagram.get_config(), **mine}
