"""The peers of `benchmarks.gpu_check`: the same steps by PyTorch and JAX, data on the device.

Float32 products are exact and then with TF32, so that like is compared with like.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np

STEPS = 40


def torch(
    is_emulated: bool, contender: str, layers: list[int], batch: int, x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """Give PyTorch's microseconds by the step: eager, compiled, or compiled with CUDA graphs."""
    import torch

    if not is_emulated and not torch.cuda.is_available():
        return {"left_out": "this PyTorch sees no GPU"}
    if is_emulated and contender != "torch":
        return {"left_out": "compiling is left out without a GPU"}
    device = "cpu" if is_emulated else "cuda"
    parts: list[Any] = []
    for n_in, n_out in pairwise(layers):
        parts += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    net = torch.nn.Sequential(*parts[:-1]).to(device)
    rule = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9)
    data, targets = (torch.from_numpy(v).to(device) for v in (x, y))
    order = torch.randperm(len(data), device=device)

    def loss_of(rows: Any, wanted: Any) -> Any:
        return torch.nn.functional.mse_loss(net(rows), wanted)

    modes = {"torch-compile": "default", "torch-graphs": "reduce-overhead"}
    if contender in modes:
        loss_of = torch.compile(loss_of, mode=modes[contender])

    def step(i: int) -> None:
        begin = i * batch % (len(data) - batch + 1)
        chosen = order[begin : begin + batch]
        rule.zero_grad()
        loss_of(data[chosen], targets[chosen]).backward()
        rule.step()

    found = {}
    for name, is_tf32 in (("us_per_step", False), ("us_per_step_tf32", True)):
        torch.backends.cuda.matmul.allow_tf32 = is_tf32
        found[name] = _time(step, torch.cuda.synchronize if device == "cuda" else lambda: None)
    return found


def jax(
    is_emulated: bool, contender: str, layers: list[int], batch: int, x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """Give JAX's microseconds by the step, jitted, with the state donated."""
    import jax
    import jax.numpy as jnp

    if not is_emulated and jax.default_backend() != "gpu":
        return {"left_out": "this JAX sees no GPU"}
    rng = np.random.default_rng(1)
    sizes = list(pairwise(layers))
    theta = [(rng.standard_normal(s).astype(np.float32) * 0.05, np.zeros(s[1], np.float32))
             for s in sizes]  # fmt: skip
    state: Any = jax.tree.map(jnp.asarray, (theta, jax.tree.map(np.zeros_like, theta)))
    data, targets = jnp.asarray(x), jnp.asarray(y)
    order = jnp.asarray(rng.permutation(len(x)))

    def loss_of(theta: Any, rows: Any, wanted: Any) -> Any:
        for W, b in theta[:-1]:
            rows = jax.nn.relu(rows @ W + b)
        return jnp.mean((rows @ theta[-1][0] + theta[-1][1] - wanted) ** 2)

    def move(state: Any, begin: Any) -> Any:
        theta, velocity = state
        chosen = jax.lax.dynamic_slice(order, (begin,), (batch,))
        slope = jax.grad(loss_of)(theta, data[chosen], targets[chosen])
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, slope)
        return jax.tree.map(lambda p, v: p - 1e-4 * v, theta, velocity), velocity

    found = {}
    for name, precision in (("us_per_step", "highest"), ("us_per_step_tf32", "tensorfloat32")):
        with jax.default_matmul_precision(precision):
            # A new function for each: the other's compiled code is not to be used.
            jitted = jax.jit(lambda s, i: move(s, i), donate_argnums=0)

            def step(i: int, jitted: Any = jitted) -> None:
                nonlocal state
                state = jitted(state, i * batch % (len(x) - batch + 1))

            found[name] = _time(step, lambda: jax.block_until_ready(state))
    return found


def _time(step: Any, wait: Any) -> float:
    for i in range(4):  # what is compiled or recorded at first use
        step(i)
    wait()
    begin = time.perf_counter()
    for i in range(STEPS):
        step(i)
    wait()
    return 1e6 * (time.perf_counter() - begin) / STEPS
