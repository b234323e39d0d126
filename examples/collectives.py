"""What a training step sends between devices, read from the step itself.

Each function gives a list of `[kind, shape, times]`, the largest tensor first:
what one device hands over in a step, an all-gather's part or an all-reduce's
summand. On JAX it is what it gets: the shape of the result.
"""

import collections
import contextlib
import math
import re

XLA = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"
# The name of a loop's body, and how often it is run.
LOOP = re.compile(r'body=%([\w.\-]+).*?known_trip_count":\{"n":"(\d+)"')
TENSORFLOW = {
    "CollectiveGatherV2": "all-gather",
    "CollectiveReduceV2": "all-reduce",
}
TORCH = {"allgather_": "all-gather", "allreduce_": "all-reduce"}


def compiled_step(model, batch):
    """The training step of `fit` on JAX, compiled to be read."""
    import jax
    import keras

    parts = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([variable.value for variable in part] for part in parts)
    spread = keras.distribution.distribution()
    if spread is not None:
        batch = [
            jax.device_put(x, spread.get_data_layout(x.shape).backend_layout)
            for x in batch
        ]
    stays = None, jax.tree.map(lambda value: value.sharding, state)
    step = jax.jit(model.train_step, donate_argnums=0, out_shardings=stays)
    return step.lower(state, tuple(batch)).compile()


def of_program(text):
    """Of a step that JAX has compiled, from its text."""
    rounds = {body: int(times) for body, times in LOOP.findall(text)}
    found, times = collections.Counter(), 1
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            times = rounds.get(head[1], 1)
        if call := re.search(rf"= (.*?) ({XLA})(?:-start)?\(", line):
            for shape in re.findall(r"\w+\[([\d,]*)\]", call[1]):
                sizes = tuple(int(size) for size in shape.split(",") if size)
                found[call[2], sizes] += times
    return _listed(found)


def noted_graphs(model, tf):
    """A list that gets the graphs in which TensorFlow makes a model's step."""
    graphs, step = [], model.train_step

    def noting(data):
        graphs.append(tf.compat.v1.get_default_graph())
        return step(data)

    model.train_step = noting
    return graphs


def of_graph(graph):
    """Of a step's graph, by the first replica. `None`: no size is known."""
    found = collections.Counter(
        (TENSORFLOW[step.type], tuple(step.inputs[0].shape))
        for step in graph.get_operations()
        if step.type in TENSORFLOW and step.device.endswith("CPU:0")
    )
    return _listed(found)


@contextlib.contextmanager
def watched(torch):
    """A dict of what is done inside, once that is done, on PyTorch.

    "sent" has the collectives, "memory" the MB that are kept for the gradient.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    calls, kept, seen = collections.Counter(), {}, {}

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, call, kinds, arguments=(), options=None):
            name = call.overloadpacket.__name__
            if call.namespace == "c10d" and name in TORCH:
                # A gather's results come before what it is given.
                (sent,) = arguments[1 if name == "allgather_" else 0]
                calls[TORCH[name], tuple(sent.shape)] += 1
            return call(*arguments, **(options or {}))

    def keep(x):
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
    with hooks, Calls():
        yield seen
    seen["memory"] = sum(kept.values()) / 2**20
    seen["sent"] = _listed(calls)


def size(shape):
    """How many numbers a tensor has; an axis of unknown length counts once."""
    return math.prod(length or 1 for length in shape)


def _listed(counts):
    ordered = sorted(counts, key=lambda each: size(each[1]), reverse=True)
    return [[kind, list(shape), counts[kind, shape]] for kind, shape in ordered]
