"""Training steps of PyTorch and JAX for `benchmarks.gpu_peers`, in their fastest known forms.

Both classes have the same methods: `forms`, `reset`, `loss`, `multiply`, `wait`. They train the
same network from the same weights with the same batches: ReLU layers, a linear output, the loss
1/2 sum_k (a_k - y_k)^2 averaged over the batch, SGD with momentum.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.gpu_rows import LEARNING_RATE, MOMENTUM, UNROLLED, Form, Work

LONG = 2_000_000_000  # multiplications of a step
COMPILE_MODES = {"torch-compile": "default", "torch-autotune": "max-autotune-no-cudagraphs"}


class LeftOut(Exception):
    """A contender that cannot run on this machine; the message is the reason."""


class Torch:
    """PyTorch: eager, or whole steps in CUDA graphs, with or without `torch.compile`.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(self, contender: str, work: Work, precision: str, is_emulated: bool) -> None:
        import torch

        if not is_emulated and not torch.cuda.is_available():
            raise LeftOut("this PyTorch sees no GPU")
        if is_emulated and contender != "torch":
            raise LeftOut("CUDA graphs need a GPU")
        self.torch, self.work, self.is_eager = torch, work, contender == "torch"
        self.version = f"torch {torch.__version__}"
        self._device = "cpu" if is_emulated else "cuda"
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        parts: list[Any] = []
        for n_in, n_out in pairwise(work.layers):
            parts += [torch.nn.Linear(n_in, n_out, device=self._device), torch.nn.ReLU()]
        self._net = torch.nn.Sequential(*parts[:-1])
        self._rule = torch.optim.SGD(
            self._net.parameters(), LEARNING_RATE, momentum=MOMENTUM, fused=True
        )
        self._x, self._y, self._windows = map(self._put, (work.x, work.y, work.windows))
        self._position = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._initial = [self._put(v) for W, b in work.theta for v in (W.T, b)]
        # The factor of the loss is the initial gradient of backward, which saves two kernels. The
        # attribute keeps it alive for the graphs.
        self._half = torch.tensor(0.5 / work.batch, device=self._device)
        self.reset()
        net = self._net

        def squares_of(x: Any, y: Any) -> Any:
            return torch.nn.functional.mse_loss(net(x), y, reduction="sum")

        self._squares_of = squares_of
        if contender in COMPILE_MODES:
            torch.compiler.reset()
            self._squares_of = torch.compile(squares_of, mode=COMPILE_MODES[contender])

    def _put(self, values: np.ndarray) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def reset(self) -> None:
        """Restore the initial weights in place: graphs hold the addresses of all arrays."""
        with self.torch.no_grad():
            for parameter, value in zip(self._net.parameters(), self._initial, strict=True):
                parameter.copy_(value)
            for state in self._rule.state.values():
                state["momentum_buffer"].zero_()
            self._position.zero_()
        self._order = itertools.cycle(self._windows)  # of eager steps

    def forms(self) -> Iterator[Form]:
        """Yield the ways to run steps. The second is useful for short steps only."""
        if self.is_eager:
            yield Form("eager", 1, self._eager_step())
            return
        stream = self.torch.cuda.Stream()
        for steps in (1, UNROLLED) if len(self._windows) % UNROLLED == 0 else (1,):
            yield Form(f"graph of {steps}", steps, self._graph(steps, stream))

    def _eager_step(self) -> Callable[[], None]:
        """Return a step as users write it."""
        mse_loss, half = self.torch.nn.functional.mse_loss, 0.5 / self.work.batch

        def step() -> None:
            chosen = next(self._order)
            self._rule.zero_grad()
            loss = half * mse_loss(self._net(self._x[chosen]), self._y[chosen], reduction="sum")
            loss.backward()
            self._rule.step()

        return step

    def _graph(self, steps: int, stream: Any) -> Callable[[], None]:
        """Return the replay of `steps` steps captured in one graph."""
        torch, batch = self.torch, self.work.batch
        table = self._windows.view(-1, steps * batch)

        def work() -> None:
            chosen = table.index_select(0, self._position).view(-1)
            self._position.add_(1).remainder_(len(table))
            x, y = self._x.index_select(0, chosen), self._y.index_select(0, chosen)
            for i in range(steps):
                part = slice(i * batch, (i + 1) * batch)
                self._rule.zero_grad(set_to_none=True)
                self._squares_of(x[part], y[part]).backward(self._half)
                self._rule.step()

        self._position.zero_()
        # One stream for warm-up and capture: cuBLAS has one workspace per stream, and autograd
        # accumulates gradients on the stream of the forward pass.
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # creates the momentum buffers, loads kernels, compiles
                work()
        torch.cuda.current_stream().wait_stream(stream)
        # Gradients must be None, so that the capture allocates them in the graph's pool.
        self._rule.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()
        return lambda: graph.replay()  # keeps the graph alive

    def loss(self) -> float:
        """Return the loss of the rows seen first."""
        rows = self._put(self.work.seen)
        with self.torch.no_grad():
            e = self._net(self._x[rows]) - self._y[rows]
            return float(0.5 * (e * e).sum(dim=1).mean())

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return a @ b as the device makes it."""
        product: np.ndarray = (self._put(a) @ self._put(b)).cpu().numpy()
        return product

    def wait(self) -> None:
        """Wait for the device."""
        if self._device == "cuda":
            self.torch.cuda.synchronize()


class Jax:
    """JAX: a round of batches is one jitted `lax.scan`; the state is donated."""

    def __init__(self, contender: str, work: Work, precision: str, is_emulated: bool) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        if not is_emulated and jax.default_backend() != "gpu":
            raise LeftOut("this JAX sees no GPU")
        self.jax, self.work = jax, work
        self.version = f"jax {jax.__version__}"
        self._precision = "highest" if precision == "float32" else "tensorfloat32"
        self._data = [jax.numpy.asarray(v) for v in (work.x, work.y)]
        self._windows = jax.numpy.asarray(work.windows.astype(np.int32))
        self._initial = jax.tree.map(jax.numpy.asarray, work.theta)
        self.reset()

    def reset(self) -> None:
        """Restore the initial weights, as copies, because a round donates the state's memory."""
        tree, numpy = self.jax.tree, self.jax.numpy
        self._state = (
            tree.map(numpy.copy, self._initial),
            tree.map(numpy.zeros_like, self._initial),
        )

    def _product(self, a: Any, b: Any) -> Any:
        return self.jax.numpy.matmul(a, b, precision=self._precision)

    def _loss_of(self, theta: Any, x: Any, y: Any) -> Any:
        for W, b in theta[:-1]:
            x = self.jax.nn.relu(self._product(x, W) + b)
        e = self._product(x, theta[-1][0]) + theta[-1][1] - y
        return 0.5 * self.jax.numpy.sum(e * e) / len(x)

    def forms(self) -> Iterator[Form]:
        """Yield the way to run steps: a scan, unrolled for short steps.

        On an H200, unrolling by eight took 25 us a step instead of 32 (784-100-10, 128 rows); for
        long steps it saves less than 2 %, and its compilation takes minutes.
        """
        unroll = 8 if self.work.multiplications < LONG else 1
        yield Form(f"scan, unroll {unroll}", len(self._windows), self._scan(unroll))

    def _scan(self, unroll: int) -> Callable[[], None]:
        jax = self.jax

        def a_round(state: Any, windows: Any, x: Any, y: Any) -> Any:
            def step(state: Any, chosen: Any) -> Any:
                theta, velocity = state
                rows = [v.at[chosen].get(mode="promise_in_bounds") for v in (x, y)]
                loss, slope = jax.value_and_grad(self._loss_of)(theta, *rows)
                velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, slope)
                theta = jax.tree.map(lambda p, v: p - LEARNING_RATE * v, theta, velocity)
                return (theta, velocity), loss  # the losses are used: XLA must compute them

            return jax.lax.scan(step, state, windows, unroll=unroll)

        jitted = jax.jit(a_round, donate_argnums=0)

        def run() -> None:
            self._state, self._losses = jitted(self._state, self._windows, *self._data)

        return run

    def loss(self) -> float:
        """Return the loss of the rows seen first."""
        x, y = (v[self.work.seen] for v in self._data)
        return float(self._loss_of(self._state[0], x, y))

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return a @ b as the device makes it."""
        return np.asarray(self._product(*map(self.jax.numpy.asarray, (a, b))))

    def wait(self) -> None:
        """Wait for the device."""
        self.jax.block_until_ready(self._state)
