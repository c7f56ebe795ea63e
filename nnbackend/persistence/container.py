"""The container format: a safetensors file with a description and a checksum in its metadata.

The safetensors format has no checksum and few rules for its header, so this module validates the
header strictly: sizes are checked against the file's size before anything is allocated. Reader and
writer do not use the safetensors library, because it aborts the process, and a training run with
it, when memory runs out.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import reprlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from nnbackend.errors import ArgumentError, ModelFileError

FORMAT = 1
KEY = "nnbackend"  # the one entry of the safetensors metadata
HEADER_LIMIT = 10_000_000  # bytes
# Limit for values, keys and brackets in the header: 100 000 columns, or 0.1 s of parsing JSON.
PIECES_LIMIT = 250_000
DTYPES = {"F32": "float32", "F64": "float64"}
CODES = {name: code for code, name in DTYPES.items()}
AGAIN = "Copy or save the model again."

Arrays = Mapping[str, np.ndarray]


class Place(NamedTuple):
    """The byte range of a tensor, counted from the end of the header."""

    begin: int
    end: int


class TensorSpec(NamedTuple):
    """Dtype and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The validated header of a model file.

    n_body: number of bytes after the header, which hold the tensors.
    text, digest: the text that the checksum covers in addition to the tensors, and its value.
    """

    n_body: int
    description: dict[str, Any]
    tensors: dict[str, TensorSpec]
    places: dict[str, Place]
    text: str
    digest: str


def encode(description: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return the bytes of a model file; the same network gives the same bytes.

    Raises: ArgumentError for a description that is not plain JSON data.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        text = json.dumps({"format": FORMAT, **description}, allow_nan=False).removesuffix("}")
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(
            "A network's columns must be plain data for JSON: text, finite numbers, lists, dicts. "
            f"Received: {error}."
        ) from error
    header: dict[str, Any] = {"__metadata__": {KEY: text + _checksum_entry(checksum(text, arrays))}}
    # Wide dtypes first, so that every tensor is aligned to its item size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    begin = 0
    for name in names:
        array = arrays[name]
        end = begin + array.nbytes
        header[name] = {
            "dtype": CODES.get(array.dtype.name, array.dtype.name),  # the reader accepts two
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }  # fmt: skip
        begin = end
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return b"".join([len(raw).to_bytes(8, "little"), raw, *(_bytes_of(arrays[n]) for n in names)])


def _bytes_of(array: np.ndarray) -> memoryview:
    """Return an array's bytes in little-endian order, without a copy if possible."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data


def checksum(text: str, arrays: Arrays) -> str:
    """Return the SHA-256 of the description up to its checksum, then of each tensor by name.

    A tensor counts as a line "<name> <dtype> <shape>" and its bytes, little-endian.
    """
    digest = hashlib.sha256(text.encode(errors="surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the description and the arrays of a model file, verified by the checksum.

    Raises: ModelFileError for an invalid or damaged file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe blocks, a device may act
            raise ModelFileError(
                "A model must be a regular file, as model.safetensors in a run folder. "
                "Received: a folder, a pipe or a device. "
                "Use the path of the file."
            )
        with path.open("rb") as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
            body = file.read(header.n_body)
    except ModelFileError:
        raise
    except FileNotFoundError as error:
        raise ModelFileError("The file must exist. Received: no such file.") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"The file must be readable. Received: {error}.") from error
    if len(body) != header.n_body:
        raise ModelFileError(f"The file must not change while it is read. {AGAIN}")
    arrays = {}
    for name, spec in header.tensors.items():
        place, stored = header.places[name], np.dtype(spec.dtype).newbyteorder("<")
        array = np.frombuffer(body, stored, math.prod(spec.shape), place.begin)
        arrays[name] = array.reshape(spec.shape).astype(spec.dtype)  # a copy
    if checksum(header.text, arrays) != header.digest:
        raise ModelFileError(
            "The content must match the stored checksum. Received: another checksum; the file was "
            f"changed or damaged. {AGAIN}"
        )
    return header.description, arrays


def read_header(file: BinaryIO, size: int) -> Header:
    """Read and validate the header of a model file of `size` bytes.

    Raises: ModelFileError for an invalid header or a truncated file.
    """
    prefix = file.read(8)
    n_header = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= n_header <= min(HEADER_LIMIT, size - 8):
        raise ModelFileError(
            "A model file begins with the length of its header, 8 bytes little-endian, at most "
            f"{HEADER_LIMIT} and within the file. Received: {prefix.hex(' ') or 'nothing'} in a "
            f"file of {size} bytes. It is truncated, or is no model file. {AGAIN}"
        )
    raw = file.read(n_header)
    pieces = sum(raw.count(mark) for mark in (b",", b":", b"[", b"{"))
    if pieces > PIECES_LIMIT:
        raise ModelFileError(
            f"The header must have at most {PIECES_LIMIT} entries. Received: about {pieces}. "
            "Use fewer columns or classes."
        )
    header = _parse(raw, "The header")
    if len(raw) < n_header or not isinstance(header, dict):
        raise ModelFileError(f"The header must be a JSON object. Received: {_shown(raw)}. {AGAIN}")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise ModelFileError(
            f"The metadata must have the entry {KEY!r}. Received: a file without it, written by "
            "another program. Use a file that Network.save wrote."
        )
    description, text, digest = _read_description(metadata[KEY])
    if len(metadata) != 1:
        raise ModelFileError(
            f"The metadata must have one entry. Received: {_shown(sorted(metadata))}. {AGAIN}"
        )
    n_body = size - 8 - n_header
    return Header(n_body, description, *_tensors(header, n_body), text, digest)


def _read_description(text: str) -> tuple[dict[str, Any], str, str]:
    """Return the description, the text that the checksum covers, and the checksum."""
    description = _parse(text, "The description")
    version = description.get("format") if isinstance(description, dict) else None
    if type(version) is not int or version < 1:
        raise ModelFileError(
            f"The format must be a version number. Received: format={_shown(version)}."
        )
    if version > FORMAT:
        raise ModelFileError(
            f"The format must be one this version of nnbackend supports, up to {FORMAT}. "
            f"Received: format={version}, written by a newer nnbackend. Upgrade nnbackend."
        )
    digest = description.pop("sha256", None)
    # The checksum is the last entry and covers exactly the text before it.
    entry = _checksum_entry(digest) if isinstance(digest, str) and len(digest) == 64 else "}"
    if len(entry) == 1 or not text.endswith(entry):
        raise ModelFileError(f"The description must end with its checksum (sha256). {AGAIN}")
    return description, text.removesuffix(entry), digest


def _checksum_entry(digest: str) -> str:
    return f', "sha256": "{digest}"}}'


def _tensors(header: dict[str, Any], n_body: int) -> tuple[dict[str, TensorSpec], dict[str, Place]]:
    """Return the tensors and their byte ranges, which must fill the body without gap or overlap."""
    specs, places = {}, {}
    for name, entry in header.items():
        try:
            spec, span = _tensor(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                "A tensor must have dtype (F32 or F64), shape (one or two sizes) and data_offsets "
                f"that agree. Received: {_shown(name)}: {_shown(entry)}. {AGAIN}"
            ) from error
        specs[name], places[name] = spec, span
    end = 0
    for span in sorted(places.values()):
        if span.begin != end:
            break
        end = span.end
    else:
        if end == n_body:
            return specs, places
    claimed = max((place.end for place in places.values()), default=0)
    raise ModelFileError(
        "The tensors must fill the file from the header to its end, without gap or overlap. "
        f"Received: tensors up to byte {claimed}, contiguous up to byte {end}, in a file with "
        f"{n_body} bytes after the header. {AGAIN}"
    )


def _tensor(entry: Any) -> tuple[TensorSpec, Place]:
    """Return the dtype, shape and byte range of one entry; raise ValueError if it is invalid."""
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    name = DTYPES[dtype]
    # Types first: a product with text or a list would repeat it to any length.
    if any(type(n) is not int or n < 0 for n in [*shape, *offsets]) or len(entry) != 3:
        raise ValueError
    begin, end = offsets
    n_bytes = math.prod(shape) * np.dtype(name).itemsize
    if not 1 <= len(shape) <= 2 or n_bytes == 0 or end - begin != n_bytes:
        raise ValueError
    return TensorSpec(name, tuple(shape)), Place(begin, end)


def _parse(text: str | bytes, what: str) -> Any:
    """Parse strict JSON: no duplicate keys, no NaN or infinity, whole numbers of 64 bits."""
    try:
        return json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_distinct,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_whole,
        )
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{what} must be valid JSON in UTF-8. Received: {error}. {AGAIN}"
        ) from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the same key twice in one object")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {_shown(digits)}")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= 1 << 64:
        raise ValueError(f"the whole number {_shown(digits)}")
    return number


def _shown(value: Any) -> str:
    """Return untrusted text for a message: shortened, without unprintable characters."""
    return reprlib.repr(value)
