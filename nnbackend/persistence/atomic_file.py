"""Writing a file whole or not at all.

The bytes go to a temporary file beside the target, reach the disk, and only then take the target's
name, so that a crash, a full disk or a lost connection leaves either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from nnbackend.errors import ArgumentError

# What file systems answer that cannot bring a folder's entries to the disk on request.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`; after an error, the file that was there is still there, unchanged.

    The one exception is an OSError that names the folder: the new file is there, whole, but a power
    cut could still bring the old one back.

    Raises: ArgumentError for a folder that is not there, or a path that is no plain file; OSError
    when writing fails. A process that is killed may leave `.<name>.<random>.tmp` behind.
    """
    if not path.parent.is_dir():
        raise ArgumentError(
            f"The folder of the file must exist. Received: {path}, and {path.parent} is no folder. "
            "Create it first."
        )
    if path.exists() and not path.is_file():
        raise ArgumentError(
            f"A file can only replace a file. Received: {path}, which is a folder or a device. "
            "Give a file's name."
        )
    # Not more readable than the file it replaces.
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
        if isinstance(error, OSError):  # which names the temporary file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _sync_folder(path.parent)


def sweep(folder: Path, name: str) -> None:
    """Remove what killed processes have left behind of files of the pattern `name`.

    The folder must be one into which nobody else is writing such files now.
    """
    for stale in folder.glob(f".{name}.*.tmp"):
        with contextlib.suppress(OSError):
            stale.unlink()


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk, where the system can."""
    if os.name == "nt":  # has no such call
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            reason = f"{error.strerror} (the new file is there, but a power cut could undo it)"
            raise OSError(error.errno, reason, str(folder)) from error
