"""Repeated training leaks nothing: no compiled code, formulas, networks or objects."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import OrderedDict
from typing import Any

import memory_growth
import numpy as np
import pytest
import rows

import nnbackend as nn

FITS = 60
pytestmark = pytest.mark.filterwarnings("ignore:.*Maximum iterations")


@pytest.fixture(params=["numpy", "numba"])
def device(request: pytest.FixtureRequest) -> str:
    return str(rows.make_or_skip(request.param).device)


def n_compiled() -> int:
    """Return the number of functions in the cache of compiled functions."""
    numba_compiling = pytest.importorskip("nnbackend_numba.compiling")
    return len(numba_compiling._cache)


def test_fits_leave_no_objects(device: str) -> None:
    for i in range(30):
        memory_growth.fit(device, i)
    gc.collect()
    kept, objects = n_compiled(), len(gc.get_objects())
    for i in range(FITS):
        memory_growth.fit(device, i)
    gc.collect()
    assert n_compiled() == kept
    assert len(gc.get_objects()) - objects < FITS  # fewer than one per fit


def test_unreferenced_objects_are_freed(device: str) -> None:
    """Custom formulas, the network, its vectors, and those of the recorded step are freed."""

    def scaled(z: Any) -> Any:
        return 0.3 * z * z

    own = nn.Activation("own", scaled, lambda z: 0.6 * z)
    net = nn.Network([4, nn.Dense(3, own), 1], device=device)
    seen = [weakref.ref(thing) for thing in (scaled, own.df, own, net, net.theta)]
    nn.train(net, np.eye(4), np.arange(4.0), epochs=2, batch_size=2)
    del scaled, own, net
    gc.collect()
    assert [thing() for thing in seen] == [None] * len(seen)


class Slope:
    """Custom formulas as methods."""

    k = 0.1

    def f(self, z: Any) -> Any:
        return np.where(z > 0.0, z, self.k * z)

    def df(self, z: Any) -> Any:
        return np.where(z > 0.0, 1.0, self.k)


def of_methods() -> nn.Activation:
    own = Slope()
    return nn.Activation("own", own.f, own.df)


def of_a_dict() -> nn.Activation:
    own = {"k": 0.1}
    return nn.Activation(
        "own", lambda z: np.where(z > 0.0, z, own["k"] * z),
        lambda z: np.where(z > 0.0, 1.0, own["k"]),
    )  # fmt: skip


def sorted_twice(z: Any) -> Any:
    return np.apply_along_axis(np.sort, 0, z) * 0.0 + z


def beyond_numba() -> nn.Activation:
    return nn.Activation("own", sorted_twice, lambda z: 1.0 + 0.0 * z)


@pytest.mark.parametrize("make", [of_methods, of_a_dict, beyond_numba])
def test_formulas_that_are_not_compiled_keep_no_network(make: Any, device: str) -> None:
    """Errors that numba stores must not keep frames, and thus networks, alive."""
    seen: list[Any] = []
    counts: list[int] = []
    for _ in range(3):
        net = nn.Network([4, nn.Dense(3, make()), nn.Dense(1, make())], device=device)
        nn.train(net, np.eye(4), np.arange(4.0), epochs=1, batch_size=2)
        net.backprop(np.eye(4), np.arange(4.0))
        seen += map(weakref.ref, (net, net.theta, net.layers[0].activation))
        del net
        gc.collect()
        counts.append(n_compiled())
    assert [thing() for thing in seen] == [None] * len(seen)
    assert counts[1] == counts[2]


def test_scratch_arrays_of_a_run_are_freed(device: str) -> None:
    backend = nn.get_backend(device)
    sizes: list[int] = []
    for width in (3, 5, 7):
        net = nn.Network([4, nn.Dense(width, "sigmoid"), 1], device=device)
        nn.train(net, np.eye(4), np.arange(4.0), epochs=2, batch_size=3, l1=1e-3, max_norm=1.0)
        net.backprop(backend.to_device(np.eye(4, dtype="float32")), np.arange(4.0))
        arrays: Any = backend._scratch_arrays  # type: ignore[attr-defined]
        sizes.append(len(vars(arrays)))
    assert max(sizes) <= 2  # at most one for each dtype


def test_one_loop_for_one_formula() -> None:
    """Equal formulas share a compiled loop; different ones do not."""
    compiling: Any = pytest.importorskip("nnbackend_numba.compiling")
    direct: Any = pytest.importorskip("nnbackend_numba.direct")
    z, b = np.zeros((1, 2), "float32"), np.zeros(2, "float32")

    def loop(activation: Any) -> Any:
        phi = nn.Network([2, nn.Dense(3, activation), 1]).layers[0].activation
        formula = compiling.Formula(phi.f, phi.f_is_plain)
        return compiling.compiled(direct.activate, "float32", (z, b, z), formula)

    def cube(factor: float) -> nn.Activation:
        return nn.Activation("cube", lambda z: factor * z * z * z, lambda z: 3.0 * factor * z * z)

    assert loop("relu") is loop("relu")
    assert loop(cube(2.0)) is loop(cube(2.0))
    assert loop(cube(2.0)) is not loop(cube(3.0))


def test_compiled_formulas_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling: Any = pytest.importorskip("nnbackend_numba.compiling")
    monkeypatch.setattr(compiling, "_cache", OrderedDict())
    monkeypatch.setattr(compiling, "MAX_CACHED", 5)
    threads = [
        threading.Thread(target=lambda k=k: [compiling.cached((k, i), object) for i in range(300)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiling._cache) <= 5
    first = compiling.cached(("again",), object)
    assert compiling.cached(("again",), object) is first


def test_the_least_recently_used_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling: Any = pytest.importorskip("nnbackend_numba.compiling")
    monkeypatch.setattr(compiling, "_cache", OrderedDict())
    monkeypatch.setattr(compiling, "MAX_CACHED", 4)
    for i in range(4):
        compiling.cached((i,), object)
    assert len(compiling._cache) == 4
    compiling.cached((0,), object)  # used again
    compiling.cached((4,), object)
    assert [key for (key,) in compiling._cache] == [2, 3, 0, 4]
