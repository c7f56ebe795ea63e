"""Sphinx configuration of the site: python -m sphinx -W -b html docs docs/_build.

Before a build it writes the command reference from the commands' help and the API reference from
the docstrings of the public names, and draws the pictures by running the pages' blocks.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import nnbackend
from nnbackend import explain, plots, testing
from nnbackend.cli import COMMANDS, main
from nnbackend.cli.settings import default_text
from nnbackend.config import SETTINGS, TOPICS, TrainOptions, UpdateOptions
from nnbackend.options import table

project, author = "nnbackend", "nnbackend contributors"
release = nnbackend.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "nnbackend"
exclude_patterns = ["_build"]

HERE = Path(__file__).parent
GENERATED = HERE / "generated"
sys.path.insert(0, str(HERE / "extensions"))
extensions += ["lessons"]  # runs them
html_extra_path = ["generated/extra"]  # their notebooks and replays


def commands() -> str:
    """Return every command's help, formatted for 100 columns."""
    os.environ["COLUMNS"], os.environ["NO_COLOR"] = "100", "1"
    parts = ["# Commands and options", "", "As `nnbackend COMMAND --help` shows them.", ""]
    for verb in COMMANDS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            main([verb, "--help"])
        parts += [f"## {verb}", "", "```text", shown.getvalue().rstrip(), "```", ""]
    return "\n".join(parts)


def options() -> str:
    """Return the table of all options of a run, by topic."""
    lines = [
        "# Options of a run",
        "",
        "One table (`nnbackend/config/`) defines the keywords of `nnbackend.train` and",
        "`Model.fit`, the options of `nnbackend train` and the keys of config.toml.",
        "The column E marks parameters of the estimators, with the same names and defaults.",
        "Names of formulas may have parameters: `huber:2`, `sgd:momentum=0.9`,",
        "`step:every=10,gamma=0.5` (not in the estimators, except for `schedule`).",
    ]
    python, shared = table(TrainOptions), table(UpdateOptions)
    for topic in TOPICS:
        lines += ["", f"## {topic}", "", "| option | in Python | E | command line | meaning |"]
        lines += ["|---|---|---|---|---|"]
        for name, about in {**python, **SETTINGS}.items():
            if about.topic == topic:
                default = f"`{getattr(TrainOptions, name)!r}`" if name in python else "-"
                word = "-" if name not in SETTINGS else default_text(name) or "required"
                e = "E" if name in shared else ""
                lines.append(f"| `{name}` | {default} | {e} | {word} | {about.help_text()} |")
    return "\n".join([*lines, ""]).replace("|w|", "\\|w\\|")


def members(thing: Any) -> list[tuple[str, Any]]:
    """Return the public functions and classes of a module, or members of a class: (name, value)."""
    if inspect.ismodule(thing):
        listed = getattr(thing, "__all__", None)
        return [
            (name, value)
            for name, value in vars(thing).items()
            if (inspect.isfunction(value) or inspect.isclass(value)) and name[0] != "_"
            if (name in listed if listed else value.__module__ == thing.__name__)
        ]
    names: dict[str, None] = {}  # in the order of their definition
    for base in reversed(thing.__mro__):
        if base.__module__.startswith("nnbackend"):
            names |= dict.fromkeys(name for name in vars(base) if name[0] != "_")
    found = [(name, getattr(thing, name, None)) for name in names]
    kinds = (inspect.isfunction, inspect.ismethod, lambda v: isinstance(v, property))
    return [(name, value) for name, value in found if any(is_kind(value) for is_kind in kinds)]


def signature(thing: Any) -> str:
    """Return the signature of a callable, else an empty string."""
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):  # a module, a property or a built-in exception
        return ""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def described(name: str, thing: Any) -> list[str]:
    """Return the signature and docstring of a name and of its members."""
    lines = [f"## {name}", "", "```text", f"{name}{signature(thing)}", ""]
    lines += [inspect.getdoc(thing) or "", "```", ""]
    if inspect.isclass(thing) or isinstance(thing, ModuleType):
        for member, value in members(thing):
            lines += ["```text", f"{name}.{member}{signature(value)}", ""]
            lines += [inspect.getdoc(value) or "", "```", ""]
    return lines


def api() -> str:
    """Return every public name with its signature and docstring."""
    parts = ["# Python reference", "", "The public names of `import nnbackend`:", ""]
    for name in nnbackend.__all__:
        parts += described(name, getattr(nnbackend, name))
    for module in (plots, explain, testing):
        for name in module.__all__:
            parts += described(f"{module.__name__.split('.')[1]}.{name}", getattr(module, name))
    return "\n".join(parts)


def flats(n: int = 1_200) -> str:
    """Return a table with columns of several kinds: flats, and whether each was let in a month."""
    rng = np.random.default_rng(1)
    size = rng.gamma(9.0, 8.0, n).round()
    district = rng.choice(["Centre", "Harbour", "Hill", "West"], n, p=[0.4, 0.3, 0.2, 0.1])
    rent = (size * rng.normal(14.0, 2.5, n) + 5.0 * size * (district == "Centre")).round()
    balcony = rng.choice(["yes", "no"], n)
    offered = np.datetime64("2023-01-01") + rng.integers(0, 730, n)
    season = np.cos(2.0 * np.pi * (offered.astype(int) % 365.25) / 365.25)
    sought = 18.0 + 4.0 * (district == "Centre") - 4.0 * (district == "Hill")
    z = 0.9 * (sought - rent / size) + 1.2 * (balcony == "yes") - 1.5 * season - 2.5
    let = np.where(rng.random(n) < 1.0 / (1.0 + np.exp(-z)), "yes", "no")
    rows = zip(size, rent, district, balcony, offered, let, strict=True)
    lines = ["size,rent,district,balcony,offered,let", *(",".join(map(str, row)) for row in rows)]
    return "\n".join([*lines, ""])


def run_blocks(page: str, language: str) -> None:
    """Run a page's blocks in the folder of its pictures. Raise if a block fails."""
    text = (HERE / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    shown = io.StringIO()
    with (
        contextlib.chdir(GENERATED),
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(shown),
    ):
        if language == "python":
            exec("\n".join(blocks), {})
        for line in "".join(blocks).splitlines() if language == "sh" else ():
            name, *words = shlex.split(line, comments=True)
            if name != "nnbackend" or main(words):
                raise RuntimeError(f"{page}: {line}\n{shown.getvalue()}")


os.environ.setdefault("NNBACKEND_DEVICE", "numpy")  # compiles nothing
shutil.rmtree(GENERATED, ignore_errors=True)
GENERATED.mkdir()
runpy.run_path(str(HERE / "drawings" / "draw.py"))["check"]()  # raises for names that are gone
(GENERATED / "options.md").write_text(options(), encoding="utf-8")
(GENERATED / "commands.md").write_text(commands(), encoding="utf-8")
(GENERATED / "api.md").write_text(api(), encoding="utf-8")
(GENERATED / "flats.csv").write_text(flats(), encoding="utf-8")
run_blocks("pictures.md", "sh")
run_blocks("backprop.md", "python")


def name_files(app: Any, page: str, source: list[str]) -> None:
    """Replace links to the repository's files by their names, as the site does not have them."""
    if "/" in page:
        return  # in a folder of docs, ../ is docs
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./([^)]*)\)", r"\1 (`\2` in the repository)", source[0])


def setup(app: Any) -> None:
    """Connect the handler of page sources."""
    app.connect("source-read", name_files)
