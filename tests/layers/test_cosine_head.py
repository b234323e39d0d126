"""A head of cosines trains as the formula says, and predicts cosines."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import ops
from keras_xent.layers import CosineHead
from keras_xent.losses import (
    LinearCrossentropy,
    NoiseContrastiveEstimation,
    SampledSoftmaxCrossentropy,
    SparseSoftmaxCrossentropy,
)
from tests.testing import BACKEND, gradient, normal, to_numpy, with_mask

ROWS, SIZE, CLASSES = 12, 4, 7
X = normal(ROWS, SIZE, seed=1)
Y = np.arange(ROWS) % CLASSES
EACH = np.linspace(0, 0.6, CLASSES)


def unit(x, axis):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def cosines(x, kernel, sub_centers=1):
    found = unit(x.astype("float64"), 1) @ unit(kernel.astype("float64"), 0)
    return found.reshape(len(x), -1, sub_centers).max(axis=-1)


def head(**options):
    keras.utils.set_random_seed(0)
    made = CosineHead(CLASSES, scale=10.0, **options)
    made.build((None, SIZE))
    return made


def kernel_of(head):
    kernel = to_numpy(head._kernel)
    return kernel.T if head.sampled else kernel


def model(**options):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((SIZE,)),
            layers.Dense(SIZE, activation="tanh"),
            CosineHead(CLASSES, scale=10.0, **options),
        ]
    )


# Cosines --------------------------------------------------------------------


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("sub_centers", [1, 3])
def test_it_predicts_cosines_without_scale_and_margin(sampled, sub_centers):
    made = head(angular_margin=0.3, sub_centers=sub_centers, sampled=sampled)
    found = to_numpy(made(X))
    expected = cosines(X, kernel_of(made), sub_centers)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert made.compute_output_shape(X.shape) == (ROWS, CLASSES)


@pytest.mark.parametrize("sampled", [False, True])
def test_many_classes_are_predicted_in_parts(sampled, monkeypatch):
    made = head(sub_centers=3, sampled=sampled)
    expected = to_numpy(made(X))
    module = "keras_xent.layers.cosine_head.PREDICT_BLOCK_BYTES"
    monkeypatch.setattr(module, 2 * 4 * SIZE * 3)  # two classes at a time
    np.testing.assert_allclose(to_numpy(made(X)), expected, atol=1e-6)


def test_features_of_any_rank_and_of_zeros_have_cosines():
    made = head()
    x = X.reshape(2, 6, SIZE).copy()
    x[0, 0] = 0
    found = to_numpy(made(x))
    assert found.shape == (2, 6, CLASSES)
    assert not found[0, 0].any()


def test_what_is_predicted_can_be_differentiated():
    made = head()
    upstream = keras.ops.convert_to_tensor(normal(ROWS, CLASSES, seed=3))
    slope, _ = gradient(lambda x: made(x) * upstream, X)
    # A length changes no cosine.
    np.testing.assert_allclose(np.sum(slope * X, axis=1), 0, atol=1e-5)
    assert np.abs(slope).max() > 0.1


# The loss -------------------------------------------------------------------


def test_evaluate_has_the_scale_and_no_margin():
    made = model(angular_margin=0.5)
    made.compile("sgd", LinearCrossentropy())
    found = made.evaluate(X, Y, verbose=0)
    logits = 10 * made.predict(X, verbose=0)
    expected = SparseSoftmaxCrossentropy()(Y, logits)
    np.testing.assert_allclose(found, to_numpy(expected), rtol=1e-5)


@pytest.mark.parametrize(
    "margins",
    [{}, {"cosine_margin": 0.2}, {"angular_margin": EACH}],
    ids=["none", "one", "of each class"],
)
def test_training_asks_for_the_margin(margins):
    made = head(**margins)
    found = LinearCrossentropy(reduction="none")(Y, made(X, training=True))
    logits = cosines(X, kernel_of(made))
    own = logits[np.arange(ROWS), Y]
    less = margins.get("cosine_margin", 0)
    turn = EACH[Y] if "angular_margin" in margins else 0
    angle = np.arccos(own) + turn
    turned = np.where(angle > np.pi, own - turn * np.sin(turn), np.cos(angle))
    logits[np.arange(ROWS), Y] = turned - less
    expected = ops.sparse_softmax_crossentropy(Y, 10 * logits)
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-4)


@pytest.mark.parametrize(
    "how", [{}, {"run_eagerly": True}, {"jit_compile": False}], ids=str
)
@pytest.mark.parametrize(
    "options",
    [
        {"angular_margin": 0.2},
        {"cosine_margin": 0.2, "sub_centers": 2, "learn_scale": True},
    ],
    ids=str,
)
def test_it_learns(options, how):
    made = model(metrics=["accuracy"], **options)
    made.compile(keras.optimizers.Adam(0.1), LinearCrossentropy(), **how)
    history = made.fit(X, Y, epochs=10, batch_size=6, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["accuracy"][-1] > history["accuracy"][0]
    moved = abs(made.layers[-1].scale - 10) > 0.1
    assert moved == ("learn_scale" in options)


@pytest.mark.parametrize(
    "loss",
    [
        SampledSoftmaxCrossentropy(3),
        SampledSoftmaxCrossentropy(
            3,
            batch_classes=True,
            subtract_log_q=False,
            distribution="uniform",
        ),
        NoiseContrastiveEstimation(3),
    ],
    ids=["sampled", "partial fc", "nce"],
)
def test_it_learns_from_a_sample_of_the_classes(loss):
    made = model(angular_margin=0.1, sub_centers=2, sampled=True, seed=0)
    made.compile(keras.optimizers.Adam(0.03), loss)
    before = made.evaluate(X, Y, verbose=0)
    made.fit(X, Y, epochs=30, batch_size=6, verbose=0)
    assert made.evaluate(X, Y, verbose=0) < 0.7 * before


def test_a_sample_of_all_classes_is_all_of_them_margin_and_all():
    loss = SampledSoftmaxCrossentropy(
        CLASSES - 1, subtract_log_q=False, batch_classes=True, reduction="none"
    )
    for options in (
        {"angular_margin": 0.3, "cosine_margin": 0.1},
        {"angular_margin": EACH, "sub_centers": 2},
    ):
        made = head(sampled=True, seed=1, **options)
        features = made(X, training=True)
        # All labels are in the batch.
        found = loss(Y, features)
        expected = LinearCrossentropy(reduction="none")(Y, features)
        np.testing.assert_allclose(
            to_numpy(found), to_numpy(expected), rtol=1e-5
        )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_it_learns_in_low_precision(policy):
    if policy == "mixed_float16" and BACKEND == "torch":
        pytest.skip("float16 is slow on the CPU of PyTorch")
    made = model(angular_margin=0.2, dtype=policy)
    made.compile(keras.optimizers.Adam(0.03), LinearCrossentropy())
    history = made.fit(X, Y, epochs=20, batch_size=6, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    last = made.layers[-1]
    assert last.angular_margin.dtype == last._kernel.dtype == "float32"


def test_masked_rows_and_rows_of_weight_zero_do_not_count():
    made = head(angular_margin=0.3)
    keep = np.arange(ROWS) % 3 > 0
    loss = LinearCrossentropy()
    expected = to_numpy(loss(Y[keep], made(X[keep], training=True)))
    masked = loss(Y, made(with_mask(X, keep), training=True))
    np.testing.assert_allclose(to_numpy(masked), expected, rtol=1e-5)
    loss = LinearCrossentropy(reduction="mean_with_sample_weight")
    weighted = loss(Y, made(X, training=True), keep.astype("float32"))
    np.testing.assert_allclose(to_numpy(weighted), expected, rtol=1e-5)


# Configuration --------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"angular_margin": 0.2, "cosine_margin": 0.1, "sub_centers": 3},
        {"angular_margin": EACH, "learn_scale": True, "sampled": True},
    ],
    ids=str,
)
def test_a_saved_model_predicts_and_goes_on_training(options, tmp_path):
    made = model(metrics=["accuracy"], **options)
    sampled = "sampled" in options
    loss = SampledSoftmaxCrossentropy(3) if sampled else LinearCrossentropy()
    made.compile("adam", loss)
    made.fit(X, Y, verbose=0)
    made.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), made.predict(X, verbose=0)
    )
    config = loaded.layers[-1].get_config()
    assert config == made.layers[-1].get_config()
    if not sampled:
        np.testing.assert_allclose(
            *(
                m.fit(X, Y, verbose=0, shuffle=False).history["loss"]
                for m in (made, loaded)
            ),
            rtol=1e-5,
        )


MARGINS = {
    "none": {},
    "small": {"angular_margin": 0.2},
    "large": {"angular_margin": 0.5, "cosine_margin": EACH},
}


@pytest.mark.parametrize("before", MARGINS)
@pytest.mark.parametrize("after", MARGINS)
def test_loaded_weights_leave_a_head_its_margins(before, after, tmp_path):
    made, other = model(**MARGINS[before]), model(**MARGINS[after])
    made.layers[-1].set_margins(0.5)
    made.layers[-1]._kernel.assign(1.0 + to_numpy(made.layers[-1]._kernel))
    made.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(
        other.predict(X, verbose=0), made.predict(X, verbose=0)
    )
    if after == "none":
        assert other.layers[-1].angular_margin is None
        return
    # What a schedule has set goes on only where the margins are the same.
    share = 0.5 if before == after else 1.0
    np.testing.assert_allclose(
        to_numpy(other.layers[-1].angular_margin),
        share * MARGINS[after]["angular_margin"],
        rtol=1e-6,
    )


def test_weights_of_another_kind_of_head_are_an_error(tmp_path):
    model(learn_scale=True).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="same `learn_scale`"):
        model().load_weights(tmp_path / "a.weights.h5")


def test_margins_are_variables_where_there_are_any():
    assert not head().non_trainable_variables
    made = head(angular_margin=0.2, learn_scale=True)
    named = {v.name: v for v in made.variables}
    assert set(named) == {
        "angular_margin",
        "cosine_margin",
        "kernel",
        "log_scale",
    }
    assert [v.name for v in made.trainable_variables] == ["log_scale", "kernel"]
    made.set_margins(0.5)
    assert float(to_numpy(made.angular_margin)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 1}, "a whole number from 2"),
        ({"scale": 0.0}, "`scale` must be above 0"),
        ({"scale": "30"}, "`scale` must be a finite number"),
        ({"angular_margin": -0.1}, "`angular_margin` must be a number from 0"),
        ({"angular_margin": 28.6}, "in radians"),
        ({"angular_margin": [0.1, 0.2]}, "one for each of the 7 classes"),
        ({"cosine_margin": "0.35"}, "`cosine_margin` must be a number"),
        ({"cosine_margin": np.nan}, "`cosine_margin` must be a number"),
        ({"sub_centers": 0}, "`sub_centers`"),
        ({"metrics": ["f1"]}, "`metrics` is a list of"),
        ({"precision": "bfloat16"}, "`precision`"),
    ],
)
def test_wrong_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        CosineHead(**{"units": CLASSES, **options})


def test_a_share_beyond_one_raises():
    with pytest.raises(ValueError, match="`share` must be a finite number"):
        head(angular_margin=0.2).set_margins(1.5)


def test_a_soft_cap_of_the_loss_raises():
    features = head()(X, training=True)
    with pytest.raises(ValueError, match="have no soft cap"):
        LinearCrossentropy(softcap=5.0)(Y, features)
