"""What the transforms of PyTorch and JAX make of every operation."""

import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.contract import OPS
from tests.testing import gradient, normal, only_on, to_numpy

DIFFERENTIABLE = [op for op in OPS if op.gradient]
each_op = pytest.mark.parametrize("op", DIFFERENTIABLE, ids=str)


def of_last(op):
    """The operation as a function of its last tensor, and two of these."""
    *rest, last = op.arrays(4)
    two = np.stack([last, last * (1 + 0.1 * np.abs(normal(*last.shape)))])
    return lambda x: op(*rest, x), two.astype("float32")


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

    if op.function is ops.spearman_loss:
        pytest.skip("its temperature follows x, and is a constant to gradients")
    function, two = of_last(op)

    @jax.jit
    def slopes(x):
        return jax.grad(lambda x: function(x).sum())(x)

    x, v = two[0], normal(*two[0].shape)
    hessian = jax.jit(jax.hessian(lambda x: function(x).sum()))(x)
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
