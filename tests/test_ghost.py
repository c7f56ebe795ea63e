"""The simulated device raises where a GPU would fail or wait, and names the operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rows import registered

import nnbackend as nn
from nnbackend.devices.registry import BackendSpec
from nnbackend.errors import BackendError, DeviceMismatchError
from nnbackend.testing import GhostArray, GhostBackend, GhostError, ghost_spec

HOST = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.fixture
def ghost() -> GhostBackend:
    return GhostBackend()


@pytest.fixture
def array(ghost: GhostBackend) -> Any:
    return ghost.to_device(HOST)


READS: dict[str, Callable[[Any], object]] = {
    "float": lambda a: float(a[0, 0]),
    "int": lambda a: int(a[0, 0]),
    "complex": lambda a: complex(a[0, 0]),
    "bool": lambda a: bool(a[0, 0] > 1),
    "if": lambda a: 1 if a[0, 0] > 1 else 2,
    "index": lambda a: [1, 2][a[0, 0]],
    "range": lambda a: range(a[0, 0]),
    "len": len,
    "list": list,
    "in": lambda a: 1.0 in a,
    "str": str,
    "print": lambda a: print(a),
    "format": lambda a: f"{a[0, 0]:.3f}",
    "np.asarray": np.asarray,
    "np.array": lambda a: np.array(a),
    "np.sum": np.sum,
    "np.concatenate": lambda a: np.concatenate([a, a]),
    "np.isfinite": lambda a: np.allclose(a, a),
    "from_dlpack": np.from_dlpack,
    "mask index": lambda a: a[a > 1],
    "pickle": lambda a: __import__("pickle").dumps(a),
    "deepcopy": lambda a: __import__("copy").deepcopy(a),
}


@pytest.mark.parametrize("way", list(READS))
def test_hidden_reads_are_named(array: Any, way: str) -> None:
    with pytest.raises(GhostError, match=r"hidden host read: .*ghost:0"):
        READS[way](array)


def test_nonzero_has_a_shape_that_depends_on_values(ghost: GhostBackend, array: Any) -> None:
    with pytest.raises(GhostError, match=r"hidden host read: xp\.nonzero"):
        ghost.xp.nonzero(array)


HOST_OPERANDS: dict[str, Callable[[Any, GhostBackend], object]] = {
    "a + host": lambda a, b: a + HOST,
    "host + a": lambda a, b: HOST + a,
    "a @ host": lambda a, b: a @ HOST,
    "host @ a": lambda a, b: HOST @ a,
    "a += host": lambda a, b: a.__iadd__(HOST),
    "a[...] = host": lambda a, b: a.__setitem__(..., HOST),
    "a[host]": lambda a, b: a[np.array([0, 1])],
    "a[list]": lambda a, b: a[[0, 1]],
    "a < host": lambda a, b: a < HOST,
    "a * numpy scalar": lambda a, b: a * np.float64(2.0),
    "xp.add": lambda a, b: b.xp.add(a, HOST),
    "xp.where": lambda a, b: b.xp.where(a > 0, a, HOST),
    "xp.concat": lambda a, b: b.xp.concat([a, HOST]),
    "xp.asarray": lambda a, b: b.xp.asarray(HOST),
    "copy": lambda a, b: b.copy(HOST, a),
    "to_host": lambda a, b: b.to_host(HOST),  # type: ignore[arg-type]
    "gather_rows": lambda a, b: b.gather_rows(a, np.arange(2), b.zeros((2,), "int64"), 1, a),
}


@pytest.mark.parametrize("way", list(HOST_OPERANDS))
def test_host_operands_are_named(ghost: GhostBackend, array: Any, way: str) -> None:
    with pytest.raises(GhostError, match="host operand"):
        HOST_OPERANDS[way](array, ghost)


def test_numpy_ufuncs_raise(array: Any) -> None:
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.add(HOST, array)


def test_python_scalars_are_accepted(ghost: GhostBackend, array: Any) -> None:
    got = ghost.to_host(2.0 * array - 1 + ghost.xp.where(array > 1.5, array, 0.0))
    assert (got == 2.0 * HOST - 1 + np.where(HOST > 1.5, HOST, 0.0)).all()


def test_mixed_devices_raise(array: Any) -> None:
    other = GhostBackend(1).to_device(HOST)
    for mix in (
        lambda: array + other,
        lambda: array.__setitem__(..., other),
        lambda: GhostBackend(0).xp.add(array, other),
        lambda: GhostBackend(1).to_host(array),
    ):
        with pytest.raises(GhostError, match=r"cross-device mix: .*ghost:"):
            mix()


def test_only_standard_functions(ghost: GhostBackend, array: Any) -> None:
    for name in ("dot", "add_at", "copyto", "median", "nan_to_num", "random"):
        with pytest.raises(AttributeError, match=f"xp.{name} is not a function of the array API"):
            getattr(ghost.xp, name)
    assert not hasattr(array, "sum")
    assert not hasattr(array, "astype")


def test_repr_reads_no_values(array: Any) -> None:
    assert repr(array) == "<ghost:0 array of float64, shape (2, 2)>"


def test_memory_is_separate_from_the_host(ghost: GhostBackend) -> None:
    host = HOST.copy()
    array = ghost.to_device(host)
    host[...] = 0.0
    ghost.to_host(array)[...] = 0.0
    assert (ghost.to_host(array) == HOST).all()
    assert np.isnan(ghost.to_host(ghost.empty((2,), "float32"))).all()


IN_CAPTURE: dict[str, Callable[[GhostBackend], object]] = {
    "empty": lambda b: b.empty((1,), "float32"),
    "zeros": lambda b: b.zeros((1,), "float32"),
    "to_device without out": lambda b: b.to_device(HOST),
    "to_host": lambda b: b.to_host(GhostArray(HOST, b.device)),
    "synchronize": lambda b: b.synchronize(),
}


@pytest.mark.parametrize("what", list(IN_CAPTURE))
def test_capture_raises(ghost: GhostBackend, what: str) -> None:
    IN_CAPTURE[what](ghost)  # allowed outside a capture
    run = ghost.capture(lambda: (IN_CAPTURE[what](ghost), None)[1])
    with pytest.raises(GhostError, match=f"{what} inside capture on ghost:0"):
        run(1)
    IN_CAPTURE[what](ghost)  # and after it


def test_a_hidden_read_in_a_callback_is_found() -> None:
    class ReadsTheDevice(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> bool:
            return bool(trainer.net.theta[0] > 100.0)

    net = nn.Network([2, 3, 1], device=GhostBackend())
    with pytest.raises(GhostError, match="hidden host read: bool"):
        nn.train(net, HOST, [0.0, 1.0], epochs=1, callbacks=[ReadsTheDevice()])


def test_validation_names_the_device_of_foreign_arrays(ghost: GhostBackend, array: Any) -> None:
    here, there = nn.Network([2, 1], device="numpy"), nn.Network([2, 1], device=ghost)
    with pytest.raises(DeviceMismatchError, match="network is on numpy:0"):
        here.feedforward(array)
    with pytest.raises(DeviceMismatchError, match="network is on ghost:0"):
        there.feedforward(HOST)


def test_as_a_registered_gpu() -> None:
    assert isinstance(ghost_spec(), BackendSpec)
    with registered("ghost"):
        assert nn.get_backend("ghost:1").device == "ghost:1"
        with pytest.raises(BackendError, match="ghost has 2 devices"):
            nn.get_backend("ghost:2")
    with pytest.raises(BackendError, match="no backend 'ghost'"):
        nn.get_backend("ghost")
