"""The records by which a backend describes itself and its devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nnbackend.backend.base import API_VERSION, Backend


@dataclass(frozen=True)
class Device:
    """One device of a library that has several types of devices, such as PyTorch.

    type: the library's name of the type, such as "mps" in torch:mps:0.  kind: "cpu" or "gpu".
    index: its number among the devices of its type, from 0.
    """

    type: str
    kind: str
    index: int = 0


@dataclass(frozen=True)
class Probe:
    """The devices that a backend found on this machine.

    device_count: the number of devices, all of the spec's kind; or `devices`, a list of them.
    reason, cure: why no device is usable, and the command that fixes it.
    details: facts to display, such as ("BLAS", "OpenBLAS 0.3.31").
    """

    device_count: int = 0
    reason: str = ""
    cure: str = ""
    details: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if self.devices:
            object.__setattr__(self, "device_count", len(self.devices))


@dataclass(frozen=True)
class BackendSpec:
    """The object of an entry point: light to import, loads the array library only on demand.

    kind: "cpu" or "gpu", of all devices unless the probe lists them with their kinds.
    priority: within a kind, the backend with the highest is chosen.  probe(): never raises.
    load(n): returns the backend of device n, in the order of the probe.
    """

    name: str
    kind: str
    priority: int
    probe: Callable[[], Probe]
    load: Callable[[int], Backend]
    version: Callable[[], str] = field(default=lambda: "")
    api_version: int = API_VERSION


@dataclass(frozen=True)
class BackendRow:
    """One line of `nnbackend.backends()`.

    devices: the device strings, such as "cupy:0".  kinds: the kind of each device.
    kind: that of the first one, or of the spec if there is none.
    """

    name: str
    kind: str
    usable: bool
    reason: str
    cure: str
    version: str
    devices: tuple[str, ...]
    distribution: str
    details: tuple[tuple[str, str], ...] = ()
    kinds: tuple[str, ...] = ()
