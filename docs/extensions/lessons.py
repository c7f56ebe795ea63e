"""The lessons of the course, an extension of Sphinx.

A lesson is one page in each language. Its Python blocks run as the site is built. The site shows
what they print below them, and has the same page as a notebook and its runs as replays, files that
play in a browser without a server.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import nnbackend as nn
from nnbackend.data import Dataset
from nnbackend.live_page.controls import Controls
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.replay import to_html
from nnbackend.live_page.sources import Source, from_arrays, toy

HERE = Path(__file__).parent.parent
GENERATED = HERE / "generated"
EXTRA = GENERATED / "extra"  # files that the site has beside its pages
LESSONS = (
    *("neuron", "activations", "regression", "update"),
    *("batches", "rates", "overfitting", "deep"),
)
FOLDERS = {"en": "course", "es": "es/course"}
PYTHON = re.compile(r"^```python\n(.*?)^```$\n?", flags=re.DOTALL | re.MULTILINE)
IMAGE = re.compile(r"^```{image} \S*?generated/(\S+)\n(?:.*\n)*?^```$\n?", flags=re.MULTILINE)
WORDS = {  # of the links at the head of a lesson
    "en": ("Notebook", "Español", "All slides"),
    "es": ("Cuaderno (notebook)", "English", "Todas las diapositivas"),
}


# ---- the blocks of a page ------------------------------------------------------------------------


def run_blocks(text: str, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Run a page's blocks of Python in a folder. Return what each prints, and all its names."""
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = []
    # As a new Python prints numbers, whatever ran before.
    with contextlib.chdir(folder), np.printoptions(precision=8, suppress=False, threshold=1000):
        for block in PYTHON.findall(text):
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown):
                exec(block, names)
            printed.append(shown.getvalue())
    return printed, names


def with_outputs(text: str, printed: list[str]) -> str:
    """Return a page with what its blocks print below them."""
    outputs = iter(printed)

    def append(match: re.Match[str]) -> str:
        output = next(outputs)
        return f"{match[0]}\n```text\n{output}```\n" if output else match[0]

    return PYTHON.sub(append, text)


# ---- notebooks -----------------------------------------------------------------------------------


def to_notebook(text: str, printed: list[str], folder: Path, language: str) -> dict[str, Any]:
    """Return a page as a notebook of Jupyter's format 4, with its outputs and pictures."""
    outputs, cells = iter(printed), list[dict[str, Any]]()
    for kind, content in _parts(text):
        if kind == "text":
            cells.append({"cell_type": "markdown", "metadata": {}, "source": _markdown(content)})
        elif kind == "python":
            output = next(outputs)
            stream = {"output_type": "stream", "name": "stdout", "text": output}
            cells.append(_code(content, [stream] if output else []))
        else:
            above = cells[-1]
            # Jupyter shows the figures of pyplot below the cell that draws them.
            if f'figure.savefig("{content}"' in above["source"] and "outputs" in above:
                above["outputs"].append(_picture(folder / content))
            else:
                cells.append(_code(shown(content), [_picture(folder / content)]))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "lang": language}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the text, the Python and the names of the pictures of a page, in their order."""
    place = 0
    found = sorted([*PYTHON.finditer(text), *IMAGE.finditer(text)], key=lambda m: m.start())
    for match in [*found, None]:
        before = text[place : match.start() if match else None].strip("\n")
        if before:
            yield "text", before
        if match is not None:
            is_python = match.re is PYTHON
            yield ("python", match[1].rstrip()) if is_python else ("image", Path(match[1]).name)
            place = match.end()


def _markdown(text: str) -> str:
    """Return a text without comments, and without links and drawings that a notebook lacks."""
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]+\]\([^)]*drawings/[^)]*\)\n*", "", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\.md[^)]*\)", r"\1", text)
    return re.sub(r'<a href="(?!http)[^"]*"[^>]*>(.*?)</a>', r"\1", text, flags=re.DOTALL)


def shown(picture: str) -> str:
    """Return the code that shows a picture in a notebook."""
    kind = "SVG" if picture.endswith(".svg") else "Image"
    return f'from IPython.display import {kind}\n\n{kind}("{picture}")'


def _code(source: str, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": outputs,
            "source": source}  # fmt: skip


def _picture(path: Path) -> dict[str, Any]:
    data = {"text/plain": f"<{path.name}>"}
    if path.suffix == ".svg":
        data["image/svg+xml"] = path.read_text(encoding="utf-8")
    else:
        data["image/png"] = base64.b64encode(path.read_bytes()).decode()
    return {"output_type": "display_data", "data": data, "metadata": {}}


# ---- replays -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replay:
    """A run to record: its data, the options of the live page, and how many of its moments."""

    data: str = "spirals"
    options: dict[str, str] = field(default_factory=dict)
    epochs: int = 100
    rows: int = 200
    noise: float | None = None
    most: int = 20
    times: float = 1.0  # factor of the inputs

    def record(self) -> str:
        """Train, and return the page that plays the run."""
        return record(self.source(), self.options, self.epochs, self.most)

    def source(self) -> Source:
        """Return the rows."""
        found = toy(self.data, self.rows, self.noise)
        if self.times == 1.0:
            return found
        data = found.data
        x = self.times * np.asarray(data.x)
        scaled = Dataset(x, data.y, data.name, data.task, data.classes, data.feature_names)
        return Source(scaled, "given")


def record(source: Source, options: dict[str, str], epochs: int, most: int, net: Any = None) -> str:
    """Train a network on the live page's engine, and return the page that plays the run."""
    given = PageOptions().changed({"device": "numpy", **options}, ("numpy",))
    controls = Controls(source, given, ("numpy",), fixed=net)
    for _ in range(epochs):
        controls.epoch({})
    return to_html(controls, most)


SGD = {"optimizer": "sgd"}
TANH = {"hidden": "8,8", "activation": "tanh"}
REPLAYS = {
    "neuron": Replay("blobs", {"hidden": "none"}, 40),
    "saturation": Replay("circles", {"hidden": "6", "activation": "sigmoid"}, 100, times=200.0),
    "sigmoid": Replay("circles", {"hidden": "6", "activation": "sigmoid"}, 100),
    "line": Replay("xor", {"hidden": "none"}, 60),
    "xor": Replay("xor", {"hidden": "4"}, 60, most=24),
    "full": Replay("circles", {**SGD, "learning_rate": "0.3", "batch_size": "full"}, 60),
    "one": Replay("circles", {**SGD, "learning_rate": "0.3", "batch_size": "1"}, 60),
    "sgd": Replay("spirals", {**SGD, **TANH, "learning_rate": "0.03"}, 150),
    "momentum": Replay("spirals", {**SGD, **TANH, "learning_rate": "0.03", "momentum": "0.9"}, 150),
    "adam": Replay("spirals", {**TANH, "optimizer": "adam", "learning_rate": "0.01"}, 150),
    "overfit": Replay("circles", {"hidden": "32,32", "validation": "0.5"}, 400, 60, 0.25, 14),
    "l2": Replay(
        "circles", {"hidden": "32,32", "validation": "0.5", "l2": "0.01"}, 400, 60, 0.25, 14
    ),
    "small": Replay("circles", {"hidden": "3", "validation": "0.5"}, 400, 60, 0.25, 24),
    "shallow": Replay("spirals", {"hidden": "8"}, 200),
    "deep": Replay("spirals", {"hidden": "8,8,8"}, 200, most=14),
}


def replay_of_update() -> str:
    """Return the replay of the network that lesson 4 computes by hand, over 100 updates."""
    net = nn.Network(
        [2, nn.Dense(2, "sigmoid"), nn.Dense(1, "sigmoid")], "quadratic",
        dtype="float64", device="numpy",
    )  # fmt: skip
    net.set_parameters([[[0.15, 0.25], [0.20, 0.30]], [[0.40], [0.45]]], [[0.35, 0.35], [0.60]])
    source = from_arrays(np.array([[0.05, 0.10]]), np.array([[0.90]]), None)
    options = {"optimizer": "sgd", "learning_rate": "0.5", "batch_size": "1", "validation": "0"}
    return record(source, options, 100, 30, net)


# ---- the site ------------------------------------------------------------------------------------


def build() -> dict[str, str]:
    """Run all lessons and write their notebooks and replays. Return the pages with outputs."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pages = {}
    replays = {name: replay.record() for name, replay in REPLAYS.items()}
    replays["update"] = replay_of_update()
    for language, folder in FOLDERS.items():
        drawn, extra = GENERATED / folder, EXTRA / folder
        extra.mkdir(parents=True, exist_ok=True)
        for name in LESSONS:
            text = (HERE / folder / f"{name}.md").read_text(encoding="utf-8")
            printed, _ = run_blocks(text, drawn)
            pyplot.close("all")
            notebook = to_notebook(text, printed, drawn, language)
            (extra / f"{name}.ipynb").write_text(json.dumps(notebook, indent=1), encoding="utf-8")
            pages[f"{folder}/{name}"] = with_head(with_outputs(text, printed), name, language)
        for path in drawn.glob("*.html"):
            path.rename(extra / path.name)
    for name, text in replays.items():
        (EXTRA / FOLDERS["en"] / f"{name}-replay.html").write_text(text, encoding="utf-8")
    return pages


def with_head(text: str, name: str, language: str) -> str:
    """Return a lesson with links below its title: notebook, other language, slides."""
    notebook, other, slides = WORDS[language]
    folder = "../es/course" if language == "en" else "../../course"
    links = (
        f'<a href="{name}.ipynb" download>{notebook}</a> · [{other}]({folder}/{name}.md) · '
        f"[{slides}](index.md)"
    )
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{links}\n{rest}"


def setup(app: Any) -> dict[str, bool]:
    """Run the lessons, and show what their blocks print on their pages."""
    pages = build()

    def show(app: Any, page: str, source: list[str]) -> None:
        source[0] = pages.get(page, source[0])

    app.connect("source-read", show)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
