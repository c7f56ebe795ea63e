"""Copies to the device: the array may be changed at once; pinned memory is freed after the copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from stand_in import STATE, Stream
from stand_in_backend import modules, new_backend

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


class Later:
    """An array of a slow device, which has not read the new contents yet."""

    def set(self, host: np.ndarray) -> None:
        self.source = host


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the events recorded on the current stream, none of them done; waiting fails."""
    recorded: list[Any] = []

    def record() -> Any:
        recorded.append(SimpleNamespace(done=False))
        return recorded[-1]

    def wait() -> None:
        raise AssertionError("waits for the device")

    monkeypatch.setattr(STATE.null, "record", record)
    monkeypatch.setattr(STATE.null, "synchronize", wait)
    return recorded


def test_the_array_may_be_changed_at_once(events: list[Any]) -> None:
    staging, out, host = new_backend()._staging, Later(), np.arange(6.0).reshape(2, 3)
    staging.send(host, out)
    host[...] = -1.0
    assert out.source.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_pinned_memory_is_reserved_until_it_has_been_read(events: list[Any]) -> None:
    staging = new_backend()._staging
    for _ in range(3):
        staging.send(np.ones(4), Later())
    assert [event for event, _ in staging._pending] == events
    events[1].done = True
    staging.send(np.ones(4), Later())
    assert [event for event, _ in staging._pending] == [events[0], *events[2:]]


def test_the_copy_of_a_large_array_synchronizes(
    events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = new_backend()._staging
    monkeypatch.setitem(type(staging).send.__globals__, "MAX_STAGED", 16)
    with pytest.raises(AssertionError, match="waits for the device"):
        staging.send(np.ones(3), Later())
    staging.send(np.ones(2), Later())


def test_a_capture_refuses() -> None:
    staging, stream = new_backend()._staging, Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="copies from the host"):
            staging.send(np.ones(4), Later())
        stream.end_capture()


@pytest.mark.parametrize("shape", [(), (0, 3), (3,)])
def test_any_shape_is_copied(shape: tuple[int, ...]) -> None:
    backend = new_backend()
    host = np.full(shape, 2.5, np.float32)
    assert backend.to_host(backend.to_device(host)).tolist() == host.tolist()
    assert modules().Staging.__module__ == "nnbackend_cupy.staging"
