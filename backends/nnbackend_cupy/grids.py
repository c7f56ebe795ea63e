"""Choose the number of blocks of a launch, from the sizes of its kernel's record."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from nnbackend.backend.philox import blocks_per_row
from nnbackend_cupy.tracing import Untraceable

# The grid, and the sizes that it determines; None: nothing to compute.
Blocks: TypeAlias = tuple[tuple[int, ...], dict[str, int]] | None
# Threads per block, as in the source of the kernels.
THREADS, ROW_THREADS, DROPOUT_THREADS, OUTPUT_WARPS = 256, 128, 64, 4
FEW_ROWS = 1024  # of an output layer: up to this, several warps share a row
MAX_BLOCKS = 1056  # 8 for each of 132 multiprocessors; beyond that, threads loop
FEW_BLOCKS = 128  # fewer leave multiprocessors idle
# Of a weight gradient: the side of a tile, the most rows of a stage, the numbers that a block sums
# at the end, and the blocks that fit on a multiprocessor.
TALL_SIDE, TALL_STAGE, TOTAL_WIDTH, TALL_RESIDENT = 64, 16, 16, 2


def over_elements(n: int, **others: int) -> Blocks:
    """Return a grid for n elements: one per thread until the GPU is full, then several."""
    return ((min(-(-n // THREADS), MAX_BLOCKS),), {"most": MAX_BLOCKS}) if n else None


def one_block(**others: int) -> Blocks:
    """Return a grid of one block."""
    return (1,), {}


def resident(blocks: int, **others: int) -> Blocks:
    """Return a grid of blocks that run at once."""
    return (blocks,), {}


def over_gathered(**sizes: int) -> Blocks:
    """Return a grid for arrays of n0, n1, ... elements, four per thread.

    Few blocks, as all of them update a counter.
    """
    blocks = {
        f"blocks{name[1:]}": max(1, min(-(-n // (4 * THREADS)), MAX_BLOCKS // 4))
        for name, n in sizes.items()
        if name[0] == "n"
    }
    return (sum(blocks.values()),), blocks


def over_rows(rows: int, columns: int, **others: int) -> Blocks:
    """Return a grid for rows, and how many consecutive lanes of a warp share a row."""
    lanes = min(32, power_of_two(columns))
    return ((-(-rows * lanes // ROW_THREADS),), {"lanes": lanes}) if rows * columns else None


def over_sums(rows: int, columns: int, **others: int) -> Blocks:
    """Return a grid for rows whose results are added: blocks loop over them."""
    found = over_rows(rows, columns)
    return found and ((min(found[0][0], MAX_BLOCKS),), {**found[1], "most": MAX_BLOCKS})


def over_units(rows: int, columns: int, **others: int) -> Blocks:
    """Return a grid for a dropout mask, whose threads draw 16 units of a row each."""
    drawn = rows * blocks_per_row(columns)
    if drawn >= 2**31:
        raise Untraceable(f"dropout of {rows} rows exceeds the kernel's counter")
    return ((-(-drawn // DROPOUT_THREADS),), {}) if drawn else None


def warps_of_outputs(rows: int) -> int:
    """Return how many warps share a row of an output layer in one launch."""
    return OUTPUT_WARPS if rows <= FEW_ROWS else 1


def over_outputs(rows: int, **others: int) -> Blocks:
    """Return a grid for an output layer in one launch."""
    blocks = min(-(-rows * warps_of_outputs(rows) // OUTPUT_WARPS), MAX_BLOCKS)
    return (blocks,), {"most": MAX_BLOCKS}


def over_columns(rows: int, columns: int, **others: int) -> Blocks:
    """Return a grid of tiles and their parts for sums of columns.

    Narrow tiles keep more of the GPU busy; with fewer than 8 columns, a row of a tile would be
    shorter than a memory transaction. A tile of many rows is split, and its blocks exchange sums.
    """
    if columns == 0:
        return None
    width = min(32, power_of_two(columns))
    while width > 8 and -(-columns // width) < FEW_BLOCKS:
        width //= 2
    tiles, strips = -(-columns // width), THREADS // width
    chunks = 1
    if rows > 16 * strips:
        chunks = max(1, min(-(-MAX_BLOCKS // 2 // tiles), -(-rows // (8 * strips))))
    rows_of_block = max(1, -(-rows // chunks))
    chunks = max(1, -(-rows // rows_of_block))
    sizes = {"width": width, "tiles": tiles, "chunks": chunks, "rows_of_block": rows_of_block}
    return (tiles, chunks), sizes


def over_norms(columns: int, rows: int, **others: int) -> Blocks:
    """Return a grid for the norms of columns, of which a block has `width`."""
    width = min(8, power_of_two(columns))
    return ((-(-columns // width),), {"width": width}) if rows * columns else None


def over_tiles(rows: int, n_in: int, n_out: int, multiprocessors: int, **others: int) -> Blocks:
    """Return a grid for a weight gradient of many rows."""
    tiles = tall_tiles(n_in, n_out, is_thin=False)
    chunks, rows_of_block = over_tall(rows, tiles, multiprocessors)
    return (tiles, chunks), {"rows_of_block": rows_of_block}


def over_strips(rows: int, n_many: int, multiprocessors: int, **others: int) -> Blocks:
    """Return a grid for a weight gradient of many rows, one side of which is short."""
    tiles = tall_tiles(n_many, 1, is_thin=True)
    chunks, rows_of_block = over_tall(rows, tiles, multiprocessors)
    return (tiles, chunks), {"rows_of_block": rows_of_block}


def over_weight_sums(n_weights: int, **others: int) -> Blocks:
    """Return a grid for the sums of the parts of a weight gradient, and their number."""
    n = n_weights + others["O"]
    return (-(-n // TOTAL_WIDTH),), {"n": n}


def tall_tiles(n_in: int, n_out: int, is_thin: bool) -> int:
    """Return how many tiles a weight gradient has; a thin one is split along its longer side."""
    across, down = sorted(-(-n // TALL_SIDE) for n in (n_in, n_out))
    return down if is_thin else across * down


@lru_cache(maxsize=1024)
def over_tall(rows: int, tiles: int, multiprocessors: int) -> tuple[int, int]:
    """Return (blocks per tile, rows per block) for a weight gradient of many rows.

    All blocks are resident at once. With fewer than four stages, a block's final sums cost more
    than its rows.
    """
    most = max(1, TALL_RESIDENT * multiprocessors // tiles)
    stages = -(-rows // TALL_STAGE)
    stages_of_block = max(1, min(4, stages), -(-stages // most))
    rows_of_block = stages_of_block * TALL_STAGE
    return max(1, -(-rows // rows_of_block)), rows_of_block


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()
