"""The encoding of a text file, decided from its bytes."""

from __future__ import annotations

import codecs
import gzip
import logging
from pathlib import Path
from typing import IO, cast

from nnbackend.data.gzip_files import is_gzip
from nnbackend.errors import ArgumentError, DataError, Fault, Mention

logger = logging.getLogger("nnbackend")
CHUNK = 1 << 20
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
WINDOWS = "cp1252"  # of Western Europe, where most text is not UTF-8; it contains Latin-1


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, decompressed if it is compressed by gzip."""
    return cast(IO[bytes], gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


def encoding_of(path: Path, encoding: str | None = None) -> str:
    """Return the encoding of a text file; log a note where it is only likely.

    encoding: the one given by the user.
    Raises: ArgumentError for an unknown one.
    """
    if encoding is not None:
        try:
            return codecs.lookup(encoding).name
        except LookupError:
            expected = "the name of an encoding, such as utf-8, utf-16 or cp1252"
            raise ArgumentError(Fault("encoding", expected, encoding)) from None
    with open_bytes(path) as stream:
        start = stream.read(CHUNK)
        if start.startswith(EXCEL):
            raise DataError(
                f"{path.name}: the file must be text. Received: a workbook of Excel or another "
                "office program. Save the sheet as CSV there, or read it with pandas.read_excel."
            )
        for mark, name in MARKS.items():
            if start.startswith(mark):
                return name
        if wide := _utf16(start):
            return wide
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while start:
                decoder.decode(start)
                start = stream.read(CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            logger.warning(
                "%s: the text is not UTF-8 and is read as %s (Western Europe). %s names another "
                "encoding.", path.name, WINDOWS, Mention("encoding", "NAME"),
            )  # fmt: skip
            return WINDOWS
    return "utf-8"


def _utf16(start: bytes) -> str:
    """Return the kind of UTF-16 without a mark, whose Latin letters have a byte 0 each; else ""."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) <= len(start) // 8:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"
