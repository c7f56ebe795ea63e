"""The backend: six methods, the capture of steps, and two kernels for speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnbackend.backend import Backend
from nnbackend.backend.base import BATCH
from nnbackend_jax.boxes import Box, Namespace, computed, is_traced, jax_scope
from nnbackend_jax.capturing import CompiledSteps, spans_of


class JaxBackend(Backend):
    """One device of JAX, by JAX's name of its type: cpu, gpu or tpu."""

    name = "jax"
    xp = Namespace()
    capabilities = frozenset({"uint64", "capture"})

    def __init__(self, platform: str = "cpu", index: int = 0) -> None:
        self.device = f"jax:{platform}:{index}"
        self._place = jax.local_devices(backend=platform)[index]
        if platform == "tpu":  # its float64 is an approximation; not run by us
            self.float_dtypes = ("float32",)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Box:
        """Return a new array of zeros: JAX has no uninitialized arrays."""
        return self.zeros(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Box:
        """Return a new array of zeros."""
        with jax_scope(self._place):
            return Box(computed(jnp.zeros(shape, dtype, device=self._place)))

    def to_device(self, host: np.ndarray, out: Box | None = None) -> Box:
        """Copy a NumPy array to the device."""
        # The copy is a constant, also while a step is traced: the base class keeps some.
        with jax_scope(self._place), jax.ensure_compile_time_eval():
            array = jax.device_put(np.array(host, order="C"), self._place)
        if out is None:
            return Box(array)
        out[...] = array
        return out

    def to_host(self, array: Box) -> np.ndarray:
        """Return a NumPy copy."""
        with jax_scope(array):
            return np.array(array.read())

    def synchronize(self) -> None:
        """Do nothing: every write to a box waits for its array."""

    def owns(self, array: object) -> bool:
        """Return True for boxes on this device."""
        if not isinstance(array, Box):
            return False
        value = array.root.parts[0]
        return is_traced(value) or value.device == self._place

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return a function that runs n steps as one compiled loop."""
        compiled: list[CompiledSteps] = []

        def run(n: int) -> None:
            if not compiled:
                compiled.append(CompiledSteps(step))
            compiled[0](n)

        return run

    def gather_rows(self, data: Any, order: Any, clock: Any, batch_size: int, out: Any) -> None:
        """Gather this step's rows; the order is a permutation, so no index needs a check."""
        with jax_scope(data):
            start = clock.read()[BATCH] * batch_size
            places = lax.dynamic_slice(order.read(), (start,), out.shape[:1])
            out[...] = data.read().at[places].get(mode="promise_in_bounds")

    def optimizer_step(
        self,
        rule: Any,
        theta: Any,
        gradient: Any,
        state: Any,
        hyper: Any,
        weight_decay: float,
        n_weights: int,
    ) -> None:
        """Update the parameters part by part: a rule is element-wise."""
        for start, stop in spans_of(theta):
            part = slice(start, stop)
            n = min(max(n_weights - start, 0), stop - start)
            decay = weight_decay if n else 0.0
            super().optimizer_step(
                rule, theta[part], gradient[part], [s[part] for s in state], hyper, decay, n
            )
