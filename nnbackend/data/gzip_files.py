"""Detection of gzip files by content: browsers unpack some and keep .gz in the name."""

from __future__ import annotations

from pathlib import Path

MAGIC = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """Return True if a file's content is gzip, regardless of its name."""
    with path.open("rb") as stream:
        return stream.read(2) == MAGIC
