"""Counter-based random bits: published vectors, NumPy's generator, any split of a batch."""

from __future__ import annotations

from itertools import combinations, pairwise

import array_api_strict
import numpy as np
import pytest

from nnbackend.backend import philox

ONES = (1 << 64) - 1
# Random123 1.14, tests/kat_vectors, the three lines "philox4x64 10": counter, key, words.
# The third line's inputs are the first digits of pi.
KNOWN_ANSWERS = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (ONES, ONES, ONES, ONES),
        (ONES, ONES),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]


def words(counter: tuple[int, ...]) -> list[np.ndarray]:
    return [np.array([c], dtype=np.uint64) for c in counter]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_the_array_arithmetic_returns_the_published_words(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    got = philox.blocks(words(counter), key, np)
    assert tuple(int(word[0]) for word in got) == expected


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_numpy_returns_the_published_words(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    # NumPy increments the counter, a number of 256 bits, before it draws.
    whole = sum(word << (64 * place) for place, word in enumerate(counter))
    before = (whole - 1) % (1 << 256)
    source = np.random.Philox(
        key=np.array(key, np.uint64),
        counter=np.array([(before >> (64 * place)) & ONES for place in range(4)], np.uint64),
    )
    assert tuple(int(word) for word in source.random_raw(4)) == expected


@pytest.mark.parametrize("seed", [0, 7, (1 << 32) + 1, (1 << 63) - 1])
@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("step", [0, 1, 100_000, 1 << 40])
def test_blocks_and_numpy_agree_where_dropout_draws(seed: int, layer: int, step: int) -> None:
    n = 50
    counters = [np.arange(1, n + 1, dtype=np.uint64), *(np.full(n, c, np.uint64) for c in (0,))]
    counters += [np.full(n, step, np.uint64), np.zeros(n, np.uint64)]
    got = np.stack(philox.blocks(counters, (seed, layer), np), axis=1).ravel()
    source = np.random.Philox(
        key=np.array([seed, layer], np.uint64), counter=np.array([0, 0, step, 0], np.uint64)
    )
    assert np.array_equal(got, source.random_raw(4 * n))


@pytest.mark.parametrize("units", [1, 2, 15, 16, 17, 31, 33, 100, 257])
@pytest.mark.parametrize("first_row", [0, 5])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_the_mask_of_a_device_is_the_mask_of_the_host(
    units: int, first_row: int, rate: float
) -> None:
    n, step = 13, 42
    rows = np.arange(first_row, first_row + n, dtype=np.uint64)
    mask = philox.mask((9, 2), np.array([step], np.uint64), rows, units, rate, np)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, philox.host_mask(9, 2, step, first_row, (n, units), rate))


def test_any_library_with_wrapping_uint64_draws_the_same_mask() -> None:
    xp = array_api_strict
    rows = xp.asarray(np.arange(6, dtype=np.uint64))
    mask = philox.mask((1, 0), xp.asarray(np.array([3], np.uint64)), rows, 19, 0.4, xp)
    assert np.array_equal(np.asarray(mask), philox.host_mask(1, 0, 3, 0, (6, 19), 0.4))


@pytest.mark.parametrize("units", [1, 16, 21])
@pytest.mark.parametrize("cuts", [(5,), (1, 2, 3), (16,), (4, 30)])
def test_any_split_of_a_batch_draws_the_same_mask(units: int, cuts: tuple[int, ...]) -> None:
    n = 31
    whole = philox.host_mask(3, 1, 10, 0, (n, units), 0.5)
    edges = [0, *cuts, n]
    parts = [
        philox.host_mask(3, 1, 10, begin, (end - begin, units), 0.5)
        for begin, end in pairwise(edges)
    ]
    assert np.array_equal(np.concatenate(parts), whole)


def test_the_bits_of_a_unit_are_those_of_the_published_block() -> None:
    # Seed 0, layer 0, step 0, row 0: block 0 has counter 1. Its units are the 16-bit parts
    # of the four words, lowest first; unit u is kept when its part is below keep * 65536.
    block = philox.blocks(words((1, 0, 0, 0)), (0, 0), np)
    number = sum(int(word[0]) << (64 * place) for place, word in enumerate(block))
    parts = [(number >> (16 * unit)) & 0xFFFF for unit in range(16)]
    for unit, part in enumerate(parts):
        at, above = 1.0 - part / 65536, 1.0 - (part + 1) / 65536
        assert not philox.host_mask(0, 0, 0, 0, (1, 16), at)[0, unit]
        assert philox.host_mask(0, 0, 0, 0, (1, 16), above)[0, unit]


def test_every_coordinate_of_the_address_changes_the_mask() -> None:
    shape = (20, 33)
    masks = [
        philox.host_mask(0, 0, 0, 0, shape, 0.5),
        philox.host_mask(1, 0, 0, 0, shape, 0.5),
        philox.host_mask(0, 1, 0, 0, shape, 0.5),
        philox.host_mask(0, 0, 1, 0, shape, 0.5),
        philox.host_mask(0, 0, 0, 20, shape, 0.5),
    ]
    # 660 fair coins agree in 330 +- 12.8 positions; the bounds are five standard deviations.
    for one, other in combinations(masks, 2):
        assert 266 < (one == other).sum() < 394
    rows = [tuple(row) for mask in masks for row in mask]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_units_are_kept_at_the_given_rate(rate: float) -> None:
    n = 200_000
    kept = philox.host_mask(5, 0, 1, 0, (n // 100, 100), rate).mean()
    bound = 5 * np.sqrt(rate * (1 - rate) / n) + 2.0**-17  # the rate is rounded to 1 / 65536
    assert abs(kept - (1 - rate)) <= bound


def test_neighbouring_units_rows_and_steps_are_independent() -> None:
    steps = [philox.host_mask(1, 1, step, 0, (400, 100), 0.5) * 2.0 - 1.0 for step in (1, 2)]
    bound = 5 / np.sqrt(40_000)
    assert abs((steps[0] * steps[1]).mean()) < bound
    assert abs((steps[0][:, 1:] * steps[0][:, :-1]).mean()) < bound
    assert abs((steps[0][1:] * steps[0][:-1]).mean()) < bound


def test_a_host_generator_is_a_function_of_its_address() -> None:
    def draw(*address: int) -> tuple[float, ...]:
        return tuple(philox.host_generator(*address).random(4))

    assert draw(3, philox.BATCH_ORDER, 2) == draw(3, philox.BATCH_ORDER, 2)
    addresses = [(3, philox.BATCH_ORDER, 2), (4, philox.BATCH_ORDER, 2), (3, 1 << 34, 2),
                 (3, philox.INITIAL_WEIGHTS, 2), (3, philox.BATCH_ORDER, 3)]  # fmt: skip
    assert len({draw(*address) for address in addresses}) == len(addresses)
