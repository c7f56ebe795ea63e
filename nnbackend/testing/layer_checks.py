"""The kernels of the layers: dense, maxout, dropout, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Backend, philox
from nnbackend.backend.base import STEP
from nnbackend.network.activations import ACTIVATIONS, Activation, get_activation
from nnbackend.testing.kit import FailureReport, Suite, fresh

# Rows, inputs, outputs: one of each, odd sizes, and sizes beyond a block of threads.
SHAPES = ((1, 1, 1), (1, 7, 5), (5, 1, 3), (13, 17, 1), (33, 19, 21), (130, 5, 70))

OWN = Activation(
    "own", lambda z, xp: z / (1.0 + xp.abs(z)), lambda z, a, xp: 1.0 / (1.0 + xp.abs(z)) ** 2
)
PLAIN = Activation("plain", lambda z: z * z, lambda z: 2.0 * z)
PHIS: dict[str, Activation] = {
    **{name: get_activation(name) for name in ACTIVATIONS},
    "leaky_relu(0.3)": get_activation("leaky_relu", 0.3),
    "leaky_relu(0)": get_activation("leaky_relu", 0.0),
    "elu(0.5)": get_activation("elu", 0.5),
    "of_a_user": OWN,
    "of_a_user_without_xp": PLAIN,
}

every_activation = pytest.mark.parametrize("activation", list(PHIS))


class LayerChecks(Suite):
    """The layers' kernels against the base class."""

    @every_activation
    def test_dense_forward(self, backend: Backend, dtype: str, activation: str) -> None:
        phi = PHIS[activation]
        for shape in SHAPES:

            def inputs(rng: np.random.Generator, shape: Any = shape) -> dict[str, np.ndarray]:
                arrays = dense_arrays(rng, shape, dtype)
                nothing = np.full_like(arrays["z"], np.nan)
                return {k: arrays[k] for k in ("x", "W", "b")} | {"z": nothing, "a": nothing}

            self.compare_kernel(
                backend, "dense_forward", inputs, ["z", "a"],
                lambda b, a: b.dense_forward(a.x, a.W, a.b, phi, a.z, a.a), activation,
                in_vector=["W", "b"], strided=["x"] if shape[0] == 13 else [],
            )  # fmt: skip
            if phi.slope_from_output:
                self.compare_kernel(
                    backend, "dense_forward", inputs, ["a"],
                    lambda b, a: b.dense_forward(a.x, a.W, a.b, phi, a.a, a.a),
                    f"{activation}, z and a one array", in_vector=["W", "b"],
                )  # fmt: skip

    @every_activation
    def test_dense_forward_far_out(self, backend: Backend, dtype: str, activation: str) -> None:
        far = 80.0 if activation == "exponential" else 500.0
        x = np.array([[-far], [-30.0], [-1e-3], [0.0], [1e-3], [30.0], [far]], dtype)
        names = {"x": x, "W": np.ones((1, 2), dtype), "b": np.zeros(2, dtype)}
        names |= {k: np.full((7, 2), np.nan, dtype) for k in ("z", "a")}
        self.compare_kernel(
            backend, "dense_forward", names, ["z", "a"],
            lambda b, a: b.dense_forward(a.x, a.W, a.b, PHIS[activation], a.z, a.a),
            f"{activation} far from 0",
        )  # fmt: skip

    @every_activation
    def test_dense_backward(self, backend: Backend, dtype: str, activation: str) -> None:
        phi = PHIS[activation]
        for shape in SHAPES:
            arrays = dense_arrays(self.rng(shape), shape, dtype)
            arrays["a"] = phi.value(arrays["z"].astype(np.float64), np).astype(dtype)
            strided = ["x"] if shape[0] == 13 else []
            for with_dx in (True, False):
                self._compare_backward(backend, phi, arrays, with_dx, False, strided)
            if phi.slope_from_output:
                self._compare_backward(backend, phi, arrays, True, True, [])

    def test_dense_backward_of_many_rows(self, backend: Backend, dtype: str) -> None:
        # The sum of a column is then partitioned; adding the parts needs a barrier.
        for rows in (700, 1100, 1500):
            shape = (rows, 2, 5)
            arrays = dense_arrays(self.rng(shape), shape, dtype)
            arrays["a"] = np.tanh(arrays["z"].astype(np.float64)).astype(dtype)
            for with_dx in (True, False):
                self._compare_backward(backend, PHIS["tanh"], arrays, with_dx, False, [])

    def _compare_backward(
        self, backend: Backend, phi: Activation, arrays: dict[str, np.ndarray],
        with_dx: bool, shared: bool, strided: list[str],
    ) -> None:  # fmt: skip
        names = {k: v for k, v in arrays.items() if k != "b" and not (k == "z" and shared)}
        for result, like in (("dW", "W"), ("db", "b"), *([("dx", "x")] if with_dx else [])):
            names[result] = np.full_like(arrays[like], np.nan)
        case = f"{phi.name}, {'with' if with_dx else 'without'} dx"
        self.compare_kernel(
            backend, "dense_backward", names, ["delta", "dW", "db", "dx"],
            lambda b, a: b.dense_backward(
                a.x, a.W, a.a if shared else a.z, a.a, phi, a.delta, a.dW, a.db,
                a.dx if with_dx else None,
            ),
            case + (", z and a one array" if shared else ""),
            in_vector=["W", "dW", "db"], strided=strided,
        )  # fmt: skip

    @pytest.mark.parametrize("pieces", [1, 2, 3, 5])
    def test_maxout_forward(self, backend: Backend, dtype: str, pieces: int) -> None:
        for rows, n_out in ((1, 1), (1, 7), (5, 1), (33, 21)):
            rng = self.rng(rows, n_out)
            z = rng.standard_normal((rows, pieces * n_out)).astype(dtype)
            z[::2, :] = np.round(z[::2, :])  # so that there are ties
            z[0, :] = 0.0
            names = {"z": z, "a": np.full((rows, n_out), np.nan, dtype)}
            names["which"] = np.full((rows, n_out), -1, np.int32)
            self.compare_kernel(
                backend, "maxout_forward", names, ["a", "which"],
                lambda b, a: b.maxout_forward(a.z, a.a, a.which),
                f"{pieces} pieces, ties go to the first",
            )  # fmt: skip

    @pytest.mark.parametrize("pieces", [1, 2, 3, 5])
    def test_maxout_backward(self, backend: Backend, dtype: str, pieces: int) -> None:
        for rows, n_out in ((1, 1), (1, 7), (5, 1), (33, 21)):
            rng = self.rng(rows, n_out)
            names = {
                "delta": rng.standard_normal((rows, n_out)).astype(dtype),
                "which": rng.integers(0, pieces, (rows, n_out)).astype(np.int32),
                "dz": np.full((rows, pieces * n_out), np.nan, dtype),
            }
            self.compare_kernel(
                backend, "maxout_backward", names, ["dz"],
                lambda b, a: b.maxout_backward(a.delta, a.which, a.dz), f"{pieces} pieces",
            )  # fmt: skip

    @pytest.mark.parametrize("units", [1, 7, 15, 16, 17, 40])
    @pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
    def test_dropout_forward(self, backend: Backend, dtype: str, units: int, rate: float) -> None:
        for rows, first_row, step, key in (
            (1, 0, 1, (0, 0)), (9, 0, 2, (1, 3)), (5, 4, 2, (1, 3)),
            (6, 123_456, 10**12, (2**63 - 1, 2)),
        ):  # fmt: skip
            self._check_mask(backend, dtype, (rows, units), rate, key, step, first_row)

    def test_dropout_with_the_largest_seed(self, backend: Backend, dtype: str) -> None:
        self._check_mask(backend, dtype, (3, 20), 0.5, (2**64 - 1, 1), 1, 0)

    def _check_mask(
        self, backend: Backend, dtype: str, shape: tuple[int, int], rate: float,
        key: tuple[int, int], step: int, first_row: int,
    ) -> None:  # fmt: skip
        x = self.rng(shape).standard_normal(shape).astype(dtype)
        clock = np.array([step, 5])
        report = FailureReport(
            "dropout_forward", f"x {x.shape} {dtype}, {rate=}, {key=}, {step=}, {first_row=}",
            self.seed,
        )  # fmt: skip
        arrays = [fresh(backend, v) for v in (x, clock, np.full_like(x, np.nan))]
        device_x, device_clock, a = arrays
        mask = backend.empty(x.shape, "bool")
        backend.dropout_forward(device_x, rate, key, device_clock, first_row, a, mask)
        wanted = philox.host_mask(*key, step, first_row, x.shape, rate)
        report.close(
            "the mask (must be philox.host_mask bit for bit)", backend.to_host(mask), wanted, 0
        )
        report.unchanged("x", backend.to_host(device_x), x)
        report.unchanged("clock", backend.to_host(device_clock), clock)
        kept = x.astype(np.float64) * wanted / (1.0 - rate)
        report.close("a", backend.to_host(a), kept, 1e-6 if dtype == "float32" else 1e-12)

    def test_dropout_masks_of_parts_make_the_whole(self, backend: Backend, dtype: str) -> None:
        rows, units = 24, 19

        def mask_of(first: int, n: int) -> np.ndarray:
            x = fresh(backend, np.ones((n, units), dtype))
            clock = fresh(backend, np.array([0, 0]) + 3 * (np.arange(2) == STEP))
            mask, a = backend.empty((n, units), "bool"), backend.empty((n, units), dtype)
            backend.dropout_forward(x, 0.5, (11, 4), clock, first, a, mask)
            return backend.to_host(mask)

        whole = mask_of(0, rows)
        for parts in (2, 3, 8):
            n = rows // parts
            shards = np.concatenate([mask_of(i * n, n) for i in range(parts)])
            report = FailureReport("dropout_forward", f"{parts} parts of {rows} rows", self.seed)
            report.close("the parts' mask", shards, whole, 0.0)
        FailureReport("dropout_forward", "", 0).close(
            "the mask drawn again", mask_of(0, rows), whole, 0.0
        )

    @pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
    def test_dropout_backward(self, backend: Backend, dtype: str, rate: float) -> None:
        for shape in ((1, 1), (5, 1), (33, 21)):
            rng = self.rng(shape)
            names = {
                "da": rng.standard_normal(shape).astype(dtype),
                "mask": rng.random(shape) > rate,
                "dx": np.full(shape, np.nan, dtype),
            }
            self.compare_kernel(
                backend, "dropout_backward", names, ["dx"],
                lambda b, a: b.dropout_backward(a.da, a.mask, rate, a.dx), f"{rate=}",
            )  # fmt: skip


def dense_arrays(
    rng: np.random.Generator, shape: tuple[int, int, int], dtype: str
) -> dict[str, np.ndarray]:
    """Return the arrays of a dense layer; the last unit's z is exactly 0, a kink of some slopes."""
    rows, n_in, n_out = shape
    W, b = rng.standard_normal((n_in, n_out)), rng.standard_normal(n_out)
    if n_out > 1:
        W[:, -1], b[-1] = 0.0, 0.0
    arrays = {"x": rng.standard_normal((rows, n_in)), "W": W / np.sqrt(n_in), "b": b}
    arrays["delta"] = rng.standard_normal((rows, n_out))
    arrays = {name: value.astype(dtype) for name, value in arrays.items()}
    wide = {name: value.astype(np.float64) for name, value in arrays.items()}
    arrays["z"] = (wide["x"] @ wide["W"] + wide["b"]).astype(dtype)
    return arrays
