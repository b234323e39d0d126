"""How exact the cross-entropy of low-precision factors is.

The truth is float64 on the factors as they are once rounded: what a product in
bfloat16 or float16, and the sums of it in float32, may add to that.
"""

import functools

import keras
import numpy as np
import pytest
import scipy.special

from keras_xent import ops
from keras_xent.ops import blockwise, devices, linear
from keras_xent.ops.logits import LinearLogits
from tests.testing import gradients, normal, only_on, to_numpy

ROWS, SIZE, CLASSES = 256, 64, 1000
BARS = {"bfloat16": 1e-2, "float16": 2e-3}
each_dtype = pytest.mark.parametrize("dtype", BARS)


@pytest.fixture(params=["forwards", "backwards"])
def way(request, monkeypatch):
    """Gradients in the forward pass, or in a pass of their own."""
    forwards = request.param == "forwards"
    monkeypatch.setattr(blockwise, "gradients_forwards", lambda x: forwards)
    # PyTorch multiplies float16 on a CPU in float32, for its speed.
    monkeypatch.setattr(devices, "slow_float16", lambda x: False)
    return request.param


@functools.cache
def rounds(dtype):
    """Whether a product is rounded to the nearest number of its dtype.

    On a processor without AVX-512 TensorFlow cuts bfloat16 off instead, which
    is twice the error, and a bias.
    """
    factors = normal(64, SIZE), normal(SIZE, 64, seed=1)
    product = keras.ops.matmul(*(keras.ops.cast(x, dtype) for x in factors))
    exact = np.matmul(*(rounded(x, dtype) for x in factors))
    errors = [
        np.std(each - exact)
        for each in (rounded(product, dtype), rounded(exact, dtype))
    ]
    return errors[0] < 1.5 * errors[1]


@pytest.fixture
def exact_product(dtype):
    if not rounds(dtype):
        pytest.skip("the product of this framework is not rounded here")


is_rounded = pytest.mark.usefixtures("exact_product")


def rounded(x, dtype):
    return to_numpy(keras.ops.cast(x, dtype)).astype("float64")


def problem(rows=ROWS, classes=CLASSES, scale=1.0, seed=0):
    """Labels, features, kernel and bias: logits of this standard deviation.

    Half of the labels are likely, as in a model that has learned something.
    """
    features = normal(rows, SIZE, seed=seed)
    kernel = normal(SIZE, classes, seed=seed + 1, scale=scale / SIZE**0.5)
    bias = normal(classes, seed=seed + 2, scale=0.1)
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    labels[::2] = np.argmax(features @ kernel, axis=1)[::2]
    return labels.astype("int32"), features, kernel, bias


def truth(labels, features, kernel, bias, weights, smoothing=0.0, z_loss=0.0):
    """Σ weight · loss in float64: losses and all gradients."""
    logits = features @ kernel + bias
    log_sum = scipy.special.logsumexp(logits, axis=1)
    rows, classes = np.arange(len(labels)), logits.shape[1]
    targets = np.full_like(logits, smoothing / classes)
    targets[rows, labels] += 1 - smoothing
    losses = log_sum - np.sum(targets * logits, axis=1) + z_loss * log_sum**2
    p = np.exp(logits - log_sum[:, None])
    slope = p * (1 + 2 * z_loss * log_sum)[:, None] - targets
    slope *= np.reshape(weights, (-1, 1))
    grads = slope @ kernel.T, features.T @ slope, slope.sum(axis=0)
    return losses, grads


def error(result, expected):
    result = to_numpy(result).astype("float64")
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


def dtypes(tensors):
    return [keras.backend.standardize_dtype(x.dtype) for x in tensors]


@is_rounded
@each_dtype
@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("vectors", [True, False])
def test_loss_and_gradients_are_near_those_of_the_rounded_factors(
    dtype, mixed, vectors, way
):
    labels, *factors = problem()
    weights = np.linspace(0.5, 1.5, ROWS).astype("float32") / ROWS
    exact = [rounded(x, dtype) for x in factors]
    if mixed:
        # As under mixed_bfloat16: the variables stay in float32.
        exact[2] = factors[2].astype("float64")
    low = [
        keras.ops.cast(x, "float32" if mixed and i else dtype)
        for i, x in enumerate(factors)
    ]
    if vectors:
        low[1] = keras.ops.transpose(low[1])
    name = "class_vectors" if vectors else "kernel"

    def loss(features, matrix, bias):
        return ops.linear_softmax_crossentropy(
            labels,
            features,
            **{name: matrix},
            bias=bias,
            sample_weight=weights,
            reduction="sum",
        )

    results, value = gradients(loss, *low)
    losses, expected = truth(labels, *exact, weights)
    assert float(to_numpy(value)) == pytest.approx(losses @ weights, rel=1e-4)
    wide = "float32" if mixed else dtype
    assert dtypes(results) == [dtype, wide, wide]
    results = [to_numpy(x) for x in results]
    if vectors:
        results[1] = results[1].T
    errors = [
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(results, expected, strict=True)
    ]
    assert max(errors) < BARS[dtype]


@is_rounded
@each_dtype
def test_each_row_is_near_its_loss(dtype, way):
    _, features, kernel, _ = problem(classes=4000)
    labels = np.random.default_rng(5).integers(0, 4000, ROWS).astype("int32")
    features, kernel = (keras.ops.cast(x, dtype) for x in (features, kernel))
    _, terms = linear.losses_and_terms(
        labels,
        features,
        kernel=kernel,
        logits=LinearLogits(),
        row_weights=np.ones(ROWS),
        summed=True,
    )
    exact = [to_numpy(x).astype("float64") for x in (features, kernel)]
    losses, _ = truth(labels, *exact, 0, 1)
    result = to_numpy(terms.nll)
    errors = abs(result / losses - 1)
    # bfloat16 takes up to 2**-8 off a logit from 2 to 4.
    assert np.quantile(errors, 0.95) < 1e-3
    assert errors.max() < 2e-3
    assert abs(result.mean() / losses.mean() - 1) < 1e-4


@is_rounded
@each_dtype
@pytest.mark.parametrize("block_size", [64, None])
def test_rounding_makes_losses_neither_larger_nor_smaller(dtype, block_size):
    """Were the maximum of a block rounded otherwise than its logits."""
    labels, features, kernel, _ = problem(rows=4 * ROWS, scale=3.0)
    features, kernel = (keras.ops.cast(x, dtype) for x in (features, kernel))
    result = ops.linear_softmax_crossentropy(
        labels, features, kernel=kernel, block_size=block_size
    )
    exact = [to_numpy(x).astype("float64") for x in (features, kernel)]
    losses, _ = truth(labels, *exact, 0, 1)
    errors = to_numpy(result) - losses
    deviation = errors.std() / np.sqrt(len(errors))
    assert abs(errors.mean()) < 4 * deviation + 1e-7
    assert abs(errors.mean()) < 1e-4 * losses.mean()


@is_rounded
@each_dtype
def test_smoothing_and_z_loss_are_as_exact(dtype, way):
    labels, *factors = problem()
    low = [keras.ops.cast(x, dtype) for x in factors]
    options = {"label_smoothing": 0.1, "z_loss": 1e-3}
    results, value = gradients(
        lambda features, kernel, bias: ops.linear_softmax_crossentropy(
            labels,
            features,
            kernel=kernel,
            bias=bias,
            reduction="mean",
            **options,
        ),
        *low,
    )
    exact = [rounded(x, dtype) for x in factors]
    losses, expected = truth(labels, *exact, 1 / ROWS, 0.1, 1e-3)
    assert float(to_numpy(value)) == pytest.approx(losses.mean(), rel=1e-4)
    errors = [error(*pair) for pair in zip(results, expected, strict=True)]
    assert max(errors) < BARS[dtype]


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("features", [1.0, 40.0])
@pytest.mark.parametrize("rows", [4, ROWS])
def test_a_loss_scale_in_float16_neither_overflows_nor_loses_anything(
    rows, features, mixed, way
):
    """Few rows of one class and large features: columns of large sums."""
    labels, x, kernel, bias = problem(rows)
    # Of one sign, so that nothing cancels in the column of the label.
    x = features * abs(x)
    kernel, bias = kernel / features, bias
    labels[:] = 7
    exact = [rounded(a, "float16") for a in (x, kernel, bias)]
    low = [
        keras.ops.cast(a, "float32" if mixed and i else "float16")
        for i, a in enumerate(exact)
    ]
    # What float16 itself cannot hold of the gradient is lost in any case.
    scale = 2.0**15 if features == 1 else 2.0**9

    def loss(features, kernel, bias):
        return scale * ops.linear_softmax_crossentropy(
            labels, features, kernel=kernel, bias=bias, reduction="mean"
        )

    results, value = gradients(loss, *low)
    losses, expected = truth(labels, *exact, scale / rows)
    assert float(to_numpy(value)) == pytest.approx(
        scale * losses.mean(), rel=1e-4
    )
    errors = [error(*pair) for pair in zip(results, expected, strict=True)]
    assert max(errors) < BARS["float16"]


@pytest.mark.parametrize("mixed", [True, False])
def test_small_gradients_in_float16_wait_for_the_loss_scale(mixed, way):
    """Most are below 6e-8, where float16 ends, until the scale is put on."""
    labels, features, kernel, bias = problem(rows=64, classes=4000)
    labels %= 8
    features = features / 512
    exact = [rounded(a, "float16") for a in (features, kernel, bias)]
    low = [
        keras.ops.cast(a, "float32" if mixed and i else "float16")
        for i, a in enumerate(exact)
    ]

    def loss(features, kernel, bias):
        return 2.0**15 * ops.linear_softmax_crossentropy(
            labels, features, kernel=kernel, bias=bias, reduction="mean"
        )

    (_, result, _), _ = gradients(loss, *low)
    _, (_, expected, _) = truth(labels, *exact, 2.0**15 / 64)
    rare = slice(8, None)
    assert np.median(abs(expected[:, rare])) < 2.0**15 * 6e-8
    assert error(result[:, rare], expected[:, rare]) < 5e-3


@pytest.mark.parametrize("mixed", [True, False])
@each_dtype
def test_many_rows_of_small_weights_lose_nothing(dtype, mixed, way):
    rows = 4096
    labels, *factors = problem(rows)
    exact = [rounded(a, dtype) for a in factors]
    low = [
        keras.ops.cast(a, "float32" if mixed and i else dtype)
        for i, a in enumerate(exact)
    ]
    scale = 1.0 if dtype == "bfloat16" else 1024.0

    def loss(features, kernel, bias):
        return scale * ops.linear_softmax_crossentropy(
            labels, features, kernel=kernel, bias=bias, reduction="mean"
        )

    results, _ = gradients(loss, *low)
    _, expected = truth(labels, *exact, scale / rows)
    errors = [error(*pair) for pair in zip(results, expected, strict=True)]
    assert max(errors) < BARS[dtype]


def test_float16_is_multiplied_in_float32_where_it_is_slow(monkeypatch):
    features = keras.ops.cast(normal(2, 3), "float16")
    for slow, dtype in ((True, "float32"), (False, "float16")):
        monkeypatch.setattr(devices, "slow_float16", lambda x, y=slow: y)
        assert linear.products_dtype(features, None) == dtype


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        "float32",
        pytest.param("float64", marks=pytest.mark.float64),
    ],
)
def test_products_are_in_the_dtype_of_the_features(dtype):
    features = keras.ops.cast(normal(2, 3), dtype)
    assert linear.products_dtype(features, None) == dtype
    wide = "float64" if dtype == "float64" else "float32"
    assert linear.products_dtype(features, "float32") == wide


# torch.autocast ------------------------------------------------------------


def sampled(function):
    def of_factors(labels, features, *, kernel, bias, reduction, **options):
        candidates = np.arange(0, CLASSES, 50), np.ones(ROWS), np.ones(20)
        losses = function(
            labels,
            features,
            kernel=kernel,
            bias=bias,
            candidates=candidates,
            **options,
        )
        return losses.sum() if reduction else losses

    return of_factors


OPS = {
    "linear": ops.linear_softmax_crossentropy,
    "sampled": sampled(ops.sampled_softmax_crossentropy),
    "nce": sampled(ops.nce_loss),
}


@only_on("torch", "autocast is PyTorch's")
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("reduction", ["sum", None])
def test_autocast_rounds_the_factors_and_that_is_all(
    name, inside, reduction, way
):
    import torch

    labels, *factors = problem()
    weights = torch.linspace(0.5, 1.5, ROWS)

    def step(cast, enabled, **options):
        given = [torch.tensor(x, requires_grad=True) for x in factors]
        x, kernel, bias = given
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = OPS[name](
                labels,
                x.to(cast),
                kernel=kernel,
                bias=bias,
                reduction=reduction,
                **options,
            )
            value = value if reduction else (weights * value).sum()
            if inside:
                value.backward()
        if not inside:
            value.backward()
        return [value.detach(), *(x.grad for x in given)]

    results = step(torch.float32, True)
    expected = step(torch.bfloat16, False)
    exact = step(torch.float32, False)
    assert {x.dtype for x in results} == {torch.float32}
    # All but the gradient of the features, which is rounded with them.
    for i in (0, 2, 3):
        assert torch.equal(results[i], expected[i])
        assert not torch.equal(results[i], exact[i])
    assert error(results[1], expected[1].numpy()) < 2**-8
    if name == "linear" or not inside:
        results = step(torch.float32, True, precision="float32")
        assert all(map(torch.equal, results, exact))


@only_on("torch", "autocast is PyTorch's")
@pytest.mark.parametrize("name", OPS)
def test_autocast_leaves_float64_alone(name, way):
    import torch

    labels, *factors = problem()
    x, kernel, bias = (torch.tensor(x, dtype=torch.float64) for x in factors)

    def value(enabled):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            return OPS[name](
                labels, x, kernel=kernel, bias=bias, reduction="sum"
            )

    assert value(True).dtype == torch.float64
    assert torch.equal(value(True), value(False))
