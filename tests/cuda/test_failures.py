"""A lost device raises one clear error, files are complete, and threads share no memory."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from stand_in import STATE, CUDARuntimeError
from stand_in_backend import new_backend

import nnbackend as nn
from nnbackend.errors import BackendError

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


@pytest.fixture(autouse=True)
def _whole_again() -> Iterator[None]:
    yield
    STATE.sticky = None


class Break(nn.Callback):
    """A callback that breaks the device at the end of an epoch."""

    def __init__(self, code: int, epoch: int) -> None:
        self.code, self.epoch = code, epoch

    def on_epoch_end(self, trainer: Any, row: dict[str, Any]) -> None:
        if row["epoch"] == self.epoch:
            STATE.sticky = self.code


def train(device: Any, *callbacks: nn.Callback) -> nn.History:
    net = nn.Network([4, nn.Dense(5, "tanh"), nn.Dense(2, "softmax")], device=device, seed=1)
    return nn.train(net, X, Y, epochs=6, batch_size=8, seed=3, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("code", "name"),
    [(700, "illegal memory address"), (716, "misaligned address"), (719, "launch")],
)
def test_a_lost_device_raises_device_lost_error_and_checkpoints_remain(
    tmp_path: Path, code: int, name: str
) -> None:
    writer = nn.Checkpoints(tmp_path, epochs=1)
    with pytest.raises(nn.DeviceLostError, match=f"lost to this process after .*{name}.*--resume"):
        train(new_backend(), writer, Break(code, 3))
    with pytest.raises(nn.DeviceLostError, match="lost to this process"):  # at every later call
        train(new_backend())
    STATE.sticky = None
    wanted = train(new_backend())
    _, history = nn.resume(tmp_path, X, Y, device="numpy")
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4, 5, 6]
    for got, expected in zip(history.rows, wanted.rows, strict=True):
        assert got["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)


def test_other_errors_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = new_backend()

    def fail(error: Exception) -> None:
        def method(*args: Any) -> None:
            raise error

        monkeypatch.setattr(backend._kernels, "tick", method)
        backend.tick(None, None, None)

    with pytest.raises(CUDARuntimeError, match="CUDA error 1"):
        fail(CUDARuntimeError(1))
    with pytest.raises(RuntimeError, match="of our own"):
        fail(RuntimeError("of our own"))
    with pytest.raises(MemoryError, match="of the host") as raised:
        fail(MemoryError("of the host"))
    assert not isinstance(raised.value, BackendError)


def test_a_lost_device_reported_by_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    class CUBLASError(RuntimeError):
        """cupy_backends.cuda.libs.cublas.CUBLASError, with a library status."""

        status = 14

    CUBLASError.__module__ = "cupy_backends.cuda.libs.cublas"
    backend = new_backend()

    def method(*args: Any) -> None:
        STATE.sticky = 700
        raise CUBLASError("CUBLAS_STATUS_INTERNAL_ERROR")

    monkeypatch.setattr(backend._kernels, "tick", method)
    with pytest.raises(nn.DeviceLostError, match="illegal memory address"):
        backend.tick(None, None, None)


def test_threads_share_no_scratch_memory_and_no_streams() -> None:
    backend = new_backend()
    found: list[tuple[Any, ...]] = []

    def look() -> None:
        scratch = backend._kernels._scratch("partial", 4, "float64")
        workspaces = [backend._blas._workspaces.address(lane) for lane in (0, 1)]
        streams = [backend._streams.main, backend._streams._side]
        found.append((scratch.data.ptr, *workspaces, *(stream.ptr for stream in streams)))
        keep.append((scratch, dict(backend._blas.workspaces), streams))

    keep: list[Any] = []
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    look()
    look()
    assert found[2] == found[3]
    assert len({address for places in found for address in places}) == 3 * 5


def test_a_graph_keeps_its_memory_after_its_thread_has_ended() -> None:
    backend = new_backend()
    made: list[Any] = []

    def record() -> None:
        net = nn.Network([3, 4, 2], device=backend, dtype="float32")
        x, y = backend.to_device(X[:8, :3].copy()), backend.to_device(X[:8, :2].copy())
        grad, totals = backend.zeros((net.layout.size,), "float32"), backend.zeros((4,), "float64")
        layers, loss = net.for_training()
        space = net.workspace(x, layers, grad=grad)

        def step() -> None:
            out = space.forward()
            backend.loss_and_delta(loss, out, y, None, space.out.delta, totals)
            space.backward()

        run = backend.capture(step)
        run(2)
        workspaces = [weakref.ref(array._data) for array in backend._blas.workspaces.values()]
        made.extend((run, totals, workspaces))

    thread = threading.Thread(target=record)
    thread.start()
    thread.join()
    run, totals, workspaces = made
    gc.collect()
    assert workspaces
    assert all(array() is not None for array in workspaces)
    once = backend.to_host(totals)[0] / 2
    run(17)  # uses the workspaces of a finished thread, and captures a longer graph
    assert backend.to_host(totals)[0] == pytest.approx(19 * once)
    gc.collect()
    assert all(array() is not None for array in workspaces)
