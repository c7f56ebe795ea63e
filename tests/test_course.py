"""Every lesson runs and its claims hold, in both languages; every slide of the course has a place.

The claims are checked on the names that a lesson's blocks define.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest

from nnbackend.live_page.controls import Controls
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.showing import LESSONS, Show
from nnbackend.live_page.sources import Source, toy

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LANGUAGES = {"en": DOCS / "course", "es": DOCS / "es" / "course"}
TEXTS = ROOT / "nnbackend" / "live_page" / "page" / "text.js"
MOST_BYTES = 300_000  # of a replay
# The titles of the slides, in their order; "Deep?" is the text of a slide without a title.
SLIDES = [
    "Introducción a las Redes Neuronales", "Limitantes en la Regresión",
    "Limitantes en la Regresión", "Redes Neuronales", "La Neurona", "Historia del Perceptrón",
    "Perceptrón", "Partes del Perceptrón", "Cómo funciona", "Función de Activación",
    "Funciones de Activación", "Perceptrón", "Perceptrón Multicapa", "Cambiando notación",
    "Cambiando notación", "Notación Matemática", "Entrenando la red neuronal", "Nuestro Objetivo",
    "Idea general", "Idea general", "Idea general", "Gradiente local en la capa de salida",
    "Gradiente local en la capa de salida", "Gradiente local en capa oculta",
    "Gradiente local en capa oculta", "Resumiendo", "Pasando Todo a Matrices",
    "Pasando Todo a Matrices", "Pasando Todo a Matrices", "Pasando Todo a Matrices",
    "Backpropagation", "Algoritmo de Backpropagation resumido", "1) Inicializar", "2) Feed Forward",
    "3 y 4) Backpropagation", "5) Determinar los nuevos pesos y bias", "Variantes", "Problemas",
    "Solución", "Deep?", "Conclusiones", "Redes Neuronales", "Video Recomendado",
]  # fmt: skip


def _load() -> ModuleType:
    """Return docs/extensions/lessons.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("lessons", DOCS / "extensions" / "lessons.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lessons"] = module  # dataclasses look there for the types of their fields
    spec.loader.exec_module(module)
    return module


lessons = _load()
PAGES = [(language, name) for language in LANGUAGES for name in lessons.LESSONS]


def _text(language: str, name: str) -> str:
    return (LANGUAGES[language] / f"{name}.md").read_text(encoding="utf-8")


# ---- what the lessons claim ----------------------------------------------------------------------


def neuron(n: dict[str, Any]) -> None:
    np.testing.assert_array_equal(n["trace"].a[0].ravel(), [0, 0, 0, 1])
    np.testing.assert_array_equal(n["trace"].z[0].ravel(), [-1.5, -0.5, -0.5, 0.5])
    assert n["wrong"] == 0  # of the rule, in the end
    assert 1 < n["epoch"] < 19
    # the exercises: the bias of "or", and z of the second one
    for bias, expected in ((-0.5, 3), (0.0, 3), (-1.0, 1), (0.1, 4)):
        assert (n["X"].sum(axis=1) + bias > 0).sum() == expected, bias
    assert np.dot([2, -1], [0.5, 1.5]) + 0.2 == pytest.approx(-0.3)


def activations(n: dict[str, Any]) -> None:
    sigmoid = n["sigmoid"]

    def slope(z: float) -> float:
        return float(sigmoid.slope(z, sigmoid.value(z, np), np))

    assert slope(0.0) == 0.25
    assert slope(5.0) < 0.01
    assert max(map(slope, np.linspace(-9, 9, 99))) == 0.25
    final = [n["outputs"][start][-1] for start in (1.0, 3.0, 5.0)]
    assert final[0] < 0.15
    assert final[1] < 0.15
    assert final[2] > 0.95  # saturated
    assert n["cured"][0] > 0.99  # begins at the same output
    assert n["cured"][-1] < 0.05
    assert n["flat"] < 0.05  # of the scaled table, the last one
    assert n["accuracy"] > 0.95


def regression(n: dict[str, Any]) -> None:
    X, y, w = n["X"], n["y"], n["w"]
    answers = n["columns"] @ w
    assert np.mean((answers - y) ** 2) == pytest.approx(0.25)
    # No line has all four points on the right side: every one of a fine grid has 3 at most.
    grid = np.linspace(-2, 2, 21)
    lines = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    sides = X @ lines[:, :2].T + lines[:, 2] > 0
    assert (sides == (y > 0.5)[:, None]).mean(axis=0).max() == 0.75
    assert np.mean((n["answers"] - y) ** 2) < 0.01
    assert np.abs(n["exact"]).max() > 50
    assert np.abs(n["small"]).max() < 1.5
    slopes = [line.weights[0][0, 0] for line in n["lines"].values()]
    assert abs(slopes[0] - 2) > 1
    assert abs(slopes[1] - 2) < 0.1


def update(n: dict[str, Any]) -> None:
    for name, by_hand, library in n["pairs"]:
        assert by_hand == pytest.approx(library, rel=1e-14), name
    np.testing.assert_allclose(n["gradient"].weights[0].T, n["dw2"], rtol=1e-14)
    np.testing.assert_allclose(n["dW2"], n["dw2"], rtol=1e-14)
    assert n["costs"][-1] < 1e-5 < n["C"]
    assert n["delta3"] * n["a2"][1] == pytest.approx(-0.016574, abs=5e-7)  # the first exercise
    assert n["costs"][0] < n["C"]  # after the first update
    new = n["w3"][0] - 0.5 * n["gradient"].weights[1][0, 0]
    assert n["new_w3"][0] == pytest.approx(new, rel=1e-14)
    page = Path("update-steps.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "0.0103932" in page  # C after the update


def batches(n: dict[str, Any]) -> None:
    whole, mini, single = n["paths"].values()
    assert [len(path) - 1 for path in (whole, mini, single)] == [3, 30, 600]
    distance = [np.linalg.norm(path[-1] - n["best"]) for path in (whole, mini, single)]
    assert distance[1] < distance[2] < distance[0]
    late = single[-200:]  # restless near the minimum
    assert 0.05 < np.linalg.norm(late.std(axis=0)) < 1.0
    for b in (1, 4, 16):  # four times the rows, half the noise
        assert n["noise"][b] / n["noise"][4 * b] == pytest.approx(2.0, rel=0.25)
    assert n["final"][1] < n["final"][32] < n["final"][600]


def rates(n: dict[str, Any]) -> None:
    small, good, large = n["costs"].values()
    assert small[-1] > 0.1
    assert good[-1] < 1e-6
    assert large[-1] > 1e3 * large[0]
    epochs = [n["epochs_to"](curve) for curve in n["curves"].values()]
    slow, fixed, momentum, adagrad, _ = epochs
    assert slow is None
    assert adagrad < momentum < 0.6 * fixed
    curvature = np.mean(n["X"][:, 1] ** 2)  # of the steep direction: the first exercise
    assert 0.15 < 2 / curvature < 0.21


def overfitting(n: dict[str, Any]) -> None:
    (seen, unseen), *cured = n["results"].values()
    assert seen < 0.01
    assert unseen > 0.5
    assert len(cured) == 4
    for train, test in cured:
        assert test - train < 0.1 * (unseen - seen)
        assert test < 0.1
    assert n["networks"].keys() == n["results"].keys()
    assert n["best"] + 1 == n["history"].best["epoch"]  # the curve turns where the run stopped
    assert len(n["history"]) < 500


def deep(n: dict[str, Any]) -> None:
    wide, deep = n["trained"].values()
    assert abs(wide.n_parameters - deep.n_parameters) < 150
    assert deep.n_parameters == 626
    wide_score, deep_score = n["accuracy"].values()
    assert wide_score < 0.75
    assert deep_score > 0.98
    shrinks = {name: sizes[0] / sizes[-1] for name, sizes in n["sizes"].items()}
    assert shrinks["sigmoid"] < 1e-5
    assert min(shrinks["tanh"], shrinks["relu"]) > 1e-2
    assert n["learned"]["sigmoid"] < 0.75
    assert n["learned"]["relu"] > 0.98


CLAIMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "neuron": neuron, "activations": activations, "regression": regression, "update": update,
    "batches": batches, "rates": rates, "overfitting": overfitting, "deep": deep,
}  # fmt: skip


@pytest.mark.parametrize(("language", "name"), PAGES)
def test_a_lesson_runs_and_its_claims_hold(
    language: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNBACKEND_DEVICE", "numpy")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    text = _text(language, name)
    try:
        printed, names = lessons.run_blocks(text, tmp_path)
    finally:
        pyplot.close("all")
    monkeypatch.chdir(tmp_path)
    CLAIMS[name](names)
    pictures = {Path(found).name for found in lessons.IMAGE.findall(text)}
    assert pictures == {path.name for path in tmp_path.iterdir() if path.suffix in (".svg", ".png")}
    notebook = lessons.to_notebook(text, printed, tmp_path, language)
    _check(notebook, text, printed)


def _check(notebook: dict[str, Any], text: str, printed: list[str]) -> None:
    """Check that a notebook has the page's text, blocks, outputs and pictures."""
    cells = notebook["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [o["text"] for o in outputs if "text" in o] == [part for part in printed if part]
    assert sum("data" in output for output in outputs) == len(lessons.IMAGE.findall(text))
    code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    for block in lessons.PYTHON.findall(text):
        assert block.rstrip() in code
    prose = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert "```python" not in prose
    assert "<!--" not in prose
    assert ".md" not in prose
    assert "drawings/" not in prose
    assert "href" not in prose
    assert prose.count("\n## ") + prose.startswith("## ") >= text.count("\n## ")
    if importlib.util.find_spec("nbformat") is not None:
        import nbformat

        nbformat.validate(nbformat.from_dict(notebook))


def test_the_notebooks_run_in_jupyter(tmp_path: Path) -> None:
    """Run the code of those in English in one kernel; the others have the same code."""
    client = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")
    import nbformat

    cells = []
    for name in lessons.LESSONS:
        text = _text("en", name)
        parts = lessons._parts(text)
        (tmp_path / name).mkdir()
        cells.append(f"%reset -f\n%cd -q {tmp_path / name}")
        cells += [part for kind, part in parts if kind == "python"]
        cells += [lessons.shown(path.name) for path in map(Path, lessons.IMAGE.findall(text))]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    environment = {
        **os.environ, "NNBACKEND_DEVICE": "numpy", "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
    }  # fmt: skip
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)
    kinds = [o["output_type"] for cell in notebook.cells for o in cell.outputs]
    assert "error" not in kinds
    assert kinds.count("stream") >= 30
    pictures = [
        o for cell in notebook.cells for o in cell.outputs if "image/svg+xml" in o.get("data", {})
    ]
    assert len(pictures) >= 10


# ---- both languages ------------------------------------------------------------------------------


class _Plain(ast.NodeTransformer):
    """Removes texts, which are translated."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node


@pytest.mark.parametrize("name", lessons.LESSONS)
def test_both_languages_have_the_same_code_and_formulas(name: str) -> None:
    english, spanish = (_text(language, name) for language in LANGUAGES)
    ours, theirs = (lessons.PYTHON.findall(text) for text in (english, spanish))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        trees = [_Plain().visit(ast.parse(code)) for code in (one, other)]
        assert ast.dump(trees[0]) == ast.dump(trees[1])
    for pattern in (r"^## ", r"^\$\$", r"^\| ", r"^\d\. ", r"<details>", r"replay\.html"):
        counts = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, spanish)]
        assert counts[0] == counts[1], pattern
    commands = [
        re.findall(r"^nnbackend live .*", text, re.MULTILINE) for text in (english, spanish)
    ]
    assert commands[0] == commands[1]
    assert commands[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_hint_names_a_lesson_by_its_title(language: str) -> None:
    part = re.search(rf"  {language}: {{(.*?)\n  }},", TEXTS.read_text(encoding="utf-8"), re.DOTALL)
    assert part is not None
    texts = dict(re.findall(r"(\w+): '((?:[^'\\]|\\.)*)'", part[1]))
    codes = {key[2:] for key in texts if key.startswith("h_")}
    assert codes == LESSONS.keys()
    pages = (TEXTS.parent / "main.js").read_text(encoding="utf-8")
    found = re.search(r"LESSON_PAGES = \{(.*?)\}", pages)
    assert found is not None
    named = dict(re.findall(r"(\d): '(\w+)'", found[1]))
    assert named == {str(n): lessons.LESSONS[n - 1] for n in set(LESSONS.values())}
    folder = "docs" if language == "en" else f"docs/{language}"
    assert f"{folder}/course/{{page}}.md" in texts["see_lesson"]
    for number in set(LESSONS.values()):
        title = _text(language, lessons.LESSONS[number - 1]).partition("\n")[0]
        assert title.endswith(f" {number}: {texts[f'lesson_{number}']}"), title


# ---- the slides ----------------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    text = re.sub(
        r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    titles = re.findall(r"^#{1,3} (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _links(text: str) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)]+)\)", text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_slide_has_its_place(language: str) -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \|", _text(language, "index"), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(SLIDES) + 1))
    for title, (number, shown, read) in zip(SLIDES, rows, strict=True):
        assert re.match(re.escape(title) + r"($|[:,]| \()", shown), (number, shown)
        assert list(_links(read)), number


@pytest.mark.parametrize(("language", "name"), [*PAGES, ("en", "index"), ("es", "index")])
def test_the_links_of_a_page_lead_somewhere(language: str, name: str) -> None:
    for link in _links(_text(language, name)):
        if link.startswith("https://"):
            continue
        page, _, anchor = link.partition("#")
        path = (
            (LANGUAGES[language] / page).resolve() if page else LANGUAGES[language] / f"{name}.md"
        )
        assert path.is_file(), link
        assert not anchor or anchor in _anchors(path), link


# ---- live commands and replays -------------------------------------------------------------------


def _live_commands() -> list[str]:
    texts = [_text(language, name) for language, name in [*PAGES, ("en", "index"), ("es", "index")]]
    return sorted({c for text in texts for c in re.findall(r"nnbackend live [a-z][^`\n|]*", text)})


@pytest.mark.parametrize("command", _live_commands())
def test_a_live_command_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra live")
    pytest.importorskip("wsproto", reason="needs the extra live")
    from nnbackend.cli import live, main

    served: list[Any] = []
    monkeypatch.setenv("NNBACKEND_DEVICE", "numpy")
    monkeypatch.setattr(live, "serve", lambda session, *_, **__: served.append(session))
    assert main(command.split()[1:]) == 0
    assert served


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_other_commands_of_the_table_run(language: str, tmp_path: Path) -> None:
    from nnbackend.cli import main

    found = re.findall(r"`nnbackend ((?!live\b)[^`]+)`", _text(language, "index"))
    train, explain = sorted(found, reverse=True)
    run = ["--epochs", "1", "--quiet", "--device", "numpy", "--out", str(tmp_path / "run")]
    assert main([*train.split(), *run]) == 0
    assert main(explain.replace("RUN", str(tmp_path / "run")).replace("ROW", "0").split()) == 0


@cache
def _hrefs(language: str) -> frozenset[str]:
    names = ["index", *lessons.LESSONS]
    return frozenset(re.findall(r'href="([^"]+)"', "".join(_text(language, n) for n in names)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_replay_is_linked_in_its_language(language: str) -> None:
    folder = "" if language == "en" else "../../course/"
    expected = {f"{folder}{name}-replay.html#{language}" for name in [*lessons.REPLAYS, "update"]}
    assert _hrefs(language) == expected | {"update-steps.html"}


def test_replays_are_small_and_load_nothing() -> None:
    for text in (lessons.REPLAYS["saturation"].record(), lessons.replay_of_update()):
        assert len(text) < MOST_BYTES
        assert not re.search(r'(src|href)="', text)
        stored = json.loads(re.search(r'id="recorded">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
        assert 15 <= len(stored["sizes"]) <= 30


def _run(source: Source, epochs: int, **options: str) -> tuple[dict[str, float], set[str]]:
    """Return the figures after some epochs of the live page, and the hints that it showed."""
    given = PageOptions().changed({"device": "numpy", **options}, ("numpy",))
    controls, show, found = Controls(source, given, ("numpy",)), Show(), set[str]()
    for _ in range(epochs):
        controls.epoch({})
        facts = show.frame(controls, is_paused=True)[0]
        found |= {hint["code"] for hint in facts["hints"]}
        assert all(hint["lesson"] == LESSONS[hint["code"]] for hint in facts["hints"])
    return facts["figures"], found


def test_the_live_page_shows_what_the_lessons_say() -> None:
    line, _ = _run(toy("xor"), 20, hidden="none")
    assert line["train_score"] < 0.6
    solved, _ = _run(toy("xor"), 40, hidden="4")
    assert solved["train_score"] > 0.95
    saturation = lessons.REPLAYS["saturation"]
    figures, found = _run(saturation.source(), 40, **saturation.options)
    assert "saturated" in found
    assert figures["train_score"] < 0.7
    few = toy("circles", 60, 0.25)
    figures, found = _run(few, 100, hidden="32,32", validation="0.5")
    assert "overfit" in found
    cured, _ = _run(few, 100, hidden="32,32", validation="0.5", l2="0.01")
    assert cured["valid_loss"] < figures["valid_loss"]
    _, found = _run(toy("spirals"), 3, hidden="8,8,8,8,8,8", activation="sigmoid")
    assert "vanishing" in found
    _, found = _run(toy("spirals"), 3, optimizer="sgd", learning_rate="8")
    assert "saturated" in found
