"""L-BFGS: a full-batch quasi-Newton method with a line search for the step length.

It stores the last pairs (s, y) of steps and gradient changes, and multiplies the gradient by the
inverse Hessian that they approximate. Vectors stay on the device; the few scalars are copied to
the host.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.options import AT_LEAST_0, AT_LEAST_1, Checked, Kind

# Sufficient decrease and curvature; Nocedal and Wright 2006, p. 62, values for quasi-Newton.
DECREASE, CURVATURE = 1e-4, 0.9


@dataclass(frozen=True)
class LBFGS(Checked):
    """Limited-memory BFGS on all rows; one iteration is one epoch.

    memory: number of stored pairs.  tolerance: L-BFGS has converged when the gradient's largest
    element is smaller.  ftol: also when the relative decrease of the loss is smaller.
    max_evaluations: limit on the loss evaluations in one line search.
    Source: Nocedal and Wright 2006, algorithms 7.4, 3.5 and 3.6.
    """

    memory: int = 10
    tolerance: float = 1e-5
    ftol: float = 1e-9
    max_evaluations: int = 25

    limits: ClassVar[Mapping[str, Kind]] = {
        **dict.fromkeys(("memory", "max_evaluations"), AT_LEAST_1),
        **dict.fromkeys(("tolerance", "ftol"), AT_LEAST_0),
    }


def load_vector(backend: Backend, host: Any, vector: Array, name: str) -> None:
    """Copy a saved vector to the device; raise ValueError if its dtype or shape differ."""
    if (host.dtype.name, host.shape) != (backend.dtype_name(vector), tuple(vector.shape)):
        raise ValueError(f"{name}: {host.dtype} {host.shape}")
    backend.to_device(host, out=vector)


Evaluate = Callable[[], float]  # returns the loss at theta, writes the gradient into its vector


class LBFGSSteps:
    """The state of L-BFGS on one parameter vector, which it updates in place."""

    def __init__(
        self, rule: LBFGS, backend: Backend, theta: Array, grad: Array, evaluate: Evaluate
    ) -> None:
        self.rule, self.backend, self.xp = rule, backend, backend.xp
        self.theta, self.grad, self.evaluate = theta, grad, evaluate
        self.pairs: deque[tuple[Array, Array, float]] = deque(maxlen=rule.memory)
        self.loss = math.nan
        self.converged = False
        self.evaluations = 0

    def iterate(self) -> float:
        """Run one iteration; return the loss after it."""
        if math.isnan(self.loss):
            self.loss = self._evaluate()
        before = self.loss
        theta, g = self.theta + 0.0, self.grad + 0.0  # copies
        if self._largest(g) <= self.rule.tolerance:
            self.converged = True
            return self.loss
        d = self._direction(g)
        slope = self._dot(g, d)
        if slope >= 0:  # not a descent direction, because of rounding: restart
            self.pairs.clear()
            d = -1.0 * g
            slope = self._dot(g, d)
        first = 1.0 if self.pairs else min(1.0, 1.0 / math.sqrt(-slope))

        def along(t: float) -> tuple[float, float]:
            self.backend.copy(theta + t * d, self.theta)
            loss = self._evaluate()
            return loss, self._dot(self.grad, d)

        try:
            t, self.loss = line_search(along, before, slope, first, self.rule.max_evaluations)
        except MemoryError:  # theta may be at any trial point
            self.backend.copy(theta, self.theta)
            self.backend.copy(g, self.grad)
            raise
        if t == 0.0:  # no decrease found: the limit of the floating-point precision
            self.backend.copy(theta, self.theta)
            self.backend.copy(g, self.grad)
            self.loss, self.converged = before, not self.pairs
            self.pairs.clear()  # try the gradient direction before reporting convergence
            return self.loss
        self._remember(self.theta - theta, self.grad - g)
        small = self.rule.ftol * max(abs(before), abs(self.loss), 1e-12)
        self.converged = (
            self._largest(self.grad) <= self.rule.tolerance or before - self.loss <= small
        )
        return self.loss

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state: plain data, and host arrays."""
        to_host = self.backend.to_host
        state: dict[str, Any] = {
            "lbfgs": {
                "converged": self.converged,
                "loss": None if math.isnan(self.loss) else self.loss,
                "curvatures": [rho for _, _, rho in self.pairs],
            },
            "lbfgs.gradient": to_host(self.grad),
        }
        for i, (s, y, _) in enumerate(self.pairs):
            state[f"lbfgs.s.{i}"], state[f"lbfgs.y.{i}"] = to_host(s), to_host(y)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`.

        Raises: ValueError, KeyError or TypeError for an invalid state.
        """
        facts, backend = state["lbfgs"], self.backend
        if len(facts["curvatures"]) > self.rule.memory:
            raise ValueError(f"{len(facts['curvatures'])} pairs")
        load_vector(backend, state["lbfgs.gradient"], self.grad, "lbfgs.gradient")
        self.pairs.clear()
        for i, rho in enumerate(facts["curvatures"]):
            s, y = (self.grad + 0.0 for _ in range(2))
            load_vector(backend, state[f"lbfgs.s.{i}"], s, f"lbfgs.s.{i}")
            load_vector(backend, state[f"lbfgs.y.{i}"], y, f"lbfgs.y.{i}")
            self.pairs.append((s, y, float(rho)))
        self.loss = math.nan if facts["loss"] is None else float(facts["loss"])
        self.converged = bool(facts["converged"])

    def _remember(self, s: Array, y: Array) -> None:
        curvature = self._dot(s, y)
        if curvature > 1e-10 * self._dot(y, y):  # keeps the implied matrix positive definite
            self.pairs.append((s, y, 1.0 / curvature))

    def _direction(self, g: Array) -> Array:
        """Return -H g by the two-loop recursion (algorithm 7.4)."""
        q, alphas = -1.0 * g, []
        for s, y, rho in reversed(self.pairs):
            alpha = rho * self._dot(s, q)
            q = q - alpha * y
            alphas.append(alpha)
        if self.pairs:
            _, y, rho = self.pairs[-1]
            q = q * (1.0 / (rho * self._dot(y, y)))
        for (s, y, rho), alpha in zip(self.pairs, reversed(alphas), strict=True):
            q = q + (alpha - rho * self._dot(y, q)) * s
        return q

    def _evaluate(self) -> float:
        self.evaluations += 1
        return self.evaluate()

    def _dot(self, a: Array, b: Array) -> float:
        return float(self.backend.to_host(self.xp.sum(a * b, keepdims=True))[0])

    def _largest(self, a: Array) -> float:
        return float(self.backend.to_host(self.xp.max(self.xp.abs(a), keepdims=True))[0])


def line_search(
    along: Callable[[float], tuple[float, float]],
    f0: float,
    slope0: float,
    first: float,
    max_evaluations: int,
) -> tuple[float, float]:
    """Find a step length that satisfies the strong Wolfe conditions; return (length, loss).

    along(t) moves theta to t and returns the loss and the slope there. The last call is at the
    returned length. The length is 0 when no lower loss was found.
    Source: Nocedal and Wright 2006, algorithms 3.5 (bracketing) and 3.6 (zoom).
    """
    low, high = (0.0, f0, slope0), None
    t, best = first, (0.0, f0)
    for _ in range(max_evaluations):
        f, slope = along(t)
        if math.isfinite(f) and f < best[1]:
            best = (t, f)
        if not math.isfinite(f) or f > f0 + DECREASE * t * slope0 or (f >= low[1] and low[0] > 0):
            high = (t, f, slope)
        elif abs(slope) <= -CURVATURE * slope0:
            return t, f
        elif slope * (high[0] - low[0] if high else 1.0) >= 0:
            high, low = low, (t, f, slope)
        else:
            low = (t, f, slope)
        t = 2.0 * t if high is None else _between(low, high)
        if high is not None and abs(high[0] - low[0]) <= 1e-12 * max(abs(low[0]), 1.0):
            break
    if best[0] > 0.0:
        f, _ = along(best[0])
        return best[0], f
    return 0.0, f0


Point = tuple[float, float, float]


def _between(a: Point, b: Point) -> float:
    """Return the minimum of the cubic through two points, kept away from both ends."""
    (ta, fa, ga), (tb, fb, gb) = a, b
    middle = 0.5 * (ta + tb)
    if not (math.isfinite(fb) and math.isfinite(gb)) or ta == tb:
        return middle
    d1 = ga + gb - 3.0 * (fa - fb) / (ta - tb)
    inside = d1 * d1 - ga * gb
    if inside < 0:
        return middle
    d2 = math.copysign(math.sqrt(inside), tb - ta)
    bottom = gb - ga + 2.0 * d2
    if bottom == 0.0:
        return middle
    t = tb - (tb - ta) * (gb + d2 - d1) / bottom
    edge = 0.1 * abs(tb - ta)
    return min(max(t, min(ta, tb) + edge), max(ta, tb) - edge)
