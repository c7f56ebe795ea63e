"""`nnbackend train --resume`: runs ended or killed by a signal resume in their folder."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import registered

from nnbackend.cli import main
from nnbackend.cli.progress import RunWriter
from nnbackend.errors import BackendError, DeviceLostError, DeviceMemoryError
from nnbackend.persistence.checkpoints import checkpoint_paths
from nnbackend.testing import GhostBackend
from nnbackend.training.loop import Trainer

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
    "PYTHONWARNINGS": "error",
}
TRAIN = ["train", "iris", "--device", "numpy", "--hidden", "40,20", "--dropout", "0.2",
         "--batch-size", "8", "--epochs", "25", "--seed", "4",
         "--schedule", "plateau:patience=2,gamma=0.5"]  # fmt: skip

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*TRAIN, "--quiet", "--out", str(folder)]) == 0
    return folder


# Sends the process a signal once a checkpoint exists and the second epoch has started.
PROGRAM = """
import os, sys
from nnbackend.cli import main
from nnbackend.persistence.checkpoints import Checkpoints, checkpoint_paths

on_progress = Checkpoints.on_progress

def send_signal(self, trainer, step, n_steps):
    on_progress(self, trainer, step, n_steps)
    if trainer.state.epoch > 0 and checkpoint_paths(self.folder):
        os.kill(os.getpid(), int(sys.argv[1]))

Checkpoints.on_progress = send_signal
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_ended_by_a_signal_and_resumed(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(number)), *TRAIN, "--checkpoint", "17 steps",
         "--out", "run"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if number == signal.SIGKILL:
        assert done.returncode == -number
    else:
        assert done.returncode == 128 + number, done.stderr
        expected = "everything is saved in run. Resume with: nnbackend train --resume run"
        assert expected in done.stderr
    assert 1 <= len(rows(folder)) < 25
    stale = folder / ".model.safetensors.00ff.tmp"  # as left by a kill within a save
    stale.write_bytes(b"half")

    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", "run", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "resuming after step" in err
    assert json.loads(out.splitlines()[-1])["epochs"] == len(rows(whole))
    assert rows(folder) == rows(whole)
    for name in ("model.safetensors", "last.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert len(checkpoint_paths(folder / "checkpoints")) == 1  # for more epochs
    assert not stale.exists()


IRIS = ["train", "iris", "--device", "numpy", "--hidden", "6", "--schedule", "constant", "--quiet"]


@pytest.mark.parametrize("patience", ["20", "0"])
def test_a_finished_run_can_be_extended(patience: str, tmp_path: Path, capsys: Any) -> None:
    run, whole = str(tmp_path / "run"), tmp_path / "whole"
    words = [*IRIS, "--patience", patience]
    assert main([*words, "--epochs", "5", "--out", str(whole)]) == 0
    assert main([*words, "--epochs", "3", "--out", run]) == 0
    before = (tmp_path / "run/model.safetensors").read_bytes()
    assert main(["train", "--resume", run, "--quiet"]) == 0  # as it ended
    assert (tmp_path / "run/model.safetensors").read_bytes() == before
    for _ in range(2):
        assert main(["train", "--resume", run, "--quiet", "--epochs", "5"]) == 0
        for name in ("model.safetensors", "last.safetensors", "config.toml"):
            assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
        assert rows(tmp_path / "run") == rows(whole)
    capsys.readouterr()
    assert main(["train", "--resume", run, "--epochs", "4"]) == 2
    assert "epochs must be at least 5" in capsys.readouterr().err
    assert (tmp_path / "run/config.toml").read_bytes() == (whole / "config.toml").read_bytes()


def test_ctrl_c_after_the_last_epoch_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupt while the results are saved and drawn."""
    words = [*IRIS, "--epochs", "3", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    for place in ("Model.save", "figures", "_draw"):
        folder = tmp_path / place
        capsys.readouterr()
        with monkeypatch.context() as patch:
            module = "nnbackend.cli.plan" if place == "Model.save" else "nnbackend.cli.train"
            patch.setattr(f"{module}.{place}", interrupted)
            assert main([*words, str(folder)]) == 130
        said = f"everything is saved in {folder}. Resume with: nnbackend train --resume {folder}"
        assert said in capsys.readouterr().err
        assert main(["train", "--resume", str(folder), "--quiet"]) == 0
        for name in ("model.safetensors", "last.safetensors"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_second_ctrl_c_reports_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def cut(self: Any, trainer: Any, step: int, n_steps: int) -> None:
        if trainer.state.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("nnbackend.persistence.checkpoints.Checkpoints.on_progress", cut)
    assert main([*IRIS, "--epochs", "5", "--checkpoint", "1 epoch", "--out", "out"]) == 130
    said = "the run up to step 4 is saved in out. Resume with: nnbackend train --resume out"
    assert said in capsys.readouterr().err


def test_a_failed_write_of_the_history_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Training continues, and the history is complete at the end."""
    fails = iter([False, True, False, False, False, True, True])
    append = RunWriter._append

    def now_and_then(self: RunWriter, line: str, mode: str = "a") -> None:
        if line[0].isdigit() and next(fails, False):
            append(self, line[:9], mode)  # half a line
            raise OSError(28, "No space left on device")
        append(self, line, mode)

    monkeypatch.setattr(RunWriter, "_append", now_and_then)
    words = [word for word in IRIS if word != "--quiet"]  # --quiet hides warnings
    assert main([*words, "--epochs", "6", "--out", str(tmp_path / "run")]) == 0
    assert caplog.text.count("training continues") == 2  # once per period of failures
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [str(n) for n in range(1, 7)]


def test_a_failed_write_of_the_best_model_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnbackend.cli.progress.save_best", full)
    assert main([*IRIS, "--epochs", "2", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/model.safetensors").is_file()


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_at_the_last_checkpoint_keeps_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*IRIS, "--epochs", "3", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("nnbackend.persistence.checkpoints.atomic_write", full)
        capsys.readouterr()
        assert main([*words, str(tmp_path / "run")]) == 1
    assert "No space left" in (err := capsys.readouterr().err)
    assert f"the model is saved in {tmp_path / 'run'}" in err
    assert "Restart with: nnbackend train --config" in err
    for name in ("model.safetensors", "last.safetensors"):
        content = (tmp_path / "run" / name).read_bytes()
        assert content == (tmp_path / "whole" / name).read_bytes()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2


class FailsLater(GhostBackend):
    """A backend that raises an error from the 4th epoch on."""

    epoch = 0

    def __init__(self, error: BackendError) -> None:
        super().__init__()
        self.error = error

    def optimizer_step(self, *args: Any) -> None:
        super().optimizer_step(*args)
        if self.epoch == 3:
            raise self.error


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (
            DeviceMemoryError.on("ghost:0", 4096, 10, 100),
            [
                "failed: ghost:0 is out of memory: 4,096 bytes were asked for, 10 of 100 are free",
                "Use a smaller --batch-size",
                "--device cpu",
            ],
        ),
        (DeviceLostError("ghost:0 is lost"), ["failed: ghost:0 is lost"]),
    ],
    ids=["full", "lost"],
)
def test_a_failed_device_fails_the_run_and_keeps_the_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BackendError,
    messages: list[str],
) -> None:
    device, folder = FailsLater(error), tmp_path / "run"
    words = ["iris", "--hidden", "4", "--epochs", "5", "--checkpoint", "1 epochs"]
    assert main(["train", *words, "--device", "numpy", "--out", str(tmp_path / "whole")]) == 0

    def count(writer: RunWriter, trainer: Trainer, row: Any) -> None:
        ended(writer, trainer, row)
        device.epoch = row["epoch"]

    with monkeypatch.context() as patch:
        ended = RunWriter.on_epoch_end
        patch.setattr(RunWriter, "on_epoch_end", count)
        patch.setattr("nnbackend.cli.train.get_backend", lambda *args: device)
        capsys.readouterr()
        assert main(["train", *words, "--device", "numpy", "--out", str(folder)]) == 1
    said = capsys.readouterr().err
    for message in [*messages, f"--resume {folder}"]:
        assert message in said
    assert main(["train", "--resume", str(folder), "--device", "numpy", "--quiet"]) == 0
    wanted, got = rows(tmp_path / "whole"), rows(folder)
    assert len(got) == 5
    for mine, reference in zip(got, wanted, strict=True):
        assert float(mine["train_loss"]) == pytest.approx(float(reference["train_loss"]), rel=1e-5)


def test_a_machine_out_of_memory_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        np.empty(1 << 57)

    monkeypatch.setattr("nnbackend.cli.train.prepare", full)
    assert main([*IRIS, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "failed: the machine is out of memory: Unable to allocate" in said
    assert "fewer rows" in said


def test_a_run_resumes_in_float32_on_a_device_without_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def interrupt(writer: RunWriter, trainer: Trainer, row: object) -> None:
        trainer.interrupt.requested = True

    with monkeypatch.context() as during:
        during.setattr(RunWriter, "on_epoch_end", interrupt)
        words = ["xor", "--device", "numpy", "--epochs", "2", "--hidden", "3"]
        assert main(["train", *words, "--quiet", "--out", str(folder)]) == 130
    config = folder / "config.toml"
    text = config.read_text(encoding="utf-8")
    assert 'precision = "float32"' in text
    config.write_text(text.replace('precision = "float32"', 'precision = "tf32"'))
    words = ["--resume", str(folder), "--device", "numpy", "--quiet"]
    assert main(["train", *words]) == 0
    assert len(rows(folder)) == 2


def test_a_run_resumes_on_its_device_or_warns_about_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"

    def interrupt(writer: RunWriter, trainer: Trainer, row: object) -> None:
        trainer.interrupt.requested = True

    def begin() -> None:
        with monkeypatch.context() as during:
            during.setattr(RunWriter, "on_epoch_end", interrupt)
            words = ["xor", "--device", "ghost:1", "--epochs", "2", "--hidden", "3"]
            assert main(["train", *words, "--quiet", "--out", str(folder)]) == 130

    def device() -> object:
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return environment["results"]["device"]

    with registered("ghost"):
        begin()
        assert main(["train", "--resume", str(folder), "--quiet"]) == 0
        assert device() == "ghost:1"
        shutil.rmtree(folder)
        begin()
    monkeypatch.setenv("NNBACKEND_DEVICE", "numpy")
    assert main(["train", "--resume", str(folder)]) == 0
    assert device() == "numpy:0"
    said = "the run was on 'ghost:1', which cannot be used here; it is resumed on numpy:0"
    assert said in caplog.text
    assert len(rows(folder)) == 2


def test_a_second_ctrl_c_before_the_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    def cut(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunWriter, "on_epoch_end", cut)
    words = ["xor", "--device", "numpy", "--epochs", "2", "--hidden", "3", "--quiet"]
    assert main(["train", *words, "--out", str(folder)]) == 130
    err = capsys.readouterr().err
    assert "--resume" not in err
    assert f"nnbackend train --config {folder / 'config.toml'}" in err
    assert (folder / "model.safetensors").is_file()


def test_wrong_usage(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert main(["train", *words]) == 2
        return capsys.readouterr().err

    assert "has no config.toml" in refused("--resume", str(tmp_path))
    (tmp_path / "config.toml").write_bytes((whole / "config.toml").read_bytes())
    killed = refused("--resume", str(tmp_path))
    assert "was killed before the first one was due (see --checkpoint)" in killed
    assert f"nnbackend train --config {tmp_path / 'config.toml'}" in killed
    assert "Received: --seed" in refused("--resume", str(whole), "--seed", "9")
    assert "--epochs must be a whole number" in refused("--resume", str(whole), "--epochs", "x")
    assert "Received: --out or --config" in refused("iris", "--resume", str(whole), "--out", "x")
    for every in ("ten minutes", "10", "10 hours", "0 minutes", "-1 minutes", "1.5 epochs"):
        text = refused("iris", "--checkpoint", every)
        assert "must be N minutes, N epochs or N steps, with N above 0" in text
        assert every in text
