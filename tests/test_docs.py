"""The site builds without a warning, every block of its pages runs, its references are complete.

Fenced blocks of Python or commands run; text and toml do not. A comment before a block changes
this: `<!-- not run: WHY -->`, or `<!-- needs: MODULE -->` to run only if a module is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs_site import DOCS, ENVIRONMENT, ROOT, built_site

import nnbackend as nn

PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for pattern in ("*.md", "es/*.md", "course/*.md", "es/course/*.md")
    for path in DOCS.glob(pattern)
    if path.name != "results.md"  # made by a script; tests/test_published.py
)
LANGUAGES = {"python", "sh", "text", "toml"}
# Code before a page's blocks that defines the reader's objects.
PREAMBLES = {
    "conformance.md": (
        "from nnbackend.testing import ReferenceBackend\n"
        "MyBackend = lambda index: ReferenceBackend()\n"
    ),
}
PICTURES = "pictures.md"  # the site runs its commands as it is built
OWN_BACKEND = "write-a-backend.md"  # its blocks are files of a package
LESSONS = [page for page in PAGES if "course/" in page]  # tests/test_course.py runs them
FENCE = re.compile(
    r"(?:<!-- (?P<mark>not run|needs): (?P<why>[^>]+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    flags=re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the mark and reason of the comment before it."""

    language: str
    text: str
    mark: str
    why: str

    @property
    def runs(self) -> bool:
        if self.mark == "needs":
            return importlib.util.find_spec(self.why) is not None
        return not self.mark


def _blocks(page: str, language: str = "") -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = [
        Block(m["language"], m["text"], m["mark"] or "", m["why"] or "")
        for m in FENCE.finditer(text)
    ]
    return [block for block in found if language in ("", block.language)]


# --- the blocks of the pages ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_known_language_and_commands_are_fenced(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = _blocks(page)
    assert text.count("```") == 2 * len(blocks)
    for block in blocks:
        is_directive = block.language.startswith("{")
        assert is_directive or block.language in LANGUAGES, f"```{block.language}\n{block.text}"
        assert block.mark != "not run" or len(block.why.split()) >= 3, "give the reason"
    commands = re.findall(r"^    (?:\S+=\S+ )*(?:nnbackend|python|pip|git) .*", text, re.MULTILINE)
    assert not commands, f"indented, so never run; fence it: {commands}"


RUNNER = """
import contextlib, io, json, os, sys, traceback
results = {}
for page, (code, folder) in json.load(sys.stdin).items():
    os.makedirs(folder); os.chdir(folder)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        try:
            exec(compile(code, page, "exec"), {"__name__": "__main__"}); error = ""
        except BaseException:
            error = traceback.format_exc()
    results[page] = [shown.getvalue(), error]
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Run all pages' Python, each in its own folder and namespace. Return output and error."""
    folder = tmp_path_factory.mktemp("pages")
    pages = {}
    for page in PAGES:
        blocks = [block.text for block in _blocks(page, "python") if block.runs]
        if blocks and page not in (OWN_BACKEND, *LESSONS):
            pages[page] = "\n".join([PREAMBLES.get(page, ""), *blocks]), str(folder / page)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER], input=json.dumps(pages),
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: dict[str, list[str]] = json.loads(done.stdout)
    assert results.keys() == pages.keys()
    return results


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page not in (OWN_BACKEND, *LESSONS) and any(b.runs for b in _blocks(page, "python"))
    ],
)
def test_the_python_of_a_page_runs(page: str, ran: dict[str, list[str]]) -> None:
    printed, error = ran[page]
    assert not error, error
    assert "False" not in printed, printed


def _commands(page: str) -> Iterator[list[str]]:
    for block in _blocks(page, "sh"):
        if block.runs:
            yield from filter(None, (shlex.split(s, comments=True) for s in block.text.split("\n")))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in (PICTURES, OWN_BACKEND) and any(_commands(page))]
)
def test_the_commands_of_a_page_run_in_their_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnbackend.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNBACKEND_DEVICE", "numpy")
    rows = "\n".join(f"{i % 7},{i % 5},{2 * (i % 7) - i % 5}" for i in range(70))
    (tmp_path / "my.csv").write_text(f"size,age,price\n{rows}\n", encoding="utf-8")
    for name, *words in _commands(page):
        assert name == "nnbackend", f"{name} {words} is not an nnbackend command: mark it"
        assert main(words) == 0, words


def test_each_kind_of_picture_is_shown_and_named() -> None:
    from nnbackend.cli.plot import KINDS

    text = (DOCS / PICTURES).read_text(encoding="utf-8")
    images = re.findall(r"```{image} generated/runs/\w+/(\w+)\.(?:png|gif)\n:alt: \S+", text)
    assert set(images) == KINDS.keys()
    assert f"draws {len(KINDS)} kinds".replace("14", "fourteen") in text


# --- claims of single pages -----------------------------------------------------------------------


def test_the_backend_of_the_page_works(tmp_path: Path) -> None:
    """Write its blocks into the files that they name, then run its commands."""
    page = OWN_BACKEND
    (toml,) = (block.text for block in _blocks(page, "toml"))
    entry = re.search(r'mine = "(\S+)"', toml)
    assert entry is not None
    info = tmp_path / "my_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nnbackend.backends]\nmine = {entry[1]}\n")
    (tmp_path / "my_backend").mkdir()
    for block in _blocks(page, "python"):
        where = re.match(r"# (\S+\.py)", block.text)
        assert where is not None, "a block of this page must begin with the name of its file"
        (tmp_path / where[1]).write_text(block.text, encoding="utf-8")
    code = (
        "import test_my_backend\nfrom nnbackend.cli import main\n"
        f"for words in {list(_commands(page))}:\n"
        "    assert words[0] == 'nnbackend' and main(words[1:]) == 0, words\n"
    )
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    listed = r"^mine +cpu +usable\n    mine:0  cpu  self-test passed$"
    assert re.search(listed, done.stdout, flags=re.MULTILINE), done.stdout


@pytest.mark.parametrize("page", ["backprop.md", "es/backprop.md"])
def test_the_code_has_the_lines_that_the_equations_quote(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\| `(nnbackend/\S+)` \| `(.+)` \|$", text, flags=re.MULTILINE)
    assert len(rows) == text.count("| `nnbackend/") >= 20
    for path, line in rows:
        lines = [code.strip() for code in (ROOT / path).read_text(encoding="utf-8").splitlines()]
        assert line in lines, f"{path} has no line {line}"


@pytest.mark.parametrize("page", ["backprop.md", "es/backprop.md"])
def test_the_code_of_the_page_prints_the_numbers_on_it(
    page: str, ran: dict[str, list[str]]
) -> None:
    (shown,) = (block.text for block in _blocks(page, "text"))
    assert ran[page][0] == shown


def test_both_languages_have_the_same_code_and_equations() -> None:
    def numbers(page: str) -> list[str]:
        text = (DOCS / page).read_text(encoding="utf-8")
        return re.findall(r"`nnbackend/\S+` \| `.+` \|$", text, flags=re.MULTILINE)

    assert numbers("backprop.md") == numbers("es/backprop.md")
    english, spanish = (_blocks(page, "python") for page in ("backprop.md", "es/backprop.md"))
    assert english == spanish


def test_alpha_divided_by_the_batch_size_is_the_penalty_of_scikit_learn() -> None:
    """Check from-scikit-learn.md, and that both gradients of the squared error are equal."""
    from sklearn.neural_network import MLPRegressor

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 4)), rng.normal(size=(100, 2))
    theirs = MLPRegressor(
        hidden_layer_sizes=(6,), activation="tanh", solver="sgd", momentum=0.0, alpha=5.0,
        batch_size=50, learning_rate_init=0.1, shuffle=False, random_state=0,
    )  # fmt: skip
    theirs.partial_fit(x, y)
    start = [np.copy(part) for part in (*theirs.coefs_, *theirs.intercepts_)]
    theirs.partial_fit(x, y)
    layers = [4, nn.Dense(6, "tanh"), nn.Dense(2, "identity")]
    net = nn.Network(layers, "quadratic", dtype="float64", device="numpy")
    net.set_parameters(start[:2], start[2:])
    nn.train(net, x, y, optimizer=nn.SGD(0.1), batch_size=50, epochs=1, shuffle=False, l2=5.0 / 50)
    for ours, weights in zip(net.get_parameters()[0], theirs.coefs_, strict=True):
        np.testing.assert_allclose(ours, weights, rtol=1e-10)


def test_the_losses_of_pytorch_are_ours_divided_by_the_outputs() -> None:
    """Check the table of losses in from-pytorch.md."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, y = rng.random((2, 5, 3))
    for name, theirs, factor in (
        ("quadratic", torch.nn.MSELoss(), 2 / 3),
        ("absolute", torch.nn.L1Loss(), 1 / 3),
        ("huber", torch.nn.HuberLoss(), 1 / 3),
        ("binary_cross_entropy", torch.nn.BCELoss(), 1 / 3),
    ):
        rows, _ = nn.losses.get_loss(name).rows(a, y, np)
        value = theirs(torch.tensor(a), torch.tensor(y)).item()
        assert value == pytest.approx(factor * rows.mean(), rel=1e-10), name


# --- the site -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


def test_every_command_and_option_is_on_the_site(site: Path) -> None:
    from nnbackend.cli import COMMANDS, Parser

    page = (site / "generated" / "commands.html").read_text(encoding="utf-8")
    for verb in COMMANDS:
        assert f'id="{verb}"' in page
        parser = Parser(prog=verb)
        importlib.import_module(f"nnbackend.cli.{verb}").configure(parser)
        for option in parser._option_string_actions:
            assert option in page, f"{verb} {option}"


def test_every_public_name_is_on_the_site(site: Path) -> None:
    """Each name has its entry; its members, parameters and links are those of the code."""
    pages = {p.stem: p.read_text(encoding="utf-8")
             for p in (site / "generated" / "reference").glob("*.html")}  # fmt: skip
    anchors = set(re.findall(r'<dt class="sig[^>]* id="([\w.]+)"', "".join(pages.values())))
    modules = ("data", "distributed", "explain", "plots", "testing", "errors", "schedules")
    names = [f"nnbackend.{name}" for name in nn.__all__]
    for module in modules:
        there = getattr(nn, module, None) or importlib.import_module(f"nnbackend.{module}")
        names += [f"nnbackend.{module}.{name}" for name in getattr(there, "__all__", ())]
    for name in names:
        value = getattr(nn, name.split(".")[1], None)
        last = name.rpartition(".")[2]
        if not inspect.ismodule(value) or name.count(".") == 2:
            assert name in anchors or f"nnbackend.{last}" in anchors, name
    methods = [
        f"nnbackend.{name}.{member}"
        for name in nn.__all__
        if inspect.isclass(thing := getattr(nn, name))
        for member, value in inspect.getmembers(thing, inspect.isfunction)
        if not member.startswith("_") and value.__module__.startswith("nnbackend")
        if member not in ("coefficients", "spelled")  # of base classes that no user calls
    ]
    assert "nnbackend.MLPClassifier.partial_fit" in methods
    inside = ["data.load", "schedules.Cosine", "losses.huber", "activations.gelu"]
    assert {*methods, *(f"nnbackend.{name}" for name in inside)} <= anchors
    assert 'href="networks.html#nnbackend.Network"' in pages["training"]
    assert 'reference/training.html#nnbackend.SGD"' in (site / "backprop.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("page", "thing"),
    [
        ("training", nn.train), ("models", nn.Model.fit), ("data", nn.data.load),
        ("networks", nn.Network),
        ("estimators", nn.MLPClassifier), ("estimators", nn.TabularMLPRegressor),
    ],
)  # fmt: skip
def test_all_parameters_have_a_meaning(site: Path, page: str, thing: Any) -> None:
    text = (site / "generated" / "reference" / f"{page}.html").read_text(encoding="utf-8")
    entry = (
        text.partition(f'id="nnbackend.{thing.__qualname__}"')[2]
        or text.partition(f'.{thing.__name__}"')[2]
    )
    for name in inspect.signature(thing).parameters:
        if name == "self":
            continue
        code = rf'<code[^>]*><span class="pre">{name}</span></code>'
        row = re.search(rf"<tr[^>]*><td><p>{code}.*?</tr>", entry, flags=re.DOTALL)
        assert row is not None, name
        if name not in ("net", "x"):
            assert re.search(r"</td>\s*<td><p>\S", row[0]), f"{name} has no meaning"


def test_the_page_of_a_network_has_its_arrays_and_first_what_users_call(site: Path) -> None:
    text = (site / "generated" / "reference" / "networks.html").read_text(encoding="utf-8")
    entry = text.partition('id="nnbackend.Network"')[2].partition('id="nnbackend.Dense"')[0]
    for name in ("weights", "biases"):
        assert re.search(rf'<span class="pre">{name}</span></code></p></td>\s*<td><p>\S', entry), (
            name
        )
    order = re.findall(r'id="nnbackend\.Network\.(\w+)"', entry)
    for name in ("predict", "trace", "backprop", "set_parameters"):
        assert order.index(name) < min(order.index("workspace"), order.index("for_training")), name


def test_displayed_sums_and_fences_do_not_depend_on_a_font(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    mathml = importlib.import_module("mathml")
    tex = r"y = \varphi\left(\sum_{i=1}^n x_i w_i\right) + \prod_k \left(a\right)"
    shown = mathml.formula(tex, "block")
    assert shown.count("<munderover><mo>\N{N-ARY SUMMATION}</mo>") == 1
    assert shown.count("<munder><mo>\N{N-ARY PRODUCT}</mo>") == 1
    assert re.findall(r'<mo[^>]*mathsize="[^>]*>(.)</mo>', shown) == ["(", ")"]  # not around a
    assert mathml.formula(r"\binom{n}{r}", "block").count('mathsize="') == 2
    assert 'displaystyle="true"' in mathml.formula(tex, "card")
    assert "munder" not in mathml.formula(tex)  # within a line


class Loaded(HTMLParser):
    """Collects what a page loads, and its text outside code."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.formulas = 0
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._code += tag in ("code", "pre", "script", "style")
        self.formulas += tag == "math" and "alttext" in given  # a long one has several elements
        if tag in ("script", "img", "source", "iframe", "video"):
            self.addresses.append(given.get("src", ""))
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon", "preconnect"):
            self.addresses.append(given.get("href", ""))

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text.append(data)


def test_the_site_works_offline(site: Path) -> None:
    """No page loads from elsewhere, and all formulas are MathML."""
    for path in sorted(site.rglob("*.html")):
        page = Loaded()
        page.feed(path.read_text(encoding="utf-8"))
        name = path.relative_to(site).as_posix()
        assert not [a for a in page.addresses if re.match(r"(https?:)?//", a)], name
        text = " ".join(page.text)
        found = re.findall(r"\\\(|\\\[|\$\$|\\(?:frac|delta|varphi|sum|partial)\b", text)
        assert not found, f"{name}: {found}"
        source = DOCS / path.relative_to(site).with_suffix(".md")
        if source.is_file() and not name.startswith("generated/"):
            prose = re.sub(r"```.*?```|`[^`]*`", "", source.read_text("utf-8"), flags=re.DOTALL)
            assert page.formulas == len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", prose, re.DOTALL)), (
                name
            )
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text("utf-8")), path


def test_every_page_is_reached_from_the_index(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    for name in [p.removesuffix(".md") for p in PAGES if p != "index.md"] + ["results"]:
        assert f'href="{name}.html"' in page, name


def test_the_pictures_on_the_site_are_drawn(site: Path) -> None:
    images = {path.name for path in (site / "_images").iterdir()}
    from nnbackend.cli.plot import KINDS

    for kind in KINDS:
        assert any(name.startswith(kind) for name in images), f"{kind} is not among {images}"
    assert "network.svg" in images


@pytest.mark.parametrize("folder", ["course", "es/course"])
def test_the_lessons_on_the_site_have_outputs_notebooks_and_replays(
    site: Path, folder: str
) -> None:
    for page in LESSONS:
        where, _, name = page.removesuffix(".md").rpartition("/")
        if where != folder or name == "index":
            continue
        text = (site / f"{page.removesuffix('.md')}.html").read_text(encoding="utf-8")
        assert f'href="{name}.ipynb" download' in text
        assert "highlight-text" in text, "shows what the blocks print"
        notebook = json.loads((site / folder / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert notebook["cells"][0]["source"].startswith("# L")
        for link in re.findall(r'href="([\w./-]*(?:replay|steps)\.html)', text):
            path = (site / folder / link).resolve()
            assert 20_000 < path.stat().st_size < 300_000, link
