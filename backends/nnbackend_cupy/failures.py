"""What a failed CUDA call means: no memory left, or a device that this process has lost.

Some CUDA errors are sticky: after them every call of the process fails, and only a new process can
use the device again. The caller should learn that once, by name, and not through the error of
whatever call came next.
Source: CUDA Runtime API, cudaError_t ("the process must be terminated and relaunched").
"""

from __future__ import annotations

from typing import Any

import cupy

STICKY = {
    214: "an uncorrectable memory error (ECC)",
    220: "an uncorrectable NVLink error",
    700: "an illegal memory address",
    702: "a kernel that ran too long",
    709: "a destroyed context",
    710: "a failed assertion in a kernel",
    714: "a hardware stack error",
    715: "an illegal instruction",
    716: "a misaligned address",
    717: "an invalid address space",
    718: "an invalid program counter",
    719: "a failed kernel launch",
    721: "a contained memory error",
}


def no_room(device: str, error: Exception) -> str:
    """Return the message for a full device: what was wanted, and how much there is."""
    try:
        free, total = cupy.cuda.runtime.memGetInfo()
        room = f" {free:,} of the device's {total:,} bytes are free."
    except Exception:  # the message must not depend on a device in trouble
        room = ""
    return (
        f"{device} has no room: {str(error).rstrip('.')}.{room} Use a smaller batch_size, "
        "or free the device: nvidia-smi lists who uses it."
    )


def sticky_code(error: BaseException) -> int | None:
    """Return the CUDA code of a sticky error, None for any other.

    A library (cuBLASLt, NVRTC) reports a lost device under a code of its own, so the device itself
    is asked.
    """
    status: Any = getattr(error, "status", None)
    if status in STICKY:
        return int(status)
    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError as second:
        return int(second.status) if second.status in STICKY else None
    except Exception:
        return None
    return None


def lost(device: str, code: int, error: BaseException) -> str:
    """Return the message for a device that this process cannot use any more."""
    return (
        f"{device} is lost to this process after {STICKY[code]} (CUDA error {code}: {error}). "
        "Every further call would fail. Files already written are whole: start a new process and "
        "resume from the last checkpoint (--resume RUN). If it happens again, run it under "
        "compute-sanitizer and report what it finds."
    )
