"""Predicting needs NumPy alone: a process that refuses every other library predicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main

ROOT = Path(__file__).resolve().parent.parent
REFUSING = """
import importlib.abc, json, sys

class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in sys.stdlib_module_names or root == "numpy" or root.startswith("nnbackend"):
            return None
        raise ModuleNotFoundError(f"{name} is refused", name=name)

sys.meta_path.insert(0, Refusing())
"""
LOADED = """
import nnbackend
rows, path = json.loads(sys.argv[1]), sys.argv[2]
model = nnbackend.load(path)
print(json.dumps([model.predict(rows).tolist(), model.predict_proba(rows).tolist()]))
"""
COMMAND = """
from nnbackend.cli import main
sys.exit(main(sys.argv[1:]))
"""
ROWS = [
    {"size": 1.5, "colour": "red", "since": "2024-05-01", "good": "yes"},
    {"size": None, "colour": "pink", "since": "", "good": "?"},
]


def _alone(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", REFUSING + code, *words], text=True,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["plain", "preset"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run of a table, by the plain command or the preset."""
    folder = tmp_path_factory.mktemp("alone")
    rng, lines = np.random.default_rng(0), ["size,colour,since,good"]
    for i in range(120):
        size, colour = round(rng.normal(), 3), ("red", "green", "blue")[i % 3]
        good = "yes" if size + (colour == "red") > 0.3 else "no"
        lines.append(f"{'' if i % 9 == 8 else size},{colour},2024-{1 + i % 12:02}-11,{good}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    own = {"plain": ["--hidden", "6"], "preset": ["--preset", "tabular"]}[request.param]
    words = ["--epochs", "3", "--device", "numpy", "--quiet", "--out", str(folder / "run"), *own]
    assert main(["train", str(folder / "t.csv"), *words]) == 0
    return folder / "run"


def test_other_libraries_are_refused() -> None:
    done = _alone("import sklearn")
    assert done.returncode == 1
    assert "sklearn is refused" in done.stderr


def test_a_loaded_model_predicts(run: Path) -> None:
    path = str(run / "model.safetensors")
    done = _alone(LOADED, json.dumps(ROWS), path)
    assert done.returncode == 0, done.stderr
    labels, p = json.loads(done.stdout)
    model = nn.load(path, device="numpy")
    assert labels == model.predict(ROWS).tolist()
    np.testing.assert_allclose(p, model.predict_proba(ROWS), rtol=1e-6)


def test_the_command_predicts(run: Path, tmp_path: Path) -> None:
    text = "size,colour,since\n1.5,red,2024-05-01\n,pink,\n"
    (tmp_path / "new.csv").write_text(text)
    done = _alone(COMMAND, "predict", str(run), str(tmp_path / "new.csv"), "--proba")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header == "no,yes"
    p = [list(map(float, line.split(","))) for line in lines]
    model = nn.load(run / "model.safetensors", device="numpy")
    np.testing.assert_allclose(p, model.predict_proba(ROWS), rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["evaluate", "run", "t.csv"], "scikit-learn"),
        (["plot", "run", "--kind", "weights"], "matplotlib"),
    ],
)
def test_other_commands_name_the_package_they_need(
    run: Path, words: list[str], package: str
) -> None:
    files = {"run": str(run), "t.csv": str(run.parent / "t.csv")}
    done = _alone(COMMAND, *(files.get(word, word) for word in words))
    assert done.returncode == 2
    assert f"needs the package {package}" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
