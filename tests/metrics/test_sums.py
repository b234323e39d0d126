"""Sums in two parts lose nothing, compiled or not."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xent.metrics.sums import Sums, two_sum
from tests.testing import BACKEND, compiled, to_numpy

# Below 2**-100 what is lost may itself be denormal.
floats = st.floats(2.0**-60, 2.0**60, width=32).flatmap(
    lambda x: st.sampled_from([x, -x])
)


def add_all(amounts):
    """A running sum in a graph, as a step of training makes it."""

    def step(state, amount):
        high, lost = two_sum(state[0], amount)
        return two_sum(high, state[1] + lost)

    state = (np.float32(0), np.float32(0))
    step = compiled(step)
    for amount in amounts:
        state = step(*map(keras.ops.convert_to_tensor, [state, amount]))
    return [np.float64(to_numpy(part)) for part in state]


def test_compiled_it_keeps_what_a_float32_sum_rounds_off():
    # 0.1 is 13421773 * 2**-27 in float32: all digits of the sum are known.
    rng = np.random.default_rng(0)
    amounts = rng.choice([1e6, 0.1, 3e-5], 2000).astype("float32")
    high, low = add_all(amounts)
    assert low != 0
    exact = math.fsum(amounts.astype("float64"))
    assert high + low == pytest.approx(exact, rel=1e-13)
    naive = np.add.accumulate(amounts, dtype="float32")[-1]
    assert abs(naive - exact) > 1e-7 * exact


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs without XLA")
def test_tensorflow_graphs_keep_it_too():
    import tensorflow as tf

    traced = tf.function(two_sum)
    total, lost = traced(tf.constant(2.0**24), tf.constant(1.5))
    assert float(total) + float(lost) == 2.0**24 + 1.5
    assert float(lost) != 0


@settings(deadline=None, max_examples=50)
@given(floats, floats)
def test_two_parts_are_the_exact_sum(a, b):
    total, lost = two_sum(
        *map(keras.ops.convert_to_tensor, [np.float32(a), np.float32(b)])
    )
    exact = np.float64(to_numpy(total)) + np.float64(to_numpy(lost))
    if abs(math.log2(abs(a / b))) < 28:
        assert exact == a + b
    assert to_numpy(total) == np.float32(a) + np.float32(b)


def test_whole_counts_pass_two_to_the_24():
    sums = Sums((2,))
    for _ in range(5):
        sums.update_state(np.array([2.0**24 - 1, 1.0], "float32"))
    assert sums.exact().tolist() == [5 * (2**24 - 1), 5]
    other = Sums((2,))
    other.update_state(np.array([1.0, 1.0], "float32"))
    sums.merge_state([other, other])
    assert sums.exact().tolist() == [5 * (2**24 - 1) + 2, 7]
    sums.reset_state()
    assert sums.exact().tolist() == [0, 0]


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_what_it_is(value):
    sums = Sums((2,))
    for amount in ([1, 1], [value, 1], [1, 1]):
        sums.update_state(np.array(amount, "float32"))
    np.testing.assert_array_equal(to_numpy(sums.result()), [value, 3])
