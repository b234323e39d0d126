"""What makes a function of tensors one of the public operations."""

import contextlib
import functools
import importlib
import inspect
import typing

import keras

from keras_xent import _keras
from keras_xent.ops import checks

Function = typing.TypeVar("Function", bound=typing.Callable)


def public_op(function: Function) -> Function:
    """Decorates a public operation, so that all of them keep two promises.

    Given a `KerasTensor`, as in a functional model, it becomes a step of that
    model, with the shape and dtype of the result, as `keras.ops` do. And it is
    computed in the dtype of what it is given, float32 at least, whatever
    `torch.autocast` says.
    """
    return _public(function, _keras.full_precision)


def product_op(function: Function) -> Function:
    """As `public_op`, for one that multiplies large factors.

    It asks for itself in which dtype `torch.autocast` would do so, and keeps
    all else in float32 at least.
    """
    return _public(function, contextlib.nullcontext)


def _public(function, scope):
    parameters = inspect.signature(function).parameters.values()
    flags = [x.name for x in parameters if x.annotation is bool]

    @functools.wraps(function)
    def op(*args, **kwargs):
        for name in flags:
            if name in kwargs:
                checks.flag(name, kwargs[name])
        if _any_symbolic(args) or _any_symbolic(kwargs):
            return Step(function.__name__)(*args, **kwargs)
        with scope():
            return function(*args, **kwargs)

    return typing.cast(typing.Any, op)


@keras.saving.register_keras_serializable(package="keras_xent")
class Step(keras.Operation):
    """A public operation as a step of a functional model.

    Args:
        function: The name of the operation in `keras_xent.ops`.
        name: The name of the step.
    """

    def __init__(self, function, name=None):
        super().__init__(name=name)
        self.function = function

    def call(self, *args, **kwargs):
        # By name, and now: this module stands below `keras_xent.ops`.
        ops = importlib.import_module("keras_xent.ops")
        return getattr(ops, self.function)(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        # Only what is symbolic is traced: on JAX, Keras would trace lists of
        # numbers too, and an operation may need to know them.
        nest = (args, kwargs)
        leaves = keras.tree.flatten(nest)
        symbolic = [i for i, x in enumerate(leaves) if _any_symbolic(x)]

        def call(*tensors):
            given = dict(zip(symbolic, tensors, strict=True))
            filled = [given.get(i, x) for i, x in enumerate(leaves)]
            args, kwargs = keras.tree.pack_sequence_as(nest, filled)
            return self.call(*args, **kwargs)

        traced = keras.Operation()
        traced.call = call
        return traced.compute_output_spec(*(leaves[i] for i in symbolic))

    def get_config(self):
        return {**super().get_config(), "function": self.function}


def _any_symbolic(nest):
    # By hand: `keras.tree` takes longer than some of the operations.
    if isinstance(nest, dict):
        nest = nest.values()
    elif not isinstance(nest, (list, tuple)):
        return isinstance(nest, keras.KerasTensor)
    return any(map(_any_symbolic, nest))
