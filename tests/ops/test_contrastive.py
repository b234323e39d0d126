"""Contrastive losses against loops over all pairs, in float64."""

import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.testing import (
    assert_all_close,
    finite_differences,
    gradients,
    normal,
    only_on,
    quick,
    thorough_on,
    to_numpy,
)

tensor = keras.ops.convert_to_tensor


# The truth -----------------------------------------------------------------


def softplus(x):
    return np.logaddexp(0, x)


def cross_entropy(scores, right):
    """−mean over the right ones of log softmax; 0 if none is right."""
    if not right:
        return 0.0
    return np.logaddexp.reduce(scores) - np.mean([scores[k] for k in right])


def units(x):
    x = np.asarray(x, "float64")
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def there(weight, n):
    return range(n) if weight is None else np.flatnonzero(weight)


def among_themselves(labels, x, weight, loss):
    """Each view against all other views of the examples that are there."""
    rows = [(i, v) for i in there(weight, len(x)) for v in range(x.shape[1])]
    losses = np.zeros(len(x))
    for i, v in rows:
        others = [each for each in rows if each != (i, v)]
        scores = np.array([x[i, v] @ x[j, w] for j, w in others])
        right = [k for k, (j, _) in enumerate(others) if labels[j] == labels[i]]
        losses[i] += loss(scores, right) / x.shape[1]
    return losses


def between_towers(labels, x, weight, loss, symmetric=False):
    present = there(weight, len(x))
    hard = [(j, v) for v in range(2, x.shape[1]) for j in present]
    losses = np.zeros(len(x))
    for i in present:
        scores = [x[i, 0] @ x[j, 1] for j in present]
        scores += [x[i, 0] @ x[j, v] for j, v in hard]
        right = [k for k, j in enumerate(present) if labels[j] == labels[i]]
        losses[i] = loss(np.array(scores), right)
        if symmetric:
            scores = np.array([x[j, 0] @ x[i, 1] for j in present])
            losses[i] = (losses[i] + loss(scores, right)) / 2
    return losses


def sup_con(labels, x, weight=None, temperature=0.1):
    return among_themselves(
        labels,
        units(x),
        weight,
        lambda scores, right: cross_entropy(scores / temperature, right),
    )


def info_nce(labels, x, weight=None, temperature=0.07, symmetric=True):
    if x.shape[1] == 1:
        return sup_con(labels, x, weight, temperature)

    def loss(scores, right):
        return cross_entropy(scores / temperature, right)

    return between_towers(labels, units(x), weight, loss, symmetric)


def sigmoid(labels, x, weight=None, temperature=0.1, bias=-10.0):
    def loss(scores, right):
        logits = scores / temperature + bias
        logits[right] *= -1
        return np.sum(softplus(logits))

    how = among_themselves if x.shape[1] == 1 else between_towers
    return how(labels, units(x), weight, loss)


CASES = {
    "sup_con": (ops.supervised_contrastive, sup_con, {"temperature": 0.5}),
    "info_nce": (ops.info_nce, info_nce, {"temperature": 0.5}),
    "one_sided": (
        ops.info_nce,
        info_nce,
        {"temperature": 0.5, "symmetric": False},
    ),
    "sigmoid": (
        ops.sigmoid_contrastive,
        sigmoid,
        {"temperature": 0.5, "bias": -1.5},
    ),
}
each_case = pytest.mark.parametrize("name", CASES)
each_views = pytest.mark.parametrize("views", [1, 2, 4])
ROWS, SIZE = 7, 3
IDS = np.array([5, -2, 5, 70_000, 3, 5, -2], "int32")
WEIGHT = np.array([1, 0, 2, 0.5, 0, 1, 3], "float32")


def embeddings(views, rows=ROWS, dtype="float32"):
    return normal(rows, views, SIZE, seed=views).astype(dtype)


def times_weight(losses, weight):
    return losses if weight is None else losses * weight


@each_case
@each_views
@pytest.mark.parametrize(
    ("weight", "block_size"),
    [(None, None), (None, 2), (WEIGHT, 2)],
    ids=["plain", "blocks", "weighted"],
)
def test_losses_and_gradients_are_those_of_a_loop(
    name, views, weight, block_size
):
    function, truth, options = CASES[name]
    x = embeddings(views)

    def of_pairs(x):
        return function(
            IDS, x, sample_weight=weight, block_size=block_size, **options
        )

    def true(x):
        return times_weight(truth(IDS, x, weight, **options), weight)

    (result,), losses = gradients(of_pairs, x)
    assert_all_close([losses], [true(x)], rtol=1e-5)
    expected = slopes(lambda x: true(x).sum(), x)
    assert_all_close([result], [expected], rtol=1e-4, atol=1e-5)


def slopes(function, x, step=1e-5):
    """Central differences of a NumPy function, in float64."""
    x = np.asarray(x, "float64")
    found = np.empty_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        found[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return found


@each_case
@each_views
def test_temperature_and_bias_get_their_gradients(name, views):
    function, truth, options = CASES[name]
    x = embeddings(views)
    names = [key for key in options if key != "symmetric"]
    given = [np.float32(options[key]) for key in names]

    def of(function, *values):
        chosen = dict(zip(names, values, strict=True))
        return lambda *more: function(IDS, *more, **{**options, **chosen})

    results, _ = gradients(lambda *values: of(function, *values)(x), *given)
    for i, result in enumerate(results):

        def moved(step, i=i):
            values = [np.float64(value) for value in given]
            values[i] += step
            return of(truth, *values)(x).sum()

        expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
        assert float(to_numpy(result)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.float64
@thorough_on("tensorflow")
@each_case
@each_views
def test_gradients_agree_with_finite_differences(name, views):
    function, _, options = CASES[name]
    x = embeddings(views, dtype="float64")

    def of_pairs(x):
        return function(IDS, x, sample_weight=WEIGHT, block_size=3, **options)

    (result,), losses = gradients(of_pairs, x)
    assert to_numpy(losses).dtype == np.float64
    expected = finite_differences(of_pairs, x)
    np.testing.assert_allclose(to_numpy(result), expected, atol=1e-7)


@each_case
@pytest.mark.parametrize("views", [1, 2, 3])
def test_the_order_of_the_examples_does_not_matter(name, views):
    function, _, options = CASES[name]
    x, order = embeddings(views), np.random.default_rng(0).permutation(ROWS)
    losses = function(IDS, x, block_size=2, **options)
    again = function(IDS[order], x[order], block_size=2, **options)
    assert_all_close([again], [to_numpy(losses)[order]])


@each_case
def test_a_matrix_is_one_view(name):
    function, _, options = CASES[name]
    x = embeddings(1)
    result = function(IDS, x[:, 0], **options)
    assert_all_close([result], [function(IDS, x, **options)], rtol=0, atol=0)


@each_case
@each_views
def test_the_length_of_an_embedding_does_not_matter(name, views):
    function, _, options = CASES[name]
    x = embeddings(views)
    for scale in (1e-30, 1e30):
        result = function(IDS, np.float32(scale) * x, **options)
        assert_all_close([result], [function(IDS, x, **options)])


@each_case
@each_views
@pytest.mark.parametrize("rows", [0, 1])
def test_a_batch_may_be_empty_or_one_row(name, views, rows):
    function, truth, options = CASES[name]
    x, ids = embeddings(views)[:rows], IDS[:rows]
    (result,), losses = gradients(lambda x: function(ids, x, **options), x)
    assert_all_close([losses], [truth(ids, x, **options)])
    assert to_numpy(result).shape == x.shape
    assert np.isfinite(to_numpy(result)).all()


@pytest.mark.parametrize("name", ["sup_con", "info_nce"])
def test_a_row_without_a_partner_has_no_loss_and_no_gradient(name):
    function, _, options = CASES[name]
    x, ids = embeddings(1), np.arange(ROWS)
    (result,), losses = gradients(lambda x: function(ids, x, **options), x)
    np.testing.assert_array_equal(to_numpy(losses), 0)
    np.testing.assert_array_equal(to_numpy(result), 0)


@each_case
@pytest.mark.parametrize("views", [1, 2])
def test_a_nan_id_is_nan_and_nobodys_partner(name, views):
    function, truth, options = CASES[name]
    x, ids = embeddings(views), IDS.astype("float32")
    ids[[1, 4]] = np.nan
    losses = to_numpy(function(ids, x, **options))
    assert np.isnan(losses).tolist() == np.isnan(ids).tolist()
    alone = np.where(np.isnan(ids), 100 + np.arange(ROWS), ids)
    expected = truth(alone, x, **options)
    known = ~np.isnan(ids)
    np.testing.assert_allclose(losses[known], expected[known], rtol=1e-5)
    # Of weight 0 it is out of the way.
    weight = known.astype("float32")
    losses = function(ids, x, sample_weight=weight, **options)
    assert_all_close([losses], [truth(IDS, x, weight, **options)])


@each_case
@each_views
def test_nothing_in_an_absent_example_matters(name, views):
    function, _, options = CASES[name]
    x = embeddings(views)

    def of_pairs(x):
        return function(IDS, x, sample_weight=WEIGHT, **options)

    expected, losses = gradients(of_pairs, x)
    for value in (np.nan, np.inf):
        broken = np.where(WEIGHT[:, None, None] == 0, np.float32(value), x)
        results, again = gradients(of_pairs, broken)
        assert_all_close([again, *results], [losses, *expected])


BARS = {"bfloat16": 3e-2, "float16": 4e-3}


@each_case
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("dtype", BARS)
def test_products_in_low_precision_are_near(name, views, dtype):
    function, truth, options = CASES[name]
    x = keras.ops.cast(normal(24, views, 16, seed=4), dtype)
    ids = (np.arange(24) % 9).astype("int32")
    exact = to_numpy(keras.ops.cast(x, "float32"))
    # What is left is that the gradient itself is rounded to the dtype.
    rounding = {"bfloat16": 4e-3, "float16": 5e-4}[dtype]
    bars = {None: (BARS[dtype],) * 2, "float32": (2e-6, rounding)}
    for precision, (of_loss, of_gradient) in bars.items():

        def of_pairs(x, precision=precision):
            return function(
                ids, x, block_size=10, precision=precision, **options
            )

        (result,), losses = gradients(of_pairs, x)
        assert keras.backend.standardize_dtype(losses.dtype) == "float32"
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        expected = truth(ids, exact, **options)
        np.testing.assert_allclose(to_numpy(losses), expected, rtol=of_loss)
        (expected,), _ = gradients(of_pairs, exact)
        lost = np.linalg.norm(to_numpy(result) - to_numpy(expected))
        assert lost < of_gradient * np.linalg.norm(to_numpy(expected))


@each_case
def test_a_loss_scale_in_float16_neither_overflows_nor_loses_anything(
    name, monkeypatch
):
    from keras_xent.ops import devices

    monkeypatch.setattr(devices, "slow_float16", lambda x: False)
    function, _, options = CASES[name]
    ids = (np.arange(64) % 9).astype("int32")
    x = normal(64, 2, 32, seed=4)

    def mean(x):
        return 2.0**14 * keras.ops.mean(function(ids, x, **options))

    (result,), _ = gradients(mean, keras.ops.cast(x, "float16"))
    (expected,), _ = gradients(mean, x)
    lost = np.linalg.norm(to_numpy(result) - to_numpy(expected))
    assert lost < 5e-3 * np.linalg.norm(to_numpy(expected))


@each_case
def test_large_scores_neither_overflow_nor_vanish(name):
    function, truth, options = CASES[name]
    options = {**options, "temperature": 1e-3}
    x = embeddings(2)
    (result,), losses = gradients(lambda x: function(IDS, x, **options), x)
    expected = truth(IDS, x, **options)
    np.testing.assert_allclose(to_numpy(losses), expected, rtol=1e-3, atol=1e-3)
    assert np.isfinite(to_numpy(result)).all()


# Independent implementations -----------------------------------------------


@only_on("jax", "optax is for JAX")
def test_two_views_are_ntxent_of_optax():
    optax = pytest.importorskip("optax")
    x = normal(8, 2, SIZE)
    flat, ids = x.reshape(16, SIZE), np.repeat(np.arange(8), 2)

    def ours(flat):
        losses = ops.supervised_contrastive(
            np.arange(8), flat.reshape(8, 2, SIZE), temperature=0.3
        )
        return keras.ops.mean(losses)

    def theirs(flat):
        return optax.losses.ntxent(flat, tensor(ids), 0.3).mean()

    (a,), value = gradients(ours, flat)
    (b,), expected = gradients(theirs, flat)
    assert_all_close([value, a], [expected, b], rtol=1e-4, atol=1e-5)


@only_on("torch", "pytorch-metric-learning is for PyTorch")
@pytest.mark.parametrize("loss", ["SupConLoss", "NTXentLoss"])
def test_equal_ids_are_those_of_pytorch_metric_learning(loss):
    peers = pytest.importorskip("pytorch_metric_learning.losses")
    x = normal(9, SIZE)
    # NT-Xent means the mean over the pairs: as many for each row.
    ids = np.arange(9) % 3 if loss == "NTXentLoss" else np.arange(9) % 4
    theirs = getattr(peers, loss)(temperature=0.3)
    if loss == "NTXentLoss":
        ids = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])[:8]
        x = x[:8]
    (a,), value = gradients(
        lambda x: keras.ops.mean(
            ops.supervised_contrastive(ids, x, temperature=0.3)
        ),
        x,
    )
    (b,), expected = gradients(lambda x: theirs(x, tensor(ids)), x)
    assert_all_close([value, a], [expected, b], rtol=1e-4, atol=1e-5)


def test_two_towers_are_the_loss_of_open_clip():
    x, scale = normal(6, 2, SIZE), 1 / 0.07

    def theirs(x):
        # ClipLoss.forward: both cross-entropies against arange(n).
        image, text = (keras.ops.normalize(x[:, i], axis=-1) for i in (0, 1))
        logits = scale * keras.ops.matmul(image, keras.ops.transpose(text))
        own = keras.ops.arange(6)
        both = [
            keras.ops.mean(
                keras.ops.sparse_categorical_crossentropy(
                    own, each, from_logits=True
                )
            )
            for each in (logits, keras.ops.transpose(logits))
        ]
        return (both[0] + both[1]) / 2

    def ours(x):
        return keras.ops.mean(ops.info_nce(np.arange(6), x))

    (a,), value = gradients(ours, x)
    (b,), expected = gradients(theirs, x)
    assert_all_close([value, a], [expected, b], rtol=1e-4, atol=1e-5)


def test_two_towers_are_the_loss_of_siglip():
    x = normal(6, 2, SIZE)
    image, text = units(x[:, 0]), units(x[:, 1])
    # The paper's pseudocode: −Σ log_sigmoid(labels · logits) / n.
    logits = image @ text.T * 10 - 10
    labels = 2 * np.eye(6) - np.ones((6, 6))
    expected = softplus(-labels * logits).sum() / 6
    losses = to_numpy(ops.sigmoid_contrastive(np.arange(6), x))
    assert losses.mean() == pytest.approx(expected, rel=1e-5)


# What is wrong -------------------------------------------------------------


@each_case
def test_what_does_not_fit_is_an_error(name):
    function, _, _ = CASES[name]
    x = embeddings(2)
    with pytest.raises(ValueError, match="one class id per row"):
        function(IDS[:3], x)
    with pytest.raises(ValueError, match="`sample_weight` and `labels`"):
        function(IDS, x, sample_weight=WEIGHT[:3])
    with pytest.raises(ValueError, match=r"\(batch, views, dim\)"):
        function(IDS, x[..., None])
    with pytest.raises(ValueError, match=r"\(batch, views, dim\)"):
        function(IDS, x[:, :0])
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="`temperature`"):
            function(IDS, x, temperature=wrong)
    with pytest.raises(ValueError, match="`precision`"):
        function(IDS, x, precision="bfloat16")
    with pytest.raises(ValueError, match="`block_size`"):
        function(IDS, x, block_size=0)
    with pytest.raises(ValueError, match="int32"):
        function(IDS.astype("int64") + 2**40, x)


def test_a_bias_is_a_number():
    with pytest.raises(ValueError, match="`bias`"):
        ops.sigmoid_contrastive(IDS, embeddings(2), bias=float("inf"))


@each_case
@pytest.mark.parametrize("views", [1, 3])
def test_a_compiled_step_gives_the_same(name, views):
    function, _, options = CASES[name]
    x = embeddings(views)
    expected = function(IDS, x, sample_weight=WEIGHT, **options)
    result = quick(lambda x: function(IDS, x, sample_weight=WEIGHT, **options))(
        tensor(x)
    )
    assert_all_close([result], [expected])


@only_on("tensorflow", "only there a batch is of unknown size")
@each_case
@each_views
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_batch_size_may_be_unknown(name, views, jit_compile):
    import tensorflow as tf

    function, _, options = CASES[name]

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, views, SIZE]),
        ],
    )
    def step(ids, x):
        (result,), value = gradients(
            lambda x: function(ids, x, block_size=2, **options), x
        )
        return result, value

    for rows in (ROWS, 1):
        x, ids = embeddings(views)[:rows], IDS[:rows]
        result, losses = step(ids, x)
        (expected,), truth = gradients(
            lambda x, ids=ids: function(ids, x, **options), x
        )
        assert_all_close([losses, result], [truth, expected], atol=1e-5)


@only_on("torch", "int64 is what PyTorch's ids are")
@each_case
def test_large_ids_of_int64_are_told_apart(name):
    function, truth, options = CASES[name]
    x = embeddings(2)
    large = IDS.astype("int64") + 2**40
    losses = function(tensor(large), x, **options)
    assert_all_close([losses], [truth(IDS, x, **options)])
