"""What several devices give, beside what one gives.

A script that test_several_devices.py runs in processes of their own: devices
are made before a framework starts. It prints the name of each check that held.
On PyTorch it runs in two processes, `RANK` 0 and 1, which meet in a file.
"""

import contextlib
import io
import os
import pathlib
import re

import keras
import numpy as np

import keras_xent
from keras_xent import layers, losses, metrics

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "more_than_one_device.md"
BACKEND = keras.backend.backend()
ROWS, CLASSES = 64, 5

rng = np.random.default_rng(0)
x = rng.normal(size=(ROWS, 4)).astype("float32")
ids = rng.integers(0, CLASSES, ROWS)
match = rng.integers(0, 2, (ROWS, 1))
score = (rng.normal(size=(ROWS, 1)) + match).astype("float32")
weight = rng.random(ROWS).astype("float32")
# The rows of the second half weigh next to nothing.
uneven = np.where(np.arange(ROWS) < ROWS // 2, 1.0, 0.01).astype("float32")
VERIFICATION = {"similarity": True, "resolution": 1, "name": "v"}


def run_block(word, **scope):
    """Runs the block of the page that has a word, and returns its names."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (block,) = (block for block in blocks if word in block)
    scope = {"keras_xent": keras_xent, **scope}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block, PAGE.name, "exec"), scope)
    return scope


def the_same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys(), (found, expected)
    for key, value in expected.items():
        assert abs(float(found[key]) - float(value)) <= tolerance, (
            key,
            float(found[key]),
            float(value),
        )


def verification():
    alone = metrics.VerificationMetrics(**VERIFICATION)
    alone.update_state(match, score, weight)
    return alone


def same_verification(metric):
    alone = verification()
    assert np.array_equal(metric.histogram.counts(), alone.histogram.counts())
    the_same(metric.result(), alone.result())
    assert metric.bounds() == alone.bounds()


def spearman(capacity):
    alone = metrics.SpearmanCorrelation(capacity=capacity)
    alone.update_state(match, score)
    return float(alone.result())


def evaluated(*given):
    """The logs of metrics of the scores, in a model that gives them back."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile(loss="mse", weighted_metrics=list(given))
    return model.evaluate(
        *(score, match),
        sample_weight=weight,
        batch_size=ROWS // 2,
        verbose=0,
        return_dict=True,
    )


def same_logs():
    metric = metrics.VerificationMetrics(**VERIFICATION)
    logs = evaluated(metric)
    same_verification(metric)
    the_same({k: v for k, v in logs.items() if k != "loss"}, metric.result())


def spearman_logs(capacity):
    metric = metrics.SpearmanCorrelation(capacity=capacity, name="rho")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile(loss="mse", metrics=[metric])
    logs = model.evaluate(
        score, match, batch_size=ROWS // 2, verbose=0, return_dict=True
    )
    assert len(metric.variables) > 0
    return logs["rho"]


def classifier(last=None):
    inputs = keras.Input((4,))
    last = last or keras.layers.Dense(
        CLASSES, kernel_initializer=keras.initializers.Orthogonal(seed=1)
    )
    return keras.Model(inputs, last(inputs))


LOSSES = {
    "keras": lambda reduction: keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction
    ),
    "ours": lambda reduction: losses.SparseSoftmaxCrossentropy(
        reduction=reduction
    ),
}


def trained(loss, sample_weight):
    """The kernel after one step of all rows."""
    model = classifier()
    model.compile(keras.optimizers.SGD(1.0), loss=loss)
    model.fit(
        *(x, ids),
        sample_weight=sample_weight,
        batch_size=ROWS,
        verbose=0,
        shuffle=False,
    )
    return model.get_weights()[0]


def sampler(seed):
    """A model whose loss draws two of the classes, by a seed."""
    keras.utils.set_random_seed(1)
    model = classifier(layers.LinearHead(CLASSES, sampled=True, seed=seed))
    loss = losses.SampledSoftmaxCrossentropy(2, distribution="uniform")
    model.compile(keras.optimizers.SGD(1.0), loss)
    return model, loss


def trained_on_a_sample():
    """The class vectors after a step of all rows."""
    model, _ = sampler(seed=0)
    model.fit(x, ids, batch_size=ROWS, verbose=0, shuffle=False)
    return model.get_weights()[0]


# JAX: DataParallel over 8 devices -------------------------------------------


def on_jax():
    import jax

    assert len(jax.devices()) == 8
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    same_logs()
    yield "metrics"
    assert abs(spearman_logs(ROWS) - spearman(ROWS)) < 1e-6
    assert np.isnan(spearman_logs(ROWS - 1))
    yield "pairs"
    model = run_block("DeviceMesh", keras=keras)["model"]
    # Two rows for each of the devices of the batch's axis.
    model.fit(rng.normal(size=(4, 64)), np.arange(4), verbose=0)
    kernel = model.layers[-1].weights[0].value
    assert {x.data.shape for x in kernel.addressable_shards} == {(64, 8192)}
    yield "classes"


# TensorFlow: MirroredStrategy over 2 devices ---------------------------------


def on_tensorflow():
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        same_logs()
    yield "metrics"
    with strategy.scope():
        assert np.isnan(spearman_logs(ROWS))
        rho = spearman_logs(None)
    assert abs(rho - spearman(None)) < 1e-6
    yield "pairs"
    for make in LOSSES.values():
        alone = trained(make("mean_with_sample_weight"), uneven)
        with strategy.scope():
            replicas = trained(make("mean_with_sample_weight"), uneven)
        assert np.abs(replicas - alone).max() > 0.01
        with strategy.scope():
            model = classifier()
        given = {"x": x, "y": ids, "weight": uneven, "model": model}
        run_block("strategy.scope", tf=tf, strategy=strategy, **given)
        # The page trains with "sgd", whose steps are a hundred times smaller.
        before = classifier().get_weights()[0]
        right = before + 100 * (model.get_weights()[0] - before)
        np.testing.assert_allclose(right, alone, atol=1e-4)
    yield "means"
    alone = trained_on_a_sample()
    with strategy.scope():
        np.testing.assert_allclose(trained_on_a_sample(), alone, atol=1e-6)
    yield "samples"


# PyTorch: two processes ------------------------------------------------------


def on_torch():
    import torch
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    meet = "file://" + os.environ["MEET"]
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    try:
        mine = slice(rank, None, 2)
        for check in (
            sum_of_metrics,
            sum_of_a_model,
            sum_of_a_part,
            heads_under_ddp,
            temperature_under_ddp,
            pairs_across_processes,
            means_under_ddp,
            samples_under_ddp,
            fully_sharded,
        ):
            torch.manual_seed(0)
            keras.utils.set_random_seed(0)
            check(mine)
            dist.barrier()
            yield check.__name__
    finally:
        dist.destroy_process_group()


def raised(error, function):
    try:
        function()
    except error as found:
        return str(found)
    raise AssertionError(f"no {error.__name__}")


def sum_of_metrics(mine):
    metric = metrics.VerificationMetrics(**VERIFICATION)
    # One holds all pairs, and one all but one.
    whole, part = (
        metrics.SpearmanCorrelation(capacity=n) for n in (ROWS, ROWS - 1)
    )
    table = metrics.SpearmanCorrelation(capacity=None)
    auc = keras.metrics.AUC(num_thresholds=20)
    given = {"v": metric, "rest": [whole, part, table, auc]}
    for _ in range(2):
        metric.update_state(match[mine], score[mine], weight[mine])
        for each in (whole, part, table):
            each.update_state(match[mine], score[mine])
        auc.update_state(match[mine], 1 / (1 + np.exp(-score[mine])))
        for _ in range(2):  # The second time it changes nothing.
            metrics.all_reduce(given)
        same_verification(metric)
        assert abs(float(whole.result()) - spearman(ROWS)) < 1e-6
        assert np.isnan(float(part.result()))
        assert abs(float(table.result()) - spearman(None)) < 1e-6
        assert float(keras.ops.sum(table.state.exact())) == ROWS
        assert float(auc.true_positives[0]) == match.sum()
        # One process alone has new rows: an error in both.
        if mine.start == 0:
            metric.update_state(match[:1], score[:1])
        said = raised(ValueError, lambda: metrics.all_reduce(given))
        assert "updated after a sum, summed" in said, said
        for each in (metric, whole, part, table, auc):
            each.reset_state()
    if mine.start == 0:
        given = [metric]
    said = raised(ValueError, lambda: metrics.all_reduce(given))
    assert "in every process" in said, said


def heads_model():
    inputs = keras.Input((4,))
    head = layers.LinearHead(CLASSES, metrics=["accuracy", "perplexity"])
    outputs = {
        "ids": head(keras.layers.Dense(3)(inputs)),
        "score": keras.layers.Dense(1)(inputs),
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd",
        loss={"ids": losses.LinearCrossentropy(), "score": "mse"},
        metrics={
            "score": [
                metrics.EqualErrorRate(similarity=True, resolution=1),
                keras.metrics.MeanAbsoluteError(),
                keras.metrics.BinaryAccuracy(),
            ]
        },
    )
    return model


def sum_of_a_model(mine):
    model, alone = heads_model(), heads_model()
    alone.set_weights(model.get_weights())
    expected = alone.evaluate(
        x, {"ids": ids, "score": match}, verbose=0, return_dict=True
    )
    assert len(expected) == 8, expected
    for _ in range(2):
        logs = model.evaluate(
            x[mine],
            {"ids": ids[mine], "score": match[mine]},
            batch_size=9,
            verbose=0,
            return_dict=True,
        )
        assert abs(logs["loss"] - expected["loss"]) > 1e-3
        metrics.all_reduce(model)
        metrics.all_reduce(model)
        the_same(model.get_metrics_result(), expected, tolerance=1e-5)


def sum_of_a_part(mine):
    """A process outside of the group does nothing."""
    import torch.distributed as dist

    group = dist.new_group([1])
    metric = keras.metrics.Sum()
    metric.update_state(1.0)
    metrics.all_reduce(metric, group=group)
    assert float(metric.result()) == 1
    metrics.all_reduce(metric, group=dist.new_group([0, 1]))
    assert float(metric.result()) == 2


COPIES = ({"find_unused_parameters": True}, {"static_graph": True})


def gradients(model):
    return [v.value.grad.numpy().copy() for v in model.trainable_variables]


def gradients_of(module, model, loss):
    """The gradients after one backward pass of a loss."""
    module.zero_grad()
    loss.backward()
    return gradients(model)


def all_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def heads_under_ddp(mine):
    import torch
    from torch.nn.parallel import DistributedDataParallel as Parallel

    loss = losses.LinearCrossentropy()
    head = layers.LinearHead(CLASSES)
    model = classifier(keras.Sequential([keras.layers.Dense(3), head]))
    rows, labels = torch.tensor(x[mine]), torch.tensor(ids[mine])
    expected = gradients_of(
        model, model, loss(ids, model(torch.tensor(x), training=True))
    )
    given = {"model": model, "loss": loss, "x": rows, "y": labels}
    given |= {"torch": torch, "DistributedDataParallel": Parallel}
    for word in ("training=True)).backward()", "find_unused_parameters"):
        model.zero_grad()
        run = run_block(word, **given)
        all_close(gradients(model), expected)
    with_loss = run["WithLoss"](model, loss)
    for options in COPIES:
        module = Parallel(model, **options)
        said = raised(
            ValueError, lambda m=module: loss(labels, m(rows, training=True))
        )
        for word in ("find_unused_parameters=True", "static_graph=True"):
            assert word in said, said
        assert "torch.nn.Module whose forward returns the loss" in said
        module = Parallel(with_loss, **options)
        for _ in range(2):
            found = gradients_of(module, model, module(rows, labels))
            all_close(found, expected)


def temperature_under_ddp(mine):
    import torch
    from torch.nn.parallel import DistributedDataParallel as Parallel

    head = layers.SimilarityHead(temperature=0.5, bias=-3.0)
    model = classifier(keras.Sequential([keras.layers.Dense(3), head]))
    loss = losses.SigmoidContrastive()
    rows, labels = torch.tensor(x[mine]), torch.tensor(ids[mine])
    expected = float(loss(labels, model(rows, training=True)).detach())
    found = loss(labels, Parallel(model)(rows, training=True))
    assert abs(float(found.detach()) - expected) < 1e-6
    for options in COPIES:
        module = Parallel(model, **options)
        output = module(rows, training=True)
        said = raised(ValueError, lambda y=output: loss(labels, y))
        for word in ("find_unused_parameters=True", "static_graph=True"):
            assert word in said, said
        assert "its temperature and bias" in said, said
        given = losses.SigmoidContrastive(temperature=0.5, bias=-3.0)
        found = given(labels, output)
        assert abs(float(found.detach()) - expected) < 1e-6
    one = losses.SigmoidContrastive(temperature=0.5)
    said = raised(ValueError, lambda: one(labels, output))
    assert "the loss its bias." in said, said
    info = losses.InfoNCE()
    said = raised(ValueError, lambda: info(labels, output))
    assert "the loss its temperature." in said, said


def means_under_ddp(mine):
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel as Parallel

    # The heavy rows are those of one process.
    half = slice(ROWS // 2) if mine.start == 0 else slice(ROWS // 2, None)
    rows, labels = torch.tensor(x[half]), torch.tensor(ids[half])
    weights = torch.tensor(uneven[half])
    for make in LOSSES.values():
        model = classifier()
        module = Parallel(model)
        loss = make("mean_with_sample_weight")
        alone = gradients_of(
            model, model, loss(ids, model(torch.tensor(x)), uneven)
        )
        found = gradients_of(module, model, loss(labels, module(rows), weights))
        assert np.abs(found[0] - alone[0]).max() > 0.01
        module.zero_grad()
        given = {"x": rows, "y": labels, "weight": weights}
        run_block("dist.all_reduce", dist=dist, ddp=module, **given)
        all_close(gradients(model), alone)


def pairs_across_processes(mine):
    import torch
    from torch.nn.parallel import DistributedDataParallel as Parallel

    model = classifier()
    alone = model(torch.tensor(x))
    expected = gradients_of(model, model, losses.PairHinge(1.0)(ids, alone))
    accuracy = metrics.MatchAccuracy(distance="euclidean")
    accuracy.update_state(ids, alone)
    given = {"x": torch.tensor(x[mine]), "y": torch.tensor(ids[mine])}
    model.zero_grad()
    run = run_block("across_replicas", ddp=Parallel(model), **given)
    all_close(gradients(model), expected)
    found = run["metric"]
    assert found.histogram.counts().sum() == ROWS * (ROWS - 1) / 2
    assert abs(float(found.result()) - float(accuracy.result())) < 1e-3


def samples_under_ddp(mine):
    """DDP makes the seeds of all processes those of the first."""
    import torch
    from torch.nn.parallel import DistributedDataParallel as Parallel

    model, loss = sampler(seed=0)
    output = model(torch.tensor(x), training=True)
    expected = gradients_of(model, model, loss(ids, output))
    model, loss = sampler(seed=mine.start)
    module = Parallel(model)
    output = module(torch.tensor(x[mine]), training=True)
    all_close(gradients_of(module, model, loss(ids[mine], output)), expected)


def fully_sharded(mine):
    """What docs/more_than_one_device.md says of FSDP2 is still so."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    torch_model = torch.nn.Linear(4, CLASSES)
    cases = [
        (classifier(layers.LinearHead(CLASSES)), losses.LinearCrossentropy()),
        (classifier(), LOSSES["keras"]("sum_over_batch_size")),
        (torch_model, torch.nn.functional.cross_entropy),
    ]
    for model, loss in cases:
        fully_shard(model, mesh=mesh)
        sharded = list(model.parameters())
        assert all(x.to_local().shape != x.shape for x in sharded)
        rows, labels = torch.tensor(x[mine]), torch.tensor(ids[mine])
        if model is torch_model:
            loss(model(rows), labels).backward()
            assert all(x.grad is not None for x in sharded)
            continue
        loss(labels, model(rows, training=True)).backward()
        # Keras goes on with the whole weights, and with gradients of its rows.
        assert all(x.grad is None for x in sharded)
        for variable in model.trainable_variables:
            value, gradient = variable.value, variable.value.grad
            assert tuple(value.shape) == tuple(gradient.shape)
            both = [torch.empty_like(gradient) for _ in range(2)]
            torch.distributed.all_gather(both, gradient)
            assert not torch.allclose(*both)


if __name__ == "__main__":
    for name in globals()[f"on_{BACKEND}"]():
        print(name, flush=True)
