"""Plain pytest on one backend, or all of them, each in a process of its own.

    KERAS_BACKEND=jax pytest tests/ops     # one, in this process
    pytest --all-backends                  # each of them
    pytest -m thorough --all-backends      # what a nightly run adds

Keras fixes its backend at import, so a process can test one. `--all-backends`
starts the others, as many at a time as there are cores, shows how far each has
come, and ends with what each has found. JAX gets a second one for the tests
marked `float64`, because there float64 is a switch that must be thrown before
the import.
"""

import collections
import concurrent.futures
import gc
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import zlib

import pytest

# The one that takes longest comes first.
BACKENDS = ("torch", "jax", "tensorflow")
CHILD = "KERAS_XENT_TEST_CHILD"
PYTEST = [sys.executable, "-m", "pytest"]
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED

# Tests run what they compile once or twice, so compiling well takes longer than
# it saves: a small function takes 44 ms of XLA on JAX, and 119 without these.
# `XLA_FLAGS=` before the command compiles as users do.
QUICKLY = {
    "jax": "--xla_backend_optimization_level=0 "
    "--xla_cpu_use_fusion_emitters=false",
    # Without its emitters XLA makes numbers of NaN here.
    "tensorflow": "--xla_backend_optimization_level=0",
}
# The first and the last JAX that know both: XLA ends a process, without a word,
# that is given a flag which it does not know.
KNOWN = (0, 6), (0, 11)

# What is NumPy on every backend but for a few calls, or one law for many
# losses, and takes most of an hour on those that compile: there it is for a
# thorough run.
ON_PYTORCH = tuple(
    pathlib.Path(__file__).parent / "tests" / name
    for name in (
        "benchmarks",
        "diagnosis",
        "docs",
        "examples",
        "test_install.py",
        # The same laws on each backend, of all losses, metrics and calls.
        "metrics/test_direction.py",
        "metrics/test_floatx.py",
        "test_bad_calls.py",
        "test_both_ways.py",
        "test_floatx.py",
    )
)
# Those few calls.
BUT = ("test_calls.py", "test_examine.py", "test_observe.py", "test_probe.py")

# Every test runs on PyTorch. The backends that compile take turns: of the tests
# of a module each runs half, and one case of each. A law that fails on one of
# them seldom fails for a single case, and classes and options take turns, too.
# What lies beside the folders (the contracts of all classes, what hangs on the
# inside of Keras) and what one backend alone runs has no turns. The rest is for
# a thorough run.
COMPILE = ("jax", "tensorflow")
CASES = 1
BESIDE = pathlib.Path(__file__).parent / "tests"

# JAX keeps all that it has compiled, and makes each further function slower by
# it: 40 ms of lowering after 5000 functions, 9 at first. What is made anew then
# comes from the cache on the disk.
COMPILED = 1500

# A line of a child that says how far it is.
PROGRESS = re.compile(r"\[ *\d+%\]$")

# Scripts: one wants devices that are made before it is imported, one a library
# of its own.
collect_ignore = ["tests/sharded_kernels.py", "tests/mutants.py"]


def _is_known(backend):
    """Whether the flags do not end a process with this backend."""
    if backend != "jax":
        return backend in QUICKLY
    version = importlib.metadata.version("jaxlib").split(".")[:2]
    return KNOWN[0] <= tuple(map(int, version)) <= KNOWN[1]


# PyTorch's compiler looks for the vector units in ten seconds of C++.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")
if _is_known(os.environ.get("KERAS_BACKEND")):
    os.environ.setdefault("XLA_FLAGS", QUICKLY[os.environ["KERAS_BACKEND"]])


def pytest_addoption(parser):
    parser.addoption(
        "--all-backends",
        action="store_true",
        help="run on every backend, each in a process of its own",
    )


def pytest_cmdline_main(config):
    if CHILD in os.environ or not config.option.all_backends:
        return None
    children = list(_children(config))
    # Compiling keeps one core busy, most of the time.
    with (
        tempfile.TemporaryDirectory() as cache,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        runs = [pool.submit(_run, config, cache, *child) for child in children]
        done = [run.result() for run in runs]
    print("\n".join(summary for _, summary in done), flush=True)
    ran = [code for code, _ in done if code != NO_TESTS]
    return max(ran, default=NO_TESTS)


def _children(config):
    for backend in BACKENDS:
        yield backend, {}, []
    marks = config.option.markexpr
    marks = f"({marks}) and float64" if marks else "float64"
    yield "jax", {"JAX_ENABLE_X64": "1"}, ["-m", marks]


def _run(config, cache, backend, environment, arguments):
    """One process: its exit code, and one line of what came out."""
    name = backend + "".join(f" {k}={v}" for k, v in environment.items())
    environment = {
        **os.environ,
        # JAX compiles the same step for many tests: once is enough.
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **environment,
        # The processes share the cores: threads would wait for each other.
        "OMP_NUM_THREADS": "1",
        CHILD: "1",
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    given = map(str, config.invocation_params.args)
    # No cache: the processes would write to one file at the same time.
    command = [*PYTEST, *given, *arguments, "-p", "no:cacheprovider"]
    start = time.monotonic()
    with subprocess.Popen(
        command,
        env=environment,
        cwd=config.invocation_params.dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said = [x.rstrip() for x in process.stdout if not _shown(name, x)]
    seconds = round(time.monotonic() - start)
    with SAYING:
        print(f"\n===== {name}: {seconds} s", *said, sep="\n", flush=True)
    last = said[-1].strip("= \n") if said else "no output"
    return process.returncode, f"{name}: {last}"


# Two processes that say many lines do not say them at once.
SAYING = threading.Lock()


def _shown(name, line):
    """Shows a line that says how far a process is, and says so."""
    is_progress = bool(PROGRESS.search(line.rstrip()))
    if is_progress:
        with SAYING:
            print(f"{name}: {line}", end="", flush=True)
    return is_progress


def pytest_collection_finish():
    # What is imported stays, and a trace makes many objects that live on: do
    # not look through all of them again and again.
    gc.freeze()
    gc.set_threshold(50_000)


class _Forgetful:
    """Has JAX forget what it has compiled, every now and then."""

    def __init__(self):
        import jax
        from jax import monitoring

        self.forget, self.compiled = jax.clear_caches, 0
        monitoring.register_event_duration_secs_listener(self.count)

    def count(self, event, duration, **_):
        self.compiled += event.endswith("backend_compile_duration")

    def pytest_runtest_teardown(self):
        if self.compiled >= COMPILED:
            self.compiled = 0
            self.forget()


class _Profile:
    """Where the time of a process goes: seconds of the files or folders."""

    def __init__(self):
        self.seconds = collections.Counter()

    def pytest_runtest_logreport(self, report):
        place = "/".join(report.nodeid.partition("::")[0].split("/")[:2])
        self.seconds[place] += report.duration

    def pytest_terminal_summary(self, terminalreporter):
        most = self.seconds.most_common(8)
        shown = ", ".join(f"{place} {time:.0f}" for place, time in most)
        terminalreporter.write_line(f"Seconds: {shown}")


def pytest_configure(config):
    if CHILD in os.environ:
        config.pluginmanager.register(_Profile())
    if os.environ.get("KERAS_BACKEND") == "jax":
        config.pluginmanager.register(_Forgetful())


def _beyond_the_sample(items, backend, turns):
    """Tests whose turn it is not, and the cases of others but `CASES`."""
    tests = collections.defaultdict(list)
    for item in items:
        if not item.get_closest_marker("thorough"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for name, cases in tests.items():
        # The same in each process. Not the first class of a list each time.
        first, turn = divmod(zlib.crc32(name.encode()), len(COMPILE))
        kept = {
            (first + len(cases) * i // CASES) % len(cases) for i in range(CASES)
        }
        if turns and not _is_for_all(cases[0]) and backend != COMPILE[turn]:
            kept = set()
        yield from (case for i, case in enumerate(cases) if i not in kept)


def _is_for_thorough(path, backend):
    """Whether what is in a file is for a thorough run of this backend."""
    return (
        backend in COMPILE
        and path.name not in BUT
        and any(map(path.is_relative_to, ON_PYTORCH))
    )


def pytest_ignore_collect(collection_path, config):
    """Without what would be left out: it takes its time to import."""
    backend = os.environ.get("KERAS_BACKEND")
    if "thorough" in config.option.markexpr or collection_path.suffix != ".py":
        return None
    return True if _is_for_thorough(collection_path, backend) else None


def _is_for_all(item):
    """Whether a test has no turns."""
    return item.path.parent == BESIDE or item.get_closest_marker("skipif")


def pytest_collection_modifyitems(config, items):
    def leave_out(mark):
        elsewhere = {item for item in items if item.get_closest_marker(mark)}
        if elsewhere:
            config.hook.pytest_deselected(items=list(elsewhere))
            items[:] = [item for item in items if item not in elsewhere]

    backend = os.environ.get("KERAS_BACKEND")
    # Here float64 is a switch that is thrown before the import.
    x64 = os.environ.get("JAX_ENABLE_X64") == "1"
    if backend == "jax" and not x64:
        leave_out("float64")
    if backend == "torch":
        # Its compiler runs through much that warns, within Keras and within
        # itself, and an error there ends it.
        for item in items:
            if "compil" in item.name:
                item.add_marker(pytest.mark.filterwarnings("ignore"))
    if backend in COMPILE:
        for item in items:
            if _is_for_thorough(item.path, backend):
                item.add_marker("thorough")
        # The few tests of float64 have a process of their own, and no turns.
        for item in _beyond_the_sample(items, backend, turns=not x64):
            item.add_marker("thorough")
    if "thorough" not in config.option.markexpr:
        leave_out("thorough")
