"""The kernels between two steps: penalties, clipping, every update rule, clocks and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.testing import oracle
from nnbackend.testing.error_bounds import ErrorBoundBackend
from nnbackend.testing.kit import FailureReport, Suite, fresh
from nnbackend.training.optimizers import OPTIMIZERS, SGD, Optimizer

RULES: dict[str, Optimizer] = {
    name: rule for name, make in OPTIMIZERS.items() if isinstance(rule := make(), Optimizer)
} | {
    "momentum": SGD(0.1, momentum=0.9),
    "nesterov": SGD(0.1, momentum=0.9, nesterov=True),
}
SIZES = (1, 7, 1031)


class UpdateChecks(Suite):
    """Gradient and update, against the base class and against the papers."""

    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    @pytest.mark.parametrize("rule", list(RULES))
    def test_optimizer_step(
        self, backend: Backend, dtype: str, rule: str, weight_decay: float
    ) -> None:
        states = [f"state{i}" for i in range(len(RULES[rule].state))]
        for size in SIZES:
            for count in (1, 2, 1000):
                rng = self.rng(size, count)
                names = {k: rng.standard_normal(size).astype(dtype) for k in ("theta", "gradient")}
                names |= {k: (rng.random(size) + 0.01).astype(dtype) for k in states}
                names["hyper"] = np.array([0.03, 0.8, count])
                self.compare_kernel(
                    backend, "optimizer_step", names, ["theta", *states],
                    lambda b, a: b.optimizer_step(
                        RULES[rule], a.theta, a.gradient, [getattr(a, k) for k in states],
                        a.hyper, weight_decay, a.theta.shape[0] // 2,
                    ),
                    f"{rule}, step {count}, {weight_decay=}",
                )  # fmt: skip

    @pytest.mark.parametrize("rule", list(RULES))
    def test_update_rule_as_in_its_paper(self, backend: Backend, dtype: str, rule: str) -> None:
        optimizer, rng, size = RULES[rule], self.rng(rule), 9
        start = rng.standard_normal(size).astype(dtype)
        theta, wanted = fresh(backend, start), oracle.Descent(optimizer, start)
        state = [backend.zeros((size,), dtype) for _ in optimizer.state]
        bounds = ErrorBoundBackend()
        bounded = bounds.to_device(start), [bounds.zeros((size,), dtype) for _ in state]
        for step in range(1, 6):
            g = rng.standard_normal(size).astype(dtype)
            numbers = [optimizer.learning_rate, optimizer.momentum, float(step)]
            for device, point, vectors in ((backend, theta, state), (bounds, *bounded)):
                device.optimizer_step(
                    optimizer, point, fresh(device, g), vectors,
                    fresh(device, backend.narrowed(np.array(numbers))), 0.0, size,
                )  # fmt: skip
            wanted.step(g.astype(np.float64))
            report = FailureReport(
                "optimizer_step", f"{rule} against its paper, step {step}", self.seed
            )
            report.within("theta", backend.to_host(theta), wanted.theta, bounded[0].bound)

    @pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.0, 0.1), (0.02, 0.3)])
    def test_add_penalty(self, backend: Backend, dtype: str, l1: float, l2: float) -> None:
        for size in SIZES:
            rng = self.rng(size)
            weights = rng.standard_normal(size) * (np.arange(size) % 5 > 0)  # the slope at 0 is 0
            names = {"weights": weights.astype(dtype)}
            names["gradient"] = rng.standard_normal(size).astype(dtype)
            names["totals"] = np.array([1.0, 2.0, 3e7, 4.0])
            self.compare_kernel(
                backend, "add_penalty", names, ["gradient", "totals"],
                lambda b, a: b.add_penalty(a.weights, a.gradient, l1, l2, 32, a.totals),
                f"{l1=}, {l2=}, rows=32",
            )  # fmt: skip

    @pytest.mark.parametrize("length", [0.0, 0.9, 1.1, 1e4])
    def test_clip_norm(self, backend: Backend, dtype: str, length: float) -> None:
        for size in SIZES:
            g = self.rng(size).standard_normal(size)
            names = {"gradient": (g * (2.5 * length / np.linalg.norm(g))).astype(dtype)}
            self.compare_kernel(
                backend, "clip_norm", names, ["gradient"],
                lambda b, a: b.clip_norm(a.gradient, 2.5),
                f"a gradient {length} times as long as allowed",
            )  # fmt: skip

    def test_max_norm(self, backend: Backend, dtype: str) -> None:
        for shape in ((1, 1), (7, 1), (1, 5), (33, 21)):
            W = self.rng(shape).standard_normal(shape) * np.linspace(0.0, 3.0, shape[1])
            self.compare_kernel(
                backend, "max_norm", {"W": W.astype(dtype)}, ["W"],
                lambda b, a: b.max_norm(a.W, 1.5), in_vector=["W"],
            )  # fmt: skip

    @pytest.mark.parametrize("count", [1, 50, 10_000])
    def test_average(self, backend: Backend, dtype: str, count: int) -> None:
        for size in SIZES:
            rng = self.rng(size)
            names = {k: rng.standard_normal(size).astype(dtype) for k in ("theta", "ema_weights")}
            names["hyper"] = np.array([0.1, 0.9, count])
            self.compare_kernel(
                backend, "average", names, ["ema_weights"],
                lambda b, a: b.average(a.theta, a.ema_weights, 0.99, a.hyper), f"step {count}",
            )  # fmt: skip


class BatchChecks(Suite):
    """The step counter, and the gathering of a batch's rows."""

    def test_tick(self, backend: Backend) -> None:
        rates = np.stack([np.arange(7) / 3, np.arange(7) / 11])
        for before, batch in ((0, -1), (41, 2), (2**40, 5)):
            names = {"clock": np.array([before, batch]), "rates": rates, "hyper": np.zeros(3)}
            self.compare_kernel(
                backend, "tick", names, ["clock", "hyper"],
                lambda b, a: b.tick(a.clock, a.rates, a.hyper),
                f"before step {before + 1}, batch {batch + 1} of the epoch",
            )  # fmt: skip

    @pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "int32", "int64", "bool"])
    def test_gather_rows(self, backend: Backend, dtype: str, kind: str) -> None:
        for n, width, size, batch in ((1, 1, 1, 0), (19, 3, 4, 0), (19, 3, 4, 3), (600, 1, 256, 1)):
            rng = self.rng(n, kind)

            def gather(b: Backend, a: Any, size: int = size) -> None:
                b.gather_rows(a.data, a.order, a.clock, size, a.out)

            data = (40 * rng.random((n, width)) - (kind[0] == "f") * 20).astype(kind)
            names = {"data": data, "order": rng.permutation(n), "clock": np.array([9, batch])}
            names["out"] = np.full((min(size, n), width), np.nan, dtype)
            for strided in ([], ["data"]):
                self.compare_kernel(
                    backend, "gather_rows", names, ["out"], gather,
                    f"batch {batch} of {size} rows" + ", every second row" * bool(strided),
                    strided=strided,
                )  # fmt: skip

    def test_gather_labels_and_the_last_batch(self, backend: Backend) -> None:
        n, batch_size = 19, 8
        rng = self.rng(n)
        for rows, batch in ((8, 0), (8, 1), (3, 2)):
            names: dict[str, Any] = {"data": rng.integers(0, 9, n).astype(np.int32)}
            names |= {"order": rng.permutation(n), "clock": np.array([9, batch])}
            names["out"] = np.full(rows, -1, np.int32)
            self.compare_kernel(
                backend, "gather_rows", names, ["out"],
                lambda b, a: b.gather_rows(a.data, a.order, a.clock, batch_size, a.out),
                f"labels, batch {batch} of {batch_size} rows, {rows} left",
            )  # fmt: skip

    def test_gather_rows_in_their_order(self, backend: Backend, dtype: str) -> None:
        # By hand: the second batch of two rows of the order 4, 2, 0, 3, 1.
        data, order = np.arange(5.0).reshape(5, 1), np.array([4, 2, 0, 3, 1])
        out = backend.empty((2, 1), dtype)
        backend.gather_rows(
            fresh(backend, data.astype(dtype)), fresh(backend, order),
            fresh(backend, np.array([2, 1])), 2, out,
        )  # fmt: skip
        report = FailureReport(
            "gather_rows", "data 0 1 2 3 4, order 4 2 0 3 1, batch 1 of 2 rows", self.seed
        )
        report.close("out", backend.to_host(out), np.array([[0.0], [3.0]]), 0.0)

    @pytest.mark.parametrize("clip", [None, 3.0])
    @pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "int64"])
    def test_scale_rows(self, backend: Backend, dtype: str, kind: str, clip: float | None) -> None:
        for rows, n_in in ((1, 1), (5, 1), (1, 7), (33, 21)):
            rng = self.rng(rows, n_in, kind)
            # A shift that is large relative to the spread; a value far beyond the clip.
            is_wide = kind in ("float64", "int64") and backend.sum_dtype == "float64"
            offset = 1_760_000_000 if is_wide else 100
            x = (offset + 9 * rng.standard_normal((rows, n_in))).astype(kind)
            factor = rng.random(n_in)
            factor[-1] = 1.0 if clip is None else 1e30
            names: dict[str, Any] = {
                "data": x,
                "shift": offset + rng.random(n_in),
                "factor": factor,
            }
            names["out"] = np.full((rows, n_in), np.nan, dtype)
            self.compare_kernel(
                backend, "scale_rows", names, ["out"],
                lambda b, a: b.scale_rows(a.data, a.shift, a.factor, clip, a.out), f"{clip=}",
            )  # fmt: skip

    def test_scale_rows_in_place(self, backend: Backend, dtype: str) -> None:
        rng = self.rng(33)
        names: dict[str, Any] = {"x": (9 * rng.standard_normal((33, 21))).astype(dtype)}
        names |= {"shift": rng.standard_normal(21), "factor": rng.random(21)}
        self.compare_kernel(
            backend, "scale_rows", names, ["x"],
            lambda b, a: b.scale_rows(a.x, a.shift, a.factor, 3.0, a.x), "out is rows",
        )  # fmt: skip
