"""The library's messages as printed by commands, and rows with missing values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from nnbackend.cli import main
from nnbackend.cli.spelling import spelled_for
from nnbackend.errors import DataError, Mention

PYTHON = re.compile(r"\w+=[\'\"\[TF\d]|\bNone\b")  # a keyword with its value


class Done(NamedTuple):
    """Result of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line, split at blanks, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_command(words: str) -> Done:
        capsys.readouterr()
        code = main(words.split())
        return Done(code, *capsys.readouterr())

    return run_command


def _write(name: str, *rows: str) -> str:
    Path(name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return name


def test_only_options_of_the_command_are_spelled() -> None:
    parser = argparse.ArgumentParser()
    for option in ("--missing", "--max-norm", "--categorical", "--header"):
        parser.add_argument(option)
    parts = [
        "Drop them with ", Mention("missing", "drop"), ", ", Mention("categorical", ["a b", "c"]),
        ", ", Mention("header", True), ", ", Mention("max_norm"), ", ", Mention("alpha", -1.0), ".",
    ]  # fmt: skip
    assert str(DataError(*parts)) == (
        "Drop them with missing='drop', categorical=['a b', 'c'], header=True, max_norm, "
        "alpha=-1.0."
    )
    with pytest.raises(DataError) as caught, spelled_for(parser):
        raise DataError(*parts)
    assert str(caught.value) == (
        "Drop them with --missing drop, --categorical 'a b,c', --header yes, --max-norm, "
        "alpha=-1.0."
    )


def test_errors_of_train_name_their_cures_as_options(run: Run) -> None:
    gap = _write("gap.csv", "a,b", "1,0", ",1", "3,0", "4,1")
    few = _write("few.csv", "a,b", *(f"{i},{i % 30}" for i in range(40)))
    word = _write("word.csv", "a,b", *(f"{i},{i / 8}" for i in range(40)), "1,oops")
    comma = _write("comma.csv", "a;b", *(f"{1 + i % 8},250;{i % 2}" for i in range(40)))
    plain = _write("plain.csv", "1,0", "2,1", "3,0")
    many = _write("many.csv", "who,b", *(f"name {i},{i % 2}" for i in range(120)))
    for words, cure in {
        f"train {gap} --missing error": "leave out --missing error",
        f"train {few}": "--task classification or --task regression",
        f"train {word}": "pass --task classification for classes",
        f"train {comma}": "Pass --decimal , or --decimal .",
        f"train {gap} --column a=date": "Leave out --column a=date",
        f"train {gap} --column a=dat": "--column must be NAME=KIND",
        f"train {plain} --target b": "--header yes if that row is a header",
        f"train {many}": "--column who=category",
        "train iris --target kind": "--target has no effect for the built-in set",
        "train iris --categorical a": "Received: --categorical a",
        "train iris --task regression": "--task must be 'classification' for the set",
        "train iris --device cpu:x": "Received: --device cpu:x",
        "train iris --optimizer lbfgs --max-norm 1": "Received: --max-norm",
        "train iris --validation 0 --monitor valid_loss": "Pass --validation for",
        "train iris --precision bf16 --device numpy": "Received: --precision bf16",
        "train iris --monitor x --device numpy": "--monitor must be a column",
        "train iris --loss mse": "Did you mean 'quadratic'",
        "train iris --activation swish": "Did you mean 'silu'",
    }.items():
        done = run(words)
        assert done.code == 2, words
        assert cure in done.err, words
        assert not PYTHON.search(done.err), done.err
    assert not Path("runs").exists()


def test_notes_are_reworded_too(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    Path("latin.csv").write_bytes("größe,y\n1,0\n2,1\n3,0\n4,1\n5,0\n6,1\n".encode("cp1252"))
    assert run("train latin.csv --device numpy --epochs 1").code == 0
    assert "nnbackend: note: latin.csv" in caplog.text
    assert "--encoding NAME names another encoding" in caplog.text
    caplog.clear()
    assert run("train latin.csv --device numpy --epochs 1 --encoding cp1252").code == 0
    assert not caplog.text


def test_every_row_has_an_answer(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{3 if i % 4 else i % 7},{i % 2 + 0.1 * (i % 3)},{'ab'[i % 2]}" for i in range(60)]
    _write("train.csv", "p,q,kind", *rows)
    fast = "--hidden 8 --epochs 30 --learning-rate 0.05 --device numpy"
    assert run(f"train train.csv {fast}").code == 0
    # A missing or unknown target is ignored.
    _write("new.csv", "p,q,kind", "1,0.1,", ",1.1,?", "3,1.2,zebra", "2,NA,a")
    done = run("predict runs/train-001 new.csv --device numpy")
    assert len(done.out.splitlines()) == 5
    assert "column 'p' has no value in 1 of 4 rows, in data row 2; 3 stands for it" in caplog.text
    refused = run("predict runs/train-001 new.csv --device numpy --missing error")
    assert refused.code == 2
    assert "p: 1, q: 1" in refused.err
    assert "--missing error" in refused.err


def test_predictions_keep_their_lines_if_rows_are_dropped(run: Run) -> None:
    rows = [f"{i % 7},{i % 2 + 0.1 * (i % 3)},{'ab'[i % 2]}" for i in range(60)]
    _write("train.csv", "p,q,kind", *rows)
    fast = "--hidden 8 --epochs 30 --learning-rate 0.05 --device numpy"
    assert run(f"train train.csv {fast}").code == 0
    _write("new.csv", "p,q,kind", "1,0.1,", ",1.1,?", "3,1.2,zebra", "2,NA,a")
    done = run("predict runs/train-001 new.csv --device numpy --missing drop")
    assert done.out.splitlines() == ["prediction", "a", '""', "b", '""']
    assert "2 of 4 rows have missing values; their predictions are empty" in done.err
    proba = run("predict runs/train-001 new.csv --device numpy --missing drop --proba")
    assert [line == "," for line in proba.out.splitlines()[1:]] == [False, True, False, True]
    array = run("predict runs/train-001 new.csv --device numpy --missing drop --out a.npy")
    assert "--out must be a .csv file if rows have missing values" in array.err
    whole = run("predict runs/train-001 train.csv --device numpy --out a.npy")
    assert (whole.code, len(np.load("a.npy"))) == (0, 60)
    _write("known.csv", "p,q,kind", *rows[:4], ",1,a")
    shown = run("evaluate runs/train-001 known.csv --device numpy --missing drop")
    assert "all: 4 rows, 1 without value or target dropped" in shown.out


def test_predictions_have_the_ids_of_their_rows(run: Run) -> None:
    rows = [f"C-{i},{i % 7},{'ab'[i % 2]}" for i in range(60)]
    _write("train.csv", "client,p,kind", *rows)
    shown = run("train train.csv --hidden 8 --epochs 3 --device numpy")
    assert "client  left out: 60 different values in 60 rows" in shown.err
    _write("new.csv", "p,client", "1,x", ",y", "3,")
    lines = run("predict runs/train-001 new.csv --device numpy").out.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == ["client", "x", "y", ""]
    lines = run("predict runs/train-001 new.csv --device numpy --missing drop").out.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == ["client", "x", "", ""]
    assert run("predict runs/train-001 new.csv --id client --proba").out.startswith("client,a,b\n")
    wrong = run("predict runs/train-001 new.csv --id p")
    assert (wrong.code, "--column p=id" in wrong.err) == (2, True)
    assert run("train train.csv --column p=id,client=category --epochs 1 --device numpy").code == 0
    assert run("predict runs/train-002 new.csv").out.startswith("p,prediction\n1,")


def test_a_target_without_header_is_ignored(run: Run) -> None:
    _write("plain.csv", *(f"{i % 5}.5,{i % 2}.0,{i % 2}" for i in range(40)))
    assert run("train plain.csv --hidden 4 --epochs 1 --device numpy").code == 0
    _write("new.csv", "1.5,1.0,?", "2.5,0.0,?")
    assert len(run("predict runs/plain-001 new.csv --device numpy").out.splitlines()) == 3


def test_proba_of_a_regression_is_refused_with_the_option_name(run: Run) -> None:
    assert run("train diabetes --hidden 3 --epochs 1 --device numpy").code == 0
    err = run("predict runs/diabetes-001 diabetes --proba").err
    assert "--proba needs a classifier with probabilities" in err
    assert "Leave --proba out." in err
