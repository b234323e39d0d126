"""The validation data that a callback is given."""

import numpy as np
from keras import ops


def unpacked(data):
    """`(x, y)` or `(x, y, sample_weight)` as x, y and weights or None."""
    if not isinstance(data, list | tuple) or len(data) not in (2, 3):
        raise ValueError(
            "`validation_data` must be (x, y) or (x, y, sample_weight), "
            "arrays. Turn a dataset into arrays first. Received: "
            f"{type(data).__name__}"
        )
    x, y, weight = (*data, None)[:3]
    y = ops.convert_to_numpy(y)
    weight = None if weight is None else ops.convert_to_numpy(weight)
    if weight is not None and not np.all(weight >= 0):
        raise ValueError(
            "`validation_data` needs weights that are not negative. Received: "
            f"{weight[~(weight >= 0)][0]}"
        )
    if weight is not None and len(weight) != len(y):
        raise ValueError(
            "`validation_data` needs one sample_weight for each y. Received: "
            f"{len(weight)} for {len(y)}"
        )
    return x, y, weight
