"""Dropout: masks from Philox's random bits, addressed by step, row and unit."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backend import philox
from nnbackend_numba.intrinsics import cut, high_word, local_memory, view
from nnbackend_numba.panels import flat
from nnbackend_numba.records import ROWS, operation
from nnbackend_numba.steps import AbstractStep, kernel

M0, M1 = (np.uint64(m) for m in philox.MULTIPLIERS)
BUMP0, BUMP1 = (np.uint64(b) for b in philox.KEY_BUMPS)


@operation(
    ROWS, x="in Q O L", a="out Q O L", mask="out Q O L bool",
    clock="in 2 int64", seed="int uint64", layer="int uint64", first_row="int uint64",
    threshold="int uint64", scale="float",
)  # fmt: skip
def dropout(x, a, mask, clock, seed, layer, first_row, threshold, scale, row):
    """Compute a = x * scale where the unit's 16 bits are below the threshold, else 0 (`philox`)."""
    n, lanes = x.shape[1], x.shape[2]
    blocks = (n + 15) // 16
    words = view(local_memory(), (4 * lanes,), np.uint64)
    for q in range(x.shape[0]):
        for block in range(blocks):
            for s in range(lanes):
                place = first_row + np.uint64((row + q) * lanes + s)
                c0, c1 = place * np.uint64(blocks) + np.uint64(block + 1), np.uint64(0)
                c2, c3 = np.uint64(clock[0]), np.uint64(0)
                k0, k1 = seed, layer
                for _ in range(10):
                    high0, high1 = high_word(c0, M0), high_word(c2, M1)
                    c0, c1, c2, c3 = high1 ^ c1 ^ k0, c2 * M1, high0 ^ c3 ^ k1, c0 * M0
                    k0, k1 = k0 + BUMP0, k1 + BUMP1
                words[s], words[lanes + s] = c0, c1
                words[2 * lanes + s], words[3 * lanes + s] = c2, c3
            for j in range(block * 16, min(n, block * 16 + 16)):
                four, shift = cut(words, ((j & 15) >> 2) * lanes, lanes), np.uint64(16 * (j & 3))
                xj, aj = flat(x, q, j, j + 1), flat(a, q, j, j + 1)
                mj = flat(mask, q, j, j + 1)
                for s in range(lanes):
                    keep = ((four[s] >> shift) & np.uint64(0xFFFF)) < threshold
                    mj[s] = keep
                    aj[s] = xj[s] * scale if keep else x.dtype.type(0)


@kernel
def dropout_forward(step: AbstractStep, call: Any) -> None:
    """Draw the mask and apply it."""
    (seed, layer), threshold = call.key, philox.keep_threshold(call.rate)
    scale = 1.0 / (1.0 - call.rate)
    step.run(dropout, call, seed=seed, layer=layer, threshold=threshold, scale=scale)


@operation(ROWS, da="in Q E L", mask="in Q E L bool", scale="float", dx="out Q E L")
def dropout_gradient(da, mask, scale, dx):
    """dx = da * scale where the unit was kept, else 0."""
    n = da.shape[1]
    for q in range(da.shape[0]):
        dq, mq, xq = flat(da, q, 0, n), flat(mask, q, 0, n), flat(dx, q, 0, n)
        for i in range(dq.size):
            xq[i] = dq[i] * scale if mq[i] else da.dtype.type(0)


@kernel
def dropout_backward(step: AbstractStep, call: Any) -> None:
    """Apply the mask to the gradient."""
    step.run(dropout_gradient, call, scale=1.0 / (1.0 - call.rate))
