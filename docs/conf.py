"""The site: python -m sphinx -W -b html docs docs/_build

Before a build, the command reference is written from the commands' own help, and the API reference
from the public names' docstrings.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from pathlib import Path
from typing import Any

import nnbackend
from nnbackend.cli import VERBS, main

project, author = "nnbackend", "nnbackend contributors"
release = nnbackend.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "nnbackend"
exclude_patterns = ["_build"]

GENERATED = Path(__file__).parent / "generated"


def commands() -> str:
    """Give every command's help, as a terminal of 100 columns shows it."""
    os.environ["COLUMNS"], os.environ["NO_COLOR"] = "100", "1"
    parts = ["# Commands and options", ""]
    for verb in VERBS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            main([verb, "--help"])
        parts += [f"## {verb}", "", "```text", shown.getvalue().rstrip(), "```", ""]
    return "\n".join(parts)


def api() -> str:
    """Give every public name with its signature and docstring."""
    parts = ["# Python reference", ""]
    for name in nnbackend.__all__:
        thing = getattr(nnbackend, name)
        parts += [f"## {name}", "", "```text"]
        if inspect.isclass(thing) or inspect.isroutine(thing):
            with contextlib.suppress(ValueError):  # some have no signature
                parts += [f"nnbackend.{name}{inspect.signature(thing)}", ""]
        parts += [inspect.getdoc(thing) or "", "```", ""]
    return "\n".join(parts)


GENERATED.mkdir(exist_ok=True)
(GENERATED / "commands.md").write_text(commands(), encoding="utf-8")
(GENERATED / "api.md").write_text(api(), encoding="utf-8")


def name_files(app: Any, page: str, source: list[str]) -> None:
    """Name the repository's files that a page links to, as the site does not have them."""
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./([^)]*)\)", r"\1 (`\2` in the repository)", source[0])


def setup(app: Any) -> None:
    """Listen to the pages as they are read."""
    app.connect("source-read", name_files)
