"""The examples at small size, each in a process of its own.

sphinx-gallery was tried first. It wants a docstring in reStructuredText, where
ours are Markdown that `--help` and GitHub show as well; it shows a program that
is made of functions as one block, hundreds of lines above what it prints; and
it runs all of them in one process, where those need their own that make devices
before they import a framework.
"""

import concurrent.futures
import dataclasses
import importlib.util
import os
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
import time

LONGEST = 1800  # seconds of a program, on a machine that does much else
# Small runs compile for longer than they compute.
QUICKLY = "--xla_backend_optimization_level=0"


@dataclasses.dataclass(frozen=True)
class Small:
    """How a program is run at small size, and which packages it is to have."""

    arguments: str
    needs: tuple = ("matplotlib", "sklearn")  # names to import


SMALL = {
    "calibration": Small("--small --plots plots"),
    "distributed": Small("--small --devices 4 --words 2000", ()),
    "language_model": Small("--small --plots plots", ("matplotlib",)),
    "retrieval": Small("--small --plots plots"),
    "siamese_speaker": Small(
        "--small --plots plots",
        ("aeon", "matplotlib", "sklearn"),
    ),
    "spearman": Small("--small --plots plots"),
    "two_towers": Small("--small --plots plots"),
    "verification": Small(
        "--similarities --scores trials.txt --plots plots", ("matplotlib",)
    ),
    "whats_wrong": Small("--epochs 5 --plots plots", ("matplotlib",)),
    "word_window": Small("--small", ()),
}


@dataclasses.dataclass
class Shown:
    """What a run has printed, and its pictures; or why there was none."""

    command: str
    output: str = ""
    seconds: float = 0.0
    pictures: dict = dataclasses.field(default_factory=dict)
    missing: tuple = ()


def run_all(programs):
    """What each program shows, by its name."""
    # One alone keeps a core busy while it compiles.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(programs, pool.map(run, programs), strict=True))


def run(program):
    """Runs a program where it can write what it likes."""
    small = SMALL[program.stem]
    command = f"python {program.name} {small.arguments}"
    missing = [x for x in small.needs if importlib.util.find_spec(x) is None]
    if missing:
        return Shown(command, missing=tuple(missing))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if "trials.txt" in small.arguments:
            (folder / "trials.txt").write_text(trials())
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, program, *shlex.split(small.arguments)],
            cwd=folder,
            env=environment(program.parents[1]),
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        seconds = time.monotonic() - start
        if done.returncode:
            raise RuntimeError(f"{command}\n{done.stdout}{done.stderr}")
        files = sorted(folder.glob("plots/*.png"))
        pictures = {file.stem: file.read_bytes() for file in files}
    return Shown(command, done.stdout.rstrip(), seconds, pictures)


def environment(root):
    given = os.environ
    path = os.pathsep.join(filter(None, [str(root), given.get("PYTHONPATH")]))
    flags = given.get("XLA_FLAGS", QUICKLY)
    # The programs share the cores: threads would wait for each other.
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return {**given, **quiet, "PYTHONPATH": path, "XLA_FLAGS": flags}


def trials():
    """Scores of pairs, a match in four, for a program that reads a file."""
    draw = random.Random(0)
    rows = ((draw.gauss(2 * match, 1), match) for match in (0, 0, 0, 1) * 500)
    return "".join(f"{score:.4f} {match}\n" for score, match in rows)
