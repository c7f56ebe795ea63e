"""Compile kernels for real GPUs on a machine without one, and read their resource usage.

This needs only the wheel `nvidia-cuda-nvrtc`: no driver, no toolkit, no CuPy. Print the table with
python tests/cuda/compiling.py [80 90 ...]
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from emulator import kept_folder

WHEELS = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")
ARCHITECTURES = (80, 90, 100, 120)
# The same compiler options as CuPy's.
OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")


@dataclass(frozen=True)
class Needs:
    """The resources of a kernel, in registers and bytes per thread."""

    registers: int
    stack: int
    spilled: int
    shared: int


@cache
def library() -> Any:
    """Return NVRTC, or None if the wheel is not installed."""
    for wheel in WHEELS:
        try:
            files = importlib.metadata.distribution(wheel).files or []
        except importlib.metadata.PackageNotFoundError:
            continue
        paths = sorted(str(file.locate()) for file in files)
        # NVRTC loads the first library later by its bare name, which works if it is loaded.
        for pattern in (r"libnvrtc-builtins\.so[\d.]*$", r"libnvrtc\.so\.\d+$"):
            loaded = [ctypes.CDLL(path) for path in paths if re.search(pattern, path)]
        loaded[0].nvrtcGetErrorString.restype = ctypes.c_char_p
        return loaded[0]
    return None


def compiled(source: str, architecture: int) -> dict[str, Needs]:
    """Compile a program for sm_<architecture>; return the resources of each kernel.

    The compiler's report is cached on disk under a hash of the text, because all kernels together
    take half a minute for each architecture.
    """
    content = repr((source, architecture, OPTIONS, _version()))
    digest = hashlib.sha256(content.encode()).hexdigest()
    kept = kept_folder() / f"nvrtc-{digest[:24]}.txt"
    if not kept.exists():
        log = _compile(source, architecture)
        with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False) as file:
            file.write(log)
        os.replace(file.name, kept)
    return needs(kept.read_text(encoding="utf-8"))


def _version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def _compile(source: str, architecture: int) -> str:
    """Compile to a cubin and return the report. Raise RuntimeError on an error or a warning."""
    nvrtc, program = library(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [f"-arch=sm_{architecture}", "--ptxas-options=-v", *OPTIONS]
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), texts)
    log = _take(program, "ProgramLog").rstrip(b"\0").decode()
    if failed:
        raise RuntimeError(f"sm_{architecture}: {nvrtc.nvrtcGetErrorString(failed)}\n{log}")
    if re.search(r"warning", log):
        raise RuntimeError(f"sm_{architecture} compiles with warnings:\n{log}")
    is_made = len(_take(program, "CUBIN")) > 1
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if not is_made:
        raise RuntimeError(f"sm_{architecture}: NVRTC returned no cubin")
    return log


def _take(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    room = ctypes.create_string_buffer(size.value)
    getattr(library(), f"nvrtcGet{what}")(program, room)
    return room.raw


def needs(log: str) -> dict[str, Needs]:
    """Read the assembler's report."""
    found: dict[str, Needs] = {}
    for part in log.split("Compiling entry function '")[1:]:
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", part)
        used = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        assert frame is not None
        assert used is not None, part
        found[part.partition("'")[0]] = Needs(
            int(used[1]), int(frame[1]), int(frame[2]), int(shared[1]) if shared else 0
        )
    return found


def table(source: str, architectures: Iterable[int]) -> str:
    """Return the resources of every kernel on each architecture, as lines of text."""
    lines: dict[str, list[str]] = {}
    heads = []
    for architecture in architectures:
        begin = time.perf_counter()
        found = compiled(source, architecture)
        seconds = time.perf_counter() - begin
        heads.append(f"sm_{architecture}: {len(found)} kernels, {seconds:.1f} s")
        for name, need in found.items():
            text = f"{need.registers:3} {need.stack:5} {need.spilled:5} {need.shared:5}"
            lines.setdefault(name, []).append(text)
    width = max(map(len, lines))
    heads.append(f"{'registers, stack, spilled, shared bytes':{width}}")
    return "\n".join([*heads, *(f"{name:{width}} {' |'.join(v)}" for name, v in lines.items())])


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path += [str(root), str(root / "backends")]
    from built_in import distinct_sources

    from nnbackend_cupy.sources import program

    if library() is None:
        sys.exit("the wheel nvidia-cuda-nvrtc is not installed: pip install nvidia-cuda-nvrtc")
    print(table(program(distinct_sources()), map(int, sys.argv[1:] or ARCHITECTURES)))
