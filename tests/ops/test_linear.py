"""The cross-entropy without logits equals the one with them."""

import functools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats

from keras_xent import ops
from keras_xent.ops.linear import losses_and_terms
from keras_xent.ops.logits import LinearLogits
from tests.testing import (
    BACKEND,
    assert_all_close,
    compiled,
    finite_differences,
    gradients,
    normal,
    thorough_on,
    to_numpy,
)


def linear(labels, features, kernel=None, bias=None, **options):
    """With the factors in a row, as `gradients` gives them."""
    return ops.linear_softmax_crossentropy(
        labels, features, kernel=kernel, bias=bias, **options
    )


ROWS, SIZE, CLASSES = 6, 3, 7
WEIGHTS = [1.0, 2.0, 0.0, 0.5, 3.0, 1.0, 0.25]
OPTIONS = {
    "plain": {},
    "ignore_class": {"ignore_class": [3, -1]},
    "label_smoothing": {"label_smoothing": 0.1},
    "class_weight": {"class_weight": WEIGHTS},
    "z_loss": {"z_loss": 1e-2},
    "softcap": {"softcap": 1.5},
    "smoothed_weights": {"label_smoothing": 0.2, "class_weight": WEIGHTS},
    "all": {
        "ignore_class": 3,
        "label_smoothing": 0.2,
        "class_weight": WEIGHTS,
        "z_loss": 1e-2,
        "softcap": 1.5,
    },
}
# Rows that weigh the same would hide an upstream gradient mixed up.
ROW_WEIGHTS = keras.ops.arange(1, ROWS + 1, dtype="float32")
each_option = pytest.mark.parametrize(
    "options", OPTIONS.values(), ids=OPTIONS.keys()
)
# One class at a time, a rest of one, more than there are, its own choice.
each_block_size = pytest.mark.parametrize("block_size", [1, 3, 100, None])


def logits_of(features, kernel, bias=None, softcap=None):
    """The logits as NumPy or as tensors, whichever comes."""
    x = features @ kernel
    if bias is not None:
        x = x + bias
    if softcap is None:
        return x
    if isinstance(x, np.ndarray):
        return np.where(x > -np.inf, softcap * np.tanh(x / softcap), x)
    capped = softcap * keras.ops.tanh(x / softcap)
    return keras.ops.where(bias > -np.inf, capped, x)


def of_logits(
    labels,
    logits,
    ignore_class=(),
    label_smoothing=0.0,
    class_weight=None,
    z_loss=0.0,
):
    """The formula of the docstring in float64."""
    x = np.asarray(logits, "float64")
    classes = x.shape[-1]
    lse = scipy.special.logsumexp(x, axis=-1)
    # Not lse − x: near 1e4 that cancels, in float64 as well.
    top = x.max(axis=-1, keepdims=True)
    rest = np.exp(x - top).sum(axis=-1, keepdims=True)
    surprise = (top - x) + np.log(rest)
    finite = np.isfinite(x)
    ignored = np.isin(labels, ignore_class)
    targets = np.eye(classes)[np.where(ignored, 0, labels)]
    shares = finite / finite.sum(axis=-1, keepdims=True)
    targets = (1 - label_smoothing) * targets + label_smoothing * shares
    weights = targets * (1 if class_weight is None else class_weight)
    surprise = np.where(weights == 0, 0, surprise)
    losses = (weights * surprise).sum(axis=-1) + z_loss * lse**2
    return np.where(ignored, 0, losses)


def reference(labels, features, kernel, bias=None, softcap=None, **options):
    factors = (features, kernel) if bias is None else (features, kernel, bias)
    factors = [np.asarray(x, "float64") for x in factors]
    return of_logits(labels, logits_of(*factors, softcap=softcap), **options)


def problem(dtype="float32"):
    """Labels, features, kernel and a bias that masks class 5 out."""
    bias = normal(CLASSES, seed=3).astype(dtype)
    bias[5] = -np.inf
    return (
        np.array([0, 3, 4, 6, 1, 2]),
        normal(ROWS, SIZE, seed=1).astype(dtype),
        normal(SIZE, CLASSES, seed=2).astype(dtype),
        bias,
    )


@functools.cache
def through_logits(name):
    """The gradients by way of logits, once for all block sizes."""
    labels, *factors = problem()

    def function(features, kernel, bias):
        options = dict(OPTIONS[name])
        softcap = options.pop("softcap", None)
        logits = logits_of(features, kernel, bias, softcap)
        return ROW_WEIGHTS * ops.sparse_softmax_crossentropy(
            labels, logits, **options
        )

    results, _ = gradients(function, *factors)
    return results


@pytest.mark.parametrize("name", OPTIONS)
@each_block_size
def test_it_equals_the_formula_and_its_gradients_those_of_logits(
    name, block_size
):
    labels, *factors = problem()
    options = {**OPTIONS[name], "block_size": block_size}
    results, value = gradients(
        lambda *factors: ROW_WEIGHTS * linear(labels, *factors, **options),
        *factors,
    )
    assert to_numpy(value).dtype == np.float32
    expected = reference(labels, *factors, **OPTIONS[name])
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(ROW_WEIGHTS) * expected, rtol=1e-5, atol=1e-6
    )
    assert_all_close(results, through_logits(name), rtol=1e-4, atol=1e-5)


@pytest.mark.float64
@each_option
@thorough_on("tensorflow")
def test_gradients_agree_with_finite_differences(options):
    labels, *factors = problem("float64")
    finite = factors[2] > -np.inf
    factors[2] = np.where(finite, factors[2], 0)

    def function(features, kernel, bias):
        masked = keras.ops.where(finite, bias, -np.inf)
        return linear(labels, features, kernel, masked, block_size=3, **options)

    results, value = gradients(function, *factors)
    assert to_numpy(value).dtype == np.float64
    np.testing.assert_allclose(
        to_numpy(value),
        reference(
            labels, *factors[:2], np.where(finite, factors[2], -np.inf),
            **options,
        ),
        rtol=1e-12,
    )  # fmt: skip
    for place, result in enumerate(results):

        def of_one(x, place=place):
            given = [keras.ops.convert_to_tensor(f) for f in factors]
            given[place] = x
            return function(*given)

        expected = finite_differences(of_one, factors[place])
        np.testing.assert_allclose(
            to_numpy(result), expected, rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("biased", [False, True])
def test_class_vectors_are_the_transposed_kernel(biased):
    labels, features, kernel, bias = problem()
    rest = [bias] if biased else []

    def by_kernel(features, kernel, *bias):
        return linear(labels, features, kernel, *bias, block_size=3)

    def by_vectors(features, vectors, *bias):
        bias = bias[0] if bias else None
        return linear(
            labels, features, bias=bias, class_vectors=vectors, block_size=3
        )

    expected, expected_value = gradients(by_kernel, features, kernel, *rest)
    results, value = gradients(by_vectors, features, kernel.T.copy(), *rest)
    results = [to_numpy(x) for x in results]
    results[1] = results[1].T
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(expected_value), rtol=1e-6
    )
    assert_all_close(results, expected)


def test_leading_axes_are_kept():
    labels, features, kernel, bias = problem()
    expected = to_numpy(linear(labels, features, kernel, bias, z_loss=0.1))
    for shape in ((2, 3), (1, 2, 3), (6, 1)):
        result = linear(
            labels.reshape(shape),
            features.reshape(*shape, SIZE),
            kernel,
            bias,
            z_loss=0.1,
        )
        np.testing.assert_array_equal(to_numpy(result), expected.reshape(shape))


def test_a_single_example_needs_no_batch_axis():
    labels, features, kernel, bias = problem()
    result = to_numpy(linear(labels[0], features[0], kernel, bias))
    assert result.shape == ()
    expected = reference(labels[:1], features[:1], kernel, bias)
    np.testing.assert_allclose(result, expected[0], rtol=1e-5)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("block_size", [3, None])
def test_empty_and_single_row_batches_are_defined(rows, block_size):
    labels, features, kernel, bias = problem()
    options = {**OPTIONS["all"], "ignore_class": -1}
    results, value = gradients(
        lambda *factors: linear(
            labels[:rows], *factors, block_size=block_size, **options
        ),
        features[:rows],
        kernel,
        bias,
    )
    expected = reference(
        labels[:rows], features[:rows], kernel, bias, **options
    )
    assert tuple(value.shape) == (rows,)
    np.testing.assert_allclose(to_numpy(value), expected, rtol=1e-5)
    for result, factor in zip(
        results, (features[:rows], kernel, bias), strict=True
    ):
        assert tuple(result.shape) == factor.shape
        assert np.isfinite(to_numpy(result)).all()
        assert np.any(to_numpy(result) != 0) == bool(rows)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("block_size", [3, None])
def test_in_precision_float32_low_factors_are_multiplied_as_they_are(
    dtype, block_size
):
    labels, *factors = problem()
    low = [keras.ops.cast(x, dtype) for x in factors]
    options = {"precision": "float32", "block_size": block_size}
    results, value = gradients(
        lambda *factors: linear(labels, *factors, **options), *low
    )
    exact = [to_numpy(keras.ops.cast(x, "float32")) for x in low]
    expected, _ = gradients(
        lambda *factors: linear(labels, *factors, block_size=block_size), *exact
    )
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(
        to_numpy(value), reference(labels, *exact), rtol=2e-6, atol=1e-6
    )
    # Rounded once, at the end: half a unit in the last place.
    unit = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    for result, truth in zip(results, expected, strict=True):
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        np.testing.assert_allclose(
            to_numpy(result), to_numpy(truth), rtol=1.01 * unit, atol=1e-6
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_many_low_precision_rows_do_not_stall_a_sum(dtype):
    """Added up in bfloat16, 256 + 1 is 256."""
    rows = 2048
    features = keras.ops.ones((rows, 1), dtype=dtype)
    kernel = keras.ops.zeros((1, 2), dtype=dtype)
    (_, result), _ = gradients(
        lambda features, kernel: linear(
            np.zeros(rows, "int32"), features, kernel, block_size=1
        ),
        features,
        kernel,
    )
    assert to_numpy(result).tolist() == [[-rows / 2, rows / 2]]


@thorough_on("tensorflow")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@thorough_on("tensorflow")
def test_many_low_precision_classes_do_not_stall_a_sum(dtype):
    """1023 shares of 1/1024, each of a block of its own, nearly make 1."""
    classes = 1024
    features = keras.ops.zeros((1, 1), dtype=dtype)
    kernel = np.ones((1, classes), "float32")
    kernel[0, 0] = 0
    (result,), _ = gradients(
        lambda features: linear(
            np.zeros(1, "int32"), features, kernel, block_size=1
        ),
        features,
    )
    unit = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    expected = (classes - 1) / classes
    result = float(to_numpy(keras.ops.cast(result, "float32"))[0, 0])
    assert result == pytest.approx(expected, rel=unit)


def grid():
    """Rows of logits with magnitudes up to ±1e4, ties and denormals."""
    rows = []
    for size in (0.0, 1e-40, 1e-3, 1.0, 30.0, 1e3, 1e4):
        for offset in (0.0, -1e4, 1e4):
            rows.append(size * normal(CLASSES, seed=len(rows)) + offset)
            rows.append(np.full(CLASSES, size) + offset)
    return np.array(rows, "float32")


@pytest.mark.parametrize("block_size", [1, 3, None])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}], ids=str)
def test_losses_are_exact_at_any_magnitude(options, block_size):
    """Unit vectors as features: the kernel's rows are the logits, exactly."""
    logits = grid()
    rows = np.eye(len(logits), dtype="float32")
    labels = np.arange(len(logits)) % CLASSES
    (_, grad), value = gradients(
        lambda features, kernel: linear(
            labels, features, kernel, block_size=block_size, **options
        ),
        rows,
        logits,
    )
    expected = of_logits(labels, logits, **options)
    np.testing.assert_allclose(to_numpy(value), expected, rtol=2e-6, atol=1e-6)
    smooth = options.get("label_smoothing", 0)
    expected = scipy.special.softmax(logits.astype("float64"), axis=1)
    expected -= smooth / CLASSES
    expected[np.arange(len(logits)), labels] -= 1 - smooth
    np.testing.assert_allclose(to_numpy(grad), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shift", [-100.0, 1000.0])
def test_a_constant_added_to_the_bias_changes_nothing(shift):
    labels, features, kernel, bias = problem()

    def function(features, kernel, bias):
        return linear(labels, features, kernel, bias, block_size=3)

    expected, expected_value = gradients(function, features, kernel, bias)
    results, value = gradients(
        function, features, kernel, bias + np.float32(shift)
    )
    # The shift rounds the logits themselves.
    atol = 2 * np.spacing(np.float32(abs(shift) + 10))
    assert_all_close(
        (*results, value), (*expected, expected_value), atol=4 * atol
    )


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_the_classes_does_not_matter(seed):
    labels, features, kernel, bias = problem()
    order = np.random.default_rng(seed).permutation(CLASSES)
    place = np.argsort(order)
    weights = np.array(WEIGHTS)
    options = {"label_smoothing": 0.1, "block_size": 3}
    expected, expected_value = gradients(
        lambda *factors: linear(
            labels, *factors, class_weight=weights, **options
        ),
        features,
        kernel,
        bias,
    )
    results, value = gradients(
        lambda *factors: linear(
            place[labels], *factors, class_weight=weights[order], **options
        ),
        features,
        kernel[:, order],
        bias[order],
    )
    results = [to_numpy(x)[..., place] for x in results[1:]]
    assert_all_close(results, expected[1:])
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(expected_value), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_labels_of_any_dtype_may_have_a_last_axis_of_one(dtype, shape):
    labels, *factors = problem()
    given = keras.ops.cast(labels.reshape(shape), dtype)
    result = to_numpy(linear(given, *factors))
    np.testing.assert_allclose(
        result, reference(labels, *factors), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("how", [lambda f: f, compiled], ids=["eager", "jit"])
@pytest.mark.parametrize("bad", [-1, CLASSES, -(2**31), 2**31 - 1])
def test_a_label_on_the_device_that_does_not_exist_is_nan(bad, how):
    labels, features, kernel, bias = problem()
    wrong = labels.astype("int32")
    wrong[1] = bad
    given = keras.ops.convert_to_tensor(wrong)
    for options in ({}, {**OPTIONS["all"], "ignore_class": -7}):
        function = how(
            lambda y, *factors, options=options: linear(
                y, *factors, block_size=3, **options
            )
        )
        result = to_numpy(
            function(
                given,
                *map(keras.ops.convert_to_tensor, (features, kernel, bias)),
            )
        )
        options = {k: v for k, v in options.items() if k != "ignore_class"}
        expected = reference(labels, features, kernel, bias, **options)
        assert np.isnan(result[1])
        keep = np.arange(ROWS) != 1
        np.testing.assert_allclose(result[keep], expected[keep], rtol=1e-5)


@pytest.mark.parametrize("bad", [-1, CLASSES])
def test_a_label_in_host_memory_that_does_not_exist_is_an_error(bad):
    _, *factors = problem()
    with pytest.raises(ValueError, match=rf"\[0, {CLASSES}\).*{bad}"):
        linear(np.array([0, 1, 2, 3, 4, bad]), *factors)


def test_a_label_that_int32_cannot_hold_is_an_error():
    _, *factors = problem()
    with pytest.raises(ValueError, match="int32"):
        linear(np.array([0, 1, 2, 3, 4, 2**32 + 3]), *factors)


def test_nothing_in_an_ignored_row_matters():
    labels, features, kernel, bias = problem()
    labels = labels.copy()
    labels[[1, 4]] = [-1, 3]
    features = features.copy()
    features[1], features[4] = np.nan, np.inf
    results, value = gradients(
        lambda *factors: linear(
            labels, *factors, ignore_class=[-1, 3], block_size=3
        ),
        features,
        kernel,
        bias,
    )
    keep = [0, 2, 3, 5]
    expected, expected_value = gradients(
        lambda *factors: linear(labels[keep], *factors, block_size=3),
        features[keep],
        kernel,
        bias,
    )
    assert to_numpy(value)[[1, 4]].tolist() == [0, 0]
    assert np.all(to_numpy(results[0])[[1, 4]] == 0)
    np.testing.assert_allclose(
        to_numpy(value)[keep], to_numpy(expected_value), rtol=1e-5
    )
    results = [to_numpy(results[0])[keep], *map(to_numpy, results[1:])]
    assert_all_close(results, expected)


@each_block_size
def test_a_masked_class_has_no_probability_and_no_gradient(block_size):
    labels, features, kernel, bias = problem()
    kernel = kernel.copy()
    results, _ = gradients(
        lambda *factors: linear(
            labels, *factors, block_size=block_size, **OPTIONS["all"]
        ),
        features,
        kernel,
        bias,
    )
    _, d_kernel, d_bias = map(to_numpy, results)
    assert np.all(d_kernel[:, 5] == 0)
    assert d_bias[5] == 0
    assert np.all(d_bias[[0, 1, 4, 6]] != 0)


def test_a_masked_class_that_is_the_label_costs_more_than_float32_holds():
    _, *factors = problem()
    for options in ({}, {"softcap": 1.5}):
        result = to_numpy(
            linear(np.full(ROWS, 5), *factors, block_size=2, **options)
        )
        assert np.all(result >= np.finfo("float32").max)


def test_a_class_of_weight_zero_costs_nothing_even_if_it_is_impossible():
    _, *factors = problem()
    weights = np.ones(CLASSES)
    weights[5] = 0
    grads, value = gradients(
        lambda *factors: linear(
            np.full(ROWS, 5), *factors, class_weight=weights, block_size=2
        ),
        *factors,
    )
    assert np.all(to_numpy(value) == 0)
    for grad in grads:
        assert np.all(to_numpy(grad) == 0)


def test_nan_features_give_nan_with_options_and_without():
    labels, features, kernel, bias = problem()
    features = features.copy()
    features[2] = np.nan
    for options in OPTIONS.values():
        result = linear(labels, features, kernel, bias, block_size=3, **options)
        assert np.isnan(to_numpy(result)).tolist() == [
            False, False, True, False, False, False,
        ]  # fmt: skip


@pytest.mark.parametrize("options", [{}, OPTIONS["all"]], ids=str)
def test_it_compiles_under_xla_with_the_same_result(options):
    labels, *factors = problem()
    function = compiled(
        lambda y, *factors: linear(y, *factors, block_size=3, **options)
    )
    result = function(
        *map(keras.ops.convert_to_tensor, (labels.astype("int32"), *factors))
    )
    expected = reference(labels, *factors, **options)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="only its sizes are unknown"
)
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("block_size", [3, None])
@pytest.mark.parametrize("rows", [(None,), (None, None)], ids=str)
def test_the_number_of_rows_may_be_unknown(jit_compile, block_size, rows):
    import tensorflow as tf

    labels, features, kernel, bias = problem()
    options = {**OPTIONS["all"], "block_size": block_size}

    def step(labels, features, kernel, bias):
        with tf.GradientTape() as tape:
            tape.watch((features, kernel, bias))
            value = linear(labels, features, kernel, bias, **options)
        return value, tape.gradient(value, (features, kernel, bias))

    traced = tf.function(
        step,
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec(rows, tf.int32),
            tf.TensorSpec((*rows, SIZE), tf.float32),
            tf.TensorSpec((SIZE, CLASSES), tf.float32),
            tf.TensorSpec((CLASSES,), tf.float32),
        ],
    )
    for count in (ROWS, 4):
        shape = (count,) if len(rows) == 1 else (2, count // 2)
        y, x = labels[:count], features[:count]
        value, results = traced(
            y.reshape(shape).astype("int32"),
            x.reshape(*shape, SIZE),
            kernel,
            bias,
        )
        expected = reference(
            y, x, kernel, bias, **{k: options[k] for k in OPTIONS["all"]}
        )
        np.testing.assert_allclose(
            value, expected.reshape(shape), rtol=1e-5, atol=1e-6
        )
        expected, _ = gradients(
            lambda *factors, y=y: linear(y, *factors, **options),
            x,
            kernel,
            bias,
        )
        for result, truth in zip(results, expected, strict=True):
            np.testing.assert_allclose(
                to_numpy(result).reshape(truth.shape),
                truth,
                rtol=1e-5,
                atol=1e-6,
            )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kernel": None}, "once.*kernel=None, class_vectors=None"),
        (
            {"class_vectors": normal(CLASSES, SIZE)},
            r"once.*shape \(3, 7\).*shape \(7, 3\)",
        ),
        (
            {"kernel": normal(CLASSES, SIZE)},
            r"`kernel` must have shape \(d, classes\).*`class_vectors`",
        ),
        (
            {"kernel": None, "class_vectors": normal(SIZE, CLASSES)},
            r"`class_vectors` must have shape \(classes, d\)",
        ),
        ({"kernel": normal(SIZE)}, "`kernel` two axes"),
        ({"features": np.float32(1)}, r"`features` must have shape \(..., d\)"),
        ({"kernel": normal(SIZE, 1), "bias": None}, "always 0"),
        ({"kernel": np.ones((SIZE, CLASSES), int)}, "`kernel` .*floating.*int"),
        ({"features": np.ones((ROWS, SIZE), int)}, "`features` .*floating"),
        ({"bias": np.ones(CLASSES, int)}, "`bias` .*floating"),
        ({"bias": normal(SIZE)}, r"`bias` .*shape \(7,\).*\(3,\)"),
        ({"bias": normal(1, CLASSES)}, "`bias` must hold one number per class"),
        ({"labels": np.zeros(5, int)}, "shape"),
        ({"labels": np.zeros((ROWS, CLASSES), int)}, "one-hot"),
        ({"labels": np.full(ROWS, 0.5)}, "whole number"),
        ({"label_smoothing": 1.0}, "`label_smoothing`"),
        ({"z_loss": -1.0}, "`z_loss`"),
        ({"class_weight": [1.0, 2.0]}, "`class_weight` must hold one number"),
        ({"class_weight": [-1.0] * CLASSES}, "`class_weight`.*non-negative"),
        ({"softcap": 0.0}, "`softcap` must be above 0.*None for no cap"),
        ({"softcap": -1.0}, "`softcap`"),
        ({"softcap": np.inf}, "`softcap`"),
        ({"block_size": 0}, "`block_size`.*whole number from 1"),
        ({"block_size": 2.5}, "`block_size`"),
        ({"block_size": True}, "`block_size`"),
        ({"ignore_class": 1.5}, "`ignore_class`"),
        ({"precision": "bfloat16"}, "`precision` must be .*'float32'"),
        ({"reduction": "none"}, "`reduction` must be .*'sum', 'mean'"),
        (
            {"sample_weight": np.ones(ROWS - 1)},
            r"`sample_weight` .*one number per example.*\(6,\).*\(5,\)",
        ),
        ({"sample_weight": np.ones((ROWS, 1))}, "one number per example"),
        ({"sample_weight": 2.0}, "one number per example"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(kwargs, message):
    labels, features, kernel, bias = problem()
    given = {
        "labels": labels,
        "features": features,
        "kernel": kernel,
        "bias": bias,
        **kwargs,
    }
    with pytest.raises(ValueError, match=message):
        linear(**given)


def test_compiled_and_rematerialized_losses_can_be_differentiated():
    if BACKEND != "jax":
        pytest.skip("only JAX transforms functions")
    import jax

    labels, features, kernel, _ = map(jax.numpy.asarray, problem())

    def total(kernel, features, labels):
        return linear(labels, features, kernel, block_size=3).sum()

    expected = jax.grad(total)(kernel, features, labels)
    for transformed in (jax.jit(total), jax.checkpoint(total)):
        result = jax.grad(transformed)(kernel, features, labels)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_gradients_that_cannot_be_differentiated_again_are_an_error():
    if BACKEND != "torch":
        pytest.skip("the others can: tests of the ops' contract")
    import torch

    labels, features, kernel, _ = problem()
    features = torch.tensor(features, requires_grad=True)
    loss = linear(labels, features, kernel).sum()
    with pytest.raises(NotImplementedError, match="`create_graph=True`"):
        torch.autograd.grad(loss, features, create_graph=True)


def test_some_classes_may_be_given_a_weight():
    labels, *factors = problem()
    weights = np.ones(CLASSES)
    weights[[0, 4]] = 0.5, 2
    result = linear(labels, *factors, class_weight={0: 0.5, 4: 2})
    expected = linear(labels, *factors, class_weight=weights)
    np.testing.assert_array_equal(to_numpy(result), to_numpy(expected))
    with pytest.raises(ValueError, match="`class_weight` weighs class 7"):
        linear(labels, *factors, class_weight={CLASSES: 2})


def test_the_matrix_of_the_classes_is_given_by_name():
    labels, features, kernel, _ = problem()
    with pytest.raises(TypeError, match="positional"):
        ops.linear_softmax_crossentropy(labels, features, kernel)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("by_vectors", [False, True])
@each_block_size
def test_all_terms_say_what_the_logits_say(block_size, by_vectors, softcap):
    """The entropy, and how many classes are above the label, also of −inf."""
    labels, features, kernel, bias = problem()
    weights = {"class_vectors": kernel.T} if by_vectors else {"kernel": kernel}
    terms, fewer = (
        losses_and_terms(
            labels,
            features,
            **weights,
            logits=LinearLogits(bias, softcap),
            all_terms=all_terms,
            block_size=block_size,
        )[1]
        for all_terms in (True, False)
    )
    logits = features.astype("float64") @ kernel + bias
    if softcap is not None:
        capped = softcap * np.tanh(logits / softcap)
        logits = np.where(bias > -np.inf, capped, -np.inf)
    p = scipy.special.softmax(logits, axis=1)
    np.testing.assert_allclose(
        to_numpy(terms.entropy), scipy.stats.entropy(p, axis=1), rtol=1e-5
    )
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    assert to_numpy(terms.above).tolist() == (logits > own).sum(1).tolist()
    assert fewer.entropy is None
    assert fewer.above is None


@each_block_size
def test_the_entropy_is_exact_at_any_magnitude(block_size):
    logits = np.array([[1e4, 1e4, -1e4], [1e4, 0, -1e4], [0, -104, 1]])
    logits = logits.astype("float32")
    _, terms = losses_and_terms(
        np.array([0, 1, 2]),
        np.eye(3, dtype="float32"),
        kernel=logits,
        logits=LinearLogits(),
        block_size=block_size,
        all_terms=True,
    )
    p = scipy.special.softmax(logits.astype("float64"), axis=1)
    np.testing.assert_allclose(
        to_numpy(terms.entropy), scipy.stats.entropy(p, axis=1), rtol=1e-5
    )
    # An equal logit is not above, as in the accuracy.
    assert to_numpy(terms.above).tolist() == [0, 1, 0]


def test_a_label_is_not_above_itself():
    """Its logit is made twice, and not rounded in the same way."""
    features, kernel = normal(64, 257, seed=1), normal(257, 5, seed=2)
    labels = np.argmax(features @ kernel, axis=1)
    _, terms = losses_and_terms(
        labels,
        features,
        kernel=kernel,
        logits=LinearLogits(),
        all_terms=True,
    )
    assert np.all(to_numpy(terms.above) == 0)
