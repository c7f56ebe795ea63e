"""Counter-based random bits, the same on every backend.

A dropout mask is a pure function of (seed, layer, step, row). There is no generator state to save
or synchronize, and any split of a batch into parts has the same mask. The generator is
Philox4x64-10 with NumPy's conventions, so that NumPy's C code is one implementation of it. A unit
is kept when its 16 random bits are below round((1 - rate) * 65536).

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import numpy as np

from nnbackend.backend.formulas import Array, Namespace

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
KEY_BUMPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # the golden ratio and sqrt(3) - 1
ROUNDS = 10
UNITS_PER_BLOCK = 16  # one block is 4 words of 64 bits: 16 units at 16 bits each
LOW_32 = 0xFFFFFFFF

# Streams of the host's generators, the second word of the key. Dropout uses the layer's index,
# which counts from 0, so the other streams start far above any layer.
INITIAL_WEIGHTS = 1 << 32
BATCH_ORDER = 1 << 33


def host_generator(seed: int, stream: int, index: int = 0, part: int = 0) -> np.random.Generator:
    """Return a host generator for a stream, such as INITIAL_WEIGHTS or BATCH_ORDER."""
    return np.random.Generator(_philox((seed, stream), (0, part, index, 0)))


def _philox(key: tuple[int, ...], counter: tuple[int, ...]) -> np.random.Philox:
    # As uint64 arrays: NumPy would turn a list with a number above 2^63 into floats.
    return np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))


def keep_threshold(rate: float) -> int:
    """Return the threshold: a unit is kept if its 16 bits are below it."""
    return round((1.0 - rate) * 65536)


def blocks_per_row(n_units: int) -> int:
    """Return the blocks per row; rows never share a block, so any split of rows agrees."""
    return -(-n_units // UNITS_PER_BLOCK)


def host_mask(
    seed: int, layer: int, step: int, first_row: int, shape: tuple[int, int], rate: float
) -> np.ndarray:
    """Draw a dropout mask on the host: (rows, units) of bool, True where a unit is kept.

    Row r of it belongs to row first_row + r of the whole batch.
    """
    return host_bits(seed, layer, step, first_row, shape) < keep_threshold(rate)


def host_bits(
    seed: int, layer: int, step: int, first_row: int, shape: tuple[int, int]
) -> np.ndarray:
    """Draw the 16 bits of each unit on the host: (rows, units) of uint16."""
    rows, units = shape
    blocks = blocks_per_row(units)
    source = _philox((seed, layer), (first_row * blocks, 0, step, 0))
    words = source.random_raw(rows * blocks * 4)
    bits = words.astype("<u8", copy=False).view("<u2").reshape(rows, blocks * UNITS_PER_BLOCK)
    return bits[:, :units]


def _product(a: Array, m: int, xp: Namespace) -> tuple[Array, Array]:
    """Multiply uint64 words by a constant; return the high and the low word of the 128 bits."""
    m_low, m_high = m & LOW_32, m >> 32
    a_low, a_high = a & LOW_32, a >> 32
    low = a_low * m_low
    middle = a_high * m_low + (low >> 32)
    cross = a_low * m_high + (middle & LOW_32)
    return a_high * m_high + (middle >> 32) + (cross >> 32), a * m


def blocks(counter: list[Array], key: tuple[int, int], xp: Namespace) -> list[Array]:
    """Return the random words of counters: four uint64 arrays, of the shape of the counters.

    This is the reference in array arithmetic, for any library with wrapping uint64.
    """
    c0, c1, c2, c3 = counter
    for r in range(ROUNDS):
        k0, k1 = ((k + r * bump) % (1 << 64) for k, bump in zip(key, KEY_BUMPS, strict=True))
        high0, low0 = _product(c0, MULTIPLIERS[0], xp)
        high1, low1 = _product(c2, MULTIPLIERS[1], xp)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return [c0, c1, c2, c3]


def mask(
    key: tuple[int, int], step: Array, rows: Array, units: int, rate: float, xp: Namespace
) -> Array:
    """Draw a dropout mask on the device of `rows`: (rows, units) of bool, equal to `host_mask`.

    step: a uint64 scalar array.  rows: (B,) uint64, row numbers in the whole batch.
    Nothing is copied to the host.
    """
    n_blocks = blocks_per_row(units)
    within = xp.cumulative_sum(xp.ones_like(rows[:1] + xp.zeros((n_blocks,), dtype=rows.dtype)))
    # NumPy increments the counter before it draws, so block j of a row has counter j + 1: `within`.
    c0 = xp.reshape(rows, (-1, 1)) * n_blocks + xp.reshape(within, (1, -1))
    zero = xp.zeros_like(c0)
    words = xp.stack(blocks([c0, zero, zero + step, zero], key, xp), axis=2)
    parts = xp.stack([(words >> shift) & 0xFFFF for shift in (0, 16, 32, 48)], axis=3)
    bits = xp.reshape(parts, (rows.shape[0], n_blocks * UNITS_PER_BLOCK))
    return bits[:, :units] < keep_threshold(rate)
