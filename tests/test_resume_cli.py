"""`nnbackend train --resume`: runs that a signal ended, or killed, go on in their folder."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnbackend.cli import main
from nnbackend.cli.progress import Keeper
from nnbackend.persistence.checkpoints import checkpoint_paths
from nnbackend.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
    "PYTHONWARNINGS": "error",
}
COMMAND = [sys.executable, "-m", "nnbackend"]
TRAIN = ["train", "digits", "--device", "numpy", "--hidden", "40,20", "--dropout", "0.2",
         "--epochs", "25", "--seed", "4", "--schedule", "plateau:patience=2,gamma=0.5"]  # fmt: skip

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*TRAIN, "--quiet", "--out", str(folder)]) == 0
    assert not (folder / "checkpoints").exists()  # a run that has ended needs none
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_ended_by_a_signal_and_resumed(number: int, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, *TRAIN, "--checkpoint", "17 steps", "--out", "run"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not (folder / "checkpoints").is_dir() or not checkpoint_paths(folder / "checkpoints"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, err
        assert "Go on with: nnbackend train --resume run" in err
    assert len(rows(folder)) < 25

    done = subprocess.run(
        [*COMMAND, "train", "--resume", "run", "--json"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["epochs"] == len(rows(whole))
    assert rows(folder) == rows(whole)
    for name in ("model.safetensors", "last.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert not (folder / "checkpoints").exists()


def test_a_run_goes_on_in_float32_on_a_device_without_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def interrupt(keeper: Keeper, trainer: Trainer, row: object) -> None:
        trainer.interrupt.requested = True

    with monkeypatch.context() as during:
        during.setattr(Keeper, "on_epoch_end", interrupt)
        words = ["xor", "--device", "numpy", "--epochs", "2", "--hidden", "3"]
        assert main(["train", *words, "--quiet", "--out", str(folder)]) == 130
    config = folder / "config.toml"
    text = config.read_text(encoding="utf-8")
    assert 'precision = "float32"' in text
    config.write_text(text.replace('precision = "float32"', 'precision = "tf32"'))
    words = ["--resume", str(folder), "--device", "numpy", "--quiet"]
    assert main(["train", *words]) == 0
    assert len(rows(folder)) == 2


def test_a_second_ctrl_c_promises_nothing_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    def cut(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "on_epoch_end", cut)
    words = ["xor", "--device", "numpy", "--epochs", "2", "--hidden", "3", "--quiet"]
    assert main(["train", *words, "--out", str(folder)]) == 130
    err = capsys.readouterr().err
    assert "--resume" not in err
    assert f"nnbackend train --config {folder / 'config.toml'}" in err
    assert (folder / "model.safetensors").is_file()


def test_wrong_uses(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert main(["train", *words]) == 2
        return capsys.readouterr().err

    assert "without config.toml" in refused("--resume", str(tmp_path))
    ended = refused("--resume", str(whole))
    assert "has ended, or was killed before the first was due (see --checkpoint)" in ended
    assert f"nnbackend train --config {whole / 'config.toml'}" in ended
    assert "Received: --epochs" in refused("--resume", str(whole), "--epochs", "9")
    assert "Received: data, out or config" in refused("iris", "--resume", str(whole), "--out", "x")
    for every in ("ten minutes", "10", "10 hours", "0 steps", "-1 minutes", "1.5 epochs"):
        text = refused("iris", "--checkpoint", every)
        assert "must be N minutes, N epochs or N steps" in text
