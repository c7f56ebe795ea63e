"""Fused steps have fewer launches and the same results as separate calls."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from emulator import LACKING, ORDERS, EmulationError
from output_layers import LOSSES, by_calls, in_one_launch, problem
from stand_in_backend import new_backend

import nnbackend as nn
from nnbackend.network.activations import Activation, get_activation
from nnbackend_cupy import sources
from nnbackend_cupy.tracing import Untraceable

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 40, 3), (70, 33, 10), (3, 100, 16)])
@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("below", ["relu", "silu", None])
def test_an_output_layer(loss: str, sizes: tuple[int, int, int], dtype: str, below: str) -> None:
    under = None if below is None else get_activation(below)
    exact, phi = problem(loss, sizes, "float64", below or "identity")
    mine, _ = problem(loss, sizes, dtype, below or "identity")
    for name, array in exact.items():  # from the same rounded inputs
        if array.dtype == np.float64 and name != "totals":
            array[...] = mine[name]
    by_calls(exact, loss, phi, under)
    in_one_launch(mine, loss, phi, under)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for name in ("z", "a", "delta", "dx", "totals"):
        scale = np.abs(exact[name]).max() + 1e-30
        np.testing.assert_allclose(mine[name], exact[name], rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_threads_gives_the_same_bits(order: int) -> None:
    results = []
    for each in (0, order):
        arrays, phi = problem("cross_entropy", (300, 20, 7), "float32", "relu")
        in_one_launch(arrays, "cross_entropy", phi, get_activation("relu"), each)
        results.append(arrays)
    for name in ("delta", "dx", "totals"):
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_a_missing_syncwarp_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first one, before the local gradients of a row's other outputs are read. The emulator
    # cannot detect the second one, before the next row, as its sums synchronize the lanes.
    whole = sources.file_text
    assert whole("output.cu").count("__syncwarp();") == 2
    monkeypatch.setattr(
        sources,
        "file_text",
        lambda name: whole(name).replace("__syncwarp();", "", 1 if name == "output.cu" else 0),
    )
    wanted, phi = problem("absolute", (9, 5, 7), "float32", "relu")
    by_calls(wanted, "absolute", phi, get_activation("relu"))
    mine, _ = problem("absolute", (9, 5, 7), "float32", "relu")
    with suppress(EmulationError):
        in_one_launch(mine, "absolute", phi, get_activation("relu"))
        assert not np.allclose(mine["dx"], wanted["dx"], atol=1e-5)


def test_unsupported_output_layers_are_refused() -> None:
    for sizes, loss, phi, said in (
        ((4, 5, 17), "quadratic", "identity", "at most 16"),
        ((4, 5, 3), "quadratic", "softmax", "not element-wise"),
    ):
        arrays, _ = problem(loss, sizes, "float32", "relu")
        with pytest.raises(Untraceable, match=said):
            in_one_launch(arrays, loss, get_activation(phi), None)


# ---- in training --------------------------------------------------------------------------------


def trained(is_fused: bool, layers: list[Any], loss: str, **options: Any) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6)).astype(np.float32)
    y = (x @ rng.standard_normal((6, 3))).argmax(axis=1)
    backend = new_backend()
    backend.uses_narrow, backend.uses_fused = False, is_fused
    net = nn.Network([6, *layers], loss, device=backend, dtype="float32", seed=4)
    targets = y if loss == "cross_entropy" else np.eye(3, dtype=np.float32)[y]
    nn.train(net, x, targets, epochs=4, batch_size=16, seed=6, **options)
    return backend, backend.to_host(net.theta)


@pytest.mark.parametrize(
    ("layers", "loss", "saved"),
    [
        ([9, 3], "cross_entropy", 5),  # 2 for the start; 3 for forward, loss, dx and slope
        ([nn.Dense(9, "tanh"), nn.Dense(8, "elu"), 3], "quadratic", 5),
        ([9, nn.Dropout(0.3), 3], "cross_entropy", 4),  # the slope does not follow directly
        ([nn.Maxout(9), 3], "cross_entropy", 4),
        ([3], "cross_entropy", 2),  # no layer below
        ([9, 20, 17, 3], "quadratic", 5),
    ],
)
def test_fused_steps_train_the_same_with_fewer_launches(
    layers: list[Any], loss: str, saved: int
) -> None:
    fused, got = trained(True, layers, loss)
    apart, wanted = trained(False, layers, loss)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    nodes = [backend.report()["recorded"][0][1] for backend in (fused, apart)]
    assert nodes[1] - nodes[0] == saved
    assert not fused.report()["not_recorded"]


def test_sample_weights_are_used() -> None:
    options = {"sample_weight": np.linspace(0.1, 2.0, 50)}
    _, got = trained(True, [9, 3], "cross_entropy", **options)
    _, wanted = trained(False, [9, 3], "cross_entropy", **options)
    assert got.tobytes() == wanted.tobytes()


def test_a_formula_that_cannot_be_traced_is_computed_by_cupy() -> None:
    own = Activation(
        "own", lambda z, xp: xp.flip(xp.flip(z, axis=1), axis=1) * 1.0, lambda z, a, xp: z * 0 + 1.0
    )
    _, got = trained(True, [nn.Dense(9, own), 3], "cross_entropy")
    _, wanted = trained(False, [nn.Dense(9, own), 3], "cross_entropy")
    np.testing.assert_allclose(got, wanted, atol=1e-6)
