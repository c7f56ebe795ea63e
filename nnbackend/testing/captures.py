"""Captured steps: a replay equals the step, uses changed arrays, and never reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.network.layers import Dense, Dropout, Maxout
from nnbackend.network.network import Network
from nnbackend.network.workspace import DropoutSource
from nnbackend.testing.error_bounds import TOLERANCE
from nnbackend.testing.kit import FailureReport, Suite, fresh
from nnbackend.testing.update_checks import RULES

N, N_IN, CLASSES = 24, 5, 3


class CaptureConformance(Suite):
    """`capture` compared with calling the step."""

    def test_replays_equal_steps(self, backend: Backend, dtype: str) -> None:
        captured, eager = Problem(backend, dtype), Problem(backend, dtype)
        run = backend.capture(captured.step)
        self._same(captured, eager, "after capture alone, before the first replay")
        for n in (1, 3, 2):
            run(n)
            eager.steps(n)
            self._same(captured, eager, f"after {n} more steps")

    def test_a_new_learning_rate_is_seen(self, backend: Backend, dtype: str) -> None:
        captured, eager = Problem(backend, dtype), Problem(backend, dtype)
        run = backend.capture(captured.step)
        for epoch, rate in enumerate((0.01, 0.5, 1e-4)):
            for problem in (captured, eager):
                problem.begin_epoch(epoch, rate)
            run(3)
            eager.steps(3)
            self._same(captured, eager, f"in epoch {epoch}, learning rate {rate}")

    def test_two_captures_take_turns(self, backend: Backend, dtype: str) -> None:
        captured, eager = Problem(backend, dtype), Problem(backend, dtype)
        rest = captured.new_step(3)
        runs = [backend.capture(captured.step), backend.capture(rest)]
        eager_rest = eager.new_step(3)
        for epoch in range(2):
            for problem in (captured, eager):
                problem.begin_epoch(epoch, 0.05)
            runs[0](2)
            runs[1](1)
            eager.steps(2)
            eager_rest()
            self._same(captured, eager, f"full batches and a rest of 3 rows, epoch {epoch}")

    @pytest.mark.parametrize("optimizer", list(RULES))
    def test_every_optimizer(self, backend: Backend, optimizer: str) -> None:
        rule = RULES[optimizer]
        captured, eager = (Problem(backend, backend.float_dtypes[0], rule) for _ in range(2))
        backend.capture(captured.step)(4)
        eager.steps(4)
        self._same(captured, eager, f"{optimizer}, 4 steps")

    def test_nothing_is_read_back_or_allocated(self, backend: Backend, dtype: str) -> None:
        # Without uint64 masks are drawn on the host, so dropout cannot be captured.
        dropout = "uint64" in backend.capabilities
        warm_up = Problem(backend, dtype, dropout=dropout)
        backend.capture(warm_up.step)(2)  # kernels compiled, constants made
        problem = Problem(backend, dtype, dropout=dropout)

        def step() -> None:
            with forbidden(backend):  # what capture does outside the step is not checked
                problem.step()

        backend.capture(step)(3)

    def _same(self, captured: Problem, eager: Problem, when: str) -> None:
        report = FailureReport("capture", f"{when}, {captured.dtype}", self.seed)
        for name, mine in captured.watched().items():
            reference = eager.watched()[name]
            report.alike(
                f"{name} of the captured run", mine, reference, 10 * TOLERANCE[eager.dtype]
            )


class Problem:
    """A small training run with all its arrays, and a step for capture."""

    def __init__(
        self, backend: Backend, dtype: str, rule: Any = None, dropout: bool = True
    ) -> None:
        self.backend, self.dtype = backend, dtype
        self.rule = rule or RULES["adam"]
        middle = [Dropout(0.4)] if dropout else []
        self.net = Network(
            [N_IN, Dense(6, "tanh"), *middle, Maxout(4), Dense(CLASSES, "softmax")],
            "cross_entropy", device=backend, dtype=dtype, seed=2,
        )  # fmt: skip
        rng, P = np.random.default_rng(4), self.net.layout.size
        self.x = fresh(backend, rng.standard_normal((N, N_IN)).astype(dtype))
        self.y = fresh(backend, rng.integers(0, CLASSES, N).astype(np.int32))
        self.order = fresh(backend, np.arange(N))
        self.grad = backend.zeros((P,), dtype)
        self.state = [backend.zeros((P,), dtype) for _ in self.rule.state]
        sums = backend.sum_dtype
        self.clock, self.hyper = backend.zeros((2,), "int64"), backend.zeros((3,), sums)
        self.rates, self.totals = backend.zeros((2, 6), sums), backend.zeros((4,), sums)
        self.begin_epoch(0, 0.05)
        self.step = self.new_step(4)

    def begin_epoch(self, epoch: int, rate: float) -> None:
        """Set the order of the rows and the learning rates of an epoch's steps."""
        order = np.random.default_rng(epoch).permutation(N)
        self.backend.to_device(order, out=self.order)
        rates = np.stack([rate * np.ones(6), 0.9 * np.ones(6)])
        self.backend.to_device(rates.astype(self.backend.sum_dtype), out=self.rates)
        self.backend.to_device(np.array([3 * epoch, -1]), out=self.clock)

    def new_step(self, rows: int) -> Callable[[], None]:
        """Return a step on `rows` rows with its own buffers."""
        backend, net = self.backend, self.net
        x, y = backend.empty((rows, N_IN), self.dtype), backend.empty((rows,), "int32")
        layers, loss = net.for_training()
        dropout = DropoutSource(9, self.clock)
        space = net.workspace(x, layers, grad=self.grad, dropout=dropout)

        def step() -> None:
            backend.tick(self.clock, self.rates, self.hyper)
            backend.gather_rows(self.x, self.order, self.clock, 4, x)
            backend.gather_rows(self.y, self.order, self.clock, 4, y)
            out = space.forward()
            backend.loss_and_delta(loss, out, y, None, space.out.delta, self.totals)
            space.backward()
            backend.clip_norm(self.grad, 0.5)
            backend.optimizer_step(
                self.rule, net.theta, self.grad, self.state, self.hyper, 0.01, net.layout.n_weights
            )

        return step

    def steps(self, n: int) -> None:
        """Run n steps by calling the step."""
        for _ in range(n):
            self.step()

    def watched(self) -> dict[str, np.ndarray]:
        """Return host copies of what a step changes."""
        moving = {"theta": self.net.theta, "clock": self.clock, "totals": self.totals}
        moving |= {f"state {i}": vector for i, vector in enumerate(self.state)}
        return {name: self.backend.to_host(array) for name, array in moving.items()}


@contextmanager
def forbidden(backend: Backend) -> Iterator[None]:
    """Make the backend raise for operations that are not allowed in a captured step."""

    def refuse(name: str, only_without_out: bool = False) -> Callable[..., Any]:
        original = getattr(backend, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            out = kwargs.get("out", args[1] if len(args) > 1 else None)
            if only_without_out and out is not None:
                return original(*args, **kwargs)
            raise AssertionError(f"{name} was called inside a captured step on {backend.device}")

        return method

    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "zeros", "to_host", "synchronize"):
            patch.setattr(backend, name, refuse(name))
        patch.setattr(backend, "to_device", refuse("to_device", only_without_out=True))
        yield
