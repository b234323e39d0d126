"""Values and gradients on any backend, with nothing of the model changed.

Keras has no function that differentiates. Its models have: each backend's
`train_step` does. So the model under examination becomes the only layer of
another one, the probe, whose optimizer keeps the gradients. Until Keras has
https://github.com/keras-team/keras/pull/23670, `keras.ops.grad`.
"""

import contextlib
import inspect
import random
import sys
import warnings

import keras
import numpy as np
from keras import ops

from keras_xent import _keras


class Stopped(Exception):  # noqa: N818, no error, as StopIteration is none
    """Raised inside a step that need not go on."""


class Recorder(keras.optimizers.Optimizer):
    """Keeps the gradients; then another optimizer may take a step by them.

    Args:
        scale: What the loss is multiplied by before it is differentiated, and
            the gradients divided by afterwards: float16 underflows else.
        follower: An optimizer, or None.
    """

    def __init__(self, scale=1.0, follower=None):
        super().__init__(learning_rate=0.0, name="recorder")
        self.scale, self.follower = scale, follower
        self.gradients = None

    def scale_loss(self, loss):
        return loss * self.scale

    def apply(self, grads, trainable_variables=None):
        if self._record(grads):
            self.follower.apply(self.gradients, trainable_variables)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        if self._record(grads):
            state = [variable.value for variable in self.follower.variables]
            # A loop of one round, because JAX compiles loops as a whole: Adam
            # on ResNet50, operation by operation, took 12.6 s, and so 3.9 s.
            trainable_variables, _ = ops.fori_loop(
                0,
                1,
                lambda _, now: self.follower.stateless_apply(
                    now[1], self.gradients, now[0]
                ),
                (trainable_variables, state),
            )
        return trainable_variables, optimizer_variables

    def _record(self, grads):
        """Keeps the gradients; whether a step is to follow."""
        self.gradients = list(grads)
        if self.scale != 1.0:  # JAX compiles a division for each shape.
            self.gradients = [
                None if grad is None else ops.divide(grad, self.scale)
                for grad in grads
            ]
        return self.follower is not None and any(
            grad is not None for grad in grads
        )


class Probe(keras.Model):
    """A model around another, trained by `loss(x, y, y_pred, weight)`."""

    def __init__(self, model, loss):
        super().__init__(name="probe")
        self.inner, self.loss_of = model, loss
        self.takes_training = takes(model.call, "training")
        self.built = True

    def call(self, x, training=None):
        if self.takes_training:
            return self.inner(x, training=training)
        return self.inner(x)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        with _keras.lent_losses(self.inner, self):
            loss = self.loss_of(x, y, y_pred, sample_weight)
        if not getattr(loss, "requires_grad", True):
            raise Stopped  # PyTorch alone raises where nothing is trainable.
        return loss

    def step(self, x, y, sample_weight, recorder):
        """The gradients of the loss by the trainable variables.

        A tensor or None for each, and all None if nothing depends on them.
        If the recorder has a follower, the variables have made its step.
        """
        variables = self.trainable_variables
        # The recorder scales the loss itself.
        self.compile(recorder, run_eagerly=True, auto_scale_loss=False)
        recorder.build(variables)
        if recorder.follower is not None:
            recorder.follower.build(variables)
        data = (x, y, sample_weight)
        with warnings.catch_warnings():
            # Variables without a gradient are a finding, not a warning.
            warnings.simplefilter("ignore")
            if keras.backend.backend() == "jax":
                self._jax_step(data, recorder)
            else:
                self.train_step(data)
        return recorder.gradients or [None] * len(variables)

    def _jax_step(self, data, recorder):
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            recorder.variables,
            self.metrics_variables,
        )
        state = tuple([v.value for v in group] for group in groups)
        _, (trained, *_) = self.train_step(state, data)
        for variable, value in zip(groups[0], trained, strict=True):
            variable.assign(value)


class Held(keras.layers.Layer):
    """A layer that returns its weights: tensors to differentiate by."""

    def __init__(self, values):
        super().__init__(name="held", dtype="float32")
        self.values = [
            self.add_weight(
                shape=value.shape,
                initializer=lambda shape, dtype, value=value: value,
                name=f"value_{i}",
            )
            for i, value in enumerate(values)
        ]
        self.built = True

    def call(self, x):
        # A gradient of our own on TensorFlow is to see tensors, not variables.
        return [ops.copy(ops.convert_to_tensor(v)) for v in self.values]


def gradients(function, values):
    """d function(values) / d values on any backend, each a tensor or None.

    Args:
        function: Of a list of tensors, to a scalar.
        values: The list, float32.
    """
    recorder = Recorder()
    probe = Probe(Held(values), lambda x, y, values, _: function(values))
    with contextlib.suppress(Stopped):
        nothing = ops.zeros((1,), dtype="float32")
        return probe.step(nothing, None, None, recorder)
    return [None] * len(values)


@contextlib.contextmanager
def unchanged(model):
    """Puts weights, state and seeds back as they were."""
    seeds = _keras.global_seed_generator()
    variables = [*model.variables, *model.metrics_variables]
    if seeds is not None:
        variables.append(seeds.state)
    values, draws = copies(variables), generator_state()
    # PyTorch keeps gradients beside the weights, where others may add to them.
    tensors = [variable.value for variable in variables]
    gradients = [getattr(tensor, "grad", None) for tensor in tensors]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        put_back(variables, values)
        set_generator_state(draws)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            if hasattr(tensor, "grad"):
                tensor.grad = gradient
        random.setstate(python)
        np.random.set_state(numpy)
        if seeds is None:
            _keras.set_global_seed_generator(None)


def generator_state():
    """The state of PyTorch's own generators, from which Keras's dropout draws.

    None on the other backends, where all state lies in Keras's variables.
    """
    if keras.backend.backend() != "torch":
        return None
    torch = sys.modules["torch"]  # Keras has imported it.
    on_gpu = torch.cuda.is_available()
    gpus = torch.cuda.get_rng_state_all() if on_gpu else []
    return torch.get_rng_state(), gpus


def set_generator_state(state):
    """Puts back what `generator_state` has returned."""
    if state is None:
        return
    torch = sys.modules["torch"]
    cpu, gpus = state
    torch.set_rng_state(cpu)
    if gpus:
        torch.cuda.set_rng_state_all(gpus)


def as_array(gradient):
    """A gradient as NumPy float32; TensorFlow's sparse ones are filled up."""
    return ops.convert_to_numpy(ops.cast(gradient, "float32"))


def copies(variables):
    return [ops.copy(ops.convert_to_tensor(v)) for v in variables]


def put_back(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def takes(function, name):
    """Whether a function has an argument of that name."""
    return name in inspect.signature(function).parameters
