"""How many small errors in `keras_xent.ops` the tests notice.

    pip install -e ".[mutation]"
    KERAS_BACKEND=torch python tests/mutants.py

cosmic-ray makes mutants: copies of the package with one operator, number,
condition or decorator changed. This takes a sample of them, the same for the
same code and seed, runs for each the tests that speak of its module, in a copy
of the repository, and shows every mutant that no test notices. `--module hull`
takes all of its sample from one module. What was done stays in `--session`: a
second call goes on from there, with `--again` it tries the survivors once more,
and `cr-html` makes a page of it. Type hints and what errors say are left out.
"""

import argparse
import ast
import collections
import compileall
import contextlib
import gc
import multiprocessing
import os
import pathlib
import py_compile
import random
import re
import shutil
import sys
import tempfile

import pytest
from cosmic_ray import mutating, plugins
from cosmic_ray.commands.init import init
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

ROOT = pathlib.Path(__file__).resolve().parents[1]
OPS = pathlib.Path("keras_xent", "ops")
SEED = 0
SAMPLE = 330
# Also of a module of three lines.
LEAST = 2
# A mutant that takes longer never ends.
LIMIT = 900

# What no test could miss (`<<` of two floats), and what means the same, as `is`
# and `==` do between small integers.
LEFT_OUT = re.compile(
    r".*_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(Mod|Pow|[LR]Shift|Bit\w+)$"
    r"|.*_([LR]Shift|Bit[A-Z][a-z]+)_(?!Bit)\w+$"
    r"|.*_(Eq|NotEq|Lt|LtE|Gt|GtE)_(Is|IsNot)$"
    r"|.*_UAdd|.*_USub_(Invert|Not)$|.*_Invert_(USub|Not)$"
)

# The tests of a module are in the file of its name. Some have none, being a
# part of others, and of some the others' tests say more.
BESIDES = {
    "blocks": ["ops/test_blockwise.py"],
    "blockwise": ["ops/test_devices.py"],
    "description": ["ops/test_blockwise.py"],
    "direction": ["metrics/test_direction.py"],
    "own_softmax": ["ops/test_crossentropy.py"],
    "in_batch": [
        "ops/test_contrastive.py",
        "losses/test_contrastive.py",
        "test_some_rows.py",
    ],
    "logits": ["ops/test_blockwise.py"],
    "partners": ["losses/test_contrastive.py", "ops/test_triplet.py"],
    "prefix": ["ops/test_roc.py"],
    "moments": ["ops/test_correlation.py", "ops/test_rank.py"],
    "probabilities": [
        "ops/test_entropy.py",
        "ops/test_brier.py",
        "ops/test_temperature.py",
    ],
    "public": ["test_ops_contract.py"],
    "reductions": ["ops/test_contrastive.py"],
    "roc": ["metrics/test_verification.py", "metrics/test_threshold_metric.py"],
    "rows": [
        "losses/test_base.py",
        "losses/test_crossentropy.py",
        "ops/test_linear.py",
        "ops/test_sampled.py",
    ],
    "sampled": ["losses/test_sampled.py"],
    "sigmoid": ["ops/test_own_softmax.py", "losses/test_crossentropy.py"],
    "targets": ["ops/test_linear.py", "ops/test_contrastive.py"],
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--session", default="mutants.sqlite")
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--module", default="*")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    session = pathlib.Path(options.session).resolve()
    with tempfile.TemporaryDirectory() as copy:
        for name in ("keras_xent", "tests"):
            shutil.copytree(ROOT / name, pathlib.Path(copy, name))
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, copy)
        # By its bytes: a mutant may be as old and as long as what it was.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(copy, quiet=1, invalidation_mode=by_hash)
        os.chdir(copy)
        # The copy comes before what is installed, and before `tests` here.
        sys.path[0] = copy
        is_new = not session.exists()
        with use_db(session) as db:
            if is_new:
                modules = sorted(OPS.glob(f"{options.module}.py"))
                draw(db, modules, options.sample, options.seed)
            todo = survivors(db) if options.again else db.pending_work_items
            run(db, todo)
            check(db)
            report(db)


def draw(db, modules, size, seed):
    """Leaves a sample of all mutants in the session."""
    init(modules, db, {})
    places = collections.defaultdict(lambda: collections.defaultdict(list))
    for item in db.work_items:
        (mutation,) = item.mutations
        if not LEFT_OUT.match(mutation.operator_name):
            here = places[mutation.module_path]
            here[mutation.start_pos].append(item)
    total = sum(map(len, places.values()))
    chance = random.Random(seed)
    sample = []
    for path, here in sorted(places.items()):
        drawn = real(one_of_each(here, chance), path.read_text())
        count = max(LEAST, round(size * len(here) / total))
        sample += [item for item, _ in zip(drawn, range(count), strict=False)]
    db.clear()
    db.add_work_items(sample)


def one_of_each(places, chance):
    """One mutant of each place in a module: a product has many."""
    chosen = [
        chance.choice(sorted(items, key=lambda x: str(x.mutations)))
        for _, items in sorted(places.items())
    ]
    chance.shuffle(chosen)
    return chosen


def real(items, code):
    """Those that change what a program does: no type hint, no message."""
    for item in items:
        (mutation,) = item.mutations
        operator = plugins.get_operator(mutation.operator_name)()
        mutant = mutating.mutate_code(code, operator, mutation.occurrence)
        with contextlib.suppress(SyntaxError):  # the `*` of a signature
            if bare(mutant) != bare(code):
                yield item


def bare(code):
    return ast.dump(Bare().visit(ast.parse(code)))


class Bare(ast.NodeTransformer):
    """Code without type hints and without what an error says."""

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node):
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node):
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Raise(self, node):
        return ast.Raise()


def survivors(db):
    done = db.completed_work_items
    return [item for item, result in done if not result.is_killed]


def run(db, items):
    """Runs the tests for each of some mutants."""
    # Once for all: a process that tests begins as a copy of this one.
    import hypothesis.extra.numpy  # noqa: F401
    import keras
    import mpmath  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401

    assert "keras_xent" not in sys.modules, keras.__file__
    # What all share is neither looked through nor copied.
    gc.freeze()
    items = sorted(items, key=lambda x: str(x.mutations))
    for i, item in enumerate(items):
        (mutation,) = item.mutations
        path = mutation.module_path
        operator = plugins.get_operator(mutation.operator_name)()
        with mutating.use_mutation(path, operator, mutation.occurrence) as both:
            code, output = run_tests(path, mutation.operator_name)
        diff = "\n".join(mutating._make_diff(*both, path))
        survived = code == pytest.ExitCode.OK
        outcome = TestOutcome.SURVIVED if survived else TestOutcome.KILLED
        result = WorkResult(WorkerOutcome.NORMAL, output, outcome, diff)
        db.set_result(item.job_id, result)
        say(f"{i + 1}/{len(items)} {path} {outcome.value}")
        if survived:
            say(diff)


def check(db):
    """Tests that notice every mutant may fail without one."""
    missed = paths(survivors(db))
    for path in sorted(paths(db.work_items) - missed):
        code, output = run_tests(path)
        if code != pytest.ExitCode.OK:
            sys.exit(f"{output}\nThe tests of {path} fail without mutants.")


def paths(items):
    return {item.mutations[0].module_path for item in items}


def run_tests(path, operator=""):
    """The exit code of the tests of a module, and what they said."""
    own = pathlib.Path("tests", "ops", f"test_{path.stem}.py")
    others = [f"tests/{name}" for name in BESIDES.get(path.stem, ())]
    files = [str(own)] * own.exists() + others
    if operator.endswith("RemoveDecorator"):
        # What a decorator promises is asked of all operations at once.
        files.append("tests/test_ops_contract.py")
    with tempfile.NamedTemporaryFile("w+") as log:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=child_main, args=(files, log.fileno()))
        child.start()
        child.join(LIMIT)
        if child.is_alive():
            child.kill()
            child.join()
        log.seek(0)
        return child.exitcode, log.read()[-2000:]


def child_main(files, log):
    os.dup2(log, 1)
    os.dup2(log, 2)
    # All cases, and what noticed one mutant first for the next.
    every = ["-m", "thorough or not thorough", "--ff"]
    sys.exit(pytest.main(["-x", "-q", *every, "-W", "ignore", *files]))


def report(db):
    outcomes = [result.test_outcome for _, result in db.results]
    killed = outcomes.count(TestOutcome.KILLED)
    say(f"{len(outcomes)} mutants, {killed} killed")


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    main()
