"""Readers of `.npz` archives and `.npy` pairs, the latter as memory maps.

Nothing is unpickled, and the size in a header is compared with the size of the file before any
memory is allocated for it.
"""

from __future__ import annotations

import math
import struct
import sys
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.dataset import Dataset
from nnbackend.data.targets import Task, code_target
from nnbackend.errors import DataError, Mention

ZIP_LENGTHS = 26  # where a member's header has the lengths of its name and its extra field
CHUNK_ELEMENTS = 1 << 20
KERAS = {"x_train", "y_train", "x_test", "y_test"}
UNPICKLED = (
    "Object arrays are stored as pickles, and unpickling runs code from the file, so they are "
    "never read. Store numbers, or text as a fixed-width array: np.array(values, dtype=str)."
)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def order(self) -> Any:
        return "F" if self.fortran_order else "C"


def read_npz(path: Path, *, target: str | None, task: Task | None, missing: str) -> Dataset:
    """Read x and y from an archive; `target` names another array than y.

    An archive with only x gives a data set without target. An archive with x_train, y_train,
    x_test and y_test, such as Keras's mnist.npz, gives a data set with a test part.

    Raises: DataError when the archive is damaged or the arrays are not usable.
    """
    key = "y" if target is None else target
    try:
        with zipfile.ZipFile(path) as archive:
            stored = {
                name.removesuffix(".npy"): name
                for name in archive.namelist()
                if name.endswith(".npy")
            }
            if stored.keys() >= KERAS and "x" not in stored and target is None:
                arrays = {k: _read_member(archive, stored[k], path.name) for k in KERAS}
                return _keras_dataset(arrays, path, task, missing)
            if "x" not in stored or (key not in stored and (target or len(stored) > 1)):
                found = ", ".join(sorted(stored)) or "none"
                raise DataError(
                    f"{path.name}: the archive must hold the arrays 'x' and {key!r}. Received: "
                    f"{found}. Write it with np.savez(path, x=..., y=...)."
                )
            x = _read_member(archive, stored["x"], path.name)
            y = _read_member(archive, stored[key], path.name) if key in stored else None
    except DataError:
        raise
    except Exception as error:
        # zipfile raises many types for damaged archives, including struct.error and zlib.error.
        raise DataError(
            f"{path.name}: the file must be a complete .npz archive. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    return array_dataset(x, y, path.name, path.stem, task=task, missing=missing)


def _keras_dataset(
    arrays: dict[str, NDArray[Any]], path: Path, task: Task | None, missing: str
) -> Dataset:
    """Build a data set from x_train, y_train, x_test and y_test, as Keras distributes MNIST."""
    data, test = (
        array_dataset(
            arrays[f"x_{part}"], arrays[f"y_{part}"], f"{path.name}, {part}", path.stem,
            task=task, missing=missing,
        )
        for part in ("train", "test")
    )  # fmt: skip
    return data.with_test(test)


def read_npy(path: Path, *, task: Task | None, missing: str) -> Dataset:
    """Read NAME_x.npy with NAME_y.npy beside it (or x.npy with y.npy), memory-mapped.

    Without a file of targets the data set has no target.

    Raises: DataError when a file is damaged or the arrays are not usable.
    """
    stem = path.stem
    if stem == "y" or stem.endswith("_y"):
        x_path = path.with_name(f"{stem[:-1]}x{path.suffix}")
        raise DataError(
            f"{path.name}: the path must be the file with the features. Received: the file with "
            f"the targets. Give {x_path.name}; the targets are found beside it."
        )
    x = map_array(path)
    y = None
    name = stem
    if stem == "x" or stem.endswith("_x"):
        name = stem[:-2] or stem
        y_path = path.with_name(f"{stem[:-1]}y{path.suffix}")
        # Targets are small and are copied as codes anyway.
        y = np.array(map_array(y_path)) if y_path.exists() else None
    return array_dataset(x, y, path.name, name, task=task, missing=missing)


def array_dataset(
    x: NDArray[Any],
    y: NDArray[Any] | None,
    where: str,
    name: str,
    *,
    task: Task | None,
    missing: str,
) -> Dataset:
    """Build a data set from two arrays; x of more than two dimensions is flattened row by row.

    Raises: DataError for invalid shapes, dtypes or values.
    """
    x = _features(x, where)
    y = None if y is None else _targets(y, x, where)
    lacking = _scan(x, "x", where)
    if y is not None:
        lacking |= _scan(y.reshape(len(y), -1), "y", where)
    n_lacking = int(lacking.sum())
    if n_lacking:
        if missing == "error" or n_lacking == len(x):
            raise DataError(
                f"{where}: every value must be a number. Received: NaN in {n_lacking} of {len(x)} "
                f"rows, first in row {int(np.argmax(lacking))} (from 0). Replace the values, or "
                "drop those rows with ", Mention("missing", "drop"), ".",
            )  # fmt: skip
        kept = np.flatnonzero(~lacking)
        x, y = x[kept], None if y is None else y[kept]
    dropped: dict[str, Any] = {"n_dropped": n_lacking, "kept": ~lacking} if n_lacking else {}
    if y is None:
        return Dataset(x, None, name, None, **dropped)
    coded = code_target(y, task, where)
    return Dataset(x, coded.y, name, coded.task, coded.classes, **dropped)


def _targets(y: NDArray[Any], x: NDArray[Any], where: str) -> NDArray[Any]:
    """Return validated targets, one for each row of x."""
    y = _native(y)
    if y.dtype.kind not in "biufUS" or y.ndim not in (1, 2) or 0 in y.shape:
        raise DataError(
            f"{where}: y must be numbers or labels, (n,) or (n, k). "
            f"Received: y.shape={y.shape}, y.dtype={y.dtype}."
        )
    _check_text(y, where)
    if len(y) != len(x):
        raise DataError(
            f"{where}: x and y must have the same number of rows. "
            f"Received: x.shape={x.shape}, y.shape={y.shape}."
        )
    return y


def _features(x: NDArray[Any], where: str) -> NDArray[Any]:
    x = _native(x)
    if x.dtype.kind not in "biuf":
        raise DataError(f"{where}: x must be real numbers. Received: x.dtype={x.dtype}.")
    if x.ndim < 2:
        raise DataError(
            f"{where}: x must have rows and columns. Received: x.shape={x.shape}. "
            "For one feature reshape to (-1, 1)."
        )
    if 0 in x.shape:
        raise DataError(f"{where}: x must not be empty. Received: x.shape={x.shape}.")
    if x.dtype.kind == "b":
        # Not uint8, which counts as pixels from 0 to 255.
        x = x.astype(np.float32)
    return x if x.ndim == 2 else x.reshape(len(x), -1)


def _check_text(values: NDArray[Any], where: str) -> None:
    """Raise DataError for invalid code points, on which Python fails."""
    if values.dtype.kind != "U":
        return
    codes = np.ascontiguousarray(values).view(np.uint32)
    if (codes > sys.maxunicode).any() or ((codes >= 0xD800) & (codes <= 0xDFFF)).any():
        raise DataError(
            f"{where}: text must be valid Unicode. Received: invalid code points. "
            "The file is damaged."
        )


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Return the array in native byte order; the same array if it is native already."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _scan(values: NDArray[Any], which: str, where: str) -> NDArray[np.bool_]:
    """Return the mask (n,) of rows with NaN; raise DataError for the first infinity."""
    lacking = np.zeros(len(values), dtype=bool)
    if values.dtype.kind != "f":
        return lacking
    n_rows = max(1, CHUNK_ELEMENTS // values.shape[1])
    for start in range(0, len(values), n_rows):
        chunk = values[start : start + n_rows]
        if np.isfinite(chunk).all():
            continue
        infinite = np.argwhere(np.isinf(chunk))
        if len(infinite):
            row, column = infinite[0]
            raise DataError(
                f"{where}: {which} must be finite. Received: infinity in row {start + row}, "
                f"column {column} (both from 0). Correct the value or make it NaN and use ",
                Mention("missing", "drop"), ".",
            )  # fmt: skip
        lacking[start : start + n_rows] = np.isnan(chunk).any(axis=1)
    return lacking


def _read_member(archive: zipfile.ZipFile, member: str, where: str) -> NDArray[Any]:
    n_stored = archive.getinfo(member).file_size
    with archive.open(member) as stream:
        header = _read_header(stream, f"{where}, {member}")
        _check_size(header, n_stored - stream.tell(), f"{where}, {member}")
        content = stream.read()
    _check_size(header, len(content), f"{where}, {member}")
    return np.frombuffer(content, dtype=header.dtype).reshape(header.shape, order=header.order)


def map_member(path: Path, name: str) -> NDArray[Any] | None:
    """Return an array of a .npz archive as a memory map; None if it has no such array.

    Raises: DataError for a compressed or damaged archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                return None
            member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            raise DataError(
                f"{path.name}: an archive that is read in parts must not be compressed. Received: "
                f"a compressed array {name!r}. Write it with np.savez, not np.savez_compressed."
            )
        with path.open("rb") as stream:
            stream.seek(member.header_offset + ZIP_LENGTHS)
            lengths = struct.unpack("<HH", stream.read(4))  # of the name and the extra field
            stream.seek(sum(lengths), 1)
            begin = stream.tell()
            return _mapped(path, stream, begin + member.file_size)
    except DataError:
        raise
    except Exception as error:  # as in read_npz
        raise DataError(
            f"{path.name}: the file must be a complete .npz archive. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def map_array(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file as a memory map. Raises: DataError for other files."""
    try:
        with path.open("rb") as stream:
            return _mapped(path, stream, path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path.name}: the file must be readable. Received: {error}.") from error


def _mapped(path: Path, stream: IO[bytes], end: int) -> NDArray[Any]:
    """Return the array whose header the stream is at, and whose last byte is before `end`."""
    header = _read_header(stream, path.name)
    offset = stream.tell()
    _check_size(header, end - offset, path.name)
    if header.n_bytes == 0:  # an empty map is not allowed
        return np.empty(header.shape, dtype=header.dtype)
    return np.memmap(path, header.dtype, "r", offset=offset, shape=header.shape, order=header.order)


def _read_header(stream: IO[bytes], where: str) -> _Header:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            header = _Header(*np.lib.format.read_array_header_1_0(stream))
        elif version == (2, 0):
            header = _Header(*np.lib.format.read_array_header_2_0(stream))
        else:
            raise ValueError(f"format version {version}, which only structured arrays use")
    except Exception as error:
        # The header is a Python literal: a damaged one raises any error of the parser.
        raise DataError(
            f"{where}: the content must be a .npy array. Received: {type(error).__name__}: {error}"
        ) from error
    if header.dtype.hasobject:
        raise DataError(f"{where}: arrays must not hold objects. Received: object. {UNPICKLED}")
    if header.dtype.itemsize == 0 or header.dtype.names or any(n < 0 for n in header.shape):
        raise DataError(
            f"{where}: the array must be plain numbers or text. "
            f"Received: shape={header.shape}, dtype={header.dtype}."
        )
    return header


def _check_size(header: _Header, n_bytes: int, where: str) -> None:
    if n_bytes != header.n_bytes:
        raise DataError(
            f"{where}: an array of shape {header.shape} and dtype {header.dtype} must take "
            f"{header.n_bytes} bytes. Received: {n_bytes}. The file is cut off or damaged."
        )
