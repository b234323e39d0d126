"""Rows in blocks, which small arrays never are by themselves."""

import numpy as np
import pytest
from keras import ops

from keras_xent.ops import by_rows, devices, own_softmax
from tests.testing import (
    BACKEND,
    gradient,
    gradients,
    normal,
    only_on,
    to_numpy,
)

torch_only = only_on("torch", "only PyTorch is helped by blocks")

COLUMNS = 3
SHAPES = [(7, COLUMNS), (2, 5, COLUMNS), (1, COLUMNS), (COLUMNS,)]


@pytest.fixture(autouse=True)
def blocks_of_two_rows(monkeypatch):
    monkeypatch.setattr(own_softmax, "SMALL_SIZE", 0)
    monkeypatch.setattr(devices, "CPU_CHUNK_BYTES", 2 * 4 * COLUMNS)


class Product:
    """Σ a² b over a row, or each term; notes what it is asked for."""

    def __init__(self, summed=True):
        self.summed, self.calls = summed, []

    def written_out(self, a, b):
        a, b = (ops.cast(x, "float32") for x in (a, b))
        values = a * a * b
        return ops.sum(values, axis=-1) if self.summed else values

    def with_gradients(self, wanted, a, b):
        self.calls.append((len(a), tuple(wanted)))
        values = self.written_out(a, b)
        a, b = (ops.cast(x, "float32") for x in (a, b))
        slopes = [2 * a * b, a * a]
        return values, [
            slope if each else None
            for slope, each in zip(slopes, wanted, strict=True)
        ]

    def __call__(self, a, b):
        return by_rows.by_rows(self.with_gradients, self.written_out, a, b)


def arrays(shape, dtype="float32"):
    found = normal(*shape), 1 + normal(*shape, seed=1)
    return [ops.cast(ops.convert_to_tensor(x), dtype) for x in found]


def truth(a, b, upstream, summed):
    a, b = (to_numpy(x).astype("float64") for x in (a, b))
    upstream = upstream[..., None] if summed else upstream
    values = a * a * b
    values = values.sum(axis=-1) if summed else values
    return values, 2 * a * b * upstream, a * a * upstream


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_blocks_of_uneven_size_are_all_the_rows(shape, summed, dtype):
    a, b = arrays(shape, dtype)
    upstream = normal(*(shape[:-1] if summed else shape), seed=2)
    upstream = np.asarray(upstream, "float32")
    values, of_a, of_b = truth(a, b, upstream, summed)
    product = Product(summed)

    def weighted(a, b):
        return product(a, b) * ops.convert_to_tensor(upstream)

    found, result = gradients(weighted, a, b)
    low = {"float32": 1e-6, "bfloat16": 2**-7, "float16": 2**-10}[dtype]
    close = {"rtol": low, "atol": low}
    np.testing.assert_allclose(
        to_numpy(result), values * upstream, rtol=1e-5, atol=1e-5
    )
    for slope, expected, like in zip(found, (of_a, of_b), (a, b), strict=True):
        assert slope.dtype == like.dtype
        assert slope.shape == like.shape
        np.testing.assert_allclose(to_numpy(slope), expected, **close)
    if BACKEND == "torch":
        rows = int(np.prod(shape[:-1]))
        assert max(size for size, _ in product.calls) <= 2
        assert sum(size for size, _ in product.calls) in (rows, 2 * rows)


@pytest.mark.parametrize("shape", [(0, COLUMNS), (4, 0), (2, 0, COLUMNS)])
@pytest.mark.parametrize("summed", [True, False])
def test_rows_may_be_none_or_empty(shape, summed):
    grad, value = gradient(Product(summed), *map(to_numpy, arrays(shape)))
    assert grad.shape == shape
    assert value.shape == (shape[:-1] if summed else shape)
    assert not value.any()


@pytest.mark.parametrize("columns", [1, COLUMNS])
def test_a_row_of_upstream_0_has_gradient_0_whatever_it_holds(columns):
    if BACKEND == "jax":
        pytest.skip("JAX differentiates what is written out")
    a, b = (to_numpy(x) for x in arrays((5, columns)))
    b = ops.convert_to_tensor(b)
    counts = np.array([1.0, 0.0, 2.0, 0.0, 0.0], "float32")
    keep = ops.convert_to_tensor(counts)
    expected, _ = gradient(lambda a: Product()(a, b) * keep, a)
    a = np.where(counts[:, None] == 0, np.float32("nan"), a)
    a[3] = np.inf
    result, _ = gradient(
        lambda a: ops.where(keep == 0, 0.0, Product()(a, b)) * keep, a
    )
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert np.all(result[counts == 0] == 0)


@torch_only
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("again", [1, 3])
def test_a_second_backward_pass_makes_the_gradient_anew(summed, again):
    import torch

    a, b = arrays((7, COLUMNS))
    a.requires_grad_(True)
    values = Product(summed)(a, b)
    weight = torch.full_like(values, 3.0)
    for factor in (1, again):
        found = torch.autograd.grad(
            values, a, factor * weight, retain_graph=True
        )
        expected = factor * 6 * a * b
        torch.testing.assert_close(found[0], expected.detach())


@torch_only
@pytest.mark.parametrize("recorded", [True, False])
def test_a_gradient_that_nobody_wants_is_not_made(recorded):
    import torch

    a, b = arrays((7, COLUMNS))
    a.requires_grad_(recorded)
    product = Product()
    with torch.set_grad_enabled(not recorded):
        product(a, b)
    assert {wanted for _, wanted in product.calls} == {(False, False)}
    product.calls.clear()
    a.requires_grad_(True)
    product(a, b)
    assert {wanted for _, wanted in product.calls} == {(True, False)}


@torch_only
@pytest.mark.parametrize("summed", [True, False])
def test_derivatives_of_the_gradient_are_those_of_what_is_written(summed):
    import torch

    a, b = (x.double().requires_grad_(True) for x in arrays((3, COLUMNS)))

    class Wide(Product):
        def written_out(self, a, b):
            values = a * a * b
            return values.sum(-1) if self.summed else values

    assert torch.autograd.gradgradcheck(Wide(summed).__call__, (a, b))
    jacobian = torch.autograd.functional.jacobian
    product = Wide(summed)
    one_by_one = jacobian(lambda a: product(a, b), a)
    at_once = jacobian(lambda a: product(a, b), a, vectorize=True)
    torch.testing.assert_close(at_once, one_by_one)


@torch_only
def test_small_gradients_in_float16_wait_for_the_upstream():
    """1e-9 is 0 in float16 until it is multiplied."""
    a = np.full((3, COLUMNS), 1e-5, "float32")
    b = np.full((3, COLUMNS), 5e-5, "float32")

    def scaled(a):
        return 2.0**15 * Product()(a, ops.cast(b, "float16"))

    low = ops.cast(a, "float16")
    (slope,), _ = gradients(scaled, low)
    exact = to_numpy(low).astype("float64")
    expected = 2.0**16 * exact * b.astype("float16")
    np.testing.assert_allclose(to_numpy(slope), expected, rtol=2e-3)


@torch_only
def test_it_is_written_out_where_numbers_are_few_or_not_there(monkeypatch):
    a, b = arrays((4, COLUMNS))
    assert not by_rows.is_written_out(a)
    assert by_rows.is_written_out(a.to("meta"))
    monkeypatch.setattr(own_softmax, "SMALL_SIZE", 4 * COLUMNS)
    product = Product()
    product(a, b)
    assert product.calls == []
