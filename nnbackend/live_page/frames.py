"""Messages to the page: JSON texts, and frames of JSON with arrays of float32 behind it.

    frame = length of the JSON (4 bytes, little-endian), JSON padded to 4 bytes, arrays

The JSON lists each array's name and shape, in the order of the arrays.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(value: Any) -> str:
    """Return one line of JSON; infinities and NaN become null."""
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    return value


def encode(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a frame."""
    listed = [[name, list(array.shape)] for name, array in arrays.items()]
    text = to_json({**facts, "arrays": listed}).encode()
    text += b" " * (-len(text) % 4)
    parts = [struct.pack("<I", len(text)), text]
    parts += [np.ascontiguousarray(array, "<f4").tobytes() for array in arrays.values()]
    return b"".join(parts)


def decode(frame: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the JSON and the arrays of a frame.

    >>> decode(encode({"step": 3}, {"w": np.ones((1, 2), np.float32)}))[1]["w"].tolist()
    [[1.0, 1.0]]
    """
    (length,) = struct.unpack_from("<I", frame)
    facts = json.loads(frame[4 : 4 + length])
    arrays, offset = {}, 4 + length
    for name, shape in facts["arrays"]:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(frame, "<f4", count, offset).reshape(shape)
        offset += 4 * count
    return facts, arrays
