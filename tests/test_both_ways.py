"""Gradients in the forward pass and in a pass of their own are the same.

Where there is an accelerator a reduced loss makes its gradients in the forward
pass; here it is told to. Each test says so of one way, or compares the two.
"""

import keras
import numpy as np
import pytest

from keras_xent import ops
from keras_xent.layers import LinearHead
from keras_xent.losses import LinearCrossentropy
from keras_xent.ops import blockwise, devices
from tests.testing import (
    BACKEND,
    assert_all_close,
    compiled,
    gradients,
    normal,
    only_on,
    to_numpy,
    with_mask,
)

ROWS, SIZE, CLASSES = 9, 4, 11
LABELS = np.array([0, 3, 10, 6, 1, 2, 3, 9, 0], "int32")
CLASS_WEIGHT = np.linspace(0, 2, CLASSES)
ROW_WEIGHT = np.array([1, 0, 2, 0.5, 3, -1, 0, 1, 0.25], "float32")
MASKED = 5  # the class whose bias is −inf
OPTIONS = {
    "plain": {},
    "ignore_class": {"ignore_class": [3, -1]},
    "label_smoothing": {"label_smoothing": 0.1},
    "class_weight": {"class_weight": CLASS_WEIGHT},
    "z_loss": {"z_loss": 1e-2},
    "softcap": {"softcap": 1.5},
    "all": {
        "ignore_class": 3,
        "label_smoothing": 0.2,
        "class_weight": CLASS_WEIGHT,
        "z_loss": 1e-2,
        "softcap": 1.5,
    },
}
each_option = pytest.mark.parametrize("name", OPTIONS)


class Way:
    """Tells the core which way to go, and counts how often it went forwards."""

    def __init__(self, monkeypatch):
        self.patch, self.forwards, self.count = monkeypatch, False, 0
        summed = blockwise.weighted_sum

        def counted(*args, **kwargs):
            self.count += 1
            return summed(*args, **kwargs)

        monkeypatch.setattr(blockwise, "weighted_sum", counted)
        monkeypatch.setattr(
            blockwise, "gradients_forwards", lambda x: self.forwards
        )

    def both(self, function):
        """What a function returns when asked for each way."""
        results = []
        for self.forwards in (True, False):
            self.count = 0
            results.append(function())
            assert (self.count > 0) == self.forwards
        return results


@pytest.fixture
def way(monkeypatch):
    return Way(monkeypatch)


def problem():
    bias = normal(CLASSES, seed=3).copy()
    bias[MASKED] = -np.inf
    return (
        normal(ROWS, SIZE, seed=1),
        normal(SIZE, CLASSES, seed=2),
        bias,
    )


def total(labels=LABELS, vectors=False, **options):
    """A function of features, matrix, bias and a weight of each row."""
    options = {"reduction": "sum", **options}
    name = "class_vectors" if vectors else "kernel"

    def of_factors(features, matrix, bias, weight=None):
        return ops.linear_softmax_crossentropy(
            labels,
            features,
            **{name: matrix},
            bias=bias,
            sample_weight=weight,
            **options,
        )

    return of_factors


def by_hand(labels=LABELS, vectors=False, reduction="sum", **options):
    """The same from the losses of the rows."""
    rows = total(labels, vectors, reduction=None, **options)
    number = np.ones(ROWS)
    if "ignore_class" in options:
        number = ~np.isin(labels, options["ignore_class"])

    def of_factors(features, matrix, bias, weight=None):
        losses = rows(features, matrix, bias)
        if weight is not None:
            losses = keras.ops.where(weight == 0, 0, weight * losses)
        result = keras.ops.sum(losses)
        return result / number.sum() if reduction == "mean" else result

    return of_factors


# The op --------------------------------------------------------------------


@each_option
@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_reduction_is_what_one_would_compose(
    name, vectors, reduction, weighted, way
):
    options = {**OPTIONS[name], "vectors": vectors, "reduction": reduction}
    features, kernel, bias = problem()
    factors = [features, kernel.T.copy() if vectors else kernel, bias]
    factors += [ROW_WEIGHT] if weighted else []
    expected = gradients(by_hand(**options), *factors)
    for grads, value in way.both(lambda: gradients(total(**options), *factors)):
        assert tuple(value.shape) == ()
        assert_all_close([value, *grads], [expected[1], *expected[0]], 1e-4)


@pytest.mark.parametrize("block_size", [1, 2, 4, ROWS, 100, None])
def test_the_rows_of_a_block_do_not_matter(block_size, way):
    factors = *problem(), ROW_WEIGHT
    options = {**OPTIONS["all"], "block_size": block_size}
    first, second = way.both(lambda: gradients(total(**options), *factors))
    assert_all_close([first[1], *first[0]], [second[1], *second[0]], 1e-4)


@only_on("torch", "only PyTorch takes columns piece by piece")
@pytest.mark.parametrize("columns", [1, 3, CLASSES])
@each_option
def test_the_columns_of_a_chunk_do_not_matter(columns, name, way, monkeypatch):
    monkeypatch.setattr(devices, "SMALLEST_BLOCK", columns)
    monkeypatch.setattr(devices, "CHUNK_BYTES", 1)
    factors = *problem(), ROW_WEIGHT
    options = {**OPTIONS[name], "block_size": 4}
    first, second = way.both(lambda: gradients(total(**options), *factors))
    assert_all_close([first[1], *first[0]], [second[1], *second[0]], 1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 3), (0, 3), (1, 9, 1)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_rows_of_any_shape(shape, reduction, way):
    features, kernel, bias = problem()
    count = int(np.prod(shape))
    labels = LABELS[:count].reshape(shape)
    features = features[:count].reshape(*shape, SIZE)
    weight = ROW_WEIGHT[:count].reshape(shape)
    options = {**OPTIONS["all"], "reduction": reduction}
    first, second = way.both(
        lambda: gradients(
            total(labels, **options), features, kernel, bias, weight
        )
    )
    assert_all_close([first[1], *first[0]], [second[1], *second[0]], 1e-4)
    assert all(np.isfinite(to_numpy(x)).all() for x in first[0])
    if not count:
        assert float(to_numpy(first[1])) == 0


def test_a_row_of_weight_zero_is_left_out_whatever_is_in_it(way):
    features, kernel, bias = problem()
    labels, broken = LABELS.copy(), features.copy()
    left_out = ROW_WEIGHT == 0
    broken[left_out] = np.nan, np.inf, -1, 0
    for label in (LABELS[1], MASKED):
        labels[left_out] = label
        for name in ("plain", "all"):
            options = OPTIONS[name]
            expected = gradients(
                by_hand(labels, **options), features, kernel, bias, ROW_WEIGHT
            )
            for grads, value in way.both(
                lambda: gradients(
                    total(labels, **options),  # noqa: B023
                    broken,
                    kernel,
                    bias,
                    ROW_WEIGHT,
                )
            ):
                assert np.all(to_numpy(grads[0])[left_out] == 0)
                assert np.all(to_numpy(grads[3])[left_out] == 0)
                assert_all_close(
                    [value, *grads[:3]], [expected[1], *expected[0][:3]], 1e-4
                )


@pytest.mark.parametrize("bad", [-1, CLASSES, 2**31 - 1, -(2**31)])
@each_option
def test_a_label_that_does_not_exist_is_nan_and_has_no_gradient(bad, name, way):
    options = {**OPTIONS[name]}
    if "ignore_class" in options:
        options["ignore_class"] = 3
    wrong = LABELS.copy()
    wrong[2] = bad
    wrong = keras.ops.convert_to_tensor(wrong)
    factors = *problem(), ROW_WEIGHT
    without = ROW_WEIGHT.copy()
    without[2] = 0
    expected, _ = gradients(total(**options), *factors[:3], without)
    for grads, value in way.both(
        lambda: gradients(total(wrong, **options), *factors)
    ):
        assert np.isnan(to_numpy(value))
        assert_all_close(grads[:3], expected[:3], 1e-4)
    # Unless the row does not count.
    for grads, value in way.both(
        lambda: gradients(total(wrong, **options), *factors[:3], without)
    ):
        assert np.isfinite(to_numpy(value))
        assert_all_close(grads, expected, 1e-4)


def test_an_infinite_loss_is_infinite_both_ways(way):
    labels = LABELS.copy()
    labels[2] = MASKED
    factors = *problem(), ROW_WEIGHT
    first, second = way.both(lambda: gradients(total(labels), *factors))
    assert to_numpy(first[1]) == to_numpy(second[1]) == np.inf
    assert_all_close(first[0], second[0], 1e-4)


@pytest.mark.float64
@each_option
def test_float64_is_exact_to_its_last_digits(name, way):
    factors = [x.astype("float64") for x in (*problem(), ROW_WEIGHT)]
    options = OPTIONS[name]
    first, second = way.both(lambda: gradients(total(**options), *factors))
    assert to_numpy(first[1]).dtype == np.float64
    for a, b in zip([first[1], *first[0]], [second[1], *second[0]]):  # noqa: B905
        np.testing.assert_allclose(
            to_numpy(a), to_numpy(b), rtol=1e-12, atol=1e-14
        )


@pytest.mark.float64
def test_a_loss_of_float64_features_is_reduced_in_float64(way):
    head = built_head(dtype="float64")
    x = normal(ROWS, SIZE).astype("float64")
    loss = LinearCrossentropy(dtype="float64", z_loss=0.1)
    first, second = way.both(
        lambda: gradients(lambda x: loss(LABELS, head(x, training=True)), x)
    )
    rows = LinearCrossentropy(dtype="float64", z_loss=0.1, reduction=None)
    expected = to_numpy(rows(LABELS, head(x, training=True))).mean()
    for grads, value in (first, second):
        np.testing.assert_allclose(to_numpy(value), expected, rtol=1e-14)
        np.testing.assert_allclose(
            to_numpy(grads[0]), to_numpy(first[0][0]), rtol=1e-12, atol=1e-15
        )


def test_it_compiles_both_ways(way):
    given = [keras.ops.convert_to_tensor(x) for x in (*problem(), ROW_WEIGHT)]
    labels = keras.ops.convert_to_tensor(LABELS)
    values = way.both(
        lambda: compiled(lambda y, *x: total(y, **OPTIONS["all"])(*x))(
            labels, *given
        )
    )
    assert_all_close(values[:1], values[1:])


@only_on("tensorflow", "only its sizes are unknown")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("block_size", [2, None])
def test_the_number_of_rows_may_be_unknown_both_ways(
    jit_compile, block_size, way
):
    import tensorflow as tf

    options = {**OPTIONS["all"], "block_size": block_size}
    factors = (*problem(), abs(ROW_WEIGHT))

    def step(labels, *factors):
        with tf.GradientTape() as tape:
            tape.watch(factors)
            value = total(labels, **options)(*factors)
        return [value, *tape.gradient(value, factors)]

    shapes = (None, SIZE), (SIZE, CLASSES), (CLASSES,), (None,)
    signature = [tf.TensorSpec((None,), tf.int32)]
    signature += [tf.TensorSpec(shape, tf.float32) for shape in shapes]

    def results():
        # One trace for all numbers of rows.
        traced = tf.function(
            step, jit_compile=jit_compile, input_signature=signature
        )
        features, kernel, bias, weight = factors
        return [
            traced(LABELS[:n], features[:n], kernel, bias, weight[:n])
            for n in (ROWS, 4, 1, 0)
        ]

    for first, second in zip(*way.both(results), strict=True):
        assert_all_close(first, second, 1e-4)


@only_on("jax", "TensorFlow writes no rows in what is differentiated again")
def test_second_derivatives_both_ways(way):
    import jax

    _, kernel, bias = map(jax.numpy.asarray, problem())

    def step():
        loss = total(**OPTIONS["all"])
        return jax.jit(jax.hessian(lambda x: loss(x, kernel, bias)))(
            problem()[0]
        )

    first, second = way.both(step)
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_no_gradient_is_asked_for_both_ways(way):
    values = way.both(lambda: total(**OPTIONS["all"])(*problem(), ROW_WEIGHT))
    assert_all_close(values[:1], values[1:])


def test_a_step_of_a_functional_model_both_ways(way):
    _, kernel, bias = problem()
    for way.forwards in (True, False):
        inputs = keras.Input((SIZE,)), keras.Input((), dtype="int32")
        outputs = ops.linear_softmax_crossentropy(
            inputs[1], inputs[0], kernel=kernel, bias=bias, reduction="mean"
        )
        assert outputs.shape == ()
        model = keras.Model(inputs, outputs)
        result = model([problem()[0], LABELS])
        expected = by_hand(reduction="mean")(*problem())
        assert_all_close([result], [expected])


@only_on("torch", "only PyTorch keeps a graph")
def test_a_graph_may_be_walked_twice(way):
    import torch

    def step():
        factors = [torch.tensor(x, requires_grad=True) for x in problem()]
        value = total(**OPTIONS["all"])(*factors)
        value.backward(retain_graph=True)
        once = [x.grad.clone() for x in factors]
        (3 * value).backward()
        return once, [x.grad for x in factors]

    for once, thrice in way.both(step):
        assert_all_close(thrice, [4 * x for x in once])


@only_on("torch", "the others can: tests of the ops' contract")
def test_gradients_of_gradients_are_an_error_both_ways(way):
    import torch

    def step():
        x, kernel, bias = map(torch.tensor, problem())
        x.requires_grad_(True)
        value = total()(x, kernel, bias)
        with pytest.raises(NotImplementedError, match="`create_graph=True`"):
            torch.autograd.grad(value, x, create_graph=True)

    way.both(step)


@only_on("torch", "PyTorch's transforms")
def test_torch_func_both_ways(way):
    import torch

    x, kernel, bias = map(torch.tensor, problem())

    def step():
        loss = total(**OPTIONS["all"])
        several = torch.stack([bias, bias + 1])
        values = torch.func.vmap(loss, (None, None, 0))(x, kernel, several)
        return values, torch.func.grad(loss)(x, kernel, bias)

    expected, _ = gradients(total(**OPTIONS["all"]), *problem())
    for values, grad in way.both(step):
        assert tuple(values.shape) == (2,)
        assert_all_close([grad], expected[:1], 1e-4)


@only_on("jax", "JAX's transforms")
def test_jax_transforms_both_ways(way):
    import jax

    x, kernel, bias = map(jax.numpy.asarray, problem())

    def step():
        loss = total(**OPTIONS["all"])
        direction = jax.numpy.ones_like(x)
        slope = jax.jvp(lambda x: loss(x, kernel, bias), (x,), (direction,))[1]
        mapped = jax.vmap(jax.grad(loss), (0, None, None))(
            jax.numpy.stack([x, 2 * x]), kernel, bias
        )
        again = jax.grad(jax.checkpoint(loss))(x, kernel, bias)
        return slope, mapped[0], again

    expected, _ = gradients(total(**OPTIONS["all"]), *problem())
    for slope, mapped, again in way.both(step):
        truth = to_numpy(expected[0])
        np.testing.assert_allclose(slope, truth.sum(), rtol=1e-4)
        assert_all_close([mapped, again], [truth, truth], 1e-4)


# The loss ------------------------------------------------------------------

REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"]
WEIGHTS = {
    "none": None,
    "some": ROW_WEIGHT,
    "cancel": np.array([1, -1, 2, -2, 0, 0, 3, -3, 0], "float32"),
    "zero": np.zeros(ROWS, "float32"),
    "integers": np.arange(ROWS),
    "scalar": 2.0,
}
MASKS = {
    "none": None,
    "some": np.arange(ROWS) % 3 != 1,
    "nobody": np.zeros(ROWS, bool),
}


def built_head(units=CLASSES, **kwargs):
    keras.utils.set_random_seed(2)
    head = LinearHead(units, use_bias=True, **kwargs)
    head.build((None, SIZE))
    head.bias.assign(normal(units))
    return head


class PerRow(LinearCrossentropy):
    """As it was before: one loss per row, reduced by Keras."""

    def total_of(self, note):
        return None


def of_features(loss, head, labels=LABELS, weight=None, mask=None):
    """A loss as a function of the features before its head."""

    def function(x):
        if mask is not None:
            x = with_mask(x, mask)
        return loss(labels, head(x, training=True), weight)

    return function


def assert_as_by_rows(options, head, x, given, way):
    """Both ways give what Keras makes of one loss per row."""
    expected, truth = gradients(
        of_features(PerRow(**options), head, **given), x
    )
    loss = LinearCrossentropy(**options)
    for grads, value in way.both(
        lambda: gradients(of_features(loss, head, **given), x)
    ):
        assert_all_close([value, *grads], [truth, *expected], 1e-4)
        assert np.isfinite(to_numpy(value))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("mask", MASKS)
def test_a_reduction_is_that_of_keras(reduction, weight, mask, way):
    head, x = built_head(), normal(ROWS, SIZE)
    # Ignored classes are a mask of the loss's own.
    options = {"reduction": reduction, "ignore_class": 10}
    given = {"weight": WEIGHTS[weight], "mask": MASKS[mask]}
    assert_as_by_rows(options, head, x, given, way)


@each_option
def test_each_option_of_the_loss(name, way):
    options = dict(OPTIONS[name])
    head, x = built_head(), normal(3, 3, SIZE)
    given = {
        "labels": LABELS.reshape(3, 3),
        "weight": abs(ROW_WEIGHT).reshape(3, 3),
    }
    assert_as_by_rows(options, head, x, given, way)


def test_nothing_in_a_row_that_does_not_count_matters_both_ways(way):
    head, x = built_head(softcap=3.0), normal(ROWS, SIZE).copy()
    weight, mask = np.ones(ROWS, "float32"), np.ones(ROWS, bool)
    labels = LABELS.copy()
    weight[1], mask[2], labels[5] = 0, False, -1
    x[[1, 2, 5]] = np.nan
    keep = [0, 3, 4, 6, 7, 8]
    options = {"ignore_class": -1, "z_loss": 0.1, "label_smoothing": 0.1}
    loss = LinearCrossentropy(**options, reduction="mean_with_sample_weight")
    expected, truth = gradients(of_features(loss, head, labels[keep]), x[keep])
    for (grad,), value in way.both(
        lambda: gradients(of_features(loss, head, labels, weight, mask), x)
    ):
        assert_all_close([value], [truth])
        assert_all_close([to_numpy(grad)[keep]], expected, 1e-4)
        assert np.all(to_numpy(grad)[[1, 2, 5]] == 0)


def test_one_row_and_no_row_both_ways(way):
    head = built_head()
    for rows in (0, 1):
        x, labels = normal(ROWS, SIZE)[:rows], LABELS[:rows]
        loss = LinearCrossentropy(z_loss=0.1)
        (a, value), (b, other) = way.both(
            lambda: gradients(of_features(loss, head, labels), x)  # noqa: B023
        )
        assert tuple(value.shape) == ()
        assert np.isfinite(to_numpy(value))
        assert_all_close([value, *a], [other, *b])


# fit -----------------------------------------------------------------------

METRICS = ["accuracy", "perplexity", "entropy", "z_loss", "top_3_accuracy"]
FITS = {
    "kernel": ({"use_bias": True, "softcap": 3.0}, {}),
    "class_vectors": ({"sampled": True}, {"label_smoothing": 0.1}),
    "lora": ({"lora_rank": 2, "use_bias": True}, {"z_loss": 0.1}),
    "metrics": (
        {"metrics": METRICS},
        {"ignore_class": 3, "class_weight": CLASS_WEIGHT},
    ),
}


def fitted(
    kind, loss=LinearCrossentropy, policy="float32", batch=4, **compile_args
):
    """The weights and the logs of a fit."""
    of_head, of_loss = FITS[kind]
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(SIZE, dtype=policy),
            LinearHead(CLASSES, dtype=policy, **of_head),
        ]
    )
    if kind == "lora":
        head = model.layers[-1]
        head.lora_kernel_b.assign(normal(*head.lora_kernel_b.shape, seed=8))
    model.compile(keras.optimizers.SGD(0.2), loss(**of_loss), **compile_args)
    history = model.fit(
        normal(ROWS, 5),
        LABELS,
        sample_weight=abs(ROW_WEIGHT),
        batch_size=batch,
        epochs=2,
        shuffle=False,
        verbose=0,
    ).history
    return [*model.get_weights(), *map(np.array, history.values())]


HOW = [{}] if BACKEND == "torch" else [{}, {"jit_compile": False}]


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_fit_ends_at_the_same_weights_and_logs(kind, how, way):
    if how and (kind != "kernel" or BACKEND == "jax"):
        pytest.skip("one is enough")
    expected = fitted(kind, PerRow, **how)
    for result in way.both(lambda: fitted(kind, **how)):
        assert_all_close(result, expected, 1e-4)


@pytest.mark.thorough
@only_on("torch", "the others compile in any case")
def test_a_compiled_fit_of_torch_ends_at_the_same_weights(way):
    # It would compile a second time for the rows that are left.
    expected = fitted("kernel", PerRow, batch=ROWS)
    way.forwards = True
    result = fitted("kernel", batch=ROWS, jit_compile=True)
    assert_all_close(result, expected, 1e-4)
    assert way.count > 0


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_fit_ends_near_the_same_weights(policy, way, monkeypatch):
    monkeypatch.setattr(devices, "slow_float16", lambda x: False)
    expected = fitted("kernel")
    for result in way.both(lambda: fitted("kernel", policy=policy)):
        assert_all_close(result, expected, 5e-2, 2e-2)
