"""Memory after many networks: the cache holds the kernels of their formulas, and nothing else."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from emulator import LACKING, compile_on_host
from stand_in import STATE
from stand_in_backend import modules, new_backend

import nnbackend as nn
from nnbackend.backend.base import Backend
from nnbackend.network.activations import Activation, get_activation
from nnbackend.network.losses import Loss
from nnbackend.testing import ReferenceBackend
from nnbackend_cupy import kernel_cache, narrow
from nnbackend_cupy.kernel_cache import KernelCache
from nnbackend_cupy.kernels import Kernels
from nnbackend_cupy.sources import Source
from nnbackend_cupy.tracing import Untraceable

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
X = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int)


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Disable the garbage collector, so that objects in reference cycles are detected."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fit(backend: Any, width: int = 6, hidden: Any = "relu", **options: Any) -> None:
    """Train a small classifier, and predict."""
    dropout = [] if backend.uses_narrow else [nn.Dropout(0.2)]  # with dropout no step is narrow
    layers = [5, nn.Dense(width, hidden), *dropout, nn.Dense(2, "softmax")]
    net = nn.Network(layers, "cross_entropy", device=backend, seed=1)
    nn.train(net, X, LABELS, **{"epochs": 2, "batch_size": 8, "validation": 0.2, **options})
    net.predict(X)


def cached(backend: Any) -> dict[str, int]:
    """Count the objects that the backend and the device hold."""
    cache = backend._kernels._cache
    return {
        "kernels": len(cache._entries),
        "compiled": len(cache._launches),
        "deleted formulas": sum(known.formula() is None for known in cache._formulas.values()),
        "whole steps": len(backend._narrow._launches),
        "arrays": len(STATE.memory),
        "graphs": len(STATE.graphs),
        "scratch": len(backend._kernels._local.arrays),
        "fallbacks": len(backend._thread_state.fallbacks),
    }


@pytest.mark.parametrize("way", ["graphs", "narrow"])
def test_thirty_fits_cache_as_much_as_two(way: str, no_gc: None) -> None:
    backend = new_backend()
    backend.uses_narrow = way == "narrow"
    runs: list[Callable[[], None]] = [
        lambda: fit(backend),
        lambda: fit(backend, optimizer=nn.SGD(0.1, 0.9), hidden="tanh"),
        lambda: fit(backend, l2=1e-3, hidden="elu"),
    ]
    for run in runs * 2:
        run()
    before = cached(backend)
    assert (before["whole steps"] > 0) == (way == "narrow")
    for run in runs * 8:
        run()
    assert cached(backend) == before


def test_lbfgs_references_no_arrays(no_gc: None) -> None:
    backend = new_backend()

    def run() -> None:
        net = nn.Network([5, nn.Dense(4, "tanh"), nn.Dense(2, "softmax")], device=backend)
        nn.train(net, X, LABELS, optimizer="lbfgs", epochs=2)

    run()
    before = cached(backend)
    run()
    assert cached(backend) == before


# ---- kernels ------------------------------------------------------------------------------------


def counted() -> tuple[KernelCache, list[str]]:
    """Return a cache of kernels that are never launched, and the list of compiled names."""
    compiled: list[str] = []
    return KernelCache(lambda text, name: compiled.append(name)), compiled


def own(factor: float, name: str = "own") -> Activation:
    return Activation(name, lambda z: factor * z, lambda z: factor + 0 * z)


def test_networks_share_the_kernel_of_a_built_in_formula() -> None:
    cache, compiled = counted()
    relu = get_activation("relu")
    first = cache.get((relu,), "value", lambda: cache.compiled(Source("a", "text")))
    second = cache.get((get_activation("relu"),), "value", lambda: pytest.fail("traced"))
    assert first is second
    for formula, role in (
        (get_activation("tanh"), "value"),
        (get_activation("relu"), "slope"),
        (get_activation("relu"), ("value", "float64")),
        (get_activation("leaky_relu", 0.1), "value"),
        (get_activation("leaky_relu", 0.2), "value"),
        (nn.losses.huber(1.0), "value"),
        (nn.losses.huber(2.0), "value"),
        (nn.Adam(beta1=0.9), "value"),
        (nn.Adam(beta1=0.8), "value"),
        (nn.AdamW(beta1=0.8), "value"),
        (None, "value"),
    ):
        n = len(compiled)
        source = Source(f"text {n}", "")
        cache.get((formula,), role, partial(cache.compiled, source))
        assert len(compiled) == n + 1, (formula, role)


def test_two_formulas_with_one_name_have_two_kernels() -> None:
    backend = new_backend()
    z = np.linspace(-1, 1, 6, dtype="f").reshape(2, 3)
    for factor in (2.0, 3.0):
        phi = own(factor)
        out, bias = backend.to_device(z), backend.zeros((3,), "float32")
        backend._kernels.bias_activation(out, bias, out, phi)
        np.testing.assert_allclose(backend.to_host(out), factor * z, rtol=1e-6)


def test_output_layers_of_two_formulas_with_one_name() -> None:
    """The activations have one name, and the loss is one object."""
    kernels = Kernels(lambda text, name: compile_on_host(text, name), np.zeros)
    loss = Loss("own", lambda a, y, xp: (xp.sum((a - y) ** 2, axis=1), 2 * (a - y)))
    rng = np.random.default_rng(2)
    for factor in (2.0, -3.0):
        x, W, b = (rng.standard_normal(s).astype("f") for s in ((4, 3), (3, 2), (2,)))
        y, z_below = np.zeros((4, 2), "f"), rng.standard_normal((4, 3)).astype("f")
        z, a, delta = (np.zeros((4, 2), "f") for _ in range(3))
        dx, totals = np.zeros((4, 3), "f"), np.zeros(4)
        phi, below = own(factor), own(2 * factor, "below")
        kernels.output_layer(loss, phi, below, (x, W, b, z, a, delta), y, z_below, dx, totals)
        np.testing.assert_allclose(a, factor * (x @ W + b), rtol=2e-5, atol=1e-5)
        wanted = (2 * a / 4 * factor) @ W.T * 2 * factor
        np.testing.assert_allclose(dx, wanted, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("is_good", [True, False])
def test_a_custom_formula_is_not_kept_alive(is_good: bool, no_gc: None) -> None:
    cache, _ = counted()
    formulas = [own(1.0), own(1.0), own(2.0)]

    def make() -> Any:
        if is_good:
            return cache.compiled(Source("name", "text"))
        raise Untraceable("never")

    for formula in formulas:
        for others in ((), (get_activation("relu"), None)):
            try:
                cache.get((formula, *others), "role", make)
            except Untraceable:
                assert not is_good
    assert len(cache._entries) == 6
    gone = [weakref.ref(formula) for formula in formulas]
    del formula, formulas, others
    assert all(reference() is None for reference in gone)
    assert cache._entries == {}
    assert [known.formula() for known in cache._formulas.values()] == [get_activation("relu")]


def test_a_formula_without_weak_references_is_kept_alive() -> None:
    class Slotted:
        __slots__ = ("kernel",)

        def __init__(self) -> None:
            self.kernel = None

    cache, compiled = counted()
    for n in range(20):  # ids of deleted objects are reused
        cache.get((Slotted(),), "role", lambda n=n: cache.compiled(Source(f"{n}", "")))  # type: ignore[misc]
    assert len(compiled) == 20


def test_a_custom_subclass_is_not_the_built_in_formula() -> None:
    class Steeper(type(get_activation("tanh"))):  # type: ignore[misc]
        def value(self, z: Any, xp: Any) -> Any:
            return 2.0 * super().value(z, xp)

    plain = get_activation("tanh")
    mine = Steeper(plain.name, plain.f, plain.df, plain.params, plain.kernel)
    backend, z = new_backend(), np.linspace(-1, 1, 6, dtype="f").reshape(2, 3)
    for phi, factor in ((plain, 1.0), (mine, 2.0)):
        out, bias = backend.to_device(z), backend.zeros((3,), "float32")
        backend._kernels.bias_activation(out, bias, out, phi)
        np.testing.assert_allclose(backend.to_host(out), factor * np.tanh(z), rtol=1e-5)


def test_a_sweep_over_parameters_does_not_grow_the_cache_without_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_cache, "MAX_KERNELS", 10)
    monkeypatch.setattr(kernel_cache, "MAX_ENTRIES", 10)
    cache, compiled = counted()
    for n in range(100):
        formula = get_activation("leaky_relu", n / 100)
        cache.get((formula,), "value", lambda n=n: cache.compiled(Source(f"{n}", "")))  # type: ignore[misc]
    assert len(cache._entries) == len(cache._launches) == 10
    assert len(compiled) == 100


def test_a_graph_keeps_its_kernels_after_the_cache_evicts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = new_backend()
    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates = backend.zeros((2, 9), "float64")
    run = backend.capture(lambda: backend.tick(clock, rates, hyper))
    run(2)
    (launch,) = backend._kernels._cache._launches.values()
    here = weakref.ref(launch)
    backend._kernels._cache._launches.clear()
    backend._kernels._cache._entries.clear()
    del launch
    gc.collect()
    assert here() is not None
    run(3)
    assert backend.to_host(clock).tolist() == [5, 5]


def test_narrow_kernels_of_many_widths_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "MAX_CACHED", 2)
    backend = new_backend()
    for width in (2, 3, 4):
        fit(backend, width, epochs=1)
    assert len(backend._narrow._launches) == 2


# ---- products -----------------------------------------------------------------------------------


def test_plans_of_many_shapes_are_limited_and_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modules().BlasLt.multiply.__globals__, "MAX_PLANS", 5)
    backend = new_backend()

    def multiply(rows: int) -> None:
        a, b = (backend.to_device(np.ones(shape, "f")) for shape in ((rows, 2), (2, 3)))
        out = backend.zeros((rows, 3), "float32")
        backend._blas.multiply(a, b, out)
        np.testing.assert_array_equal(backend.to_host(out), 2.0)

    multiply(1)
    for rows in range(2, 30):
        multiply(rows)
        multiply(1)  # used repeatedly, so it is not evicted
    plans = backend._blas._plans
    assert len(plans) == 5
    assert 1 in {key.result.columns for key in plans}
    # One description and three layouts per plan, and the library's handle.
    assert backend.model.n_made - backend.model.n_destroyed == 4 * 5 + 1
    del plans
    blas, backend._blas = weakref.ref(backend._blas), None
    assert blas() is None
    assert backend.model.n_made == backend.model.n_destroyed


# ---- memory -------------------------------------------------------------------------------------


def test_scratch_memory_is_one_array_for_each_role(no_gc: None) -> None:
    backend = new_backend()
    backend.uses_narrow = False
    fit(backend, 40, batch_size=None)
    before = cached(backend)["scratch"]
    arrays = cached(backend)["arrays"]
    for width in range(2, 40, 5):
        fit(backend, width, batch_size=None)
    assert cached(backend)["scratch"] == before
    assert cached(backend)["arrays"] == arrays


def test_a_graph_stays_valid_when_scratch_memory_grows() -> None:
    backend = new_backend()
    delta = backend.to_device(np.ones((64, 3), "f"))
    db, large = backend.zeros((3,), "float32"), backend.zeros((900,), "float32")
    run = backend.capture(lambda: backend._kernels.bias_gradient(delta, db))
    run(2)
    backend._kernels.bias_gradient(backend.to_device(np.ones((640, 900), "f")), large)
    gc.collect()
    backend.fill(db, 0.0)
    run(3)
    np.testing.assert_array_equal(backend.to_host(db), 64.0)
    np.testing.assert_array_equal(backend.to_host(large), 640.0)


def test_reasons_for_fallbacks_are_stored_once() -> None:
    backend = new_backend()

    def value(z: Any, xp: Any) -> Any:
        z[...] = xp.tanh(z)  # no kernel changes an array in place
        return z

    phi = Activation("own", value, lambda z, a, xp: 1 - a * a)
    for rows in range(1, 30):
        x, b = backend.zeros((rows, 2), "float32"), backend.zeros((3,), "float32")
        W, a = backend.zeros((2, 3), "float32"), backend.zeros((rows, 3), "float32")
        backend.dense_forward(x, W, b, phi, a, a)
    assert len(backend._thread_state.fallbacks) == 1


def test_networks_of_one_precision_share_a_device() -> None:
    backend = new_backend()
    fast = backend.with_precision("tf32")
    assert backend.with_precision("tf32") is fast
    assert backend.with_precision("bf16") is not fast
    backend.uses_fused = False
    other = backend.with_precision("tf32")
    assert other is not fast
    assert (other.uses_fused, fast.uses_fused) == (False, True)


@pytest.mark.parametrize("make", [ReferenceBackend, new_backend], ids=["reference", "cupy"])
def test_ranges_of_many_lengths_use_little_memory(make: Callable[[], Backend]) -> None:
    backend = make()
    for n in [*range(40), 1000, 999, 1024, 1025]:
        host = backend.to_host(backend._arange(n))
        np.testing.assert_array_equal(host, np.arange(n))
        assert host.dtype == np.int64
    held = sum(int(array.shape[0]) for array in vars(backend)["_ranges"].values())
    assert held <= 4 * 1025
