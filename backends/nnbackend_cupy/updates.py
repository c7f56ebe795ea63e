"""CUDA kernels of penalties, norms, update rules and averages of parameters."""

from __future__ import annotations

from collections.abc import Sequence

from nnbackend.backend.formulas import Array, UpdateRule
from nnbackend_cupy.launch import Launcher
from nnbackend_cupy.records import Kernel, variant
from nnbackend_cupy.sources import update_filling

PENALTY = Kernel("penalty")
NORM = Kernel("norm")
CLIP = Kernel("clip")
MAX_NORM = Kernel("max_norm")
AVERAGE = Kernel("average")


class UpdateKernels(Launcher):
    """The kernels of gradients and parameters."""

    def add_penalty(
        self, weights: Array, gradient: Array, l1: float, l2: float, rows: int, totals: Array
    ) -> None:
        """Compute gradient += l2 w + l1 sign(w), and add the penalty for `rows` rows to totals."""
        self._run(
            PENALTY, weights=weights, gradient=gradient, l1=l1, l2=l2, rows=rows, totals=totals
        )

    def clip_norm(self, gradient: Array, max_norm: float) -> None:
        """Clip the gradient to the norm `max_norm`, in two launches. Shapes: (P,)."""
        factor = self._scratch("factor", 1, gradient.dtype)
        self._run(NORM, gradient=gradient, max_norm=max_norm, factor=factor)
        self._run(CLIP, gradient=gradient, factor=factor)

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
        """Apply an update rule with weight decay, in one launch. Shapes: (P,), hyper (3,)."""
        states = {f"s{k}": vector for k, vector in enumerate(state)}
        self._run(
            variant("update", update_filling, len(state)), rule,
            theta=theta, gradient=gradient, **states, hyper=hyper, decay=weight_decay,
            n_weights=n_weights,
        )  # fmt: skip

    def max_norm(self, W: Array, limit: float) -> None:
        """Clip the norm of each column of W (I, O) to `limit`."""
        self._run(MAX_NORM, W=W, limit=limit)

    def average(self, theta: Array, ema_weights: Array, decay: float, hyper: Array) -> None:
        """Compute ema_weights = d ema_weights + (1 - d) theta. Shapes: (P,), hyper (3,)."""
        self._run(AVERAGE, theta=theta, ema_weights=ema_weights, decay=decay, hyper=hyper)
