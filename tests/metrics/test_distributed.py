"""One state over several devices gives what one device gives.

Each test runs a small script in a process of its own: devices are made before
a framework starts. All scripts share the pairs and the check.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.testing import BACKEND

ROOT = Path(__file__).parents[2]

PAIRS = """
import os
import numpy as np
import keras
from keras_xent.metrics import VerificationMetrics

rng = np.random.default_rng(0)
match = rng.integers(0, 2, (64, 1))
score = (rng.normal(size=(64, 1)) + match).astype("float32")
weight = rng.random(64).astype("float32")
options = dict(similarity=True, resolution=1, name="v")

def check(metric):
    alone = VerificationMetrics(**options)
    alone.update_state(match, score, weight)
    assert np.array_equal(metric.histogram.counts(), alone.histogram.counts())
    found, expected = metric.result(), alone.result()
    for key in expected:
        assert abs(float(found[key]) - float(expected[key])) < 1e-6, key
    assert metric.bounds() == alone.bounds()
    print("same")

def evaluate(model):
    metric = VerificationMetrics(**options)
    model.compile(loss="mse", weighted_metrics=[metric])
    logs = model.evaluate(score, match, sample_weight=weight, batch_size=32,
                          verbose=0, return_dict=True)
    check(metric)
    for key, value in metric.result().items():
        assert abs(logs[key] - float(value)) < 1e-6, key
"""

MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    evaluate(keras.Sequential([keras.Input((1,)), keras.layers.Identity()]))
"""

DATA_PARALLEL = """
import jax
assert len(jax.devices()) == 8
keras.distribution.set_distribution(keras.distribution.DataParallel())
evaluate(keras.Sequential([keras.Input((1,)), keras.layers.Identity()]))
"""

# The two lines under "in every process" are those of docs/decisions.md.
TWO_PROCESSES = """
import torch.distributed as dist
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method="file://" + os.environ["MEET"],
                        rank=rank, world_size=2)
metric = VerificationMetrics(**options)
rows = slice(rank, None, 2)
metric.update_state(match[rows], score[rows], weight[rows])
# in every process
for variable in metric.variables:
    dist.all_reduce(variable.value)
check(metric)
dist.destroy_process_group()
"""

SCRIPTS = {
    "tensorflow": MIRRORED,
    "jax": DATA_PARALLEL,
    "torch": TWO_PROCESSES,
}


def test_the_sum_over_devices_is_that_of_one_pass(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PAIRS + SCRIPTS[BACKEND])
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_ENABLE_X64": "0",
        "MEET": str(tmp_path / "meet"),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, script],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2 if BACKEND == "torch" else 1)
    ]
    for process in processes:
        said, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        assert said.split() == ["same"]


def test_the_documented_lines_are_those_that_are_tested():
    page = (ROOT / "docs" / "decisions.md").read_text()
    lines = TWO_PROCESSES.split("# in every process\n")[1].splitlines()[:2]
    for line in lines:
        assert line.strip() in page
