"""Sphinx configuration of the site: python -m sphinx -W -b html docs docs/_build.

Before a build it writes the command reference from the commands' help and the pages of the API
reference for autodoc, and draws the pictures by running the pages' blocks. `extensions` has what
Sphinx lacks: formulas as MathML, docstrings of the house style.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from sphinx import addnodes

import nnbackend
from nnbackend.cli import COMMANDS, main
from nnbackend.cli.settings import default_text
from nnbackend.config import SETTINGS, TOPICS, TrainOptions, UpdateOptions
from nnbackend.options import table

sys.path.insert(0, str(Path(__file__).parent / "extensions"))
from public_names import documented
from reference_pages import write as write_reference

project, author = "nnbackend", "nnbackend contributors"
release = nnbackend.__version__
copyright = "nnbackend contributors, BSD-3-Clause"
extensions = ["myst_parser", "sphinx.ext.autodoc", "mathml", "docstrings"]
html_math_renderer = "mathml"
autodoc_typehints = "none"  # the parameter tables have the types
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = False
python_maximum_signature_line_length = 80
add_module_names = False
rst_prolog = ".. |br| raw:: html\n\n   <br>\n"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2f6db3", "color-brand-content": "#1f5a9a"},
    "dark_css_variables": {"color-brand-primary": "#8bb8e8", "color-brand-content": "#8bb8e8"},
}
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "nnbackend"
exclude_patterns = ["_build", "generated/gallery.md"]

HERE = Path(__file__).parent
GENERATED = HERE / "generated"
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


PYTHON = {  # the function of nnbackend.plots that draws each kind of picture
    "curves": "curves", "boundary": "decision_boundary", "film": "BoundaryFilm",
    "signals": "signal_histograms", "confusion": "confusion_matrix",
    "weights": "first_layer_weights", "rates": "learning_rate_curve",
    "diagram": "network_diagram", "roc": "roc_curve", "pr": "precision_recall_curve",
    "calibration": "calibration_curve", "importance": "importance_plot",
    "residuals": "residual_plot", "dependence": "dependence_plot",
}  # fmt: skip


def gallery() -> str:
    """Return the thumbnails of the pictures of pictures.md, each with the line that makes it."""
    text = (HERE / "pictures.md").read_text(encoding="utf-8")
    found = re.findall(r"^```{image} (generated/\S+/(\w+)\.\w+)\n:alt: (.+)$", text, re.MULTILINE)
    lines = [":::{container} thumbs"]
    for path, kind in dict.fromkeys((path, kind) for path, kind, _ in found):
        lines += [
            f"```{{figure}} /{path}", f":alt: {kind}", f":target: pictures.html#picture-{kind}", "",
            f"`nnbackend plot RUN` `--kind {kind}`",
            f"{{py:obj}}`plots.{PYTHON[kind]} <nnbackend.plots.{PYTHON[kind]}>`", "```", "",
        ]  # fmt: skip
    return "\n".join([*lines, ":::", ""])


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
(GENERATED / "gallery.md").write_text(gallery(), encoding="utf-8")
write_reference(GENERATED / "reference")
(GENERATED / "flats.csv").write_text(flats(), encoding="utf-8")
run_blocks("pictures.md", "sh")
run_blocks("backprop.md", "python")


def name_files(app: Any, page: str, source: list[str]) -> None:
    """Replace links to the repository's files by their names, as the site does not have them."""
    if "/" in page:
        return  # in a folder of docs, ../ is docs
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./([^)]*)\)", r"\1 (`\2` in the repository)", source[0])


CODE_LINES = {"the line", "la línea"}  # the last column of tables of equations


def mark_tables(app: Any, tree: nodes.document) -> None:
    """Mark tables of equations and their lines of code, which are drawn as cards."""
    for each in tree.findall(nodes.table):
        heads = [entry.astext() for entry in each.findall(nodes.entry)]
        n = len(list(each.findall(nodes.colspec)))
        if heads[n - 1 : n] and heads[n - 1] in CODE_LINES:
            each["classes"] += ["code-lines"] if n > 3 else ["code-lines", "short"]


def link_names(app: Any, tree: nodes.document) -> None:
    """Link code such as `nn.Model` in a page to the name in the API reference."""
    if app.env.docname.startswith("generated/"):
        return
    for code in list(tree.findall(nodes.literal)):
        name = code.astext()
        target = documented().get(name.partition("(")[0].removeprefix("nn."))
        if target and name.startswith(("nn.", "nnbackend.")) and not _is_linked(code):
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refdoc=app.env.docname,
                refexplicit=True, refwarn=True,
            )  # fmt: skip
            code.replace_self(link)
            link += code


def _is_linked(node: nodes.Node) -> bool:
    kinds = (nodes.reference, nodes.title, addnodes.pending_xref)
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def setup(app: Any) -> None:
    """Connect the handlers of page sources and of links."""
    app.connect("source-read", name_files)
    app.connect("doctree-read", mark_tables)
    app.connect("doctree-read", link_names)
