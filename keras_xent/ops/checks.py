"""Checks of arguments, shapes and dtypes, in the words of the user.

Values are looked at only where they already lie in host memory (NumPy arrays
and Python numbers): a value on a device would have to be waited for.
"""

import math
import reprlib
from collections.abc import Mapping

import numpy as np
from keras import ops

from keras_xent.ops.dtypes import dtype_of
from keras_xent.ops.select import where

INT32_MAX = 2**31 - 1

# Beyond it a number becomes infinite where it meets float32.
FLOAT32_MAX = float(np.finfo("float32").max)

# Beyond it a whole number does not fit into a tensor.
INT64_MAX = 2**63 - 1

# The kinds of NumPy dtypes that are numbers: bool, int, uint, float.
NUMBER_KINDS = "biuf"


def tensor(name, x):
    """Returns `x` as a tensor; raises unless it is one of real numbers."""
    try:
        found = ops.convert_to_tensor(x)
        dtype = dtype_of(found)
    except Exception as error:
        # Each backend has its own, and none says which argument it is.
        raise _no_numbers(name, x) from error
    if dtype.startswith(("complex", "string")):
        raise _no_numbers(name, x)
    return found


def one_number(name, x):
    """Returns `x` as a tensor; raises unless that is a single number."""
    found = tensor(name, x)
    if len(found.shape) > 0:
        raise ValueError(
            f"`{name}` must be one number, or a tensor without axes. Received "
            f"shape {tuple(found.shape)}."
        )
    return found


def array(name, x):
    """Returns `x` with a shape; raises on lists that are no array of numbers.

    What has a shape comes back as it is.
    """
    if hasattr(x, "shape"):
        if isinstance(x, (np.ndarray, np.generic)) and _is_no_number(x):
            raise _no_numbers(name, x)
        return x
    found = as_numpy(x)
    if found is None or _is_no_number(found):
        raise _no_numbers(name, x)
    return found


def as_numpy(x):
    """`x` as a NumPy array, None where its lists are of several lengths."""
    try:
        return np.asarray(x)
    except ValueError:
        return None


def on_the_host(name, x):
    """Returns `x` as a NumPy array of any kind; raises unless it is one."""
    if ops.is_tensor(x):
        return ops.convert_to_numpy(x)
    found = as_numpy(x)
    if found is None:
        raise ValueError(
            f"`{name}` must be an array. Received lists of several lengths: "
            f"{reprlib.repr(x)}"
        )
    return found


def _is_no_number(array):
    # bfloat16 is of a kind of its own, "V".
    return array.dtype.kind in "cOSUmMT" or array.dtype.names is not None


def _no_numbers(name, x):
    kind = f" of dtype {x.dtype}" if hasattr(x, "dtype") else ""
    return ValueError(
        f"`{name}` must be real numbers: a tensor, an array, or lists of one "
        f"length. Received: {type(x).__name__}{kind}, {reprlib.repr(x)}"
    )


def is_single(x):
    """Whether `x` is one thing: no list, and no array with an axis."""
    found = as_numpy(x)
    return found is not None and found.ndim == 0


def flag(name, value):
    """Returns True or False; raises unless `value` is one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(
            f"`{name}` must be True or False. Received: {name}={value!r}"
        )
    return bool(value)


def is_real(value):
    """Whether `value` is one number that tensors can hold, NaN included."""
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, np.integer)):
        return abs(int(value)) <= INT64_MAX
    return isinstance(value, (float, np.floating))


def number(name, value, low, high=None, high_open=False):
    """Raises unless `value` is a number with `low <= value <= high`.

    What is beyond float32 is as good as infinite.
    """
    good = (
        is_real(value)
        and abs(value) <= FLOAT32_MAX
        and value >= low
        and (high is None or (value < high if high_open else value <= high))
    )
    if not good:
        end = ")" if high_open else "]"
        allowed = f" in [{low}, {high}{end}"
        if high is None:
            allowed = "" if low == -np.inf else f" >= {low}"
        raise ValueError(
            f"`{name}` must be a finite number{allowed}. Received: "
            f"{name}={value!r}"
        )


def positive(name, value):
    """Raises unless `value` is a number above 0, in float32 as well."""
    number(name, value, 0)
    if not np.float32(value) > 0:
        raise ValueError(
            f"`{name}` must be above 0. Received: {name}={value!r}"
        )


def vector(name, value, classes=None):
    """Returns a vector of finite numbers, none negative; raises on others.

    It is an array: a list as long as a vocabulary takes Keras half a second.
    """
    if value is None:
        return None
    array = as_numpy(value)
    good = array is not None and array.ndim == 1
    if good and array.size:
        good = array.dtype.kind in NUMBER_KINDS
        good = good and np.all((array >= 0) & (array <= FLOAT32_MAX))
    if not good:
        raise ValueError(
            f"`{name}` must be a vector of non-negative numbers, one per "
            f"class. Received: {name}={value!r}"
        )
    if classes is not None and len(array) != classes:
        raise ValueError(
            f"`{name}` must hold one number per class. The logits have "
            f"{classes} classes, `{name}` holds {len(array)} numbers."
        )
    return array


def class_weights(value, classes=None, name="class_weight"):
    """Returns the weights of classes, of all or, as `fit` has it, of some.

    Args:
        value: A vector of one non-negative number per class; a dict from class
            ids to numbers, in which what is missing weighs 1; or None.
        classes: How many classes there are. None if that is not known yet:
            then a dict stays one.
        name: The name of the argument.

    Returns:
        A float64 vector; a dict from ints to floats; or None.

    Raises:
        ValueError: if a number is negative or not finite, or a class id does
            not exist.
    """
    if not isinstance(value, Mapping):
        found = vector(name, value, classes)
        return None if found is None else found.astype("float64")
    # A configuration is JSON, whose keys are strings.
    ids = [
        int(key) if isinstance(key, str) and key.isdecimal() else key
        for key in value
    ]
    numbers = [isinstance(i, (int, np.integer)) and i >= 0 for i in ids]
    if not all(numbers):
        raise ValueError(
            f"The keys of `{name}` must be class ids, whole numbers from 0. "
            f"Received: {name}={value!r}"
        )
    vector(name, list(value.values()))
    weights = {
        int(i): float(weight)
        for i, weight in zip(ids, value.values(), strict=True)
    }
    if classes is None:
        return weights
    if weights and max(weights) >= classes:
        raise ValueError(
            f"`{name}` weighs class {max(weights)}. The logits have {classes} "
            f"classes, from 0 to {classes - 1}."
        )
    return np.array([weights.get(k, 1.0) for k in range(classes)])


def id_tuple(name, value):
    """Returns one class id, several or None as a tuple of ints."""
    if value is None:
        return ()
    ids = as_numpy(value)
    if ids is not None and ids.size == 0:
        return ()
    if ids is None or ids.ndim > 1 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` must be an integer class id or a list of them. "
            f"Received: {name}={value!r}"
        )
    if np.any(np.abs(ids.astype("float64")) > INT32_MAX):
        raise ValueError(
            f"`{name}` must fit into int32. Received: {name}={value!r}"
        )
    return tuple(int(i) for i in ids.reshape(-1))


def whole(name, value, low=None, high=None):
    """Raises unless `value` is a whole number with `low <= value <= high`.

    Without `high` it ends where int32 does.
    """
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if good and high is None and value > INT32_MAX:
        high = INT32_MAX
    good = good and (low is None or value >= low)
    good = good and (high is None or value <= high)
    if not good:
        allowed = "" if low is None else f" from {low}"
        allowed += "" if high is None else f" to {high}"
        raise ValueError(
            f"`{name}` must be a whole number{allowed}. Received: "
            f"{name}={value!r}"
        )


def row_range(rows, count):
    """Returns None or `(start, size)`, some of the rows; else raises.

    Args:
        rows: A pair. Tensors are not looked at.
        count: How many rows there are, None if that is not known.
    """
    if rows is None:
        return None
    good = isinstance(rows, (tuple, list)) and len(rows) == 2
    if good:
        rows = tuple(int(x) if isinstance(x, np.integer) else x for x in rows)
        known = [x for x in rows if type(x) is int]
        good = all(type(x) is int or ops.is_tensor(x) for x in rows)
        good = good and all(x >= 0 for x in known)
        if isinstance(count, int):
            good = good and sum(known) <= count
    if not good:
        among = f"the {count} rows" if isinstance(count, int) else "the rows"
        raise ValueError(
            "`rows` must be None for all, or (start, size), two whole numbers "
            f"from 0 on that stay within {among}. Received: rows={rows!r}"
        )
    return rows


def choice(name, value, allowed):
    """Raises unless `value` is one of a few names, or None if that is one."""
    if not isinstance(value, str | None) or value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )


def axis(value, rank, name="logits"):
    """Returns the axis counted from the front."""
    if rank == 0:
        raise ValueError(
            f"Expected an axis of classes or entries in the {name}. Received a "
            f"single number."
        )
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not -rank <= value < rank:
        raise ValueError(
            f"`axis` must be an integer from {-rank} to {rank - 1} for {name} "
            f"of rank {rank}. Received: axis={value!r}"
        )
    return int(value) % rank


def logits(x, name="logits", widen=True):
    """Returns `x` as a float tensor, of at least float32 if it is widened."""
    return floats(
        x,
        name,
        "logits are unnormalized log-probabilities, the output of a Dense "
        "layer without an activation. If these are class ids or predicted "
        "classes, pass the model's raw output instead.",
        widen,
    )


def floats(
    x,
    name,
    why="ranks and correlations of integers have no gradient.",
    widen=True,
):
    """Returns `x` as a float tensor, of at least float32 if it is widened."""
    x = tensor(name, x)
    dtype = dtype_of(x)
    if "float" not in dtype:
        raise ValueError(
            f"`{name}` must be floating point. Received dtype {dtype}: {why}"
        )
    if widen and dtype not in ("float32", "float64"):
        return ops.cast(x, "float32")
    # A variable of TensorFlow's own passes for a tensor, and is none: it has
    # no `ndim`, which Keras asks for. Nothing is copied.
    return x if hasattr(x, "ndim") else ops.copy(x)


def one_dtype(a, b):
    """Two results of `logits` in the wider of their two float types."""
    types = {dtype_of(x) for x in (a, b)}
    dtype = "float64" if "float64" in types else "float32"
    return ops.cast(a, dtype), ops.cast(b, dtype)


def classes(shape, axis):
    """Raises on a softmax over one class. Returns the number of classes."""
    count = shape[axis]
    if count is not None and count < 2:
        raise ValueError(
            f"The logits have shape {tuple(shape)}, that is {count} class(es) "
            f"along axis {axis}. The softmax of a single logit is always 1 and "
            f"its loss always 0, whatever the model learns. For a yes/no "
            f"answer use SigmoidCrossentropy with this one logit; for several "
            f"classes give the last layer one unit per class."
        )
    return count


def entries(shape, axis):
    """Raises on a softmax over one entry, which makes all rows equal."""
    if shape[axis] is not None and shape[axis] < 2:
        raise ValueError(
            f"The softmax of {shape[axis]} logit(s) is always the same: all "
            f"divergences would be 0. Received shape {tuple(shape)}; give the "
            f"embedding more than one entry along axis {axis}, or pass "
            f"from_logits=False for activations."
        )


def fits(shape, other):
    """Whether two static shapes can be equal; None fits every size."""
    return len(shape) == len(other) and all(
        a is None or b is None or a == b
        for a, b in zip(shape, other, strict=True)
    )


def same_shape(name, shape, other_name, other):
    """Raises unless the shapes are equal: nothing is ever broadcast."""
    if not fits(shape, other):
        raise ValueError(
            f"`{name}` and `{other_name}` must have the same shape: nothing "
            f"is broadcast here, because a (n,) beside a (n, 1) would silently "
            f"become (n, n). Received: {name} of shape {tuple(shape)}, "
            f"{other_name} of shape {tuple(other)}."
        )


def on_host(x):
    """Whether values can be looked at without reading device memory."""
    if isinstance(x, (list, tuple)):
        return all(on_host(value) for value in x)
    return x is None or isinstance(x, (np.ndarray, np.generic, int, float))


def host_array(x):
    """The values of `x` if they are numbers in host memory, else None."""
    if x is None or not on_host(x):
        return None
    array = as_numpy(x)
    if array is None or array.dtype.kind not in NUMBER_KINDS:
        return None
    return array


def zero_to_one(name, x, cure, ignored=()):
    """Raises on values in host memory that are no yes, no or share of it."""
    array = host_array(x)
    if array is None:
        return
    wrong = ~((array >= 0) & (array <= 1))
    for value in ignored:
        wrong &= differs(array, value)
    if np.any(wrong):
        raise ValueError(
            f"`{name}` must lie in [0, 1]: 1 is yes, 0 is no. Received values "
            f"outside, for example {array[wrong].flat[0]}. {cure}"
        )


def differs(x, value):
    """Where `x` is not a value, which may be NaN."""
    return x == x if math.isnan(value) else x != value


def sizes_agree(result, a, b):
    """`result`, or NaN where sizes unknown until the data flows differ.

    A reshape that would raise then is removed by TensorFlow's optimizer.
    """
    for axis, known in enumerate(zip(a.shape, b.shape, strict=True)):
        if None in known:
            same = ops.equal(ops.shape(a)[axis], ops.shape(b)[axis])
            result = where(same, result, np.nan)
    return result


def exact_ids(labels):
    """Raises on ids in host memory that lose digits on the way to a tensor."""
    int32_range(labels)
    array = host_array(labels)
    if array is None or array.dtype.kind != "f":
        return
    lost = (array.astype("float32") != array) & ~np.isnan(array)
    if np.any(lost):
        raise ValueError(
            f"The class id {array[lost].flat[0]} does not fit into float32 and "
            f"could collide with another. Number the classes from 0 on, as "
            f"integers."
        )


def int32_range(labels, name="Class ids"):
    """Raises on integers in host memory that JAX would fold into int32."""
    if isinstance(labels, (list, tuple, np.ndarray)):
        given = as_numpy(labels)
        if given is not None and given.dtype.kind in "USO":
            raise ValueError(
                f"Labels must be numbers. Received {given.dtype}. Number "
                "classes from 0, for example by np.unique(names, "
                "return_inverse=True)[1]."
            )
    array = host_array(labels)
    if array is None or array.size == 0 or array.dtype.kind not in "iu":
        return
    low, high = array.min(), array.max()
    if low < -INT32_MAX - 1 or high > INT32_MAX:
        raise ValueError(
            f"{name} must fit into int32, which ends at {INT32_MAX}. "
            f"Received integers from {low} to {high}. Number them from 0, for "
            f"example by np.unique(ids, return_inverse=True)[1]."
        )


def label_range(labels, number_of_classes, ignored=()):
    """Raises on labels in host memory that cannot be class ids."""
    exact_ids(labels)
    array = host_array(labels)
    if array is None or array.size == 0:
        return
    if array.dtype.kind == "f" and not np.all(array == np.floor(array)):
        raise ValueError(
            f"`labels` must be integer class ids. Received a value that is not "
            f"a whole number: {array[array != np.floor(array)].flat[0]}. If "
            f"these are probabilities, use SoftmaxCrossentropy."
        )
    if number_of_classes is None:
        return
    wrong = (array < 0) | (array >= number_of_classes)
    for ignore in ignored:
        wrong &= array != ignore
    if np.any(wrong):
        raise ValueError(
            f"`labels` must lie in [0, {number_of_classes}), the number of "
            f"classes of the logits. Received the label "
            f"{array[wrong].flat[0]}. Count classes from 0; to leave such rows "
            f"out, name the label in `ignore_class`."
        )


def threshold(value):
    """`value` as the float32 number that scores are compared with."""
    number = as_numpy(value)
    good = number is not None and not number.ndim and number.dtype.kind in "fiu"
    if not good or np.isnan(number):
        raise ValueError(
            "`threshold` is the number that scores are compared with. "
            f"Expected one number that is not NaN. Received: {value!r}"
        )
    return float(np.float32(number))
