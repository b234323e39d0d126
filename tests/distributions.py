"""Builds sdist and wheel twice, and checks them as the index would.

    python tests/distributions.py
    python tests/distributions.py --tag v0.1.0 --keep dist    # for a release

The bytes must not depend on when they were built; the wheel holds the package
and nothing else, the sdist what builds the wheel as well; the index must be
able to show the README. Needs build, twine and check-wheel-contents.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
# What an sdist holds beside the package.
TOLD = {
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
}
# Where no git is: the first that a wheel, which is a zip, can tell.
EARLIEST = "315532800"  # 1980


def run(*command, **kwargs):
    subprocess.run([str(part) for part in command], check=True, **kwargs)


def built_at():
    """The time of the last commit, which is the same wherever it is built."""
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or EARLIEST


def build(folder, zone):
    """Wheel and sdist, from a copy without what lies about in a checkout."""
    copy = folder / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "keras_xent", copy / "keras_xent", ignore=ignored)
    for name in TOLD - {"PKG-INFO"}:
        shutil.copyfile(ROOT / name, copy / name)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": built_at(), "TZ": zone}
    command = [sys.executable, "-m", "build", "--outdir", folder / "dist"]
    run(*command, cwd=copy, env=environment, stdout=subprocess.DEVNULL)
    return sorted((folder / "dist").iterdir())


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def package_files():
    """What the package is made of."""
    files = [x for x in (ROOT / "keras_xent").rglob("*") if x.is_file()]
    files = [x for x in files if x.suffix == ".py" or x.name == "py.typed"]
    return {str(x.relative_to(ROOT)) for x in files}


def wrong_files(wheel, sdist):
    """What is missing, and what does not belong there."""
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    inside = {name for name in inside if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        files = [entry.name for entry in archive if entry.isfile()]
    source = {name.split("/", 1)[1] for name in files}
    package = package_files()
    return (inside ^ package) | (source ^ (package | TOLD))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", help="what the version must be, after a v")
    parser.add_argument("--keep", help="a folder for what was built")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # In two places, so that a path or a time zone would show as well.
        wheel, sdist = build(folder / "first", "UTC")
        again = build(folder / "second", "Asia/Tokyo")
        if [digest(f) for f in again] != [digest(f) for f in (wheel, sdist)]:
            sys.exit("built twice, and the bytes differ")
        wrong = wrong_files(wheel, sdist)
        if wrong:
            sys.exit(f"missing, or too much: {sorted(wrong)}")
        if given.tag and f"-{given.tag.removeprefix('v')}-" not in wheel.name:
            sys.exit(f"the tag is {given.tag}, the wheel {wheel.name}")
        run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
        run(sys.executable, "-m", "check_wheel_contents", wheel)
        for file in (sdist, wheel):
            print(digest(file), file.name)
            if given.keep:
                pathlib.Path(given.keep).mkdir(exist_ok=True)
                shutil.copy(file, given.keep)


if __name__ == "__main__":
    main()
