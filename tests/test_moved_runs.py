"""Commands find the files of a run after its folder or data has moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnbackend.cli import main

QUICK = ["--device", "numpy", "--epochs", "2", "--hidden", "4", "--quiet"]


def table(path: Path, n: int = 60, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).normal(size=(n, 2))
    rows = "".join(f"{a:.3f},{b:.3f},{'up' if a > b else 'down'}\n" for a, b in values)
    path.write_text("a,b,kind\n" + rows, encoding="utf-8")
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a folder with data, a validation file and a run trained on them."""
    folder = tmp_path / "old"
    folder.mkdir()
    words = ["train", str(table(folder / "data.csv")), *QUICK, "--out", str(folder / "run")]
    assert main([*words, "--validation", str(table(folder / "valid.csv", seed=1))]) == 0
    return folder


COMMANDS = [
    ["train", "--resume", "RUN", "--epochs", "3", "--quiet"],
    ["plot", "RUN", "--kind", "boundary", "--device", "numpy"],
    ["plot", "RUN", "--kind", "rates", "--device", "numpy"],
    ["explain", "RUN", "0", "--device", "numpy"],
    ["evaluate", "RUN", "DATA", "--part", "test", "--device", "numpy"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:4]))
@pytest.mark.parametrize("moved", ["both", "run alone", "data alone"])
def test_every_command_finds_a_moved_run(old: Path, command: list[str], moved: str) -> None:
    new = old.parent / "new" / "deep"
    if moved == "both":
        new.parent.mkdir()
        old.rename(new)
        run, data = new / "run", new / "data.csv"
    elif moved == "run alone":
        new.mkdir(parents=True)
        shutil.move(old / "run", new / "run")
        run, data = new / "run", old / "data.csv"
    else:  # into the folder of the run
        for name in ("data.csv", "valid.csv"):
            (old / name).rename(old / "run" / name)
        run, data = old / "run", old / "run" / "data.csv"
    words = [{"RUN": str(run), "DATA": str(data)}.get(word, word) for word in command]
    assert main(words) == 0
    if command[0] == "train":
        assert main(words) == 0  # the new paths are saved
        assert str(data) in (run / "config.toml").read_text(encoding="utf-8")


def move_away(old: Path) -> Path:
    """Move the data to a folder that is not searched."""
    elsewhere = old.parent / "elsewhere"
    elsewhere.mkdir()
    (old / "data.csv").rename(elsewhere / "rows.csv")
    return elsewhere / "rows.csv"


def test_missing_data_is_reported_with_all_paths_tried(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = move_away(old)
    for words in (["train", "--resume"], ["plot", "--kind", "boundary"], ["explain", "0"]):
        words.insert(1, str(old / "run")) if words[0] != "train" else words.append(str(old / "run"))
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"no file at {old / 'data.csv'}, " in said
        assert str(old / "run" / "data.csv") in said
        assert "new path (train DATA --resume RUN; plot RUN --data DATA), or correct 'data'" in said
    run = str(old / "run")
    assert main(["train", str(data), "--resume", run, "--epochs", "3", "--quiet"]) == 0
    assert main(["plot", run, "--kind", "boundary"]) == 0  # resuming saved the new path


@pytest.mark.parametrize("kind", ["boundary", "rates"])
def test_plot_accepts_the_new_path_of_the_data(old: Path, kind: str) -> None:
    data = move_away(old)
    words = ["plot", str(old / "run"), "--kind", kind, "--device", "numpy"]
    assert main([*words, "--data", str(data)]) == 0


def test_a_file_of_the_same_name_with_other_rows_is_refused(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    move_away(old)
    run = old / "run"
    table(run / "data.csv", seed=5)
    before = (run / "last.safetensors").read_bytes()
    assert main(["explain", str(run), "0"]) == 2
    assert "the rows that the run was trained on" in capsys.readouterr().err
    assert main(["plot", str(run), "--kind", "rates"]) == 2
    assert main(["train", "--resume", str(run), "--epochs", "3", "--quiet"]) == 2
    assert (run / "last.safetensors").read_bytes() == before


def test_a_run_of_an_earlier_version_without_folder_in_environment_json(old: Path) -> None:
    path = old / "run" / "environment.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["folder"]
    path.write_text(json.dumps(facts), encoding="utf-8")
    old.rename(old.parent / "new")
    assert main(["explain", str(old.parent / "new" / "run"), "0"]) == 0


def test_a_config_whose_data_moved_with_it(old: Path, tmp_path: Path) -> None:
    old.rename(tmp_path / "new")
    config = str(tmp_path / "new" / "run" / "config.toml")
    assert main(["train", "--config", config, "--quiet", "--out", str(tmp_path / "again")]) == 0
