"""The command line in separate processes: signals, pipes, imports, the progress bar."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli.progress import EpochTable, RunWriter, duration
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig
from nnbackend.training.loop import Trainer

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
    "PYTHONWARNINGS": "error",
}
COMMAND = [sys.executable, "-m", "nnbackend"]


def _run(
    *words: str | Path, cwd: Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, env=ENVIRONMENT, input=stdin,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_another_process_prints_the_same_results(tmp_path: Path) -> None:
    words = ["--epochs", "3", "--hidden", "8", "--device", "numpy", "--json"]
    trained = _run("train", "wine", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    figures = json.loads(trained.stdout.splitlines()[-1])
    shown = _run("evaluate", "runs/wine-001", "wine", "--device", "numpy", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout.splitlines()[-1])["accuracy"] == figures["test_accuracy"]
    assert json.loads(shown.stdout.splitlines()[-1])["loss"] == figures["test_loss"]
    answers = _run("predict", "runs/wine-001", "wine", "--part", "test", cwd=tmp_path)
    data = nn.data.load("wine")
    _, held_out = data.split(0.2, 0)
    assert held_out.y is not None
    labels = answers.stdout.splitlines()[1:]
    right = np.mean([str(data.classes[y]) == a for y, a in zip(held_out.y, labels, strict=True)])  # type: ignore[index]
    assert right == pytest.approx(figures["test_accuracy"])


def test_predict_reads_stdin(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i},{2 * i + 0.5}\n" for i in range(40)))
    words = ["--epochs", "2", "--hidden", "4", "--device", "numpy"]
    assert _run("train", "t.csv", *words, cwd=tmp_path).returncode == 0
    done = _run("predict", "runs/t-001", "-", cwd=tmp_path, stdin="a\n1\n2\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    done = _run("predict", "runs/t-001", "-", cwd=tmp_path, stdin="c\n1\n")
    assert done.returncode == 2
    assert "stdin.csv" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_ctrl_c_saves_a_complete_run(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "train", "digits", "--epochs", "1000000", "--patience", "0", "--out", "out",
         "--device", "numpy", "--json"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell makes background jobs ignore Ctrl-C; this process must not ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        history, folder = tmp_path / "out" / "history.csv", tmp_path / "out"
        deadline = time.monotonic() + 300
        while not history.exists() or len(history.read_text().splitlines()) < 3:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # The best model exists while training continues.
        assert nn.load(folder / "model.safetensors", device="numpy").network.n_in == 64
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "everything is saved in out" in err
    figures = json.loads(out.splitlines()[-1])
    assert figures["stop_reason"] == "interrupted"
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "last.safetensors", "config.toml", "history.csv", "curves.png"),
        *("environment.json", "checkpoints"),
    }
    assert "Resume with: nnbackend train --resume out" in err
    shown = _run("evaluate", "out", "digits", "--device", "numpy", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout.splitlines()[-1])["accuracy"] == figures["test_accuracy"]
    assert _run("predict", "out/last.safetensors", "digits", cwd=tmp_path).returncode == 0
    assert _run("plot", "out", cwd=tmp_path).returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows closes pipes differently")
def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    net = nn.Network([1, 1], device="numpy")
    nn.Model(net).save(tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", np.ones((200_000, 1)))
    process = subprocess.Popen(
        [*COMMAND, "predict", "m.safetensors", "x.npy"], cwd=tmp_path, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"prediction\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_help_imports_no_large_package(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from nnbackend.cli import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'numpy', 'sklearn', 'scipy', 'matplotlib', 'numba', 'cupy', 'pandas'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "assert main(['train', '--help']) == 0\n"
        "heavy -= {'numpy'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- the table of epochs ------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that behaves as a terminal."""

    def isatty(self) -> bool:
        return True


def _trainer(**options: Any) -> Trainer:
    net = nn.Network([2, 3, 2], loss="cross_entropy", device="numpy")
    x = np.arange(40, dtype=np.float64).reshape(20, 2)
    return new_trainer(net, x, np.arange(20) % 2, TrainConfig(epochs=3, **options), validation=0.2)


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("nnbackend.cli.progress.time.perf_counter", made)
    return made


def _end_epoch(table: EpochTable, trainer: Trainer) -> list[str]:
    """End an epoch; return the cells of its row."""
    trainer.state.epoch += 1
    row = {
        "epoch": trainer.state.epoch,
        "train_loss": 0.5,
        "valid_loss": 0.6,
        "valid_accuracy": 0.75,
    }
    trainer.state.history.rows.append({**row, "learning_rate": 0.001, "seconds": 2.0})
    table.on_epoch_end(trainer, trainer.state.history.rows[-1])
    return table.stream.getvalue().rpartition("\x1b[K")[2].splitlines()[-1].split()


def test_a_bar_is_drawn_in_long_epochs_and_cleared(clock: Clock) -> None:
    stream, trainer = Terminal(), _trainer(batch_size=4)
    table = EpochTable(stream)
    table.on_train_begin(trainer)
    clock.now = 60.0  # the first step compiles
    table.on_progress(trainer, 1, 4)
    assert "\r" not in stream.getvalue()
    clock.now = 63.0
    table.on_progress(trainer, 3, 4)
    text = stream.getvalue()
    assert "\r" in text
    assert "75%" in text
    assert text.rpartition("\r")[2].split()[-4:-1] == ["3", "samples/s", "0:02"]  # 16 rows in 6 s
    assert _end_epoch(table, trainer)[:6] == ["1", "0.5000", "0.6000", "0.7500", "0.001", "8"]


def test_the_time_left_excludes_the_set_up(clock: Clock) -> None:
    table, trainer = EpochTable(Terminal()), _trainer(batch_size=4)
    table.on_train_begin(trainer)
    clock.now = 60.0
    table.on_progress(trainer, 1, 4)
    clock.now = 63.0  # a second for each step
    table.on_progress(trainer, 4, 4)
    clock.now = 90.0  # validation compiles too
    assert _end_epoch(table, trainer)[6:] == ["0:08", "*"]
    clock.now = 95.0
    assert _end_epoch(table, trainer)[6:] == ["0:05"]


def test_one_step_gives_no_estimate_of_the_time_left(clock: Clock) -> None:
    table, trainer = EpochTable(Terminal()), _trainer(batch_size=None)
    table.on_train_begin(trainer)
    clock.now = 60.0
    table.on_progress(trainer, 1, 1)
    assert _end_epoch(table, trainer)[6:] == ["*"]


def test_the_run_writer_saves_the_best_weights_and_keeps_the_current_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnbackend.cli.progress.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("nnbackend.cli.progress.SAVE_SHARE", 0)
    trainer = _trainer()
    trainer.callbacks = (RunWriter(tmp_path),)
    trainer.run()
    last = trainer.net.get_parameters()[0]
    trainer.state.restore_best()
    model = nn.load(tmp_path / "model.safetensors", device="numpy")
    saved = model.network.get_parameters()[0]
    for W, V in zip(saved, trainer.net.get_parameters()[0], strict=True):
        assert (W == V).all()
    assert len(last) == 2
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_loss,valid_loss,valid_accuracy,learning_rate,seconds"
    assert len(lines) == 4
    cells = lines[-1].split(",")
    assert [float(cell) for cell in cells] == list(trainer.state.history.rows[-1].values())


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.6, 3600, 86399)] == ["0:00", "1:00", "1:00:00", "23:59:59"]
