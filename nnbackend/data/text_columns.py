"""Columns of free text, on request: words and parts of words, hashed to a fixed number of features.

No vocabulary is stored, and every new text has features, also with unknown words.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnbackend.data.columns import CodedColumn, Unusual, as_text
from nnbackend.data.tables import Column, Numbers

WORD = re.compile(r"\w+")
PART = 3  # characters of the parts of words, of which a space marks the ends
N_FEATURES = 256


@dataclass(frozen=True)
class TextColumn(CodedColumn):
    """A column of free text as the hashed counts of its words and their parts.

    A count n of a word or part becomes 1 + log(n), with a sign from its hash; a row has norm 1, or
    0 without a word. The hash is zlib's CRC-32, the same on all machines.
    Source: Weinberger et al. 2009, "Feature hashing for large scale multitask learning".
    """

    n_features: int = N_FEATURES
    kind: ClassVar[str] = "text"

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}: words {i}" for i in range(self.n_features))

    def encode(self, cells: Column, unusual: Unusual) -> Numbers:
        x = np.zeros((len(cells), self.n_features))
        known: dict[str, tuple[int, float]] = {}
        for row, cell in zip(x, as_text(cells), strict=True):
            for token, n in Counter(tokens_of(cell or "")).items():
                if token not in known:
                    code = zlib.crc32(token.encode())
                    known[token] = (code >> 1) % self.n_features, 1.0 - 2.0 * (code & 1)
                at, sign = known[token]
                row[at] += sign * (1.0 + np.log(n))
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        return x / np.where(norms > 0.0, norms, 1.0)


def tokens_of(text: str) -> list[str]:
    """Return the words of a text in lower case, and the parts of three characters of longer ones.

    >>> tokens_of("Too cold")
    ['too', 'cold', ' co', 'col', 'old', 'ld ']
    """
    tokens = []
    for word in WORD.findall(text.lower()):
        tokens.append(word)
        if len(word) > PART:
            marked = f" {word} "
            tokens += [marked[i : i + PART] for i in range(len(marked) - PART + 1)]
    return tokens
