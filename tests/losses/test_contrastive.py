"""Contrastive losses as Keras uses them: reduction, weights, masks, heads."""

import keras
import numpy as np
import pytest

from keras_xent import layers, losses, ops
from tests.testing import BACKEND, gradient, normal, quick, to_numpy, with_mask

LOSSES = {
    "supervised": (losses.SupervisedContrastive, ops.supervised_contrastive),
    "info_nce": (losses.InfoNCE, ops.info_nce),
    "sigmoid": (losses.SigmoidContrastive, ops.sigmoid_contrastive),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
IDS = np.array([5, 1, 5, 7, 3, 5, 1], "int32")
ROWS, SIZE = len(IDS), 3


def embeddings(*views):
    return normal(ROWS, *views, SIZE)


def value(loss, *arguments):
    return float(to_numpy(loss(*arguments)))


@each_loss
@pytest.mark.parametrize("views", [(2,), (3,)])
def test_is_the_mean_of_its_op(name, views):
    cls, op = LOSSES[name]
    expected = to_numpy(op(IDS, embeddings(*views))).mean()
    assert value(cls(), IDS, embeddings(*views)) == pytest.approx(expected)


@each_loss
def test_options_reach_the_op(name):
    cls, op = LOSSES[name]
    more = {"sigmoid": {"bias": -1.0}, "info_nce": {"symmetric": False}}
    options = {"temperature": 0.3, **more.get(name, {})}
    x = embeddings(2)
    expected = to_numpy(op(IDS, x, **options)).mean()
    loss = cls(**options, block_size=2, precision="float32")
    assert value(loss, IDS, x) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["supervised", "info_nce"])
def test_the_mean_is_over_those_that_have_a_match(name):
    cls, op = LOSSES[name]
    rows = to_numpy(op(IDS, embeddings()))
    assert np.count_nonzero(rows) == 5
    loss = value(cls(), IDS, embeddings())
    assert loss == pytest.approx(rows.sum() / 5)
    # By weights of 0 the others lose theirs, and nobody counts.
    weight = np.array([1, 1, 0, 1, 1, 0, 0], "float32")
    mean = cls(reduction="mean_with_sample_weight")
    assert value(mean, IDS, embeddings(), weight) == 0


@pytest.mark.parametrize("name", ["supervised", "info_nce"])
def test_nobody_with_a_match_is_no_loss(name):
    grad, loss = gradient(
        lambda x: LOSSES[name][0]()(np.arange(ROWS), x), embeddings()
    )
    assert loss == 0
    np.testing.assert_array_equal(grad, 0)


@each_loss
@pytest.mark.parametrize("views", [(), (2,), (3,)])
def test_weights_multiply_and_0_is_absent(name, views):
    cls, op = LOSSES[name]
    x, weight = embeddings(*views), np.array([1, 0, 2, 0.5, 0, 1, 3], "float32")
    there = weight > 0
    rows = to_numpy(op(IDS[there], x[there]))
    expected = rows @ weight[there]
    assert value(cls(reduction="sum"), IDS, x, weight) == pytest.approx(
        expected, rel=1e-5
    )


@each_loss
@pytest.mark.parametrize("views", [(2,), (3,)])
def test_a_mask_takes_examples_out_with_all_their_views(name, views):
    cls, _ = LOSSES[name]
    x, mask = embeddings(*views), np.array([1, 1, 0, 1, 0, 1, 1], bool)
    expected = value(cls(), IDS[mask], x[mask])
    x = np.where(mask[:, None, None], x, np.float32(np.nan))
    assert value(cls(), IDS, with_mask(x, mask)) == pytest.approx(expected)


@each_loss
def test_a_nan_id_is_seen(name):
    ids = IDS.astype("float32")
    ids[2] = np.nan
    for views in ((), (2,)):
        assert np.isnan(value(LOSSES[name][0](), ids, embeddings(*views)))


def test_ids_stay_integers_in_low_precision():
    ids = np.array([1000, 1001, 1000, 1001])
    x = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], "float32")
    loss = losses.SupervisedContrastive(dtype="bfloat16")
    assert value(loss, ids, x) < 0.01
    assert value(loss, ids[[0, 0, 1, 1]], x) > 1


@each_loss
@pytest.mark.parametrize("wrong", [0, -0.1, "cold"])
def test_a_temperature_is_positive(name, wrong):
    with pytest.raises(ValueError, match="`temperature`"):
        LOSSES[name][0](temperature=wrong)


# With a head ---------------------------------------------------------------


@each_loss
def test_the_temperature_of_the_head_is_used(name):
    cls, op = LOSSES[name]
    head = layers.SimilarityHead(temperature=0.4, bias=-2.0)
    bias = {"bias": -2.0} if name == "sigmoid" else {}
    expected = to_numpy(op(IDS, embeddings(2), temperature=0.4, **bias)).mean()
    result = value(cls(), IDS, head(embeddings(2)))
    assert result == pytest.approx(expected, rel=1e-5)


@each_loss
def test_two_temperatures_are_an_error(name):
    head = layers.SimilarityHead()
    loss = LOSSES[name][0](temperature=0.4)
    with pytest.raises(ValueError, match="Give the temperature once"):
        loss(IDS, head(embeddings(2)))


def test_a_bias_may_be_the_losss_own_and_not_both():
    loss = losses.SigmoidContrastive(bias=-3.0)
    head = layers.SimilarityHead(temperature=0.4)
    result = value(loss, IDS, head(embeddings(2)))
    rows = ops.sigmoid_contrastive(
        IDS, embeddings(2), temperature=0.4, bias=-3.0
    )
    assert result == pytest.approx(to_numpy(rows).mean(), rel=1e-5)
    head = layers.SimilarityHead(temperature=0.4, bias=-2.0)
    with pytest.raises(ValueError, match="Give the bias once"):
        loss(IDS, head(embeddings(2)))


def test_a_linear_head_loss_refuses_a_similarity_head():
    x = layers.SimilarityHead()(embeddings())
    with pytest.raises(ValueError, match="LinearHead"):
        losses.LinearCrossentropy()(IDS, x)


def head_for(loss):
    asks = isinstance(loss, losses.SigmoidContrastive)
    return layers.SimilarityHead(temperature=0.2, bias=-3.0 if asks else None)


def pair_model(loss, head=None, **compile_args):
    """Two towers on two noisy looks at the same hidden numbers."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6,), name=name) for name in ("a", "b")]
    towers = [keras.layers.Dense(4)(x) for x in inputs]
    head = head or head_for(loss)
    model = keras.Model(inputs, head(towers))
    model.compile(keras.optimizers.Adam(0.05), loss=loss, **compile_args)
    return model


def pair_data(rows=48):
    hidden = normal(rows, 6, seed=5)
    noise = [0.1 * normal(rows, 6, seed=seed) for seed in (6, 7)]
    return [hidden + noise[0], hidden @ np.eye(6)[::-1] + noise[1]]


@each_loss
@pytest.mark.parametrize(
    "jit_compile", [False] if BACKEND == "torch" else [False, True]
)
def test_two_towers_learn_in_fit_and_so_does_the_temperature(name, jit_compile):
    loss = LOSSES[name][0]()
    head = head_for(loss)
    model = pair_model(loss, head, jit_compile=jit_compile)
    x, ids = pair_data(), np.arange(48)
    # JAX compiles every op anew in an eager step; a few of them say as much.
    eager = BACKEND == "jax" and not jit_compile
    before = head.temperature, head.bias
    history = model.fit(
        x, ids, batch_size=24, epochs=2 if eager else 40, verbose=0
    ).history
    assert head.temperature != before[0]
    assert (head.bias != before[1]) == (name == "sigmoid")
    assert history["loss"][-1] < history["loss"][0]
    if not eager:
        pairs = to_numpy(
            quick(model)([keras.ops.convert_to_tensor(a) for a in x])
        )
        scores = pairs[:, 0] @ pairs[:, 1].T
        assert np.mean(scores.argmax(axis=1) == ids) > 0.5


@each_loss
def test_a_saved_model_goes_on_with_its_temperature(name, tmp_path):
    model = pair_model(LOSSES[name][0]())
    x, ids = pair_data(), np.arange(48)
    model.fit(x, ids, batch_size=48, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    head = loaded.layers[-1]
    assert head.temperature == model.layers[-1].temperature != 0.2
    for each in (model, loaded):
        each.fit(x, ids, batch_size=48, verbose=0)
    assert head.temperature == pytest.approx(
        model.layers[-1].temperature, rel=1e-6
    )


def test_fit_and_evaluate_agree():
    model = pair_model(losses.InfoNCE())
    x, ids = pair_data(), np.arange(48)
    before = model.evaluate(x, ids, batch_size=48, verbose=0)
    history = model.fit(x, ids, batch_size=48, verbose=0).history
    assert history["loss"][0] == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy):
    keras.config.set_dtype_policy(policy)
    try:
        head = layers.SimilarityHead(temperature=0.2, bias=-3.0)
        model = pair_model(losses.SigmoidContrastive(), head)
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(model.output.dtype) == policy[6:]
    assert {x.dtype for x in head.weights} == {"float32"}
    history = model.fit(
        pair_data(), np.arange(48), batch_size=48, epochs=8, verbose=0
    ).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert head.temperature != pytest.approx(0.2, rel=1e-6)
