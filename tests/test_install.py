"""The package, installed alone with each backend."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.testing import BACKEND

ROOT = pathlib.Path(__file__).parents[1]

# What the test extra of pyproject.toml asks for: the small builds.
PACKAGE = {
    "tensorflow": "tensorflow-cpu"
    if sys.platform == "linux" and os.uname().machine == "x86_64"
    else "tensorflow",
    "jax": "jax",
    "torch": "torch==2.13.0",
}
OTHERS = [name for name in PACKAGE if name != BACKEND]

TRAIN = """
import importlib.util
import numpy as np
import keras
import keras_xent

for other in {others}:
    assert importlib.util.find_spec(other) is None, other + " is installed"
assert keras.backend.backend() == {backend!r}
x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
y = np.argmax(x[:, :3], axis=1)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
model.compile(
    keras.optimizers.Adam(0.1),
    keras_xent.losses.SparseSoftmaxCrossentropy(),
    metrics=[keras_xent.metrics.MatchAccuracy(distance="symmetric_kl")],
)
losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
"""


def run(*command, **kwargs):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        **kwargs,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.thorough
def test_imports_and_trains_with_this_backend_alone(tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    # Python compiles the few modules that are imported; pip would all.
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    run(*pip, "--no-compile", ROOT, PACKAGE[BACKEND])
    program = TRAIN.format(others=OTHERS, backend=BACKEND)
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "JAX_ENABLE_X64")
    }
    environment["KERAS_BACKEND"] = BACKEND
    run(python, "-c", program, cwd=tmp_path, env=environment)
