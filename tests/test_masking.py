"""Keras masks reach losses and metrics from the layer that made them."""

import keras
import numpy as np
import pytest

import keras_xent
from tests.testing import BACKEND, to_numpy, with_mask

TOKENS = np.array([[1, 2, 3, 0, 0, 0], [3, 1, 0, 0, 0, 0], [2, 2, 2, 1, 3, 0]])
VALID = TOKENS != 0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_masked_time_steps_count_neither_in_a_loss_nor_in_a_metric(jit_compile):
    if jit_compile and BACKEND == "torch":
        pytest.skip("the contract test compiles one class of each kind")
    if not jit_compile and BACKEND == "jax":
        pytest.skip("the contract test calls every class op by op")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(4, 3, mask_zero=True),
            keras.layers.Dense(1),
        ]
    )
    flags = np.random.default_rng(0).integers(0, 2, (3, 6, 1))
    # A threshold at 0 makes the accuracy a count.
    metric = keras_xent.metrics.MatchAccuracy(threshold=0.0, similarity=True)
    loss = keras_xent.losses.SigmoidCrossentropy()
    model.compile(
        loss=loss,
        metrics=[metric],
        weighted_metrics=[],
        jit_compile=jit_compile,
    )
    logs = model.evaluate(TOKENS, flags, verbose=0, return_dict=True)
    scores = model.predict(TOKENS, verbose=0)[VALID]
    right = (scores >= 0) == (flags[VALID] == 1)
    assert logs["match_accuracy"] == pytest.approx(right.mean())
    expected = float(to_numpy(loss(flags[VALID], scores)))
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    model.fit(TOKENS, flags, verbose=0)


def test_a_row_that_is_masked_altogether_costs_nothing():
    logits = with_mask(
        np.full((2, 3, 4), np.nan, "float32"), np.zeros((2, 3), bool)
    )
    loss = keras_xent.losses.SparseSoftmaxCrossentropy()
    assert float(to_numpy(loss(np.zeros((2, 3), "int32"), logits))) == 0
