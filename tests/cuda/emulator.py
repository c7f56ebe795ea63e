"""Run CUDA kernels on the host: the same text, compiled by g++ against `cuda_host.h`.

`compile_on_host(source, name)` returns a function with the arguments of a cupy.RawKernel. Arrays
may be NumPy's or anything with `__array_interface__`. Each launch uses guarded copies of its
arrays, so that a write outside an array is detected and a read outside it gives NaN.

By default, the first launches of a kernel on a grid run twice, from the same memory, with two
orders of threads: as numbered, and one drawn from the launch's arguments, so that it does not
depend on other tests. Both must give the same bits, since the kernels sum in fixed orders: this
detects missing barriers. `NNBACKEND_EMULATED_ORDER` sets one order for all launches.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import shutil
import subprocess
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("cuda_host.h")
ORDER = "NNBACKEND_EMULATED_ORDER"
ORDERS = (0, 1, 2, 4)  # as numbered, backwards, shuffled, shuffled with warps that lag
DRAWN = range(2, 64)  # the orders to draw from; most of them have warps that lag
FIRST = 3  # launches that run twice; a training run makes hundreds of each
FLAGS = (
    *("-O1", "-std=c++17", "-w", "-shared", "-fPIC", "-U_FORTIFY_SOURCE"),
    *("-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"),
)
GUARD, ALIGNMENT, POISON = 4096, 256, 0xFF
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
_lock = threading.Lock()

# Why kernels cannot be emulated here; None if they can.
LACKING = None if shutil.which("g++") else "g++ is not installed, which compiles emulated kernels"


class EmulationError(Exception):
    """A kernel did something on the host that is invalid on a device."""


def compile_on_host(
    source: str, name: str, order: int | None = None, is_resident: bool = False
) -> HostKernel:
    """Compile a program and return one of its kernels, cached on disk under a hash of the text.

    is_resident: all its blocks run at once, as in a cooperative launch or a cluster.
    """
    return HostKernel(_library(source), name, order, is_resident)


def kept_folder() -> Path:
    """Return the folder of compiled kernels, one per user."""
    folder = Path(tempfile.gettempdir()) / f"nnbackend-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@cache
def _stacks(size: int) -> tuple[int, Any]:
    """Return the address of memory for the stacks of one launch, and its owner."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)), memory


@cache
def _library(source: str) -> ctypes.CDLL:
    names = _KERNEL.findall(source)
    shims = "".join(f"EMULATED_KERNEL({name})\n" for name in names)
    text = f'#include "cuda_host.h"\n{source}\n{shims}'
    digest = hashlib.sha256(HEADER.read_bytes() + repr(FLAGS).encode() + text.encode())
    folder = kept_folder()
    target = folder / f"{digest.hexdigest()[:24]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as made:
            built = Path(made) / "kernels.so"
            (Path(made) / "kernels.cpp").write_text(text, encoding="utf-8")
            command = ["g++", *FLAGS, f"-I{HEADER.parent}", "-o", str(built)]
            done = subprocess.run(
                [*command, str(Path(made) / "kernels.cpp")], capture_output=True, text=True
            )
            if done.returncode:
                raise EmulationError(f"g++ refuses {names}:\n{done.stderr}")
            os.replace(built, target)  # atomic: another process may build the same file
    return ctypes.CDLL(str(target))


class HostKernel:
    """A kernel that is called like a cupy.RawKernel."""

    def __init__(
        self,
        library: ctypes.CDLL,
        name: str,
        order: int | None = None,
        is_resident: bool = False,
    ) -> None:
        self.name, self.order, self.is_resident = name, order, is_resident
        self._launches: Counter[bytes] = Counter()  # by grid and block
        self._run = getattr(library, f"run_{name}")
        text = ctypes.create_string_buffer(1000)
        getattr(library, f"describe_{name}")(text)
        self.kinds = text.value.decode().split()
        library.emulated_stacks.restype = ctypes.c_ulong
        self._stacks = ctypes.c_void_p(_stacks(library.emulated_stacks())[0])

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0
    ) -> None:
        shape = (ctypes.c_uint * 7)(*_three(grid), *_three(block), self.is_resident)
        if min(shape[:6]) < 1 or np.prod(shape[3:6]) > 1024 or max(shape[1:3]) > 65535:
            raise EmulationError(f"{self.name}: no such launch: grid={grid}, block={block}")
        if shared_mem:
            raise EmulationError(f"{self.name}: dynamic shared memory is not emulated")
        self._check(args)
        asked = os.environ.get(ORDER) if self.order is None else self.order
        memory = self._launch(shape, args, int(asked or 0))
        self._launches[bytes(shape)] += 1
        if asked is None and self._launches[bytes(shape)] <= FIRST:
            order = self._drawn_order(shape, args)
            if self._launch(shape, args, order).bits() != memory.bits():
                raise EmulationError(
                    f"{self.name}: threads in the orders 0 and {order} give different bits"
                )
        memory.write_back(self.name)

    def _drawn_order(self, shape: Any, args: Sequence[Any]) -> int:
        digest = zlib.crc32(bytes(shape)[:24])  # the grid and the block
        for value, kind in zip(args, self.kinds, strict=True):
            begin, end = _bounds(value) if "*" in kind else (0, 0)
            bits = ctypes.string_at(begin, end - begin) if "*" in kind else value.tobytes()
            digest = zlib.crc32(bits, digest)
        return DRAWN[digest % len(DRAWN)]

    def _launch(self, shape: Any, args: Sequence[Any], order: int) -> _Guarded:
        """Run the kernel on copies of its arrays, and return the copies."""
        memory = _Guarded([a for a, kind in zip(args, self.kinds, strict=True) if "*" in kind])
        values = [
            np.array([memory.address(a)], np.uintp) if "*" in kind else np.array([a])
            for a, kind in zip(args, self.kinds, strict=True)
        ]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        error = ctypes.create_string_buffer(400)
        with _lock:  # all launches share the stacks
            failed = self._run(shape, order, pointers, self._stacks, error, len(error))
        if failed:
            raise EmulationError(f"{self.name}, threads in order {order}: {error.value.decode()}")
        return memory

    def _check(self, args: Sequence[Any]) -> None:
        """Check the types of the arguments; a device would accept any bits."""
        if len(args) != len(self.kinds):
            raise EmulationError(f"{self.name} takes {len(self.kinds)} arguments, got {len(args)}")
        for i, (value, kind) in enumerate(zip(args, self.kinds, strict=True)):
            is_array = not isinstance(value, np.generic) and hasattr(value, "__array_interface__")
            given = np.dtype(getattr(value, "dtype", object)).char.replace("l", "q")
            given = given.replace("L", "Q") + "*" * is_array
            if given != kind:
                raise EmulationError(
                    f"{self.name}: argument {i} must be {kind!r}. Received: {given!r}."
                )


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*map(int, sizes), 1, 1)[:3]


def _bounds(array: Any) -> tuple[int, int]:
    """Return the address of an array and the address after its end."""
    face = array.__array_interface__
    shape, itemsize = face["shape"], int(face["typestr"][2:])
    begin = end = face["data"][0]
    if 0 in shape:
        return begin, begin
    steps = face.get("strides") or np.empty(shape, face["typestr"]).strides
    for n, step in zip(shape, steps, strict=True):
        begin, end = begin + min(0, (n - 1) * step), end + max(0, (n - 1) * step)
    return begin, end + itemsize


class _Guarded:
    """Copies of the memory of some arrays, with guard zones around each piece.

    Overlapping arrays share a piece, so that they overlap in the copy too.
    """

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.pieces: list[tuple[int, int, np.ndarray, int]] = []  # begin, end, copy, its begin
        pieces: list[list[int]] = []
        for begin, end in sorted(map(_bounds, arrays)):
            if pieces and begin < pieces[-1][1]:
                pieces[-1][1] = max(end, pieces[-1][1])
            else:
                pieces.append([begin, end])
        for begin, end in pieces:
            copy = np.full(end - begin + 2 * GUARD + ALIGNMENT, POISON, np.uint8)
            # With the alignment of the array itself, not a better one.
            shift = (begin - copy.ctypes.data - GUARD) % ALIGNMENT + GUARD
            ctypes.memmove(copy.ctypes.data + shift, begin, end - begin)
            self.pieces.append((begin, end, copy, shift))

    def address(self, array: Any) -> int:
        """Return the address of an array's first element in the copies."""
        (begin, end), first = _bounds(array), array.__array_interface__["data"][0]
        start, copy, shift = next(
            (b, copy, shift) for b, e, copy, shift in self.pieces if b <= begin and end <= e
        )
        return int(copy.ctypes.data) + shift + first - start

    def bits(self) -> list[bytes]:
        """Return the contents of the copies, without the guards."""
        return [copy[shift:][: end - begin].tobytes() for begin, end, copy, shift in self.pieces]

    def write_back(self, name: str) -> None:
        """Check the guards, and copy changed memory back to the arrays."""
        for begin, end, copy, shift in self.pieces:
            size = end - begin
            for zone, where in ((copy[:shift], "before"), (copy[shift + size :], "behind")):
                if (zone != POISON).any():
                    raise EmulationError(f"{name} wrote {where} an array of {size} bytes")
            if ctypes.string_at(begin, size) != copy[shift : shift + size].tobytes():
                ctypes.memmove(begin, copy.ctypes.data + shift, size)
