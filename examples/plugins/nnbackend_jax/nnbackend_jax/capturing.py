"""A step as a pure function, and n steps as one compiled loop.

A step of the engine returns nothing: it reads some boxes and writes others. JAX compiles functions
of arrays. So the step is called once on abstract values, only to learn which boxes it touches. Then
the boxes that it changes become the arguments and the results of a function, which JAX compiles:

    carried -> step(carried, fixed) -> carried     n times, by lax.fori_loop
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nnbackend_jax.boxes import Box, Span, computed, is_traced, jax_scope, replaced, tracing

Parts = list[jax.Array]
Cuts = dict[int, list[int]]


class Trace:
    """The content of the boxes that a step touches, while JAX traces the step.

    The boxes themselves keep their arrays, so nothing must be undone.
    cuts: {length of a vector: where to cut it, from 0 to its length}. A vector is held in parts, so
    that the weights of a layer, a part of the vector of all parameters, are an array of their own:
    XLA would copy them in every step. Without cuts a vector is one part.
    """

    def __init__(self, cuts: Cuts | None = None) -> None:
        self.cuts = cuts or {}
        self.boxes: dict[int, Box] = {}  # by id; in the order of first use
        self.parts: dict[int, Parts] = {}
        self.read_first: set[int] = set()
        self.written: set[int] = set()
        self.spans: set[tuple[int, Span]] = set()  # (length of the vector, span) of each part used

    def read(self, box: Box, span: Span | None = None) -> jax.Array:
        """Return the content of a box, or of a part."""
        parts = self._held(box)
        if span is None:
            return joined(parts)
        places = self._places(box, span)
        return joined(parts)[slice(*span)] if places is None else joined(parts[places])

    def write(self, box: Box, value: jax.Array, span: Span | None = None) -> None:
        """Replace the content of a box, or of a part."""
        cuts = cuts_of(box, self.cuts)
        self.written.add(id(box))
        if span is None:
            self.hold(box, split(value, cuts))
            return
        parts, places = self._held(box), self._places(box, span)
        if places is None:
            parts[:] = split(replaced(joined(parts), slice(*span), value), cuts)
        else:
            inner = [cut - span[0] for cut in cuts[places.start : places.stop + 1]]
            parts[places] = split(value, inner)

    def hold(self, box: Box, parts: Iterable[jax.Array]) -> None:
        """Set the content of a box by its parts."""
        self.boxes[id(box)], self.parts[id(box)] = box, list(parts)

    def _held(self, box: Box) -> Parts:
        """Return the parts of a box; at first those of its array."""
        if id(box) not in self.boxes:
            self.hold(box, split(joined(box.parts), cuts_of(box, self.cuts)))
            self.read_first.add(id(box))
        return self.parts[id(box)]

    def _places(self, box: Box, span: Span) -> slice | None:
        """Return which parts are a span, or None if it begins or ends between two cuts."""
        self.spans.add((len(box), span))
        cuts, (start, stop) = cuts_of(box, self.cuts), span
        if start in cuts and stop in cuts and start < stop:
            return slice(cuts.index(start), cuts.index(stop))
        return None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Return a context in which this trace has the content of this thread's boxes."""
        outer, tracing.by = tracing.by, self
        try:
            yield
        finally:
            tracing.by = outer


def cuts_of(box: Box, cuts: Cuts) -> list[int]:
    """Return where a box is cut; only vectors are."""
    return cuts.get(len(box), [0, len(box)]) if box.ndim == 1 else [0, 1]


def split(value: jax.Array, cuts: Sequence[int]) -> Parts:
    """Return the parts of an array between neighbouring cuts."""
    return [value] if len(cuts) == 2 else [value[a:b] for a, b in pairwise(cuts)]


def joined(parts: Parts) -> jax.Array:
    """Return the array of some neighbouring parts."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def spans_of(vector: Box) -> list[Span]:
    """Return the spans of a vector's parts while a step is traced; otherwise one span."""
    cuts = tracing.by.cuts if tracing.by is not None else {}
    return list(pairwise(cuts_of(vector, cuts)))


class CompiledSteps:
    """n steps in one call, compiled for any n.

    carried: the boxes that pass from step to step: read, and later written.  fixed: only read.
    A box that each step writes before it reads it, such as a layer's output, stays unwritten: its
    content exists only within the loop.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step
        trace = self._first_trace()
        # Without the boxes that the step makes: these hold abstract values from the start.
        ours = {i: box for i, box in trace.boxes.items() if not is_traced(box.parts[0])}
        self.carried = [ours[i] for i in ours if i in trace.read_first & trace.written]
        self.fixed = [ours[i] for i in ours if i in trace.read_first - trace.written]
        self.cuts: Cuts = {}
        for n, span in trace.spans:
            self.cuts[n] = sorted({0, n, *span, *self.cuts.get(n, ())})
        self._loop = jax.jit(self._steps)

    def __call__(self, n: int) -> None:
        with jax_scope(*self.carried):
            before = [self._parts(box) for box in self.carried]
            after = computed(self._loop(n, before, [box.value for box in self.fixed]))
        for box, parts in zip(self.carried, after, strict=True):
            box.parts = parts

    def _parts(self, box: Box) -> Parts:
        """Return the parts of a box: those of the last call, unless it has changed since."""
        cuts = cuts_of(box, self.cuts)
        if box.ndim != 1 or [len(part) for part in box.parts] == [b - a for a, b in pairwise(cuts)]:
            return box.parts
        return split(box.value, cuts)

    def _first_trace(self) -> Trace:
        """Return what the step touches; nothing is computed."""
        trace = Trace()
        with jax_scope(), trace.active():
            jax.eval_shape(self.step)
        return trace

    def _steps(self, n: int, carried: list[Parts], fixed: list[jax.Array]) -> list[Parts]:
        def body(_: Any, carried: list[Parts]) -> list[Parts]:
            trace = Trace(self.cuts)
            for box, parts in zip(self.carried, carried, strict=True):
                trace.hold(box, parts)
            for box, array in zip(self.fixed, fixed, strict=True):
                trace.write(box, array)
            with trace.active():
                self.step()
            return [trace.parts[id(box)] for box in self.carried]

        after: list[Parts] = lax.fori_loop(0, n, body, carried)
        return after
