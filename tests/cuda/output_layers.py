"""Output layers to compare: in one launch, and with the reference kernels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from emulated import EmulatedBackend
from emulator import ORDER

from nnbackend.network.activations import get_activation
from nnbackend.network.losses import get_loss
from nnbackend.testing import ReferenceBackend
from nnbackend_cupy import grids

REFERENCE = ReferenceBackend()
LOSSES = {
    "quadratic": (get_loss("quadratic"), "identity"),
    "cross_entropy": (get_loss("cross_entropy").fused(), "identity"),
    "absolute": (get_loss("absolute"), "tanh"),
}


def problem(
    loss: str, sizes: tuple[int, int, int], dtype: str, below: str
) -> tuple[dict[str, np.ndarray], Any]:
    """Return the arrays of an output layer and its activation, from the same random numbers."""
    rows, n_in, n_out = sizes
    rng = np.random.default_rng(rows + n_in)
    z_below = rng.standard_normal((rows, n_in)).astype(dtype)
    arrays = {
        "x": np.asarray(get_activation(below).value(z_below, np), dtype),
        "W": rng.standard_normal((n_in, n_out)).astype(dtype),
        "b": rng.standard_normal(n_out).astype(dtype),
        "y": rng.integers(0, n_out, rows).astype(np.int32)
        if loss == "cross_entropy"
        else rng.standard_normal((rows, n_out)).astype(dtype),
        "z_below": z_below,
        "totals": np.zeros(4),
    }
    for name in ("z", "a", "delta"):
        arrays[name] = np.full((rows, n_out), np.nan, dtype)
    arrays["dx"] = np.full((rows, n_in), np.nan, dtype)
    return arrays, get_activation(LOSSES[loss][1])


def by_calls(arrays: dict[str, np.ndarray], loss: str, phi: Any, below: Any) -> None:
    """Compute an output layer with the reference kernels."""
    a = arrays
    REFERENCE.dense_forward(a["x"], a["W"], a["b"], phi, a["z"], a["a"])
    REFERENCE.loss_and_delta(LOSSES[loss][0], a["a"], a["y"], None, a["delta"], a["totals"])
    dW, db = np.empty_like(a["W"]), np.empty_like(a["b"])
    REFERENCE.dense_backward(a["x"], a["W"], a["z"], a["a"], phi, a["delta"], dW, db, a["dx"])
    if below is not None:
        a["dx"][...] = below.delta(a["dx"], a["z_below"], a["x"], np)


def in_one_launch(
    arrays: dict[str, np.ndarray], loss: str, phi: Any, below: Any, order: int | None = None
) -> None:
    a = arrays
    backend = EmulatedBackend(order)  # type: ignore[arg-type]
    inside = tuple(a[name] for name in ("x", "W", "b", "z", "a", "delta"))
    backend.kernels.output_layer(
        LOSSES[loss][0], phi, below, inside, a["y"], a["z_below"], a["dx"], a["totals"]
    )


def on_a_small_gpu(row: Any) -> None:
    """Check an output layer whose blocks have several rows each, also with lagging warps."""
    most, grids.MAX_BLOCKS = grids.MAX_BLOCKS, 3
    try:
        for order in range(4, 10):
            os.environ[ORDER] = str(order)
            sizes = ((40, 70, 7), (400, 200, 1))[order % 2]
            exact, phi = problem("absolute", sizes, "float64", "silu")
            mine, _ = problem("absolute", sizes, "float64", "silu")
            below = get_activation("silu")
            by_calls(exact, "absolute", phi, below)
            on = {name: row.to_device(array) for name, array in mine.items()}
            inside = tuple(on[name] for name in ("x", "W", "b", "z", "a", "delta"))
            rest = (on["y"], on["z_below"], on["dx"], on["totals"])
            row._kernels.output_layer(LOSSES["absolute"][0], phi, below, inside, *rest)
            for name in ("z", "a", "delta", "dx", "totals"):
                got = row.to_host(on[name])
                np.testing.assert_allclose(got, exact[name], rtol=1e-10, atol=1e-12)
    finally:
        grids.MAX_BLOCKS = most
        os.environ.pop(ORDER, None)
