"""Batches of a few classes with a few examples of each."""

import math
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_xent._types import TensorLike
from keras_xent._warnings import warn
from keras_xent.ops import checks


class ClassBalancedBatches(keras.utils.PyDataset):
    """Batches of P classes with K examples of each, for losses of pairs.

    A loss that compares the rows of a batch learns from matches, two examples
    of one class. Of C classes of equal size, a batch of B examples drawn at
    random has about one match for every 2 C / B examples: with many classes,
    hardly any. A batch of P classes with K examples each has

        P K (K - 1) / 2 matches and P (P - 1) K² / 2 other pairs

    Pass it to `fit` as `x`. The rules:

    - The classes of a batch are different ones. In an epoch each class is in as
      many batches as any other, or in one more or less, however large it is.
    - The examples of a class are dealt like cards: all of them once, in random
      order, before one comes again. Those in one batch are different ones.
    - A class with fewer than K examples gives all of them, and some again.
    - A class of one example has no match. It is left out, with a warning.
    - The rows of a batch stand class by class.
    - Each epoch is drawn anew. What is in batch i of epoch e follows from the
      seed, e and i alone: it is the same with several workers, in threads or
      processes, whatever the order. (`fit` shuffles the batches of an epoch
      once more, if it is not told `shuffle=False`.)

    Args:
        x: Arrays whose first axis is the examples: one, or a list, tuple or
            dict of them for several inputs. With a `loader`, a list of keys,
            one for each example, such as names of files.
        y: Class ids, `[n]` or `[n, 1]`. They come back as they are.
        classes_per_batch: P, 2 or more.
        examples_per_class: K, 2 or more.
        loader: `None`, or a callable from one key to one example: an array, or
            a list, tuple or dict of arrays. All examples have one shape: cut or
            pad them. For `use_multiprocessing` it must be a function that can
            be pickled, so no lambda.
        sample_weight: `None`, or a weight for each example, `[n]` or `[n, 1]`.
        batches_per_epoch: How many batches an epoch has. `None` is as many as
            hold the number of examples, so that with classes of one size each
            example is seen about once.
        seed: A whole number from 0. `None` draws one, by the seed that
            `keras.utils.set_random_seed` sets.
        workers: How many threads or processes make batches.
        use_multiprocessing: Whether the workers are processes, for a slow
            `loader` in Python.
        max_queue_size: How many batches wait at most.

    Attributes:
        epoch: The epoch that is drawn, from 0. `fit` raises it at the end of
            each epoch. Set it where a training goes on that was broken off,
            as `fit` is told by `initial_epoch`.

    Shapes:
        A batch is `(x, y)` or `(x, y, sample_weight)`, NumPy arrays with P * K
        rows each, always.

    Raises:
        ValueError: If `x`, `y` or the weights do not line up, class ids are no
            numbers, or fewer than P classes have two examples.

    Warns:
        UserWarning: If classes of one example are left out.

    References:
        Hermans, Beyer and Leibe, "In defense of the triplet loss for person
        re-identification", 2017: batches of P classes and K examples.

    Example:

    >>> import numpy as np
    >>> from keras_xent.data import ClassBalancedBatches
    >>> x, y = np.arange(12.0)[:, None], np.arange(12) % 3
    >>> batches = ClassBalancedBatches(x, y, 2, 3, seed=0)
    >>> len(batches)
    2
    >>> rows, ids = batches[0]
    >>> rows.shape, [int(n) for n in np.bincount(ids) if n]
    ((6, 1), [3, 3])
    """

    def __init__(
        self,
        x: Any,
        y: TensorLike,
        classes_per_batch: int,
        examples_per_class: int,
        *,
        loader: Callable[[Any], Any] | None = None,
        sample_weight: TensorLike | None = None,
        batches_per_epoch: int | None = None,
        seed: int | None = None,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        super().__init__(
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            max_queue_size=max_queue_size,
        )
        checks.whole("classes_per_batch", classes_per_batch, 2)
        checks.whole("examples_per_class", examples_per_class, 2)
        if loader is not None and not callable(loader):
            raise ValueError(
                "`loader` must be a callable from one key to one example, or "
                f"None. Received: loader={loader!r}"
            )
        if batches_per_epoch is not None:
            checks.whole("batches_per_epoch", batches_per_epoch, 1)
        if seed is None:
            seed = random.randrange(2**31)
        checks.whole("seed", seed, 0)
        self._classes, self._examples = classes_per_batch, examples_per_class
        self._loader, self._seed = loader, seed
        self._y = checks.on_the_host("y", y)
        # TensorFlow takes a list for one array.
        self._x = (
            list(x)
            if loader
            else tree.lists_to_tuples(tree.map_structure(_array, x))
        )
        self._weight = None
        if sample_weight is not None:
            weight = checks.array("sample_weight", sample_weight)
            self._weight = checks.on_the_host("sample_weight", weight)
        self._check_lengths()
        self._members = self._members_of_classes()
        if batches_per_epoch is None:
            count = sum(map(len, self._members))
            size = classes_per_batch * examples_per_class
            batches_per_epoch = math.ceil(count / size)
        self._batches = batches_per_epoch
        self.epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        checks.whole("epoch", epoch, 0)
        # Drawn at once: the processes that make batches start with it.
        self._rows, self._epoch = self._drawn(epoch), epoch
        self._begun = False

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = self._rows[index]
        columns = [self._x_of(rows), self._y[rows]]
        if self._weight is not None:
            columns.append(self._weight[rows])
        return tuple(columns)

    def on_epoch_begin(self) -> None:
        self._begun = True

    def on_epoch_end(self) -> None:
        # Keras calls it before the first epoch, too.
        if self._begun:
            self.epoch += 1

    def _x_of(self, rows):
        if self._loader is None:
            return tree.map_structure(lambda array: array[rows], self._x)
        examples = [self._loader(self._x[row]) for row in rows]
        stacked = tree.map_structure(lambda *each: np.stack(each), *examples)
        return tree.lists_to_tuples(stacked)

    def _drawn(self, epoch):
        """The examples of each batch of an epoch, `[batches, P * K]`."""
        generator = np.random.default_rng([self._seed, epoch])
        classes = _hands(
            len(self._members), self._classes, self._batches, generator
        )
        rows = np.empty((classes.size, self._examples), "int64")
        # Where each class is visited: the visits, sorted by class.
        visits = np.argsort(classes, axis=None, kind="stable")
        counts = np.bincount(classes.ravel(), minlength=len(self._members))
        ends = np.cumsum(counts)
        for members, end, count in zip(
            self._members, ends, counts, strict=True
        ):
            hands = _hands(len(members), self._examples, count, generator)
            rows[visits[end - count : end]] = members[hands]
        return rows.reshape(self._batches, -1)

    def _check_lengths(self):
        ids, n = self._y, len(self._y) if self._y.ndim else 0
        checks.int32_range(ids, "Class ids")
        if ids.ndim not in (1, 2) or ids.size != n or n == 0:
            raise ValueError(
                "`y` must hold one class id for each example, [n] or [n, 1]. "
                f"Received: shape {ids.shape}. For one-hot rows pass "
                "y.argmax(axis=1)."
            )
        if ids.dtype.kind not in "biuf" or np.any(ids != ids):
            raise ValueError(
                "`y` must hold class ids, numbers that are not NaN. Received: "
                f"dtype {ids.dtype}"
            )
        if self._loader:
            shapes = [(len(self._x),)]
        else:
            shapes = [array.shape for array in tree.flatten(self._x)]
        if any(shape[:1] != (n,) for shape in shapes):
            # A list of numbers has a shape for each of them.
            some = [str(shape) for shape in shapes[:4]]
            some += ["..."] if len(shapes) > 4 else []
            raise ValueError(
                "`x` must have one example for each class id. Received: "
                f"shapes {', '.join(some)} for {n} ids. A list is "
                "several inputs: make an array of one input, and give a list "
                "of keys a `loader`."
            )
        if self._weight is not None and self._weight.shape not in (
            (n,),
            (n, 1),
        ):
            raise ValueError(
                "`sample_weight` must hold one weight for each example, [n] or "
                f"[n, 1]. Received: shape {self._weight.shape} for {n} ids."
            )

    def _members_of_classes(self):
        """The examples of each class that has two."""
        ids = self._y.reshape(-1)
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order])) + 1
        members = np.split(order, starts)
        usable = [rows for rows in members if len(rows) > 1]
        if len(usable) < self._classes:
            raise ValueError(
                f"classes_per_batch={self._classes} takes as many classes with "
                f"two examples. Received: {len(usable)}, of {len(members)} "
                "classes. Lower `classes_per_batch`, or check the ids: each "
                "example of a class has the same."
            )
        if len(usable) < len(members):
            left = len(members) - len(usable)
            warn(
                f"{left} of {len(members)} classes have one example, which has "
                "no match. They are left out of the batches, with "
                f"{left / len(ids):.1%} of the examples. Give them a second "
                "example, or take them out to be rid of this warning."
            )
        return usable


def _hands(cards, size, count, generator):
    """Deals `count` hands of `size` cards, `[count, size]`.

    The cards of a hand are different ones, and each card is dealt as often as
    any other, or once more or less. Of fewer cards than fit into a hand, each
    hand has all, as often as any other or once more or less.
    """
    if cards <= size:
        packs = np.tile(np.arange(cards), (count, 1))
        packs = generator.permuted(packs, axis=1)
        return packs[:, np.arange(size) % cards]
    packs, dealt, held = [], 0, np.empty(0, "int64")
    while dealt < count * size:
        pack = generator.permutation(cards)
        # First what fills the hand that has begun, with none that it holds.
        lack = -len(held) % size
        if lack:
            first = np.flatnonzero(~np.isin(pack, held))[:lack]
            pack = np.concatenate([pack[first], np.delete(pack, first)])
        packs.append(pack)
        dealt += cards
        held = pack[cards - (dealt % size) :]
    return np.concatenate([held[:0], *packs])[: count * size].reshape(-1, size)


def _array(x):
    return checks.on_the_host("x", x)
