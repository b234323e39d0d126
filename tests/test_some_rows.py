"""Some rows of a loss over all pairs are rows of the whole, and cost as few."""

import functools

import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.testing import (
    BACKEND,
    assert_all_close,
    gradients,
    normal,
    only_on,
    quick,
    to_numpy,
)

ROWS, SIZE = 7, 3
# 70 and 3 have no partner, and no example of 4 is there.
IDS = np.array([5, 4, 5, 70, 3, 5, 4], "int32")
WEIGHT = np.array([1, 0, 2, 0.5, 1, 1, 0], "float32")
UPSTREAM = keras.ops.convert_to_tensor(normal(2 * ROWS, seed=7))
# All in parts, some of them empty, and then all at once.
PARTS = [(0, 0), (0, 3), (3, 4), (7, 0), (0, ROWS)]

TEMPERATURE, BIAS = np.float32(0.5), np.float32(-1.5)


def contrastive(function, *names, **options):
    """With embeddings of several views and what is learned, by position."""

    def op(ids, x, *learned, **more):
        learned = dict(zip(names, learned, strict=True))
        # Two columns a block.
        return function(ids, x, block_size=2, **learned, **options, **more)

    learned = {"temperature": TEMPERATURE, "bias": BIAS}
    return op, [learned[name] for name in names]


def plain(function, *arguments, **options):
    def op(ids, x, **more):
        return function(ids, x, *arguments, **options, **more)

    return op, []


def triplet(mining, softness, distance):
    options = {"mining": mining, "softness": softness, "distance": distance}
    return plain(ops.triplet_hinge, 1.0, **options)


TOWERS = {
    "sup_con": contrastive(ops.supervised_contrastive, "temperature"),
    "info_nce": contrastive(ops.info_nce, "temperature"),
    "one_sided": contrastive(ops.info_nce, "temperature", symmetric=False),
    "sigmoid": contrastive(ops.sigmoid_contrastive, "temperature", "bias"),
}
MATRICES = {
    "kl": plain(ops.symmetric_kl_hinge, 2.0),
    "kl_directed": plain(ops.symmetric_kl_hinge, 2.0, directed=True),
    "pairs": plain(ops.pair_hinge, 2.0, balanced=False),
    "hard": triplet("hard", 0.0, "euclidean"),
    "semi_hard": triplet("semi_hard", 0.7, "squared_euclidean"),
    "all": triplet("all", 0.0, "cosine"),
    "all_soft": triplet("all", 0.7, "symmetric_kl"),
    "multi": plain(ops.multi_similarity),
    "multi_hard": plain(ops.multi_similarity, epsilon=0.1),
    "prototypes": plain(ops.prototypical_crossentropy),
    "cosines": plain(ops.prototypical_crossentropy, distance="cosine"),
}
OWN = triplet("hard", 0.0, lambda x: ops.pairwise_euclidean(x) / 2)
CASES = [
    *((name, TOWERS[name], views) for name in TOWERS for views in (1, 2, 4)),
    *((name, MATRICES[name], None) for name in MATRICES),
    ("callable", OWN, None),
]
each_case = pytest.mark.parametrize(
    ("case", "views"),
    [case[1:] for case in CASES],
    ids=[f"{name}-{views}" for name, _, views in CASES],
)
each_op = pytest.mark.parametrize(
    "case", [*TOWERS.values(), *MATRICES.values()], ids=[*TOWERS, *MATRICES]
)


def embeddings(views, rows=ROWS):
    return normal(rows, SIZE) if views is None else normal(rows, views, SIZE)


@each_case
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_the_parts_are_the_whole_and_so_are_their_gradients(
    case, views, weight
):
    function, learned = case
    function = functools.partial(function, IDS, sample_weight=weight)
    arrays = embeddings(views), *learned

    def whole(*arrays):
        return keras.ops.concatenate([function(*arrays)] * 2) * UPSTREAM

    def parts(*arrays):
        found = [function(*arrays, rows=rows) for rows in PARTS]
        return keras.ops.concatenate(found) * UPSTREAM

    expected, losses = gradients(whole, *arrays)
    results, again = gradients(parts, *arrays)
    assert_all_close([again], [losses])
    assert_all_close(results, expected, rtol=1e-4, atol=1e-5)


@each_op
def test_a_nan_id_is_nan_in_its_row_alone(case):
    function, learned = case
    ids = IDS.astype("float32")
    ids[[1, 4]] = np.nan
    losses = function(ids, embeddings(None), *learned)
    part = function(ids, embeddings(None), *learned, rows=(1, 3))
    assert np.isnan(to_numpy(part)).tolist() == [True, False, False]
    assert_all_close([part], [to_numpy(losses)[1:4]])


@each_op
def test_where_the_rows_begin_may_be_known_when_it_runs(case):
    function, learned = case
    x = embeddings(None)
    expected = to_numpy(function(IDS, x, *learned))

    @quick
    def part(start, x):
        return function(IDS, x, *learned, rows=(start, 3))

    for start in (0, 2, 4):
        given = keras.ops.convert_to_tensor(np.int32(start))
        result = part(given, keras.ops.convert_to_tensor(x))
        assert_all_close([result], [expected[start : start + 3]])


@only_on("tensorflow", "only there sizes are unknown")
@each_op
def test_their_number_may_be_unknown(case):
    import tensorflow as tf

    function, learned = case
    learned = [tf.constant(x) for x in learned]
    number = tf.TensorSpec([], tf.int32)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, SIZE]),
            number,
            number,
        ]
    )
    def step(ids, x, start, size):
        def of_some(*arrays):
            return function(ids, *arrays, rows=(start, size))

        return gradients(of_some, x, *learned)

    def of_one_size(x, *learned):
        return function(IDS, x, *learned)[2:5]

    x = embeddings(None)
    expected, losses = gradients(of_one_size, x, *learned)
    results, part = step(IDS, x, 2, 3)
    assert_all_close([part], [losses])
    assert_all_close(results, expected, rtol=1e-4, atol=1e-5)
    _, none = step(IDS, x, 7, 0)
    assert none.shape == (0,)


@only_on("jax", "JAX says of what shape all is that it makes")
@pytest.mark.parametrize(
    ("case", "views"),
    [case[1:] for case in CASES if case[0] != "callable"],
    ids=[f"{name}-{views}" for name, _, views in CASES if name != "callable"],
)
def test_the_pairs_of_other_rows_are_not_made(case, views):
    import jax

    function, learned = case
    rows = 11
    ids = np.arange(rows) % 4

    def total(x):
        return keras.ops.sum(function(ids, x, *learned, rows=(2, 3)))

    program = str(jax.make_jaxpr(jax.grad(total))(embeddings(views, rows)))
    for n in (rows, 2 * rows, 4 * rows):
        assert f"[{rows},{n}]" not in program
        assert f"[{n},{n}]" not in program
    if views is None:
        assert f"[3,{rows}]" in program


@each_op
def test_rows_that_there_are_not_are_an_error(case):
    function, learned = case
    for rows in ((-1, 3), (5, 3), 3, (0, 1, 2), (0, -1)):
        with pytest.raises(ValueError, match=r"`rows` must be .*the 7 rows"):
            function(IDS, embeddings(None), *learned, rows=rows)


@pytest.mark.skipif(BACKEND != "torch", reason="a symbol is one on all")
@each_op
def test_they_are_a_step_of_a_functional_model(case):
    function, learned = case
    x, ids = keras.Input((SIZE,)), keras.Input((), dtype="int32")
    model = keras.Model([ids, x], function(ids, x, *learned, rows=(1, 2)))
    result = model([IDS, embeddings(None)])
    expected = function(IDS, embeddings(None), *learned, rows=(1, 2))
    assert_all_close([result], [expected])
