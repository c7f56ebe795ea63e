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
    word = _write("word.csv", "a,b", *(f"{i},{i % 2}" for i in range(20)), "oops,1")
    plain = _write("plain.csv", "1,0", "2,1", "3,0")
    many = _write("many.csv", "a,who,b", *(f"{i},name {i},{i % 2}" for i in range(120)))
    for words, cure in {
        f"train {gap}": "--missing drop",
        f"train {few}": "--task classification or --task regression",
        f"train {word}": "--missing drop. If all are names, pass --categorical a.",
        f"train {plain} --target b": "--header yes if that row is a header",
        f"train {many}": "--ignore who",
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
        assert done.code == 2
        assert cure in done.err, words
        assert not PYTHON.search(done.err), done.err
    assert not Path("runs").exists()


def test_notes_are_reworded_too(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{'G' if i % 5 == 0 else i % 4},{i % 2}" for i in range(40)]
    words = f"train {_write('floors.csv', 'floor,y', *rows)} --device numpy --epochs 1"
    assert run(words).code == 0
    assert "nnbackend: note: floors.csv" in caplog.text
    assert "pass --categorical floor" in caplog.text
    caplog.clear()
    assert run(f"{words} --categorical floor").code == 0
    assert not caplog.text


def test_predictions_keep_their_lines_if_rows_have_missing_values(run: Run) -> None:
    rows = [f"{i % 7},{i % 2 + 0.1 * (i % 3)},{'ab'[i % 2]}" for i in range(60)]
    _write("train.csv", "p,q,kind", *rows)
    fast = "--hidden 8 --epochs 30 --learning-rate 0.05 --device numpy"
    assert run(f"train train.csv {fast}").code == 0
    # A missing or unknown target is ignored.
    _write("new.csv", "p,q,kind", "1,0.1,", ",1.1,?", "3,1.2,zebra", "2,NA,a")
    refused = run("predict runs/train-001 new.csv --device numpy")
    assert refused.code == 2
    assert "p: 1, q: 1" in refused.err
    assert "--missing drop" in refused.err
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
    assert "all: 4 rows, 1 with missing values dropped" in shown.out


def test_a_target_without_header_is_ignored(run: Run) -> None:
    _write("plain.csv", *(f"{i % 5}.5,{i % 2}.0,{i % 2}" for i in range(40)))
    assert run("train plain.csv --hidden 4 --epochs 1 --device numpy").code == 0
    _write("new.csv", "1.5,1.0,?", "2.5,0.0,?")
    assert len(run("predict runs/plain-001 new.csv --device numpy").out.splitlines()) == 3


def test_proba_of_a_regression_is_refused_with_the_option_name(run: Run) -> None:
    assert run("train diabetes --hidden 3 --epochs 1 --device numpy").code == 0
    err = run("predict runs/diabetes-001 diabetes --proba").err
    assert "--proba needs a softmax or sigmoid output" in err
    assert "Leave --proba out." in err
