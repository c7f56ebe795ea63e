"""Choose the number of blocks and threads of a launch."""

from __future__ import annotations

from functools import lru_cache

# Per block, as in the source of the kernels.
THREADS, ROW_THREADS, DROPOUT_THREADS, OUTPUT_WARPS = 256, 128, 64, 4
FEW_ROWS = 1024  # of an output layer: up to this, several warps share a row
MAX_BLOCKS = 1056  # 8 for each of 132 multiprocessors; beyond that, threads loop
FEW_BLOCKS = 128  # fewer leave multiprocessors idle
# Of a weight gradient: the side of a tile, the most rows of a stage, the numbers that a block sums
# at the end, and the blocks that fit on a multiprocessor.
TALL_SIDE, TALL_STAGE, TOTAL_WIDTH, TALL_RESIDENT = 64, 16, 16, 2


def over_elements(n: int) -> tuple[int]:
    """Return a grid for n elements: one per thread until the GPU is full, then several."""
    return (min(-(-n // THREADS), MAX_BLOCKS),)


def over_gathered(n: int) -> int:
    """Return how many blocks gather n elements, four per thread: few, as all update a counter."""
    return max(1, min(-(-n // (4 * THREADS)), MAX_BLOCKS // 4))


def over_rows(rows: int, columns: int) -> tuple[tuple[int], int]:
    """Return a grid for rows, and how many consecutive lanes of a warp share a row."""
    lanes = min(32, power_of_two(columns))
    return (-(-rows * lanes // ROW_THREADS),), lanes


def over_outputs(rows: int) -> tuple[int, int]:
    """Return (warps per row, blocks) for an output layer in one launch."""
    warps = OUTPUT_WARPS if rows <= FEW_ROWS else 1
    return warps, min(-(-rows * warps // OUTPUT_WARPS), MAX_BLOCKS)


@lru_cache(maxsize=1024)
def over_columns(rows: int, columns: int) -> tuple[int, int, int, int]:
    """Return (tile width, tiles, blocks per tile, rows per block) for sums of columns.

    Narrow tiles keep more of the GPU busy; with fewer than 8 columns, a row of a tile would be
    shorter than a memory transaction. A tile of many rows is split, and its blocks exchange sums.
    """
    width = min(32, power_of_two(columns))
    while width > 8 and -(-columns // width) < FEW_BLOCKS:
        width //= 2
    tiles, strips = -(-columns // width), THREADS // width
    chunks = 1
    if rows > 16 * strips:
        chunks = max(1, min(-(-MAX_BLOCKS // 2 // tiles), -(-rows // (8 * strips))))
    rows_of_block = max(1, -(-rows // chunks))
    return width, tiles, max(1, -(-rows // rows_of_block)), rows_of_block


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
