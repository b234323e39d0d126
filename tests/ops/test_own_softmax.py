"""What a gradient of its own must not change, for both cross-entropies."""

import gc
import weakref

import numpy as np
import pytest
from keras import ops as kops

from keras_xent import ops
from keras_xent.losses import SoftmaxCrossentropy, SparseSoftmaxCrossentropy
from tests.testing import (
    assert_all_close,
    gradient,
    normal,
    only_on,
    to_numpy,
)

ROWS, CLASSES = 4, 5
LABELS = np.array([0, 3, 4, 1])
TARGETS = np.exp(normal(ROWS, CLASSES, seed=1)).astype("float64")
TARGETS = TARGETS / TARGETS.sum(axis=-1, keepdims=True)
OPTIONS = {
    "label_smoothing": 0.1,
    "class_weight": [1.0, 2.0, 0.0, 0.5, 3.0],
    "z_loss": 1e-2,
}
YES = np.linspace(0, 1, ROWS * CLASSES).reshape(ROWS, CLASSES)


def _tensor(x, like):
    return kops.convert_to_tensor(x, dtype=like.dtype)


CASES = {
    "dense": lambda x: ops.softmax_crossentropy(_tensor(TARGETS, x), x),
    "dense_all": lambda x: ops.softmax_crossentropy(
        _tensor(TARGETS, x), x, **OPTIONS
    ),
    "sparse": lambda x: ops.sparse_softmax_crossentropy(LABELS, x),
    "sparse_all": lambda x: ops.sparse_softmax_crossentropy(
        LABELS, x, **OPTIONS
    ),
    "sigmoid": lambda x: ops.sigmoid_crossentropy(_tensor(YES, x), x),
    "sigmoid_all": lambda x: ops.sigmoid_crossentropy(
        _tensor(YES, x),
        x,
        label_smoothing=0.1,
        pos_weight=OPTIONS["class_weight"],
    ),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
torch_only = only_on("torch", "of autograd")


def _logits(dtype="float32"):
    return normal(ROWS, CLASSES, seed=2).astype(dtype)


def _leaf(dtype="float32"):
    x = kops.convert_to_tensor(_logits(dtype))
    return x.clone().requires_grad_(True)


@torch_only
@cases
@pytest.mark.parametrize("backward", [False, True])
def test_no_cycle_keeps_the_logits_alive(case, backward):
    leaf = _leaf()
    gc.disable()
    try:
        logits = leaf * 1.0
        alive = weakref.ref(logits)
        loss = case(logits).sum()
        if backward:
            loss.backward()
        del logits, loss
        assert alive() is None
    finally:
        gc.enable()


@torch_only
@cases
def test_a_second_backward_pass_gives_the_same_gradient(case):
    import torch

    x = _leaf()
    loss = case(x).sum()
    first = torch.autograd.grad(loss, x, retain_graph=True)[0].clone()
    second = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert_all_close([second], [first], atol=1e-6)


@torch_only
@cases
def test_nothing_that_is_given_is_changed(case):
    x = _leaf()
    losses = case(x)
    upstream = kops.ones_like(losses) / 3
    losses.backward(upstream)
    assert np.array_equal(to_numpy(x.detach()), _logits())
    assert x._version == 0
    assert upstream._version == 0


@torch_only
def test_targets_and_weights_that_are_given_are_not_changed():
    given = [
        kops.convert_to_tensor(x.astype("float32"))
        for x in (TARGETS, np.array([0.0, 1.0, 2.0, 0.5]))
    ]
    loss = SoftmaxCrossentropy()
    loss(given[0], _leaf(), sample_weight=given[1]).backward()
    assert [x._version for x in given] == [0, 0]


@torch_only
@cases
def test_first_and_second_derivatives_in_float64(case):
    import torch

    x = _leaf("float64")
    assert torch.autograd.gradcheck(case, x)
    assert torch.autograd.gradgradcheck(case, x)


@torch_only
def test_derivatives_by_the_targets_of_the_sigmoid_are_of_their_dtype():
    import torch

    weight = OPTIONS["class_weight"]

    def losses(targets, logits):
        return ops.sigmoid_crossentropy(targets, logits, pos_weight=weight)

    targets = torch.tensor(0.1 + 0.8 * YES, requires_grad=True)
    assert torch.autograd.gradcheck(losses, (targets, _leaf("float64")))
    assert torch.autograd.gradgradcheck(losses, (targets, _leaf("float64")))


@torch_only
@cases
def test_the_gradient_has_a_derivative_by_a_weight_of_zero(case):
    """As those have who learn the weights of rows, from 0 on."""
    import torch

    x = _leaf("float64")
    losses = case(x)
    weight = torch.zeros_like(losses, requires_grad=True)
    slope = torch.autograd.grad((losses * weight).sum(), x, create_graph=True)
    direction = torch.as_tensor(normal(ROWS, CLASSES, seed=3))
    product = (slope[0] * direction).sum()
    result = torch.autograd.grad(product, weight)[0]
    jacobian = torch.autograd.functional.jacobian(case, x.detach())
    expected = (jacobian * direction).sum((-2, -1))
    assert_all_close([result], [expected], atol=1e-9)


@torch_only
@cases
def test_backward_passes_that_are_mapped(case):
    import torch

    x = _leaf().detach()
    one_by_one = torch.autograd.functional.jacobian(case, x)
    at_once = torch.autograd.functional.jacobian(case, x, vectorize=True)
    assert_all_close([at_once], [one_by_one], atol=1e-6)


@torch_only
@cases
def test_forward_mode(case):
    import torch
    from torch.autograd import forward_ad

    x = _leaf().detach()
    direction = torch.as_tensor(normal(ROWS, CLASSES, seed=3))
    with forward_ad.dual_level():
        loss = case(forward_ad.make_dual(x, direction)).sum()
        result = forward_ad.unpack_dual(loss).tangent
    grad, _ = gradient(case, _logits())
    expected = np.sum(grad * to_numpy(direction))
    assert_all_close([result], [expected], rtol=1e-5, atol=1e-5)


@only_on("tensorflow", "of tapes in tapes")
@cases
def test_second_derivatives_of_nested_tapes(case):
    import tensorflow as tf

    x = tf.constant(_logits("float64"))
    direction = tf.constant(normal(ROWS, CLASSES, seed=3).astype("float64"))

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(case(x))
        return tape.gradient(loss, x)

    with tf.GradientTape() as outer:
        outer.watch(x)
        product = tf.reduce_sum(slope(x) * direction)
    step = 1e-5 * direction
    expected = (slope(x + step) - slope(x - step)) / 2e-5
    result = outer.gradient(product, x)
    assert_all_close([result], [expected], atol=1e-8)


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "all"])
@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 0, 5), (2, 3, 5)])
def test_any_number_of_rows(shape, options):
    logits = normal(*shape, seed=4)
    labels = np.zeros(shape[:-1], "int32")
    targets = np.eye(5, dtype="float32")[labels]
    dense, of_dense = gradient(
        lambda x: ops.softmax_crossentropy(targets, x, **options), logits
    )
    sparse, of_sparse = gradient(
        lambda x: ops.sparse_softmax_crossentropy(labels, x, **options), logits
    )
    assert of_dense.shape == shape[:-1]
    assert dense.shape == shape
    assert_all_close([of_sparse], [of_dense], rtol=2e-6)
    assert_all_close([sparse], [dense], atol=2e-6)


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "all"])
def test_a_row_of_weight_0_has_gradient_0_whatever_it_holds(options):
    bad = np.array([[np.nan], [np.inf], [-1.0], [1.0]])
    targets = np.where(bad == 1, TARGETS, bad).astype("float32")
    logits = _logits()
    logits[1] = np.nan
    weight = np.array([0.0, 0.0, 0.0, 1.0], "float32")
    dense = SoftmaxCrossentropy(**options)
    given = kops.convert_to_tensor(targets)
    grad, value = gradient(
        lambda x: dense(given, x, sample_weight=weight), logits
    )
    assert np.isfinite(value)
    assert np.all(grad[:3] == 0)
    assert np.all(np.isfinite(grad[3]))
    assert np.any(grad[3] != 0)
    labels = kops.convert_to_tensor(np.array([-7, 0, 99, 1]))
    sparse = SparseSoftmaxCrossentropy(**options)
    grad, value = gradient(
        lambda x: sparse(labels, x, sample_weight=weight), logits
    )
    assert np.isfinite(value)
    assert np.all(grad[:3] == 0)
    assert np.all(np.isfinite(grad[3]))
    assert np.any(grad[3] != 0)


# TensorFlow has a path for few numbers and one for many.
@pytest.mark.parametrize("classes", [5, 20_000])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_without_a_finite_logit_passes_no_gradient(
    classes, label, gamma, smoothing
):
    """Whatever the class weighs. Infinity and NaN are no finite logits."""
    logits = normal(5, classes, seed=5)
    logits[:4] = np.array([[-np.inf], [np.inf], [np.nan], [-np.inf]])
    logits[3, 0] = np.nan
    weight = np.ones(classes)
    weight[0] = 0
    options = {
        "class_weight": weight,
        "focal_gamma": gamma,
        "label_smoothing": smoothing,
    }
    labels = np.full(5, label)
    targets = np.eye(classes, dtype="float32")[labels]
    for function in (
        lambda x: ops.sparse_softmax_crossentropy(labels, x, **options),
        lambda x: ops.softmax_crossentropy(targets, x, **options),
    ):
        grad, losses = gradient(function, logits)
        assert np.all(np.isnan(losses[:4]))
        assert np.isfinite(losses[4])
        assert np.all(grad[:4] == 0)
        assert np.all(np.isfinite(grad[4]))
