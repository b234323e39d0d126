"""Left times right, never as a whole, whatever is made of it."""

import functools
import typing

import keras
import numpy as np
import pytest
from keras import ops

from keras_xent._types import Tensor
from keras_xent.ops import blocks, blockwise, devices
from keras_xent.ops.blockwise import What
from keras_xent.ops.description import (
    Description,
    description,
    for_all,
    per_column,
    per_row,
)
from keras_xent.ops.linear import linear_softmax_crossentropy
from keras_xent.ops.logits import LinearLogits, Logits
from keras_xent.ops.reductions import (
    OnlineSoftmax,
    PairwiseSigmoid,
    Reduction,
    SoftmaxLoss,
    Terms,
)
from keras_xent.ops.targets import OneTarget, SharedIds
from tests.testing import (
    BACKEND,
    assert_all_close,
    compiled,
    finite_differences,
    gradients,
    normal,
    only_on,
    thorough_on,
    to_numpy,
)

tensor = ops.convert_to_tensor

ROWS, SIZE, COLUMNS = 5, 3, 7
LABELS = np.array([0, 6, 4, 3, 1], "int32")

# A rest of one row and one column is left by blocks of 2.
BLOCK_SIZES = [1, 2, 50]

each_block_size = pytest.mark.parametrize("block_size", BLOCK_SIZES)
each_matrix = pytest.mark.parametrize(
    "columns", [1, 0], ids=["kernel", "class_vectors"]
)


# What a newcomer writes: descriptions that know nothing of blocks and products.


@description
class MarginCosine(Logits):
    """s · (product / |w_k|), and s · (product / |w_k| − m) where k is right."""

    learned = ("scale", "inverse_norms")

    scale: Tensor | None = for_all()
    inverse_norms: Tensor | None = per_column()
    margin: float = 0.5

    def dense(self, products):
        return self.scale * (products * self.inverse_norms)

    def block(self, products, targets):
        lower = ops.full_like(products[:, 0], -self.margin)
        return self.scale * targets.add(products * self.inverse_norms, lower)

    def back(self, gradient, products, logits, targets):
        scale = ops.sum(gradient * logits) / self.scale
        gradient = gradient * self.scale
        inverse_norms = ops.sum(gradient * products, axis=0)
        gradient = gradient * self.inverse_norms
        return gradient, {"scale": scale, "inverse_norms": inverse_norms}


@description
class SumOfSquares(Reduction):
    """Σ_k (x_k − t_k)²."""

    def add(self, sums, logits, targets):
        errors = targets.add(logits, -ops.ones_like(sums[0]))
        return (sums[0] + ops.sum(ops.square(errors), axis=1),)

    def back(self, upstream, sums, logits, targets):
        errors = targets.add(logits, -ops.ones_like(sums[0]))
        return 2 * upstream[0][:, None] * errors


@description
class Weighted(Description):
    """w times the only number that a reduction says of a row."""

    weight: Tensor | None = per_row()

    def of(self, terms):
        return self.weight * terms[0]

    def back(self, terms):
        return (self.weight,)

    def slopes(self, terms):
        return {"weight": terms[0]}


class Case(typing.NamedTuple):
    """Logits in two ways: the description, and all of them at once."""

    described: typing.Callable
    formula: typing.Callable
    tensors: dict


def _capped(products, right, bias, cap=1.5):
    return cap * ops.tanh((products + bias) / cap)


def _margin_cosine(products, right, scale, inverse_norms):
    return scale * (products * inverse_norms - 0.5 * right)


BIAS = normal(COLUMNS, seed=3)
CASES = {
    "biased": Case(
        LinearLogits, lambda p, right, bias: p + bias, {"bias": BIAS}
    ),
    "capped": Case(
        functools.partial(LinearLogits, softcap=1.5), _capped, {"bias": BIAS}
    ),
    "margin_cosine": Case(
        MarginCosine,
        _margin_cosine,
        {
            "scale": np.array(3.0, "float32"),
            "inverse_norms": np.abs(normal(COLUMNS, seed=6)) + 0.5,
        },
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def factors(columns, dtype="float32"):
    left, right = normal(ROWS, SIZE, seed=1), normal(SIZE, COLUMNS, seed=2)
    right = right if columns else right.T.copy()
    return left.astype(dtype), right.astype(dtype)


def row_weights(dtype="float32"):
    """Those of `SoftmaxLoss`; a part of a row may weigh nothing."""
    nll, spread, squared = np.abs(normal(3, ROWS, seed=5)).astype(dtype)
    spread[0] = 0
    return {"nll": nll, "spread": spread, "squared": squared}


SHARES = np.abs(normal(COLUMNS, seed=4))


def by_rows(left, right, what, **how):
    """The loss of the rows, to be differentiated in any way."""
    return ops.sum(what.loss.of(blockwise.row_terms(left, right, what, **how)))


def at_once(left, right, what, **how):
    """The same with gradients from the forward pass."""
    return blockwise.weighted_sum(left, right, what, **how)[0]


each_way = pytest.mark.parametrize("way", [by_rows, at_once])


def of_blocks(way, case, reduction=OnlineSoftmax, **how):
    """3 times the loss, a function of all that it can be differentiated by."""

    def function(left, right, nll, spread, squared, *tensors):
        named = dict(zip(case.tensors, tensors, strict=True))
        what = What(
            case.described(**named),
            OneTarget(tensor(LABELS)),
            reduction(ops.cast(tensor(SHARES), left.dtype)),
            SoftmaxLoss(nll, spread, squared),
        )
        return 3 * way(left, right, what, **how)

    return function


def of_logits(case, columns):
    """The same of logits that exist, as Keras differentiates them."""

    def function(left, right, nll, spread, squared, *tensors):
        right = right if columns else ops.transpose(right)
        hits = ops.one_hot(LABELS, COLUMNS, dtype=left.dtype)
        logits = case.formula(ops.matmul(left, right), hits, *tensors)
        terms = softmax_terms(logits, hits, SHARES)
        return 3 * ops.sum(
            _times(nll, terms.nll)
            + _times(spread, terms.spread)
            + _times(squared, ops.square(terms.log_sum))
        )

    return function


def _times(weight, x):
    """What weighs 0 is left out: no gradient goes to its weight either."""
    return ops.where(weight == 0, 0, weight * x)


def softmax_terms(logits, right, shares):
    top = ops.stop_gradient(ops.max(logits, axis=1, keepdims=True))
    total = ops.sum(ops.exp(logits - top), axis=1)
    log_sum = top[:, 0] + ops.log(total)
    target = ops.sum(right * logits, axis=1)
    shares = ops.cast(tensor(shares), logits.dtype)
    spread = ops.sum(shares * (log_sum[:, None] - logits), axis=1)
    return Terms(log_sum - target, spread, log_sum, top[:, 0] - target)


def arguments(case, columns, dtype="float32"):
    tensors = [x.astype(dtype) for x in case.tensors.values()]
    weights = row_weights(dtype).values()
    return [*factors(columns, dtype), *weights, *tensors]


def assert_same(function, expected, *arrays):
    """The same value and the same gradients by all arrays."""
    results, value = gradients(function, *arrays)
    truths, true_value = gradients(expected, *arrays)
    assert_all_close([value], [true_value], rtol=1e-5)
    assert_all_close(results, truths, rtol=1e-4, atol=1e-4)


@each_case
@each_way
@each_matrix
@each_block_size
def test_loss_and_gradients_are_those_of_logits(case, way, columns, block_size):
    how = {"columns": columns, "block_size": block_size}
    assert_same(
        of_blocks(way, case, **how),
        of_logits(case, columns),
        *arguments(case, columns),
    )


@only_on("torch", "XLA takes all columns of a block of rows at a time")
@each_case
@each_matrix
def test_columns_of_a_block_of_rows_are_taken_a_few_at_a_time(
    case, columns, monkeypatch
):
    seen = []

    @description
    class Watched(OnlineSoftmax):
        def add(self, sums, logits, targets):
            seen.append(tuple(logits.shape))
            return super().add(sums, logits, targets)

    monkeypatch.setattr(devices, "SMALLEST_BLOCK", 2)
    monkeypatch.setattr(devices, "CHUNK_BYTES", 1)
    how = {"reduction": Watched, "columns": columns, "block_size": 3}
    assert_same(
        of_blocks(at_once, case, **how),
        of_logits(case, columns),
        *arguments(case, columns),
    )
    # 2 rows and 3 more, and of each 1 column and three times 2.
    assert seen == [(n, m) for n in (2, 3) for m in (1, 2, 2, 2)]


@each_matrix
def test_shards_of_the_columns_make_one_pass(columns):
    """Each knows its part of the classes; sums go between them, and d_left."""
    case = CASES["margin_cosine"]
    left, right, *weights = map(tensor, arguments(case, columns))
    weights, tensors = weights[:3], weights[3:]
    what = What(
        case.described(*tensors),
        OneTarget(tensor(LABELS)),
        OnlineSoftmax(tensor(SHARES)),
        SoftmaxLoss(*weights),
    )
    shards = []
    for start, size in (0, 3), (3, 4):
        given = (
            left,
            blocks.cut(right, columns, start, size),
            what.columns(start, size),
        )
        shards.append((blockwise.Pass(*given, columns, 2, None), given))

    first, second = (each.sums(*given) for each, given in shards)
    sums = what.reduction.merge(first, second)
    terms = what.reduction.finish(sums)
    upstream = [3 * x for x in what.loss.back(terms)]
    (left_a, right_a, learned_a), (left_b, right_b, learned_b) = (
        each.gradients(*given, sums, upstream) for each, given in shards
    )
    truths, loss = gradients(
        of_logits(case, columns), left, right, *weights, *tensors
    )
    assert_all_close([3 * ops.sum(what.loss.of(terms))], [loss], rtol=1e-5)
    norms = learned_a["inverse_norms"], learned_b["inverse_norms"]
    assert_all_close(
        [
            left_a + left_b,
            ops.concatenate([right_a, right_b], axis=columns),
            learned_a["scale"] + learned_b["scale"],
            ops.concatenate(norms),
        ],
        [truths[i] for i in (0, 1, 5, 6)],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.float64
@each_case
@each_way
@thorough_on("tensorflow")
def test_gradients_agree_with_finite_differences(case, way):
    function = of_blocks(way, case, block_size=3)
    arrays = arguments(case, 1, "float64")
    results, _ = gradients(function, *arrays)
    function = compiled(function)  # JAX compiles a loop in every eager call.
    fixed = [tensor(x) for x in arrays]
    for i, (result, array) in enumerate(zip(results, arrays, strict=True)):
        expected = finite_differences(
            lambda x, i=i: function(*fixed[:i], x, *fixed[i + 1 :]), array
        )
        if array.shape == (ROWS,):
            # A part of a loss that weighs 0 is left out.
            expected = np.where(array == 0, 0, expected)
        np.testing.assert_allclose(
            to_numpy(result), expected, rtol=1e-6, atol=1e-6
        )


IDS = np.array([3, 1, 1, 2, 0], "int32")
COLUMN_IDS = np.array([1, 0, 2, 3, 1, 1, 5], "int32")


def _sigmoid_terms(logits, right):
    return ops.sum(ops.softplus(ops.where(right > 0, -logits, logits)), axis=1)


def _squared_error(logits, right):
    return ops.sum(ops.square(logits - right), axis=1)


@pytest.mark.parametrize(
    ("reduction", "formula"),
    [(PairwiseSigmoid, _sigmoid_terms), (SumOfSquares, _squared_error)],
)
@each_way
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_a_reduction_is_all_that_a_new_loss_needs(
    reduction, formula, way, several
):
    if several:
        targets = SharedIds.of(tensor(IDS), tensor(COLUMN_IDS))
        right = np.equal.outer(IDS, COLUMN_IDS).astype("float32")
        right /= right.sum(axis=1, keepdims=True)
    else:
        targets = OneTarget(tensor(LABELS))
        right = np.eye(COLUMNS, dtype="float32")[LABELS]

    def of_blocks(left, matrix, weight, bias):
        what = What(LinearLogits(bias), targets, reduction(), Weighted(weight))
        return way(left, matrix, what, block_size=2)

    def of_logits(left, matrix, weight, bias):
        logits = ops.matmul(left, matrix) + bias
        return ops.sum(weight * formula(logits, tensor(right)))

    weight = row_weights()["nll"]
    assert_same(of_blocks, of_logits, *factors(1), weight, BIAS)


@each_way
def test_a_reduction_sees_float32_of_low_precision_products(way):
    seen = set()

    @description
    class Watched(SumOfSquares):
        def add(self, sums, logits, targets):
            seen.add(keras.backend.standardize_dtype(logits.dtype))
            return super().add(sums, logits, targets)

    def of_blocks(left, right):
        weight = Weighted(ops.ones(ROWS))
        what = What(
            LinearLogits(), OneTarget(tensor(LABELS)), Watched(), weight
        )
        return way(left, right, what, block_size=2)

    def of_logits(left, right):
        right_columns = ops.one_hot(LABELS, COLUMNS)
        return ops.sum(_squared_error(ops.matmul(left, right), right_columns))

    # Whole numbers: their products are exact in bfloat16.
    whole = [np.round(3 * x) for x in factors(1)]
    low = [ops.cast(tensor(x), "bfloat16") for x in whole]
    results, value = gradients(of_blocks, *low)
    truths, true_value = gradients(of_logits, *whole)
    assert seen == {"float32"}
    assert_all_close([value], [true_value])
    assert_all_close(results, truths, rtol=0.01)


@each_way
def test_what_weighs_nothing_passes_no_gradient_in_float16(way):
    """There a gradient is scaled by its size, which is 0 here."""
    function = of_blocks(way, CASES["capped"], block_size=2, dtype="float16")
    left, right, *weights, bias = arguments(CASES["capped"], 1)
    nothing = [np.zeros_like(x) for x in weights]
    results, value = gradients(function, left, right, *nothing, bias)
    assert float(value) == 0
    d_left, d_right, *_, d_bias = map(to_numpy, results)
    for x in d_left, d_right, d_bias:
        np.testing.assert_array_equal(x, 0)


@each_way
@pytest.mark.parametrize(
    ("dtype", "large", "ones"), [("float16", 2048, 4), ("bfloat16", 256, 16)]
)
def test_small_gradients_are_not_lost_beside_a_large_one(
    way, dtype, large, ones
):
    """Added up in float16, 1024 + 1/2 is 1024, and 128 in bfloat16."""
    left = np.array([large] + [1] * ones, "float32")[:, None]

    def function(right):
        what = What(
            LinearLogits(),
            OneTarget(ops.zeros(1 + ones, "int32")),
            OnlineSoftmax(),
            SoftmaxLoss(ops.ones(1 + ones)),
        )
        low = ops.cast(tensor(left), dtype)
        return way(low, right, what, block_size=1)

    (result,), _ = gradients(function, ops.zeros((1, 2), dtype=dtype))
    expected = (large + ones) / 2
    assert to_numpy(result).tolist() == [[-expected, expected]]


def in_batch(way, block_size=None):
    """Rows compared with each other, each its own target."""

    def function(x):
        count = ops.shape(x)[0]
        what = What(
            Logits(),
            OneTarget(ops.arange(count, dtype="int32")),
            OnlineSoftmax(),
            SoftmaxLoss(ops.ones_like(x[:, 0])),
        )
        return way(x, x, what, columns=0, block_size=block_size)

    return function


@each_way
@each_block_size
def test_rows_of_a_batch_may_be_compared_with_each_other(way, block_size):
    """Contrastive use: one tensor is both factors and gets both gradients."""

    def of_logits(x):
        logits = ops.matmul(x, ops.transpose(x))
        right = ops.eye(ROWS)
        return ops.sum(softmax_terms(logits, right, np.zeros(ROWS)).nll)

    assert_same(in_batch(way, block_size), of_logits, normal(ROWS, SIZE))


def terms_by_rows(*arguments, **how):
    return blockwise.row_terms(*arguments, **how)


def terms_at_once(*arguments, **how):
    return blockwise.weighted_sum(*arguments, **how)[1]


each_way_to_terms = pytest.mark.parametrize(
    "terms_of", [terms_by_rows, terms_at_once]
)


@each_way_to_terms
@each_block_size
def test_the_gap_is_0_exactly_where_the_target_is_a_top_class(
    terms_of, block_size
):
    logits = np.round(2 * normal(20, COLUMNS, seed=4))  # ties
    labels = np.arange(20, dtype="int32") % COLUMNS
    what = What(
        Logits(),
        OneTarget(tensor(labels)),
        OnlineSoftmax(),
        SoftmaxLoss(ops.ones(20)),
    )
    eye = np.eye(20, dtype="float32")
    terms = terms_of(tensor(eye), tensor(logits), what, block_size=block_size)
    expected = logits.max(axis=1) - logits[np.arange(20), labels]
    assert np.any(expected == 0)
    np.testing.assert_array_equal(to_numpy(Terms(*terms).gap), expected)


@each_way
def test_a_row_without_a_finite_logit_passes_no_gradient(way):
    bias = np.full(COLUMNS, -np.inf, "float32")
    for case in CASES["biased"], CASES["capped"]:
        function = of_blocks(way, case, block_size=3)
        results, _ = gradients(
            function, *factors(1), *row_weights().values(), bias
        )
        d_left, d_right, *_, d_bias = results
        for result in d_left, d_right, d_bias:
            np.testing.assert_array_equal(to_numpy(result), 0)


@each_way
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("block_size", [2, None])
def test_a_batch_may_be_empty_or_one_row(way, rows, block_size):
    case = CASES["capped"]

    def few(left, right, bias):
        what = What(
            LinearLogits(bias, 1.5),
            OneTarget(tensor(LABELS)[:rows]),
            OnlineSoftmax(),
            SoftmaxLoss(ops.ones(rows)),
        )
        return way(left, right, what, block_size=block_size)

    def of_logits(left, right, bias):
        logits = case.formula(ops.matmul(left, right), None, bias)
        right = ops.one_hot(LABELS[:rows], COLUMNS)
        return ops.sum(softmax_terms(logits, right, np.zeros(COLUMNS)).nll)

    left, right = factors(1)
    if rows:
        assert_same(few, of_logits, left[:rows], right, BIAS)
        return
    results, value = gradients(few, left[:0], right, BIAS)
    assert float(value) == 0
    assert_all_close(results, [left[:0], 0 * right, 0 * BIAS])


@each_way
def test_what_is_learned_may_be_one_number_per_row(way):
    @description
    class RowScaled(Logits):
        """A temperature of its own for each row."""

        learned = ("scale",)

        scale: Tensor | None = per_row()

        def block(self, products, targets):
            return products * self.scale[:, None]

        def back(self, gradient, products, logits, targets):
            scale = ops.sum(gradient * products, axis=1)
            return gradient * self.scale[:, None], {"scale": scale}

    case = Case(RowScaled, lambda p, right, scale: p * scale[:, None], {})
    case.tensors["scale"] = np.abs(normal(ROWS, seed=7)) + 0.5
    assert_same(
        of_blocks(way, case, block_size=2),
        of_logits(case, 1),
        *arguments(case, 1),
    )


@each_way
@pytest.mark.parametrize("block_size", [2, None])
def test_an_empty_batch_may_be_compared_with_itself(way, block_size):
    """There are no columns, either."""
    nothing = np.zeros((0, SIZE), "float32")
    (result,), value = gradients(in_batch(way, block_size), nothing)
    assert float(value) == 0
    assert result.shape == (0, SIZE)


@pytest.mark.parametrize("forwards", [False, True])
def test_a_functional_model_knows_the_shape_of_a_loss(forwards, monkeypatch):
    """The number of its rows is a symbol on JAX."""
    monkeypatch.setattr(blockwise, "gradients_forwards", lambda x: forwards)
    loss = linear_softmax_crossentropy(
        keras.Input((), dtype="int32"),
        keras.Input((SIZE,)),
        kernel=tensor(factors(1)[1]),
        reduction="mean",
    )
    assert loss.shape == ()


@only_on("tensorflow", "only there a number of columns is unknown")
@each_way
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("block_size", [2, None])
def test_the_number_of_columns_may_be_unknown(way, jit_compile, block_size):
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec([None, SIZE])], jit_compile=jit_compile
    )
    def step(x):
        (result,), value = gradients(in_batch(way, block_size), x)
        return result, value

    for rows in ROWS, 1:
        x = normal(rows, SIZE)
        result, value = step(tensor(x))
        logits = x @ x.T
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        slope = p - np.eye(rows)
        assert_all_close([value], [-np.log(np.diag(p)).sum()])
        assert_all_close([result], [slope @ x + slope.T @ x], rtol=1e-4)


@only_on("torch", "nothing is scaled in place elsewhere")
@each_way
def test_a_second_backward_pass_gives_the_same_gradients(way):
    function = of_blocks(way, CASES["capped"], block_size=2)
    arrays = [
        tensor(x).requires_grad_(True) for x in arguments(CASES["capped"], 1)
    ]
    value = function(*arrays)
    value.backward(retain_graph=True)
    first = [x.grad.clone() for x in arrays]
    for x in arrays:
        x.grad = None
    (2 * value).backward()
    assert_all_close([x.grad for x in arrays], [2 * to_numpy(x) for x in first])


@only_on("torch", "only there the gradient of a gradient is asked for so")
@each_way
def test_a_gradient_to_be_differentiated_again_is_an_error(way):
    function = of_blocks(way, CASES["capped"], block_size=2)
    arrays = [
        tensor(x).requires_grad_(True) for x in arguments(CASES["capped"], 1)
    ]
    with pytest.raises(NotImplementedError, match="create_graph"):
        function(*arrays).backward(create_graph=True)


# Memory. Sizes that tell a block (48 × 11) from the logits (48 × 83), and from
# the factors and their gradients (48 × 5, 5 × 83).

MANY, BLOCK, FEW, VOCABULARY = 48, 11, 5, 83


def largest_in_jax(function, *arrays, dtype=""):
    """The elements of the largest tensor in the jaxpr, whatever it nests."""
    import jax
    from jax.extend.core import jaxprs_in_params

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            for variable in equation.outvars:
                if dtype in str(variable.aval.dtype):
                    yield int(np.prod(variable.aval.shape))
            for inner in jaxprs_in_params(equation.params):
                yield from walk(inner)

    def step(*arrays):
        return jax.value_and_grad(
            lambda *arrays: function(*arrays).sum(), (0, 1, 2)
        )(*arrays)

    return max(walk(jax.make_jaxpr(step)(*arrays).jaxpr))


def largest_in_torch(function, *arrays, dtype=""):
    """The elements of the largest tensor that any operation returned."""
    from torch.utils import _python_dispatch, _pytree

    class Watch(_python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            for x in _pytree.tree_leaves(result):
                if dtype in str(getattr(x, "dtype", None)):
                    size = getattr(x, "numel", int)()
                    self.largest = max(self.largest, size)
            return result

    with Watch() as watch:
        gradients(function, *arrays)
    return watch.largest


def largest_in_tensorflow(function, *arrays, dtype=""):
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
        if dtype in tensor.dtype.name
    ]
    return max(shape.num_elements() or 0 for shape in shapes)


LARGEST = {
    "jax": largest_in_jax,
    "torch": largest_in_torch,
    "tensorflow": largest_in_tensorflow,
}[BACKEND]


def loss_of_blocks(way, block_size, columns, **how):
    labels = np.arange(MANY, dtype="int32") % VOCABULARY
    ones, shares = np.ones(MANY, "float32"), np.ones(VOCABULARY, "float32")

    def function(left, right, bias):
        what = What(
            LinearLogits(bias, 2.0),
            OneTarget(tensor(labels)),
            OnlineSoftmax(tensor(shares / VOCABULARY)),
            SoftmaxLoss(*[tensor(ones)] * 3),
        )
        return way(
            left, right, what, columns=columns, block_size=block_size, **how
        )

    return function


def loss_of_logits(left, right, bias):
    logits = ops.matmul(left, right) + bias
    return ops.sum(ops.logsumexp(logits, axis=1))


@each_matrix
@pytest.mark.parametrize(
    ("way", "block"),
    [(by_rows, MANY * BLOCK), (at_once, BLOCK * VOCABULARY)],
)
def test_no_tensor_is_larger_than_a_block(way, block, columns):
    left, right = normal(MANY, FEW), normal(FEW, VOCABULARY)
    given = right if columns else right.T.copy()
    bias = normal(VOCABULARY)
    function = loss_of_blocks(way, BLOCK, columns)
    assert LARGEST(function, left, given, bias) == block
    # The same eyes do see logits where there are some.
    largest = LARGEST(loss_of_logits, left, right, bias)
    assert largest == MANY * VOCABULARY


@each_matrix
def test_a_float32_kernel_is_rounded_a_block_at_a_time(columns):
    left, right = normal(MANY, FEW), normal(FEW, VOCABULARY)
    right = right if columns else right.T.copy()
    # Blocks of products, 48 × 2, are smaller than the features, 48 × 5, and
    # these than the kernel, 5 × 83.
    function = loss_of_blocks(by_rows, 2, columns, dtype="bfloat16")
    arrays = left, right, normal(VOCABULARY)
    assert LARGEST(function, *arrays, dtype="bfloat16") == MANY * FEW
