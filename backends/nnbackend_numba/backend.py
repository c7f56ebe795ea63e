"""The NumPy backend with compiled and fused element-wise loops.

Recorded steps and predictions of many rows have matrix products of their own; NumPy's BLAS computes
the others. NumPy also evaluates formulas that numba cannot compile, such as some custom ones, with
the same results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Activation, Array
from nnbackend_numba import (  # noqa: F401 - their kernels
    batches,
    dense,
    direct,
    dropout,
    exchanges,
    forking,
    losses,
    maxout,
    pairs,
    prediction,
    updates,
)
from nnbackend_numba.compiling import Formula, compiled
from nnbackend_numba.program import Program
from nnbackend_numba.recorder import SIGNATURES, NotRecordable, RecordableBackend, record
from nnbackend_numba.records import name_of
from nnbackend_numba.steps import KERNELS, RECORDED_ONLY, DirectStep
from nnbackend_numpy import threads
from nnbackend_numpy.cores import usable_cores
from nnbackend_numpy.kernels import NumPyBackend

logger = logging.getLogger("nnbackend")


class _CompiledKernels(RecordableBackend):
    """NumPy's kernels, and those of this package for direct calls."""


def _direct(name: str) -> Callable[..., None]:
    """Return the method that calls a kernel directly, or NumPy's if the kernel refuses the call."""
    kernel, numpys, step = KERNELS[name], getattr(NumPyBackend, name), DirectStep()
    names = [*SIGNATURES[name].parameters][1:]

    @wraps(numpys)
    def method(self: NumPyBackend, *args: Any, **kwargs: Any) -> None:
        try:
            given = dict(zip(names, args, strict=False))
            kernel(step, SimpleNamespace(**given, **kwargs))
        except (NotRecordable, NotImplementedError):
            numpys(self, *args, **kwargs)

    return method


for _name in KERNELS.keys() - RECORDED_ONLY:
    setattr(_CompiledKernels, _name, _direct(_name))


class NumbaBackend(_CompiledKernels):
    """NumPy arrays with loops compiled by numba."""

    name = "numba"
    device = "numba:0"
    captures_exchanges = True

    def __init__(self, precision: str = "float32") -> None:
        super().__init__()
        self._threads = min(threads.of_blas(), usable_cores())
        self.precision = precision
        if pairs.is_available():
            self.precisions = ("float32", "bf16")

    @property
    def threads(self) -> int:  # type: ignore[override]
        """The most threads of a step: the parts that they compute round sums differently."""
        return self._threads

    def with_precision(self, precision: str) -> Backend:
        """Return this device with another precision of the products of recorded steps."""
        super().with_precision(precision)
        if precision == self.precision:
            return self
        other = type(self)(precision)
        other._threads = self._threads
        return other

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        """Call loops with as little overhead as possible, for predictions of a few rows."""
        arguments = (z, b) if a is z and phi.kernel != "softmax" else (z, b, a)
        try:
            loop = _activation(phi, name_of(z.dtype), arguments)
        except NotImplementedError:
            np.dot(x, W, out=z)
            z += b
            a[...] = phi.value(z, np)
            return
        if len(x) < prediction.FEWEST_ROWS:
            np.dot(x, W, out=z)
            loop(*arguments)
            return

        def activate(rows: slice) -> None:
            loop(z[rows], b, *[v[rows] for v in arguments[2:]])

        prediction.forward(x, W, z, activate, self._threads)

    def dense_backward(
        self,
        x: Array,
        W: Array,
        z: Array,
        a: Array,
        phi: Activation,
        delta: Array,
        dW: Array,
        db: Array,
        dx: Array | None,
    ) -> None:
        """Convert delta with a compiled loop; NumPy computes the rest."""
        try:
            if phi.kernel == "softmax":
                raise NotImplementedError  # its slope needs whole rows
            if phi.kernel != "identity":
                call = SimpleNamespace(delta=delta, z=z, a=a)
                DirectStep().run(dense.slope, call, Formula(phi.df, phi.df_is_plain))
        except NotImplementedError:
            delta[...] = phi.delta(delta, z, a, np)
        np.dot(x.T, delta, out=dW)
        np.sum(delta, axis=0, out=db)
        if dx is not None:
            np.dot(delta, W.T, out=dx)

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        try:
            return Program(record(self, step), self._threads, self.precision == "bf16").run
        except NotRecordable as reason:
            is_exact = self.precision == "float32"
            level = logging.INFO if is_exact else logging.WARNING
            how = "" if is_exact else f", with products in float32, not {self.precision}"
            logger.log(level, "steps run kernel by kernel%s: %s", how, str(reason).splitlines()[0])
            return super().capture(step)


# Loops by formula, which they do not keep alive; looking them up by fingerprint takes longer.
_loops: WeakKeyDictionary[Callable[..., Any], dict[tuple[str, int], Any]] = WeakKeyDictionary()


def _activation(phi: Activation, dtype: str, arguments: tuple[Array, ...]) -> Any:
    """Return the loop that adds biases and activates; z and a are one array without a third one.

    Raises: NotImplementedError if numba cannot compile the formula.
    """
    try:
        known = _loops.setdefault(phi.f, {})
    except TypeError:  # no weak references, as to some of NumPy's functions
        known = {}
    key = dtype, len(arguments)
    if key not in known:
        loop: Any = direct.activate_in_place if len(arguments) == 2 else direct.activate
        formula: Formula | None = Formula(phi.f, phi.f_is_plain)
        if phi.kernel == "softmax":
            loop, formula = direct.softmax, None
        known[key] = compiled(loop, dtype, arguments, formula)
    return known[key]
