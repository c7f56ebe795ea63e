"""PyTorch on the CPU, where kernels may read the small arrays of a step on the host.

NumPy computes these few numbers in the same memory, as a call of PyTorch takes some microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from nnbackend.backend.base import BATCH, COUNT, LOSS, MOMENTUM, RATE, STEP, WEIGHT
from nnbackend.backend.formulas import Array, Loss, UpdateRule
from nnbackend_torch.backend import TorchBackend

# A training run uses one thread if its largest product has fewer multiplications.
MIN_PARALLEL = 1 << 20
HAS_FUSED_ADAM = hasattr(torch, "_fused_adam_")


class TorchCPU(TorchBackend):
    """PyTorch on the CPU."""

    def __init__(self) -> None:
        super().__init__("cpu", 0)

    @property
    def threads(self) -> int:  # type: ignore[override]
        """PyTorch's threads, as their number changes how products are rounded."""
        return int(torch.get_num_threads())

    def synchronize(self) -> None:
        pass

    def release_memory(self) -> None:
        pass

    @contextmanager
    def _inside(self, multiplications: int | None) -> Iterator[None]:
        """Use one thread for small networks, whose threads would wait more than compute."""
        before = torch.get_num_threads()
        is_small = multiplications is not None and multiplications < MIN_PARALLEL
        if is_small:
            torch.set_num_threads(1)
        try:
            with super()._inside(multiplications):
                yield
        finally:
            if is_small:
                torch.set_num_threads(before)

    def loss_and_delta(
        self, loss: Loss, out: Array, y: Array, weight: Array | None, delta: Array, totals: Array
    ) -> None:
        is_labels = loss.kernel == "softmax_cross_entropy" and y.ndim == 1 and weight is None
        if not is_labels or loss.params[0]:
            super().loss_and_delta(loss, out, y, weight, delta, totals)
            return
        rows, labels = len(out), y.long().unsqueeze(1)
        torch.log_softmax(out, 1, out=delta)
        picked = delta.gather(1, labels).sum(dtype=torch.float64)
        delta.exp_().scatter_add_(1, labels, _minus_ones(rows, out.dtype)).mul_(1.0 / rows)
        sums = totals.numpy()
        sums[LOSS] -= picked.item()
        sums[WEIGHT] += rows

    def optimizer_step(
        self,
        rule: UpdateRule,
        theta: Array,
        gradient: Array,
        state: Sequence[Array],
        hyper: Array,
        weight_decay: float,
        n_weights: int,
    ) -> None:
        update = UPDATES.get(rule.kernel)
        if update is None:
            super().optimizer_step(rule, theta, gradient, state, hyper, weight_decay, n_weights)
            return
        numbers = hyper.tolist()
        rate, momentum, count = (numbers[k] for k in (RATE, MOMENTUM, COUNT))
        if weight_decay:
            theta[:n_weights].mul_(1.0 - rate * weight_decay)
        if rule.kernel == "adam" and HAS_FUSED_ADAM:
            _fused_adam(rule.params, rate, count, theta, gradient, state)
            return
        coefficients = [float(v) for v in rule.coefficients(rate, momentum, count)]
        update(rule.params, coefficients, theta, gradient, state)

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        count, numbers = clock.numpy(), hyper.numpy()
        count += 1
        numbers[:COUNT] = rates.numpy()[:, count[BATCH]]
        numbers[COUNT] = count[STEP]

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        start = int(clock.numpy()[BATCH]) * batch_size
        rows = order[start : start + len(out)]
        if data.dtype == out.dtype:
            torch.index_select(data, 0, rows, out=out)
        else:
            out.copy_(data.index_select(0, rows))


_ones: dict[tuple[int, torch.dtype], Array] = {}


def _minus_ones(rows: int, dtype: torch.dtype) -> Array:
    """Return a column of -1."""
    if (rows, dtype) not in _ones:
        _ones[rows, dtype] = torch.full((rows, 1), -1.0, dtype=dtype)
    return _ones[rows, dtype]


# ---- update rules, in place ---------------------------------------------------------------------

Numbers = Sequence[float]
Update = Callable[[Numbers, Numbers, Array, Array, Sequence[Array]], Any]


def _sgd(p: Numbers, c: Numbers, theta: Array, g: Array, state: Sequence[Array]) -> None:
    theta.add_(g, alpha=-c[0])


def _momentum(p: Numbers, c: Numbers, theta: Array, g: Array, state: Sequence[Array]) -> None:
    (velocity,) = state
    velocity.mul_(c[1]).add_(g, alpha=-c[0])
    theta.add_(velocity)


def _adam(p: Numbers, c: Numbers, theta: Array, g: Array, state: Sequence[Array]) -> None:
    rest1, rest2, eps = p  # 1 - beta1, 1 - beta2
    rate, v_correction = c
    m, v = state
    m.lerp_(g, rest1)
    v.mul_(1.0 - rest2).addcmul_(g, g, value=rest2)
    theta.addcdiv_(m, (v * v_correction).sqrt_().add_(eps), value=-rate)


def _fused_adam(
    p: Numbers, rate: float, count: float, theta: Array, g: Array, state: Sequence[Array]
) -> None:
    """Compute Adam's step in one pass, as torch.optim.Adam(fused=True): 7 times faster."""
    rest1, rest2, eps = p
    (m, v), steps = state, [torch.tensor(count)]
    torch._fused_adam_(
        [theta], [g], [m], [v], [], steps, lr=rate, beta1=1.0 - rest1, beta2=1.0 - rest2,
        weight_decay=0.0, eps=eps, amsgrad=False, maximize=False,
    )  # fmt: skip


UPDATES: dict[str | None, Update] = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}
