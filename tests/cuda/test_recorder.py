"""Recording the calls of a step."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import numpy as np
import pytest
from emulator import LACKING
from stand_in import STATE
from stand_in_backend import new_backend

from nnbackend.backend import Backend
from nnbackend_cupy.recorder import KERNELS, Call, NotRecorded, Recorder, recorded

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


def test_kernels_are_the_methods_that_return_none() -> None:
    public = {
        name for name, method in inspect.getmembers(Backend, inspect.isfunction)
        if not name.startswith("_") and inspect.signature(method).return_annotation == "None"
    }  # fmt: skip
    assert public - {"synchronize", "release_memory"} == KERNELS


def test_calls_are_recorded_and_do_not_run() -> None:
    backend = new_backend()
    array, other = backend.zeros((3,), "float32"), backend.zeros((3,), "float32")
    backend._thread_state.recorder = recorder = Recorder()

    def step() -> None:
        backend.fill(array, value=2.0)
        backend.copy(array, other)

    calls = recorded(step, recorder)
    backend._thread_state.recorder = None
    assert [call.name for call in calls] == ["fill", "copy"]
    assert calls[0] == Call("fill", (array,), {"value": 2.0})
    assert calls[0].arguments == {"array": array, "value": 2.0}
    assert calls[1].arguments == {"source": array, "target": other}
    assert backend.to_host(other).tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda backend: backend.to_host(None), "the step calls to_host"),
        (lambda backend: backend.zeros((2,), "float32"), "the step calls zeros"),
        (lambda backend: backend.synchronize(), "the step calls synchronize"),
        (lambda backend: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_method_that_is_not_a_kernel_is_refused(call: Any, reason: str) -> None:
    backend = new_backend()
    backend._thread_state.recorder = recorder = Recorder()
    with pytest.raises(NotRecorded, match=reason):
        recorded(lambda: call(backend), recorder)


def test_kernels_of_other_threads_run() -> None:
    backend = new_backend()
    array = backend.zeros((3,), "float32")
    backend._thread_state.recorder = recorder = Recorder()
    other = threading.Thread(target=backend.fill, args=(array, 2.0))
    other.start()
    other.join()
    backend._thread_state.recorder = None
    assert recorder.calls == []
    assert backend.to_host(array).tolist() == [2.0] * 3


def test_array_operations_of_a_step_have_no_effect_while_it_is_recorded() -> None:
    backend = new_backend()
    array = backend.to_device(np.zeros(3, np.float32))
    launches = STATE.launches

    def step() -> None:
        array[...] = 3.0
        backend.clip_norm(array, 1.0)

    run = backend.capture(step)
    run(0)
    assert backend.to_host(array).tolist() == [0.0] * 3
    assert STATE.launches == launches
