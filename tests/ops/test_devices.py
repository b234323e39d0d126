"""Blocks that are neither too large nor too narrow, and known from shapes."""

import math
import types

import keras
import numpy as np
import pytest
from keras import ops

from keras_xent.ops import blockwise, devices
from tests.testing import BACKEND, compiled, only_on, to_numpy


def shaped(*shape):
    """Something that is only asked for its shape."""
    return types.SimpleNamespace(shape=shape)


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("rows", [None, 0, 1, 2048, 8192, 10**8])
def test_a_block_of_columns_fits_the_device(rows, accelerator, monkeypatch):
    monkeypatch.setattr(devices, "on_accelerator", lambda x: accelerator)
    size = devices.column_block(shaped(rows, 3))
    largest = (
        devices.GPU_BLOCK_BYTES if accelerator else devices.CPU_BLOCK_BYTES
    )
    assert size >= devices.SMALLEST_BLOCK
    assert fills(largest, 4 * (rows or devices.USUAL_LENGTH), size) or (
        size == devices.SMALLEST_BLOCK
    )


def fills(room, each, count):
    """Whether there is room for so many, and not for one more."""
    return each * count <= room < each * (count + 1)


@pytest.fixture
def eight_by_four(monkeypatch):
    """A distribution of 8 parts of the batch, over 32 devices."""
    mesh = types.SimpleNamespace(shape=(4, 8), axis_names=["model", "data"])
    found = types.SimpleNamespace(device_mesh=mesh, batch_dim_name="data")
    monkeypatch.setattr(keras.distribution, "distribution", lambda: found)
    return found


def test_an_accelerator_has_a_block_for_its_own_rows(
    eight_by_four, monkeypatch
):
    monkeypatch.setattr(devices, "on_accelerator", lambda x: True)
    all_rows = devices.column_block(shaped(8 * 4096, 3), 4)
    long = devices.column_block(shaped(8 * 16, 4096), 4)
    almost = devices.column_block(shaped(8 * 4096 - 7, 3), 4)
    eight_by_four.batch_dim_name = None
    assert all_rows == almost == long == devices.column_block(shaped(4096, 3))


@pytest.mark.usefixtures("eight_by_four")
@pytest.mark.parametrize("shards", [1, 4, 7])
def test_devices_on_a_cpu_share_a_block(shards, monkeypatch):
    monkeypatch.setattr(devices, "on_accelerator", lambda x: False)
    whole = devices.column_block(shaped(2048, 3))
    more = shards * devices.column_block(shaped(2048, 3), shards) - whole
    assert 0 <= more < shards
    assert devices.column_block(shaped(10**9, 3), 10**6) == 1


def test_a_block_of_vectors_takes_no_more_than_one_of_logits(monkeypatch):
    monkeypatch.setattr(devices, "on_accelerator", lambda x: False)
    long = devices.column_block(shaped(3, 4096), 2)
    assert long == devices.column_block(shaped(4096, 3), 2)
    # With all classes on one device a block of many columns is the faster.
    assert devices.column_block(shaped(64, 4096)) > 2 * long


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("columns", [None, 0, 1000, 256_000, 10**9])
def test_a_block_of_rows_fits_the_device(columns, dtype):
    item = {"bfloat16": 2, "float32": 4, "float64": 8}[dtype]
    size = devices.row_block(1, columns, dtype)
    assert size >= 1
    row = item * (columns or devices.USUAL_LENGTH)
    assert size == 1 or fills(devices.ROW_BLOCK_BYTES, row, size)


@pytest.mark.parametrize("rows", [1, 16, 17, 8192, 10**6 + 1])
def test_there_are_few_blocks_of_rows(rows):
    """Each is a rounding of the kernel's gradient."""
    size = devices.row_block(rows, 10**6, "bfloat16")
    assert -(-rows // size) <= devices.MOST_ROW_BLOCKS
    fitting = devices.row_block(1, 10**6, "bfloat16")
    assert size == max(fitting, math.ceil(rows / devices.MOST_ROW_BLOCKS))


@pytest.mark.parametrize("rows", [1, 1024, 10**7])
def test_columns_are_reduced_a_few_at_a_time_without_a_compiler(rows):
    size = devices.column_chunk(rows)
    if BACKEND != "torch":
        assert size is None
        return
    assert size >= devices.SMALLEST_BLOCK
    narrow = size == devices.SMALLEST_BLOCK
    assert narrow or fills(devices.CHUNK_BYTES, 4 * rows, size)


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("shape", [(0, 3), (8, 0), (8, 3), (8, 9, 10**4)])
def test_rows_fit_the_cache_of_a_cpu(shape, accelerator, monkeypatch):
    monkeypatch.setattr(devices, "on_accelerator", lambda x: accelerator)
    size = devices.cached_rows(shaped(*shape))
    if accelerator or BACKEND != "torch":
        assert size is None
        return
    row = 4 * math.prod(shape[1:])
    assert size == 1 or fills(devices.CPU_CHUNK_BYTES, max(row, 1), size)


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("rows", [None, 0, 1, 8192, 10**8])
def test_a_block_of_pairs_fits_the_device(rows, accelerator, monkeypatch):
    monkeypatch.setattr(devices, "on_accelerator", lambda x: accelerator)
    size = devices.pair_block(shaped(rows, 2, 3), 2)
    largest, least = devices.CPU_PAIR_BYTES, devices.SMALLEST_PAIR_BLOCK
    if accelerator:
        largest, least = devices.GPU_BLOCK_BYTES, devices.SMALLEST_BLOCK
    assert size >= least
    # On a CPU of both views.
    row = 4 * (rows or devices.USUAL_LENGTH) * (1 if accelerator else 2)
    assert size == least or fills(largest, row, size)


def test_a_cpu_is_no_accelerator():
    if BACKEND == "torch":
        # Whatever else there is.
        x = ops.zeros(1).cpu()
        assert devices.slow_float16(x)
    else:
        x = ops.zeros(1)
        assert not devices.slow_float16(x)
    expected = False
    if BACKEND == "jax":
        import jax

        expected = jax.default_backend() != "cpu"
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        expected = bool(tf.config.list_logical_devices("GPU"))
    assert devices.on_accelerator(x) == expected


def test_numbers_are_on_the_host_where_a_cpu_runs_eagerly(monkeypatch):
    asked = []

    def f(x):
        asked.append((devices.is_on_host(x), devices.is_in_sight(x)))
        return x + 1

    monkeypatch.setattr(devices, "on_accelerator", lambda x: False)
    x = ops.ones(3)
    f(x)
    assert asked[-1] == (True, BACKEND == "tensorflow")
    compiled(f)(x)
    if BACKEND != "torch":  # Compiled or not, there it has its numbers.
        assert asked[-1] == (False, False)
    monkeypatch.setattr(devices, "on_accelerator", lambda x: True)
    f(x)
    assert asked[-1] == (False, False)


def test_what_is_not_spread_stays_as_it_is():
    x = ops.zeros((4, 2))
    assert devices.on_all_devices(x) is x
    assert devices.over_devices(x) is x


@only_on("jax", "only JAX takes tensors apart by itself")
@pytest.mark.parametrize("rows", [0, 3, 4])
def test_a_tensor_is_put_on_the_devices_that_there_are(rows):
    # On 8 of them: tests/ops/test_crossed.py.
    x = ops.reshape(ops.arange(2 * rows, dtype="float32"), (rows, 2))
    with keras.distribution.DataParallel().scope():
        for function in (devices.on_all_devices, devices.over_devices):
            np.testing.assert_array_equal(to_numpy(function(x)), to_numpy(x))


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("count", [1, 8])
def test_rows_that_may_be_spread_over_devices_stay_in_one_block(
    count, accelerator, monkeypatch
):
    """And a CPU takes all rows at once as well, for it is faster so."""
    found = [f"gpu:{i}" for i in range(count)]
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: found)
    monkeypatch.setattr(devices, "on_accelerator", lambda x: accelerator)
    spread = BACKEND == "jax" and count > 1
    found = blockwise.gradients_forwards(ops.zeros(1))
    assert found == (accelerator and not spread)
