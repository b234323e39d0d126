"""The transforms of PyTorch and JAX, asked of every operation."""

import numpy as np
import pytest

from tests.contract import OPS
from tests.testing import BACKEND, assert_all_close, gradient, normal, only_on

pytestmark = pytest.mark.skipif(
    BACKEND == "tensorflow", reason="TensorFlow has no such transforms"
)
ROWS = 4
each_op = pytest.mark.parametrize("op", OPS, ids=str)
each_gradient = pytest.mark.parametrize(
    "op", [op for op in OPS if op.gradient], ids=str
)


def tensor(array):
    import keras

    return keras.ops.convert_to_tensor(array)


def of_last(op, seed=0):
    """Σ of its results, each with its own factor, and the last argument."""
    *rest, last = map(tensor, op.arrays(ROWS, seed=seed))

    def total(x):
        value = op(*rest, x)
        factors = np.cos(np.arange(np.prod(value.shape)), dtype="float32")
        return (value * tensor(factors.reshape(value.shape))).sum()

    return total, last


def flat(results):
    import keras

    return keras.tree.flatten(results)


@each_op
def test_vmap_is_a_loop_over_batches(op):
    batches = [[tensor(x) for x in op.arrays(ROWS, seed=i)] for i in (0, 3)]
    if BACKEND == "jax":
        import jax

        loop = [flat(jax.jit(op)(*batch)) for batch in batches]
        stacked = map(jax.numpy.stack, zip(*batches, strict=True))
        results = flat(jax.jit(jax.vmap(op))(*stacked))
    else:
        import torch

        stacked = map(torch.stack, zip(*batches, strict=True))
        if str(op) == "fit_temperature":
            # It stops when it is done: PyTorch says that this cannot be mapped.
            with pytest.raises(RuntimeError, match="data-dependent"):
                torch.func.vmap(op)(*stacked)
            return
        loop = [flat(op(*batch)) for batch in batches]
        results = flat(torch.func.vmap(op, randomness="same")(*stacked))
    for i, expected in enumerate(loop):
        assert_all_close([x[i] for x in results], expected, 1e-4, 1e-5)


@each_gradient
@only_on("torch", "torch.func is PyTorch's")
def test_torch_func_gives_the_gradient_of_backward(op):
    import torch

    total, x = of_last(op)
    expected, _ = gradient(total, x)
    direction = tensor(normal(*x.shape, seed=7))
    assert_all_close([torch.func.grad(total)(x)], [expected])
    both = torch.func.vmap(torch.func.grad(total))(torch.stack([x, x + 1]))
    assert_all_close([both[0]], [expected])
    _, slope = torch.func.jvp(total, (x,), (direction,))
    along = (tensor(expected) * direction).sum()
    assert_all_close([slope], [along], 1e-4, 1e-5)
    assert torch.isfinite(torch.func.hessian(total)(x)).all()


@each_gradient
@only_on("jax", "jvp and hessian are JAX's")
def test_jax_jvp_and_hessian_agree_with_grad(op):
    import jax

    total, x = of_last(op)
    direction = normal(*x.shape, seed=7)

    @jax.jit
    def outcome(x):
        slope = jax.jvp(total, (x,), (direction,))[1]
        return slope, jax.grad(total)(x), jax.hessian(total)(x)

    slope, grad, hessian = outcome(x)
    assert_all_close([slope], [(grad * direction).sum()], 1e-4, 1e-5)
    assert np.all(np.isfinite(hessian))
