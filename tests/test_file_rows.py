"""Data larger than memory: rows selected from files, folders of shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.data import file_rows
from nnbackend.data.file_rows import FileRows, selected
from nnbackend.data.host_rows import HostRows
from nnbackend.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 5)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
PARTS = [X[:50], X[50:51], X[51:]]


def _shards(folder: Path, cuts: tuple[int, ...] = (50, 51)) -> Path:
    folder.mkdir()
    for i, (x, y) in enumerate(zip(np.split(X, cuts), np.split(Y, cuts), strict=True)):
        np.save(folder / f"x-{i:03}.npy", x)
        np.save(folder / f"y-{i:03}.npy", y)
    return folder


@pytest.mark.parametrize("parts", [[X], PARTS])
def test_indexing_is_that_of_the_array(parts: list[np.ndarray]) -> None:
    rows = FileRows(parts)
    order = RNG.permutation(120)
    for chosen, array in ((rows, X), (rows.take(order), X[order])):
        assert chosen.shape == array.shape
        assert chosen.nbytes == array.nbytes
        for index in (
            slice(3, 70), slice(None, None, 7), slice(-5, None), np.array([119, 0, 50, 50]),
            np.array([-1, 2]), np.arange(120) % 3 == 0, (slice(2, 4), Ellipsis),
        ):  # fmt: skip
            assert np.array_equal(chosen[index], array[index])
        assert np.array_equal(chosen.take(np.array([7, 3]))[:], array[[7, 3]])
    assert rows.is_within(10.0)
    assert not rows.is_within(1.0)
    bad = X.copy()
    bad[77, 2] = np.nan
    assert not FileRows([bad[:60], bad[60:]]).is_within(10.0)


def _trained(x: Any, device: str, **options: Any) -> tuple[np.ndarray, dict[str, float]]:
    net = nn.Network([5, 8, 2], loss="cross_entropy", device=device, seed=1)
    model = nn.Model(net, scale="standard")
    model.fit(x, Y, **{"epochs": 3, "batch_size": 16, "validation": 0.2, **options})
    return net.backend.to_host(net.theta), model.evaluate(x, Y)


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("options", [{}, {"batch_size": None}, {"sample_weight": 1.0 + Y}])
def test_rows_of_one_file_give_the_same_bits(device: str, options: Any, tmp_path: Path) -> None:
    order = RNG.permutation(120)
    inverse = np.argsort(order)
    np.save(tmp_path / "x.npy", X[order])
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = FileRows([stored]).take(inverse)
    expected, found = _trained(X, device, **options), _trained(rows, device, **options)
    assert np.array_equal(expected[0], found[0])
    assert expected[1] == found[1]


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_shards_give_the_same_result(device: str) -> None:
    expected, found = _trained(X, device), _trained(FileRows(PARTS), device)
    assert np.abs(expected[0] - found[0]).max() < 1e-5
    assert found[1] == pytest.approx(expected[1], rel=1e-5)


def test_large_files_are_selected_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_rows, "LARGE", 0)
    np.save(tmp_path / "a_x.npy", X)
    np.save(tmp_path / "a_y.npy", Y)
    data = nn.data.load(str(tmp_path / "a_x.npy"))
    rest, held_out = data.split(0.25, seed=1)
    assert isinstance(rest.x, HostRows)
    expected = nn.data.Dataset(X, Y, "a", "classification", (0, 1)).split(0.25, seed=1)
    for part, array in zip((rest, held_out), expected, strict=True):
        assert np.array_equal(part.x[:], array.x)
    assert isinstance(selected(X, np.array([1])), np.ndarray)  # in memory: a copy


def test_the_command_line_with_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _shards(tmp_path / "shards")
    np.savez(tmp_path / "whole.npz", x=X, y=Y)
    found = {}
    for name, source in {"shards": folder, "whole": tmp_path / "whole.npz"}.items():
        out = tmp_path / f"run-{name}"
        words = f"train {source} --device numpy --hidden 8 --epochs 3 --json --out {out}"
        assert main(words.split()) == 0
        found[name] = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert main(["evaluate", str(out), str(source), "--json"]) == 0
        found[name] |= json.loads(capsys.readouterr().out.splitlines()[-1])
        assert main(["train", "--resume", str(out), "--epochs", "5", "--quiet"]) == 0
    for figure in ("valid_loss", "test_loss", "test_accuracy", "loss", "roc_auc"):
        assert found["shards"][figure] == pytest.approx(found["whole"][figure], rel=1e-5)
    assert main(["predict", str(tmp_path / "run-shards"), str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 121


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: (f / "y-001.npy").unlink(), "every shard must have its targets"),
        (lambda f: np.save(f / "y-001.npy", Y[:3]), "3 targets for 1 rows"),
        (lambda f: np.save(f / "x-002.npy", X[51:, :4]), "x-000.npy of 5 columns"),
        (lambda f: np.save(f / "x-002.npy", X[51:].astype(float)), "in float64"),
        (lambda f: np.save(f / "x-001.npy", X[0]), "rows of numbers"),
        (lambda f: (f / "x-001.npy").write_bytes(b"no array"), "must be a .npy array"),
        (lambda f: np.save(f / "x-002.npy", np.where(X[51:] > 2, np.nan, X[51:])), "finite"),
    ],
)
def test_bad_shards_are_refused(tmp_path: Path, change: Any, text: str) -> None:
    folder = _shards(tmp_path / "shards")
    change(folder)

    def use() -> None:
        data = nn.data.load(str(folder))
        nn.train(nn.Network([5, 2], "cross_entropy", device="numpy"), data.x, data.y, epochs=1)

    with pytest.raises(DataError, match=text):
        use()


def test_shards_without_targets(tmp_path: Path) -> None:
    folder = _shards(tmp_path / "shards")
    for path in folder.glob("y-*"):
        path.unlink()
    data = nn.data.load(str(folder))
    assert data.y is None
    assert data.n_samples == 120


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process in /proc")
@pytest.mark.parametrize(("shuffle", "limit"), [("yes", 100), ("window", 130)])
def test_a_large_file_takes_little_memory(tmp_path: Path, shuffle: str, limit: int) -> None:
    """A file of 320 MB trains with little memory of its own for the data; a window has 13 MB."""
    n, width = 400_000, 200
    x = np.lib.format.open_memmap(tmp_path / "big_x.npy", "w+", np.float32, (n, width))
    x[:: n // 50] = 1.0  # the rest of the file is a hole: it takes no place on the disk
    x.flush()
    np.save(tmp_path / "big_y.npy", np.arange(n) % 2)
    script = (
        "import sys, threading, time\n"
        "from nnbackend.cli import main\n"
        "def own():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    own = next(line for line in lines if line.startswith('RssAnon'))\n"
        "    return int(own.split()[1]) / 1024\n"
        "most = [0.0]\n"
        "def watch():\n"
        "    while True:\n"
        "        most[0] = max(most[0], own())\n"
        "        time.sleep(0.02)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "code = main(sys.argv[1:])\n"
        "print('most', most[0])\n"
        "sys.exit(code)\n"
    )
    most = {}
    words = [
        "--device",
        "numpy",
        "--hidden",
        "4",
        "--epochs",
        "1",
        "--batch-size",
        "4096",
        "--quiet",
        "--scale",
        "none",
        "--shuffle",
        shuffle,
    ]
    for name, source in {"big": str(tmp_path / "big_x.npy"), "none": "digits"}.items():
        done = subprocess.run(
            [sys.executable, "-c", script, "train", source, *words, "--out", name],
            cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        most[name] = float(done.stdout.splitlines()[-1].split()[1])
    assert most["big"] - most["none"] < limit
