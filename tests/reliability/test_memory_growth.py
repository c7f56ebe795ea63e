"""Training over and over keeps nothing: no compiled code, no formula, no network, no object."""

from __future__ import annotations

import gc
import threading
import weakref
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


def compiled_things() -> int:
    """Count the functions that numba has compiled and that are still there."""
    numba_compiling = pytest.importorskip("nnbackend_numba.compiling")
    return len(numba_compiling._kept)


def test_fits_leave_no_objects(device: str) -> None:
    for i in range(30):
        memory_growth.fit(device, i)
    gc.collect()
    kept, objects = compiled_things(), len(gc.get_objects())
    for i in range(FITS):
        memory_growth.fit(device, i)
    gc.collect()
    assert compiled_things() == kept
    assert len(gc.get_objects()) - objects < FITS  # not even one for each


def test_what_is_dropped_is_freed(device: str) -> None:
    """A user's formulas, the network, its vectors, and those of the recorded step."""

    def scaled(z: Any) -> Any:
        return 0.3 * z * z

    own = nn.Activation("own", scaled, lambda z: 0.6 * z)
    net = nn.Network([4, nn.Dense(3, own), 1], device=device)
    seen = [weakref.ref(thing) for thing in (scaled, own.df, own, net, net.theta)]
    nn.train(net, np.eye(4), np.arange(4.0), epochs=2, batch_size=2)
    del scaled, own, net
    gc.collect()
    assert [thing() for thing in seen] == [None] * len(seen)


def test_scratch_arrays_of_a_run_are_freed(device: str) -> None:
    backend = nn.get_backend(device)
    sizes: list[int] = []
    for width in (3, 5, 7):
        net = nn.Network([4, nn.Dense(width, "sigmoid"), 1], device=device)
        nn.train(net, np.eye(4), np.arange(4.0), epochs=2, batch_size=3, l1=1e-3, max_norm=1.0)
        net.backprop(backend.to_device(np.eye(4, dtype="float32")), np.arange(4.0))
        kept: Any = backend._kept  # type: ignore[attr-defined]
        sizes.append(len(vars(kept)))
    assert max(sizes) <= 2  # at most one for each dtype


def test_one_loop_for_one_formula() -> None:
    """Of two networks with "relu", and of two formulas with one text; not of another text."""
    numba_backend: Any = pytest.importorskip("nnbackend_numba.backend")
    backend = numba_backend.NumbaBackend()

    def loop(activation: Any) -> Any:
        net = nn.Network([2, nn.Dense(3, activation), 1], device=backend)
        return backend._activation(net.layers[0].activation, "f", np.dtype("float32"))

    def cube(factor: float) -> nn.Activation:
        return nn.Activation("cube", lambda z: factor * z * z * z, lambda z: 3.0 * factor * z * z)

    assert loop("relu") is loop("relu")
    assert loop(cube(2.0)) is loop(cube(2.0))
    assert loop(cube(2.0)) is not loop(cube(3.0))


def test_compiled_formulas_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling: Any = pytest.importorskip("nnbackend_numba.compiling")
    monkeypatch.setattr(compiling, "_kept", {})
    monkeypatch.setattr(compiling, "MOST", 5)
    threads = [
        threading.Thread(target=lambda k=k: [compiling.keep((k, i), object) for i in range(300)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiling._kept) <= 5
    first = compiling.keep(("again",), object)
    assert compiling.keep(("again",), object) is first
