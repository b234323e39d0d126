"""Logits that are cosines with a margin, against formulas in float64."""

import functools

import keras
import numpy as np
import pytest

from keras_xent.ops import blockwise, linear
from keras_xent.ops.cosine import CosineLogits, _slope, with_margin
from tests.testing import (
    BACKEND,
    assert_all_close,
    gradient,
    gradients,
    normal,
    to_numpy,
)

ROWS, SIZE, CLASSES, SCALE = 9, 4, 11, 7.0
LABELS = np.array([0, 3, 10, 6, 1, 2, 3, 9, 0], "int32")
EACH = np.linspace(0.1, 0.9, CLASSES)
MARGINS = {
    "none": (None, None),
    "angular": (0.5, 0.0),
    "cosine": (0.0, 0.35),
    "both": (0.3, 0.2),
    "wide": (1.5, 0.0),  # half of the rows are past π
    "of each class": (EACH, EACH[::-1]),
}
each_margin = pytest.mark.parametrize("name", MARGINS)
each_number = pytest.mark.parametrize("sub_centers", [1, 3])


def naive_margin(cosine, angular, less):
    """By the angle itself."""
    angle = np.arccos(cosine)
    turned = np.where(
        angle + angular > np.pi,
        cosine - angular * np.sin(angular),
        np.cos(angle + angular),
    )
    return turned - less


def naive(features, kernel, scale, margins, sub_centers=1):
    """The losses in float64, from matrices of logits."""
    features, kernel = (x.astype("float64") for x in (features, kernel))
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    kernel = kernel / np.linalg.norm(kernel, axis=0)
    cosines = (features @ kernel).reshape(len(features), -1, sub_centers)
    cosines = cosines.max(axis=-1)
    rows = np.arange(len(features))
    logits = scale * cosines
    if margins[0] is not None:
        of_rows = [np.broadcast_to(x, CLASSES)[LABELS] for x in margins]
        logits[rows, LABELS] = scale * naive_margin(
            cosines[rows, LABELS], *of_rows
        )
    top = logits.max(axis=1)
    sums = np.exp(logits - top[:, None]).sum(axis=1)
    return np.log(sums) + top - logits[rows, LABELS]


def factors(sub_centers=1):
    features = normal(ROWS, SIZE, seed=1, scale=3.0).copy()
    kernel = normal(SIZE, CLASSES * sub_centers, seed=2).copy()
    # A class vector on top of its row, and one opposite to it.
    kernel[:, 0] = 2 * features[0]
    kernel[:, 3 * sub_centers] = -features[1]
    return features, kernel


def losses(features, matrix, scale=SCALE, **options):
    return _losses(features, matrix, scale, **options)[0]


def _losses(
    features, matrix, scale, margins=(None, None), sub_centers=1, **options
):
    margins = [
        None if x is None else keras.ops.convert_to_tensor(x, "float32")
        for x in margins
    ]
    logits = CosineLogits(scale, *margins, sub_centers)
    options = {"block_size": 3, **options}
    name = "kernel"
    if matrix.shape[0] != SIZE:
        name = "class_vectors"
    return linear.losses_and_terms(
        LABELS, features, **{name: matrix}, logits=logits, **options
    )


# The margin -----------------------------------------------------------------


@pytest.mark.parametrize("angular", [0.0, 0.2, 0.8, 1.5])
def test_a_margin_turns_the_angle_and_goes_on_falling_past_pi(angular):
    cosine = np.linspace(-1, 1, 201)
    tensor = keras.ops.convert_to_tensor(cosine.astype("float32"))
    value = to_numpy(with_margin(tensor, angular, 0.1))
    expected = naive_margin(cosine, angular, 0.1)
    past = np.abs(np.arccos(cosine) + angular - np.pi) < 1e-3
    np.testing.assert_allclose(value[~past], expected[~past], atol=1e-6)
    assert (np.diff(value) > 0).all()
    assert (value <= cosine - 0.1 + 1e-6).all()


@pytest.mark.parametrize("angular", [0.0, 0.2, 0.8, 1.5])
def test_the_slope_is_the_derivative_of_the_margin(angular):
    cosine = np.linspace(-1, 1, 41).astype("float32")
    found = to_numpy(_slope(keras.ops.convert_to_tensor(cosine), angular))
    by_autodiff, _ = gradient(lambda x: with_margin(x, angular, 0.1), cosine)
    np.testing.assert_allclose(found, by_autodiff, rtol=1e-5)
    inner = np.abs(cosine) < 0.99
    inner &= np.abs(np.arccos(cosine) + angular - np.pi) > 1e-2
    x, step = cosine[inner].astype("float64"), 1e-6
    high, low = (naive_margin(y, angular, 0.1) for y in (x + step, x - step))
    expected = (high - low) / (2 * step)
    np.testing.assert_allclose(found[inner], expected, rtol=1e-4)


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000002, -1.0000002])
def test_value_and_gradient_are_finite_where_the_angle_has_none(cosine):
    slope, value = gradient(
        lambda x: with_margin(x, 0.5, 0.0), np.array([cosine], "float32")
    )
    assert np.isfinite([slope, value]).all()


# The loss -------------------------------------------------------------------


@each_margin
@each_number
@pytest.mark.parametrize("transposed", [False, True])
def test_the_loss_is_that_of_the_matrix_of_logits(
    name, sub_centers, transposed
):
    features, kernel = factors(sub_centers)
    margins = MARGINS[name]
    found = losses(
        features,
        kernel.T.copy() if transposed else kernel,
        margins=margins,
        sub_centers=sub_centers,
    )
    expected = naive(features, kernel, SCALE, margins, sub_centers)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5)


@each_margin
@each_number
@pytest.mark.parametrize("forwards", [False, True])
def test_gradients_are_those_of_the_formula(
    name, sub_centers, forwards, monkeypatch
):
    # As it is where products are made in another dtype than the kernel's.
    monkeypatch.setattr(linear, "_gradients_forwards", lambda *_: forwards)
    features, kernel = factors(sub_centers)
    kernel[:, 0] += 0.1  # A corner, where there are no differences.
    kernel[:, 3 * sub_centers] += 0.1
    margins, scale = MARGINS[name], np.float32(SCALE)
    grads, _ = gradients(
        functools.partial(
            losses, margins=margins, sub_centers=sub_centers, summed=True
        ),
        features,
        kernel,
        scale,
    )

    def total(features, kernel, scale):
        return naive(features, kernel, scale, margins, sub_centers).sum()

    wide = [np.float64(x) for x in (features, kernel, scale)]
    for place, found in enumerate(grads):

        def of_one(x, place=place):
            return total(*wide[:place], x, *wide[place + 1 :])

        expected = numeric_gradient(of_one, wide[place])
        np.testing.assert_allclose(
            to_numpy(found), expected, rtol=1e-3, atol=1e-4
        )


def numeric_gradient(function, x, step=1e-6):
    slopes = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        moved = [x.copy() if x.shape else x for _ in range(2)]
        if x.shape:
            moved[0][place] -= step
            moved[1][place] += step
        else:
            moved = x - step, x + step
        low, high = map(function, moved)
        slopes[place] = (high - low) / (2 * step)
    return slopes


@each_number
@pytest.mark.parametrize("block_size", [1, 4, CLASSES, 100, None])
def test_the_size_of_a_block_does_not_matter(sub_centers, block_size):
    def found(size):
        return gradients(
            functools.partial(
                losses,
                margins=MARGINS["both"],
                sub_centers=sub_centers,
                block_size=size,
            ),
            *factors(sub_centers),
            np.float32(SCALE),
        )

    (grads, value), (expected, truth) = found(block_size), found(3)
    assert_all_close([value, *grads], [truth, *expected], 1e-4, 1e-5)


@each_number
def test_both_ways_give_the_same_in_low_precision_too(sub_centers, monkeypatch):
    features, kernel = factors(sub_centers)
    features = keras.ops.cast(features, "bfloat16")
    results = []
    for forwards in (True, False):
        monkeypatch.setattr(
            blockwise, "gradients_forwards", lambda x, way=forwards: way
        )
        (_, d_kernel), value = gradients(
            functools.partial(
                losses,
                margins=MARGINS["both"],
                sub_centers=sub_centers,
                summed=True,
                block_size=None,
            ),
            features,
            kernel,
        )
        results.append([value, d_kernel])
    assert_all_close(*results, rtol=0.02, atol=0.02)
    exact = naive(
        to_numpy(keras.ops.cast(features, "float32")),
        kernel,
        SCALE,
        MARGINS["both"],
        sub_centers,
    ).sum()
    np.testing.assert_allclose(to_numpy(results[0][0]), exact, rtol=0.01)


def test_the_kernel_is_not_prepared_as_a_whole_in_its_own_dtype(monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("the rows' way makes unit vectors of all classes")

    monkeypatch.setattr(blockwise, "gradients_forwards", lambda x: True)
    monkeypatch.setattr(blockwise, "weighted_sum", refused)
    losses(*factors(), summed=True)


def test_gradients_are_finite_on_top_of_and_opposite_to_a_class():
    grads, value = gradients(
        functools.partial(losses, margins=MARGINS["angular"]), *factors()
    )
    assert all(np.isfinite(to_numpy(x)).all() for x in (value, *grads))


def test_zeros_have_no_direction_and_a_finite_gradient():
    features, kernel = factors()
    features[2], kernel[:, 5] = 0, 0
    grads, value = gradients(
        functools.partial(losses, margins=MARGINS["both"]), features, kernel
    )
    assert all(np.isfinite(to_numpy(x)).all() for x in (value, *grads))


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_lengths_matter_to_no_loss(size):
    features, kernel = factors()
    expected = to_numpy(losses(features, kernel, margins=MARGINS["both"]))
    size = np.float32(size)
    found = losses(features * size, kernel / size, margins=MARGINS["both"])
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["none", "both", "of each class"])
def test_accuracies_are_those_without_a_margin(name):
    features, kernel = factors()
    kernel[:, 6] = features[3] + 0.2  # right, but by less than the margin
    _, terms = _losses(
        features, kernel, SCALE, MARGINS[name], block_size=4, all_terms=True
    )
    _, plain = _losses(features, kernel, SCALE, all_terms=True)
    right = to_numpy(terms.gap) <= 0
    np.testing.assert_array_equal(right, to_numpy(plain.gap) <= 0)
    assert 0 < right.sum() < ROWS
    np.testing.assert_array_equal(to_numpy(terms.above), to_numpy(plain.above))


def test_a_label_that_does_not_exist_is_nan_and_an_ignored_one_is_zero():
    labels = np.array([0, 3, 11, 6, 1, 2, -1, 9, 0], "int32")
    features, kernel = factors()
    features = keras.ops.convert_to_tensor(features)
    margins = [keras.ops.convert_to_tensor(x, "float32") for x in (0.3, 0.1)]
    found, _ = linear.losses_and_terms(
        keras.ops.convert_to_tensor(labels),
        features,
        kernel=kernel,
        logits=CosineLogits(SCALE, *margins),
        ignore_class=-1,
    )
    found = to_numpy(found)
    assert np.isnan(found).tolist() == (labels == 11).tolist()
    assert found[6] == 0


@pytest.mark.skipif(BACKEND != "jax", reason="only there are other transforms")
@each_margin
def test_transforms_that_differentiate_the_pass_as_written_are_right(name):
    import jax

    features, kernel = factors()
    features = features + 0.1
    run = functools.partial(losses, margins=MARGINS[name])
    ways = [normal(ROWS, SIZE, seed=5), normal(SIZE, CLASSES, seed=6)]
    _, along = jax.jvp(run, (features, kernel), tuple(ways))
    _, back = jax.vjp(run, features, kernel)
    upstream = normal(ROWS, seed=7)
    expected = sum(
        np.sum(g * way) for g, way in zip(back(upstream), ways, strict=True)
    )
    np.testing.assert_allclose(np.sum(along * upstream), expected, rtol=1e-4)


# Peers ----------------------------------------------------------------------


@pytest.mark.skipif(BACKEND != "torch", reason="a library for PyTorch")
@pytest.mark.parametrize(
    ("name", "options", "margins", "sub_centers"),
    [
        ("ArcFaceLoss", {"margin": 28.6}, (np.deg2rad(28.6), 0.0), 1),
        ("CosFaceLoss", {"margin": 0.35}, (0.0, 0.35), 1),
        (
            "SubCenterArcFaceLoss",
            {"margin": 28.6, "sub_centers": 3},
            (np.deg2rad(28.6), 0.0),
            3,
        ),
    ],
)
def test_values_and_gradients_are_those_of_pytorch_metric_learning(
    name, options, margins, sub_centers
):
    peers = pytest.importorskip("pytorch_metric_learning.losses")
    features, kernel = factors(sub_centers)
    features = features + 0.1
    peer = getattr(peers, name)(
        num_classes=CLASSES, embedding_size=SIZE, scale=SCALE, **options
    )
    tensor = keras.ops.convert_to_tensor
    peer.W.data = tensor(kernel)
    grads, value = gradients(
        functools.partial(losses, margins=margins, sub_centers=sub_centers),
        features,
        kernel,
    )
    x = tensor(features).requires_grad_(True)
    truth = peer(x, tensor(LABELS).long())
    truth.backward()
    np.testing.assert_allclose(
        to_numpy(value).mean(), to_numpy(truth.detach()), rtol=1e-5
    )
    assert_all_close(
        [g / ROWS for g in grads], [x.grad, peer.W.grad], rtol=1e-3, atol=1e-5
    )
