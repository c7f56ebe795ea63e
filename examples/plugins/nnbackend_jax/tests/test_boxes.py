"""What the kit does not check: the views of boxes, 64-bit types, compiled steps, memory errors."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnbackend as nn
from nnbackend_jax.backend import JaxBackend
from nnbackend_jax.boxes import Box
from nnbackend_jax.capturing import CompiledSteps

BACKEND = JaxBackend()
KEYS = (
    *(..., slice(None), slice(1, 3), slice(-2, None), slice(2, 2), slice(None, None, 2), 1, -1),
    *((slice(1, 3), slice(0, 2)), (0, slice(1, None)), (slice(None), -1), (2, 1), (..., 1)),
    *((None, 1), np.array([2, 0]), (slice(None), np.array([1, 1, 0]))),
)


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_reads_and_writes_equal_numpys(key: object) -> None:
    host = np.arange(12.0).reshape(4, 3)
    box = BACKEND.to_device(host)
    assert BACKEND.to_host(box[key]).tolist() == host[key].tolist()
    assert box[key].shape == host[key].shape
    box[key] = host[key] = -7.0
    assert BACKEND.to_host(box).tolist() == host.tolist()


def test_views_of_views_write_into_the_vector() -> None:
    host = np.arange(20.0)
    vector = BACKEND.to_device(host)
    for array, xp in ((vector, BACKEND.xp), (host, np)):
        part = array[2:14][1:11]
        matrix = xp.reshape(part, (5, -1))
        matrix.T[1, 1:3] = 100.0
        matrix[2:, :] *= 2.0
        part[-1:] += 0.5
    assert BACKEND.to_host(vector).tolist() == host.tolist()


def test_the_process_keeps_32_bits() -> None:
    clock = BACKEND.zeros((2,), "int64")
    assert BACKEND.to_host(clock + 2**40).tolist() == [2**40] * 2
    assert jnp.zeros(2).dtype == jnp.float32


def test_numpy_leaves_its_operators_to_the_box() -> None:
    product = np.full(3, 2.0) * BACKEND.to_device(np.ones(3))
    assert isinstance(product, Box)
    assert BACKEND.to_host(product).tolist() == [2.0] * 3


def step_on(backend: JaxBackend, vector: Box, scratch: Box, total: Box) -> CompiledSteps:
    def step() -> None:
        scratch[...] = vector * 2.0
        vector[1:3] += scratch[1:3]
        total[...] = total + backend.xp.sum(vector)

    return CompiledSteps(step)


def test_a_compiled_step_carries_what_it_changes() -> None:
    vector, scratch = BACKEND.to_device(np.ones(4)), BACKEND.to_device(np.full(4, 9.0))
    total = BACKEND.zeros((), "float64")
    steps = step_on(BACKEND, vector, scratch, total)
    assert {id(box) for box in steps.carried} == {id(vector), id(total)}
    assert BACKEND.to_host(vector).tolist() == [1.0] * 4, "compiling must not run the step"
    steps(2)
    assert [len(part) for part in vector.parts] == [1, 2, 1]
    vector[0] = 5.0
    steps(1)
    assert BACKEND.to_host(vector).tolist() == [5.0, 27.0, 27.0, 1.0]
    assert float(total) == 8.0 + 20.0 + 60.0
    assert BACKEND.to_host(scratch).tolist() == [9.0] * 4


def test_a_step_that_fails_leaves_every_box_as_it_was() -> None:
    vector = BACKEND.to_device(np.ones(4))

    def step() -> None:
        vector[1:3] = 2.0
        raise ValueError("from the step")

    with pytest.raises(ValueError, match="from the step"):
        BACKEND.capture(step)(1)
    assert BACKEND.to_host(vector).tolist() == [1.0] * 4


def test_a_trace_is_that_of_its_thread() -> None:
    vector, other = BACKEND.zeros((4,), "float32"), BACKEND.zeros((4,), "float32")

    def step() -> None:
        thread = threading.Thread(target=lambda: other.__setitem__(slice(0, 2), 1.0))
        thread.start()
        thread.join()
        vector[...] = vector + 1.0

    steps = CompiledSteps(step)
    assert [id(box) for box in steps.carried] == [id(vector)]
    assert not isinstance(other.value, jax.core.Tracer)
    assert BACKEND.to_host(other).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_a_full_device_is_named_with_the_bytes() -> None:
    with pytest.raises(nn.DeviceMemoryError, match="jax:cpu:0 is out of memory: 1,152,921"):
        BACKEND.zeros((1 << 57,), "float64")
    column = BACKEND.zeros((1 << 22, 1), "float64")
    with pytest.raises(nn.DeviceMemoryError, match="jax:cpu:0"):
        column + column.T


def test_a_compiled_step_without_memory_leaves_every_box_as_it_was() -> None:
    column = BACKEND.zeros((1 << 22, 1), "float64")
    total = BACKEND.zeros((1,), "float64")

    def step() -> None:
        product = column + column.T
        total[...] = total + BACKEND.xp.cumulative_sum(BACKEND.xp.reshape(product, (-1,)))[-1]

    with pytest.raises(nn.DeviceMemoryError, match="jax:cpu:0"):
        BACKEND.capture(step)(1)
    assert float(total[0]) == 0.0
