"""Functions stay on the device of their data."""

import contextlib

import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.testing import BACKEND, normal


def on(device, *arrays):
    import torch

    return [torch.as_tensor(x, device=device) for x in arrays]


@contextlib.contextmanager
def another_device():
    """One that is not the CPU and holds no values, on any machine."""
    with keras.device("meta"):
        yield "meta"


LABELS = np.array([0, 2, 1], "int32")
LOGITS, VECTORS = normal(3, 4), normal(5, 4)
TARGETS = np.eye(4, dtype="float32")[LABELS]
IDS, COUNTS = np.array([0, 4], "int32"), np.ones(5, "float32")
CALLS = {
    "sparse": lambda y, t, x, w: ops.sparse_softmax_crossentropy(
        y, x, label_smoothing=0.1, focal_gamma=1.0, z_loss=0.1
    ),
    "dense": lambda y, t, x, w: ops.softmax_crossentropy(t, x, z_loss=0.1),
    "sigmoid": lambda y, t, x, w: ops.sigmoid_crossentropy(t, x),
    "symmetric KL": lambda y, t, x, w: ops.pairwise_symmetric_kl(x),
    "cosine": lambda y, t, x, w: ops.pairwise_cosine(x),
    "hinge": lambda y, t, x, w: ops.symmetric_kl_hinge(y, x, 1.0),
    "sampled": lambda y, t, x, w: ops.sampled_softmax_crossentropy(
        y,
        x,
        class_vectors=w,
        candidates=ops.log_uniform_sample(y, 2, 5, seed=0),
    ),
    "nce": lambda y, t, x, w: ops.nce_loss(
        y,
        x,
        class_vectors=w,
        candidates=ops.unigram_sample(y, 2, [1, 2, 3, 4, 5], seed=0),
    ),
    "pearson": lambda y, t, x, w: ops.pearson_loss(x[:, 0], x[:, 1]),
    "kl": lambda y, t, x, w: ops.kl_divergence(x, 2 * x, temperature=2.0),
    "jensen_shannon": lambda y, t, x, w: ops.jensen_shannon(x, 2 * x),
    "entropy": lambda y, t, x, w: ops.entropy(x),
    "brier": lambda y, t, x, w: ops.brier_score(t, x),
    "linear": lambda y, t, x, w: ops.linear_softmax_crossentropy(
        y, x, class_vectors=w, label_smoothing=0.1, block_size=2
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_stay_on_the_device_of_their_data(name):
    """What makes a tensor on the CPU fails here, as it would on a GPU."""
    if BACKEND != "torch":
        pytest.skip("the other backends place tensors by themselves")
    with another_device() as device:
        given = on(device, LABELS, TARGETS, LOGITS, VECTORS)
        result = CALLS[name](*given)
        assert result.device.type == device
