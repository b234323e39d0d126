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


def run(*command, **kwargs):
    subprocess.run([str(part) for part in command], check=True, **kwargs)


def last_commit():
    """The time of the last commit, which is the same wherever it is built."""
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.check_output(command, cwd=ROOT, text=True).strip()


def build(folder, zone):
    """Wheel and sdist, from what git knows of the working tree."""
    checkout = folder / "checkout"
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
    for name in filter(None, listed.splitlines()):
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": last_commit(), "TZ": zone}
    command = [sys.executable, "-m", "build", "--outdir", folder / "dist"]
    run(*command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
    return sorted((folder / "dist").iterdir())


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def package_files():
    """What the package is made of, by git."""
    command = ["git", "ls-files", "keras_xent"]
    return set(subprocess.check_output(command, cwd=ROOT, text=True).split())


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
