"""Across backends: a seed gives the same draws on each, and a run may move between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitting import fit_model
from rows import ROWS, StrictBackend, make, make_or_skip

import nnbackend as nn
from nnbackend.backend import Backend, philox
from nnbackend.network.layers import AbstractLayer
from nnbackend.training.batching import epoch_order

LAYERS: list[int | AbstractLayer] = [
    6, nn.Dense(9, "tanh"), nn.Dropout(0.3), nn.Maxout(5), nn.Dense(3, "softmax"),
]  # fmt: skip
PAIRS = [(a, b) for a in ROWS for b in ROWS if "numpy" in (a, b) and a != b]


def data(dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((48, 6)).astype(dtype)
    return x, (x @ rng.standard_normal((6, 3))).argmax(axis=1)


def theta(net: nn.Network) -> np.ndarray:
    return net.backend.to_host(net.theta)


def widest(*devices: Backend) -> tuple[str, float]:
    """Return the widest dtype of all devices, and the tolerance between whole runs in it."""
    has_it = all("float64" in device.float_dtypes for device in devices)
    return ("float64", 1e-9) if has_it else ("float32", 1e-4)


def trained(device: Backend, dtype: str = "float64", **options: Any) -> nn.Model:
    net = nn.Network(LAYERS, "cross_entropy", device=device, dtype=dtype, seed=4)
    options = {"epochs": 5, "batch_size": 10, "seed": 6, **options}
    return fit_model(net, *data(dtype), **options)[0]


def same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return bool(np.abs(a - b).max() <= tolerance * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_weights_are_equal_bit_for_bit(backend: Backend, dtype: str) -> None:
    if dtype not in backend.float_dtypes:
        pytest.skip(f"{backend.device} has no {dtype}")
    nets = [
        nn.Network(LAYERS, "cross_entropy", device=device, dtype=dtype, seed=2**63 - 1)
        for device in (backend, make("numpy"))
    ]
    assert theta(nets[0]).tobytes() == theta(nets[1]).tobytes()


def test_batches_are_equal_bit_for_bit(backend: Backend) -> None:
    # The rows that the second step of an epoch gathers, from data that contain the row numbers.
    device, order = backend, epoch_order(48, seed=6, epoch=3, shuffle=True)
    numbers = device.to_device(np.arange(48, dtype=np.float32)[:, None])
    out = device.empty((10, 1), "float32")
    clock = device.to_device(np.array([7, 1]))
    device.gather_rows(numbers, device.to_device(order), clock, 10, out)
    assert device.to_host(out)[:, 0].tolist() == order[10:20].tolist()


def test_masks_are_equal_bit_for_bit(backend: Backend) -> None:
    device = backend
    if isinstance(device, StrictBackend):  # once in the array API standard's uint64 arithmetic
        device.capabilities = frozenset({"uint64"})
    ones = device.to_device(np.ones((31, 37), np.float32))
    a, mask = device.empty((31, 37), "float32"), device.empty((31, 37), "bool")
    for key, step in (((0, 0), 1), ((2**63 - 1, 5), 10**11)):
        device.dropout_forward(ones, 0.37, key, device.to_device(np.array([step, 0])), 3, a, mask)
        wanted = philox.host_mask(*key, step, 3, (31, 37), 0.37)
        assert device.to_host(mask).tobytes() == wanted.tobytes()


def test_ghost_computes_as_the_defaults_do() -> None:
    # The same operations on the same library: a different bit shows a bypass of the device.
    for dtype in ("float32", "float64"):
        options = {"ema": 0.9, "l1": 1e-3}
        nets = [trained(make(row), dtype, **options).network for row in ("ghost", "defaults")]
        assert theta(nets[0]).tobytes() == theta(nets[1]).tobytes()


def test_a_run_gives_the_same_result_on_every_backend(backend: Backend) -> None:
    options = {"validation": 0.25, "scale": "standard", "optimizer": nn.AdamW(0.01)}
    dtype, tolerance = widest(backend)
    model, reference = (trained(device, dtype, **options) for device in (backend, make("numpy")))
    assert same(theta(model.network), theta(reference.network), tolerance)
    x, y = data(dtype)
    assert model.predict(x).tolist() == reference.predict(x).tolist()
    ours, theirs = model.evaluate(x, y), reference.evaluate(x, y)
    assert ours == pytest.approx(theirs, rel=tolerance)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_model_saved_on_one_device_loads_on_another(
    first: str, second: str, tmp_path: Path
) -> None:
    model, other = trained(make_or_skip(first), "float32", scale="standard"), make_or_skip(second)
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = nn.load(path, device=other)
    assert loaded.network.backend is other
    assert theta(loaded.network).tobytes() == theta(model.network).tobytes()
    assert same(loaded.outputs(data()[0]), model.outputs(data()[0]), 1e-5)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_run_half_on_one_device_and_half_on_another(first: str, second: str) -> None:
    here, there = make_or_skip(first), make_or_skip(second)
    dtype, tolerance = widest(here, there)
    moved = trained(here, dtype).network.to(there)
    assert moved.backend is there
    stayed = trained(make("numpy"), dtype).network
    for net in (moved, stayed):
        nn.train(net, *data(dtype), epochs=5, batch_size=10, seed=7)
    assert same(theta(moved), theta(stayed), tolerance)
