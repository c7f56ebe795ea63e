"""Reader of IDX files, the format of MNIST and Fashion-MNIST, compressed or not.

    bytes 0-1   zero
    byte 2      element type, byte 3 number of dimensions
    then        one big-endian 32-bit size for each dimension, and the elements, big-endian

The size in a header is compared with the size of the file before any memory is allocated.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.dataset import Dataset
from nnbackend.data.gzip_files import is_gzip
from nnbackend.errors import DataError

ELEMENT_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK_BYTES = 1 << 20
# The highest compression ratio of deflate is 1032 to 1; a header that claims more is refused.
BEST_RATIO = 1032
NAME = re.compile(
    r"(?P<part>.*?)(?P<what>images|labels)(?P<mark>[-.])idx(?P<ndim>\d)-(?P<type>[a-z]+)"
    r"(?P<gz>\.gz)?",
    re.IGNORECASE,
)


def is_idx_name(name: str) -> bool:
    """Return True for the name of an IDX file, such as train-images-idx3-ubyte.gz."""
    return NAME.fullmatch(name) is not None


def read_idx_folder(folder: Path) -> Dataset:
    """Read train-images and train-labels, and t10k-images and t10k-labels as the test part.

    Raises: DataError when a file is missing, damaged or does not match its companion.
    """
    # Files only: archives of MNIST also hold folders of the same names.
    files = sorted(path for path in folder.iterdir() if is_idx_name(path.name) and path.is_file())
    train = [path for path in files if path.name.lower().startswith("train-")]
    if not train:
        raise DataError(
            f"{folder.name}: an IDX folder must hold train-images-idx3-ubyte and "
            "train-labels-idx1-ubyte, or the same with .gz. Received: "
            f"{', '.join(path.name for path in files) or 'no IDX file'}. "
            "For other names, pass the path of the images file."
        )
    data = _read_pair(train[0], folder.name)
    t10k = [path for path in files if path.name.lower().startswith("t10k-")]
    if not t10k:
        return data
    return data.with_test(_read_pair(t10k[0], f"{folder.name} test"))


def read_idx_file(path: Path) -> Dataset:
    """Read a pair of images and labels, given by either file.

    Raises: DataError when a file is missing, damaged or does not match its companion.
    """
    return _read_pair(path, path.name.split(".")[0])


def read_idx(path: Path) -> NDArray[Any]:
    """Read one IDX file into an array of native byte order.

    Raises: DataError when the content does not match its header.
    """
    compressed = False
    try:
        compressed = is_gzip(path)
        n_file = path.stat().st_size
        with _open(path, compressed) as stream:
            dtype, shape, n_header = _read_header(stream, path.name)
            n_expected = math.prod(shape) * dtype.itemsize
            most = n_file * BEST_RATIO if compressed else n_file - n_header
            if n_expected > most:
                raise DataError(
                    f"{path.name}: the header claims shape {shape}, which takes {n_expected} "
                    f"bytes. Received: a file that can hold at most {most}. It is truncated or "
                    "damaged; download it again."
                )
            # Try to read one extra byte: it must not exist, and this makes gzip verify its
            # checksum.
            content = _read_at_most(stream, n_expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path.name}: the file must be readable{' gzip data' if compressed else ''}. "
            f"Received: {error}. It is damaged; download it again."
        ) from error
    if len(content) != n_expected:
        received = str(len(content)) if len(content) < n_expected else f"more than {n_expected}"
        raise DataError(
            f"{path.name}: the header claims shape {shape}, which takes {n_expected} bytes. "
            f"Received: {received}. The file is damaged; download it again."
        )
    values = np.frombuffer(content, dtype=dtype).reshape(shape)
    return values if dtype.isnative else values.astype(dtype.newbyteorder("="))


def _open(path: Path, compressed: bool) -> IO[bytes]:
    if compressed:
        return gzip.GzipFile(path)  # type: ignore[return-value]
    return path.open("rb")


def _read_pair(path: Path, name: str) -> Dataset:
    images_path, labels_path = _companion(path, "images"), _companion(path, "labels")
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim < 2 or 0 in images.shape:
        raise DataError(
            f"{images_path.name}: images must have two dimensions or more, none of them 0. "
            f"Received: shape={images.shape}."
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{labels_path.name}: labels must be one whole number for each image. "
            f"Received: shape={labels.shape}, dtype={labels.dtype}."
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path.name} and {labels_path.name} must have the same number of entries. "
            f"Received: {len(images)} images and {len(labels)} labels. One of them belongs to "
            "another part."
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise DataError(f"{images_path.name}: images must be finite. Received: infinity or NaN.")
    distinct, codes = np.unique(labels, return_inverse=True)
    classes = tuple(int(label) for label in distinct)
    x = images.reshape(len(images), -1)
    return Dataset(x, codes.astype(np.int64), name, "classification", classes)


def _companion(path: Path, what: str) -> Path:
    """Return the images or labels file that belongs to a file, compressed or not."""
    wanted = NAME.fullmatch(path.name)
    if wanted is None or wanted["what"].lower() == what:
        return path
    found = []
    for other in sorted(path.parent.iterdir()):
        match = NAME.fullmatch(other.name)
        is_part = match and match["part"] == wanted["part"] and match["what"].lower() == what
        if is_part and other.is_file():
            found.append(other)
    if not found:
        ndim = 1 if what == "labels" else 3
        raise DataError(
            f"{path.name}: the file with the {what} must be beside it. Received: no "
            f"{wanted['part']}{what}-idx{ndim}-ubyte, with or without .gz, in "
            f"{path.parent.name}. Download it from the source of this file."
        )
    # The shortest name is the uncompressed one, which is read faster.
    return min(found, key=lambda other: len(other.name))


def _read_header(stream: IO[bytes], where: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return element type, shape and the length of the header."""
    magic = stream.read(4)
    is_magic = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in ELEMENT_TYPES
    if not is_magic or magic[3] == 0:
        raise DataError(
            f"{where}: an IDX file must begin with 00 00, a type from 08 to 0e, and the number of "
            f"dimensions. Received: {magic.hex(' ') or 'an empty file'}."
        )
    n_dims = magic[3]
    sizes = stream.read(4 * n_dims)
    if len(sizes) != 4 * n_dims:
        raise DataError(
            f"{where}: the header must have {4 + 4 * n_dims} bytes for {n_dims} dimensions. "
            f"Received: {4 + len(sizes)}. The file is truncated; download it again."
        )
    shape = struct.unpack(f">{n_dims}I", sizes)
    if n_dims > 32:
        raise DataError(f"{where}: at most 32 dimensions can be read. Received: {n_dims}.")
    # A size of 0 makes the product 0, but NumPy fails on the product of the other sizes.
    if 0 in shape and math.prod(n for n in shape if n) >= 1 << 60:
        raise DataError(f"{where}: the header claims shape {shape}, which exceeds any memory.")
    return np.dtype(ELEMENT_TYPES[magic[2]]), shape, 4 + 4 * n_dims


def _read_at_most(stream: IO[bytes], n_bytes: int) -> bytearray:
    """Read up to `n_bytes`; memory grows only with the bytes received."""
    content = bytearray()
    while len(content) < n_bytes:
        piece = stream.read(min(CHUNK_BYTES, n_bytes - len(content)))
        if not piece:
            break
        content += piece
    return content
