"""Runs tests with the oldest or the newest allowed versions, or the next Keras.

    python tests/versions.py --backend jax --which oldest
    python3.13 tests/versions.py --backend torch --which nightly -- tests/ops -x
    python3.12 tests/versions.py --backend jax --which 0.11.0

Makes an environment under .venv-versions/ for the Python that runs this, or
takes the one that is there, and runs pytest in it: the contract tests and those
of what hangs on the inside of Keras, or what stands after `--`. "oldest" is
what `>=` says in pyproject.toml, of Keras and of the backend; "newest" is what
the index has; "nightly" is the newest backend with `keras-nightly`; a number is
that version of the backend.
"""

import argparse
import os
import pathlib
import platform
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
BACKENDS = ("jax", "tensorflow", "torch")
WHICH = ("oldest", "newest", "nightly")
# What the tests import beside Keras, of all that the extra `test` brings.
TOOLS = ("hypothesis", "mpmath", "pytest")
# What every class owes its user, and what hangs on the inside of Keras.
TESTS = [
    "tests/test_losses_contract.py",
    "tests/test_metrics_contract.py",
    "tests/test_ops_contract.py",
    "tests/test_keras.py",
    "tests/test_masking.py",
    "tests/diagnosis/test_callback.py",
]


def requirement(name):
    """Keras or a backend, as pyproject.toml asks for it: `name>=version`."""
    lines = PROJECT["dependencies"] if name == "keras" else EXTRAS[name]
    (line,) = lines
    return line


def small_build(line):
    """TensorFlow without what only a GPU needs, where there is such a wheel."""
    machine = (platform.system(), platform.machine())
    if machine != ("Linux", "x86_64"):
        return line
    return re.sub("^tensorflow(?=[>=])", "tensorflow-cpu", line)


def frameworks(backend, which):
    """Keras and the backend as pip is asked for them."""
    wanted = [requirement("keras"), requirement(backend)]
    if which == "oldest":
        wanted = [line.replace(">=", "==") for line in wanted]
    elif which not in WHICH:
        wanted[1] = f"{backend}=={which}"
    return [small_build(line) for line in wanted]


def tools():
    """What runs the tests, as pyproject.toml asks for it."""
    named = {re.match(r"[\w-]+", line)[0]: line for line in EXTRAS["test"]}
    return [*(named[name] for name in TOOLS), *EXTRAS["examples"]]


def make(folder, backend, which):
    """An environment with these versions and this package, to be edited."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip"]
    install = [*pip, "install", "-q"]
    wanted = [*frameworks(backend, which), *tools()]
    subprocess.run([*install, *wanted], check=True)
    if which == "nightly":  # which is the same folder `keras`
        subprocess.run([*pip, "uninstall", "-q", "-y", "keras"], check=True)
        subprocess.run([*install, "keras-nightly"], check=True)
    subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)
    # Said last, so that half an environment is not taken for one.
    (folder / "complete").touch()


def version(word):
    """One of `WHICH`, or a number."""
    if word in WHICH or re.fullmatch(r"\d+(\.\d+)*(rc\d+)?", word):
        return word
    names = ", ".join(WHICH)
    raise argparse.ArgumentTypeError(f"{word!r} is not {names} or a number")


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--which", type=version, required=True)
    parser.add_argument(
        "pytest",
        nargs="*",
        default=TESTS,
        help="after --: arguments of pytest in place of the contract tests",
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    given = parse(arguments)
    # Packages from elsewhere would hide that one is missing here.
    os.environ.pop("PYTHONPATH", None)
    python = "{}.{}".format(*sys.version_info)
    name = f"{given.backend}-{given.which}-{python}"
    folder = ROOT / ".venv-versions" / name
    if not (folder / "complete").exists():
        make(folder, given.backend, given.which)
    environment = {
        **os.environ,
        "KERAS_BACKEND": given.backend,
        # Compiled as users do: an XLA ends a process, without a word, that is
        # given a flag which it does not know.
        "XLA_FLAGS": "",
    }
    run = [folder / "bin" / "python", "-m"]
    subprocess.run([*run, "pip", "freeze"], check=True)
    done = subprocess.run(
        [*run, "pytest", "-W", "default", *given.pytest],
        cwd=ROOT,
        env=environment,
        check=False,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
