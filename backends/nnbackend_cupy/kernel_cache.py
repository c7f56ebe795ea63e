"""Compiled kernels, kept by what they compute.

A built-in formula is known by its kind, name and parameters, so that all networks with "relu" share
a kernel. A user's formula is known by the object alone, because two of one name may differ; what
was made for it is dropped with it. Kernels of the same text are compiled once. Their number is
limited: the oldest are dropped, and made anew when they are asked for again.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np

from nnbackend_cupy import sources
from nnbackend_cupy.sources import Source
from nnbackend_cupy.tracing import Untraceable

# Launch(grid, block, arguments); a cupy.RawKernel is one.
Launch: TypeAlias = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], Any]
MAX_KERNELS = 512  # a network needs about ten


class KernelCache:
    """The kernels of one device. compile(text, name) gives a kernel. Threads may share one."""

    def __init__(self, compile: Callable[[str, str], Launch]) -> None:
        self._compile = compile
        self._kernels: dict[Any, tuple[Source, Launch] | Untraceable] = {}
        self._launches: dict[str, Launch] = {}  # by the kernel's name, which says its text
        self._formulas: dict[int, _Formula] = {}  # formulas by their id
        self._lock = threading.RLock()  # reentrant: a formula may die wherever memory is taken

    def kernel(
        self, formulas: Sequence[Any], role: Any, dtype: np.dtype[Any], make: Callable[[], Source]
    ) -> tuple[Source, Launch]:
        """Return the kernel of some formulas, None among them; traced and compiled at first.

        make() traces the formulas. Raises: Untraceable, also for a formula that was refused before.
        """
        known = [None if formula is None else self._entry(formula) for formula in formulas]
        key = (tuple(each and each.identity for each in known), role, dtype.char)
        found = self._kernels.get(key)
        if found is None:
            found = self._make(make)
            with self._lock:
                self._kernels[key] = found
                for each in filter(None, known):
                    each.keys.add(key)
                _limit(self._kernels)
        if isinstance(found, Untraceable):
            raise Untraceable(*found.args)
        return found

    def part(self, source: Source, part: str) -> Launch:
        """Return a kernel of a text that holds several."""
        return self._launch(f"{source.name}_{part}", source)

    def launches(self) -> list[Launch]:
        """Return all kernels: a recording launches its own without asking for them again."""
        with self._lock:
            return list(self._launches.values())

    def _make(self, make: Callable[[], Source]) -> tuple[Source, Launch] | Untraceable:
        try:
            source = make()
            return source, self._launch(source.name, source)
        except Untraceable as error:
            return Untraceable(*error.args)  # a traceback would keep the arrays' memory

    def _launch(self, name: str, source: Source) -> Launch:
        launch = self._launches.get(name)
        if launch is None:
            launch = self._compile(sources.program([source]), name)
            with self._lock:
                self._launches[name] = launch
                _limit(self._launches)
        return launch

    def _entry(self, formula: Any) -> _Formula:
        known = self._formulas.get(id(formula))
        if known is None or known.formula() is not formula:
            with self._lock:
                known = self._formulas[id(formula)] = _Formula(formula, self)
        return known

    def _forget(self, number: int, known: _Formula) -> None:
        """Forget a formula that is gone; of a user's, also what was made for it."""
        with self._lock:
            if self._formulas.get(number) is known:
                del self._formulas[number]
            if not isinstance(known.identity, tuple):
                for key in known.keys:
                    self._kernels.pop(key, None)


class _Formula:
    """A formula that was seen: a weak reference, what it is known by, the keys with its kernels."""

    def __init__(self, formula: Any, cache: KernelCache) -> None:
        self.identity: Hashable = _built_in(formula) or object()
        self.keys: set[Any] = set()
        me, owner, number = weakref.ref(self), weakref.ref(cache), id(formula)

        def gone(reference: Any) -> None:
            here, known = owner(), me()
            if here is not None and known is not None:
                here._forget(number, known)

        try:
            self.formula: Callable[[], Any] = weakref.ref(formula, gone)
        except TypeError:  # an object with __slots__: it is kept, so that its id stays its own
            self.formula = lambda: formula


def _built_in(formula: Any) -> tuple[Hashable, ...] | None:
    """Return kind, name and parameters of a formula of the library, None for a user's.

    A user's subclass may compute something else under the name that it inherits.
    """
    kind: Any = type(formula)
    name: str | None = formula.kernel
    if name is None or kind.__module__.partition(".")[0] != "nnbackend":
        return None
    return kind, name, tuple(map(repr, getattr(formula, "params", ())))


def _limit(kept: dict[Any, Any]) -> None:
    while len(kept) > MAX_KERNELS:
        kept.pop(next(iter(kept)), None)
