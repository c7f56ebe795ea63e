"""Injected faults for tests/test_gpu_check.py, which copies this file as `sitecustomize.py`.

NNBACKEND_FAULT selects one: the "recording" fails, the "library" is missing, cuBLASLt has no
algorithm for an "epilogue", or the process is "killed" at its second product.
"""

from __future__ import annotations

import os
import signal
from typing import Any

FAULT = os.environ.get("NNBACKEND_FAULT", "")


def _begin_capture(self: Any) -> None:
    raise RuntimeError("a capture that fails on purpose")


def _kill(*args: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


if FAULT:
    try:
        import stand_in
        import stand_in_blaslt
    except ImportError:  # this process runs no part of the check
        pass
    else:
        model = stand_in_blaslt.Model
        has_algorithm = model._has_algorithm
        if FAULT == "recording":
            stand_in.Stream.begin_capture = _begin_capture
        elif FAULT == "library":
            model.cublasLtCreate = lambda self, handle: 1
        elif FAULT == "epilogue":
            model._has_algorithm = lambda self, epilogue, m: (
                epilogue != 256 and has_algorithm(self, epilogue, m)
            )
        elif FAULT == "killed":
            from benchmarks import gpu_first

            gpu_first.products = _kill
