"""The one door to what Keras keeps private.

Nothing else in this package imports `keras.src` or touches an attribute of a
Keras object that begins with an underscore. Each entry says what it is for and
since which Keras it holds; tests/test_keras.py has a test of each. What a Keras
no longer has is an error that names its version.
"""

import contextlib
import contextvars
import importlib
import itertools
import re
import sys

import keras

from keras_xent._replicas import Mirrored, Processes

__all__ = [
    "MetricGroup",
    "alone",
    "announce",
    "autocast_dtype",
    "batches_of_call",
    "compiled_losses",
    "compiled_metrics",
    "computes_now",
    "copied_by_ddp",
    "enclosing_paths",
    "flat_layers",
    "full_precision",
    "get_mask",
    "get_tensor_attr",
    "global_seed_generator",
    "gradients",
    "in_symbolic_scope",
    "is_traced",
    "lent_losses",
    "loss_arguments",
    "may_want_gradient",
    "metric_parts",
    "model_sums_metrics",
    "moveaxis",
    "operations_before",
    "optimized_variables",
    "own_gradient",
    "processes",
    "records_backward_pass",
    "reduce_weighted_values",
    "release_variables",
    "replicas",
    "scale_loss_for_distribution",
    "set_direction",
    "set_directions",
    "set_global_seed_generator",
    "set_mask",
    "set_tensor_attr",
    "single_metrics",
    "times_written",
    "unannounce",
    "unlocked",
    "without_autocast",
]

BACKEND = keras.backend.backend()

_MISSING = (
    "keras_xent needs {0} of Keras, which Keras {1} does not have. It is known "
    "to work with Keras 3.14 to 3.16: install one of these, or a newer "
    "keras_xent."
)


def _of_keras(module, name):
    """What a module below `keras.src` defines."""
    try:
        return getattr(importlib.import_module(f"keras.src.{module}"), name)
    except (ImportError, AttributeError) as error:
        path = f"keras.src.{module}.{name}"
        raise ImportError(_MISSING.format(path, keras.__version__)) from error


def _attribute(thing, name):
    """A private attribute of a Keras object."""
    try:
        return getattr(thing, name)
    except AttributeError as error:
        path = f"{type(thing).__name__}.{name}"
        raise RuntimeError(_MISSING.format(path, keras.__version__)) from error


# Tensors -------------------------------------------------------------------

# The Keras mask of a tensor, which layers attach to what they return. As
# functions since Keras 3.6.
get_mask = _of_keras("backend.common.masking", "get_keras_mask")
set_mask = _of_keras("backend.common.masking", "set_keras_mask")

# Any attribute of a tensor, on backends whose tensors take none. Since 3.6.
get_tensor_attr = _of_keras(
    "backend.common.tensor_attributes", "get_tensor_attr"
)
set_tensor_attr = _of_keras(
    "backend.common.tensor_attributes", "set_tensor_attr"
)

# Whether Keras is only asking for shapes, with tensors of no values. Since 3.5.
in_symbolic_scope = _of_keras(
    "backend.common.symbolic_scope", "in_symbolic_scope"
)

# The reductions of `keras.losses.Loss`, for a loss that has other losses of the
# rows. Since 3.0; with "mean_with_sample_weight" since 3.7.
reduce_weighted_values = _of_keras("losses.loss", "reduce_weighted_values")

# A mean over its part of a batch, as each of TensorFlow's replicas has it.
# Since 3.6.
scale_loss_for_distribution = _of_keras(
    "losses.loss", "scale_loss_for_distribution"
)

_AutocastScope = _of_keras("backend.common.variables", "AutocastScope")


def without_autocast():
    """A scope in which a layer reads its variables in their own dtype.

    Since Keras 3.0. There is no public one: a layer's `autocast=False` is about
    its inputs as well.
    """
    return _AutocastScope(None)


def full_precision():
    """A scope that `torch.autocast` does not reach; nothing on other backends.

    The rule of the whole package: what it computes, it computes in the dtype
    of what it is given, float32 at least. Keras has no word for PyTorch's
    autocast, so PyTorch is asked, which Keras has imported by now.
    """
    if BACKEND == "torch":
        torch = sys.modules["torch"]
        devices = filter(torch.is_autocast_enabled, ("cuda", "cpu"))
        if devices := tuple(devices):
            return _without_autocast_on(devices)
    return contextlib.nullcontext()  # 1 µs; a scope takes 5.


@contextlib.contextmanager
def _without_autocast_on(devices):
    torch = sys.modules["torch"]
    with contextlib.ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def autocast_dtype(x):
    """What `torch.autocast` would multiply a tensor in; None where it is off.

    None on other backends, too. Keras has no word for it.
    """
    if BACKEND != "torch":
        return None
    torch, device = sys.modules["torch"], x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return keras.backend.standardize_dtype(torch.get_autocast_dtype(device))


_maps = contextvars.ContextVar("maps", default=False)


def records_backward_pass():
    """Whether PyTorch records what is computed now, to differentiate it.

    Within a gradient of our own it does not, unless that is to be
    differentiated again (`create_graph=True`). What is recorded must not be
    changed in place, and counts as recorded where `torch.vmap` maps it. False
    on other backends, which change nothing in place.
    """
    if BACKEND != "torch":
        return False
    return _maps.get() or sys.modules["torch"].is_grad_enabled()


def computes_now(x):
    """Whether a tensor of PyTorch has its numbers: nothing is traced or shaped.

    What is made beside such a tensor may be kept and used again. False on other
    backends, whose compiled steps keep what they need.
    """
    if BACKEND != "torch":
        return False
    torch = sys.modules["torch"]
    # Not those of another subclass, as the tensors of `torch.export` are.
    if type(x) not in (torch.Tensor, torch.nn.Parameter) or x.is_meta:
        return False
    return not torch.compiler.is_compiling()


def is_traced(x):
    """Whether TensorFlow or JAX only notes what is done with a tensor.

    As they do to compile a function, and JAX to differentiate it. PyTorch runs
    one operation after the other.
    """
    if BACKEND == "tensorflow":
        return not sys.modules["tensorflow"].executing_eagerly()
    if BACKEND == "jax":
        return isinstance(x, sys.modules["jax"].core.Tracer)
    return False


def moveaxis(x, source, destination):
    """`ops.moveaxis`, which `torch.vmap` knows of tuples only."""
    return keras.ops.moveaxis(x, (source,), (destination,))


def own_gradient(function, written_out=None):
    """`ops.custom_gradient`, out of reach of `torch.autocast`.

    Some transforms refuse gradients that are not the framework's own: those of
    `torch.func`, and forward mode on PyTorch and JAX. For them it is
    `written_out` or, without one, `function` differentiated as it is written,
    with all that this keeps in memory.
    """
    if written_out is None:

        def written_out(*arguments):
            return function(*arguments)[0]

    def forward(*arguments):
        with full_precision():
            value, gradient = function(*arguments)
        return value, _of_backward_pass(gradient)

    def call(*arguments):
        try:
            return keras.ops.custom_gradient(forward)(*arguments)
        except (RuntimeError, TypeError) as error:
            if not re.search("functorch|custom_vjp|jvp", str(error)):
                raise
            with full_precision():
                return written_out(*arguments)

    return call


def _of_backward_pass(gradient):
    """`gradient` where `torch.autocast` may be on again, and in `torch.vmap`.

    The latter maps the backward passes of a Jacobian, and refuses to write what
    it maps into what it does not.
    """
    if BACKEND != "torch":
        return gradient

    def call(*arguments, **upstream):
        with full_precision():
            try:
                return gradient(*arguments, **upstream)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
            token = _maps.set(True)
            try:
                return gradient(*arguments, **upstream)
            finally:
                _maps.reset(token)

    return call


def gradients(function, arguments, upstream):
    """The gradients of a function on PyTorch, to be differentiated in turn.

    For the backward pass of a gradient of our own that is recorded.

    Args:
        function: Of the arguments, differentiated as it is written.
        arguments: Tensors.
        upstream: The gradient that its value has.

    Returns:
        A tuple of the gradient of each argument, None where none is wanted.
    """
    torch = sys.modules["torch"]
    again = torch.is_grad_enabled()
    wanted = [x for x in arguments if x.requires_grad]
    with torch.enable_grad():
        value = function(*arguments)
    found = iter(
        torch.autograd.grad(value, wanted, upstream, create_graph=again)
    )
    return tuple(next(found) if x.requires_grad else None for x in arguments)


def may_want_gradient(tensor):
    """Whether a gradient to a tensor may be asked for.

    PyTorch knows, and is spared what nobody asks for. Others find out
    themselves.
    """
    return BACKEND != "torch" or tensor.requires_grad


# Replicas ------------------------------------------------------------------
#
# TensorFlow's replicas and PyTorch's processes each see rows of their own, and
# Keras 3.16 has no word for the rows of the others. The frameworks have, which
# Keras has imported by now. On JAX there is one replica: a step sees the whole
# batch, however many devices hold it.


_alone = contextvars.ContextVar("alone", default=False)


def processes(group=None):
    """`torch.distributed` where several processes are at work, else None.

    Args:
        group: A process group; None for all processes.

    Returns:
        None on other backends, where there is one process, and in a process
        that is not in the group.
    """
    if BACKEND != "torch":
        return None
    distributed = sys.modules["torch"].distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed if distributed.get_world_size(group) > 1 else None


def replicas(*given):
    """The replicas that run this step, or None if there is but one.

    None too where Keras only asks for shapes, and where one is `alone`. All
    replicas must come here, and then `gather` the same tensors in the same
    order: each waits for the others.

    Args:
        *given: What is to be gathered, each with the rows that this one has,
            maybe none; or None.

    Raises:
        ValueError: If there are not as many rows of each. In every process of
            PyTorch alike, also if dtypes or other axes differ between them.
    """
    if BACKEND == "jax" or _alone.get() or in_symbolic_scope():
        return None
    if BACKEND == "torch":
        several = processes() is not None
        return Processes(sys.modules["torch"], given) if several else None
    tf = sys.modules["tensorflow"]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return Mirrored(tf, context, given)


@contextlib.contextmanager
def alone():
    """A scope in which this process has no replicas beside it to wait for."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


# Layers --------------------------------------------------------------------

_global_attribute = _of_keras(
    "backend.common.global_state", "get_global_attribute"
)


def enclosing_paths():
    """The paths of the layers that are being called, the outermost first.

    They are what a `keras.distribution.LayoutMap` is asked for. Since Keras
    3.0.
    """
    paths, path = [], []
    for scope in _global_attribute("name_scope_stack") or []:
        parent = _attribute(scope, "override_parent")
        if parent is not None:
            path = parent.split("/") if parent else []
        path = [*path, scope.name]
        paths.append("/".join(path))
    return paths


def flat_layers(layer):
    """A layer with its layers and theirs, at any depth.

    Since Keras 3.0. `model.layers` is public, but not the layers of a layer.
    """
    return list(_attribute(layer, "_flatten_layers")())


def operations_before(tensor):
    """The operations of a functional model on the way to a symbolic tensor.

    None on the way to other tensors. Since Keras 3.0. `keras.Function` has them
    in public, but wants to know the inputs, and `keras.utils.get_source_inputs`
    finds those in a time that doubles with each residual connection.
    """
    waiting, found = [tensor], {}
    while waiting:
        history = getattr(waiting.pop(), "_keras_history", None)
        if history is None or history[:2] in found:
            continue
        operation, node = history[:2]
        found[operation, node] = operation
        inbound = _attribute(operation, "_inbound_nodes")[node]
        waiting.extend(inbound.input_tensors)
    return list(dict.fromkeys(found.values()))


@contextlib.contextmanager
def unlocked(layer):
    """A scope in which a layer that is built takes another layer.

    Since Keras 3.1. Keras itself does so to quantize a layer and for LoRA.
    """
    tracker = _attribute(layer, "_tracker")
    was_locked = tracker.locked
    tracker.unlock()
    try:
        yield
    finally:
        if was_locked:
            tracker.lock()


# Training ------------------------------------------------------------------

_CompileLoss = _of_keras("trainers.compile_utils", "CompileLoss")
_CompileMetrics = _of_keras("trainers.compile_utils", "CompileMetrics")
MetricsList = _of_keras("trainers.compile_utils", "MetricsList")


class _Losses:
    """The losses of a compiled model, resolved anew for its outputs.

    Attributes:
        given: The losses as `compile` has taken them.
    """

    def __init__(self, compiled, names):
        self.given = _attribute(compiled, "_user_loss")
        weights = _attribute(compiled, "_user_loss_weights")
        self._compiled = _CompileLoss(self.given, weights, output_names=names)

    def resolve(self, y_true, y_pred):
        """The path to its output, the loss and its name, of each loss."""
        self._compiled.build(y_true, y_pred)
        losses = _attribute(self._compiled, "_flat_losses")
        return [(path, loss, name) for path, loss, _, name in losses]

    def __call__(self, y_true, y_pred, sample_weight):
        return self._compiled(y_true, y_pred, sample_weight)


def compiled_losses(model):
    """What a model was compiled with, None if with no loss.

    The model's own losses stay as they are: resolving them builds them for the
    labels of then. Since Keras 3.7. `get_compile_config` is public, but gives
    copies, and none of a function that is not registered.
    """
    compiled = _attribute(model, "_compile_loss")
    if compiled is None:
        return None
    return _Losses(compiled, getattr(model, "output_names", None))


def compiled_metrics(model, y_true, y_pred):
    """The metrics of each output, a list for each, weighted or not.

    Resolved anew, as in `compiled_losses`. Since Keras 3.0.
    """
    compiled = _attribute(model, "_compile_metrics")
    found = [[] for _ in keras.tree.flatten(y_pred)]
    if compiled is None:
        return found
    resolved = _CompileMetrics(
        _attribute(compiled, "_user_metrics"),
        _attribute(compiled, "_user_weighted_metrics"),
        output_names=getattr(model, "output_names", None),
    )
    resolved.build(y_true, y_pred)
    for name in ("_flat_metrics", "_flat_weighted_metrics"):
        groups = _attribute(resolved, name)
        for metrics, group in zip(found, groups, strict=True):
            metrics.extend(group.metrics if group else ())
    return found


# Since Keras 3.16 the iterator of JAX's `train_function` stacks the batches of
# a call (`steps_per_execution`), and ends with a list of those that are left.
_STACKS = BACKEND == "jax" and hasattr(
    importlib.import_module(
        "keras.src.trainers.data_adapters.data_adapter_utils"
    ),
    "PartialBatchList",
)


def batches_of_call(source, steps):
    """What a `train_function` takes from its iterator in one call.

    Args:
        source: The iterator.
        steps: The `steps_per_execution` of the model.

    Returns:
        A list of what it takes, and the list of the batches in it.
    """
    if steps == 1 or not _STACKS:
        batches = list(itertools.islice(source, steps))
        return batches, batches
    taken = list(itertools.islice(source, 1))
    if not taken or isinstance(taken[0], list):
        return taken, [batch for each in taken for batch in each]
    count = len(keras.tree.flatten(taken[0])[0])
    return taken, [
        keras.tree.map_structure(
            lambda leaf, i=i: None if leaf is None else leaf[i], taken[0]
        )
        for i in range(count)
    ]


def loss_arguments(loss):
    """What a loss of Keras's hands to its function.

    Since Keras 3.0. Its configuration is public, but until Keras 3.16 that of
    the sparse crossentropy leaves out the axis:
    https://github.com/keras-team/keras/pull/23286
    """
    return _attribute(loss, "_fn_kwargs")


@contextlib.contextmanager
def lent_losses(inner, outer):
    """A scope in which a model has what `add_loss` has collected in another.

    JAX's step hands it to the model that is trained, as an override of its
    `losses`. Since Keras 3.2. On the other backends there is nothing to lend.
    """
    own = _attribute(inner, "_losses_override")
    inner._losses_override = _attribute(outer, "_losses_override")
    try:
        yield
    finally:
        inner._losses_override = own


def release_variables(model):
    """Lets go of the weights that a model on JAX does not need in training.

    Keras does it at the start of `fit`. Since Keras 3.0. Where there is no such
    thing, the training takes more memory, and is no other.
    """
    release = getattr(model, "_purge_model_variables", None)
    if release is not None:
        release(True, True, True, True)


def optimized_variables(optimizer):
    """The variables that an optimizer was built for, in its order.

    Since Keras 3.0. The model's may be others by now: `trainable` changes them.
    """
    return _attribute(optimizer, "_trainable_variables")


# The seeds of random functions without a seed of their own. Since Keras 3.13.
# `keras.utils.set_random_seed` is public, and starts them anew.

_global_state = importlib.import_module("keras.src.backend.common.global_state")
_SEEDS = _of_keras("random.seed_generator", "GLOBAL_SEED_GENERATOR")


def global_seed_generator():
    """The `SeedGenerator` of all of them, None before the first."""
    return _global_state.get_global_attribute(_SEEDS)


def set_global_seed_generator(generator):
    """Puts another in its place, or None."""
    _global_state.set_global_attribute(_SEEDS, generator)


# Which way is better -------------------------------------------------------
#
# `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` in `mode="auto"`
# take the metric whose name is the one that they monitor, without "val_", and
# read its `_direction`, "up" or "down". There is no public word for it in
# Keras 3.15; without it they ask the user for a mode.


def set_direction(metric, direction):
    """Tells such callbacks whether "up" or "down" is better."""
    metric._direction = direction


def set_directions(metric, directions):
    """Tells it for each key of a metric whose result is a dict.

    Args:
        metric: A `keras.metrics.Metric`.
        directions: "up" or "down" for each key, as it is written into logs.
    """
    metric.name = _Names(metric.name, directions)
    metric._direction = _LastAsked(metric.name)


class _Names(str):
    """A name that is equal to each of several keys, and remembers to which.

    Keras compares the name that it looks for with that of the metric, and then
    asks the metric for its direction.
    """

    def __new__(cls, name, directions):
        self = super().__new__(cls, name)
        self.directions, self.asked = directions, None
        return self

    def __eq__(self, other):
        if other in self.directions:
            self.asked = other
            return True
        return str.__eq__(self, other)

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__

    def __reduce__(self):
        return str, (str(self),)


class _LastAsked:
    """The direction of the key that a name was last found equal to."""

    def __init__(self, names):
        self.names = names

    def __eq__(self, other):
        return self.names.directions.get(self.names.asked) == other

    __hash__ = None  # type: ignore[assignment]


class MetricGroup(MetricsList):  # type: ignore[valid-type, misc]
    """Metrics of a layer, where such callbacks find their directions.

    They look into lists of this class alone, not at what layers track.
    """

    def result(self):
        return {metric.name: metric.result() for metric in self.metrics}


class _Notice(MetricsList):  # type: ignore[valid-type, misc]
    """The names and the directions of logs that no metric writes."""

    def result(self):
        return {}


def announce(model, directions):
    """Tells such callbacks about logs that a callback of ours writes.

    Args:
        model: The model that is trained.
        directions: "up" or "down" for the name of each, without "val_".

    Returns:
        What `unannounce` takes.
    """
    metrics = [keras.metrics.Metric(name=name) for name in directions]
    for metric in metrics:
        set_direction(metric, directions[metric.name])
    notice = _Notice(metrics)
    # Not as an attribute: a model that is built takes no more of them.
    model._metrics.append(notice)
    return notice


def unannounce(model, notice):
    """Takes back what was announced."""
    if notice in model._metrics:
        model._metrics.remove(notice)


# Metrics and copies in processes of PyTorch --------------------------------


def copied_by_ddp(tensor):
    """Whether `DistributedDataParallel` has returned a copy of a tensor.

    With `find_unused_parameters=True` or `static_graph=True` it copies what its
    module returns, if that has a gradient. Such a copy has a node of its own in
    the graph of the backward pass. False on other backends.
    """
    node = getattr(tensor, "grad_fn", None)
    return BACKEND == "torch" and "_DDPSink" in type(node).__name__


def times_written(variable):
    """How often PyTorch has written into a variable, to see whether it was."""
    return variable.value._version


def model_sums_metrics():
    """Whether models add up their metrics over processes of PyTorch themselves.

    Later than Keras 3.16, in `get_metrics_result`, and so in the logs of `fit`
    and `evaluate`: https://github.com/keras-team/keras/pull/23316
    """
    method = keras.Model.get_metrics_result
    return method.__module__.endswith("backend.torch.trainer")


def single_metrics(metric):
    """The metrics in what a model keeps its metrics in; else the metric alone.

    Since Keras 3.0.
    """
    if isinstance(metric, (_CompileMetrics, MetricsList)):
        return list(metric.metrics)
    return [metric]


def metric_parts(metric):
    """The variables of a metric that are its own, and the metrics inside of it.

    Since Keras 3.0. `metric.variables` is public, but has those of all.
    """
    return (
        list(_attribute(metric, "_variables")),
        list(_attribute(metric, "_metrics")),
    )
