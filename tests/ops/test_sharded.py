"""Shards of the classes, one block of each at a time, as one pass."""

import functools

import numpy as np
import pytest
from keras import ops

from keras_xent.ops import linear, reductions
from keras_xent.ops.cosine import CosineLogits
from keras_xent.ops.logits import LinearLogits
from keras_xent.ops.targets import OneTarget
from tests.testing import assert_all_close, normal, only_on, to_numpy

ROWS, WIDTH, CLASSES, SHARDS = 6, 5, 24, 4
LABELS = np.array([0, 5, 23, 12, 7, 3])

LOGITS = {
    "plain": lambda: LinearLogits(),
    "bias": lambda: LinearLogits(normal(CLASSES, seed=2)),
    "masked": lambda: LinearLogits(
        np.where(np.arange(CLASSES) % 6 == 4, -np.inf, 0.5).astype("float32")
    ),
    "softcap": lambda: LinearLogits(normal(CLASSES, seed=2), 3.0),
    "margin": lambda: CosineLogits(
        ops.convert_to_tensor(8.0), ops.convert_to_tensor(0.3), 0.1
    ),
    "sub-centers": lambda: CosineLogits(8.0, 0.2, 0.0, sub_centers=3),
}

OPTIONS = {
    "none": {},
    "all": {
        "label_smoothing": 0.1,
        "class_weight": list(np.linspace(0.5, 2, CLASSES)),
        "z_loss": 1e-2,
        "ignore_class": 12,
        "all_terms": True,
    },
    "weights": {
        "row_weights": np.arange(ROWS, dtype="float32"),
        "summed": True,
    },
}


def result(logits, matrix, features, options, shards):
    """Losses, terms, and the gradients of the losses."""
    import jax

    def loss(features, matrix, tensors):
        losses, terms = linear.losses_and_terms(
            LABELS,
            features,
            **{name: matrix},
            logits=logits.holding(tensors),
            shards=shards,
            **options,
        )
        # The sine of a large sum would make much of its last bits.
        return ops.sum(ops.sin(0.1 * losses)), (losses, terms)

    name = "kernel" if matrix.shape[0] == WIDTH else "class_vectors"
    learned = {
        key: ops.convert_to_tensor(x)
        for key, x in logits.tensors().items()
        if key in logits.learned
    }
    gradient = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    gradients, found = jax.jit(gradient)(features, matrix, learned)
    return jax.tree.leaves((found, gradients))


@only_on("jax", "where Keras has variables that are spread over devices")
@pytest.mark.parametrize(
    ("options", "name", "block_size"),
    [
        ("none", "kernel", 9),
        ("all", "class_vectors", None),
        ("all", "kernel", 16),
        ("weights", "class_vectors", 1),
    ],
)
@pytest.mark.parametrize("logits", LOGITS)
def test_shards_give_what_one_pass_gives(logits, options, name, block_size):
    logits = LOGITS[logits]()
    each = logits.vectors_per_column
    matrix = normal(WIDTH, CLASSES * each, seed=1)
    matrix = matrix if name == "kernel" else matrix.T
    features = normal(ROWS, WIDTH)
    options = {**OPTIONS[options], "block_size": block_size}
    one = result(logits, matrix, features, options, 1)
    found = result(logits, matrix, features, options, SHARDS)
    assert any(np.any(to_numpy(x)) for x in one[-2:])
    assert_all_close(found, one, rtol=1e-5)


@only_on("jax", "where Keras has variables that are spread over devices")
@pytest.mark.parametrize("options", ["all", "weights"])
@pytest.mark.parametrize("logits", LOGITS)
def test_shards_need_not_divide_the_classes(logits, options):
    logits = LOGITS[logits]()
    matrix = normal(WIDTH, CLASSES * logits.vectors_per_column, seed=1)
    given = (logits, matrix, normal(ROWS, WIDTH))
    options = {**OPTIONS[options], "block_size": 14}
    expected = result(*given, options, 1)
    assert_all_close(result(*given, options, 7), expected, rtol=1e-5)


@pytest.mark.parametrize("bar", [False, True])
def test_many_sets_of_columns_are_merged_as_two_and_two(bar):
    logits = ops.convert_to_tensor(normal(SHARDS, ROWS, 7, scale=3.0))
    # A set without a finite logit, and a row without one.
    logits = ops.where(np.arange(SHARDS)[:, None, None] == 1, -np.inf, logits)
    logits = ops.where(np.arange(ROWS)[:, None] == 2, -np.inf, logits)
    shares = normal(7, seed=3) ** 2
    shares[0] = 0
    softmax = reductions.OnlineSoftmax(
        ops.convert_to_tensor(shares),
        ops.convert_to_tensor(normal(ROWS, seed=4)) if bar else None,
    )
    zeros = ops.zeros((ROWS,), dtype="float32")
    each = [
        softmax.add(softmax.init(zeros), logits[i], OneTarget(LABELS % 7))
        for i in range(SHARDS)
    ]
    expected = functools.reduce(softmax.merge, each)
    found = softmax.merged([ops.stack(x) for x in zip(*each, strict=True)])
    assert_all_close(found, expected, rtol=1e-6)
