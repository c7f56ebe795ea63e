"""The window shuffle: its guarantee, and the same bits on any path through an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backend.philox import BATCH_ORDER, host_generator
from nnbackend.data import file_rows, row_order
from nnbackend.data.file_rows import FileRows
from nnbackend.data.row_order import CHUNKS, RowOrder, shuffle_for
from nnbackend.data.row_reader import HostReader
from nnbackend.errors import ArgumentError
from nnbackend.persistence.checkpoints import Checkpoints
from nnbackend.training.api import new_trainer
from nnbackend.training.batching import epoch_order
from nnbackend.training.config import TrainConfig

RNG = np.random.default_rng(0)
X = RNG.normal(size=(700, 5)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
PARTS = np.split(X, (250, 251))


@pytest.mark.parametrize("n", [1, 15, 16, 700, 701])
@pytest.mark.parametrize("window", [1, 16, 64, 1000])
def test_every_row_occurs_once(n: int, window: int) -> None:
    order = epoch_order(n, 7, 3, f"window:{window}")
    assert len(order) == n
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(np.asarray(order), np.asarray(epoch_order(n, 7, 3, f"window:{window}")))


def test_each_epoch_and_seed_has_another_order() -> None:
    orders = {
        tuple(np.asarray(epoch_order(300, s, e, "window:64"))) for s in range(3) for e in range(4)
    }
    assert len(orders) == 12


@pytest.mark.parametrize("n", [640, 645])
def test_a_window_has_the_rows_of_few_chunks(n: int) -> None:
    """Each window is made of whole chunks but for its first and its last one."""
    window, size = 64, 64 // CHUNKS
    found = np.asarray(epoch_order(n, 1, 2, f"window:{window}"))
    neighbours = 0
    for start in range(0, n, window):
        chunks, counts = np.unique(found[start : start + window] // size, return_counts=True)
        assert len(chunks) <= CHUNKS + 1
        # Besides the last chunk of the rows, which may be short.
        assert (np.sort(counts[chunks < n // size])[2:] == size).all()
        neighbours += int((np.diff(found[start : start + window]) == 1).sum())
    assert neighbours < n / 8  # the rows of a window are permuted
    firsts = found[::window] // size
    assert len(set(np.diff(firsts))) > 5  # and its chunks come from anywhere


def test_rows_are_read_chunk_by_chunk() -> None:
    order = RowOrder(1000, 5, 1, 160)
    read = order.read_order(0, 160)
    assert (np.diff(read) == 1).sum() == 160 - CHUNKS
    assert np.array_equal(np.sort(read), np.sort(order[:160]))


def test_any_part_of_the_order_is_the_same() -> None:
    order = RowOrder(333, 5, 1, 48)
    whole = np.asarray(order)
    for start, stop in ((0, 1), (47, 49), (40, 200), (300, 400), (333, 333), (-5, None)):
        assert np.array_equal(order[start:stop], whole[start:stop])
    assert order[7] == whole[7]
    with pytest.raises(IndexError):
        order[333]


def test_all_places_are_about_as_likely() -> None:
    """Row 0 is as likely in any quarter of an epoch, and anywhere in its window."""
    places = [int(np.argmin(epoch_order(256, 0, e, "window:64"))) for e in range(2000)]
    for counts in (np.bincount(np.array(places) // 64), np.bincount(np.array(places) % 64 // 16)):
        assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 / 4 * 3 / 4)


def test_given_chunks_stay_whole() -> None:
    ends = np.array([3, 103, 110, 300])
    order = RowOrder(300, 0, 4, 32).within(ends)
    read = order.read_order(0, 300)
    breaks = np.flatnonzero(np.diff(read) != 1) + 1
    starts = sorted(read[[0, *breaks]])
    assert set(starts) <= {0, 3, 103, 110}
    assert np.array_equal(np.sort(order), np.arange(300))


class Read(FileRows):
    """Rows that record what is read."""

    def __init__(self, parts: Any) -> None:
        super().__init__(parts)
        self.seen: list[np.ndarray] = []
        self.wanted: list[np.ndarray] = []

    def __getitem__(self, rows: Any) -> np.ndarray:
        self.seen.append(rows)
        return super().__getitem__(rows)

    def prefetch(self, rows: np.ndarray) -> None:
        self.wanted.append(rows)
        super().prefetch(rows)


@pytest.mark.parametrize("size", [10, 64, 100, 300])
def test_a_reader_holds_one_window_and_reads_it_once(size: int) -> None:
    x, rows = Read(PARTS), np.sort(RNG.permutation(700)[:500])
    reader = HostReader(x, Y, 1.0 + Y, rows)
    order = epoch_order(500, 3, 1, "window:64")
    reader.begin_epoch(order)
    for start in range(0, 500, size):
        expected = rows[np.asarray(order)[start : start + size]]
        found, y, weight = reader.read(start, min(start + size, 500))
        assert np.array_equal(found, X[expected])
        assert np.array_equal(y, Y[expected])
        assert weight is not None
        assert np.array_equal(weight, 1.0 + Y[expected])
    assert [len(part) for part in x.seen] == [64] * 7 + [52]
    assert np.array_equal(np.sort(np.concatenate(x.seen)), rows)
    assert [tuple(part) for part in x.wanted] == [tuple(part) for part in x.seen[1:]]
    reader.read(0, 10)  # as a step that is repeated
    assert len(x.seen) == 9


def _files(folder: Path) -> str:
    folder.mkdir()
    for i, (x, y) in enumerate(zip(PARTS, np.split(Y, (250, 251)), strict=True)):
        np.save(folder / f"x-{i}.npy", x)
        np.save(folder / f"y-{i}.npy", y)
    return str(folder)


def _trained(x: Any, **options: Any) -> tuple[np.ndarray, list[float]]:
    net = nn.Network([5, 8, 2], loss="cross_entropy", device="numpy", seed=1)
    options = {"epochs": 3, "batch_size": 24, "validation": 0.2, "shuffle": "window:64", **options}
    history = nn.train(net, x, Y, **options)
    return net.theta.copy(), history["train_loss"]


def test_files_and_arrays_give_the_same_bits(tmp_path: Path) -> None:
    x = nn.data.load(_files(tmp_path / "f")).x
    found = {name: _trained(rows) for name, rows in {"files": x, "array": X}.items()}
    assert np.array_equal(found["files"][0], found["array"][0])
    assert not np.array_equal(found["array"][0], _trained(X, shuffle=True)[0])


def test_a_resumed_run_and_several_shards_give_the_same_bits(tmp_path: Path) -> None:
    x = nn.data.load(_files(tmp_path / "f")).x
    ranks = nn.distributed.Alone()
    expected = _trained(x, communicator=ranks, callbacks=[Checkpoints(tmp_path / "a")])

    class Stop(nn.Callback):
        def on_progress(self, run: Any, done: int, n: int) -> None:
            run.interrupt.requested |= run.state.epoch == 1 and done >= 9

    stopped = _trained(x, communicator=ranks, callbacks=[Stop(), Checkpoints(tmp_path / "b")])
    assert not np.array_equal(stopped[0], expected[0])
    model, history = nn.resume(tmp_path / "b", x, Y, communicator=nn.distributed.Alone())
    assert np.array_equal(model.network.theta, expected[0])
    assert history["train_loss"] == expected[1]


def test_a_window_has_at_most_16_million_numbers() -> None:
    assert shuffle_for("window", X, 100) == "window:16384"
    assert shuffle_for("window", X, 4096) == "window:4096"
    assert shuffle_for("window", X, 1 << 24) == "window:16"
    assert shuffle_for("window:5", X, 100) == "window:5"
    assert shuffle_for(True, X, 100) is True


@pytest.mark.parametrize("shuffle", ["windows", "window:0", "window:x", "yes", 2])
def test_other_shuffles_are_refused(shuffle: Any) -> None:
    with pytest.raises(ArgumentError, match="shuffle must be True, False, 'window'"):
        _trained(X, shuffle=shuffle)


def test_the_generators_of_windows_differ_from_that_of_the_chunks() -> None:
    draws = {int(host_generator(1, BATCH_ORDER, 2, part=p).integers(1 << 60)) for p in range(5)}
    assert len(draws) == 5


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("shuffle", [True, "window:64"])
def test_a_large_mapped_array_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, shuffle: Any
) -> None:
    expected = nn.Network([5, 8, 2], loss="cross_entropy", device=device, seed=1)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 24, "shuffle": shuffle}
    nn.train(expected, X, Y, validation=0.2, **options)
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(file_rows, "LARGE", 0)
    net = nn.Network([5, 8, 2], loss="cross_entropy", device=device, seed=1)
    trainer = new_trainer(
        net, x, Y, TrainConfig(**options), validation=0.2
    )  # fmt: skip
    assert trainer.data.validation is not None
    assert isinstance(trainer.data.validation[0], FileRows)
    trainer.run()
    theta, other = (n.backend.to_host(n.theta) for n in (net, expected))
    assert np.abs(theta - other).max() < 1e-5
    if device == "numpy" or shuffle is True:  # numba rounds differently where nothing is captured
        assert np.array_equal(theta, other)
    for rows in (x, x[3:]):
        assert np.array_equal(net.predict(rows), net.predict(np.array(rows)))


def test_files_larger_than_memory_in_random_order(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for size in (1e9, 100.0):
        monkeypatch.setattr(row_order, "memory", lambda size=size: size)
        for shuffle in ("window", False, True):
            caplog.clear()
            shuffle_for(shuffle, FileRows(PARTS), 5)
            assert ("more than the memory" in caplog.text) == (shuffle is True and size < 1e9)
