"""Left times right, never as a whole, whatever the two factors are."""

import keras
import numpy as np
import pytest

from keras_xent.ops import blockwise
from tests.testing import (
    BACKEND,
    assert_all_close,
    compiled,
    finite_differences,
    gradients,
    normal,
    to_numpy,
)

ROWS, SIZE, COLUMNS = 6, 3, 7
LABELS = np.array([0, 6, 4, 3, 1, 2], "int32")
TERMS = blockwise.Terms._fields[:3]


class Scaled(blockwise.SoftmaxLogits):
    """x = s · product: cosines with a temperature."""

    scale = 3.0

    def logits(self, products, bias, start):
        return self.scale * products

    def through(self, gradient, logits, bias, start):
        return self.scale * gradient


class Exponential(blockwise.SoftmaxLogits):
    """x = exp(product): logits whose slope depends on them."""

    def logits(self, products, bias, start):
        return keras.ops.exp(products)

    def through(self, gradient, logits, bias, start):
        return gradient * logits


class Margin(Scaled):
    """x = s · (product − m) at the target, s · product elsewhere."""

    margin = 0.5

    def logits(self, products, bias, start):
        lower = keras.ops.full_like(products[:, 0], -self.margin)
        return self.scale * self.add_targets(products, start, lower)


FORMULAS = {
    blockwise.SoftmaxLogits: lambda products: products,
    Scaled: lambda products: Scaled.scale * products,
    Exponential: keras.ops.exp,
    Margin: lambda products: (
        Margin.scale
        * (
            products
            - Margin.margin
            * keras.ops.one_hot(LABELS, COLUMNS, dtype=products.dtype)
        )
    ),
}
each_description = pytest.mark.parametrize(
    "description", FORMULAS, ids=lambda cls: cls.__name__
)


def naive(logits, labels, shares=None):
    """The terms of logits that exist, as Keras differentiates them."""
    top = keras.ops.stop_gradient(keras.ops.max(logits, axis=1, keepdims=True))
    total = keras.ops.sum(keras.ops.exp(logits - top), axis=1)
    log_sum = top[:, 0] + keras.ops.log(total)
    hit = keras.ops.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    nll = log_sum - keras.ops.sum(hit * logits, axis=1)
    spread = keras.ops.zeros_like(nll)
    if shares is not None:
        shares = keras.ops.cast(shares, logits.dtype)
        spread = keras.ops.sum(shares * (log_sum[:, None] - logits), axis=1)
    gap = top[:, 0] - keras.ops.sum(hit * logits, axis=1)
    return blockwise.Terms(nll, spread, log_sum, gap)


def mixed(terms, dtype):
    """One number per row, in which every term has its own weight."""
    rows = keras.ops.arange(1, terms.nll.shape[0] + 1, dtype=dtype)
    return rows * (
        terms.nll + 2 * terms.spread + 3 * keras.ops.square(terms.log_sum)
    )


def problem(dtype="float32"):
    shares = np.abs(normal(COLUMNS, seed=5)).astype(dtype)
    return (
        normal(ROWS, SIZE, seed=1).astype(dtype),
        normal(SIZE, COLUMNS, seed=2).astype(dtype),
        shares,
    )


@each_description
@pytest.mark.parametrize("columns", [0, 1])
@pytest.mark.parametrize("block_size", [1, 3, None])
def test_a_description_is_all_that_new_logits_need(
    description, columns, block_size
):
    left, right, shares = problem()
    given = right if columns else right.T.copy()

    def of_blocks(left, right):
        terms = blockwise.crossentropy_terms(
            left,
            right,
            None,
            description(LABELS, shares=keras.ops.convert_to_tensor(shares)),
            columns=columns,
            block_size=block_size,
        )
        return mixed(terms, "float32")

    def of_logits(left, right):
        right = right if columns else keras.ops.transpose(right)
        logits = FORMULAS[description](keras.ops.matmul(left, right))
        return mixed(naive(logits, LABELS, shares), "float32")

    results, value = gradients(of_blocks, left, given)
    expected, expected_value = gradients(of_logits, left, given)
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(expected_value), rtol=1e-5
    )
    assert_all_close(results, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.float64
@each_description
def test_gradients_agree_with_finite_differences(description):
    left, right, shares = problem("float64")

    def function(left, right):
        terms = blockwise.crossentropy_terms(
            left,
            right,
            None,
            description(LABELS, shares=keras.ops.convert_to_tensor(shares)),
            block_size=3,
        )
        return mixed(terms, "float64")

    results, _ = gradients(function, left, right)
    function = compiled(function)  # JAX compiles a loop in every eager call.
    fixed = [keras.ops.convert_to_tensor(x) for x in (left, right)]
    for result, expected in (
        (results[0], finite_differences(lambda x: function(x, fixed[1]), left)),
        (
            results[1],
            finite_differences(lambda x: function(fixed[0], x), right),
        ),
    ):
        np.testing.assert_allclose(
            to_numpy(result), expected, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("block_size", [1, 4, None])
def test_rows_of_a_batch_may_be_compared_with_each_other(block_size):
    """Contrastive use: one tensor is both factors and gets both gradients."""
    labels = np.array([1, 0, 3, 2, 5, 4], "int32")

    def of_blocks(x):
        terms = blockwise.crossentropy_terms(
            x, x, None, Scaled(labels), columns=0, block_size=block_size
        )
        return mixed(terms, "float32")

    def of_logits(x):
        logits = Scaled.scale * keras.ops.matmul(x, keras.ops.transpose(x))
        return mixed(naive(logits, labels), "float32")

    (result,), value = gradients(of_blocks, normal(ROWS, SIZE))
    (expected,), expected_value = gradients(of_logits, normal(ROWS, SIZE))
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(expected_value), rtol=1e-5
    )
    np.testing.assert_allclose(
        to_numpy(result), to_numpy(expected), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("block_size", [1, 3, None])
def test_the_gap_is_0_exactly_where_the_target_is_a_top_class(block_size):
    logits = np.round(2 * normal(20, COLUMNS, seed=4))  # ties
    labels = np.arange(20, dtype="int32") % COLUMNS
    terms = blockwise.crossentropy_terms(
        np.eye(20, dtype="float32"),
        logits,
        None,
        blockwise.SoftmaxLogits(labels),
        block_size=block_size,
    )
    expected = logits.max(axis=1) - logits[np.arange(20), labels]
    np.testing.assert_array_equal(to_numpy(terms.gap), expected)


def test_a_row_without_a_finite_logit_passes_no_gradient():
    left, right, _ = problem()

    def function(left, right, bias):
        terms = blockwise.crossentropy_terms(
            left, right, bias, blockwise.SoftmaxLogits(LABELS), block_size=3
        )
        return terms.nll

    results, _ = gradients(
        function, left, right, np.full(COLUMNS, -np.inf, "float32")
    )
    for result in results:
        assert np.all(to_numpy(result) == 0)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 100])
@pytest.mark.parametrize("block_size", [1, 3, 7, 50])
def test_the_blocks_cover_every_column_once(size, block_size):
    blocks = blockwise.Blocks(size, 4, block_size)
    assert 1 <= blocks.first <= block_size
    assert blocks.first + blocks.full * blocks.size == size
    seen = blocks.loop(lambda state, start, size: state + size, 0)
    assert int(seen) == size - blocks.first


@pytest.mark.parametrize("rows", [None, 0, 1, 8192, 10**8])
def test_a_block_is_neither_too_large_nor_too_narrow(rows):
    blocks = blockwise.Blocks(10**6, rows, None)
    assert blocks.size >= blockwise.SMALLEST_BLOCK
    size = 4 * (rows or 1) * blocks.size
    narrow = blocks.size == blockwise.SMALLEST_BLOCK
    assert narrow or size <= blockwise.BLOCK_BYTES


# Memory. Sizes that tell a block (48 × 11) from the logits (48 × 83), and from
# the factors and their gradients (48 × 5, 5 × 83).

MANY, BLOCK, FEW, VOCABULARY = 48, 11, 5, 83


def largest_in_jax(function, *arrays):
    """The elements of the largest tensor in the jaxpr, whatever it nests."""
    import jax

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            for variable in equation.outvars:
                yield int(np.prod(variable.aval.shape))
            for inner in jax.core.jaxprs_in_params(equation.params):
                yield from walk(inner)

    def step(*arrays):
        return jax.value_and_grad(
            lambda *arrays: function(*arrays).sum(), (0, 1, 2)
        )(*arrays)

    return max(walk(jax.make_jaxpr(step)(*arrays).jaxpr))


def largest_in_torch(function, *arrays):
    """The elements of the largest tensor that any operation returned."""
    from torch.utils import _python_dispatch, _pytree

    class Watch(_python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            for x in _pytree.tree_leaves(result):
                self.largest = max(self.largest, getattr(x, "numel", int)())
            return result

    with Watch() as watch:
        gradients(function, *arrays)
    return watch.largest


def largest_in_tensorflow(function, *arrays):
    """The elements of the largest tensor in the graph and its functions."""
    import tensorflow as tf
    from tensorflow.python.framework import function_def_to_graph

    @tf.function
    def step(*arrays):
        return gradients(function, *arrays)

    graph = step.get_concrete_function(*map(tf.constant, arrays)).graph
    library = graph.as_graph_def().library.function
    with graph.as_default():
        graphs = [
            graph,
            *map(function_def_to_graph.function_def_to_graph, library),
        ]
    shapes = [
        tensor.shape
        for each in graphs
        for operation in each.get_operations()
        for tensor in operation.outputs
    ]
    return max(shape.num_elements() or 0 for shape in shapes)


LARGEST = {
    "jax": largest_in_jax,
    "torch": largest_in_torch,
    "tensorflow": largest_in_tensorflow,
}[BACKEND]


@pytest.mark.parametrize("columns", [0, 1])
def test_no_tensor_is_larger_than_a_block(columns):
    labels = np.arange(MANY, dtype="int32")
    shares = keras.ops.ones(VOCABULARY) / VOCABULARY
    left, right = normal(MANY, FEW), normal(FEW, VOCABULARY)
    right = right if columns else right.T.copy()
    bias = normal(VOCABULARY)

    def of_blocks(left, right, bias):
        description = blockwise.SoftmaxLogits(labels, 2.0, shares)
        terms = blockwise.crossentropy_terms(
            left, right, bias, description, columns=columns, block_size=BLOCK
        )
        return mixed(terms, "float32")

    def of_logits(left, right, bias):
        right = right if columns else keras.ops.transpose(right)
        logits = keras.ops.matmul(left, right) + bias
        return mixed(naive(logits, labels, shares), "float32")

    assert LARGEST(of_blocks, left, right, bias) == MANY * BLOCK
    # The same eyes do see logits where there are some.
    assert LARGEST(of_logits, left, right, bias) == MANY * VOCABULARY
