"""What replicas of TensorFlow and processes of PyTorch have of each other.

Behind `_keras.replicas`: nothing else asks for it. The frameworks are given,
and not imported.
"""

import functools
import typing
import zlib

import keras


class Replicas:
    """Replicas, each with rows of its own.

    Attributes:
        rows: Where the rows of this one are among all, `(start, size)`.
    """

    # What is sent as another dtype, which holds all of its values: not all
    # collectives take these.
    sent_as: typing.ClassVar[dict[str, str]] = {
        **dict.fromkeys(["bool", "int8", "uint8", "int16", "uint16"], "int32"),
        "uint32": "int64",
    }

    def scaled(self, loss, is_sum):
        """A loss of the rows of all, as trainers take it.

        Args:
            loss: What Keras's reduction gives, a number.
            is_sum: Whether that has added up the rows and not divided, or had
                nothing to reduce.
        """
        return loss

    def gather(self, x):
        """The rows of all, in one order everywhere; None stays None.

        The gradient of a row is the sum of what all replicas have for it.
        """
        if x is None:
            return None
        x = keras.ops.convert_to_tensor(x)
        dtype = keras.backend.standardize_dtype(x.dtype)
        sent = self.sent_as.get(dtype)
        if sent is None:
            return self._gather(x)
        x = self._gather(keras.ops.cast(x, sent))
        return keras.ops.cast(x, dtype)


def _has_same_rows(given):
    """Whether there are as many rows of each, as far as this is known."""
    shapes = [tuple(x.shape) for x in given]
    return all(shapes) and len({shape[0] for shape in shapes} - {None}) <= 1


def _rows_differ(received):
    return ValueError(
        "Expected as many labels, weights and predictions on each replica, of "
        f"the same dtypes and axes on all. Received: {received}"
    )


class Mirrored(Replicas):
    """Those of a `tf.distribute.Strategy`."""

    sent_as: typing.ClassVar = {**Replicas.sent_as, "bfloat16": "float32"}

    def __init__(self, tf, context, given):
        self.tf, self.context = tf, context
        given = [tf.convert_to_tensor(x) for x in given if x is not None]
        if not _has_same_rows(given):
            raise _rows_differ([tuple(x.shape) for x in given])
        size = tf.shape(given[0])[0]
        sizes = context.all_gather(size[None], axis=0)
        before = tf.range(context.num_replicas_in_sync)
        before = before < context.replica_id_in_sync_group
        self.rows = tf.reduce_sum(tf.where(before, sizes, 0)), size

    def scaled(self, loss, is_sum):
        # Keras adds up the gradients of the replicas, and divides means, but
        # not sums, by how many there are.
        count = self.context.num_replicas_in_sync
        return loss / count if is_sum else loss

    def _gather(self, x):
        tf, context, (start, size) = self.tf, self.context, self.rows
        shape = [None, *x.shape[1:]]

        # The gradient of `all_gather` itself asks for the lengths once more,
        # and does not take what is sparse, as that of `tf.gather` is.
        @tf.custom_gradient
        def gather(x):
            def gradient(upstream):
                upstream = tf.convert_to_tensor(upstream)
                total = context.all_reduce("SUM", upstream)
                return total[start : start + size]

            return tf.ensure_shape(
                context.all_gather(x, axis=0), shape
            ), gradient

        return gather(x)


class Processes(Replicas):
    """Those of `torch.distributed`."""

    def __init__(self, torch, given):
        self.torch, distributed = torch, torch.distributed
        given = [
            None if x is None else keras.ops.convert_to_tensor(x) for x in given
        ]
        known = [x for x in given if x is not None]
        same = _has_same_rows(known)
        size = known[0].shape[0] if same else 0
        kinds = [(x.dtype, x.shape[1:] if same else x.shape) for x in known]
        kinds = str([x is None for x in given]) + str(kinds)
        # A number stands for them, so that a step sends little.
        here = [size, int(same), zlib.crc32(kinds.encode())]
        here = torch.tensor([here], device=known[0].device)
        parts = [
            torch.empty_like(here) for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, here)
        said = torch.cat(parts).tolist()
        if any(each[1:] != [1, said[0][2]] for each in said):
            received = [None] * len(said)
            here = [
                None if x is None else f"{x.dtype} {tuple(x.shape)}"
                for x in given
            ]
            distributed.all_gather_object(received, here)
            shown = [f"in process {i}: {x}" for i, x in enumerate(received)]
            raise _rows_differ("; ".join(shown))
        self.sizes = [each[0] for each in said]
        self.rows = sum(self.sizes[: distributed.get_rank()]), size

    def _gather(self, x):
        if not any(self.sizes):
            return x  # Gloo sends nothing else.
        return _gather_of(self.torch).apply(x, self.sizes, self.rows)


@functools.cache
def _gather_of(torch):
    """The function of `torch.autograd` that gathers from all processes.

    Its backward pass adds up what all have for all rows, and keeps what is for
    its own; the backward pass of that gathers. Not that of
    `torch.distributed.nn`, whose backward pass not all of the backends have,
    and which wants the same number of rows in all of them.
    """

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(context, x, sizes, rows):
            context.where = sizes, rows
            padded = x.new_zeros((max(sizes), *x.shape[1:]))
            padded[: x.shape[0]] = x
            parts = [torch.empty_like(padded) for _ in sizes]
            torch.distributed.all_gather(parts, padded)
            return torch.cat(
                [part[:n] for part, n in zip(parts, sizes, strict=True)]
            )

        @staticmethod
        def backward(context, upstream):
            return Sum.apply(upstream, *context.where), None, None

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(context, x, sizes, rows):
            context.where = sizes, rows
            start, size = rows
            total = x.contiguous().clone()
            torch.distributed.all_reduce(total)
            return total[start : start + size]

        @staticmethod
        def backward(context, upstream):
            return Gather.apply(upstream, *context.where), None, None

    return Gather
