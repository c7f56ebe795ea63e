"""A GPU with limited memory: smaller parts, calls instead of graphs, one clear error."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import stand_in
from emulator import LACKING
from stand_in import STATE, CUBLASError, CUDADriverError, CUDARuntimeError, OutOfMemoryError
from stand_in_backend import modules, new_backend

import nnbackend as nn
from nnbackend.errors import BackendError, DeviceMemoryError
from nnbackend.network.activations import Activation

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
X = np.random.default_rng(0).standard_normal((72, 40)).astype(np.float32)
Y = (X @ np.random.default_rng(1).standard_normal((40, 3))).argmax(axis=1)
UNLIMITED = 1 << 40


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the device; workspaces are small, so that a few bytes make a difference."""
    if LACKING is None:
        monkeypatch.setitem(modules().BlasLt.multiply.__globals__, "WORKSPACE", 4096)
    yield
    STATE.limit, STATE.most = None, 0


def new_network(backend: Any, activation: Any = "tanh") -> nn.Network:
    dropout = [] if backend.uses_narrow else [nn.Dropout(0.3)]  # with dropout no step is narrow
    layers = [40, nn.Dense(24, activation), *dropout, nn.Dense(3, "softmax")]
    return nn.Network(layers, "cross_entropy", device=backend, dtype="float32", seed=4)


def fit(net: nn.Network, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Train and predict; return the results on the host."""
    nn.train(net, X, Y, **{"epochs": 2, "batch_size": 32, "seed": 6, **options})
    return net.backend.to_host(net.theta), net.outputs(X)


def same(got: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> None:
    for mine, reference in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=2e-5)


def in_range(x: Any, xp: Any) -> Any:
    """Return x, by a formula that only CuPy computes, call by call and with temporaries."""
    x[...] = xp.clip(x, -1e6, 1e6)
    return x


UNTRACED = Activation("own", lambda z, xp: xp.tanh(in_range(z, xp)), lambda z, a, xp: 1 - a * a)


# ---- training and prediction in parts -----------------------------------------------------------


@pytest.mark.parametrize("way", ["graphs", "narrow", "called"])
def test_every_limit_is_enough_or_raises_a_memory_error(way: str) -> None:
    activation = UNTRACED if way == "called" else "tanh"

    def device() -> Any:
        backend = new_backend()
        backend.uses_narrow = way == "narrow"
        return backend

    wanted = fit(new_network(device(), activation))
    gc.collect()  # a backend is a reference cycle
    STATE.limit, base = UNLIMITED, STATE.used
    fit(new_network(device(), activation))
    peak, works = STATE.most - base, []
    for share in (1.0, 0.95, 0.85, 0.1):
        STATE.limit = None
        gc.collect()
        backend = device()
        net = new_network(backend, activation)
        before = backend.to_host(net.theta)
        STATE.limit = base + int(share * peak)
        try:
            got = fit(net)
        except DeviceMemoryError:
            STATE.limit = UNLIMITED
            assert share > 0.1 or backend.to_host(net.theta).tobytes() == before.tobytes()
        else:
            works.append(share)
            same(got, wanted)
        assert not backend._streams.main.is_capturing()
        del net, backend
    # Parts use the general kernels, whose scratch memory is larger than that of such a network.
    assert works == [1.0] if way == "narrow" else [1.0, 0.95, 0.85]


def test_training_works_on_the_same_device_after_a_failure() -> None:
    wanted, backend = fit(new_network(new_backend())), new_backend()
    net = new_network(backend)
    before = backend.to_host(net.theta)
    for spare in (100, 6000, 9000):
        STATE.limit = STATE.used + spare
        with pytest.raises(DeviceMemoryError, match="cupy_emulated:0"):
            fit(net)
        STATE.limit = UNLIMITED
        np.testing.assert_array_equal(backend.to_host(net.theta), before)
    same(fit(net), wanted)


def test_predictions_are_computed_in_parts() -> None:
    backend = new_backend()
    net = new_network(backend)
    x = np.random.default_rng(3).standard_normal((3000, 40)).astype(np.float32)
    y = np.arange(3000) % 3
    wanted = net.outputs(x), net.evaluate(x, y)
    STATE.limit = STATE.used + 100_000  # the rows alone need 480,000
    np.testing.assert_allclose(net.outputs(x), wanted[0], rtol=0, atol=1e-6)
    assert net.evaluate(x, y) == pytest.approx(wanted[1], rel=1e-6)
    STATE.limit = STATE.used
    with pytest.raises(DeviceMemoryError, match="bytes were asked for, 0 of"):
        net.outputs(x)


@pytest.mark.parametrize(("work", "vectors"), [("train", 2), ("train", 4.9), ("backprop", 1.5)])
def test_an_error_references_no_arrays(work: str, vectors: float) -> None:
    """A failed attempt's memory is free once the error is deleted, without garbage collection."""
    backend = new_backend()
    net = new_network(backend)
    x = backend.to_device(X)
    net.backprop(x, Y)  # allocates scratch memory and workspaces
    works = {
        "train": lambda: nn.train(net, x, Y, epochs=1, batch_size=72),
        "backprop": lambda: net.backprop(x, Y),
    }
    gc.collect()
    gc.disable()
    try:
        used = STATE.used
        STATE.limit = used + int(vectors * 4 * net.layout.size)
        with pytest.raises(DeviceMemoryError):
            works[work]()
        assert STATE.used == used
    finally:
        gc.enable()


# ---- graphs -------------------------------------------------------------------------------------


def graphs(monkeypatch: pytest.MonkeyPatch, fits: Callable[[int], bool], at: str) -> Any:
    """Return a backend on a device with memory only for some sizes of graphs."""
    backend = new_backend()
    backend.uses_narrow = False
    init = stand_in.Graph.__init__

    def new_init(self: stand_in.Graph, work: list[Any]) -> None:
        if at == "capture" and not fits(len(work)):
            raise CUDARuntimeError(2)
        init(self, work)
        self.upload = 0 if fits(len(work)) else UNLIMITED

    monkeypatch.setattr(stand_in.Graph, "__init__", new_init)
    STATE.limit = UNLIMITED
    return backend


@pytest.mark.parametrize("at", ["capture", "replay"])
@pytest.mark.parametrize("most", [0, 8])
def test_a_graph_without_memory_is_replaced(
    at: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of one step replaces that of 16; without either, steps are called."""
    backend, freed = graphs(monkeypatch, lambda n: n <= most, at), []
    pool = modules().cupy.get_default_memory_pool()
    monkeypatch.setattr(pool, "free_all_blocks", lambda: freed.append(len(STATE.graphs)))
    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates, launches = backend.zeros((2, 100), "float64"), STATE.launches
    run = backend.capture(lambda: backend.tick(clock, rates, hyper))
    run(40)
    run(3)
    assert backend.to_host(clock).tolist() == [43, 43]
    assert not backend._streams.main.is_capturing()
    report = backend.report()
    if most:
        assert report["recorded"] == [{1: 1}]
        assert report["not_recorded"] == []
        assert STATE.launches - launches == 42
        assert len(freed) == 1
    else:
        (reason,) = report["not_recorded"]
        assert "CUDA error 2" in reason
        assert report["recorded"] == []
        assert STATE.launches == launches
        assert freed == [0, 0]  # no graph is left


# ---- errors -------------------------------------------------------------------------------------

FULL: dict[str, Callable[[], Exception]] = {
    "pool": lambda: OutOfMemoryError(123456, 99),
    "runtime": lambda: CUDARuntimeError(2),
    "driver": lambda: CUDADriverError(2),
    "cublas": lambda: CUBLASError(3),
}


@pytest.mark.parametrize("kind", sorted(FULL))
def test_every_library_without_memory_raises_the_same_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = new_backend()

    def fail(*args: Any) -> None:
        raise FULL[kind]()

    monkeypatch.setattr(backend._kernels, "tick", fail)
    STATE.limit = STATE.used + 500

    def in_context() -> None:
        with backend.active():
            fail()

    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates = backend.zeros((2, 4), "float64")
    for call in (
        lambda: backend.tick(clock, rates, hyper),
        lambda: backend.capture(lambda: backend.tick(clock, rates, hyper))(1),
        in_context,
    ):
        with pytest.raises(DeviceMemoryError, match=f"cupy_emulated:0.*{STATE.limit:,}") as raised:
            call()
        assert isinstance(raised.value, BackendError | MemoryError)
        assert ("123,456 bytes were asked for" in str(raised.value)) == (kind == "pool")
        assert "nvidia-smi" in str(raised.value)


@pytest.mark.parametrize("error", [CUDARuntimeError(3), CUDADriverError(1), CUBLASError(2)])
def test_other_codes_are_not_memory_errors(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = new_backend()

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(backend._kernels, "tick", fail)
    with pytest.raises(type(error)) as raised:
        backend.tick(None, None, None)
    assert raised.value is error


def test_a_backend_without_memory_for_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise CUDARuntimeError(2)

    monkeypatch.setattr(modules().cupy.cuda, "Stream", fail)
    with pytest.raises(DeviceMemoryError, match="cupy:0 is out of memory"):
        new_backend()


def test_a_kernel_without_memory_is_loaded_at_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend, compile = new_backend(), stand_in.compile_on_host

    def fail(*args: Any) -> None:
        raise CUDADriverError(2)

    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates = backend.zeros((2, 4), "float64")
    monkeypatch.setattr(stand_in, "compile_on_host", fail)
    with pytest.raises(DeviceMemoryError):
        backend.tick(clock, rates, hyper)
    monkeypatch.setattr(stand_in, "compile_on_host", compile)
    backend.tick(clock, rates, hyper)
    assert backend.to_host(clock).tolist() == [1, 1]


@pytest.mark.parametrize("after", range(6))
def test_products_without_memory_are_computed_at_the_next_call(after: int) -> None:
    """No failed call of cuBLASLt disables the library or the product."""
    backend = new_backend()
    backend._blas, model = modules().BlasLt("float32"), backend.model
    a, b = (backend.to_device(np.ones(shape, "f")) for shape in ((5, 3), (3, 4)))
    out, calls, lacks = backend.zeros((5, 4), "float32"), 0, model._lacks

    def one_lacks() -> bool:
        nonlocal calls
        calls += 1
        return calls == after + 1

    model._lacks = one_lacks
    with pytest.raises(DeviceMemoryError, match="ALLOC_FAILED"):
        backend.dense_forward(a, b, None, nn.activations.identity(), out, out)
    model._lacks = lacks
    assert backend._blas.multiply(a, b, out) is False
    np.testing.assert_array_equal(backend.to_host(out), 3.0)
    assert not backend.report()["fallbacks"]


def test_a_copy_without_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, host = new_backend(), np.arange(6.0)

    def fail(n_bytes: int) -> None:
        raise CUDARuntimeError(2)

    monkeypatch.setattr(modules().cupy.cuda, "alloc_pinned_memory", fail)
    out = backend.zeros((6,), "float64")
    backend.to_device(host, out=out)
    np.testing.assert_array_equal(backend.to_host(out), host)


def test_the_errors_of_a_real_cupy_are_recognized() -> None:
    memory = pytest.importorskip("cupy.cuda.memory")
    runtime = pytest.importorskip("cupy_backends.cuda.api.runtime")
    from nnbackend_cupy import failures

    full = memory.OutOfMemoryError(123456, 99)
    assert failures.is_out_of_memory(full)
    assert "123,456 bytes were asked for" in str(failures.no_memory("cupy:0", full))
    assert failures.is_out_of_memory(runtime.CUDARuntimeError(2))
    assert not failures.is_out_of_memory(runtime.CUDARuntimeError(1))
    assert not failures.is_out_of_memory(MemoryError())
