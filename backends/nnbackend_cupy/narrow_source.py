"""Build the text of the kernel for narrow networks: formulas, memory layout, sequence of calls.

Everything that depends on the network is a constant of the text: sizes, offsets in memory, tiles.
The number of rows is an argument, so that the last batch of an epoch uses the same kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Activation, Loss, UpdateRule
from nnbackend_cupy.grids import power_of_two
from nnbackend_cupy.records import Kernel
from nnbackend_cupy.sources import (
    loss_lines,
    slope_lines,
    update_filling,
    value_lines,
)

BLOCK, CLUSTER, GRID = range(3)  # the barrier's scope, as in cuda/narrow.cu
MAX_UNITS = 128  # of a layer; a separate phase handles more inputs than that
MAX_ROWS = 1024
STATIC_SHARED = 48 << 10  # bytes that a block may use without opting in
TILES = ((8, 16), (16, 16), (16, 36), (24, 36), (32, 36), (48, 36), (64, 36), (96, 36), (128, 36))
TILE_POOL = 9216  # elements: tiles of 32 x 32 for all 128 rows of a batch
DTYPE = np.dtype(np.float32)


class NotNarrow(Exception):
    """A step that the kernel does not support; the message is the reason."""


@dataclass(frozen=True)
class Layer:
    """A dense layer: its sizes, the offsets of its parameters in theta, whether it stores z."""

    n_in: int
    n_out: int
    W: int
    b: int
    phi: Activation
    keeps_z: bool


@dataclass(frozen=True)
class Net:
    """Everything that determines a kernel's text, except the grid and the rows."""

    layers: tuple[Layer, ...]
    loss: Loss
    rule: UpdateRule
    n_states: int
    data: str  # dtype names
    targets: str
    has_order: bool
    is_scaled: bool = False  # the inputs
    is_weighted: bool = False
    has_penalty: bool = False

    @property
    def is_wide(self) -> bool:
        """Return True if layer 1 has more inputs than a block stores of a row."""
        return self.layers[0].n_in > MAX_UNITS


@dataclass(frozen=True)
class Grid:
    """A launch configuration: the barrier (BLOCK, CLUSTER or GRID), blocks and threads per block.

    loads: the outstanding loads of a thread while it fills a tile.
    """

    barrier: int
    blocks: int
    threads: int = 256
    loads: int = 16


def kernel(net: Net, grid: Grid, rows: int) -> tuple[Kernel, int]:
    """Return the kernel for at most `rows` rows, and how many elements of scratch it needs.

    Raises: NotNarrow if a row exceeds the shared memory; Untraceable.
    """
    layout = Layout(net, grid, power_of_two(rows))

    def filling(dtype: np.dtype[Any], loss: Loss, n: int) -> dict[str, object]:
        phis, names = _activations(net.layers)
        return {
            **update_filling(dtype, net.rule, n),
            "HAS_ORDER": int(net.has_order),
            "HAS_SCALE": int(net.is_scaled),
            "IS_WEIGHTED": int(net.is_weighted),
            "HAS_PENALTY": int(net.has_penalty),
            "ACTIVATIONS": phis,
            "LOSS": loss_lines(dtype, loss, f"[j * {layout.rows}]"),
            "TRANSPOSES": list(layout.transposes()),
            "WIDE_INPUT": list(layout.wide_input()),
            "OF_ROWS": list(layout.of_rows(names)),
        }

    macros = {**layout.macros(), "HAS_LABELS": int(net.targets.startswith("int"))}
    return Kernel("narrow", filling, macros=macros, n=net.n_states), layout.scratch_size


def _activations(layers: Sequence[Layer]) -> tuple[list[str], list[str]]:
    """Return the text of the distinct activations, and the name of each layer's activation."""
    head = "  static __device__ __forceinline__ T"
    lines: list[str] = []
    known: dict[str, str] = {}
    names = []
    for layer in layers:
        body = [
            f"{head} value(const T z) {{",
            *value_lines(DTYPE, layer.phi),
            "  }",
            f"{head} slope(const T da, const T z, const T a) {{",
            *slope_lines(DTYPE, layer.phi),
            "  }",
        ]
        text = "\n".join(body)
        if text not in known:
            known[text] = f"KERNEL_Phi{len(known)}"
            lines += [f"struct {known[text]} {{", *body, "};"]
        names.append(known[text])
    return lines, names


class Layout:
    """The layout of shared memory and scratch, and the calls that use it.

    capacity: the most rows, a power of two.  rows: of a group.
    """

    def __init__(self, net: Net, grid: Grid, capacity: int) -> None:
        self.net, self.grid, self.capacity = net, grid, capacity
        fixed = 4 * capacity + 8 * grid.threads + 256
        most = (STATIC_SHARED - fixed) // DTYPE.itemsize
        self.rows = min(8, power_of_two(parts_of(capacity, grid.blocks)))
        while self._of_group() * self.rows > most:
            if self.rows == 1:
                raise NotNarrow(f"a row needs {self._of_group()} numbers of shared memory")
            self.rows //= 2
        self.pool = max(TILE_POOL, self._of_group() * self.rows)
        self.groups = parts_of(capacity, self.rows)
        self._place_units()
        self._place_tiles()
        self._place_scratch()

    # ---- memory -----------------------------------------------------------------------------

    def _of_group(self) -> int:
        """Return how many numbers of shared memory a row of a group needs."""
        net = self.net
        kept = sum(layer.n_out * (1 + layer.keeps_z) for layer in net.layers)
        inputs = 0 if net.is_wide else net.layers[0].n_in
        targets = net.layers[-1].n_out
        return inputs + kept + 2 * self._widest() + targets + self.grid.threads

    def _widest(self) -> int:
        return max(layer.n_out for layer in self.net.layers)

    def _place_units(self) -> None:
        """Place inputs, z and a of each layer, two deltas and partial sums in the pool."""
        rows, widest = self.rows, self._widest()
        at = 0 if self.net.is_wide else self.net.layers[0].n_in * rows
        self.units: list[tuple[int, int]] = []  # (z, a) of each layer
        for layer in self.net.layers:
            a = at + layer.n_out * rows * layer.keeps_z
            self.units.append((at, a))
            at = a + layer.n_out * rows
        self.deltas = at, at + widest * rows
        self.targets = at + 2 * widest * rows
        self.partial = self.targets + self.net.layers[-1].n_out * rows

    def _place_scratch(self) -> None:
        net, of_unit = self.net, self.groups * self.rows
        at = 0

        def take(n: int) -> int:
            nonlocal at
            at += n
            return at - n

        self.a = [take(layer.n_out * of_unit) for layer in net.layers[:-1]]
        self.delta = [take(layer.n_out * of_unit) for layer in net.layers]
        self.transposed = [take(layer.n_in * layer.n_out) for layer in net.layers[1:]]
        self.losses = take(2 * self.capacity)
        self.parts = take(self.n_parts() * net.layers[0].n_out * of_unit)
        self.scratch_size = at

    def n_parts(self) -> int:
        """Return into how many parts the sum over a wide input is split, to keep blocks busy."""
        first = self.net.layers[0]
        if not self.net.is_wide:
            return 0
        tiles = parts_of(self.capacity, self._tile_rows())
        tiles *= parts_of(first.n_out, tile_width(first.n_out))
        return max(1, min(self.grid.blocks // tiles, parts_of(first.n_in, 32)))

    def _tile_rows(self) -> int:
        return min(32, max(4, self.capacity))

    def macros(self) -> dict[str, object]:
        """Return the macros of the text: sizes and offsets."""
        return {
            "BARRIER": self.grid.barrier,
            "CLUSTER_SIZE": f"__cluster_dims__({self.grid.blocks}, 1, 1)"
            if self.grid.barrier == CLUSTER
            else "",
            "THREADS": self.grid.threads,
            "LOADS": self.grid.loads,
            "CAPACITY": self.capacity,
            "ROWS": self.rows,
            "GROUPS": self.groups,
            "POOL": self.pool,
            "PARTIAL": self.partial,
            "TARGET_ROWS": self.targets,
            "LOSSES": self.losses,
            "N_IN": self.net.layers[0].n_in,
            "N_OUT": self.net.layers[-1].n_out,
            "HAS_WIDE_INPUT": int(self.net.is_wide),
            "N_LAYERS": len(self.net.layers),
            "LAYERS": self._layers(),
            "N_TILES": sum(map(self._tiles, self.net.layers)),
            "TILE_M": self.height,
            "TILE_N": self.width,
        }

    # ---- calls ------------------------------------------------------------------------------

    def transposes(self) -> Iterator[str]:
        """Yield the calls that transpose the weights."""
        for layer, at in zip(self.net.layers[1:], self.transposed, strict=True):
            yield (
                f"  KERNEL_transpose(theta + {layer.W}, scratch + {at}, "
                f"{layer.n_in}, {layer.n_out});"
            )

    def wide_input(self) -> Iterator[str]:
        """Yield the call of phase 1."""
        first = self.net.layers[0]
        if self.net.is_wide:
            sizes = self._tile_rows(), tile_width(first.n_out), first.n_out, self.n_parts()
            places = f"theta + {first.W}, scratch + {self.parts}"
            yield f"    {_call('wide_input', sizes)}(run, {places});"

    def of_rows(self, phis: Sequence[str]) -> Iterator[str]:
        """Yield the calls of phase 2: a group of rows, forward and backward.

        Each product receives the next one, and prefetches its first weights.
        """
        layers, last, z_a = self.net.layers, len(self.net.layers) - 1, self.units
        first = int(self.net.is_wide)
        kept = [f"scratch + {at}" for at in self.a] + ["(T*)0"]
        delta = [f"scratch + {at}" for at in self.delta]
        products = self._products()
        for k, (sizes, *_) in enumerate(products):
            yield f"      {_call('Early', sizes)} w{k};"
        yield f"      KERNEL_Nothing w{len(products)};"
        products.append(((), "(T*)0", "(T*)0"))
        yield f"      w0.load({products[0][1]}, {products[0][2]});"
        of: tuple[Any, ...]
        if self.net.is_wide:
            of = phis[0], layers[0].n_out, *z_a[0], self.n_parts()
            places = f"scratch + {self.parts}, theta + {layers[0].b}"
            yield f"      {_call('load_units', of)}(run, {places}, group, {kept[0]});"
        else:
            yield f"      {_call('load', [0])}(run, group);"
        for k in range(first, last + 1):
            of = phis[k], layers[k].n_in, layers[k].n_out, z_a[k - 1][1] if k else 0, *z_a[k]
            p = k - first
            weights = f"w{p}, {products[p][1]}, w{p + 1}, {', '.join(products[p + 1][1:])}"
            yield f"      {_call('forward', of)}(run, group, {kept[k]}, {weights});"
        of = z_a[-1][1], self.deltas[0]
        yield f"      {_call('compare', of)}(run, group, losses);"
        of = phis[-1], layers[-1].n_out, *z_a[-1], self.deltas[0]
        yield f"      {_call('begin_backward', of)}(run, group, {delta[-1]});"
        for k in range(last, 0, -1):
            above, here = self.deltas[(last - k) % 2], self.deltas[(last - k + 1) % 2]
            of = phis[k - 1], layers[k].n_in, layers[k].n_out, above, *z_a[k - 1], here
            p = 2 * last - k + 1 - first
            weights = f"w{p}, {products[p][1]}, w{p + 1}, {products[p + 1][1]}"
            yield f"      {_call('backward', of)}(run, group, {delta[k - 1]}, {weights});"

    def _products(self) -> list[tuple[tuple[Any, ...], str, str]]:
        """Return the products of phase 2: sizes, address of the weights, address of the biases."""
        layers = self.net.layers
        products: list[tuple[tuple[Any, ...], str, str]] = []
        for layer in layers[int(self.net.is_wide) :]:
            sizes = layer.n_in, layer.n_out, "true"
            products.append((sizes, f"theta + {layer.W}", f"theta + {layer.b}"))
        for layer, at in reversed(list(zip(layers[1:], self.transposed, strict=True))):
            sizes = layer.n_out, layer.n_in, "false"
            products.append((sizes, f"scratch + {at}", "(T*)0"))
        return products

    # ---- tiles of the gradients -------------------------------------------------------------

    def _place_tiles(self) -> None:
        """Split the gradients into tiles of one size.

        Choose small tiles, whose sums are split into many slices, unless there are more tiles than
        blocks: a second round would cost more.
        """
        layers, blocks, threads = self.net.layers, self.grid.blocks, self.grid.threads
        largest = max(layers, key=lambda layer: layer.n_in * layer.n_out).n_out
        for height, width in TILES:
            self.width = tile_width(largest, width)
            most = min(threads // (self.width // 4), parts_of(self._widest_input() + 1, 4))
            self.height = min(height, 4 * most)
            if sum(map(self._tiles, layers)) <= blocks:
                break

    def _tiles(self, layer: Layer) -> int:
        return parts_of(layer.n_in + 1, self.height) * parts_of(layer.n_out, self.width)

    def _widest_input(self) -> int:
        return max(layer.n_in for layer in self.net.layers)

    def _layers(self) -> str:
        """Return the table of the layers for phase 3."""
        lines, before = [], 0
        for k, layer in enumerate(self.net.layers):
            below, transposed = (self.a[k - 1], self.transposed[k - 1]) if k else (0, 0)
            row = layer.n_in, layer.n_out, layer.W, layer.b, below, self.delta[k], transposed
            lines.append(f"{{{', '.join(map(str, (*row, before)))}}}")
            before += self._tiles(layer)
        return ", ".join(lines)


def _call(name: str, of: Sequence[Any]) -> str:
    return f"KERNEL_{name}<{', '.join(map(str, of))}>"


def tile_width(n_out: int, most: int = 36) -> int:
    """Return how many units a tile has: a multiple of 4, with tiles as equal as possible."""
    return 4 * parts_of(parts_of(n_out, parts_of(n_out, most)), 4)


def parts_of(n: int, size: int) -> int:
    """Return ceil(n / size)."""
    return -(-n // size)
