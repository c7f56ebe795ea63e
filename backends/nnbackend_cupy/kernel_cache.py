"""A cache of compiled kernels and their launches, by what they compute.

A built-in formula is identified by its class, name and parameters, so that all networks with
"relu" share a kernel. A custom formula is identified by the object, because two with one name may
differ; its entries are dropped with it. Kernels with the same text are compiled once. The cache is
bounded: it evicts the oldest entries, which are made again when needed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

from nnbackend_cupy import sources
from nnbackend_cupy.sources import Source
from nnbackend_cupy.tracing import Untraceable

# Launch(grid, block, arguments); a cupy.RawKernel is one.
Launch: TypeAlias = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], Any]
MAX_KERNELS = 512  # a network needs about ten
MAX_ENTRIES = 4096  # a kernel has an entry, and one more for each set of shapes


class KernelCache:
    """The kernels of one device, for any thread. compile(text, name) returns a kernel."""

    def __init__(self, compile: Callable[[str, str], Launch]) -> None:
        self._compile = compile
        self._entries: dict[Any, Any] = {}
        self._launches: dict[str, Launch] = {}  # by the kernel's name, which identifies its text
        self._formulas: dict[int, _Formula] = {}  # by the id of a formula
        self._lock = threading.RLock()  # reentrant: garbage collection may call `_forget`

    def get(self, formulas: Sequence[Any], role: Hashable, make: Callable[[], Any]) -> Any:
        """Return the entry of some formulas (or None), made at the first call.

        make() may trace the formulas. Raises: Untraceable, also from the cache.
        """
        known = [None if formula is None else self._formula(formula) for formula in formulas]
        key = (role, *[formula and formula.identity for formula in known])
        try:
            found = self._entries[key]
        except KeyError:
            found = self._make(make)
            with self._lock:
                self._entries[key] = found
                _limit(self._entries, MAX_ENTRIES)
        if isinstance(found, Untraceable):
            raise Untraceable(*found.args)
        return found

    def compiled(self, source: Source) -> Launch:
        """Return the kernel of a text, compiled at the first call."""
        launch = self._launches.get(source.name)
        if launch is None:
            launch = self._compile(sources.program([source]), source.name)
            with self._lock:
                self._launches[source.name] = launch
                _limit(self._launches, MAX_KERNELS)
        return launch

    def launches(self) -> list[Launch]:
        """Return all kernels, which a graph must keep alive."""
        with self._lock:
            return list(self._launches.values())

    def _make(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except Untraceable as error:
            return Untraceable(*error.args)  # without the traceback, which references arrays

    def _formula(self, formula: Any) -> _Formula:
        known = self._formulas.get(id(formula))
        if known is None or known.formula() is not formula:
            with self._lock:
                known = self._formulas[id(formula)] = _Formula(formula, self)
        return known

    def _forget(self, number: int, formula: _Formula) -> None:
        """Drop a deleted formula, and the entries of a custom one."""
        with self._lock:
            if self._formulas.get(number) is formula:
                del self._formulas[number]
            if not isinstance(formula.identity, tuple):
                for key in list(self._entries):  # a copy: collection may call this method again
                    if formula.identity in key[1:]:
                        self._entries.pop(key, None)


class _Formula:
    """A weak reference to a formula, and what identifies it."""

    def __init__(self, formula: Any, cache: KernelCache) -> None:
        self.identity: Hashable = _built_in(formula) or object()
        me, owner, number = weakref.ref(self), weakref.ref(cache), id(formula)

        def on_delete(reference: Any) -> None:
            cache, formula = owner(), me()
            if cache is not None and formula is not None:
                cache._forget(number, formula)

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


def _limit(cache: dict[Any, Any], most: int) -> None:
    while len(cache) > most:
        cache.pop(next(iter(cache)), None)
