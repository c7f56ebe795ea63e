"""All checks by name: `python check.py [STAGE ...]`, by default format, lint, types, tests, docs.

They run in the environment of this Python, in the order given, up to the first that fails.
`.ci/run` and `.pre-commit-config.yaml` call this file too, so a check is defined once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# The quick part of the tests, under a minute with the extra `quick`: what may differ between
# versions of Python and of the libraries.
QUICK = (
    *("activations", "cli_spelling", "console", "estimators_fitted", "history", "initializers"),
    *("layers", "lbfgs", "losses", "model", "network", "optimizers", "persistence", "philox"),
    *("registry", "schedules", "trainer"),
)
# Arguments of Python for each stage.
STAGES: dict[str, tuple[str, ...]] = {
    "format": ("-m", "ruff", "format", "--check", "."),
    "lint": ("-m", "ruff", "check", "."),
    "types": ("-m", "mypy", "--strict"),
    "tests": ("-m", "pytest", "-n", "2"),
    "docs": (
        *("-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"),
        *("docs", "docs/_build"),
    ),
    "quick": ("-m", "pytest", "-q", *(f"tests/test_{name}.py" for name in QUICK)),
}
DEFAULT = ("format", "lint", "types", "tests", "docs")


def run(stages: Sequence[str]) -> int:
    """Run the stages up to the first that fails, print their times, return the exit code."""
    times = []
    code = 0
    for name in stages:
        print(f"=== {name} ===", flush=True)
        begin = time.monotonic()
        code = subprocess.run([sys.executable, *STAGES[name]], cwd=ROOT, check=False).returncode
        times.append(f"{time.monotonic() - begin:7.1f} s  {name}")
        if code:
            break
    print("\n".join(["", *times]))
    if code:
        print(f"FAILED in stage: {name} (exit {code})")
        if len(times) < len(stages):
            print(f"not run: {', '.join(stages[len(times) :])}")
    return 1 if code else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named stages; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python check.py", allow_abbrev=False)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE",
        help=f"{', '.join(STAGES)} (default: {' '.join(DEFAULT)}). Tools and tests come with "
        'pip install -e ".[test]"',
    )  # fmt: skip
    stages = parser.parse_args(argv).stages or DEFAULT
    for name in stages:
        if name not in STAGES:
            parser.error(f"unknown stage {name!r}. Choose from: {', '.join(STAGES)}")
    return run(stages)


if __name__ == "__main__":
    sys.exit(main())
