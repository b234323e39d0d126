"""Nothing leaves the device of its data, and nothing is read back from it."""

import contextlib
import functools

import keras
import numpy as np
import pytest

from keras_xent import ops
from keras_xent.ops import linear
from keras_xent.ops.cosine import CosineLogits
from tests.contract import LOSSES, METRICS
from tests.testing import normal, only_on

pytestmark = [
    pytest.mark.device,
    only_on("torch", "the other backends place tensors by themselves"),
]


def on(device, *arrays):
    import torch

    return [torch.as_tensor(x, device=device) for x in arrays]


class Meta(str):
    """The name of a device that is equal to the device.

    Keras compares the two, and makes a tensor that is not equal anew on this
    one: its gradient would end there.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return str(self) == str(other)

    def __ne__(self, other):
        return not self == other

    def lower(self):
        return self


@contextlib.contextmanager
def another_device():
    """One that is not the CPU and holds no values, on any machine."""
    with keras.device(Meta("meta")) as device:
        yield device.type


LABELS = np.array([0, 2, 1], "int32")
LOGITS, VECTORS = normal(3, 4), normal(5, 4)
TARGETS = np.eye(4, dtype="float32")[LABELS]
IDS, COUNTS = np.array([0, 4], "int32"), np.ones(5, "float32")
CALLS = {
    "sparse": lambda y, t, x, w: ops.sparse_softmax_crossentropy(
        y, x, label_smoothing=0.1, focal_gamma=1.0, z_loss=0.1
    ),
    "dense": lambda y, t, x, w: ops.softmax_crossentropy(t, x, z_loss=0.1),
    "sigmoid": lambda y, t, x, w: ops.sigmoid_crossentropy(t, x),
    "symmetric KL": lambda y, t, x, w: ops.pairwise_symmetric_kl(x),
    "cosine": lambda y, t, x, w: ops.pairwise_cosine(x),
    "hinge": lambda y, t, x, w: ops.symmetric_kl_hinge(y, x, 1.0),
    "sampled": lambda y, t, x, w: ops.sampled_softmax_crossentropy(
        y,
        x,
        class_vectors=w,
        candidates=ops.log_uniform_sample(y, 2, 5, seed=0),
    ),
    "nce": lambda y, t, x, w: ops.nce_loss(
        y,
        x,
        class_vectors=w,
        candidates=ops.unigram_sample(y, 2, [1, 2, 3, 4, 5], seed=0),
    ),
    "pearson": lambda y, t, x, w: ops.pearson_loss(x[:, 0], x[:, 1]),
    "kl": lambda y, t, x, w: ops.kl_divergence(x, 2 * x, temperature=2.0),
    "jensen_shannon": lambda y, t, x, w: ops.jensen_shannon(x, 2 * x),
    "entropy": lambda y, t, x, w: ops.entropy(x),
    "brier": lambda y, t, x, w: ops.brier_score(t, x),
    "linear": lambda y, t, x, w: ops.linear_softmax_crossentropy(
        y, x, class_vectors=w, label_smoothing=0.1, block_size=2
    ),
}


def of_cosines(y, t, x, w, **margins):
    """The loss on a `CosineHead`, with a gradient."""
    x.requires_grad_(True)
    margins = {name: x.new_full((5,), value) for name, value in margins.items()}
    loss, _ = linear.losses_and_terms(
        y,
        x,
        class_vectors=w,
        logits=CosineLogits(8.0, **margins),
        all_terms=True,
        block_size=2,
    )
    loss.sum().backward()
    return loss


CALLS["cosines"] = of_cosines
CALLS["cosines with margins"] = functools.partial(
    of_cosines, angular_margin=0.2, cosine_margin=0.1
)
CALLS["batch classes"] = lambda y, t, x, w: ops.sampled_softmax_crossentropy(
    y,
    x,
    class_vectors=w,
    candidates=ops.uniform_sample(y, 2, 5, seed=0),
    batch_classes=True,
)


@pytest.mark.parametrize("name", CALLS)
def test_functions_stay_on_the_device_of_their_data(name):
    """What makes a tensor on the CPU fails here, as it would on a GPU."""
    with another_device() as device:
        given = on(device, LABELS, TARGETS, LOGITS, VECTORS)
        result = CALLS[name](*given)
        assert result.device.type == device


# Reading back ----------------------------------------------------------------


def train(case, device):
    """A loss of a batch, and its gradient."""
    loss = case.loss()
    y, z = on(device, case.labels(7), case.predictions(7))
    if not y.is_floating_point():
        y = y.long()  # as PyTorch's own data has class ids
    z.requires_grad_(True)
    return lambda: loss(y, z).backward()


def update(case, device):
    """An update of a metric with a batch of tensors."""
    metric = case.make()
    y, z = on(device, case.labels(7), case.predictions(7))
    return lambda: metric.update_state(y, z)


STEPS = [
    *[pytest.param(train, case, id=str(case)) for case in LOSSES],
    *[pytest.param(update, case, id=str(case)) for case in METRICS],
]
each_step = pytest.mark.parametrize(("make", "case"), STEPS)


@each_step
def test_a_training_step_needs_no_values_from_the_device(make, case):
    """There are none on this one: to read any is an error."""
    with another_device() as device:
        make(case, device)()


@each_step
def test_a_choice_sends_no_number_to_the_device(make, case, monkeypatch):
    """`ops.select.where` makes it there; Keras's waits until it is copied."""
    of_keras = keras.ops.where

    def where(condition, x, y):
        assert not isinstance(x, (int, float))
        assert not isinstance(y, (int, float))
        return of_keras(condition, x, y)

    monkeypatch.setattr(keras.ops, "where", where)
    make(case, "cpu")()


@contextlib.contextmanager
def synchronizations():
    """Which operations let the host wait for the GPU: a list of their names.

    What goes there from the host is left out: Keras sends every number of
    Python's, and that reads nothing.
    """
    import torch
    from torch.utils import _python_dispatch

    found = []

    class Watch(_python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            def call():
                return operation(*args, **(kwargs or {}))

            name = operation.name()
            if name in ("aten::_to_copy", "aten::copy_"):
                result = call()
                source = args[1] if name == "aten::copy_" else args[0]
                if source.is_cuda and not result.is_cuda:
                    found.append(name)
                return result
            torch.cuda.set_sync_debug_mode("error")
            try:
                return call()
            except RuntimeError as error:
                if "synchronizing" not in str(error):
                    raise
                found.append(name)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            return call()

    with Watch():
        yield found


@pytest.fixture
def gpu():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: a CPU has nobody to wait for")
    return "cuda"


def test_reading_back_is_seen(gpu):
    x = keras.ops.ones(3)
    with synchronizations() as found:
        float(x[0] + 1)
        keras.ops.convert_to_numpy(x)
        keras.ops.nonzero(x)
    assert found == [
        "aten::_local_scalar_dense",
        "aten::_to_copy",
        "aten::nonzero",
    ]


@each_step
def test_a_training_step_does_not_wait_for_the_gpu(make, case, gpu):
    step = make(case, gpu)
    step()  # What it makes but once is made here.
    with synchronizations() as found:
        step()
    # Keras reads the seed of random numbers, as it does for its Dropout.
    assert found == ["aten::_local_scalar_dense"] * case.random
