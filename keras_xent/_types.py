"""The types that signatures of the public interface speak of.

A tensor is what the backend has, and what Keras makes one of: its own class
cannot be named without importing the backend.
"""

import typing
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# A tensor of the backend, a variable, a KerasTensor.
Tensor: typing.TypeAlias = typing.Any

# What becomes a tensor: tensors, arrays, numbers, lists of them.
TensorLike: typing.TypeAlias = typing.Any

Reduction: typing.TypeAlias = (
    typing.Literal[
        "sum_over_batch_size",
        "sum",
        "mean",
        "mean_with_sample_weight",
        "none",
    ]
    | None
)

# The dtype of a result: a name, or a policy of Keras's.
DType: typing.TypeAlias = typing.Any

# One class id, several, or none.
ClassIds: typing.TypeAlias = int | Sequence[int] | None

# One number for each class, or for some, as `fit` takes it.
ClassWeight: typing.TypeAlias = (
    Sequence[float] | np.ndarray | Mapping[int, float] | None
)

# The name of a distance, or a function of embeddings.
Distance: typing.TypeAlias = str | Callable[..., Tensor] | None

__all__ = [
    "ClassIds",
    "ClassWeight",
    "DType",
    "Distance",
    "Reduction",
    "Tensor",
    "TensorLike",
]
