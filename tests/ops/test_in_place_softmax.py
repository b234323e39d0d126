"""A few rows at a time the losses are what they are by their formula."""

import itertools

import numpy as np
import pytest
from keras import ops as kops

from keras_xent import ops
from keras_xent.ops import devices
from tests.testing import (
    assert_all_close,
    gradient,
    normal,
    only_on,
    to_numpy,
)

pytestmark = only_on("torch", "the one that runs one operation at a time")

ROWS, CLASSES = 7, 5
LABELS = np.array([0, 3, 4, 1, 1, 2, 0])
SHARES = np.exp(normal(ROWS, CLASSES, seed=1))
TARGETS = SHARES / SHARES.sum(axis=-1, keepdims=True)
WEIGHT = [1.0, 2.0, 0.0, 0.5, 3.0]
UPSTREAM = np.array([1.0, 0.0, -2.0, 0.5, 1.0, 3.0, 0.25])
OPTIONS = [
    {
        "label_smoothing": smoothing,
        "class_weight": weight,
        "focal_gamma": gamma,
        "z_loss": z_loss,
    }
    for smoothing, weight, gamma, z_loss in itertools.product(
        [0.0, 0.1], [None, WEIGHT], [0.0, 0.5, 1.0, 2.0, 3.0], [0.0, 0.01]
    )
]


@pytest.fixture(params=[1, 3, None], autouse=True)
def rows_of_a_block(request, monkeypatch):
    """7 rows are 7 blocks, three with an uneven last one, or one."""
    monkeypatch.setattr(devices, "cached_rows", lambda x: request.param)


def _by_formula(targets, logits, options):
    """The losses in float64, differentiated by PyTorch as they are written."""
    import torch

    smoothing, gamma = options["label_smoothing"], options["focal_gamma"]
    log_p = torch.log_softmax(logits, -1)
    lse = torch.logsumexp(logits, -1)
    finite = (logits > -np.inf).double()
    log_p = log_p.masked_fill(finite == 0, 0)
    even = smoothing * finite / finite.sum(-1, keepdim=True)
    share = (1 - smoothing) * targets + even
    if options["class_weight"] is not None:
        share = share * torch.tensor(options["class_weight"]).double()
    terms = share * (1 - log_p.exp()) ** gamma * -log_p
    return terms.sum(-1) + options["z_loss"] * lse**2


def _logits():
    logits = 3 * normal(ROWS, CLASSES, seed=2).astype("float64")
    logits[2, 1] = -np.inf
    return logits


def _losses(kind, options):
    if kind == "sparse":
        return lambda x: ops.sparse_softmax_crossentropy(LABELS, x, **options)
    targets = _targets(kind)
    return lambda x: ops.softmax_crossentropy(
        kops.convert_to_tensor(targets), x, **options
    )


def _targets(kind):
    if kind == "sparse":
        return np.eye(CLASSES)[LABELS]
    # No share of the class that is masked out.
    targets = TARGETS.astype("float64")
    targets[2] = [0.5, 0, 0.25, 0.25, 0]
    return targets


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_all_options_are_those_of_the_formula(kind, dtype):
    import torch

    for options in OPTIONS:
        exact = torch.tensor(_logits(), requires_grad=True)
        expected = _by_formula(torch.tensor(_targets(kind)), exact, options)
        expected.backward(torch.tensor(UPSTREAM))
        x = torch.tensor(_logits().astype(dtype), requires_grad=True)
        losses = _losses(kind, options)(x)
        losses.backward(torch.tensor(UPSTREAM.astype(dtype)))
        tolerance = 4e-6 if dtype == "float32" else 1e-12
        assert_all_close(
            [losses.detach(), x.grad],
            [expected.detach(), exact.grad],
            rtol=tolerance,
            atol=tolerance,
        )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_what_is_certain_and_right_has_loss_and_gradient_0(kind, gamma):
    logits = np.where(np.eye(CLASSES)[LABELS] == 1, 1e4, 0).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[LABELS]
    losses = {
        "sparse": lambda x: ops.sparse_softmax_crossentropy(
            LABELS, x, focal_gamma=gamma
        ),
        "dense": lambda x: ops.softmax_crossentropy(
            targets, x, focal_gamma=gamma
        ),
    }[kind]
    grad, found = gradient(losses, logits)
    assert not found.any()
    assert not grad.any()


@pytest.mark.parametrize("options", OPTIONS[::3], ids=str)
def test_the_gradient_to_the_targets_is_that_of_the_formula(options):
    import torch

    exact = torch.tensor(TARGETS.astype("float64"), requires_grad=True)
    logits = torch.tensor(normal(ROWS, CLASSES, seed=2).astype("float64"))
    _by_formula(exact, logits, options).backward(torch.tensor(UPSTREAM))
    for wanted in [False, True]:
        targets = exact.detach().clone().requires_grad_(True)
        x = logits.clone().requires_grad_(wanted)
        losses = ops.softmax_crossentropy(targets, x, **options)
        losses.backward(torch.tensor(UPSTREAM))
        assert_all_close([targets.grad], [exact.grad], atol=1e-12)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_rounds_nothing_but_the_gradient(kind, dtype):
    import torch

    x = torch.tensor(_logits()).to(getattr(torch, dtype))
    for options in OPTIONS[::7]:
        losses = _losses(kind, options)
        low, full = (
            y.clone().requires_grad_(True) for y in (x, x.to(torch.float32))
        )
        scale = torch.tensor(UPSTREAM.astype("float32"))
        results = [losses(y) for y in (low, full)]
        for result in results:
            result.backward(scale)
        assert torch.equal(*results)
        assert torch.equal(low.grad, full.grad.to(low.dtype))


def test_what_float16_cannot_hold_comes_back_times_the_scale_of_the_loss():
    """p is 1e-9, and a loss is scaled so that such gradients are kept."""
    import torch

    x = torch.zeros(ROWS, CLASSES, dtype=torch.float16)
    x[:, 0] = 20.75
    x.requires_grad_(True)
    losses = ops.sparse_softmax_crossentropy(np.zeros(ROWS, int), x)
    (2.0**15 * losses.sum()).backward()
    expected = 2.0**15 * np.exp(-20.75)
    result = to_numpy(x.grad)[:, 1:]
    assert_all_close([result], [np.full_like(result, expected)], rtol=2e-3)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_a_second_backward_pass_gives_the_same_gradient(kind, options):
    import torch

    x = torch.tensor(_logits(), requires_grad=True)
    loss = _losses(kind, options)(x).sum()
    first, second = (
        torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_along_several_axes_and_classes_along_any(axis, options):
    logits = normal(2, CLASSES, 3, seed=4)
    logits = np.moveaxis(logits, 1, axis)
    flat = np.moveaxis(logits, axis, -1).reshape(-1, CLASSES)
    labels = np.arange(6) % CLASSES
    grad, losses = gradient(
        lambda x: ops.sparse_softmax_crossentropy(
            labels.reshape(np.delete(logits.shape, axis)),
            x,
            axis=axis,
            **options,
        ),
        logits,
    )
    expected, of_rows = gradient(
        lambda x: ops.sparse_softmax_crossentropy(labels, x, **options), flat
    )
    assert_all_close([losses.reshape(-1)], [of_rows], rtol=1e-6)
    grad = np.moveaxis(grad, axis, -1).reshape(-1, CLASSES)
    assert_all_close([grad], [expected], atol=1e-6)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_a_block_with_rows_that_do_not_count(kind, options):
    logits = _logits()
    logits[1] = np.nan
    logits[4] = -np.inf
    grad, losses = gradient(_losses(kind, options), logits)
    bad = np.array([False, True, False, False, True, False, False])
    assert np.array_equal(np.isnan(losses), bad)
    assert np.all(grad[bad] == 0)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[-1]], ids=str)
def test_a_second_derivative_is_that_of_the_formula(kind, options):
    import torch

    x = torch.tensor(normal(ROWS, CLASSES, seed=2).astype("float64"))
    x.requires_grad_(True)
    targets = torch.tensor(_targets(kind))
    product = torch.autograd.functional.hvp
    losses = _losses(kind, options)
    direction = torch.tensor(normal(ROWS, CLASSES, seed=3).astype("float64"))
    _, result = product(lambda x: losses(x).sum(), x, direction)
    _, expected = product(
        lambda x: _by_formula(targets, x, options).sum(), x, direction
    )
    assert_all_close([result], [expected], atol=1e-9)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_a_parameter_is_a_tensor_as_any_other(kind):
    import torch

    found = []
    for make in (torch.Tensor.requires_grad_, torch.nn.Parameter):
        x = make(torch.tensor(_logits()))
        losses = _losses(kind, OPTIONS[-1])(x)
        found.append([losses, *torch.autograd.grad(losses.sum(), x)])
    assert all(map(torch.equal, *found))
