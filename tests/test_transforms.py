"""What the transforms of each framework make of every operation."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.contract import OPS
from tests.testing import gradient, normal, only_on, to_numpy

DIFFERENTIABLE = [op for op in OPS if op.gradient]
# Without the logits: on PyTorch, `create_graph=True` would keep them all.
DIFFERENTIATED_ONCE = (
    ops.linear_softmax_crossentropy,
    ops.info_nce,
    ops.sigmoid_contrastive,
    ops.supervised_contrastive,
)
each_op = pytest.mark.parametrize("op", DIFFERENTIABLE, ids=str)


def of_last(op):
    """The operation as a function of its last tensor, and two of these."""
    *rest, last = op.arrays(4)
    two = np.stack([last, last * (1 + 0.1 * np.abs(normal(*last.shape)))])
    return lambda x: op(*rest, x), two.astype("float32")


def twice_differentiable(op):
    """With a constant where one would follow x, as a constant to gradients."""
    if op.function in (ops.soft_rank, ops.spearman_loss):
        return dataclasses.replace(op, kwargs={"temperature": 1.0})
    return op


def uneven(values):
    """A sum with weights: that of all ranks, say, is constant."""
    weights = np.arange(1.0, 1 + np.prod(values.shape)).reshape(values.shape)
    weights = keras.ops.convert_to_tensor(weights, values.dtype)
    return keras.ops.sum(values * weights)


def close(result, truth):
    np.testing.assert_allclose(to_numpy(result), truth, rtol=1e-4, atol=1e-5)


def one_by_one(function, two):
    """Values and gradients of each of the two, one after the other."""
    pairs = [gradient(function, x) for x in two]
    gradients, values = zip(*pairs, strict=True)
    return np.stack(values), np.stack(gradients)


@each_op
@only_on("torch", "PyTorch's transforms")
def test_vmap_and_grad_of_torch(op):
    import torch

    function, two = of_last(op)
    values, gradients = one_by_one(function, two)
    tensors = torch.as_tensor(two)
    close(torch.func.vmap(function)(tensors), values)
    grad = torch.func.grad(lambda x: function(x).sum())
    close(torch.stack([grad(x) for x in tensors]), gradients)


@each_op
@only_on("torch", "JAX's are asked by its Hessian")
def test_gradients_of_gradients_of_torch_are_right_or_an_error(op):
    import torch

    function, two = of_last(twice_differentiable(op))

    def slopes(x, again):
        x = x.clone().requires_grad_(True)
        total = uneven(function(x))
        return x, *torch.autograd.grad(total, x, create_graph=again)

    x = torch.tensor(two[0], dtype=torch.float64)
    if op.function in DIFFERENTIATED_ONCE:
        with pytest.raises(NotImplementedError, match="`create_graph=True`"):
            slopes(x, True)
        return
    v = torch.as_tensor(normal(*x.shape), dtype=x.dtype)
    leaf, slope = slopes(x, True)
    (product,) = torch.autograd.grad((slope * v).sum(), leaf)
    step = 1e-6
    after, before = (slopes(x + s * v, False)[1] for s in (step, -step))
    truth = (after - before) / (2 * step)
    np.testing.assert_allclose(product, truth, rtol=1e-4, atol=1e-6)


@each_op
@only_on("tensorflow", "TensorFlow's Jacobians")
def test_jacobian_of_tensorflow(op):
    """All rows at once, by the rules of `vectorized_map`, or one by one."""
    import tensorflow as tf

    function, two = of_last(op)
    x = tf.Variable(two[0])
    with tf.GradientTape(persistent=True) as tape:
        y = tf.reshape(function(tf.convert_to_tensor(x)), (-1,))
        y = tf.concat([y, 2 * y], axis=0)  # of one loss there is nothing to map
    at_once, one_by_one = (
        tape.jacobian(y, x, experimental_use_pfor=each)
        for each in (True, False)
    )
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-3, atol=1e-4)


@each_op
@only_on("jax", "JAX's transforms")
def test_vmap_and_jvp_of_jax(op):
    import jax

    function, two = of_last(op)
    values, gradients = one_by_one(jax.jit(function), two)
    close(jax.jit(jax.vmap(function))(two), values)

    def total(x):
        return function(x).sum()

    def jvp(x, v):
        return jax.jvp(total, (x,), (v,))[1]

    # Around a gradient of its own, not compiled: docs/sharp_edges.md.
    slope = (jvp if op.own_gradient else jax.jit(jvp))(*two)
    close(slope, np.sum(gradients[0] * two[1]))


@each_op
@only_on("jax", "JAX's transforms")
def test_hessian_of_jax(op):
    import jax

    function, two = of_last(twice_differentiable(op))

    @jax.jit
    def slopes(x):
        return jax.grad(lambda x: uneven(function(x)))(x)

    x, v = two[0], normal(*two[0].shape)
    hessian = jax.jit(jax.hessian(lambda x: uneven(function(x))))(x)
    product = np.tensordot(hessian, v, x.ndim)
    step = 1e-2
    truth = (slopes(x + step * v) - slopes(x - step * v)) / (2 * step)
    np.testing.assert_allclose(product, truth, rtol=2e-2, atol=5e-3)


@pytest.mark.parametrize("op", [op for op in OPS if not op.gradient], ids=str)
@only_on("torch", "JAX maps whatever it compiles")
def test_vmap_of_torch_without_a_gradient(op):
    import torch

    batches = [list(map(torch.as_tensor, op.arrays(4, seed=i))) for i in (0, 3)]
    stacked = map(torch.stack, zip(*batches, strict=True))
    mapped = torch.func.vmap(op, randomness="same")
    if op.function is ops.fit_temperature:
        with pytest.raises(RuntimeError, match="data-dependent"):
            mapped(*stacked)
        return
    results = keras.tree.flatten(mapped(*stacked))
    for i, batch in enumerate(batches):
        for result, truth in zip(
            results, keras.tree.flatten(op(*batch)), strict=True
        ):
            close(result[i], to_numpy(truth))
