"""The built site, for the tests of its pages."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        [str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")]
    ),
    "NNBACKEND_DEVICE": "numpy",  # compiles nothing
}
NEEDED = ("sphinx", "myst_parser", "furo", "latex2mathml")


def built_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, which is built once; raise if Sphinx warns of anything.

    The folder in NNBACKEND_SITE, if set, is a site that has been built.
    """
    if built := os.environ.get("NNBACKEND_SITE"):
        return Path(built)
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        pytest.skip("the site needs the extra: docs")
    if not os.access(DOCS, os.W_OK):
        pytest.skip("the site is built in docs/generated, and the checkout is read-only")
    # docs/generated exists once: of several workers of pytest-xdist one builds, the others wait.
    out = tmp_path_factory.getbasetemp()
    out = (out.parent if "PYTEST_XDIST_WORKER" in os.environ else out) / "site"
    report = out / "report.txt"
    try:
        out.mkdir()
    except FileExistsError:
        while not report.exists():
            time.sleep(0.1)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
             "-d", str(out / "trees"), str(DOCS), str(out / "html")],
            env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        (out / "new").write_text(done.stderr if done.returncode else "")
        (out / "new").rename(report)
    assert not report.read_text()
    return out / "html"
