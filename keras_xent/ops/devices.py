"""How much is done at a time, and what is slow, by the device.

Known when a function is traced, from shapes and from the devices that there
are: no memory of a device is read.
"""

import math

import keras

from keras_xent import _keras

BACKEND = keras.backend.backend()

# Bytes of a block of logits on a CPU, 1024 columns for 2048 rows. Smaller
# blocks make poor use of the matrix product, larger ones take memory and save
# no time: python benchmarks/linear_crossentropy.py --kinds blocks.
CPU_BLOCK_BYTES = 2**23

# Bytes of a block of pairs on a CPU, 128 columns for 8192 rows.
CPU_PAIR_BYTES = 2**22
SMALLEST_PAIR_BLOCK = 64

# On a GPU, 8192 columns for 8192 rows. On an H100, [8192, 2304] × 256,000 in
# bfloat16 with four products, blocks of 256, 4096, 8192 and 16384 columns took
# 2697, 171, 134 and 123 ms on PyTorch, and the last three 70, 66 and 64 on JAX.
GPU_BLOCK_BYTES = 2**28

# A product with fewer columns wastes its time on the other factor.
SMALLEST_BLOCK = 256

# Stands for a number of rows or columns that is unknown when a block is chosen.
USUAL_LENGTH = 2048

# Bytes of the products of a block of rows, 1024 of them for 256,000 columns in
# bfloat16: on the same H100 1024 rows took 99 ms on PyTorch and 62 on JAX.
ROW_BLOCK_BYTES = 2**29

# The kernel's gradient is summed over the blocks of rows in its own dtype, in
# which each sum rounds. 16 of them keep the error in bfloat16 below 1 %.
MOST_ROW_BLOCKS = 16

# What PyTorch, operation by operation, takes to float32 at a time: a few times
# the cache of a GPU. XLA makes one pass of them all, and no copy.
CHUNK_BYTES = 2**26

# Bytes of the rows that PyTorch takes through a chain of operations at a time
# on a CPU: what one has written is in the cache for the next. A pass over
# [1024, 32768] costs 1.5 ms then, and 5 to 26 over all of it; with 2**23 bytes
# it is out of the cache again.
CPU_CHUNK_BYTES = 2**20


def column_block(left, shards=1):
    """The columns of a block for all rows of the left factor.

    Args:
        left: `(rows, d)`.
        shards: How many devices take a block of columns of their own at a time.
    """
    rows, most = _usual(left.shape[0]), CPU_BLOCK_BYTES
    if on_accelerator(left):
        # Each has a memory of its own, and its part of the rows.
        rows, most = -(-rows // _row_shards()), GPU_BLOCK_BYTES
    if shards > 1:
        # A device needs a block of its vectors, and of their gradient, too.
        rows = max(rows, left.shape[1])
    size = max(most // (4 * rows), SMALLEST_BLOCK)
    # The devices that a CPU plays share its memory.
    return size if on_accelerator(left) else -(-size // shards)


def pair_block(x, views):
    """The columns of a block of pairs of `(n, views, dim)` embeddings.

    Fewer on a CPU than of a classifier's logits: the block is all that is kept
    beside the embeddings, and several are needed at a time.
    """
    if on_accelerator(x):
        return max(GPU_BLOCK_BYTES // (4 * _usual(x.shape[0])), SMALLEST_BLOCK)
    rows = _usual(x.shape[0]) * views
    return max(CPU_PAIR_BYTES // (4 * rows), SMALLEST_PAIR_BLOCK)


def row_block(rows, columns, dtype):
    """The rows of a block with all columns, in the dtype of the products."""
    item = {"float64": 8, "float32": 4}.get(dtype, 2)
    size = max(ROW_BLOCK_BYTES // (item * _usual(columns)), 1)
    if isinstance(rows, int):
        size = max(size, -(-rows // MOST_ROW_BLOCKS))
    return size


def column_chunk(rows):
    """The columns of a block of rows that are reduced at a time; None: all."""
    if BACKEND != "torch":
        return None
    return max(CHUNK_BYTES // (4 * rows), SMALLEST_BLOCK)


def cached_rows(x):
    """The rows that PyTorch works on at a time; None: all.

    A few that fit the cache of a CPU, in float32. On a GPU starting an
    operation costs more than that would save, and compilers make one pass of
    them by themselves.

    Args:
        x: A tensor, whose first axis is that of the rows.
    """
    if BACKEND != "torch" or on_accelerator(x):
        return None
    row_bytes = 4 * math.prod(x.shape[1:])
    return max(CPU_CHUNK_BYTES // max(row_bytes, 1), 1)


def is_in_sight(x):
    """Whether what a tensor holds can be looked at sooner than worked around.

    So it is where TensorFlow runs one operation after the other on a CPU: each
    that sees to numbers that seldom occur takes as long as one of the loss.
    """
    return BACKEND == "tensorflow" and is_on_host(x)


def is_on_host(x):
    """Whether the numbers of a tensor are there, and in the host's memory.

    Not within a compiled function, nor on a GPU.
    """
    if BACKEND == "torch":
        return _keras.computes_now(x) and not on_accelerator(x)
    return not (_keras.is_traced(x) or on_accelerator(x))


def on_accelerator(x):
    """Whether a tensor lies on something else than a CPU.

    JAX and TensorFlow do not say of a tensor in a compiled function where it
    will be: with them it is whether there is such a thing.
    """
    if BACKEND == "torch":
        return x.device.type != "cpu"
    return not keras.distribution.list_devices()[0].lower().startswith("cpu")


def rows_may_be_spread():
    """Whether a batch may be spread over several devices, unseen by its shape.

    On JAX it may: reading a few rows at a time gathers them all, once a block.
    """
    return BACKEND == "jax" and len(keras.distribution.list_devices()) > 1


def spread():
    """How tensors are spread over devices, None where they are not.

    Only JAX takes tensors apart by itself, and only where there is a
    `keras.distribution`.
    """
    return keras.distribution.distribution() if BACKEND == "jax" else None


def on_all_devices(x):
    """A tensor that is whole on each device; itself where none is spread.

    A loop that reads some rows at a time of a tensor that is spread gathers all
    of them once a block: gather them before it.
    """
    return x if spread() is None else laid_out(x, [None] * len(x.shape))


def over_devices(x):
    """A tensor whose rows are spread as those of a batch are, if at all.

    For what is computed with one that is on all devices: else it might be
    computed there as a whole. Left as it is if it cannot be cut evenly.
    """
    distribution = spread()
    if distribution is None:
        return x
    axes, count = distribution.get_data_layout(x.shape).axes, x.shape[0]
    if not isinstance(count, int) or count % parts(axes[0]):
        return x
    return laid_out(x, axes)


def laid_out(x, axes):
    """A tensor spread over devices, where there is a distribution.

    Args:
        x: The tensor.
        axes: For each of its axes that of the mesh of devices, or None.
    """
    mesh = keras.distribution.distribution().device_mesh
    layout = keras.distribution.TensorLayout(axes, mesh)
    return keras.distribution.distribute_tensor(x, layout)


def parts(axis):
    """Over how many devices an axis of their mesh goes; 1 for None."""
    if axis is None:
        return 1
    mesh = keras.distribution.distribution().device_mesh
    return mesh.shape[mesh.axis_names.index(axis)]


def slow_float16(x):
    """Whether products in float16 are slower than in float32 there.

    On a CPU PyTorch takes 0.6 s for [2048, 256] × 1024, and 0.007 s in float32.
    """
    return BACKEND == "torch" and not on_accelerator(x)


def _row_shards():
    """Over how many devices Keras spreads a batch."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else parts(distribution.batch_dim_name)


def _usual(length):
    """The length of an axis, or one to reckon with."""
    # Symbolic on JAX where a functional model is made.
    return length if isinstance(length, int) and length > 0 else USUAL_LENGTH
