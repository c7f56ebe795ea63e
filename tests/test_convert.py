"""Tables of numbers converted to shards: the same rows, in bounded memory, and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nnbackend as nn
from nnbackend.cli import convert, main
from nnbackend.persistence import atomic_file

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(250, 3)).round(5), columns=["a", "b", "c"])
FRAME["kind"] = np.where(FRAME["a"] > 0, "good", "bad")


def _run(words: str, *more: Any) -> int:
    return main(["convert", *map(str, words.split()), *map(str, more), "--quiet"])


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_shards_have_the_rows_of_the_table(tmp_path: Path, suffix: str) -> None:
    path, folder = tmp_path / f"t.{suffix}", tmp_path / "shards"
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        FRAME.to_parquet(path, index=False)
    else:
        FRAME.to_csv(path, index=False)
    assert main(["convert", str(path), str(folder), "--rows", "100", "--dtype", "float64"]) == 0
    assert sorted(p.name for p in folder.glob("*.npy")) == [
        *(f"x-0000{i}.npy" for i in range(3)), *(f"y-0000{i}.npy" for i in range(3)),
    ]  # fmt: skip
    data = nn.data.load(str(folder))
    assert np.array_equal(data.x[:], FRAME[["a", "b", "c"]].to_numpy())
    assert data.labels is not None
    assert data.labels.tolist() == FRAME["kind"].tolist()


def test_another_target_and_whole_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": range(40), "left": [0, 1] * 20, "m": 3})
    frame.to_csv(tmp_path / "t.csv", index=False)
    words = f"{tmp_path / 't.csv'} {tmp_path / 's'} --target left --rows 16 --dtype uint8"
    assert _run(words) == 0
    data = nn.data.load(str(tmp_path / "s"))
    assert data.x.dtype == np.uint8
    assert data.x[:].tolist() == frame[["n", "m"]].to_numpy().tolist()
    assert data.y is not None
    assert data.y.tolist() == frame["left"].tolist()
    assert data.task == "classification"


def test_an_interrupted_conversion_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    words, folder = f"{tmp_path / 't.csv'} {tmp_path / 's'} --rows 60", tmp_path / "s"
    written: list[str] = []

    def failing(path: Path, data: bytes) -> None:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path.name)
        atomic_file.atomic_write(path, data)

    monkeypatch.setattr(convert, "atomic_write", failing)
    assert _run(words) == 130
    assert written == ["shards.json", "x-00000.npy", "y-00000.npy", "x-00001.npy"]
    monkeypatch.undo()
    before = (folder / "x-00000.npy").stat().st_mtime_ns
    assert _run(words) == 0
    assert (folder / "x-00000.npy").stat().st_mtime_ns == before
    data = nn.data.load(str(folder))
    assert np.array_equal(data.x[:], FRAME[["a", "b", "c"]].to_numpy(np.float32))


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("a,b,y\n1,x,0\n", "", "Received: 'x' in column 'b', data row 1"),
        ("a,b,y\n1,2,0\n3,,1\n", "", "Received: '' in column 'b', data row 2"),
        ("a,b,y\n1,2,0\n3,1\n", "", "cells"),
        ("a,b,y\n1,2,0\n", "--target z", "Known: a, b, y"),
        ("a,b,y\n1,300,0\n", "--dtype uint8", "must fit in uint8. Received: 300"),
        ("a,b,y\n1,1e300,0\n", "", "must fit in float32. Received: 1e+300"),
        ("a,b,y\n1,2,0\n", "--rows 0", "--rows must be"),
    ],
)
def test_bad_tables_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert _run(f"{tmp_path / 't.csv'} {tmp_path / 's'} {words}") == 2
    assert message in capsys.readouterr().err


def test_other_folders_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    folder = tmp_path / "s"
    assert _run(f"{tmp_path / 't.csv'} {folder}") == 0
    before = sorted(folder.iterdir())
    assert _run(f"{tmp_path / 't.csv'} {folder} --rows 7") == 2
    assert "that of the same conversion" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
    assert _run(f"{tmp_path / 'none.csv'} {folder}") == 2
    assert _run(f"{folder / 'x-00000.npy'} {tmp_path / 'other'}") == 2
    assert "needs no conversion" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("source", ["tables", "tables/part-*"])
def test_several_tables_are_one(tmp_path: Path, suffix: str, source: str) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for i, part in enumerate((FRAME[:90], FRAME[90:])):
        if suffix == "parquet":
            pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
            part.to_parquet(folder / f"part-{i}.parquet", index=False)
        else:
            part.to_csv(folder / f"part-{i}.csv", index=False)
    words = f"{tmp_path / source} {tmp_path / 's'} --rows 100 --dtype float64"
    assert _run(words) == 0
    assert _run(words) == 0  # nothing is left to convert
    data = nn.data.load(str(tmp_path / "s"))
    assert np.array_equal(data.x[:], FRAME[["a", "b", "c"]].to_numpy())
    assert data.labels is not None
    assert data.labels.tolist() == FRAME["kind"].tolist()


def test_tables_with_other_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    FRAME.rename(columns={"a": "z"}).to_csv(tmp_path / "b.csv", index=False)
    assert _run(f"{tmp_path}/[ab].csv {tmp_path / 's'}") == 2
    message = capsys.readouterr().err.replace("\n", " ")
    assert "b.csv: the tables must have the same columns. Received: z, b, c, kind" in message
    assert _run(f"{tmp_path}/[xy].csv {tmp_path / 't'}") == 2


def test_a_nan_is_named_by_its_row_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    import pyarrow.parquet as pq

    columns = {"a": [1.0, 2.0, float("nan")], "b": [1, 2, 3], "y": [0, 1, 0]}
    pq.write_table(pa.table(columns), "t.parquet")
    assert main(["convert", "t.parquet", "out", "--target", "y"]) == 2
    assert "nan in column 'a', data row 3" in capsys.readouterr().err
