"""Margins rise as scheduled, and are trained with."""

import keras
import numpy as np
import pytest

from keras_xent.callbacks import MarginSchedule
from keras_xent.layers import CosineHead
from keras_xent.losses import LinearCrossentropy
from tests.testing import normal, thorough_on, to_numpy

X, Y = normal(6, 4), np.arange(6) % 3


def model(*heads, lr=0.0, **how):
    heads = heads or [CosineHead(3, scale=5.0, cosine_margin=0.4)]
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    made = keras.Model(inputs, [head(inputs) for head in heads])
    # Eager, which is quicker than to compile it for each test.
    how = {"run_eagerly": True, **how}
    made.compile(keras.optimizers.SGD(lr), LinearCrossentropy(), **how)
    return made


def fit(model, schedule, **kwargs):
    return model.fit(
        X, Y, batch_size=6, verbose=0, callbacks=[schedule], **kwargs
    ).history


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_loss_of_an_epoch_is_that_of_its_margin(jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("PyTorch compiles for too long")
    head = CosineHead(3, scale=5.0, cosine_margin=0.4, angular_margin=0.2)
    made = model(head, run_eagerly=False, jit_compile=jit_compile)
    history = fit(made, MarginSchedule(2, start=1), epochs=5)
    assert history["margin_share"] == [0, 0, 0.5, 1, 1]
    for share, loss in zip(
        history["margin_share"], history["loss"], strict=True
    ):
        head.set_margins(share)
        expected = LinearCrossentropy()(Y, head(X, training=True))
        np.testing.assert_allclose(loss, to_numpy(expected), rtol=1e-5)


@thorough_on("jax")
def test_training_that_goes_on_finds_the_share_of_its_epoch():
    made = model()
    history = fit(made, MarginSchedule(4), initial_epoch=3, epochs=6)
    assert history["margin_share"] == [0.75, 1, 1]


def test_a_function_says_the_share():
    made = model()
    schedule = MarginSchedule(lambda epoch: 1 - 0.5**epoch, start=1)
    history = fit(made, schedule, epochs=4)
    assert history["margin_share"] == [0, 0, 0.5, 0.75]
    at_once = MarginSchedule(lambda epoch: 1.0, start=2)
    history = fit(model(), at_once, epochs=4)
    assert history["margin_share"] == [0, 0, 1, 1]


def test_margins_of_each_class_rise_together():
    head = CosineHead(3, angular_margin=[0.1, 0.2, 0.4])
    fit(model(head), MarginSchedule(4), epochs=3)
    np.testing.assert_allclose(
        to_numpy(head.angular_margin), [0.05, 0.1, 0.2], rtol=1e-6
    )


def test_several_heads_have_to_be_told_apart():
    heads = [CosineHead(3, cosine_margin=0.4) for _ in range(2)]
    made = model(*heads)
    with pytest.raises(ValueError, match="has 2 of them"):
        made.fit(X, [Y, Y], verbose=0, callbacks=[MarginSchedule(2)])
    schedule = MarginSchedule(2, layer=heads[1])
    made.fit(X, [Y, Y], verbose=0, callbacks=[schedule])
    assert float(to_numpy(heads[0].cosine_margin)) == np.float32(0.4)
    assert float(to_numpy(heads[1].cosine_margin)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginSchedule(0), "`epochs`"),
        (lambda: MarginSchedule(2, start=-1), "`start`"),
        (lambda: MarginSchedule(2, layer="head"), "`layer` must be"),
        (
            lambda: fit(model(CosineHead(3)), MarginSchedule(2)),
            "has no margin to raise",
        ),
        (
            lambda: fit(model(), MarginSchedule(lambda epoch: 2.0)),
            "from 0 to 1",
        ),
        (
            lambda: fit(model(), MarginSchedule(lambda epoch: None)),
            "from 0 to 1. Received: None",
        ),
    ],
)
def test_what_cannot_be_scheduled_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
