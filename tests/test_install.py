"""The package, alone with each backend, with the oldest and the next Keras."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

import keras
import pytest
from packaging.version import Version

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
# Other versions warn of other things.
OPTIONS = ("-q", "-x", "-W", "default")
OLDEST_KERAS = "3.14.0"
SOME = "Sparse or Linear or Sampled or Spearman or SymmetricKL or Verification"
SOME += " or Perplexity or Brier"

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


@pytest.mark.slow
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


@pytest.mark.thorough
def test_the_oldest_keras_passes_what_depends_on_keras(tmp_path):
    """The rest of the environment stays: only Keras is put before it."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    pip += ["--no-compile"]
    run(*pip, "--target", tmp_path, f"keras=={OLDEST_KERAS}")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    version = "import keras; print(keras.__version__)"
    found = run(sys.executable, "-c", version, env=environment, cwd=ROOT)
    assert found.split()[-1] == OLDEST_KERAS
    # How models train and are saved differs by backend, the rest does not: that
    # runs where it is quickest, and all classes instead of some of each base.
    chosen = f"(graph or saved) and ({SOME})"
    if BACKEND == "torch":
        chosen = "graph or saved"
        chosen += " or mask or weight_zero or reductions or formula"
        chosen += " or test_callback"
    chosen += " or test_keras"
    run(
        *[sys.executable, "-m", "pytest", *OPTIONS, "-k", chosen],
        *["tests/test_losses_contract.py", "tests/test_metrics_contract.py"],
        *["tests/test_masking.py", "tests/ops/test_crossentropy.py"],
        *["tests/diagnosis/test_callback.py", "tests/test_keras.py"],
        cwd=ROOT,
        env=environment,
    )


def next_keras(folder):
    """Installs the newest Keras that is no release; its folder and version."""
    found = []
    for name in ("keras-nightly", "keras"):
        target = folder / name
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
        pip += ["--no-compile", "--pre", "--target", str(target), name]
        if subprocess.run(pip, check=False, capture_output=True).returncode:
            continue  # The index does not have it.
        for wheel in importlib.metadata.distributions(path=[str(target)]):
            found.append((Version(wheel.version), target))
    newest, target = max(found, default=(Version("0"), None))
    if newest <= Version(keras.__version__):
        pytest.skip(
            f"the index has nothing newer than Keras {keras.__version__}"
        )
    return target, newest


@pytest.mark.thorough
def test_the_next_keras_passes_what_depends_on_its_inside(tmp_path):
    """A nightly build or a pre-release, put before the rest."""
    target, newest = next_keras(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    version = "import keras; print(keras.__version__)"
    found = run(sys.executable, "-c", version, env=environment, cwd=ROOT)
    assert Version(found.split()[-1]) == newest
    files = ["tests/test_keras.py", "tests/test_masking.py"]
    if BACKEND == "jax":  # whose training has the most inside
        files += ["tests/diagnosis/test_callback.py"]
    if BACKEND == "torch":  # where the rest is quickest
        files += ["tests/diagnosis/test_calls.py", "tests/layers"]
        files += ["tests/test_losses_contract.py"]
        files += ["tests/test_metrics_contract.py"]
    run(
        *[sys.executable, "-m", "pytest", *OPTIONS, *files],
        # What compiles on PyTorch takes longer than all the rest.
        *["-k", "not jit and not compil and not floatx"],
        cwd=ROOT,
        env=environment,
    )
