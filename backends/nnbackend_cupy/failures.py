"""Convert errors of CUDA: no memory left, or a device that this process has lost.

Allocations fail in many places (an array, a workspace of cuBLASLt, a module, a stream, a graph),
each with a different error; all become `DeviceMemoryError`, after which callers try smaller parts.

Some CUDA errors are sticky: after them every call of the process fails, and only a new process can
use the device again. They become one `DeviceLostError`, instead of the error of the next call.
Source: CUDA Runtime API, cudaError_t ("the process must be terminated and relaunched").
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import cupy
from cupy.cuda.memory import OutOfMemoryError

from nnbackend.errors import DeviceLostError, DeviceMemoryError

# The code for "no memory", by the error class of the library that reports it.
NO_MEMORY = {"CUDARuntimeError": 2, "CUDADriverError": 2, "CUBLASError": 3}
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


class AllocationFailed(MemoryError):
    """A library that is called without CuPy could not allocate device memory."""


def raise_meaning(device: str, error: Exception) -> None:
    """Raise DeviceMemoryError or DeviceLostError if an error means that; else return."""
    if isinstance(error, DeviceMemoryError):  # raised from itself it would be a reference cycle
        return
    if is_out_of_memory(error):
        raise no_memory(device, error) from error
    if not isinstance(error, MemoryError) and is_from_cuda(error):
        code = sticky_code(error)
        if code is not None:
            raise DeviceLostError(lost(device, code, error)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error of CuPy or CUDA that means that the device has no memory left."""
    if isinstance(error, (OutOfMemoryError, AllocationFailed, DeviceMemoryError)):
        return True
    code = NO_MEMORY.get(type(error).__name__)
    return code is not None and is_from_cuda(error) and getattr(error, "status", None) == code


def is_from_cuda(error: BaseException) -> bool:
    """Return True for an error of CuPy or of a library that CuPy calls."""
    return type(error).__module__.partition(".")[0] in ("cupy", "cupy_backends")


def no_memory(device: str, error: BaseException) -> DeviceMemoryError:
    """Return the error for a full device, with the requested and the free memory."""
    free = total = None
    with suppress(Exception):  # the query may fail too
        free, total = map(int, cupy.cuda.runtime.memGetInfo())
    return DeviceMemoryError.on(
        device, getattr(error, "_size", None), free, total,
        cause=str(error), cure="nvidia-smi lists the processes that hold the GPU.",
    )  # fmt: skip


def free_memory() -> None:
    """Free the unused blocks of CuPy's pool, for allocations outside of CuPy."""
    cupy.get_default_memory_pool().free_all_blocks()


def sticky_code(error: BaseException) -> int | None:
    """Return the CUDA code of a sticky error, None for any other.

    Libraries (cuBLASLt, NVRTC) report a lost device with their own codes, so the device is queried.
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
