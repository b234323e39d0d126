"""The validation data that a callback is given."""

import keras
import numpy as np

from keras_xent.ops import checks


def unpacked(data, name="validation_data"):
    """`(x, y)` or `(x, y, sample_weight)` as x, y and weights or None."""
    if not isinstance(data, list | tuple) or len(data) not in (2, 3):
        raise ValueError(
            f"`{name}` must be (x, y) or (x, y, sample_weight), "
            "arrays. Turn a dataset into arrays first. Received: "
            f"{type(data).__name__}"
        )
    x, y, weight = (*data, None)[:3]
    y = _numpy(f"the y of {name}", y)
    if weight is not None:
        name_of_weight = f"the sample_weight of {name}"
        weight = _numpy(name_of_weight, checks.array(name_of_weight, weight))
    if weight is not None and not np.all(weight >= 0):
        raise ValueError(
            f"`{name}` needs weights that are not negative. Received: "
            f"{weight[~(weight >= 0)][0]}"
        )
    if weight is not None and len(weight) != len(y):
        raise ValueError(
            f"`{name}` needs one sample_weight for each y. Received: "
            f"{len(weight)} for {len(y)}"
        )
    return x, y, weight


def _numpy(name, x):
    """`x` as a NumPy array with one entry or more for each example."""
    found = checks.on_the_host(name, x)
    if not found.ndim:
        raise ValueError(
            f"`{name}` must be an array with one entry for each example. "
            f"Received: {x!r}"
        )
    return found


def check_numbers(batch_size, verbose):
    """Raises on the options of a callback that are no numbers."""
    checks.whole("batch_size", batch_size, 1)
    if not isinstance(verbose, int | np.integer):
        raise ValueError(
            f"`verbose` must be 0 or 1. Received: verbose={verbose!r}"
        )


def predictions(callback, x, what, model=None):
    """What a model makes of `x`, a NumPy array.

    Args:
        callback: It has a `model` and a `batch_size`.
        x: The inputs.
        what: What the one output of the model is, for an error.
        model: None is that of the callback.
    """
    model = callback.model if model is None else model
    predicted = model.predict(x, batch_size=callback.batch_size, verbose=0)
    if not isinstance(predicted, np.ndarray):
        raise ValueError(
            f"{type(callback).__name__} needs a model with one output: {what}. "
            f"Received: {type(predicted).__name__}"
        )
    return predicted


def check_embedding(model):
    """Raises on what is no model, nor None for the one that is trained."""
    if model is None or isinstance(model, keras.Model):
        return
    raise ValueError(
        "`embedding` must be a model whose output is compared, made of layers "
        "of the one that is trained, as keras.Model(model.inputs, "
        f"model.layers[-2].output). Received: {model!r}"
    )
