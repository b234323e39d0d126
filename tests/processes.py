"""Scripts on several devices, in processes of their own.

Devices are made before a framework starts, and frameworks take their time to
start: give a script all that there is to check.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.testing import BACKEND

ROOT = Path(__file__).parents[1]

# What makes the devices: two replicas, several devices, two processes.
START = {
    "tensorflow": """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
""",
    "jax": """
import jax
import keras
assert len(jax.devices()) > 1
distribution = keras.distribution.DataParallel()
""",
    "torch": """
import os
import torch
import torch.distributed as dist
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method="file://" + os.environ["MEET"],
                        rank=rank, world_size=2)
""",
}


def outputs(*arguments, folder, devices=8, timeout=300):
    """What Python prints, and its errors: in two processes on PyTorch.

    Args:
        *arguments: Those of Python.
        folder: A folder of its own, where the processes meet.
        devices: How many JAX has.
        timeout: How many seconds a process may take.
    """
    of_xla = os.environ.get("XLA_FLAGS", "")
    many = f"--xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{of_xla} {many}",
        "JAX_ENABLE_X64": "0",
        "MEET": str(folder / "meet"),
    }
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2 if BACKEND == "torch" else 1)
    ]
    try:
        return [process.communicate(timeout=timeout) for process in started]
    finally:
        # One that waits for another that is gone.
        for process in started:
            process.kill()


def run(script, folder, *arguments, devices=8):
    """Runs a script, Python as text, that ends by printing "done"."""
    file = folder / "script.py"
    file.write_text(script + '\nprint("done")\n')
    for said, errors in outputs(
        file, *arguments, folder=folder, devices=devices
    ):
        assert said.split()[-1:] == ["done"], errors[-3000:]
