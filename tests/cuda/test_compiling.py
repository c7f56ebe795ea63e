"""Every built-in kernel compiles for every supported GPU, within limits of resources.

`python tests/cuda/compiling.py` prints the table.
"""

from __future__ import annotations

import re

import pytest
from built_in import distinct_sources, narrow_sources
from compiling import ARCHITECTURES, Needs, compiled, library, needs

from nnbackend_cupy.narrow import Device
from nnbackend_cupy.sources import program

MOST_REGISTERS = 64  # at least 4 blocks of 256 threads fit on a multiprocessor
# In double precision a division, a square root or an exponential needs many: updates hold up to
# two elements of four vectors and their addresses. An output layer holds a number of each of its
# outputs, in blocks of only 64 threads.
EXCEPTIONS = {
    "update_.*_float64": 72,
    "output_.*_float32": 112,
    "output_.*_float64": 160,
    # A thread holds 64 sums, so that memory bandwidth keeps up with the arithmetic; two blocks fit
    # on a multiprocessor.
    "weight_gradient_.*": 128,
    "thin_gradient_.*": 128,
}
MOST_SHARED = 4096
MOST_SHARED_OF = {"weight_gradient_.*": 48 << 10, "thin_gradient_.*": 16 << 10}
# One block of 256 threads per multiprocessor, for thousands of steps: it may use all registers of
# its threads, and all shared memory that needs no opt-in.
MOST_OF_NARROW = Needs(registers=255, stack=0, spilled=0, shared=48 << 10)

LOG = """\
ptxas info    : Compiling entry function 'gather' for 'sm_90'
ptxas info    : Function properties for gather
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1025 bytes smem
"""


@pytest.mark.skipif(library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_within_bounds(architecture: int) -> None:
    sources = distinct_sources()
    found = compiled(program(sources), architecture)
    assert {source.name for source in sources} == set(found)
    beyond = {name: need for name, need in found.items() if not _is_within(name, need)}
    assert not beyond


@pytest.mark.skipif(library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_narrow_networks_compile_within_bounds(architecture: int) -> None:
    sources = narrow_sources(Device(132, architecture))
    found = compiled(program(sources), architecture)
    assert {source.name for source in sources} == set(found)
    most = MOST_OF_NARROW
    for name, need in found.items():
        is_within = need.registers <= most.registers and need.shared <= most.shared
        assert is_within, (name, need)
        assert need.stack == need.spilled == 0, (name, need)


def _is_within(name: str, need: Needs) -> bool:
    most = next((n for p, n in EXCEPTIONS.items() if re.match(p, name)), MOST_REGISTERS)
    shared = next((n for p, n in MOST_SHARED_OF.items() if re.match(p, name)), MOST_SHARED)
    return need.registers <= most and need.spilled == 0 and need.shared <= shared


def test_the_report_of_the_assembler_is_read() -> None:
    assert needs(LOG) == {"gather": Needs(registers=40, stack=8, spilled=4, shared=1025)}
    assert not _is_within("gather", needs(LOG)["gather"])


@pytest.mark.skipif(library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
def test_a_compiler_error_is_raised() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)sm_90.*nothing. is undefined"):
        compiled('extern "C" __global__ void f(int* a) { *a = nothing; }', 90)
