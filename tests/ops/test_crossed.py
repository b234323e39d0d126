"""Both directions from one pass, against all products at once."""

import keras
import numpy as np
import pytest

from keras_xent import _keras
from keras_xent._types import Tensor
from keras_xent.ops.blockwise import What, row_terms
from keras_xent.ops.crossed import Crossed, Crossing, Mirrored
from keras_xent.ops.description import description, for_all
from keras_xent.ops.logits import Logits
from keras_xent.ops.reductions import OnlineSoftmax, PairwiseSigmoid
from keras_xent.ops.targets import SharedIds
from tests.processes import run
from tests.testing import (
    assert_all_close,
    gradients,
    normal,
    only_on,
    to_numpy,
)

ops = keras.ops
tensor = ops.convert_to_tensor
ROWS, COLUMNS, SIZE = 5, 7, 3
ROW_IDS = np.array([1, 2, 5, 1, 0], "int32")
COLUMN_IDS = np.array([1, 0, 2, 1, 1, 5, 2], "int32")
WEIGHT = tensor(normal(ROWS + COLUMNS, seed=8))
REDUCTIONS = {"softmax": OnlineSoftmax(), "sigmoid": PairwiseSigmoid()}
each_reduction = pytest.mark.parametrize("name", REDUCTIONS)
each_block_size = pytest.mark.parametrize("block_size", [2, 50])


@description
class Shifted(Logits):
    """product + shift, which is learned."""

    learned = ("shift",)

    shift: Tensor | None = for_all()

    def dense(self, products):
        return products + self.shift

    def back(self, gradient, products, logits, targets):
        return gradient, {"shift": ops.sum(gradient)}


def terms(left, right, shift, row_ids, column_ids, reduction, block_size):
    """Of a pass over the rows alone, which has tests of its own."""
    targets = SharedIds.of(tensor(row_ids), tensor(column_ids))
    what = What(Shifted(shift), targets, reduction)
    return row_terms(left, right, what, columns=0, block_size=block_size)


@each_reduction
@each_block_size
def test_each_direction_is_that_of_a_pass_of_its_own(name, block_size):
    reduction = REDUCTIONS[name]

    def crossed(left, right, shift):
        what = Crossed(
            Shifted(shift),
            SharedIds.of(tensor(ROW_IDS), tensor(COLUMN_IDS)),
            reduction,
            SharedIds.of(tensor(COLUMN_IDS), tensor(ROW_IDS)),
        )
        both = Crossing(left, right, what, 0, block_size, None)
        found = _keras.own_gradient(both.per_row)(*both.arguments)
        return ops.sum(found[:, 0] * WEIGHT)

    def one_by_one(left, right, shift):
        rows = terms(left, right, shift, ROW_IDS, COLUMN_IDS, reduction, None)
        columns = terms(
            right, left, shift, COLUMN_IDS, ROW_IDS, reduction, None
        )
        return ops.sum(ops.concatenate([rows[0], columns[0]]) * WEIGHT)

    arrays = normal(ROWS, SIZE), normal(COLUMNS, SIZE, seed=1), np.float32(0.5)
    results, value = gradients(crossed, *arrays)
    expected, truth = gradients(one_by_one, *arrays)
    assert_all_close([value], [truth])
    assert_all_close(results, expected, rtol=1e-4, atol=1e-5)


@each_reduction
@each_block_size
def test_a_matrix_with_itself_is_that_of_two_equal_ones(name, block_size):
    reduction = REDUCTIONS[name]

    def mirrored(x, shift):
        targets = SharedIds.of(tensor(COLUMN_IDS), tensor(COLUMN_IDS))
        what = Crossed(Shifted(shift), targets, reduction, targets)
        both = Mirrored(x, x, what, 0, block_size, None)
        function = _keras.own_gradient(both.per_row)
        return ops.sum(
            function(x, *both.arguments[2:])[:, 0] * WEIGHT[:COLUMNS]
        )

    def twice(x, shift):
        rows = terms(x, x, shift, COLUMN_IDS, COLUMN_IDS, reduction, None)
        return ops.sum(rows[0] * WEIGHT[:COLUMNS])

    arrays = normal(COLUMNS, SIZE), np.float32(0.5)
    results, value = gradients(mirrored, *arrays)
    expected, truth = gradients(twice, *arrays)
    assert_all_close([value], [truth])
    assert_all_close(results, expected, rtol=1e-4, atol=1e-5)


def test_columns_are_cut_out_of_both():
    targets = SharedIds.of(tensor(ROW_IDS), tensor(COLUMN_IDS))
    across = SharedIds.of(tensor(COLUMN_IDS), tensor(ROW_IDS))
    what = Crossed(Logits(), targets, OnlineSoftmax(), across).columns(2, 3)
    block = np.zeros((ROWS, 3), "float32")
    expected = np.equal.outer(ROW_IDS, COLUMN_IDS[2:5])
    hits = to_numpy(what.targets.hits(tensor(block)))
    np.testing.assert_array_equal(hits, expected)
    hits = to_numpy(what.across.hits(tensor(block.T.copy())))
    np.testing.assert_array_equal(hits, expected.T)


# Over several devices -------------------------------------------------------

SPREAD = """
import sys
import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from keras_xent import ops
from keras_xent.ops import crossed

LOSSES = {
    "sup_con": (ops.supervised_contrastive, 1, {}),
    "views": (ops.supervised_contrastive, 2, {}),
    "sigmoid": (ops.sigmoid_contrastive, 2, {}),
    "info_nce": (ops.info_nce, 3, {}),
    "one_sided": (ops.info_nce, 2, {"symmetric": False}),
}
kind, name = sys.argv[1:]
function, views, options = LOSSES[name]
rng = np.random.default_rng(0)
n, dim = 512, 32
x = rng.normal(size=(n, views, dim)).astype("float32")
ids = rng.integers(0, 200, n).astype("int32")
weight = rng.integers(0, 3, n).astype("float32")

def step():
    # A new one each time: JAX remembers what it has traced.
    def loss(x, ids, weight):
        losses = function(
            ids, x, sample_weight=weight, block_size=64, **options
        )
        return losses.sum(), losses
    return jax.value_and_grad(loss, has_aux=True)

def near(found, expected):
    (_, losses), slopes = found
    (_, right), right_slopes = expected
    np.testing.assert_allclose(losses, right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slopes, right_slopes, rtol=1e-4, atol=1e-5)

assert len(jax.devices()) == 8
alone = jax.jit(step())(x, ids, weight)
some = [each[:61] for each in (x, ids, weight)]
few = jax.jit(step())(*some)

names = ["batch", "model"]
if kind == "data":
    distribution = keras.distribution.DataParallel()
else:
    mesh = keras.distribution.DeviceMesh((4, 2), names)
    layout = keras.distribution.LayoutMap(mesh)
    distribution = keras.distribution.ModelParallel(layout_map=layout)
keras.distribution.set_distribution(distribution)
spread = NamedSharding(
    distribution.device_mesh.backend_mesh, PartitionSpec("batch")
)
given = [jax.device_put(each, spread) for each in (x, ids, weight)]

def compiled():
    jitted = jax.jit(step(), out_shardings=((None, spread), spread))
    return jitted.lower(*given).compile()

def gathers_in_loops(program):
    # Where each computation begins, and which are called from a loop.
    parts, name = {}, None
    for line in program.splitlines():
        words = line.split()
        if line[:1] not in (" ", "}", "") and line.endswith("{"):
            name = words[words[0] == "ENTRY"].lstrip("%")
            parts[name] = []
        elif name:
            parts[name].append(line)
    def called(lines, keys):
        for word in " ".join(lines).replace(",", " ").split():
            key, _, value = word.partition("=")
            if key in keys:
                yield value.strip("%{}")
    every = [line for lines in parts.values() for line in lines]
    todo, found = list(called(every, ["body"])), set()
    assert todo
    while todo:
        part = todo.pop()
        if part not in found:
            found.add(part)
            keys = ["body", "calls", "to_apply", "condition"]
            todo += called(parts[part], keys)
    lines = [line for part in found for line in parts[part]]
    return [line for line in lines if "all-gather" in line]

new = compiled()
near(new(*given), alone)
assert "all-gather" in new.as_text()
assert not gathers_in_loops(new.as_text())
near(jax.jit(step())(*some), few)
near(step()(*given), alone)

# As it would be without all this.
crossed.on_all_devices = crossed.over_devices = lambda x: x
crossed.spread = lambda: None
old = compiled()
near(old(*given), alone)
assert gathers_in_loops(old.as_text())
sizes = [each.memory_analysis().temp_size_in_bytes for each in (new, old)]
assert sizes[0] < sizes[1], sizes
"""


@pytest.mark.thorough
@only_on("jax", "only JAX takes tensors apart by itself")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("data", "sup_con"),
        ("data", "sigmoid"),
        ("data", "info_nce"),
        ("data", "one_sided"),
        ("model", "views"),
        ("model", "info_nce"),
    ],
)
def test_a_batch_over_devices_is_gathered_once(kind, name, tmp_path):
    run(SPREAD, tmp_path, kind, name)
