"""Messages to the page: JSON texts, and frames of JSON with arrays of float32 behind it.

    frame = length of the JSON (4 bytes, little-endian), JSON padded to 4 bytes, arrays

The JSON lists each array's name and shape, in the order of the arrays. In a packed frame an array
is of bytes, and the list has what a byte stands for too: low + step * byte.
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


def encode(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], made: str = "{}") -> bytes:
    """Return a frame. made: JSON of further facts, an object, which many frames share."""
    listed = [[name, list(array.shape)] for name, array in arrays.items()]
    line = to_json({**facts, "arrays": listed})
    text = (line if made == "{}" else f"{line[:-1]},{made[1:]}").encode()
    text += b" " * (-len(text) % 4)
    parts = [struct.pack("<I", len(text)), text]
    parts += [np.ascontiguousarray(array, "<f4").tobytes() for array in arrays.values()]
    return b"".join(parts)


def encode_packed(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a frame of a quarter of the size, whose numbers have 256 levels."""
    listed, parts = [], []
    for name, array in arrays.items():
        finite = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
        low = float(finite.min()) if finite.size else 0.0
        step = (float(finite.max()) - low) / 255 if finite.size else 0.0
        codes = np.rint((finite - low) / step if step else np.zeros_like(finite))
        listed.append([name, list(array.shape), low, step])
        parts.append(codes.astype(np.uint8).tobytes())
    text = to_json({**facts, "arrays": listed}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *parts])


def decode(frame: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the JSON and the arrays of a frame.

    >>> decode(encode({"step": 3}, {"w": np.ones((1, 2), np.float32)}))[1]["w"].tolist()
    [[1.0, 1.0]]
    """
    (length,) = struct.unpack_from("<I", frame)
    facts = json.loads(frame[4 : 4 + length])
    arrays, offset = {}, 4 + length
    for name, shape, *levels in facts["arrays"]:
        count = math.prod(shape)
        dtype = "u1" if levels else "<f4"
        array = np.frombuffer(frame, dtype, count, offset).reshape(shape)
        offset += array.nbytes
        arrays[name] = levels[0] + levels[1] * array if levels else array
    return facts, arrays
