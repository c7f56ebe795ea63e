"""Folders and patterns of .npy, .npz and Parquet files, which are read in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.data import parquet_rows
from nnbackend.data.parquet_rows import Decoder
from nnbackend.data.shards import exists, find_shards, name_of
from nnbackend.errors import ArgumentError, DataError
from nnbackend.training.batching import epoch_order

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
CUTS = (150, 151)
NAMES = ["a", "b", "c", "d"]


def _parquet(folder: Path, x: np.ndarray = X, y: Any = Y, group: int = 40, **more: Any) -> str:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    for i, (part, targets) in enumerate(zip(np.split(x, CUTS), np.split(y, CUTS), strict=True)):
        columns = {"a": part[:, 0], "bought": targets}
        columns |= {name: part[:, j] for j, name in enumerate(NAMES) if j}
        if not len(targets.dtype.names or ()) and targets.size and targets[0] is None:
            del columns["bought"]
        parquet.write_table(pa.table(columns), folder / f"part-{i}.parquet", row_group_size=group)
    return str(folder)


def _npy(folder: Path, names: tuple[str, str] = ("x-{}", "y-{}")) -> str:
    folder.mkdir()
    for i, (x, y) in enumerate(zip(np.split(X, CUTS), np.split(Y, CUTS), strict=True)):
        np.save(folder / f"{names[0].format(i)}.npy", x)
        np.save(folder / f"{names[1].format(i)}.npy", y)
    return str(folder)


def _npz(folder: Path, save: Any = np.savez, y: str = "y") -> str:
    folder.mkdir()
    for i, (part, targets) in enumerate(zip(np.split(X, CUTS), np.split(Y, CUTS), strict=True)):
        save(folder / f"part-{i}.npz", **{"x": part, y: targets})
    return str(folder)


def _made(folder: Path, kind: str) -> tuple[str, dict[str, Any]]:
    """Return the source of a kind of shards, and the options of its reading."""
    made: dict[str, Any] = {
        "npy": lambda: _npy(folder),
        "npy pattern": lambda: f"{_npy(folder)}/x-*.npy",
        "npy all": lambda: f"{_npy(folder)}/*.npy",
        "npy names": lambda: f"{_npy(folder, ('part-{}_x', 'part-{}_y'))}/part-*.npy",
        "npz": lambda: _npz(folder),
        "npz pattern": lambda: f"{_npz(folder)}/part-[0-9].npz",
        "parquet": lambda: _parquet(folder),
        "parquet pattern": lambda: f"{_parquet(folder)}/*.parquet",
    }
    return made[kind](), {"target": "bought"} if "parquet" in kind else {}


KINDS = (
    *("npy", "npy pattern", "npy all", "npy names"),
    *("npz", "npz pattern", "parquet", "parquet pattern"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_have_the_rows_of_the_arrays(tmp_path: Path, kind: str) -> None:
    source, options = _made(tmp_path / "clicks", kind)
    data = nn.data.load(source, **options)
    assert np.array_equal(data.x[:], X)
    assert data.x.dtype == np.float32
    assert data.y is not None
    assert np.array_equal(data.y, Y)
    assert data.task == "classification"
    assert data.name == ("part" if kind in ("npz pattern", "npy names")
                         else "clicks")  # fmt: skip
    rows = RNG.permutation(400)[:77]
    assert np.array_equal(data.x[rows], X[rows])
    assert np.array_equal(data.x.take(rows)[5:60], X[rows][5:60])
    assert np.array_equal(data.x[X[:, 0] > 0], X[X[:, 0] > 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    source, options = _made(tmp_path / "clicks", kind)
    out = str(tmp_path / "run")
    more = ["--target", "bought"] if options else []
    words = ["--device", "numpy", "--hidden", "8", "--epochs", "2", "--json", "--out", out]
    assert main(["train", source, *more, *words]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    assert ("shuffle    window: 16,384 rows" in captured.err) == ("parquet" in kind)
    assert main(["evaluate", out, source, "--json"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", out, "--epochs", "3", "--quiet"]) == 0
    assert main(["predict", out, source]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 401
    assert 0 < found["valid_loss"] < 2


def test_predict_without_the_target_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = _parquet(tmp_path / "clicks"), str(tmp_path / "run")
    words = ["--device", "numpy", "--hidden", "8", "--epochs", "1", "--quiet", "--out", out]
    assert main(["train", source, "--target", "bought", *words]) == 0
    new = _parquet(tmp_path / "new", y=np.full(400, None))
    capsys.readouterr()
    assert main(["predict", out, new]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 401


@pytest.mark.parametrize("shuffle", [True, False, "window:32"])
def test_parquet_is_trained_in_windows(tmp_path: Path, shuffle: Any) -> None:
    data = nn.data.load(_parquet(tmp_path / "p"), target="bought")
    trained = []
    for x in (data.x, X):
        net = nn.Network([4, 8, 2], loss="cross_entropy", device="numpy", seed=1)
        order = shuffle
        if x is X and shuffle:  # the same order, whose chunks are the row groups
            window = 16384 if shuffle is True else 32
            ends = data.x.chunk_ends

            def order(epoch: int, window: int = window, ends: Any = ends) -> np.ndarray:
                return np.asarray(epoch_order(400, 0, epoch, f"window:{window}").within(ends))

        nn.train(net, x, Y, epochs=3, batch_size=48, shuffle=order)
        trained.append(net.theta.copy())
    assert np.array_equal(*trained)


def test_the_chunks_of_parquet_are_its_row_groups(tmp_path: Path) -> None:
    x = nn.data.load(_parquet(tmp_path / "p", group=60), target="bought").x
    assert x.chunk_ends.tolist() == [60, 120, 150, 151, 211, 271, 331, 391, 400]
    some = x.take(np.array([0, 5, 59, 60, 149, 399]))
    assert some.chunk_ends.tolist() == [3, 4, 5, 6]
    with pytest.raises(ArgumentError, match="Use False, or window"):
        nn.train(nn.Network([4, 2], "cross_entropy", device="numpy"), x, Y,
                 shuffle=lambda epoch: np.arange(400))  # fmt: skip


def test_parquet_is_decoded_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with row groups larger than a window: its place in the group is remembered."""
    monkeypatch.setattr(parquet_rows, "ROWS", 10)
    x = nn.data.load(_parquet(tmp_path / "p", group=200), target="bought").x
    decoded = []

    def numbers(self: Decoder, batch: Any) -> np.ndarray:
        decoded.append(batch.num_rows)
        return before(self, batch)

    before = Decoder._numbers
    monkeypatch.setattr(Decoder, "_numbers", numbers)
    net = nn.Network([4, 2], "cross_entropy", device="numpy")
    nn.train(net, x, Y, epochs=1, batch_size=16, shuffle="window:32")
    check = 400  # all numbers must be finite
    assert sum(decoded) <= 400 + check + 3 * 10
    assert max(decoded) <= 10


def test_whole_numbers_and_gaps(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    folder = tmp_path / "p"
    folder.mkdir()
    table = {"big": [1 << 40, 2], "yes": [True, None], "kind": ["good", "bad"]}
    parquet.write_table(pa.table(table), folder / "a.parquet")
    data = nn.data.load(folder, target="kind", task="classification")
    assert data.x.dtype == np.float64
    assert np.array_equal(data.x[:], [[1 << 40, 1], [2, np.nan]], equal_nan=True)
    assert data.classes == ("bad", "good")
    with pytest.raises(DataError, match=r"finite in float32. Received: nan in row 1, column 1"):
        nn.train(nn.Network([2, 2], "cross_entropy", device="numpy"), data.x, data.y)


@pytest.mark.parametrize(
    ("kind", "change", "options", "text"),
    [
        ("npz", lambda f: _replaced(f / "part-1.npz", x=X[150:151]), {}, "no array 'y' in part-1"),
        ("npz", lambda f: _replaced(f / "part-1.npz", y=Y[150:151]), {}, "hold an array 'x'"),
        ("npz", lambda f: _replaced(f / "part-1.npz", x=X, y=Y[:9]), {}, "9 targets for 400 rows"),
        ("npz", lambda f: (f / "part-1.npz").write_bytes(b"no"), {}, "complete .npz archive"),
        ("npz", lambda f: np.savez_compressed(f / "part-1.npz", x=X, y=Y), {},
         "Write it with np.savez, not"),
        ("parquet", lambda f: (f / "part-1.parquet").write_bytes(b"no"), {"target": "bought"},
         "complete Parquet file"),
        ("parquet", lambda f: _table(f, a=[1.0]), {"target": "bought"}, "same columns"),
        ("parquet", lambda f: None, {"target": "sold"}, "Known: a, b, bought, c, d"),
        ("parquet", lambda f: _table(f, a=["x"], b=[1], c=[1], d=[1], bought=[1]),
         {"target": "bought"}, "column 'a' of type string in part-1.parquet"),
        ("parquet", lambda f: _table(f, a=[1], b=[1], c=[1], d=[1], bought=[None]),
         {"target": "bought"}, "no value of 'bought' in 1 rows of part-1.parquet"),
        ("npy", lambda f: None, {"target": "y"}, "None for .npy files"),
        ("npy", lambda f: None, {"header": True}, "has no effect"),
    ],
)  # fmt: skip
def test_bad_shards_are_refused(
    tmp_path: Path, kind: str, change: Any, options: dict[str, Any], text: str
) -> None:
    source, _ = _made(tmp_path / "clicks", kind)
    change(Path(source))
    with pytest.raises((DataError, ArgumentError), match=text):
        nn.data.load(source, **options)


def _replaced(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)


def _table(folder: Path, **columns: list[Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), folder / "part-1.parquet")


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _npy(tmp_path / "data")
    assert [path.name for path in find_shards("data/x-*.npy")] == [f"x-{i}.npy" for i in range(3)]
    assert exists("data/x-*.npy")
    assert not exists("data/z-*.npy")
    assert name_of("data/x-*.npy") == "data"
    with pytest.raises(DataError, match=r"must match files. Received: 'data/z-"):
        nn.data.load("data/z-*.npy")
    (tmp_path / "data" / "x-9.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"nnbackend convert 'data/x-\*' FOLDER"):
        nn.data.load("data/x-*")
    np.savez(tmp_path / "a[1].npz", x=X, y=Y)  # the name of a file
    assert nn.data.load("a[1].npz").n_samples == 400


def test_shards_of_another_array(tmp_path: Path) -> None:
    data = nn.data.load(_npz(tmp_path / "s", y="label"), target="label")
    assert data.y is not None
    assert np.array_equal(data.y, Y)
    assert nn.data.load(str(tmp_path / "s")).y is None
