"""The Brier score: squared error of probabilities."""

from keras import ops

from keras_xent._types import Tensor, TensorLike
from keras_xent.ops import checks
from keras_xent.ops.probabilities import class_probabilities, yes_probability
from keras_xent.ops.public import public_op
from keras_xent.ops.select import where


@public_op
def brier_score(
    targets: TensorLike,
    predictions: TensorLike,
    *,
    from_logits: bool = True,
    axis: int | None = -1,
) -> Tensor:
    """Squared distance between predicted probabilities and what happened.

    ```
    score = Σ_k (p_k − t_k)²,   p = softmax(logits)
    score = (p − t)²,           p = sigmoid(logits), with axis=None
    ```

    A proper score: it is least when p is the truth. Unlike the cross-entropy
    it is bounded, by 2 over classes and by 1 of a yes/no answer, which is half
    of what the same answer scores over two classes.

    Args:
        targets: Distributions of the shape of `predictions`, such as one-hot
            labels; with `axis=None`, yes (1), no (0) or a share of it.
        predictions: Float tensor of logits; with `from_logits=False`, of
            probabilities.
        from_logits: Whether the predictions are logits.
        axis: The axis of the classes; None if each number is a yes/no answer.

    Returns:
        The score of every example: the shape of `predictions` without `axis`,
        float32, or float64 for float64 predictions. NaN where a prediction is
        no probability or a target lies outside [0, 1].

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), the predictions
            are not floating point, the logits have one class only, or values
            in host memory are no probabilities.

    References:
        [Brier, 1950](https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2).

    Example:

    >>> import numpy as np
    >>> from keras_xent import ops
    >>> targets = np.array([[1.0, 0.0]], "float32")
    >>> logits = np.array([[0.0, 0.0]], "float32")
    >>> float(ops.brier_score(targets, logits)[0])
    0.5
    """
    checks.zero_to_one("targets", targets, "Pass one-hot labels.")
    if axis is None:
        p = yes_probability(predictions, from_logits, "predictions")
    else:
        shape = checks.logits(predictions, "predictions").shape
        axis = checks.axis(axis, len(shape))
        checks.classes(shape, axis)
        p = class_probabilities(predictions, from_logits, axis, "predictions")
    targets = ops.cast(checks.tensor("targets", targets), p.dtype)
    checks.same_shape("targets", targets.shape, "predictions", p.shape)
    possible = (targets >= 0) & (targets <= 1)
    score = where(possible, ops.square(p - targets), float("nan"))
    return score if axis is None else ops.sum(score, axis=axis)
