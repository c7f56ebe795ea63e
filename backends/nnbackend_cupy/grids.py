"""How many blocks of how many threads a kernel is launched on."""

from __future__ import annotations

from functools import lru_cache

# Of a block, as the kernels' text has them.
THREADS, ROW_THREADS, DROPOUT_THREADS, OUTPUT_WARPS = 256, 128, 64, 4
FEW_ROWS = 1024  # of an output layer, so that more than one warp takes a row
MAX_BLOCKS = 1056  # 8 for each of the 132 multiprocessors of the largest GPUs; then threads loop
FEW_BLOCKS = 128  # fewer leave multiprocessors without work
# Of a weight gradient: the side of a tile, the rows that a stage holds at most, the numbers that a
# block adds up at the end. Two blocks fit a multiprocessor.
TALL_SIDE, TALL_STAGE, TOTAL_WIDTH, TALL_RESIDENT = 64, 16, 16, 2


def over_elements(n: int) -> tuple[int]:
    """Return a grid for n elements: one for each thread until the GPU is full, then more."""
    return (min(-(-n // THREADS), MAX_BLOCKS),)


def over_gathered(n: int) -> int:
    """Return how many blocks gather n elements, four to a thread: few, for they all report."""
    return max(1, min(-(-n // (4 * THREADS)), MAX_BLOCKS // 4))


def over_rows(rows: int, columns: int) -> tuple[tuple[int], int]:
    """Return a grid for rows, and how many neighbours in a warp share a row."""
    lanes = min(32, power_of_two(columns))
    return (-(-rows * lanes // ROW_THREADS),), lanes


def over_outputs(rows: int) -> tuple[int, int]:
    """Return (warps of a row, blocks) for an output layer in one launch."""
    warps = OUTPUT_WARPS if rows <= FEW_ROWS else 1
    return warps, min(-(-rows * warps // OUTPUT_WARPS), MAX_BLOCKS)


@lru_cache(maxsize=1024)
def over_columns(rows: int, columns: int) -> tuple[int, int, int, int]:
    """Return (width of a tile, tiles, blocks to a tile, rows of a block) for sums of columns.

    Narrow tiles keep more of the GPU busy; below 8 columns a row of a tile would be less than
    memory gives at once. A tile of many rows is cut, which costs its blocks an exchange.
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
    """Return how many tiles a weight gradient has; a thin one is cut along its longer side only."""
    across, down = sorted(-(-n // TALL_SIDE) for n in (n_in, n_out))
    return down if is_thin else across * down


@lru_cache(maxsize=1024)
def over_tall(rows: int, tiles: int, multiprocessors: int) -> tuple[int, int]:
    """Return (blocks to a tile, rows of a block) for a weight gradient of many rows.

    All blocks are resident at once. Below four stages, a block's sums cost more than its rows.
    """
    most = max(1, TALL_RESIDENT * multiprocessors // tiles)
    stages = -(-rows // TALL_STAGE)
    stages_of_block = max(1, min(4, stages), -(-stages // most))
    rows_of_block = stages_of_block * TALL_STAGE
    return max(1, -(-rows // rows_of_block)), rows_of_block


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()
