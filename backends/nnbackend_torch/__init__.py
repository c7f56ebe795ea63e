"""PyTorch's devices: CPU, CUDA and ROCm, Apple's MPS, Intel's XPU.

Importing this package does not import PyTorch; the probe does if there may be a GPU.
"""

from __future__ import annotations

from nnbackend.backend import Backend, BackendSpec, Probe


def _probe() -> Probe:
    from nnbackend_torch.probe import probe

    return probe()


def _version() -> str:
    from nnbackend_torch.probe import version

    return version()


def _load(place: int) -> Backend:
    from nnbackend_torch.backend import TorchBackend
    from nnbackend_torch.cpu import TorchCPU
    from nnbackend_torch.cuda import TorchCUDA
    from nnbackend_torch.probe import devices

    found = devices()[place]
    if found.type == "cpu":
        return TorchCPU()
    return TorchCUDA(found.index) if found.type == "cuda" else TorchBackend(found.type, found.index)


SPEC = BackendSpec(name="torch", kind="gpu", priority=5, probe=_probe, load=_load, version=_version)
