"""Training on several ranks: threads stand in for processes, and short runs under mpiexec."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from mpi_processes import OPEN_MPI, ranks_of, sha, start

import nnbackend as nn
from nnbackend.data.file_rows import FileRows
from nnbackend.distributed import Alone, Communicator, as_communicator
from nnbackend.errors import ArgumentError
from nnbackend.training.ranks import RanksDisagree

X = np.random.default_rng(0).normal(size=(203, 6)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 203)
VALUES = X[:, :2] @ np.array([[1.0], [-2.0]]) + 0.1
WEIGHTS = np.random.default_rng(2).uniform(0, 2, 203)


class Threads(Communicator):
    """A rank among threads of one process, which meet at a barrier."""

    def __init__(self, rank: int, size: int, board: dict[str, Any], reduction: str) -> None:
        super().__init__(reduction)
        self.rank, self.size, self.board = rank, size, board

    def _meet(self, value: Any) -> list[Any]:
        self.board["values"][self.rank] = value
        self.board["barrier"].wait(60)
        found = list(self.board["values"])
        self.board["barrier"].wait(60)
        return found

    def gather(self, mine: np.ndarray, out: np.ndarray) -> None:
        out[...] = self._meet(mine.copy())

    def add(self, vector: np.ndarray) -> None:
        vector[...] = np.sum(self._meet(vector.copy()), axis=0)

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        return [max(at) for at in zip(*self._meet(list(numbers)), strict=True)]

    def share(self, value: Any) -> list[Any]:
        return self._meet(value)

    def abort(self, code: int) -> NoReturn:
        self.board["barrier"].abort()
        raise SystemExit(code)


def on_ranks(size: int, run: Callable[[Communicator], Any], reduction: str = "fixed") -> list[Any]:
    """Return the results of run(communicator) on several ranks; raise the first error."""
    board = {"values": [None] * size, "barrier": threading.Barrier(size)}
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            results[rank] = run(Threads(rank, size, board, reduction))
        except BaseException as error:
            errors.append(error)
            board["barrier"].abort()

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return results


def classes(device: str = "cpu", **options: Any) -> Callable[[Communicator | None], Any]:
    """Return the training of a small classifier as a function of the communicator."""

    def run(communicator: Communicator | None) -> Any:
        layers = [6, nn.Dense(8, "tanh"), nn.Dropout(0.3), nn.Dense(3, "softmax")]
        net = nn.Network(layers, loss="cross_entropy", device=device, seed=3)
        history = nn.train(
            net, X, LABELS, **{"epochs": 3, "batch_size": 20, **options}, communicator=communicator
        )
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
        return net.theta.tobytes(), rows, history.stop_reason

    return run


def values(**options: Any) -> Callable[[Communicator | None], Any]:
    """Return the training of a small regression."""

    def run(communicator: Communicator | None) -> Any:
        net = nn.Network([6, nn.Maxout(4), 1], device="numpy", seed=3, dtype="float64")
        model = nn.Model(net, scale="standard", scale_targets=True)
        history = model.fit(X, VALUES, **{"epochs": 3, **options}, communicator=communicator)
        return net.theta.tobytes(), history["train_loss"], history.stop_reason

    return run


def _make_batches(epoch: int) -> list[Any]:
    rows = np.roll(np.arange(203), epoch)
    return [(X[part], LABELS[part]) for part in np.array_split(rows, 7)]


def parts(is_stream: bool, **options: Any) -> Callable[[Communicator | None], Any]:
    """Return the training on data that is read in parts: a stream, or rows of two files."""

    def run(communicator: Communicator | None) -> Any:
        net = nn.Network([6, 8, 3], loss="cross_entropy", device="numpy", seed=3)
        data: Any = FileRows([X[:90], X[90:]]), LABELS
        if is_stream:
            data = nn.data.Stream(_make_batches, 203), None
        history = nn.train(
            net, *data, epochs=3, batch_size=20, communicator=communicator, **options
        )
        return net.theta.tobytes(), history["train_loss"]

    return run


RUNS = {
    "files": parts(is_stream=False, validation=0.2),
    "windows of files": parts(is_stream=False, validation=0.2, shuffle="window:48"),
    "a stream": parts(is_stream=True, shuffle=False),
    "windows of a stream": parts(is_stream=True, shuffle="window:48", validation=(X, LABELS)),
    "adam": classes(),
    "adam, without compiled steps": classes("numpy"),
    "momentum, clipping, penalties": classes(
        optimizer=nn.SGD(0.1, momentum=0.9), clip_norm=0.5, l1=1e-3, l2=1e-3
    ),
    "decay, max-norm, average": classes(optimizer="adamw", ema=0.9, max_norm=0.8),
    "sample weights": classes(sample_weight=WEIGHTS, validation=0.2),
    "batches of 3 rows": classes(batch_size=3, epochs=1),
    "early stopping": classes(
        validation=0.2, epochs=30, early_stopping=nn.EarlyStopping(2), schedule="cosine"
    ),
    "a metric": classes(validation=0.3, early_stopping=nn.EarlyStopping(monitor="valid_roc_auc")),
    "six validation rows": classes(validation=0.03),
    "values": values(batch_size=32),
    "all rows": values(batch_size=None, validation=0.3),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_the_bits_do_not_depend_on_the_ranks(run: Callable[[Communicator | None], Any]) -> None:
    expected = run(Alone())
    for size in (2, 4, 8):
        assert on_ranks(size, run) == [expected] * size


@pytest.mark.parametrize("name", ["adam", "sample weights", "values"])
@pytest.mark.parametrize("reduction", ["fixed", "fast"])
def test_the_result_is_that_of_one_process(name: str, reduction: str) -> None:
    dtype = "float64" if name == "values" else "float32"
    plain = np.frombuffer(RUNS[name](None)[0], dtype)
    shared = np.frombuffer(on_ranks(2, RUNS[name], reduction)[1][0], dtype)
    assert np.abs(plain - shared).max() < (1e-12 if dtype == "float64" else 2e-5)


class Failing(Alone):
    """A rank that adds `left` times and then fails, as if it had another."""

    size, left = 2, 12

    @property
    def shards(self) -> range:
        return range(8)

    def gather(self, mine: np.ndarray, out: np.ndarray) -> None:
        if self.left == 0:
            raise ConnectionError("the other rank is gone")
        self.left -= 1
        out[...] = mine

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_failed_exchange_ends_the_run_at_once(device: str) -> None:
    ranks = Failing()
    with pytest.raises(ConnectionError, match="gone"):
        classes(device, epochs=50)(ranks)
    assert ranks.left == 0


def test_steps_on_ranks_are_compiled(caplog: pytest.LogCaptureFixture) -> None:
    """All that Python sees of many steps are the exchanges."""
    with caplog.at_level("INFO", "nnbackend"):
        on_ranks(2, classes(l2=0.01, clip_norm=1.0))
        assert "kernel by kernel" not in caplog.text
        on_ranks(2, classes(l2=0.01, sample_weight=WEIGHTS))
    if nn.get_backend("cpu").name == "numba":
        assert "kernel by kernel: sample weights" in caplog.text


def test_three_ranks_need_the_fast_reduction() -> None:
    found = on_ranks(3, RUNS["adam"], "fast")
    assert found[0] == found[1] == found[2]
    with pytest.raises(ArgumentError, match=r"needs 1, 2, 4 or 8 ranks. Received: 3"):
        on_ranks(3, RUNS["adam"])


def test_lbfgs_on_ranks() -> None:
    run = values(optimizer=nn.LBFGS(), epochs=8, l2=1e-3)
    expected = run(Alone())
    assert on_ranks(4, run) == [expected] * 4
    assert expected[1][-1] < 0.1 * expected[1][0]


def test_callbacks_run_on_the_first_rank_and_stop_all() -> None:
    seen: list[int] = []

    class Stop(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: dict[str, float]) -> bool:
            seen.append(int(row["epoch"]))
            return row["epoch"] == 2

    found = on_ranks(4, classes(epochs=9, callbacks=[Stop()]))
    assert seen == [1, 2]
    assert {(len(rows), reason) for _, rows, reason in found} == {(2, "callback")}


def test_an_interrupt_of_one_rank_stops_all_at_one_step(tmp_path: Path) -> None:
    """A callback of rank 0 asks; all ranks stop, and the run resumes with other ranks."""
    undisturbed = classes(epochs=5)(Alone())

    class Ask(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            if trainer.state.epoch == 1 and step > 3:
                trainer.interrupt.requested = True

    def first(communicator: Communicator) -> Any:
        callbacks = [Ask(), nn.Checkpoints(tmp_path, epochs=1)]
        return classes(epochs=5, callbacks=callbacks)(communicator)

    found = on_ranks(2, first)
    assert {reason for _, _, reason in found} == {"interrupted"}
    assert found[0] == found[1]

    def second(communicator: Communicator) -> Any:
        model, history = nn.resume(tmp_path, X, LABELS, communicator=communicator)
        return model.network.theta.tobytes(), history["train_loss"]

    expected = undisturbed[0], [row["train_loss"] for row in undisturbed[1]]
    assert on_ranks(4, second) == [expected] * 4


def test_a_second_interrupt_ends_a_rank(tmp_path: Path) -> None:
    """Other ranks wait for this one, so it must not return as if the run had ended."""

    class Twice(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classes(callbacks=[Twice()])(Alone())
    assert classes(callbacks=[Twice()])(None)[2] == "interrupted"


@pytest.mark.parametrize(
    ("seed", "rows", "rate", "said"),
    [
        (1, 200, 0.1, "initial weights of rank 1"),
        (0, 150, 0.1, "rows of rank 1: 150, of rank 0: 200"),
        (0, 200, 0.2, "learning_rate of rank 1: 0.2, of rank 0: 0.1"),
    ],
)
def test_ranks_that_begin_another_run_are_refused(
    seed: int, rows: int, rate: float, said: str
) -> None:
    def run(communicator: Communicator) -> None:
        is_other = communicator.rank == 1
        net = nn.Network([6, 3], loss="cross_entropy", device="numpy", seed=seed * is_other)
        n, rule = rows if is_other else 200, nn.SGD(rate if is_other else 0.1)
        nn.train(net, X[:n], LABELS[:n], epochs=1, optimizer=rule, communicator=communicator)

    with pytest.raises(ArgumentError, match="takes its share of every mini-batch") as error:
        on_ranks(2, run)
    assert said in str(error.value)


def test_ranks_that_draw_their_own_rows_are_refused() -> None:
    def run(communicator: Communicator) -> None:
        net = nn.Network([6, 3], loss="cross_entropy", device="numpy", seed=0)
        x = np.random.default_rng(communicator.rank).normal(size=X.shape)
        nn.train(net, x, LABELS, epochs=1, communicator=communicator)

    with pytest.raises(ArgumentError, match="data of rank 1: "):
        on_ranks(2, run)


def test_ranks_whose_weights_come_apart_are_found() -> None:
    class Disturb(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            trainer.net.theta[0] += 1

    def run(communicator: Communicator) -> None:
        classes("numpy", callbacks=[Disturb()])(communicator)

    with pytest.raises((RanksDisagree, threading.BrokenBarrierError)) as error:
        on_ranks(4, run)
    if isinstance(error.value, RanksDisagree):
        assert "others on rank 1, 2, 3 than on rank 0" in str(error.value)


def test_more_threads_are_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(nn.get_backend("numpy")), "threads", 2)
    classes("numpy", epochs=1)(Alone())
    assert "set OPENBLAS_NUM_THREADS=1" in caplog.text


def test_communicators_that_are_none() -> None:
    assert as_communicator(None) is None
    with pytest.raises(ArgumentError, match=r"nnbackend.distributed.world\(\)"):
        as_communicator("world")
    with pytest.raises(ArgumentError, match="Did you mean 'fast'"):
        Alone("fest")


# ---- processes ----------------------------------------------------------------------------------

RUN = "train digits --device numpy --hidden 20 --epochs 4 --quiet --json --momentum 0.9"
WORDS = [*RUN.split(), "--optimizer", "sgd", "--dropout", "0.2", "--clip-norm", "1"]


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out, err


def test_processes_give_the_same_file(mpiexec: str, tmp_path: Path) -> None:
    found = {}
    for size in (1, 2, 4):
        out = tmp_path / str(size)
        printed, _ = ended(start(mpiexec, size, [*WORDS, "--out", str(out)]))
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        assert len(lines) == 1  # rank 0 alone prints
        assert json.loads(lines[0])["ranks"] == size
        found[size] = sha(out)
    assert found[1] == found[2] == found[4]


def _epochs(out: Path) -> int:
    path = out / "history.csv"
    if not path.is_file():
        return 0
    with path.open() as file:
        return len(list(csv.reader(file))) - 1


@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_killed_and_asked_ranks_end_all(mpiexec: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*WORDS, "--patience", "0", "--checkpoint", "1 epoch"]
    whole = tmp_path / "whole"
    ended(start(mpiexec, 1, [*words, "--epochs", "40", "--out", str(whole)]))
    process = start(mpiexec, 2, [*words, "--epochs", "40", "--out", str(out)])
    for number, code in ((signal.SIGKILL, 137), (signal.SIGTERM, 143)):
        begin = _epochs(out)
        deadline = time.monotonic() + 60
        while _epochs(out) < begin + 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ranks = ranks_of(out)
        if process.poll() is None and len(ranks) > 1:
            os.kill(ranks[-1], number)
            asked = time.monotonic()
            _, err = process.communicate(timeout=60)
            assert time.monotonic() - asked < 20
            assert process.returncode in (code, 0), err  # 0: it had ended before
        process = start(mpiexec, 4, ["train", "--resume", str(out), "--quiet"])
    ended(process)
    assert _epochs(out) == 40
    assert sha(out) == sha(whole)


def test_wrong_usage_is_said_once(mpiexec: str, tmp_path: Path) -> None:
    _, err = ended(start(mpiexec, 2, [*WORDS, "--hidden", "x"]), 2)
    assert err.count("nnbackend: error: --hidden must be") == 1
    _, err = ended(start(mpiexec, 2, [*WORDS, "--cv", "3"]), 2)
    assert err.count("--cv runs in one process. Received: 2 ranks") == 1
    _, err = ended(start(mpiexec, 2, ["tune", "digits", "--trials", "1"]), 2)
    assert err.count("tune runs in one process. Received: 2 ranks.") == 1
    _, err = ended(start(mpiexec, 3, WORDS), 2)
    assert err.count("needs 1, 2, 4 or 8 ranks. Received: 3") == 1


def test_ranks_with_other_options_are_refused(mpiexec: str, tmp_path: Path) -> None:
    rank = [sys.executable, "-m", "nnbackend", *WORDS, "--out", str(tmp_path / "run")]
    command = [mpiexec, "-n", "1", *rank, ":", "-n", "1", *rank, "--learning-rate", "0.5"]
    found = subprocess.run(
        command, env={**os.environ, **OPEN_MPI}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert "learning_rate of rank 1: 0.5, of rank 0: " in found.stderr


def test_a_rank_that_raises_ends_all(mpiexec: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import nnbackend as nn\n"
        "from nnbackend.cli import main\n"
        "from nnbackend.distributed import world\n"
        "from nnbackend.training.batching import BatchLoader\n"
        "load = BatchLoader.load_part\n"
        "def broken(self, batch, clock, first):\n"
        "    if world().rank == 1 and clock[0] > 50:\n"
        "        raise RuntimeError('a fault of rank 1')\n"
        "    load(self, batch, clock, first)\n"
        "BatchLoader.load_part = broken\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    begin = time.monotonic()
    words = [*WORDS, "--out", str(tmp_path / "run"), "--epochs", "1000"]
    found = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, str(script), *words],
        env={**os.environ, **OPEN_MPI}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 1
    assert "failed on rank 1: a fault of rank 1" in found.stderr
    assert "Traceback" in found.stderr
    assert time.monotonic() - begin < 30
