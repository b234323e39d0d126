"""On several replicas the losses and metrics are those of one device.

One script for all losses and metrics, see `tests/processes.py`. Each
model is trained for an epoch of three steps, on one device and on all, with
the same weights at first; the last batch is a smaller one, of which a replica
has fewer rows, or none.
"""

import inspect

import numpy as np
import pytest

from keras_xent import losses, metrics
from tests import processes
from tests.testing import BACKEND, normal, to_numpy

LOSSES = [
    losses.SymmetricKLHinge(1.0, across_replicas=True),
    losses.PairHinge(1.0, across_replicas=True),
    losses.SupervisedContrastive(across_replicas=True),
    losses.InfoNCE(across_replicas=True),
    losses.SigmoidContrastive(across_replicas=True),
    losses.TripletHinge(1.0, across_replicas=True),
    losses.MultiSimilarity(across_replicas=True),
    losses.PrototypicalCrossentropy(across_replicas=True),
    losses.SpearmanLoss(across_replicas=True),
    losses.PearsonLoss(across_replicas=True),
]
METRICS = [
    cls
    for cls in (getattr(metrics, name) for name in metrics.__all__)
    if inspect.isclass(cls) and "distance" in inspect.signature(cls).parameters
]

CASES = """
import keras
import numpy as np
from keras import layers
from keras_xent import _keras, losses, metrics
from keras_xent.layers import SimilarityHead

@keras.saving.register_keras_serializable(package="test")
def manhattan(x):
    return keras.ops.sum(abs(x[:, None] - x[None, :]), axis=-1)

DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32",
          "int64", "bfloat16", "float16", "float32", "float64")
rng = np.random.default_rng(0)
WIDTH, BATCH, ROWS = 4, 8, 8 * 2 + LAST
x = x_all = rng.normal(size=(ROWS, WIDTH)).astype("float32")
ids = rng.integers(0, 3, ROWS)
targets = rng.normal(size=(ROWS, 1)).astype("float32")
weight = rng.random(ROWS).astype("float32")
weight[::5] = 0

def model_of(kind):
    keras.utils.set_random_seed(1)
    given = keras.Input((WIDTH,))
    if kind == "scores":
        return keras.Model(given, layers.Dense(1)(given))
    if kind == "flat scores":
        return keras.Model(given, layers.Reshape(())(layers.Dense(1)(given)))
    if kind == "embeddings":
        return keras.Model(given, layers.Dense(3)(given))
    views = layers.Reshape((2, 3))(layers.Dense(6)(given))
    if "head" in kind:
        bias = -1.0 if kind == "head and bias" else None
        views = SimilarityHead(bias=bias)(views)
    return keras.Model(given, views)

def cases():
    # The loss, what it takes, whether its rows weigh.
    rank = dict(temperature=0.5)
    yield losses.SymmetricKLHinge, dict(margin=2.0), "embeddings", True
    yield losses.SymmetricKLHinge, dict(
        margin=2.0, directed=True, balanced=False, reduction="sum"
    ), "views", True
    yield losses.PairHinge, dict(margin=2.0), "embeddings", True
    yield losses.PairHinge, dict(
        margin=2.0, distance=manhattan), "embeddings", False
    yield losses.SupervisedContrastive, rank, "views", True
    yield losses.SupervisedContrastive, {}, "head", False
    yield losses.InfoNCE, rank, "views", True
    yield losses.InfoNCE, dict(symmetric=False), "head", False
    yield losses.SigmoidContrastive, dict(
        temperature=0.5, bias=-1.0,
        reduction="mean_with_sample_weight"), "embeddings", True
    yield losses.SigmoidContrastive, {}, "head and bias", True
    yield losses.TripletHinge, dict(margin=1.0), "embeddings", True
    yield losses.TripletHinge, dict(
        margin=1.0, mining="all", distance="cosine"), "views", False
    yield losses.MultiSimilarity, dict(beta=10.0), "embeddings", True
    yield losses.PrototypicalCrossentropy, {}, "embeddings", True
    yield losses.SpearmanLoss, rank, "scores", True
    yield losses.PearsonLoss, {}, "flat scores", False

def metrics_of(cls, across):
    # They take their time to compile.
    if cls is not losses.SymmetricKLHinge:
        return []
    return [
        metrics.MatchAccuracy(
            distance="euclidean", across_replicas=across, name="m"),
        metrics.VerificationMetrics(
            distance=manhattan, similarity=False, across_replicas=across,
            resolution=2, name="v"),
    ]

def state(model, counted):
    return model.get_weights(), [m.histogram.counts() for m in counted]

def same(case, loss, expected_loss, found, expected):
    label = case[0].__name__, case[1]
    assert np.allclose(loss, expected_loss, 1e-5, 1e-5), (
        label, loss, expected_loss)
    for a, b in zip(found[0], expected[0], strict=True):
        assert np.allclose(a, b, 1e-5, 1e-5), (label, a - b)
    for a, b in zip(found[1], expected[1], strict=True):
        # A score at the edge of a bin may fall on either side of it.
        assert a.sum() > 0 and np.allclose(a.sum(1), b.sum(1)), label
        assert abs(a - b).sum() <= 0.02 * b.sum(), label

def arrays(case):
    y = targets if "scores" in case[2] else ids
    return x, y, weight if case[3] else None

def fitted(case, across, **how):
    cls, options, kind, _ = case
    model = model_of(kind)
    loss = cls(**options, across_replicas=across)
    counted = metrics_of(cls, across)
    model.compile(keras.optimizers.SGD(0.1), loss,
                  weighted_metrics=counted, **how)
    x, y, weight = arrays(case)
    logs = model.fit(x, y, sample_weight=weight, batch_size=BATCH,
                     shuffle=False, verbose=0).history
    return logs["loss"][0], *state(model, counted)
"""

# One replica has no row of the last batch but one.
MIRRORED = """
def check_gathers():
    def gathered(i):
        x = tf.range(3) + 10 * i
        x = x[:3 - 3 * i]
        own = _keras.replicas(x)
        out = {"rows": tf.stack(own.rows)}
        for dtype in DTYPES:
            found = own.gather(tf.cast(x, dtype))
            assert found.dtype.name == dtype
            out[dtype] = tf.cast(found, "float32")
        f = tf.cast(x, "float32")
        with tf.GradientTape() as tape:
            tape.watch(f)
            # As sparse gradients come.
            taken = tf.gather(own.gather(f), [0, 1, 1])
            total = tf.reduce_sum(taken) * (1.0 + tf.cast(i, "float32"))
        out["gradient"] = tape.gradient(total, f)
        return out

    @tf.function
    def step():
        def of(context):
            return context.replica_id_in_sync_group
        ids = strategy.experimental_distribute_values_from_function(of)
        return strategy.run(gathered, (ids,))

    found = {k: strategy.experimental_local_results(v)
             for k, v in step().items()}
    assert [x.numpy().tolist() for x in found.pop("rows")] == [[0, 3], [3, 0]]
    # Of what two replicas have for each row, 1 and 2 times, the sum.
    gradient = [x.numpy().tolist() for x in found.pop("gradient")]
    assert gradient == [[3, 6, 0], []], gradient
    for dtype, values in found.items():
        for each in values:
            last = 1 if dtype == "bool" else 2
            assert each.numpy().tolist() == [0, 1, last], dtype

check_gathers()
for case in cases():
    expected = fitted(case, False, run_eagerly=True)
    with strategy.scope():
        found = fitted(case, True)
    same(case, found[0], expected[0], found[1:], expected[1:])
"""

DATA_PARALLEL = """
alone = {i: fitted(case, False) for i, case in enumerate(cases())}
keras.distribution.set_distribution(distribution)
for i, case in enumerate(cases()):
    found = fitted(case, True)
    same(case, found[0], alone[i][0], found[1:], alone[i][1:])
"""

TWO_PROCESSES = """
from torch.nn.parallel import DistributedDataParallel

def train(case, across, rows_of):
    cls, options, kind, _ = case
    model = model_of(kind)
    run = DistributedDataParallel(model) if across else model
    loss_of = cls(**options, across_replicas=across)
    counted = metrics_of(cls, across)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    told = []
    x, y, weight = arrays(case)
    for start in range(0, ROWS, BATCH):
        rows = np.arange(start, min(start + BATCH, ROWS))
        rows = rows_of(rows)
        w = None if weight is None else weight[rows]
        optimizer.zero_grad()
        out = run(torch.tensor(x[rows]))
        loss = loss_of(y[rows], out, w)
        loss.backward()
        optimizer.step()
        told.append(loss.item())
        for metric in counted:
            metric.update_state(y[rows], out, w)
    if across:
        for metric in counted:
            for variable in metric.variables:
                dist.all_reduce(variable.value)
    return told, *state(model, counted)

for case in cases():
    expected = train(case, False, lambda rows: rows)
    found = train(case, True, lambda rows: [rows[:5], rows[5:]][rank])
    same(case, found[0], expected[0], found[1:], expected[1:])

# Rows of its own without a reduction, whose sum has the gradient of the sum.
def gradients(loss_of, rows):
    x = torch.tensor(normal[rows], requires_grad=True)
    losses = loss_of(ids[rows], x)
    losses.sum().backward()
    return losses.detach(), x.grad

normal = rng.normal(size=(ROWS, 3)).astype("float32")
mine = slice(0, 9) if rank == 0 else slice(9, ROWS)
options = dict(margin=1.0, reduction="none")
each = gradients(losses.PairHinge(**options, across_replicas=True), mine)
whole = gradients(losses.PairHinge(**options), slice(None))
for found, expected in zip(each, whole):
    assert torch.allclose(found, expected[mine], 1e-5, 1e-5)

# All dtypes that labels, weights and embeddings have.
own = _keras.replicas(torch.zeros(3 - 3 * rank))
assert own.rows == ((0, 3), (3, 0))[rank]
for dtype in DTYPES:
    part = torch.tensor([0, 1, 2])[:3 - 3 * rank].to(getattr(torch, dtype))
    found = own.gather(part)
    # Keras widens what PyTorch can hardly reckon with.
    assert found.dtype == keras.ops.cast(part, dtype).dtype
    assert found.tolist() == [0, 1, 2 if dtype != "bool" else 1]

# The same error in both processes, of which one alone may be wrong.
def check_error(*given, says):
    try:
        _keras.replicas(*given)
    except ValueError as error:
        assert all(each in str(error) for each in says), str(error)
    else:
        raise AssertionError

two = torch.zeros(2, 3)
check_error(two, torch.zeros(3 - rank), says=["(3,)", "(2,)"])
check_error(two, [None, two][rank], says=["None", "1: ['torch.float32 (2, 3)'"])
check_error([two, two[:, 1:]][rank], says=["(2, 3)", "(2, 2)"])
check_error([two, two.double()][rank], says=["float32", "float64"])
check_error(torch.tensor(1.0), says=["()"])

# Twice the derivative: sum x_i x_j over all rows, and the square of its slope.
x = torch.tensor([1.0, 2.0, 3.0])[:3 - 2 * rank].requires_grad_()
every = _keras.replicas(x).gather(x)
slope, = torch.autograd.grad(every.sum() ** 2 / 2, x, create_graph=True)
assert slope.tolist() == [14.0] * len(x)
slope.square().sum().backward()
# d slope / d x_j is 2 in each of four rows.
assert x.grad.tolist() == [2 * 4 * 14.0 * 2] * len(x)

# One process may diagnose, and the others not wait.
if rank == 0:
    from keras_xent import diagnose
    model = model_of("embeddings")
    model.compile("sgd", losses.PairHinge(1.0, across_replicas=True),
                  metrics=metrics_of(losses.SymmetricKLHinge, True))
    assert np.isfinite(diagnose(model, x_all, ids).loss)
dist.destroy_process_group()
"""

CHECKS = {
    "tensorflow": MIRRORED,
    "jax": DATA_PARALLEL,
    "torch": TWO_PROCESSES,
}


@pytest.mark.thorough
def test_all_replicas_train_as_one_device(tmp_path):
    # JAX wants batches that its devices share evenly.
    last = 8 if BACKEND == "jax" else 5
    script = processes.START[BACKEND] + f"LAST = {last}\n" + CASES
    processes.run(script + CHECKS[BACKEND], tmp_path, devices=2)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_loss_keeps_the_option_and_needs_no_replicas(loss):
    config = loss.get_config()
    assert config["across_replicas"] is True
    again = type(loss).from_config(config)
    assert again.across_replicas is True
    alone = type(loss).from_config({**config, "across_replicas": False})
    x = normal(6, 1 if "axis" in config else 3)
    y = np.arange(6) % 3
    assert to_numpy(again(y, x)) == to_numpy(alone(y, x))


@pytest.mark.parametrize("cls", METRICS)
def test_a_metric_keeps_the_option_and_needs_no_replicas(cls):
    more = {"threshold": 0.5} if cls is metrics.DetectionCost else {}
    metric = cls(distance="cosine", across_replicas=True, **more)
    config = metric.get_config()
    assert config["across_replicas"] is True
    assert cls.from_config(config).across_replicas is True
    metric.update_state(np.arange(6) % 3, normal(6, 3))
    assert metric.histogram.counts().sum() == 15
