"""Atomic writes of files.

The bytes are written to a temporary file beside the target and synced to disk; then the file is
renamed to the target. A crash, a full disk or a lost connection leaves either the old or the new
file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from nnbackend.errors import ArgumentError

# Errors of file systems that do not support fsync of a folder.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`; after an error, the previous file is unchanged.

    One exception: after an OSError that names the folder the new file is complete, but a power
    failure may restore the previous one. A killed process may leave a file `.<name>.<random>.tmp`.

    Raises: ArgumentError for a missing folder, or a path that is not a regular file; OSError when
    writing fails.
    """
    if not path.parent.is_dir():
        raise ArgumentError(
            f"The folder of the file must exist. Received: {path}; {path.parent} is no folder. "
            "Create it first."
        )
    if path.exists() and not path.is_file():
        raise ArgumentError(
            f"The path must be that of a file. Received: {path}, which is a folder or a device. "
            "Choose another path."
        )
    # Keep the permissions of the file that is replaced.
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # it names the temporary file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _sync_folder(path.parent)


def sweep(folder: Path, name: str) -> None:
    """Remove temporary files that killed processes left, of files that match the pattern `name`.

    No other process may be writing such files to the folder.
    """
    for stale in folder.glob(f".{name}.*.tmp"):
        with contextlib.suppress(OSError):
            stale.unlink()


def _sync_folder(folder: Path) -> None:
    """Sync the folder's entries to disk, if the system supports it."""
    if os.name == "nt":  # Windows has no such call
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            reason = f"{error.strerror} (the new file is written, but a power failure may undo it)"
            raise OSError(error.errno, reason, str(folder)) from error
