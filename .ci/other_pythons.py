"""The package on every other Python here: README's first command, then the quick tests.

    python3 .ci/other_pythons.py CHECKOUT COMMAND

CHECKOUT: a fresh copy of the tracked files.  COMMAND: README's. A Python that does not start, that
lacks venv or pip, or for which a dependency has no wheel is skipped, with the reason. Exits with 1
if one fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MINORS = range(11, 20)  # 3.11 is the oldest that the package supports
OWN = sys.version_info.minor
NO_WHEEL = re.compile(r"No matching distribution found for (\S+)")


SOME = ["tests/test_model.py", "tests/test_trainer.py", "tests/test_persistence.py"]


class Skipped(Exception):
    """A Python on which the package cannot be tried, with the reason."""


def candidates(minor: int) -> Iterator[str]:
    """Yield the interpreters of a version: on PATH, and those that pyenv keeps elsewhere."""
    name = f"python3.{minor}"
    if found := shutil.which(name):
        yield found
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from map(str, sorted(folder.glob(f"3.{minor}.*/bin/{name}"), reverse=True))


def interpreter(minor: int) -> str:
    """Return the path of an interpreter that can make virtual environments, or "" if none is here.

    Raises: Skipped with the reason if none of those here can.
    """
    reason = ""
    for path in candidates(minor):
        code = "import ensurepip, sys, venv; print(sys.executable)"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
        said = done.stderr.strip().splitlines() or ["no message"]
        why = "has no venv or no pip" if "ModuleNotFoundError" in said[-1] else "does not start"
        reason = reason or f"{path} {why}: {said[0] if why == 'does not start' else said[-1]}"
    if reason:
        raise Skipped(reason)
    return ""


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a command and show its output.

    Raises: Skipped if pip finds no wheel, CalledProcessError for another failure.
    """
    print("$", command[-1] if command[0] == "bash" else " ".join(command), flush=True)
    done = subprocess.run(
        command, cwd=folder, env=environment, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    print(done.stdout, flush=True)
    if done.returncode and (missing := NO_WHEEL.search(done.stdout)):
        raise Skipped(f"no wheel of {missing[1]}")
    done.check_returncode()


def try_out(python: str, checkout: Path, command: str, is_newest: bool) -> None:
    """Run README's command and the quick tests, or some of them, in a copy of the checkout.

    What differs between versions of Python differs most in the newest one, which runs them all.
    """
    folder = checkout.parent / Path(python).name
    shutil.copytree(checkout, folder / "checkout")
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(python)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PIP_ONLY_BINARY": ":all:"}
    bin = ".venv/bin"
    for words in (
        ["bash", "-c", command],
        [f"{bin}/pip", "install", "--quiet", ".[quick]"],
        [f"{bin}/python", "check.py", "quick"]
        if is_newest
        else [f"{bin}/python", "-m", "pytest", "-q", *SOME],
    ):
        run(words, folder / "checkout", environment)
    shutil.rmtree(folder)


def main() -> int:
    """Try every other Python, print a line for each at the end, return 1 if one failed."""
    checkout, command = Path(sys.argv[1]).resolve(), sys.argv[2]
    lines, failed, found = list[str](), False, dict[int, str]()
    for minor in MINORS:
        try:
            if minor != OWN and (python := interpreter(minor)):
                found[minor] = python
        except Skipped as reason:
            lines.append(f"Python 3.{minor}: SKIPPED, {reason}")
    for minor, python in found.items():
        try:
            print(f"--- Python 3.{minor}: {python}", flush=True)
            try_out(python, checkout, command, minor == max(found))
            lines.append(f"Python 3.{minor}: passed ({python})")
        except Skipped as reason:
            lines.append(f"Python 3.{minor}: SKIPPED, {reason}")
        except subprocess.CalledProcessError as error:
            lines.append(f"Python 3.{minor}: FAILED, {error}")
            failed = True
    print("\n".join(lines or ["this machine has no other Python"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
