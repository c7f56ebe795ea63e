"""The site builds without a warning, its blocks run, and its references are complete and true."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = ("start.md", "backprop.md", "es/backprop.md", "devices.md")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        [str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")]
    ),
}


def _blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    blocks = _blocks(page, "python")
    assert blocks
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "False" not in done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "sh")])
def test_the_commands_of_a_page_run_in_their_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnbackend.cli import main

    monkeypatch.chdir(tmp_path)
    for block in _blocks(page, "sh"):
        for line in block.splitlines():
            name, *words = shlex.split(line, comments=True)
            assert name == "nnbackend"
            assert main(words) == 0, line


@pytest.mark.parametrize("page", ["backprop.md", "es/backprop.md"])
def test_the_lines_that_compute_the_equations_are_there(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\| `(nnbackend/\S+)` \| `(.+)` \|$", text, flags=re.MULTILINE)
    assert len(rows) == 8
    for path, line in rows:
        lines = [code.strip() for code in (ROOT / path).read_text(encoding="utf-8").splitlines()]
        assert line in lines, f"{path} has no line {line}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")):
        pytest.skip("the site needs the extra: docs")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
         "-d", str(out / "trees"), str(DOCS), str(out / "html")],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_every_command_and_option_is_on_the_site(site: Path) -> None:
    from nnbackend.cli import VERBS, Parser

    page = (site / "generated" / "commands.html").read_text(encoding="utf-8")
    for verb in VERBS:
        assert f'id="{verb}"' in page
        parser = Parser(prog=verb)
        importlib.import_module(f"nnbackend.cli.{verb}").configure(parser)
        for option in parser._option_string_actions:
            assert option in page, f"{verb} {option}"


def test_every_public_name_is_on_the_site(site: Path) -> None:
    import nnbackend

    page = (site / "generated" / "api.html").read_text(encoding="utf-8")
    for name in nnbackend.__all__:
        assert f"<h2>{name}<a" in page, name
