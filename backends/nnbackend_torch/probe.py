"""The devices of PyTorch here; it is imported only if there may be a GPU, as that takes 1 s."""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from nnbackend.backend.spec import Device, Probe

NEEDED = {"torch": "torch", "array_api_compat": "array-api-compat"}
# Files of drivers: NVIDIA's, AMD's, Intel's.
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/dri")


@cache
def probe() -> Probe:
    """Return PyTorch's devices; without it, the command that installs it."""
    for module, package in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            return Probe(reason=f"{package} is not installed", cure=f"pip install {package}")
    return Probe(devices=devices())


def version() -> str:
    """Return PyTorch's version."""
    return f"PyTorch {metadata.version('torch')}"


@cache
def devices() -> tuple[Device, ...]:
    """Return all devices, GPUs first, as `torch` alone means the first."""
    return (*(_gpus() if _may_have_gpus() else ()), Device("cpu", "cpu"))


def _may_have_gpus() -> bool:
    """Return False if this PyTorch, or this machine, has no GPU."""
    if platform.system() == "Linux":
        is_cpu_only = metadata.version("torch").endswith("+cpu")
        return not is_cpu_only and any(Path(path).exists() for path in DRIVERS)
    return (platform.system(), platform.machine()) in (("Darwin", "arm64"), ("Windows", "AMD64"))


def _gpus() -> tuple[Device, ...]:
    import torch

    found: list[Device] = []
    for kind in ("cuda", "xpu"):  # AMD's GPUs are "cuda" too
        module = getattr(torch, kind, None)
        if module is not None and module.is_available():
            found += [Device(kind, "gpu", index) for index in range(module.device_count())]
    if torch.backends.mps.is_available():
        found.append(Device("mps", "gpu"))
    return tuple(found)
