"""The scripts of published results run in their quick mode, and the page shows what was run."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "published"
# The smallest network of a script, by name; all have the same loop.
SCRIPTS = {
    "nielsen": "784-30-10",
    "fashion_paper": "tanh 10-10",
    "keras_512": "Keras",
    "maxout_paper": "Maxout",
    "dropout_paper": "Dropout",
    "ciresan": "1000-500",
}


def _write_idx(path: Path, values: np.ndarray) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small folder like MNIST's: each class is a bright bar at another place, in noise."""
    folder, rng = tmp_path_factory.mktemp("mnist"), np.random.default_rng(0)
    for part, n in (("train", 120), ("t10k", 60)):
        y = np.arange(n) % 10
        x = rng.integers(0, 60, (n, 28, 28))
        for image, label in zip(x, y, strict=True):
            image[2 * label + 4 : 2 * label + 6, 4:24] = 250
        _write_idx(folder / f"{part}-images-idx3-ubyte", x)
        _write_idx(folder / f"{part}-labels-idx1-ubyte", y)
    return folder


def _run(script: str, *words: str) -> str:
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / f"{script}.py"), *words],
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_script_is_tested() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"common", "results"}
    assert scripts == SCRIPTS.keys()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs_once_and_then_reads_its_result(
    script: str, digits: Path, tmp_path: Path
) -> None:
    words = ["--data", str(digits), "--quick", "--device", "numpy", "--only", SCRIPTS[script]]
    words += ["--out", str(tmp_path)]
    assert "seed 0" in _run(script, *words)
    files = list(tmp_path.iterdir())
    assert files
    for path in files:
        facts = json.loads(path.read_text(encoding="utf-8"))
        assert facts["shortened"] == "quick trial"
        assert [run["seed"] for run in facts["runs"]] == [0]
    assert "seed 0" not in _run(script, *words), "a finished seed runs again"
    # This compares the page's names and published figures with the script's.
    assert _page(tmp_path).count("not yet run (quick trial only)") == len(files)


def _page(folder: Path) -> str:
    _run("results", str(folder), "--page", str(folder / "page.md"))
    return (folder / "page.md").read_text(encoding="utf-8")


def _write_result(path: Path, reached: list[float], **other: object) -> None:
    runs = [
        {"seed": seed, "reached": share, "epochs": 30, "seconds": 60.0}
        for seed, share in enumerate(reached)
    ]
    facts = {"name": "Nielsen 784-30-10 quadratic", "published": 0.9542, "shortened": ""}
    facts |= {"device": "x:0", "processor": "p", "runs": runs, **other}
    path.write_text(json.dumps(facts), encoding="utf-8")


def test_the_page_shows_what_was_not_run(tmp_path: Path) -> None:
    _write_result(tmp_path / "a.json", [0.95, 0.97])
    name = "Nielsen 784-100-10 quadratic"
    _write_result(tmp_path / "b.json", [0.5], name=name, published=0.9659, shortened="4 epochs")
    page = _page(tmp_path)
    assert "| 95.42% | 96.00% | 1.41% | 97.00% | 2 | 1.0 | x:0 (p) |" in page
    assert "| 96.59% | not yet run whole; 50.00% after 4 epochs |" in page
    assert page.count("| not yet run |") == 22


def test_a_figure_that_differs_from_the_scripts_is_refused(tmp_path: Path) -> None:
    _write_result(tmp_path / "a.json", [0.95], published=0.95)
    with pytest.raises(AssertionError, match=r"published 0\.95; the script says 0\.9542"):
        _page(tmp_path)


def test_the_page_of_the_site_is_made_from_the_committed_results(tmp_path: Path) -> None:
    _run("results", "--page", str(tmp_path / "page.md"))
    made = (tmp_path / "page.md").read_text(encoding="utf-8")
    committed = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert committed == made, "run: python examples/published/results.py"


class _Stop(nn.Callback):
    """A callback that presses Ctrl-C in the second epoch."""

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        if trainer.state.epoch == 2:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_a_stopped_script_resumes_within_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    common = importlib.import_module("common")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3), dtype=np.float32), np.arange(20) % 2

    def run(folder: Path, *callbacks: nn.Callback) -> tuple[nn.Network, nn.History]:
        net = nn.Network([3, 4, 2], "cross_entropy", device="numpy", seed=0)
        net, history = common.train_or_resume(
            folder, net, x, y, list(callbacks), epochs=4, batch_size=5
        )
        return net, history

    with pytest.raises(SystemExit, match="the same command resumes"):
        run(tmp_path / "a", _Stop())
    net, history = run(tmp_path / "a")
    whole, _ = run(tmp_path / "b")
    assert len(history) == 4
    np.testing.assert_array_equal(net.theta, whole.theta)
