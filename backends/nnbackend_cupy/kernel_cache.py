"""A cache of compiled kernels, by what they compute.

A built-in formula is identified by its class, name and parameters, so that all networks with
"relu" share a kernel. A custom formula is identified by the object, because two with one name may
differ; its kernels are dropped with it. Kernels with the same text are compiled once. The cache is
bounded: it evicts the oldest kernels, which are compiled again when needed.
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
    """The kernels of one device, for any thread. compile(text, name) returns a kernel."""

    def __init__(self, compile: Callable[[str, str], Launch]) -> None:
        self._compile = compile
        self._kernels: dict[Any, tuple[Source, Launch] | Untraceable] = {}
        self._launches: dict[str, Launch] = {}  # by the kernel's name, which identifies its text
        self._formulas: dict[int, _Formula] = {}  # formulas by their id
        self._lock = threading.RLock()  # reentrant: garbage collection may call `_forget`

    def kernel(
        self, formulas: Sequence[Any], role: Any, dtype: np.dtype[Any], make: Callable[[], Source]
    ) -> tuple[Source, Launch]:
        """Return the kernel of some formulas (or None), traced and compiled at the first call.

        make() traces the formulas. Raises: Untraceable, also from the cache.
        """
        entries = [None if formula is None else self._entry(formula) for formula in formulas]
        key = (tuple(entry and entry.identity for entry in entries), role, dtype.char)
        found = self._kernels.get(key)
        if found is None:
            found = self._make(make)
            with self._lock:
                self._kernels[key] = found
                for entry in filter(None, entries):
                    entry.keys.add(key)
                _limit(self._kernels)
        if isinstance(found, Untraceable):
            raise Untraceable(*found.args)
        return found

    def part(self, source: Source, part: str) -> Launch:
        """Return one kernel of a text that defines several."""
        return self._launch(f"{source.name}_{part}", source)

    def launches(self) -> list[Launch]:
        """Return all kernels, which a graph must keep alive."""
        with self._lock:
            return list(self._launches.values())

    def _make(self, make: Callable[[], Source]) -> tuple[Source, Launch] | Untraceable:
        try:
            source = make()
            return source, self._launch(source.name, source)
        except Untraceable as error:
            return Untraceable(*error.args)  # without the traceback, which references arrays

    def _launch(self, name: str, source: Source) -> Launch:
        launch = self._launches.get(name)
        if launch is None:
            launch = self._compile(sources.program([source]), name)
            with self._lock:
                self._launches[name] = launch
                _limit(self._launches)
        return launch

    def _entry(self, formula: Any) -> _Formula:
        entry = self._formulas.get(id(formula))
        if entry is None or entry.formula() is not formula:
            with self._lock:
                entry = self._formulas[id(formula)] = _Formula(formula, self)
        return entry

    def _forget(self, number: int, entry: _Formula) -> None:
        """Drop the entry of a deleted formula, and the kernels of a custom one."""
        with self._lock:
            if self._formulas.get(number) is entry:
                del self._formulas[number]
            if not isinstance(entry.identity, tuple):
                for key in entry.keys:
                    self._kernels.pop(key, None)


class _Formula:
    """The entry of a formula: a weak reference, its identity, and the keys of its kernels."""

    def __init__(self, formula: Any, cache: KernelCache) -> None:
        self.identity: Hashable = _built_in(formula) or object()
        self.keys: set[Any] = set()
        me, owner, number = weakref.ref(self), weakref.ref(cache), id(formula)

        def on_delete(reference: Any) -> None:
            cache, entry = owner(), me()
            if cache is not None and entry is not None:
                cache._forget(number, entry)

        try:
            self.formula: Callable[[], Any] = weakref.ref(formula, on_delete)
        except TypeError:  # an object with __slots__: kept alive, so that its id stays valid
            self.formula = lambda: formula


def _built_in(formula: Any) -> tuple[Hashable, ...] | None:
    """Return class, name and parameters of a built-in formula, None for a custom one.

    A custom subclass may compute something else under an inherited name.
    """
    kind: Any = type(formula)
    name: str | None = formula.kernel
    if name is None or kind.__module__.partition(".")[0] != "nnbackend":
        return None
    return kind, name, tuple(map(repr, getattr(formula, "params", ())))


def _limit(cache: dict[Any, Any]) -> None:
    while len(cache) > MAX_KERNELS:
        cache.pop(next(iter(cache)), None)
