"""Blocks that are neither too large nor too narrow, and known from shapes."""

import types

import keras
import pytest
from keras import ops

from keras_xent.ops import blockwise, devices
from tests.testing import BACKEND


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
    narrow = size == devices.SMALLEST_BLOCK
    assert narrow or 4 * (rows or 1) * size <= largest


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("columns", [None, 0, 1000, 256_000, 10**9])
def test_a_block_of_rows_fits_the_device(columns, dtype):
    item = {"bfloat16": 2, "float32": 4, "float64": 8}[dtype]
    size = devices.row_block(1, columns, dtype)
    assert size >= 1
    one_row = size == 1
    assert one_row or item * size * (columns or 1) <= devices.ROW_BLOCK_BYTES


@pytest.mark.parametrize("rows", [1, 16, 17, 8192, 10**6 + 1])
def test_there_are_few_blocks_of_rows(rows):
    """Each is a rounding of the kernel's gradient."""
    size = devices.row_block(rows, 10**6, "bfloat16")
    assert -(-rows // size) <= devices.MOST_ROW_BLOCKS


@pytest.mark.parametrize("rows", [1, 1024, 10**7])
def test_columns_are_reduced_a_few_at_a_time_without_a_compiler(rows):
    size = devices.column_chunk(rows)
    if BACKEND != "torch":
        assert size is None
        return
    assert size >= devices.SMALLEST_BLOCK
    narrow = size == devices.SMALLEST_BLOCK
    assert narrow or 4 * rows * size <= devices.CHUNK_BYTES


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("rows", [None, 0, 1, 8192, 10**8])
def test_a_block_of_pairs_fits_the_device(rows, accelerator, monkeypatch):
    monkeypatch.setattr(devices, "on_accelerator", lambda x: accelerator)
    size = devices.pair_block(shaped(rows, 2, 3), 2)
    largest, least = devices.CPU_PAIR_BYTES, devices.SMALLEST_PAIR_BLOCK
    if accelerator:
        largest, least = devices.GPU_BLOCK_BYTES, devices.SMALLEST_BLOCK
    assert size >= least
    assert size == least or 4 * (rows or 1) * size <= largest


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


@pytest.mark.parametrize("count", [1, 8])
def test_rows_that_may_be_spread_over_devices_stay_in_one_block(
    count, monkeypatch
):
    found = [f"gpu:{i}" for i in range(count)]
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: found)
    monkeypatch.setattr(devices, "on_accelerator", lambda x: True)
    spread = BACKEND == "jax" and count > 1
    assert blockwise.gradients_forwards(ops.zeros(1)) != spread
