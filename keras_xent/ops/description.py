"""What a block-wise pass is told: frozen objects that may hold tensors.

Logits, targets and reductions are described once, for all rows and columns, and
used on a block of them. So a description says of each tensor that it holds what
the tensor has a number for, and can be cut down to some rows or columns:

```
@description
class Shifted(Logits):
    shift: Tensor = per_column()
```
"""

import dataclasses
import typing

from keras import ops

from keras_xent.ops import blocks

ROWS, COLUMNS, IDS, ALL = "rows", "columns", "ids", "all"


def per_row():
    """A field that is None or holds one number per row, `(rows,)`."""
    return dataclasses.field(default=None, metadata={"of": ROWS})


def per_column():
    """A field that is None or holds one number per column, `(columns,)`."""
    return dataclasses.field(default=None, metadata={"of": COLUMNS})


def column_id():
    """A field that is None or holds the number of a column per row.

    Cut down to a block it counts from the first column of the block, and may
    be none of it.
    """
    return dataclasses.field(default=None, metadata={"of": IDS})


def for_all():
    """A field that is None or holds a tensor that is the same for all."""
    return dataclasses.field(default=None, metadata={"of": ALL})


# The fields are no field specifiers to a type checker, which would believe that
# they have no default.
@typing.dataclass_transform(frozen_default=True, eq_default=False)
def description(cls):
    """A dataclass whose objects hold what they were made with.

    Frozen: what is traced never changes an object, it makes another one.
    Compared by identity: tensors cannot tell whether they are equal.
    """
    return dataclasses.dataclass(frozen=True, eq=False)(cls)


@description
class Description:
    """An object that may hold tensors, of all rows and columns or of some."""

    def tensors(self):
        """The tensors that there are, by the names of their fields."""
        found = {
            x.name: getattr(self, x.name)
            for x in dataclasses.fields(self)
            if "of" in x.metadata
        }
        return {name: x for name, x in found.items() if x is not None}

    def kind(self, name):
        """What the tensor in a field has numbers for."""
        fields = {x.name: x for x in dataclasses.fields(self)}
        return fields[name].metadata["of"]

    def holding(self, tensors):
        """The same with other tensors, by the names of their fields."""
        return dataclasses.replace(self, **tensors) if tensors else self

    def rows(self, start, size):
        """That of `size` rows from `start` on."""

        def cut(x, kind):
            return blocks.cut(x, 0, start, size) if kind in (ROWS, IDS) else x

        return self._each(cut)

    def columns(self, start, size):
        """That of `size` columns from `start` on."""

        def cut(x, kind):
            if kind == IDS:
                return x - start
            return blocks.cut(x, 0, start, size) if kind == COLUMNS else x

        return self._each(cut)

    def take(self, ids):
        """That of chosen columns, in any order and number."""

        def choose(x, kind):
            return ops.take(x, ids, axis=0) if kind == COLUMNS else x

        return self._each(choose)

    def _each(self, change):
        tensors = self.tensors()
        return self.holding(
            {name: change(x, self.kind(name)) for name, x in tensors.items()}
        )
