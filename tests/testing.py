"""What the tests share: gradients, NumPy in and out, random numbers."""

import functools

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()


def only_on(backend, reason):
    """Marks a test that would say the same on each backend."""
    return pytest.mark.skipif(backend != BACKEND, reason=reason)


def thorough_on(*backends):
    """Marks what takes long on these backends, for a thorough run there."""
    return pytest.mark.thorough if BACKEND in backends else lambda test: test


def to_numpy(x):
    """A tensor of any backend and dtype as NumPy; bfloat16 as float32."""
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        x = keras.ops.cast(x, "float32")
    return keras.ops.convert_to_numpy(x)


def gradient(function, *arrays):
    """d Σ function(*arrays) / d arrays[0], and the value, as NumPy."""
    first, *rest = (keras.ops.convert_to_tensor(x) for x in arrays)
    if BACKEND == "torch":
        first = first.clone().requires_grad_(True)
        value = function(first, *rest)
        value.sum().backward()
        return to_numpy(first.grad), to_numpy(value.detach())
    if BACKEND == "jax":
        import jax

        def total(x):
            value = function(x, *rest)
            return value.sum(), value

        grad, value = jax.grad(total, has_aux=True)(first)
        return to_numpy(grad), to_numpy(value)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(first)
        value = function(first, *rest)
        total = tf.reduce_sum(value)
    grad = tape.gradient(total, first)
    return to_numpy(tf.convert_to_tensor(grad)), to_numpy(value)


def hessian(function, x):
    """The second derivatives of a number, as NumPy. Not on TensorFlow."""
    x = keras.ops.convert_to_tensor(x)
    if BACKEND == "torch":
        import torch

        return to_numpy(torch.autograd.functional.hessian(function, x))
    import jax

    return to_numpy(jax.jit(jax.hessian(function))(x))


def compiled(function):
    """`function` compiled by the backend: XLA, or eager on PyTorch."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


def quick(function):
    """`function` compiled as a whole where it would be op by op: on JAX."""
    return compiled(function) if BACKEND == "jax" else function


def finite_differences(function, x, step=1e-6):
    """The gradient of Σ function(x) by central differences in float64."""
    x = np.asarray(x, "float64")
    grad = np.empty_like(x)
    function = quick(function)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        # `x + shift` of two single numbers is no array, and becomes float32.
        upper, lower = (
            to_numpy(function(keras.ops.convert_to_tensor(np.asarray(y))))
            for y in (x + shift, x - shift)
        )
        assert upper.dtype == np.float64
        grad[index] = (upper.sum() - lower.sum()) / (2 * step)
    return grad


@functools.cache
def normal(*shape, seed=0, scale=1.0):
    """The same float32 normal numbers on every call."""
    numbers = np.random.default_rng(seed).normal(scale=scale, size=shape)
    return numbers.astype("float32")


def autocast(enabled=True):
    """PyTorch's autocast to bfloat16, on the device where Keras puts tensors.

    On another it would change nothing, and a test within say nothing.
    """
    import torch

    device = keras.ops.convert_to_tensor(0.0).device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)


def with_mask(x, mask):
    """A tensor that carries a Keras mask."""
    from keras_xent._keras import set_mask

    x = keras.ops.convert_to_tensor(x)
    set_mask(x, keras.ops.convert_to_tensor(mask))
    return x


def gradients(function, *arrays):
    """Σ function(*arrays) differentiated by every array, and the value.

    Tensors, not NumPy: bfloat16 stays what it is.
    """
    arrays = [keras.ops.convert_to_tensor(x) for x in arrays]
    if BACKEND == "torch":
        arrays = [x.detach().clone().requires_grad_(True) for x in arrays]
        value = function(*arrays)
        value.sum().backward()
        return [x.grad for x in arrays], value.detach()
    if BACKEND == "jax":
        import jax

        def total(*arrays):
            value = function(*arrays)
            return value.sum(), value

        every = tuple(range(len(arrays)))
        # Compiled as a whole: op by op, every loop is compiled on its own.
        return jax.jit(jax.grad(total, every, has_aux=True))(*arrays)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(arrays)
        value = function(*arrays)
        total = tf.reduce_sum(value)
    return [
        tf.convert_to_tensor(x) for x in tape.gradient(total, arrays)
    ], value


def assert_all_close(results, expected, rtol=1e-5, atol=1e-6):
    """As `np.testing.assert_allclose`, of several tensors or arrays each."""
    for result, truth in zip(results, expected, strict=True):
        result, truth = (
            x if isinstance(x, np.ndarray) else to_numpy(x)
            for x in (result, truth)
        )
        np.testing.assert_allclose(result, truth, rtol=rtol, atol=atol)
