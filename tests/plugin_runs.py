"""A plug-in of another distribution, installed into an environment of its own."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

Run = Callable[..., subprocess.CompletedProcess[str]]


def install(plugin: Path, folder: Path) -> Run:
    """Install a plug-in into a new environment; return a function that runs Python there."""
    pytest.importorskip("hatchling", reason="plug-ins are built with hatchling (extra test)")
    pytest.importorskip("pip", reason="plug-ins are installed with pip")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    # The new environment uses this one's packages, and the checkout if nothing is installed.
    here = [*site.getsitepackages(), str(ROOT), str(ROOT / "backends")]
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "outer.pth").write_text("\n".join(here) + "\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NNBACKEND_", "PYTHON"))}

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python, *words], cwd=folder, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
         "--no-build-isolation", "--disable-pip-version-check", str(plugin)],
        check=True, cwd=folder,
    )  # fmt: skip
    return run
